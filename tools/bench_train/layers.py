"""The layers of the recipes' models, one by one: for counting, and for another framework."""

from collections.abc import Iterator
from typing import NamedTuple

from unet.model import FCN, UNet


class Layer(NamedTuple):
    """A convolution.

    Attributes:
        side: Of its kernel.
        inputs: Channels.
        outputs: Likewise.
        scale: What the height of its output is divided by, against the image's.
        more: Pixels that this height has besides, where convolutions are not padded.
        is_transposed: Whether it doubles the height of its input; else it keeps or halves it.
    """

    side: int
    inputs: int
    outputs: int
    scale: float
    more: int = 0
    is_transposed: bool = False


def flops(model: UNet | FCN, height: int, width: int) -> float:
    """Multiplications and additions of the convolutions for one image, forward."""
    total = 0.0
    for layer in layers(model):
        pixels = (height / layer.scale + layer.more) * (width / layer.scale + layer.more)
        if layer.is_transposed:  # it multiplies at each pixel of its input
            pixels /= 4
        total += 2 * layer.side**2 * layer.inputs * layer.outputs * pixels
    return total


def layers(model: UNet | FCN) -> Iterator[Layer]:
    """The convolutions of a model."""
    if isinstance(model, FCN):
        yield from _fcn(model)
        return
    first, widths = model.stem_stride, model.filters
    inputs = 3 * first**2
    lost = 2 if model.padding == "valid" else 0  # by a convolution, of height and width
    more = 4 * model.margins[0] // first  # as if a level were above the first
    for level, filters in enumerate(widths):
        more //= 2
        for _ in range(model.convolutions):
            more -= lost
            yield Layer(3, inputs, filters, first * 2**level, more)
            inputs = filters
    for level in range(len(widths) - 2, -1, -1):
        filters, scale, more = widths[level], first * 2**level, 2 * more
        if model.upsampling == "transposed":
            yield Layer(model.transposed_kernel, inputs, filters, scale, more, is_transposed=True)
            inputs = filters
        inputs += filters if model.skips else 0
        for _ in range(model.convolutions):
            more -= lost
            yield Layer(3, inputs, filters, scale, more)
            inputs = filters
    if first == 2 and model.upsampling == "transposed":
        yield Layer(model.transposed_kernel, inputs, inputs, 1, is_transposed=True)
    inputs += 3 * model.image_skip
    if model.head_filters:
        yield Layer(3, inputs, model.head_filters, 1)
        inputs = model.head_filters
    yield Layer(1, inputs, model.output_channels, 1)


def _fcn(model: FCN) -> Iterator[Layer]:
    inputs = 3
    for level, filters in enumerate(model.filters):
        for _ in range(2):
            yield Layer(3, inputs, filters, 2 ** (level + 1))
            inputs = filters
    for level in range(len(model.filters) - 1, -1, -1):
        filters = model.filters[level]
        # The first keeps the size, which costs as much as a plain convolution.
        yield Layer(3, inputs, filters, 2 ** (level + 1))
        yield Layer(3, filters, filters, 2**level, is_transposed=True)
        inputs = filters
    yield Layer(3, inputs, model.output_channels, 1)

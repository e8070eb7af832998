"""The U-Net, and a plain encoder and decoder without skips.

The input is uint8 [B, H, W, 3] of any height and width that the stride divides, the output is
logits, float32 [B, H, W, C], whatever the precision policy. The model scales its own input, so
training and serving cannot differ; `serving` adds what makes probabilities of logits. All of it are
Keras's own layers and operations: a saved model opens without this package.

No dataset, loss or file is known here. Keras is imported when a model is built, so that settings
can be read and checked without it.
"""

# Keras ships no stubs: a checker takes what its ops return for None.
# pyright: reportOptionalOperand=false, reportOperatorIssue=false, reportOptionalSubscript=false

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

from unet.saved import require

if TYPE_CHECKING:
    import keras

Head = Literal["sigmoid", "softmax", "linear"]

_MOST_LEVELS, _MOST_FILTERS, _MOST_CLASSES = 16, 1 << 16, 255  # far beyond common use


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNet:
    """The settings of a U-Net; `build` makes it."""

    filters: tuple[int, ...] = (16, 32, 64, 128, 256)
    """Filters of each level, full resolution first; the last one is the bottom."""

    convolutions: int = 2
    """3×3 convolutions in each level, on the way down and again on the way up."""

    padding: Literal["same", "valid"] = "same"
    """Of the convolutions of the levels: pad features with zeros; or not, as published, for which
    the image is mirrored at its edges, so that the output is as large as the image."""

    dropout: tuple[float, ...] = ()
    """Rate of each level, or of each block down and up again, or one for all; applied after each
    convolution but a block's last."""

    batch_norm: bool = False
    """Normalise after each 3×3 convolution, before its activation; the running means for
    inference take some hundreds of steps to settle."""

    activation: str = "relu"
    """Any activation Keras knows by name: relu, elu, leaky_relu, …"""

    initializer: str = "glorot_uniform"
    """Of the 3×3 convolutions: any initializer Keras knows by name."""

    upsampling: Literal["nearest", "transposed"] = "nearest"
    """Repeat each value, or learn a transposed convolution."""

    transposed_kernel: int = 2
    """Side of the transposed convolutions: 2 or 3."""

    skips: bool = True
    """Concatenate each level of the encoder to the same level of the decoder."""

    stem_stride: int = 1
    """2 folds each 2×2 patch of the input into channels and works at half the resolution."""

    image_skip: bool = False
    """Concatenate the image to the features of full resolution at the end; for a stem of 2."""

    standardise: bool = False
    """Subtract each image's mean and divide by its standard deviation; for dim images."""

    head_filters: int = 0
    """Filters of one more 3×3 convolution before the last one; 0 for none."""

    output_channels: int = 1
    """1, or with softmax the number of classes."""

    output_activation: Head = "sigmoid"
    """Activation of the last convolution, to probabilities; linear for regression."""

    def __post_init__(self) -> None:
        _require_filters(self.filters)
        require(0 < self.convolutions <= 100, "convolutions", self.convolutions, "1 to 100")
        require(self.padding in ("same", "valid"), "padding", self.padding, "same or valid")
        require(
            len(self.dropout) in (0, 1, len(self.filters), 2 * len(self.filters) - 1),
            "dropout",
            self.dropout,
            f"one rate for each of the {len(self.filters)} levels, one for each of the "
            f"{2 * len(self.filters) - 1} blocks down and up, one for all, or none",
        )
        require(all(0 <= p < 1 for p in self.dropout), "dropout", self.dropout, "rates in [0, 1)")
        require(
            self.upsampling in ("nearest", "transposed"),
            "upsampling",
            self.upsampling,
            "nearest or transposed",
        )
        require(
            self.transposed_kernel in (2, 3), "transposed_kernel", self.transposed_kernel, "2 or 3"
        )
        require(self.stem_stride in (1, 2), "stem_stride", self.stem_stride, "1 or 2")
        require(
            0 <= self.head_filters <= _MOST_FILTERS,
            "head_filters",
            self.head_filters,
            f"0 to {_MOST_FILTERS:,}",
        )
        _require_head(self.output_channels, self.output_activation)

    @property
    def stride(self) -> int:
        """Height and width must be divisible by it."""
        return self.stem_stride * 2 ** (len(self.filters) - 1)

    @property
    def least(self) -> int:
        """The smallest height and width; larger than the margin that is mirrored."""
        return (self.margins[0] // self.stride + 1) * self.stride

    @property
    def margins(self) -> tuple[int, tuple[int, ...], int]:
        """How far the image is mirrored, and what unpadded convolutions need cut off again.

        Pixels at each side: of the image, of the skip of each level, of the features at the end.
        """
        if self.padding == "same":
            return 0, (0,) * (len(self.filters) - 1), 0
        lost = 2 * self.convolutions  # by a block, of height and width
        # Sizes are counted as what they have more than the image at their resolution. Those on the
        # way up must be halved without a rest, for which the last is made larger as far as needed.
        end = -2
        up: list[int] = []
        while len(up) < len(self.filters):
            end += 2
            up = [end]
            while len(up) < len(self.filters) and (up[-1] + lost) % 2 == 0:
                up.append((up[-1] + lost) // 2)
        below, cut = up[-1] + lost, list[int]()
        for risen in up[:0:-1]:
            cut.append(below - risen)
            below = 2 * below + lost
        return self.stem_stride * below // 2, tuple(cut[::-1]), end // 2

    @property
    def rates(self) -> tuple[float, ...]:
        """Dropout of each block, on the way down and up again."""
        levels = len(self.filters)
        if len(self.dropout) in (0, 1):
            return (self.dropout or (0.0,)) * (2 * levels - 1)
        return self.dropout + (self.dropout[-2::-1] if len(self.dropout) == levels else ())

    @property
    def parameters(self) -> int:
        """The number of parameters, running means of batch normalisation included."""
        normalised = 4 if self.batch_norm else 0
        side = self.transposed_kernel if self.upsampling == "transposed" else 0

        def block(inputs: int, outputs: int) -> int:
            widths = [inputs] + [outputs] * self.convolutions
            layers = sum(_parameters(3, *pair) for pair in itertools.pairwise(widths))
            return layers + self.convolutions * normalised * outputs

        widths = [3 * self.stem_stride**2, *self.filters]
        count = sum(block(*pair) for pair in itertools.pairwise(widths))
        for upper, lower in itertools.pairwise(self.filters):
            risen = upper if side else lower
            count += _parameters(side, lower, upper) if side else 0
            count += block(risen + (upper if self.skips else 0), upper)
        first = self.filters[0]
        if self.stem_stride == 2 and side:
            count += _parameters(side, first, first)
        first += 3 * self.image_skip
        if self.head_filters:
            count += _parameters(3, first, self.head_filters)
        return count + _parameters(1, self.head_filters or first, self.output_channels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FCN:
    """The settings of a plain encoder and decoder without skips; `build` makes it.

    Each level has two 3×3 convolutions, the first of stride 2, and on the way up two transposed
    ones, the second of stride 2. The last convolution is 3×3 too.
    """

    filters: tuple[int, ...] = (64, 128, 256)
    """Filters of each level, the highest resolution first."""

    activation: str = "relu"
    """Any activation Keras knows by name: relu, elu, leaky_relu, …"""

    initializer: str = "he_normal"
    """Of all convolutions but the last: any initializer Keras knows by name."""

    output_channels: int = 1
    """1, or with softmax the number of classes."""

    output_activation: Head = "sigmoid"
    """Activation of the last convolution, to probabilities; linear for regression."""

    def __post_init__(self) -> None:
        _require_filters(self.filters)
        _require_head(self.output_channels, self.output_activation)

    @property
    def stride(self) -> int:
        """Height and width must be divisible by it."""
        return 2 ** len(self.filters)

    @property
    def least(self) -> int:
        """The smallest height and width."""
        return self.stride

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        down = [3, *(n for filters in self.filters for n in (filters, filters))]
        up = [self.filters[-1], *(n for filters in self.filters[::-1] for n in (filters, filters))]
        layers = [*itertools.pairwise(down), *itertools.pairwise(up)]
        layers.append((self.filters[0], self.output_channels))
        return sum(_parameters(3, inputs, outputs) for inputs, outputs in layers)


def build(settings: UNet | FCN) -> keras.Model:
    """Builds a model with fresh weights, under the current precision policy.

    Every convolution has a bias, also before batch normalisation, where it has no effect:
    published parameter counts include it.

    Args:
        settings: Of the model.

    Returns:
        A model from uint8 [B, H, W, 3] to logits float32 [B, H, W, C], or with a linear head to the
        numbers themselves.

    Raises:
        ValueError: If Keras knows no such activation or initializer.

    Source: Ronneberger, Fischer and Brox, "U-Net", MICCAI 2015.
    """
    import keras
    from keras import layers

    image = layers.Input((None, None, 3), dtype="uint8", name="image")
    with _channels_last():
        logits = _unet(image, settings) if isinstance(settings, UNet) else _fcn(image, settings)
    output = layers.Activation("linear", dtype="float32", name="logits")(logits)
    return keras.Model(image, output, name=type(settings).__name__.lower())


def require_known(settings: UNet | FCN) -> None:
    """Raises ValueError if Keras has no such activation, or initializer of kernels.

    It draws random numbers: use it before the seed of a training is set.
    """
    import keras

    known: Any = {
        "activation": (keras.activations.get, keras.ops.zeros((1, 2))),
        "initializer": (keras.initializers.get, (3, 3, 1, 1)),
    }
    for name, (get, given) in known.items():
        value, default = getattr(settings, name), getattr(type(settings), name)
        try:
            get(value)(given)
        except (ValueError, TypeError, KeyError):
            require(False, name, value, f"the name of one that Keras has, such as {default}")


def serving(network: Any, activation: Head) -> keras.Model:
    """The same layers, and probabilities instead of logits.

    Args:
        network: From `build`.
        activation: Of its settings.

    Returns:
        A model from uint8 [B, H, W, 3] to probabilities float32 [B, H, W, C].
    """
    import keras
    from keras import layers

    output = layers.Activation(activation, dtype="float32", name="output")
    made: Any = keras.Model(network.inputs[0], output(network.outputs[0]), name=network.name)
    made.jit_compile = network.jit_compile
    return made


@contextlib.contextmanager
def _channels_last() -> Iterator[None]:
    """Builds layers for [B, H, W, C], whatever `image_data_format` the user's keras.json says."""
    import keras

    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)


def _unet(image, settings: UNet):
    from keras import layers

    margin, cut, end = settings.margins
    image = _scaled(image, standardise=settings.standardise)
    features = _folded(_mirrored(image, margin), settings.stem_stride)
    *above, bottom = range(len(settings.filters))
    skips = []
    for level in above:
        features = _convolve(features, settings, level, block=level)
        skips.append(features)
        features = layers.MaxPooling2D()(features)
    features = _convolve(features, settings, bottom, block=bottom)
    for level in reversed(above):
        features = _upsample(features, settings, level)
        if settings.skips:
            features = layers.Concatenate()([features, _cropped(skips[level], cut[level])])
        features = _convolve(features, settings, level, block=2 * bottom - level)
    features = _cropped(features, end)
    if settings.stem_stride == 2:
        features = _upsample(features, settings, 0)
    if settings.image_skip:
        features = layers.Concatenate()([features, image])
    if settings.head_filters:
        features = layers.Conv2D(
            settings.head_filters,
            3,
            padding="same",
            activation=settings.activation,
            kernel_initializer=settings.initializer,
        )(features)
    return layers.Conv2D(settings.output_channels, 1, name="head")(features)


def _fcn(image, settings: FCN):
    from keras import layers

    features = _scaled(image)
    levels = settings.filters
    plan = [(layers.Conv2D, n, stride) for n in levels for stride in (2, 1)]
    plan += [(layers.Conv2DTranspose, n, stride) for n in levels[::-1] for stride in (1, 2)]
    for layer, filters, stride in plan:
        features = layer(
            filters,
            3,
            strides=stride,
            padding="same",
            activation=settings.activation,
            kernel_initializer=settings.initializer,
        )(features)
    return layers.Conv2D(settings.output_channels, 3, padding="same", name="head")(features)


def _scaled(image, *, standardise: bool = False):
    """Float32 in [0, 1], or of mean 0 and deviation 1."""
    from keras import ops

    features = ops.cast(image, "float32") / 255
    if not standardise:
        return features
    mean = ops.mean(features, axis=(1, 2, 3), keepdims=True)
    deviation = ops.std(features, axis=(1, 2, 3), keepdims=True)
    # One grey level more, so that noise is not amplified.
    return (features - mean) / (deviation + 1 / 255)


def _folded(features, patch: int):
    """Each patch of [B, H, W, C] as channels: [B, H / patch, W / patch, patch² · C]."""
    from keras import ops

    if patch == 1:
        return features
    corners = [features[:, y::patch, x::patch] for y in range(patch) for x in range(patch)]
    return ops.concatenate(corners, axis=-1)


def _mirrored(features, margin: int):
    from keras import ops

    sides = [(0, 0), (margin, margin), (margin, margin), (0, 0)]
    return ops.pad(features, sides, mode="reflect") if margin else features


def _cropped(features, margin: int):
    from keras import layers

    return layers.Cropping2D(margin)(features) if margin else features


def _convolve(features, settings: UNet, level: int, *, block: int):
    from keras import layers

    for convolution in range(settings.convolutions):
        if convolution and any(settings.dropout):
            features = layers.Dropout(settings.rates[block])(features)
        features = layers.Conv2D(
            settings.filters[level],
            3,
            padding=settings.padding,
            kernel_initializer=settings.initializer,
        )(features)
        if settings.batch_norm:
            features = layers.BatchNormalization()(features)
        features = layers.Activation(settings.activation)(features)
    return features


def _upsample(features, settings: UNet, level: int):
    from keras import layers

    if settings.upsampling == "nearest":
        return layers.UpSampling2D()(features)
    return layers.Conv2DTranspose(
        settings.filters[level], settings.transposed_kernel, strides=2, padding="same"
    )(features)


def _parameters(side: int, inputs: int, outputs: int) -> int:
    """The number of weights and biases of one convolution."""
    return side**2 * inputs * outputs + outputs


def _require_filters(filters: tuple[int, ...]) -> None:
    require(0 < len(filters) <= _MOST_LEVELS, "filters", filters, f"1 to {_MOST_LEVELS} levels")
    require(
        all(0 < n <= _MOST_FILTERS for n in filters),
        "filters",
        filters,
        f"numbers from 1 to {_MOST_FILTERS:,}",
    )


def _require_head(channels: int, activation: str) -> None:
    require(
        activation in get_args(Head),
        "output_activation",
        activation,
        "sigmoid, softmax or linear",
    )
    least = 2 if activation == "softmax" else 1
    require(
        least <= channels <= _MOST_CLASSES,
        "output_channels",
        channels,
        f"{'the number of classes, 2 or more, with softmax' if least == 2 else '1 or more'}, and "
        f"at most {_MOST_CLASSES}",
    )

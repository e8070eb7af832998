"""Augmentation of whole batches, image and mask together.

A batch is uint8 [B, H, W, 4]: red, green, blue, class id. What happens to an example is drawn once,
from a hash of (seed, epoch, example) and nothing else. All geometry composes into one coordinate
map and samples the pixels once, the image bilinearly, the mask from the nearest pixel; flips and
quarter turns alone move pixels and mix none. All colour work is one affine map of RGB. The
arithmetic on pixels is in integers, so a batch is the same on every machine.

XLA compiles it to a few loops over the batch, eagerly and inside `Dataset.map` alike; that needs
static shapes. Nothing here knows where pixels come from.
"""

import dataclasses
import functools
import math

import numpy as np
import tensorflow as tf

from segdata import arguments, hashing
from segdata import pixels as pixels_

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment:
    """What may happen to a training example; the default is nothing.

    Ranges are drawn from uniformly, ends included. A transform whose range is neutral costs nothing
    and leaves the draws of the others as they are.
    """

    horizontal_flip: float = 0.0
    """Probability of swapping left and right."""
    vertical_flip: float = 0.0
    """Probability of swapping top and bottom."""
    quarter_turns: bool = False
    """Whether to turn by 0, 90, 180 or 270 degrees, each as likely; needs square examples."""
    rotation_range: tuple[float, float] = (0.0, 0.0)
    """Degrees, counter-clockwise, about the centre."""
    scale_range: tuple[float, float] = (1.0, 1.0)
    """Factor of magnification about the centre, 0.25 to 4."""
    shift_range: tuple[float, float] = (0.0, 0.0)
    """Fraction of the side, drawn for each axis, -1 to 1; what moves in is the mirror image."""
    brightness_range: tuple[float, float] = (0.0, 0.0)
    """Added to every channel, as a fraction of 255."""
    contrast_range: tuple[float, float] = (1.0, 1.0)
    """Factor on the distance from the channel's mean over the example, 0 to 4."""
    saturation_range: tuple[float, float] = (1.0, 1.0)
    """Factor on the distance from the pixel's grey, 0 to 4."""
    noise_range: tuple[float, float] = (0.0, 0.0)
    """Standard deviation of near-Gaussian noise, a fraction of 255, 0 to 0.5."""

    def __post_init__(self) -> None:
        """Checks every field; ranges may come as lists or arrays, numbers as NumPy's.

        Raises:
            ValueError: Naming the field, its value and what is allowed.
        """
        for name in ("horizontal_flip", "vertical_flip"):
            value = getattr(self, name)
            numbers = arguments.floats([value])
            if numbers is None or not 0 <= numbers[0] <= 1:
                raise ValueError(f"{name}={value!r} is not a probability, 0 to 1.")
            object.__setattr__(self, name, numbers[0])
        if not isinstance(self.quarter_turns, (bool, np.bool_)):
            raise ValueError(f"quarter_turns={self.quarter_turns!r} is neither True nor False.")
        object.__setattr__(self, "quarter_turns", bool(self.quarter_turns))
        for name, (least, most) in _LIMITS.items():
            value = getattr(self, name)
            numbers = arguments.floats(value)
            if (
                numbers is None
                or len(numbers) != 2
                or not least <= numbers[0] <= numbers[1] <= most
            ):
                raise ValueError(
                    f"{name}={value!r} is not a range: two numbers, the smaller first, "
                    f"within {least:g} and {most:g}."
                )
            object.__setattr__(self, name, numbers)

    @property
    def warps(self) -> bool:
        """Whether pixels are resampled rather than only moved."""
        return any(
            getattr(self, name) != (neutral, neutral)
            for name, neutral in (("rotation_range", 0), ("scale_range", 1), ("shift_range", 0))
        )

    @property
    def changes_contrast(self) -> bool:
        """Whether the mean of each channel must be known."""
        return self.contrast_range != (1, 1)


_LIMITS = {
    "rotation_range": (-360.0, 360.0),
    "scale_range": (0.25, 4.0),
    "shift_range": (-1.0, 1.0),
    "brightness_range": (-1.0, 1.0),
    "contrast_range": (0.0, 4.0),
    "saturation_range": (0.0, 4.0),
    "noise_range": (0.0, 0.5),
}
# Each draw has its own place in the hash, so that switching one on leaves the others alone.
_SLOTS = {
    name: slot
    for slot, name in enumerate(
        (
            "horizontal_flip",
            "vertical_flip",
            "quarter_turns",
            "rotation_range",
            "scale_range",
            "shift_x",
            "shift_y",
            "brightness_range",
            "contrast_range",
            "saturation_range",
            "noise_range",
            "noise",
        )
    )
}


def apply(settings: Augment, pixels: tf.Tensor, *, seed: int, epoch: tf.Tensor, example: tf.Tensor):
    """Augments a batch.

    Args:
        settings: What may happen.
        pixels: uint8 [B, H, W, 4], RGB and class id, with a static shape.
        seed: Any integer.
        epoch: int64 [B], the pass over the dataset that each example belongs to.
        example: int64 [B], which example of the dataset each is.

    Returns:
        uint8 [B, H, W, 4].

    Raises:
        ValueError: If quarter turns meet examples that are not square, or a warp meets sides over
            4,096 pixels.
    """
    batch, height, width, _ = pixels.shape
    with tf.device("CPU:0"):  # the input side, also where there is a GPU
        table = tf.reshape(tf.bitcast(pixels, tf.uint32), [batch, height * width])
        size = (height, width)
        rows = tf.range(batch)
        return apply_rows(settings, table, rows, size=size, seed=seed, epoch=epoch, example=example)


def apply_rows(
    settings: Augment,
    table: tf.Tensor,
    rows: tf.Tensor,
    *,
    size: tuple[int, int],
    lead: int = 0,
    means: tf.Tensor | None = None,
    seed: int,
    epoch: tf.Tensor,
    example: tf.Tensor,
) -> tf.Tensor:
    """`apply` to some rows of a table, read where they lie: gathering them first is a pass more.

    Args:
        settings: As in `apply`.
        table: uint32 [count, N], a word a pixel in memory order: red is the lowest byte, the class
            the highest.
        rows: Integers [B] in [0, count).
        size: H and W.
        lead: Words before the first pixel of each row; behind the last there may be more.
        means: Float64 [count, 3], of each channel of every row, if contrast changes and they are
            known: else a pass more works them out.
        seed: As in `apply`.
        epoch: As in `apply`.
        example: As in `apply`.

    Returns:
        uint8 [B, H, W, 4].

    Raises:
        ValueError: As `apply` does.
    """
    height, width = size
    if settings.quarter_turns and height != width:
        raise ValueError(
            f"quarter_turns=True needs square examples, these are {height}×{width}. "
            "Choose a square size, or flips."
        )
    if settings.warps and max(height, width) > pixels_.MAX_SIDE:
        raise ValueError(
            f"rotation, scale and shift take sides up to {pixels_.MAX_SIDE:,}, "
            f"these are {height}×{width}."
        )
    if means is not None:
        means = tf.gather(means, rows)
    elif settings.changes_contrast:
        means = _means(height, width, lead)(table, rows)
    drawn = _draw(settings, height, width)(hashing.u64(seed), epoch, example, means)
    if settings.warps:
        table = _warp(height, width, lead)(tf.gather(table, rows), drawn["map"])
        rows, lead = tf.range(tf.size(rows)), 0
    words = _transform(settings, height, width, lead)(table, rows, drawn)
    # The cast stands outside what is compiled: within, XLA works a word out for each of its bytes.
    return tf.bitcast(words, tf.uint8)


def _between(settings: Augment, keys: tf.Tensor, name: str, slot: str | None = None) -> tf.Tensor:
    least, most = getattr(settings, name)
    return least + (most - least) * hashing.uniform(keys, _SLOTS[slot or name])


# Several compiled functions, not one: XLA would fuse what is drawn for an example into the loops
# over its pixels and draw it again for each of them (3,700 images/s a core instead of 46,000).


@functools.cache
def _draw(settings: Augment, height: int, width: int):
    """What happens to each example: a dict of tensors whose first axis is the batch."""

    @tf.function(jit_compile=True, autograph=False)
    def draw(
        seed: tf.Tensor, epoch: tf.Tensor, example: tf.Tensor, means: tf.Tensor | None
    ) -> dict[str, tf.Tensor]:
        keys = hashing.key(seed, epoch, example)
        contrast = _between(settings, keys, "contrast_range")
        saturation = _between(settings, keys, "saturation_range")
        added = _between(settings, keys, "brightness_range")[:, None] * 255
        if means is not None:
            grey = tf.reduce_sum(means * _GREY, axis=1, keepdims=True)
            pivot = saturation[:, None] * means + (1 - saturation[:, None]) * grey
            added += (1 - contrast[:, None]) * pivot
        deviation = _between(settings, keys, "noise_range") * 255 / pixels_.NOISE_DEVIATION
        symmetry = transpose, flip_x, flip_y = _symmetry(settings, keys)
        moved = (
            {"map": _coordinate_map(settings, keys, symmetry, height=height, width=width)}
            if settings.warps
            else {"transpose": transpose, "flip_x": flip_x, "flip_y": flip_y}
        )
        return moved | {
            "gain": pixels_.fixed(contrast * saturation),
            "grey": tf.stack(
                [pixels_.fixed(contrast * (1 - saturation) * w) for w in _GREY], axis=1
            ),
            "offset": tf.broadcast_to(pixels_.fixed(added), [tf.shape(keys)[0], 3]),
            "deviation": pixels_.fixed(deviation),
            "noise_key": tf.cast(hashing.bits(keys, _SLOTS["noise"]) & 0xFFFFFFFF, tf.uint32),
        }

    return draw


@functools.cache
def _means(height: int, width: int, lead: int):
    """Of some rows of a table, float64 [B, 3]."""

    @tf.function(jit_compile=True, autograph=False)
    def means(table: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        words = _words(tf.gather(table, rows), height, width, lead)
        return tf.stack(pixels_.means(words), axis=1)

    return means


@functools.cache
def _transform(settings: Augment, height: int, width: int, lead: int):
    """Flips, turns and colours: uint32 [B, H, W]."""

    @tf.function(jit_compile=True, autograph=False)
    def transform(table: tf.Tensor, rows: tf.Tensor, drawn: dict[str, tf.Tensor]) -> tf.Tensor:
        words = _words(tf.gather(table, rows), height, width, lead)
        if not settings.warps:
            words = _turn(settings, words, drawn)
        return _colour(settings, words, drawn)

    return transform


@functools.cache
def _warp(height: int, width: int, lead: int):
    """All geometry in one sampling: rows uint32 [B, H·W] without lead."""

    @tf.function(jit_compile=True, autograph=False)
    def warp(rows: tf.Tensor, coordinate_map: tf.Tensor) -> tf.Tensor:
        words = pixels_.warp(_words(rows, height, width, lead), coordinate_map)
        return tf.reshape(words, [-1, height * width])

    return warp


def _words(rows: tf.Tensor, height: int, width: int, lead: int) -> tf.Tensor:
    return tf.reshape(rows[:, lead : lead + height * width], [-1, height, width])


def _symmetry(settings: Augment, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Whether to transpose, then to flip left-right, then up-down; bool [B] each."""
    flip_x = hashing.uniform(keys, _SLOTS["horizontal_flip"]) < settings.horizontal_flip
    flip_y = hashing.uniform(keys, _SLOTS["vertical_flip"]) < settings.vertical_flip
    turns = tf.cast(
        hashing.uniform(keys, _SLOTS["quarter_turns"]) * (4 if settings.quarter_turns else 1),
        tf.int32,
    )
    # A quarter turn counter-clockwise is a transpose and then an up-down flip; two are both flips.
    flip_x = tf.math.logical_xor(flip_x, turns >= 2)
    flip_y = tf.math.logical_xor(flip_y, (turns == 1) | (turns == 2))
    return turns % 2 == 1, flip_x, flip_y


def _coordinate_map(
    settings: Augment, keys: tf.Tensor, symmetry, *, height: int, width: int
) -> tf.Tensor:
    """What `pixels.warp` takes, int32 [B, 2, 3]."""
    angle = _between(settings, keys, "rotation_range") * (math.pi / 180)
    scale = _between(settings, keys, "scale_range")
    shift_x = _between(settings, keys, "shift_range", "shift_x") * width
    shift_y = _between(settings, keys, "shift_range", "shift_y") * height
    cos, sin = tf.cos(angle) / scale, tf.sin(angle) / scale
    transpose, flip_x, flip_y = symmetry
    # The output undone from the last step back: shift, rotation and scale, flips, transpose.
    sign_x, sign_y = (1 - 2 * tf.cast(flip, tf.float64) for flip in (flip_x, flip_y))
    x, y = (sign_x * cos, sign_x * -sin), (sign_y * sin, sign_y * cos)
    rows = []
    for straight, swapped, side in ((x, y, width), (y, x, height)):
        by_x, by_y = (tf.where(transpose, *pair) for pair in zip(swapped, straight, strict=True))
        constant = (side - 1) / 2 - by_x * shift_x - by_y * shift_y
        constant = tf.math.floormod(constant, 2 * side)  # the same place in the mirror images
        rows.append(
            tf.stack(
                [pixels_.fixed(by_x / 2), pixels_.fixed(by_y / 2), pixels_.fixed(constant)], axis=1
            )
        )
    return tf.stack(rows, axis=1)


def _turn(settings: Augment, words: tf.Tensor, drawn: dict[str, tf.Tensor]) -> tf.Tensor:
    if settings.quarter_turns:
        words = tf.where(
            pixels_.per_pixel(drawn["transpose"]), tf.transpose(words, [0, 2, 1]), words
        )
    if settings.quarter_turns or settings.horizontal_flip:
        words = tf.where(pixels_.per_pixel(drawn["flip_x"]), tf.reverse(words, [2]), words)
    if settings.quarter_turns or settings.vertical_flip:
        words = tf.where(pixels_.per_pixel(drawn["flip_y"]), tf.reverse(words, [1]), words)
    return words


def _colour(settings: Augment, words: tf.Tensor, drawn: dict[str, tf.Tensor]) -> tf.Tensor:
    contrasts = settings.changes_contrast
    saturates = settings.saturation_range != (1, 1)
    noisy = settings.noise_range != (0, 0)
    if not (contrasts or saturates or noisy or settings.brightness_range != (0, 0)):
        return words
    channels = pixels_.channels(words)
    added = [pixels_.per_pixel(column) for column in tf.unstack(drawn["offset"], axis=1)]
    if saturates:
        weights = tf.unstack(drawn["grey"], axis=1)
        grey = tf.add_n([pixels_.per_pixel(w) * x for w, x in zip(weights, channels, strict=True)])
        added = [x + grey for x in added]
    if noisy:
        deviation = pixels_.per_pixel(drawn["deviation"])
        noise = pixels_.noise(words.shape, drawn["noise_key"])
        added = [x + deviation * channel for x, channel in zip(added, noise, strict=True)]
    gain = pixels_.per_pixel(drawn["gain"])
    out = [gain * x + more for x, more in zip(channels, added, strict=True)]
    return pixels_.joined(out, words)

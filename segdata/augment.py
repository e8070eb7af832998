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
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

from segdata import hashing

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
_ONE = 1 << 16  # fixed point: sixteen binary places
_MAX_SIDE = 4096  # what coordinates with sixteen binary places leave room for in 32 bits


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
        """Checks every range.

        Raises:
            ValueError: Naming the field, its value and what is allowed.
        """
        for name in ("horizontal_flip", "vertical_flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)!r} is not a probability, 0 to 1.")
        for name, (least, most) in _LIMITS.items():
            value = getattr(self, name)
            if len(value) != 2 or not least <= value[0] <= value[1] <= most:
                raise ValueError(
                    f"{name}={value!r} is not a range: two numbers, the smaller first, "
                    f"within {least:g} and {most:g}."
                )

    @property
    def warps(self) -> bool:
        """Whether pixels are resampled rather than only moved."""
        return any(
            getattr(self, name) != (neutral, neutral)
            for name, neutral in (("rotation_range", 0), ("scale_range", 1), ("shift_range", 0))
        )


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
    _, height, width, _ = pixels.shape
    if settings.quarter_turns and height != width:
        raise ValueError(
            f"quarter_turns=True needs square examples, these are {height}×{width}. "
            "Choose a square size, or flips."
        )
    if settings.warps and max(height, width) > _MAX_SIDE:
        raise ValueError(
            f"rotation, scale and shift take sides up to {_MAX_SIDE:,}, not {height}×{width}."
        )
    # One 32-bit word a pixel, in memory order: red is the lowest byte, the class the highest. The
    # casts stand outside what is compiled: within, XLA works a word out for each of its four bytes.
    words = tf.bitcast(pixels, tf.uint32)
    drawn = _draw(settings, height, width)(hashing.u64(seed), epoch, example)
    offset = _offset(settings)(words, drawn)
    if settings.warps:
        words = _warp(words, drawn)
    return tf.bitcast(_transform(settings)(words, drawn, offset), tf.uint8)


def _between(settings: Augment, keys: tf.Tensor, name: str, slot: str | None = None) -> tf.Tensor:
    least, most = getattr(settings, name)
    return least + (most - least) * hashing.uniform(keys, _SLOTS[slot or name])


def _fixed(x: tf.Tensor) -> tf.Tensor:
    """To sixteen binary places, int32. Float64 in, so that no machine rounds another way."""
    return tf.cast(tf.round(x * _ONE), tf.int32)


def _per_pixel(x: tf.Tensor) -> tf.Tensor:
    return x[:, None, None]


# Several compiled functions, not one: XLA would fuse what is drawn for an example into the loops over
# its pixels and draw it again for each of them (3,700 images/s a core instead of 46,000).


@functools.cache
def _draw(settings: Augment, height: int, width: int):
    """What happens to each example: a dict of tensors whose first axis is the batch."""

    @tf.function(jit_compile=True, autograph=False)
    def draw(seed: tf.Tensor, epoch: tf.Tensor, example: tf.Tensor) -> dict[str, tf.Tensor]:
        keys = hashing.key(seed, epoch, example)
        contrast = _between(settings, keys, "contrast_range")
        saturation = _between(settings, keys, "saturation_range")
        deviation = _between(settings, keys, "noise_range") * 255 / _SUM_OF_BYTES_DEVIATION
        transpose, flip_x, flip_y = symmetry = _symmetry(settings, keys)
        return {
            "transpose": transpose,
            "flip_x": flip_x,
            "flip_y": flip_y,
            "map": _coordinate_map(settings, keys, symmetry, height=height, width=width),
            "brightness": _between(settings, keys, "brightness_range") * 255,
            "contrast": contrast,
            "saturation": saturation,
            "gain": _fixed(contrast * saturation),
            "grey": tf.stack([_fixed(contrast * (1 - saturation) * w) for w in _GREY], axis=1),
            "deviation": _fixed(deviation),
            "noise_key": tf.cast(hashing.bits(keys, _SLOTS["noise"]) & 0xFFFFFFFF, tf.uint32),
        }

    return draw


@functools.cache
def _offset(settings: Augment):
    """What contrast and brightness add to each channel, fixed point int32 [B, 3]."""

    @tf.function(jit_compile=True, autograph=False)
    def offset(words: tf.Tensor, drawn: dict[str, tf.Tensor]) -> tf.Tensor:
        brightness = drawn["brightness"]
        if settings.contrast_range == (1, 1):
            return tf.stack([_fixed(brightness)] * 3, axis=1)
        means = _means(words)
        grey = tf.add_n([weight * mean for weight, mean in zip(_GREY, means, strict=True)])
        contrast, saturation = drawn["contrast"], drawn["saturation"]
        return tf.stack(
            [
                _fixed(brightness + (1 - contrast) * (saturation * mean + (1 - saturation) * grey))
                for mean in means
            ],
            axis=1,
        )

    return offset


@functools.cache
def _transform(settings: Augment):
    @tf.function(jit_compile=True, autograph=False)
    def transform(words: tf.Tensor, drawn: dict[str, tf.Tensor], offset: tf.Tensor) -> tf.Tensor:
        if not settings.warps:
            words = _turn(settings, words, drawn)
        return _colour(settings, words, drawn, offset)

    return transform


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
    """Output pixel to source pixel, fixed point int32 [B, 2, 3].

    The rows give x and y; the columns multiply twice the output's distance from the centre in x and
    in y, and 1.
    """
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
        rows.append(tf.stack([_fixed(by_x / 2), _fixed(by_y / 2), _fixed(constant)], axis=1))
    return tf.stack(rows, axis=1)


def _turn(settings: Augment, words: tf.Tensor, drawn: dict[str, tf.Tensor]) -> tf.Tensor:
    if settings.quarter_turns:
        words = tf.where(_per_pixel(drawn["transpose"]), tf.transpose(words, [0, 2, 1]), words)
    if settings.quarter_turns or settings.horizontal_flip:
        words = tf.where(_per_pixel(drawn["flip_x"]), tf.reverse(words, [2]), words)
    if settings.quarter_turns or settings.vertical_flip:
        words = tf.where(_per_pixel(drawn["flip_y"]), tf.reverse(words, [1]), words)
    return words


@tf.function(jit_compile=True, autograph=False)
def _warp(words: tf.Tensor, drawn: dict[str, tf.Tensor]) -> tf.Tensor:
    batch, height, width = words.shape
    from_x = tf.range(width)[None, None, :] * 2 - (width - 1)
    from_y = tf.range(height)[None, :, None] * 2 - (height - 1)
    x, y = (
        _per_pixel(row[:, 0]) * from_x + _per_pixel(row[:, 1]) * from_y + _per_pixel(row[:, 2])
        for row in tf.unstack(drawn["map"], axis=1)
    )
    column, across = _reflect(x, width)
    row, down = _reflect(y, height)
    # Two neighbours in one 64-bit word halve the gathers; at the edge the second weighs nothing.
    wide = tf.cast(words, tf.uint64)
    beside = tf.concat([wide[:, :, 1:], wide[:, :, -1:]], axis=2)
    pairs = tf.reshape(
        wide | tf.bitwise.left_shift(beside, hashing.u64(32)), [batch, height * width]
    )
    above = tf.reshape(row * width + column, [batch, -1])
    below = tf.reshape(tf.minimum(row + 1, height - 1) * width + column, [batch, -1])
    across, down = (tf.reshape(fraction, [batch, -1]) for fraction in (across, down))
    # Without the barrier XLA gathers again for each use: 1,200 images/s a core instead of 5,600.
    gathered: Any = xla.optimization_barrier(
        *(tf.gather(pairs, places, batch_dims=1) for places in (above, below))
    )
    top, bottom = (_blend_pair(pair, across) for pair in gathered)
    blended = _lerp(top, bottom, down) & 0x00FFFFFF
    nearest = tf.where(down < 128, top, bottom) & 0xFF000000
    return tf.reshape(blended | nearest, [batch, height, width])


def _reflect(coordinate: tf.Tensor, side: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Mirrors at the borders: whole part in [0, side), fraction in 256ths, uint32."""
    half = _ONE // 2
    mirrored = side * _ONE - tf.abs(side * _ONE - tf.abs(coordinate + half)) - half
    inside = tf.clip_by_value(mirrored, 0, (side - 1) * _ONE)
    rounded = inside + 128  # to the nearest 256th
    whole = tf.minimum(tf.bitwise.right_shift(rounded, 16), side - 1)
    fraction = tf.bitwise.right_shift(tf.bitwise.bitwise_and(rounded, 0xFFFF), 8)
    return whole, tf.cast(fraction, tf.uint32)


def _blend_pair(pair: tf.Tensor, fraction: tf.Tensor) -> tf.Tensor:
    """Blends the colours of a pair of pixels; the class is the nearer one's."""
    left = tf.cast(pair & 0xFFFFFFFF, tf.uint32)
    right = tf.cast(tf.bitwise.right_shift(pair, hashing.u64(32)), tf.uint32)
    nearest = tf.where(fraction < 128, left, right) & 0xFF000000
    return (_lerp(left, right, fraction) & 0x00FFFFFF) | nearest


def _lerp(a: tf.Tensor, b: tf.Tensor, fraction: tf.Tensor) -> tf.Tensor:
    """Blends the four bytes of words, two at a time, in 256ths, rounding to nearest."""
    even = (a & 0xFF00FF) * (256 - fraction) + (b & 0xFF00FF) * fraction + 0x800080
    shifted_a, shifted_b = (tf.bitwise.right_shift(x, 8) & 0xFF00FF for x in (a, b))
    odd = shifted_a * (256 - fraction) + shifted_b * fraction + 0x800080
    return (tf.bitwise.right_shift(even, 8) & 0xFF00FF) | (odd & 0xFF00FF00)


def _channels(words: tf.Tensor) -> list[tf.Tensor]:
    return [tf.cast(tf.bitwise.right_shift(words, shift) & 0xFF, tf.int32) for shift in (0, 8, 16)]


def _means(words: tf.Tensor) -> list[tf.Tensor]:
    """Mean of each channel, float64 [B], exact."""
    _, height, width = words.shape
    # Rows are first added in sixteen bits, two channels a word, which XLA turns into vector code:
    # 107,000 images/s a core instead of 26,000. 257 rows of 255 fit.
    rows = max(n for n in range(1, 258) if height % n == 0)
    grouped = tf.reshape(words, [-1, rows, height // rows, width])
    even = tf.reduce_sum(grouped & 0xFF00FF, axis=1)
    odd = tf.reduce_sum(tf.bitwise.right_shift(grouped, 8) & 0xFF, axis=1)
    return [
        tf.cast(tf.reduce_sum(tf.cast(sums, tf.int64), axis=[1, 2]), tf.float64) / (height * width)
        for sums in (even & 0xFFFF, odd, tf.bitwise.right_shift(even, 16))
    ]


def _colour(
    settings: Augment, words: tf.Tensor, drawn: dict[str, tf.Tensor], offset: tf.Tensor
) -> tf.Tensor:
    contrasts = settings.contrast_range != (1, 1)
    saturates = settings.saturation_range != (1, 1)
    noisy = settings.noise_range != (0, 0)
    if not (contrasts or saturates or noisy or settings.brightness_range != (0, 0)):
        return words
    channels = _channels(words)
    added = [_per_pixel(column) for column in tf.unstack(offset, axis=1)]
    if saturates:
        weights = tf.unstack(drawn["grey"], axis=1)
        grey = tf.add_n([_per_pixel(w) * x for w, x in zip(weights, channels, strict=True)])
        added = [x + grey for x in added]
    if noisy:
        deviation = _per_pixel(drawn["deviation"])
        noise = _noise(words.shape, drawn["noise_key"])
        added = [x + deviation * channel for x, channel in zip(added, noise, strict=True)]
    gain = _per_pixel(drawn["gain"])
    out = [gain * x + more for x, more in zip(channels, added, strict=True)]
    red, green, blue = (
        tf.cast(tf.clip_by_value(tf.bitwise.right_shift(x + _ONE // 2, 16), 0, 255), tf.uint32)
        for x in out
    )
    colour = red | tf.bitwise.left_shift(green, 8) | tf.bitwise.left_shift(blue, 16)
    return colour | (words & 0xFF000000)


# The sum of four random bytes is close to Gaussian (Irwin–Hall), with this standard deviation.
_SUM_OF_BYTES_DEVIATION = math.sqrt(4 * (256**2 - 1) / 12)


def _noise(shape: tf.TensorShape, key: tf.Tensor) -> list[tf.Tensor]:
    """Centred sums of four hashed bytes, int32 [B, H, W], one a channel."""
    _, height, width = shape
    place = tf.reshape(tf.cast(tf.range(3 * height * width), tf.uint32), [3, 1, height, width])
    noise = []
    for channel in range(3):
        x = _per_pixel(key) ^ (place[channel] * 0x9E3779B1)
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):  # Wellons' lowbias32
            x = (x ^ tf.bitwise.right_shift(x, shift)) * factor
        x ^= tf.bitwise.right_shift(x, 16)
        pairs = (x & 0xFF00FF) + (tf.bitwise.right_shift(x, 8) & 0xFF00FF)
        total = (pairs & 0xFFFF) + tf.bitwise.right_shift(pairs, 16)
        noise.append(tf.cast(total, tf.int32) - 510)
    return noise

"""Integer arithmetic on pixels, a batch at a time.

A pixel is a 32-bit word: red the lowest byte, then green, blue and the class id. Fractions are
fixed point with sixteen binary places, so that no machine rounds another way. Made to be compiled
by XLA with static shapes; nothing here draws a number or knows a setting.
"""

import math
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

from segdata import hashing

ONE = 1 << 16
# What coordinates with sixteen binary places leave room for in 32 bits: turned by 45° and at a
# quarter of the size, a corner is 2·√2·4,096 pixels from the centre, itself up to 2·4,096 away.
MAX_SIDE = 4096
# The sum of four random bytes is close to Gaussian (Irwin–Hall), with this standard deviation.
NOISE_DEVIATION = math.sqrt(4 * (256**2 - 1) / 12)


def fixed(x: tf.Tensor) -> tf.Tensor:
    """Float64 to fixed point, int32."""
    return tf.cast(tf.round(x * ONE), tf.int32)


def per_pixel(x: tf.Tensor) -> tf.Tensor:
    """[B] to [B, 1, 1], to meet [B, H, W]."""
    return x[:, None, None]


def warp(words: tf.Tensor, coordinate_map: tf.Tensor) -> tf.Tensor:
    """Samples each pixel once: colours bilinearly, the class from the nearest; mirrors at borders.

    Args:
        words: uint32 [B, H, W].
        coordinate_map: Output pixel to source pixel, fixed point int32 [B, 2, 3]. The rows give x
            and y; the columns multiply twice the output's distance from the centre in x and in y,
            and 1.

    Returns:
        uint32 [B, H, W]; colours within two grey levels of exact interpolation, 99 % of them within
        one: places are rounded to 256ths of a pixel, colours twice to whole levels.
    """
    _, height, width = words.shape

    def flat(x: tf.Tensor) -> tf.Tensor:
        return tf.reshape(x, [-1, height * width])

    from_x = tf.range(width)[None, None, :] * 2 - (width - 1)
    from_y = tf.range(height)[None, :, None] * 2 - (height - 1)
    x, y = (
        per_pixel(row[:, 0]) * from_x + per_pixel(row[:, 1]) * from_y + per_pixel(row[:, 2])
        for row in tf.unstack(coordinate_map, axis=1)
    )
    column, across = _reflect(x, width)
    row, down = _reflect(y, height)
    # Two neighbours in one 64-bit word halve the gathers; at the edge the second weighs nothing.
    wide = tf.cast(words, tf.uint64)
    beside = tf.concat([wide[:, :, 1:], wide[:, :, -1:]], axis=2)
    pairs = flat(wide | tf.bitwise.left_shift(beside, hashing.u64(32)))
    above = flat(row * width + column)
    below = flat(tf.minimum(row + 1, height - 1) * width + column)
    across, down = flat(across), flat(down)
    # Without the barrier XLA gathers again for each use: 1,200 images/s a core, not 5,600.
    gathered: Any = xla.optimization_barrier(
        *(tf.gather(pairs, places, batch_dims=1) for places in (above, below))
    )
    top, bottom = (_blend_pair(pair, across) for pair in gathered)
    blended = _lerp(top, bottom, down) & 0x00FFFFFF
    nearest = tf.where(down < 128, top, bottom) & 0xFF000000
    return tf.reshape(blended | nearest, words.shape)


def channels(words: tf.Tensor) -> list[tf.Tensor]:
    """Red, green and blue, int32 of the same shape."""
    return [tf.cast(tf.bitwise.right_shift(words, shift) & 0xFF, tf.int32) for shift in (0, 8, 16)]


def joined(colours: list[tf.Tensor], words: tf.Tensor) -> tf.Tensor:
    """Puts fixed-point colours back, rounded and clipped, beside the classes of `words`."""
    red, green, blue = (
        tf.cast(tf.clip_by_value(tf.bitwise.right_shift(x + ONE // 2, 16), 0, 255), tf.uint32)
        for x in colours
    )
    colour = red | tf.bitwise.left_shift(green, 8) | tf.bitwise.left_shift(blue, 16)
    return colour | (words & 0xFF000000)


def means(words: tf.Tensor) -> list[tf.Tensor]:
    """Mean of each channel, float64 [B], exact."""
    _, height, width = words.shape
    # Rows are first added word by word, two channels in one, which XLA turns into vector code.
    count = max(n for n in range(1, 9) if height % n == 0)
    parts = tf.unstack(tf.reshape(words, [-1, count, height // count, width]), axis=1)
    even = tf.add_n([part & 0xFF00FF for part in parts])
    odd = tf.add_n([tf.bitwise.right_shift(part, 8) & 0xFF for part in parts])
    summed: Any = xla.optimization_barrier(even, odd)  # or XLA adds again for each channel
    even, odd = summed
    return [
        tf.cast(_sum(sums), tf.float64) / (height * width)
        for sums in (even & 0xFFFF, odd, tf.bitwise.right_shift(even, 16))
    ]


def noise(shape: tf.TensorShape, key: tf.Tensor) -> list[tf.Tensor]:
    """Centred sums of four hashed bytes, int32 [B, H, W], one a channel."""
    _, height, width = shape
    place = tf.reshape(tf.cast(tf.range(3 * height * width), tf.uint32), [3, 1, height, width])
    sums = []
    for channel in range(3):
        x = per_pixel(key) ^ (place[channel] * 0x9E3779B1)
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):  # Wellons' lowbias32
            x = (x ^ tf.bitwise.right_shift(x, shift)) * factor
        x ^= tf.bitwise.right_shift(x, 16)
        pairs = (x & 0xFF00FF) + (tf.bitwise.right_shift(x, 8) & 0xFF00FF)
        total = (pairs & 0xFFFF) + tf.bitwise.right_shift(pairs, 16)
        sums.append(tf.cast(total, tf.int32) - 510)
    return sums


def _sum(sums: tf.Tensor) -> tf.Tensor:
    """Of each example, int64 [B]; in 64 bits only between rows, which no vector unit adds."""
    rows = tf.reduce_sum(tf.cast(sums, tf.int32), axis=2)
    return tf.reduce_sum(tf.cast(rows, tf.int64), axis=1)


def _reflect(coordinate: tf.Tensor, side: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Mirrors at the borders: whole part in [0, side), fraction in 256ths, uint32."""
    half = ONE // 2
    once = tf.math.floormod(coordinate + half, 2 * side * ONE)  # the mirror images repeat
    mirrored = side * ONE - tf.abs(side * ONE - once) - half
    inside = tf.clip_by_value(mirrored, 0, (side - 1) * ONE)
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

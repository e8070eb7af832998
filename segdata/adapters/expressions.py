"""The engine as array expressions, for compilers of graphs: XLA, through TensorFlow or JAX.

The same integers as `core.kernels`, to the bit. `xp` is NumPy, `jax.numpy`, or what gives NumPy's
functions for tensors. Pixels are 32-bit words: red the lowest byte, then green, blue and the class.
"""

from typing import Any, NamedTuple

import numpy as np

from segdata.core import kernels
from segdata.core.augment import Augment
from segdata.core.plan import CUTOUT, ONE, Parameters
from segdata.core.random import Array

_HALF = ONE // 2
_COLOURS, _CLASS = np.uint32(0x00FFFFFF), np.uint32(0xFF000000)
_LOW = np.uint32(0xFF00FF)


class Held(NamedTuple):
    """The records of a batch.

    Attributes:
        words: uint32 [B, h·w] where all are of one size; else uint32 [L], which holds them all.
        height: h; int32 [B, 1, 1] where they differ.
        width: w; likewise.
        starts: Where each begins in what holds them all, [B]; None where they are of one size.
    """

    words: Array
    height: Any
    width: Any
    starts: Array | None = None

    def at(self, row: Array, column: Array, xp: Any) -> Array:
        """Words at pixels inside, int32 [B, H, W] each: uint32 [B, H, W]."""
        places = row * self.width + column
        if self.starts is None:
            return _gathered(self.words, places, xp)
        start = _pixelwise(self.starts)
        return xp.take(self.words, start + xp.astype(places, start.dtype), axis=0)


def render(
    records: Held,
    partner_records: Held | None,
    own: Parameters,
    partner: Parameters,
    *,
    augment: Augment,
    size: tuple[int, int],
    xp: Any,
) -> Array:
    """Makes the pixels of a batch.

    Args:
        records: Of the examples.
        partner_records: The same of their partners, where there is CutMix.
        own: What happens to each.
        partner: What happens to their partners.
        augment: What may happen.
        size: Height and width of the result, H and W.
        xp: The functions of arrays.

    Returns:
        uint32 [B, H, W].
    """
    words = _example(records, own, augment, size, xp)
    if partner_records is not None:
        others = _example(partner_records, partner, augment, size, xp)
        words = xp.where(_inside(own.paste, size), others, words)
    return words


def parts(words: Array, xp: Any) -> tuple[Array, Array]:
    """Image uint8 [B, H, W, 3] and mask uint8 [B, H, W, 1] of words uint32 [B, H, W]."""
    red, green, blue, label = (
        xp.astype(xp.right_shift(words, np.uint32(shift)) & np.uint32(255), np.uint8)
        for shift in (0, 8, 16, 24)
    )
    return xp.stack([red, green, blue], axis=-1), label[..., None]


def _example(
    records: Held,
    own: Parameters,
    augment: Augment,
    size: tuple[int, int],
    xp: Any,
) -> Array:
    moved = _warped if augment.warps else _moved
    words = moved(records, own, augment, size, xp)
    if augment.uses("blur_range"):
        words = _blurred(words, own.blur, xp)
    if augment.colours:
        words = _coloured(words, own, augment, xp)
    if augment.uses("gamma_range"):
        table = xp.astype(own.gamma, np.uint32)
        words = _joined([_gathered(table, channel, xp) for channel in _channels(words, xp)], words)
    if augment.uses("cutout"):
        covered = (words & _CLASS) | np.uint32(CUTOUT)
        words = xp.where(_inside(own.cutout, size), covered, words)
    return words


def _pixelwise(x: Array) -> Array:
    """[B] to [B, 1, 1], to meet [B, H, W]."""
    return x[:, None, None]


def _inside(rectangle: Array, size: tuple[int, int]) -> Array:
    """Which pixels lie in a rectangle: bool [B, H, W]."""
    y, x = _places(size)
    top, bottom, left, right = (_pixelwise(rectangle[:, k]) for k in range(4))
    return (top <= y) & (bottom > y) & (left <= x) & (right > x)


def _places(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows int32 [1, H, 1] and columns int32 [1, 1, W]."""
    y, x = (np.arange(side, dtype=np.int32) for side in size)
    return y[None, :, None], x[None, None, :]


def _moved(
    records: Held,
    own: Parameters,
    augment: Augment,
    size: tuple[int, int],
    xp: Any,
) -> Array:
    """Windows of the records, flipped and turned."""
    (height, width), (y, x) = size, _places(size)
    symmetric = augment.uses("horizontal_flip", "vertical_flip", "quarter_turns")
    is_whole = records.starts is None and (records.height, records.width) == size
    if not symmetric and is_whole:
        return xp.reshape(records.words, [-1, *size])
    zero = _pixelwise(xp.astype(own.row * 0, np.int32))
    y, x = zero + y, zero + x
    if symmetric:
        transpose, flip_x, flip_y = (_pixelwise(own.symmetry[:, k]) for k in range(3))
        y = xp.where(flip_y > 0, (height - 1) - y, y)
        x = xp.where(flip_x > 0, (width - 1) - x, x)
        y, x = xp.where(transpose > 0, x, y), xp.where(transpose > 0, y, x)
    if not is_whole:
        y, x = y + _pixelwise(own.window[:, 0]), x + _pixelwise(own.window[:, 1])
    if records.starts is None:  # the window lies inside
        return records.at(y, x, xp)
    sides = records.height, records.width
    row, column = (_mirrored(at, side, xp) for at, side in zip((y, x), sides, strict=True))
    words = records.at(row, column, xp)
    if augment.border == "constant":
        words = xp.where((row == y) & (column == x), words, words * 0 + _CLASS)
    return words


def _gathered(records: Array, places: Array, xp: Any) -> Array:
    """Words of records, or of tables, uint32 [B, N] at places int32 [B, H, W]."""
    _, height, width = places.shape
    flat = xp.reshape(places, [-1, height * width])
    return xp.reshape(xp.take_along_axis(records, flat, axis=1), [-1, height, width])


def _warped(
    records: Held,
    own: Parameters,
    augment: Augment,
    size: tuple[int, int],
    xp: Any,
) -> Array:
    """Samples each pixel once: colours bilinearly, the class from the nearest."""
    (height, width), (y, x) = size, _places(size)
    from_y, from_x = 2 * y - (height - 1), 2 * x - (width - 1)
    coordinates = [
        _pixelwise(own.map[:, axis, 0]) * from_x
        + _pixelwise(own.map[:, axis, 1]) * from_y
        + _pixelwise(own.map[:, axis, 2])
        for axis in range(2)
    ]
    if augment.uses("elastic_range"):
        moves = _elastic(own.elastic, augment.elastic_grid, size, xp)
        coordinates = [at + move for at, move in zip(coordinates, moves, strict=True)]
    is_constant = augment.border == "constant"
    (column, across, left_of), (row, below, above) = (
        _inner(at, side, is_constant, xp)
        for at, side in zip(coordinates, (records.width, records.height), strict=True)
    )
    right = xp.minimum(column + 1, records.width - 1)
    low = xp.minimum(row + 1, records.height - 1)
    pairs = [[records.at(r, c, xp) for c in (column, right)] for r in (row, low)]
    top, bottom = (_lerp(left, right, across, xp) for left, right in pairs)
    near = [xp.where(across < 128, left, right) for left, right in pairs]
    nearest = xp.where(below < 128, *near)
    words = (_lerp(top, bottom, below, xp) & _COLOURS) | (nearest & _CLASS)
    return xp.where(left_of | above, words * 0 + _CLASS, words) if is_constant else words


def _elastic(points: Array, grid: int, size: tuple[int, int], xp: Any) -> list[Array]:
    """Displacements in x and y, 16 binary places: int32 [B, H, W] each."""
    down, along = (kernels.bicubic(side, grid) for side in size)
    moves = []
    for axis in range(2):
        held = points[..., axis]
        rows = sum(
            xp.take(held, down[0] + n, axis=1) * down[None, 1 + n, :, None] for n in range(4)
        )
        rows = xp.right_shift(rows + 2048, 12)
        total = sum(
            xp.take(rows, along[0] + n, axis=2) * along[None, None, 1 + n] for n in range(4)
        )
        moves.append(xp.right_shift(total + 8, 4))
    return moves


def _inner(at: Array, side: Any, is_constant: bool, xp: Any) -> tuple[Array, Array, Array]:
    """Whole part in [0, side), fraction in 256ths as uint32, and whether it was outside."""
    outside = (at < -_HALF) | (at >= side * ONE - _HALF)
    if not is_constant:
        once = (at + _HALF) % (2 * side * ONE)  # the mirror images repeat
        at = side * ONE - xp.abs(side * ONE - once) - _HALF
    rounded = xp.minimum(xp.maximum(at, 0), (side - 1) * ONE) + 128  # to the nearest 256th
    fraction = xp.right_shift(rounded, 8) & 255
    return xp.right_shift(rounded, 16), xp.astype(fraction, np.uint32), outside


def _lerp(a: Array, b: Array, fraction: Array, xp: Any) -> Array:
    """Blends the four bytes of words, two at a time, in 256ths, rounding to nearest."""
    other, half, eight = np.uint32(256) - fraction, np.uint32(0x800080), np.uint32(8)
    even = (a & _LOW) * other + (b & _LOW) * fraction + half
    a, b = (xp.right_shift(word, eight) & _LOW for word in (a, b))
    odd = a * other + b * fraction + half
    return (xp.right_shift(even, eight) & _LOW) | (odd & np.uint32(0xFF00FF00))


def _channels(words: Array, xp: Any) -> list[Array]:
    """Red, green and blue, int32."""
    return [
        xp.astype(xp.right_shift(words, np.uint32(shift)) & np.uint32(255), np.int32)
        for shift in (0, 8, 16)
    ]


def _joined(colours: list[Array], words: Array) -> Array:
    """Colours uint32 in [0, 255] beside the classes of `words`."""
    red, green, blue = colours
    return red | green * np.uint32(1 << 8) | blue * np.uint32(1 << 16) | (words & _CLASS)


def _blurred(words: Array, weights: Array, xp: Any) -> Array:
    """Colours by a separable kernel, mirrored at the borders; classes stay."""
    weights = xp.astype(weights, np.uint32)
    colours = [xp.astype(channel, np.uint32) for channel in _channels(words, xp)]
    for axis, half, shift in ((2, 1 << 6, 7), (1, 1 << 22, 23)):
        side = words.shape[axis]
        place = np.arange(side)
        for number, channel in enumerate(colours):
            total = channel * _pixelwise(weights[:, 0]) + np.uint32(half)
            for k in range(1, weights.shape[1]):
                around = (_mirrored(place + move, side, np) for move in (-k, k))
                pair = sum(xp.take(channel, at.astype(np.int32), axis=axis) for at in around)
                total = total + pair * _pixelwise(weights[:, k])
            colours[number] = xp.right_shift(total, np.uint32(shift))
    return _joined([xp.minimum(channel, np.uint32(255)) for channel in colours], words)


def _mirrored(place: Array, side: Any, xp: Any) -> Array:
    """The pixel that a place outside mirrors."""
    once = place % (2 * side)
    return xp.where(once < side, once, 2 * side - 1 - once)


def _coloured(words: Array, own: Parameters, augment: Augment, xp: Any) -> Array:
    """An affine map of RGB, and noise."""
    channels = _channels(words, xp)
    noise = _grain(own.noise_key, words.shape, xp) if augment.uses("noise_range") else None
    colours = []
    for number in range(3):
        if augment.mixes:
            total = sum(
                _pixelwise(own.matrix[:, number, k]) * channel for k, channel in enumerate(channels)
            )
        else:
            total = _pixelwise(own.matrix[:, 0, 0]) * channels[number]
        total = total + _pixelwise(own.offset[:, number])
        if noise is not None:
            total = total + _pixelwise(own.deviation) * noise[number]
        clipped = xp.clip(xp.right_shift(total + _HALF, 16), 0, 255)
        colours.append(xp.astype(clipped, np.uint32))
    return _joined(colours, words)


def _grain(key: Array, shape: Any, xp: Any) -> list[Array]:
    """Centred sums of the four bytes of a hash (Wellons' lowbias32), int32 [B, H, W] a channel."""
    _, height, width = shape
    place = np.arange(3 * height * width, dtype=np.uint32).reshape(3, 1, height, width)
    grains = []
    for channel in range(3):
        x = _pixelwise(key) ^ (place[channel] * np.uint32(0x9E3779B1))
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            x = (x ^ xp.right_shift(x, np.uint32(shift))) * np.uint32(factor)
        x = x ^ xp.right_shift(x, np.uint32(16))
        pairs = (x & _LOW) + (xp.right_shift(x, np.uint32(8)) & _LOW)
        total = (pairs & np.uint32(0xFFFF)) + xp.right_shift(pairs, np.uint32(16))
        grains.append(xp.astype(total, np.int32) - 510)
    return grains

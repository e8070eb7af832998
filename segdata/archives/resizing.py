"""Resizing: images by area, masks by the class that covers most of a pixel.

Both see the same box, so neither moves against the other, and all sums are of whole numbers and
exact, so that a flipped image becomes the flipped result. NumPy arrays in and out; the loops are
compiled by Numba when first used and release the interpreter's lock. No file and no format is known
here.
"""

import functools
from typing import Any

import numpy as np

from segdata.core.system.compiling import compiled

_ROWS = 256  # of an image that are read at once


def image(
    pixels: np.ndarray, size: tuple[int, int], *, full: tuple[int, int] | None = None, step: int = 1
) -> np.ndarray:
    """Resizes an image: an axis that shrinks by area, one that grows bilinearly.

    Args:
        pixels: uint8 [h, w, C].
        size: Height and width of the result, H and W, in pixels.
        full: Height and width of the image before a decoder reduced it to `pixels`; h and w by
            default.
        step: The decoder's factor: a pixel covers `step`² of the image's, and the last of a row or
            column may reach beyond the image.

    Returns:
        uint8 [H, W, C], rounded to nearest. The same array where the size stays.

    Raises:
        ValueError: If the array is of another kind.
    """
    _require_kind(pixels, np.uint8, dimensions=3)
    full = full or pixels.shape[:2]
    if size == full == pixels.shape[:2]:
        return pixels
    height, width, channels = pixels.shape
    resized = _weighted(
        np.ascontiguousarray(pixels).reshape(height, width * channels),
        *_taps(size[0], full[0], step=step, old=height),
        *_taps(size[1], full[1], step=step, old=width, channels=channels),
    )
    return resized.reshape(*size, channels)


class ByRows:
    """The same of an image that is too large for memory, from a few of its rows at a time.

    Attributes:
        shape: H, W and C.
    """

    def __init__(self, pixels: Any, size: tuple[int, int]):
        """Reads nothing yet.

        Args:
            pixels: Has a `shape`, [h, w, C], and gives rows as uint8 [n, w, C] by slices.
            size: As in `image`.
        """
        height, width, channels = pixels.shape
        self.shape = (*size, channels)
        self._pixels = pixels
        self._rows = _taps(size[0], height, step=1, old=height)
        self._columns = _taps(size[1], width, step=1, old=width, channels=channels)
        self._step = max(1, _ROWS * size[0] // height)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Rows from a first one to a last one, uint8 [n, W, C]."""
        begin, end, _ = rows.indices(self.shape[0])
        out = np.empty((end - begin, *self.shape[1:]), np.uint8)
        for top in range(begin, end, self._step):
            part = slice(top, min(top + self._step, end))
            taps, weights = (np.ascontiguousarray(each[:, part]) for each in self._rows)
            first, last = int(taps.min()), int(taps.max())
            band = np.ascontiguousarray(self._pixels[first : last + 1]).reshape(
                last + 1 - first, -1
            )
            resized = _weighted(band, taps - np.int32(first), weights, *self._columns)
            out[top - begin : part.stop - begin] = resized.reshape(-1, *self.shape[1:])
        return out


def mask(classes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a mask: each pixel is of the class that covers most of it.

    The ignore label is a class like any other. Of classes that cover equally much, the lowest
    number wins.

    Args:
        classes: uint8 [h, w]; or uint16, the numbers of instances.
        size: Height and width of the result, H and W, in pixels.

    Returns:
        Of the same type, [H, W]. The same array where the size stays.

    Raises:
        ValueError: If the array is of another kind.
    """
    _require_kind(classes, np.uint8, np.uint16, dimensions=2)
    if size == classes.shape:
        return classes
    rows, columns = (_shares(new, old, 1) for new, old in zip(size, classes.shape, strict=True))
    return _covering(np.ascontiguousarray(classes), *rows, *columns)


def _require_kind(array: np.ndarray, *dtypes: type, dimensions: int) -> None:
    """Raises ValueError for other arrays, as compiled loops check no bounds."""
    if array.dtype not in dtypes or array.ndim != dimensions or not array.size:
        raise ValueError(
            f"{array.dtype} {list(array.shape)} is no array of "
            f"{' or '.join(kind.__name__ for kind in dtypes)} with {dimensions} dimensions."
        )


@functools.lru_cache
def _shares(new: int, old: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """How much of each new pixel the old ones cover.

    Returns:
        The first old pixel of each new one, int64 [new]; the lengths that it and those after it
        cover, int64 [new, K], which sum to `old` in units of 1/new of an old pixel.
    """
    edges = np.arange(new + 1, dtype=np.int64) * old
    lower, upper, unit = edges[:-1, None], edges[1:, None], step * new
    first = edges[:-1] // unit
    covering = -(-edges[1:] // unit) - first
    taps = first[:, None] + np.arange(covering.max())
    lengths = np.minimum(upper, (taps + 1) * unit) - np.maximum(lower, taps * unit)
    return first, np.maximum(lengths, 0)


def _neighbours(new: int, old: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """The two old pixels whose centres are nearest to that of each new one, and their weights.

    Returns:
        As `_shares`; the first may be -1. The weights sum to 2·step·new.
    """
    unit = 2 * step * new
    centres = np.arange(1, 2 * new, 2, dtype=np.int64) * old - step * new
    first, beyond = np.divmod(centres, unit)
    return first, np.stack([unit - beyond, beyond], axis=1)


@functools.lru_cache
def _taps(
    new: int, full: int, *, step: int, old: int, channels: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """What each value of a new row is made of, tap by tap.

    Args:
        new: How many pixels the row has.
        full: How many the image had.
        step: By what a decoder reduced it.
        old: How many are left of it.
        channels: How many values a pixel has, C.

    Returns:
        Where a value's K old values are, int32 [K, new·C]; their weights, float64 [K, new·C].
    """
    first, weights = (_shares if new * step < full else _neighbours)(new, full, step)
    pixels = np.clip(first[:, None] + np.arange(weights.shape[1]), 0, old - 1)
    places = pixels.T[..., None] * channels + np.arange(channels)
    weights = np.repeat(weights.T, channels, axis=1).astype(np.float64)
    return places.reshape(weights.shape).astype(np.int32), weights


@compiled
def _weighted(
    rows: np.ndarray,
    row_taps: np.ndarray,
    row_weights: np.ndarray,
    taps: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
    """Rows of values, uint8 [h, w·C], to uint8 [H, W·C].

    All sums are whole numbers, and exact: up to 511 times the sum of all weights, which is 2²⁵ for
    the largest image. They are floats because such loops become vector code: 2.5 times as fast.
    """
    out = np.empty((row_taps.shape[1], taps.shape[1]), np.uint8)
    total = row_weights[:, 0].sum() * weights[:, 0].sum()
    scale = 0.5 / total
    summed = np.empty(rows.shape[1])
    values = np.empty(taps.shape[1])
    for y in range(len(out)):
        summed[:] = 0
        for k in range(len(row_taps)):
            row, weight = rows[row_taps[k, y]], 2 * row_weights[k, y]
            if weight:
                for i in range(len(summed)):
                    summed[i] += weight * row[i]
        values[:] = total + 0.5  # half a level, and what keeps whole quotients whole
        for k in range(len(taps)):
            for i in range(len(values)):
                values[i] += weights[k, i] * summed[taps[k, i]]
        for i in range(len(values)):
            out[y, i] = np.uint8(np.int32(values[i] * scale))
    return out


@compiled
def _covering(
    classes: np.ndarray,
    first_row: np.ndarray,
    row_weights: np.ndarray,
    first_column: np.ndarray,
    column_weights: np.ndarray,
) -> np.ndarray:
    height, width = classes.shape
    out = np.empty((len(first_row), len(first_column)), classes.dtype)
    covered = np.zeros(1 << (8 * classes.itemsize), np.int64)
    differs = np.empty(width, classes.dtype)  # where a row's class is not that of the first above
    none = classes[0, 0] ^ classes[0, 0]  # of the masks' own type
    for y in range(len(first_row)):
        top = np.uint64(first_row[y])  # an index without a sign needs no check of it
        bottom = min(top + np.uint64(row_weights.shape[1]), np.uint64(height))
        above = classes[top]
        # Most boxes are of one class. Rows as a whole become vector code: 8 times as fast.
        for column in range(width):
            differs[column] = none
        for row in range(top + np.uint64(1), bottom):
            this = classes[row]
            for column in range(width):
                differs[column] |= this[column] ^ above[column]
        for x in range(len(first_column)):
            left = np.uint64(first_column[x])
            right = min(left + np.uint64(column_weights.shape[1]), np.uint64(width))
            found = above[left]
            others = none
            for column in range(left, right):
                others |= differs[column] | (above[column] ^ found)
            if others == none:
                out[y, x] = found
                continue
            for row in range(top, bottom):
                for column in range(left, right):
                    weight = row_weights[y, row - top] * column_weights[x, column - left]
                    covered[classes[row, column]] += weight
            for row in range(top, bottom):
                for column in range(left, right):
                    other = classes[row, column]
                    more = covered[other] - covered[found]
                    if more > 0 or (more == 0 and other < found):
                        found = other
            out[y, x] = found
            for row in range(top, bottom):
                for column in range(left, right):
                    covered[classes[row, column]] = 0
    return out

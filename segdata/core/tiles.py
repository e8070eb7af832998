"""Images cut into tiles of one size, and how what is said of tiles is put together again.

Along an axis tiles lie evenly, as few as overlap as wanted; both axes are cut alike, so a tile is a
product of two. An image that is smaller than a tile lies in the middle of the only one. All take
arrays as well as numbers.
"""

import fractions
from typing import Any

import numpy as np


def reduced(height: int, width: int, longest: int) -> tuple[int, int]:
    """The size of an image whose longer side is at most `longest` pixels, its shape kept."""
    most = max(height, width)
    scale = fractions.Fraction(min(longest, most), most)
    return max(1, round(height * scale)), max(1, round(width * scale))


def count(length: Any, side: int, overlap: int = 0) -> Any:
    """How many tiles cover an axis.

    Args:
        length: Of the axis, in pixels.
        side: Of a tile.
        overlap: Pixels that neighbours have in common, at least; less than a side.
    """
    return np.maximum(-(-(length - overlap) // (side - overlap)), 1)


def start(number: Any, of: Any, length: Any, side: int) -> Any:
    """The first pixel of a tile on the axis; below 0 where the axis is shorter than a tile.

    Args:
        number: Which tile, from 0.
        of: How many there are.
        length: Of the axis, in pixels.
        side: Of a tile.
    """
    spare, gaps = length - side, np.maximum(of - 1, 1)
    return np.where(of > 1, (number * spare + gaps // 2) // gaps, spare // 2)


def own(number: Any, of: Any, length: Any, side: int) -> tuple[Any, Any]:
    """The first pixel of a tile that is nearer to its middle than to any other's, and the end.

    Both are counted from the tile's own start. Each pixel of the axis is one tile's own.
    """
    here = start(number, of, length, side)
    before, after = (start(number + step, of, length, side) for step in (-1, 1))
    first = np.where(number > 0, (before + here + side) // 2, 0)
    last = np.where(number < of - 1, (here + after + side) // 2, length)
    return first - here, last - here


def weights(of: int, length: int, side: int) -> np.ndarray:
    """How much each tile says of each of its pixels: float32 [of, side].

    It falls from a tile's middle to its edges, and over all tiles it sums to 1 at every pixel of
    the axis; beyond the axis it is 0.
    """
    starts = start(np.arange(of), of, length, side)
    places = starts[:, None] + np.arange(side)
    is_inside = (places >= 0) & (places < length)
    falling = np.minimum(np.arange(side) + 1, np.arange(side, 0, -1)) * is_inside
    sums = np.bincount(places[is_inside], falling[is_inside], length)
    return np.where(is_inside, falling / sums[np.clip(places, 0, length - 1)], 0).astype(np.float32)


def mirrored(places: np.ndarray, length: int) -> np.ndarray:
    """Places beyond an axis, brought inside by its mirror images; integers of any shape."""
    places = places % (2 * length)
    return np.minimum(places, 2 * length - 1 - places)


def cut(pixels: np.ndarray, top: int, left: int, size: tuple[int, int]) -> np.ndarray:
    """A tile of an image; what is beyond the image is its mirror image.

    Args:
        pixels: [H, W, ...].
        top: The first row of the tile; may be negative.
        left: Likewise the first column.
        size: Height and width of the tile.
    """
    rows, columns = (
        mirrored(np.arange(first, first + side), length)
        for first, side, length in zip((top, left), size, pixels.shape[:2], strict=True)
    )
    return pixels[np.ix_(rows, columns)]

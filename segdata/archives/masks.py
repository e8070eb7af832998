"""Mask arithmetic.

Masks are NumPy arrays, uint8 [H, W], one class id a pixel, 255 the ignore label. Label maps are
uint16 [H, W], 0 for background, else the number of the object. No TensorFlow here, and no files.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from segdata.core import IGNORE_LABEL
from segdata.core.system.compiling import compiled

MOST_OBJECTS = 65_535
"""Of one image: their numbers are uint16."""

_AT_ONCE = 4096  # pixels whose distances to a palette stay in a core's cache: twice as fast


@dataclasses.dataclass(frozen=True)
class Instances:
    """Objects of one image, merged.

    Attributes:
        labels: uint16 [H, W], 0 for background, else the object's number, from 1.
        contested: The number of pixels in more than one object.
    """

    labels: np.ndarray
    contested: int

    @property
    def mask(self) -> np.ndarray:
        """uint8 [H, W]: 1 in any object, 0 elsewhere."""
        return (self.labels > 0).astype(np.uint8)


def merge_instances(masks: Iterable[np.ndarray], *, shape: tuple[int, int]) -> Instances:
    """Numbers objects that come as one mask each.

    The objects are numbered in the order given, empty ones too; the first keeps a contested
    pixel. The work grows with the pixels of the objects, not with objects times image.

    Args:
        masks: Bool or integer [H, W] each, non-zero in the object; taken one at a time.
        shape: (H, W).

    Returns:
        The label map, and how many pixels were contested.

    Raises:
        ValueError: If a mask has another shape, or there are more than 65,535.
    """
    labels = np.zeros(shape, np.uint16)
    contested = np.zeros(shape, bool)
    for number, mask in enumerate(masks, start=1):
        if mask.shape != shape:
            raise ValueError(f"mask {number} has shape {mask.shape}, the image has {shape}.")
        if number > MOST_OBJECTS:
            raise ValueError(f"more than {number - 1:,} masks; a label map of uint16 ends there.")
        inside = mask if mask.dtype == bool else mask != 0
        _claim(np.ascontiguousarray(inside), number, labels, contested)
    return Instances(labels, int(np.count_nonzero(contested)))


def merge_smallest_first(
    areas: Sequence[int], mask_of: Callable[[int], np.ndarray], *, shape: tuple[int, int]
) -> Instances:
    """As `merge_instances`, but the smallest object keeps a contested pixel, and then the first.

    Args:
        areas: The pixels of each object.
        mask_of: Gives the mask of an object, by its place in `areas`.
        shape: (H, W).
    """
    order = np.argsort(areas, kind="stable")
    merged = merge_instances((mask_of(at) for at in order.tolist()), shape=shape)
    numbers = np.array([0, *(order + 1)], np.uint16)
    return Instances(numbers[merged.labels], merged.contested)


def nearest_colour(colours: np.ndarray, palette: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the colour of a palette that each pixel is nearest to.

    Args:
        colours: uint8 [H, W, 3].
        palette: uint8 [K, 3].

    Returns:
        The index in the palette, uint8 [H, W], of equally near ones the first; and the Euclidean
        distance in RGB, float32 [H, W], in grey levels.

    Raises:
        ValueError: If the palette has no colours or more than 255.
    """
    if not 1 <= len(palette) <= IGNORE_LABEL:
        raise ValueError(f"a palette of {len(palette)} colours; it has 1 to {IGNORE_LABEL}.")
    # Of |c - p|² = |c|² + (|p|² - 2cp) the bracket orders the colours; with its own number in the
    # lowest bits it names them as well, so one minimum does both, 10 times as fast as argmin. All
    # are whole numbers, under 2²⁴ for palettes of up to 32, so floats are exact.
    step = 1 << (len(palette) - 1).bit_length()
    kind = np.float32 if step <= 32 else np.float64
    pixels, points = colours.reshape(-1, 3).astype(kind), palette.astype(kind)
    offsets = step * (points**2).sum(axis=-1) + np.arange(len(palette), dtype=kind)
    best = np.empty(len(pixels), kind)
    for start in range(0, len(pixels), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        products = (-2 * step * points) @ pixels[some].T
        products += offsets[:, None]
        products.min(axis=0, out=best[some])
    index = best.astype(np.int32) & (step - 1)
    squares = (best - index) / step + np.einsum("ij,ij->i", pixels, pixels)
    shape = colours.shape[:-1]
    return index.astype(np.uint8).reshape(shape), np.sqrt(squares, dtype=np.float32).reshape(shape)


def without_smears(
    labels: np.ndarray, distance: np.ndarray, *, radius: float, clean: float
) -> np.ndarray:
    """Sets labels that compression made uncertain to the ignore label.

    JPEG smears flat colours: where two regions meet, a strip one or two pixels wide has colours
    between theirs, and some of those are near a third class.

    Args:
        labels: uint8 [H, W], by colour.
        distance: float [H, W], of each pixel's colour from its class's, in grey levels.
        radius: The largest distance of a pixel that keeps its label.
        clean: The same for a pixel beside one of another class.

    Returns:
        uint8 [H, W]; 255 where a pixel is farther than `radius`, or farther than `clean` with
        another label among its eight neighbours.
    """
    border = _of_neighbours(np.maximum, labels) != _of_neighbours(np.minimum, labels)
    unsure = (distance > radius) | (border & (distance > clean))
    return np.where(unsure, np.uint8(IGNORE_LABEL), labels)


def borders(labels: np.ndarray, *, reach: int) -> np.ndarray:
    """Finds where objects touch or nearly touch.

    Args:
        labels: uint16 [H, W], 0 for background, else the number of an object.
        reach: In pixels along rows, columns and diagonals.

    Returns:
        Bool [H, W]: the pixels of objects that have another object within `reach`.
    """
    highest, lowest = labels, labels - np.uint16(1)  # background becomes the highest number
    for _ in range(reach):
        highest, lowest = _of_neighbours(np.maximum, highest), _of_neighbours(np.minimum, lowest)
    return (labels > 0) & ((highest != labels) | (lowest + np.uint16(1) != labels))


@compiled
def _claim(inside: np.ndarray, number: int, labels: np.ndarray, contested: np.ndarray) -> None:
    """Gives pixels to an object but for those that have one, which become contested."""
    height, width = labels.shape
    for y in range(height):
        is_empty = True  # as nearly all rows of nearly all masks are: vector code finds out
        for x in range(width):
            is_empty &= not inside[y, x]
        if is_empty:
            continue
        for x in range(width):
            if inside[y, x]:
                if labels[y, x]:
                    contested[y, x] = True
                else:
                    labels[y, x] = number


def _of_neighbours(extreme: np.ufunc, labels: np.ndarray) -> np.ndarray:
    """The largest or the smallest of each pixel and its neighbours; 10 times as fast as SciPy."""
    padded = np.pad(labels, 1, mode="edge")
    rows = extreme(extreme(padded[:-2], padded[1:-1]), padded[2:])
    return extreme(extreme(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])

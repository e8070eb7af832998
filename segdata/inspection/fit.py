"""How well an annotation fits its image: a few numbers of each example.

Three facts need no model. An outline lies on edges of the image; if it lies on them better after a
shift, the mask was shifted. What is inside differs from what is outside, in the same direction in
similar images. And where the outline is, there are most of the strong edges of what looks like an
object; if half of them lie elsewhere, objects are missing. No file is known here.
"""

import dataclasses
from typing import Any

import numpy as np
import scipy.fft
from PIL import Image

from segdata.core import IGNORE_LABEL
from segdata.core.system.compiling import compiled

fft: Any = scipy.fft  # its types are those of dispatching

_SIDE = 128  # pixels, of the longer side that is looked at
_REACH = 0.15  # of the longer side; a mask may have been shifted by that much
PIECE, SECOND = 20, 0.4
"""Pixels of the second piece of an object at least, and its share of the first."""

_LEAST = 8  # pixels inside and outside; with fewer nothing can be said


@dataclasses.dataclass(frozen=True)
class Fit:
    """How a mask lies on its image.

    Attributes:
        separation: The probability that a pixel inside is brighter than one outside: 0.5 where
            brightness says nothing, near 0 for dark objects.
        here: How well the outline lies on edges of the image: their correlation, in standard
            deviations of the correlations at all shifts.
        best: The same at the best shift within reach.
        shift: That shift's rows and columns, as shares of the image's longer side.
        elsewhere: The share of the strong edges, around what is as bright as the objects, that are
            not at any object.
    """

    separation: float
    here: float
    best: float
    shift: tuple[float, float]
    elsewhere: float


def reduced(image: Image.Image, mask: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    """Image and mask at 65 to 128 pixels of the longer side, if they have as many.

    Args:
        image: 8-bit RGB.
        mask: uint8 [H, W], of the same size.

    Returns:
        8-bit RGB, averaged over squares, and uint8 [h, w], their centres.
    """
    step = -(-max(image.size) // _SIDE)
    small = mask[step // 2 :: step, step // 2 :: step]
    size = min(small.shape[1], image.width // step), min(small.shape[0], image.height // step)
    return image.reduce(step).crop((0, 0, *size)), small[: size[1], : size[0]]


def measure(image: Image.Image, mask: np.ndarray) -> Fit | None:
    """Measures how a mask lies on its image; None where it is empty or full, or has no outline.

    Args:
        image: 8-bit RGB, as `reduced` makes it.
        mask: uint8 [H, W], 0 outside, 255 the ignore label, anything else inside.
    """
    grey, small = np.asarray(image.convert("L")), mask
    outside, known = small == 0, small != IGNORE_LABEL
    inside = known & ~outside
    if min(np.count_nonzero(inside), np.count_nonzero(outside)) < _LEAST:
        return None
    edges = slope(np.sqrt(grey, dtype=np.float32))
    outline = _changes(small)
    if not outline.any():  # classes meet nowhere, but at the border or pixels without a label
        return None
    here, best, shift = _matched(outline, edges)
    below, above = (
        np.cumsum(np.bincount(grey[part], minlength=256) / np.count_nonzero(part))
        for part in (outside, inside)
    )
    separation = float(np.diff(above, prepend=0) @ (below + np.append(0, below[:-1]))) / 2
    threshold = int(np.argmax(below - above if separation > 0.5 else above - below))
    objects = (grey > threshold) == (separation > 0.5)
    strong = known & (edges >= np.median(edges[outline > 0])) & (slope(objects) > 0)
    apart = strong & ~_grown(_grown(inside))
    return Fit(
        separation=separation,
        here=here,
        best=best,
        shift=shift,
        elsewhere=float(np.count_nonzero(apart) / max(1, np.count_nonzero(strong))),
    )


def slope(values: np.ndarray) -> np.ndarray:
    """The size of the gradient, float32 [H, W]; 0 along the border."""
    values = values.astype(np.float32, copy=False)
    slope = np.zeros_like(values)
    down = values[2:, 1:-1] - values[:-2, 1:-1]
    right = values[1:-1, 2:] - values[1:-1, :-2]
    slope[1:-1, 1:-1] = np.sqrt(down * down + right * right)
    return slope


def _changes(labels: np.ndarray) -> np.ndarray:
    """As `_slope`, of which labels differ; the ignore label differs from none. float32 [H, W]."""
    changes = np.zeros(labels.shape, np.float32)
    inner = changes[1:-1, 1:-1]
    for one, other in (
        (labels[2:, 1:-1], labels[:-2, 1:-1]),
        (labels[1:-1, 2:], labels[1:-1, :-2]),
    ):
        inner += (one != other) & (one != IGNORE_LABEL) & (other != IGNORE_LABEL)
    return np.sqrt(changes)


def _matched(outline: np.ndarray, edges: np.ndarray) -> tuple[float, float, tuple[float, float]]:
    """How well an outline lies on edges here, within a pixel, and at the best shift, and that."""
    most = np.partition(edges, int(0.98 * edges.size), axis=None)[int(0.98 * edges.size)]
    edges = np.minimum(edges, most)  # else a few bright specks are all that counts
    shape = [fft.next_fast_len(side, real=True) for side in edges.shape]
    spectrum = np.conj(fft.rfft2(outline - outline.mean(), shape)) * fft.rfft2(
        edges - edges.mean(), shape
    )
    scores = fft.irfft2(spectrum, shape)
    scores /= max(float(scores.std()), 1e-9)
    reach = max(3, round(_REACH * max(edges.shape)))
    window = np.roll(scores, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    rows, columns = divmod(int(window.argmax()), window.shape[1])
    here = window[reach - 1 : reach + 2, reach - 1 : reach + 2].max()
    side = max(edges.shape)
    return float(here), float(window.max()), ((rows - reach) / side, (columns - reach) / side)


def _grown(inside: np.ndarray) -> np.ndarray:
    """With the neighbours in the four directions, bool [H, W]."""
    grown = inside.copy()
    grown[1:] |= inside[:-1]
    grown[:-1] |= inside[1:]
    grown[:, 1:] |= inside[:, :-1]
    grown[:, :-1] |= inside[:, 1:]
    return grown


def apart(instances: np.ndarray) -> tuple[int, ...]:
    """The numbers of objects that lie in two places of about the same size.

    The second piece has `PIECE` pixels or more and `SECOND` of those of the first; an object that
    another one divides, or a slip of the pen, leaves a smaller one. The largest second piece in
    10,699 real nuclei has 15 pixels and 0.28 of the first. Two objects that touch are one piece and
    are not found.

    Args:
        instances: uint16 [H, W], 0 for background, else the number of the object.
    """
    labels = instances.astype(np.int32)
    first, second = _pieces(labels, np.zeros((2, labels.max(initial=0) + 1), np.int32))
    return tuple(np.flatnonzero((second >= PIECE) & (second >= SECOND * first)).tolist())


@compiled
def _pieces(labels: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Writes the pixels of each number's two largest pieces to int32 [2, numbers]."""
    height, width = labels.shape
    most = height * width + 1  # parts of pieces; memory that is not written to costs nothing
    label_of, sizes = np.empty(most, np.int32), np.empty(most, np.int32)
    joined_to = np.empty(most, np.int32)
    count = 1
    above, here = np.zeros(width, np.int32), np.zeros(width, np.int32)  # a part of each pixel
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            part = 0
            if label:
                if x > 0 and labels[y, x - 1] == label:
                    part = here[x - 1]
                if y > 0:
                    for at in range(max(0, x - 1), min(width, x + 2)):
                        if labels[y - 1, at] == label and above[at] != part:
                            other = above[at]
                            while joined_to[other] != other:
                                other = joined_to[other]
                            while part and joined_to[part] != part:
                                part = joined_to[part]
                            if part and part != other:
                                joined_to[part] = other
                                sizes[other] += sizes[part]
                            part = other
                if part == 0:
                    part = count
                    label_of[part], sizes[part], joined_to[part] = label, 0, part
                    count += 1
                while joined_to[part] != part:
                    part = joined_to[part]
                sizes[part] += 1
            here[x] = part
        above, here = here, above
    for part in range(1, count):
        if joined_to[part] == part:
            label, size = label_of[part], sizes[part]
            if size > largest[0, label]:
                largest[1, label], largest[0, label] = largest[0, label], size
            elif size > largest[1, label]:
                largest[1, label] = size
    return largest

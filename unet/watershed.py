"""From the classes of pixels to single objects: a watershed of the distance to their edges.

An object is high where it is far from its edge. Flooded from the heights down, each summit starts
an object and each pixel joins its highest neighbour; where two meet, the lower summit joins the
other unless it stands out above the place by `Separation.seed_depth`. So there are as many objects
as such summits, which are the seeds, without a search for them. Where a model tells borders, the
distance is that to the edge of what is no border, and negative in the borders.

The result depends on the classes and the settings alone. An image takes about 40 bytes a pixel.

Source: F. Meyer, "Topographic distance and watershed lines", Signal Processing 38, 1994; summits by
their dynamics: M. Grimaud, "New measure of contrast: the dynamics", SPIE 1769, 1992.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from segdata.core.system.compiling import compiled
from unet.objects import Separation

_label: Any = ndimage.label  # for a checker it may return a number


def objects(
    found: np.ndarray, separation: Separation | None = None, *, border: int | None = None
) -> np.ndarray:
    """Splits a mask into objects; pixels belong together that share an edge.

    Args:
        found: uint8 [H, W], class ids; 0 is background, all others are of objects. Of a probability
            those above a threshold.
        separation: The settings; the defaults if not given.
        border: The class of the pixels between touching objects, if there is one. It belongs to the
            objects, but holds no seed, unless a region has no other class.

    Returns:
        int32 [H, W], numbered from 1 in the order of their first pixels along the rows.
    """
    separation = separation or Separation()
    inside = found > 0
    core = inside if border is None else inside & (found != border)
    height = _height(inside, core, separation.smoothing)
    at = np.flatnonzero(inside)
    order = at[np.argsort(-height.ravel()[at], kind="stable")]
    return _numbered(_flood(height, order, separation.seed_depth), separation.least_area)


def of_classes(
    found: np.ndarray,
    kinds: Sequence[int],
    separation: Separation | None = None,
    *,
    border: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Splits each of several classes into objects; those of two classes that touch are two.

    Args:
        found: uint8 [H, W], class ids.
        kinds: The classes that have objects.
        separation: As in `objects`.
        border: As in `objects`. It belongs to the objects that it touches, to those of the first of
            several classes, and where it touches none to the first class.

    Returns:
        int32 [H, W], numbered from 1, class after class as in `objects`; 0 for all else; and
        uint8 [N], the class of each.
    """
    labels, numbered = np.zeros(found.shape, np.int32), np.zeros(0, np.uint8)
    for number in kinds:
        inside = (found == number).astype(np.uint8)
        if border is not None:
            between = (found == border) & (labels == 0)
            inside[between & _connected(between | (inside > 0), inside > 0)] = 2
            if number == kinds[0]:
                others = np.isin(found, kinds)
                inside[between & ~_connected(between | others, others)] = 2
        parts = objects(inside, separation, border=None if border is None else 2)
        labels[parts > 0] = parts[parts > 0] + len(numbered)
        numbered = np.append(numbered, np.full(parts.max(initial=0), number, np.uint8))
    return labels, numbered


def _connected(region: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The parts of a region, bool [H, W], that hang together by their sides and hold a seed."""
    parts = np.asarray(_label(region)[0])
    seeded = np.zeros(int(parts.max()) + 1, bool)
    seeded[parts[seeds]] = True
    return seeded[parts] & region


def _height(inside: np.ndarray, core: np.ndarray, smoothing: float) -> np.ndarray:
    """Distance to the edge, float32 [H, W], in pixels; negative outside and in borders."""
    if core is not inside:
        core = core | (inside & ~_connected(inside, core))
    if core.all() or not core.any():  # there is no edge to measure from
        return np.zeros(inside.shape, np.float32)
    height = _distance(core)
    height -= _distance(~core)
    return ndimage.gaussian_filter(height, smoothing) if smoothing else height


def _distance(region: np.ndarray) -> np.ndarray:
    """Of each pixel to the nearest outside the region, float32 [H, W]; 0 outside."""
    return np.asarray(ndimage.distance_transform_edt(region), np.float32)


def _numbered(labels: np.ndarray, least_area: int) -> np.ndarray:
    """Renumbers objects in the order of their first pixels; leaves small ones out."""
    numbers, first, areas = np.unique(labels, return_index=True, return_counts=True)
    kept = (numbers > 0) & (areas >= least_area)
    new = np.zeros(int(labels.max()) + 1, np.int32)
    new[numbers[kept][np.argsort(first[kept])]] = np.arange(1, np.count_nonzero(kept) + 1)
    return new[labels]


@compiled
def _flood(height: np.ndarray, order: np.ndarray, depth: float) -> np.ndarray:
    """Floods pixels in order.

    Args:
        height: float32 [H, W].
        order: int64 [N], the pixels to flood, by falling height.
        depth: How far a summit stands out that stays one.

    Returns:
        int32 [H, W]: a number above 0 for each object, in no order; 0 for all other pixels.
    """
    rows, columns = height.shape
    labels = np.zeros((rows, columns), np.int32)
    joined = np.zeros(len(order) + 1, np.int32)  # what each has become; itself as long as it stands
    summit = np.zeros(len(order) + 1, np.float32)
    count = 0
    near = np.zeros(4, np.int32)
    for pixel in order:
        y, x = pixel // columns, pixel % columns
        level = height[y, x]
        around, highest = 0, np.float32(0)
        for step in range(4):
            v, u = y + (step == 2) - (step == 0), x + (step == 3) - (step == 1)
            if v < 0 or u < 0 or v >= rows or u >= columns or labels[v, u] == 0:
                continue
            label = labels[v, u]
            while joined[label] != label:
                joined[label] = joined[joined[label]]
                label = joined[label]
            if around == 0 or height[v, u] > highest:
                highest = height[v, u]
                labels[y, x] = label
            near[around] = label
            around += 1
        if around == 0:
            count += 1
            joined[count], summit[count], labels[y, x] = count, level, count
            continue
        for step in range(around):
            # Those around meet at this pixel alone: each does with the one that the pixel joins.
            one, other = labels[y, x], near[step]
            while joined[one] != one:
                one = joined[one]
            while joined[other] != other:
                other = joined[other]
            if summit[one] > summit[other] or (summit[one] == summit[other] and one < other):
                one, other = other, one  # the lower joins the higher, the later the earlier
            if one != other and summit[one] - level < depth:
                joined[one] = other
    for y in range(rows):
        for x in range(columns):
            label = labels[y, x]
            while joined[label] != label:
                label = joined[label]
            labels[y, x] = label
    return labels

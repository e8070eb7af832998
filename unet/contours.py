"""Outlines of objects along the edges of their pixels, exact, as polygons.

Coordinates are x to the right and y down, in pixels from the image's upper left corner: the pixel
of row r and column c covers x from c to c + 1 and y from r to r + 1; its centre is at one half.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # x and y, each a turn to the right of the one before

Ring = list[tuple[int, int]]
"""Corners x and y in order; the first is also the last."""


class Outline(NamedTuple):
    """One object."""

    number: int
    """Its number in the label map."""

    outer: list[Ring]
    """One ring of each part whose pixels hang together by their sides, clockwise as seen."""

    holes: list[Ring]
    """Rings of what is not the object, counter-clockwise."""


def outlines(labels: np.ndarray) -> Iterator[Outline]:
    """The outline of each object of a label map [H, W], by number; 0 is background."""
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        if place is not None:
            rings = _rings(labels[place] == number, place[1].start, place[0].start)
            outer = [ring for ring in rings if area(ring) > 0]
            yield Outline(number, outer, [ring for ring in rings if area(ring) < 0])


def area(ring: Ring) -> float:
    """Of a ring in pixels, negative where it is counter-clockwise as seen."""
    corners: Any = np.array(ring)
    x, y = corners.T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def geojson(outline: Outline) -> dict[str, Any]:
    """A GeoJSON geometry: a Polygon, or a MultiPolygon where an object has several parts.

    A hole goes to the innermost part around it.
    """
    parts = [[ring] for ring in outline.outer]
    for hole in outline.holes:
        inside = [part for part in parts if len(parts) == 1 or _holds(part[0], hole)]
        min(inside, key=lambda part: area(part[0])).append(hole)
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}


def _rings(inside: np.ndarray, left: int, top: int) -> list[Ring]:
    """Goes along all sides between inside and outside, inside to the right."""
    around = np.pad(inside, 1)
    middle = around[1:-1, 1:-1]
    # For each direction: the pixels with outside to the left of it, and where such a side starts.
    sides = (
        (around[:-2, 1:-1], (0, 0)),
        (around[1:-1, 2:], (1, 0)),
        (around[2:, 1:-1], (1, 1)),
        (around[1:-1, :-2], (0, 1)),
    )
    leaving: dict[tuple[int, int], list[int]] = {}
    for direction, (beyond, (x, y)) in enumerate(sides):
        rows, columns = np.nonzero(middle & ~beyond)
        for corner in zip((columns + x).tolist(), (rows + y).tolist(), strict=True):
            leaving.setdefault(corner, []).append(direction)
    rings = []
    while leaving:
        start = corner = next(iter(leaving))
        direction = leaving[start][0]
        ring, last = [], None
        while corner in leaving:
            # Where pixels touch by a corner two sides go on; to the right is the same pixel's.
            choices = leaving[corner]
            if last is not None and (last + 1) % 4 in choices:
                direction = (last + 1) % 4
            elif last is not None:
                direction = choices[0]
            choices.remove(direction)
            if not choices:
                del leaving[corner]
            if direction != last:
                ring.append((corner[0] + left, corner[1] + top))
            corner = (corner[0] + _STEPS[direction][0], corner[1] + _STEPS[direction][1])
            last = direction
            if corner == start and (last + 1) % 4 not in leaving.get(start, []):
                break
        rings.append([*ring, ring[0]])
    return rings


def _holds(ring: Ring, hole: Ring) -> bool:
    """Whether a hole is inside a ring: a ray to the right from its uppermost side's middle."""
    left, top = min(hole[:-1], key=lambda corner: (corner[1], corner[0]))
    x, y = left + 0.5, top + 0.5
    crossed = 0
    for (x0, y0), (x1, y1) in itertools.pairwise(ring):
        crossed += x0 == x1 and x0 > x and min(y0, y1) < y < max(y0, y1)
    return crossed % 2 == 1

"""Masks drawn over images, for people.

Each class has a colour, tinted inside and bright along its outline; the ground stays as it is, and
what is not labelled is hatched. NumPy only; no file and no data set is known here.
"""

import colorsys
from collections.abc import Sequence

import numpy as np

from segdata.core import IGNORE_LABEL

GREY = (150, 150, 150)
_GROUNDS = ("background", "ground", "other", "void", "unlabeled", "unlabelled")


def palette(classes: Sequence[str]) -> np.ndarray:
    """A colour for each class.

    Args:
        classes: Names, by class id.

    Returns:
        uint8 [K, 3]; neighbours in the list are far apart in hue, the second class is green.
    """
    hues = [(1 / 3 + 0.618034 * (number - 1)) % 1 for number in range(len(classes))]
    colours = [colorsys.hsv_to_rgb(hue, 0.75, 1) for hue in hues]
    return (255 * np.array(colours)).round().astype(np.uint8)


def tinted(classes: Sequence[str]) -> list[bool]:
    """Which classes are drawn: all but the ground, which is class 0 where two share the pixels."""
    ground = len(classes) <= 2 or classes[0].lower() in _GROUNDS
    return [not (ground and number == 0) for number in range(len(classes))]


def overlay(
    image: np.ndarray,
    mask: np.ndarray,
    *,
    classes: Sequence[str],
    instances: np.ndarray | None = None,
) -> np.ndarray:
    """Draws a mask over an image.

    Args:
        image: uint8 [H, W, 3].
        mask: uint8 [H, W] of class ids; 255 is hatched, other values without a class are red.
        classes: Names, by class id.
        instances: Numbers of objects [H, W]; objects that touch are then outlined apart.

    Returns:
        uint8 [H, W, 3].
    """
    drawn = image.astype(np.float32)
    colours = palette(classes)
    edges = outline(mask if instances is None else instances)
    for number, is_drawn in enumerate(tinted(classes)):
        if is_drawn:
            inside = mask == number
            drawn[inside] = 0.78 * drawn[inside] + 0.22 * colours[number]
            drawn[inside & edges] = colours[number]
    foreign = (mask >= len(classes)) & (mask != IGNORE_LABEL)
    drawn[foreign] = (255, 0, 0)
    drawn = _hatched(drawn, mask == IGNORE_LABEL)
    return drawn.round().astype(np.uint8)


def nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes labels [H, W] to height and width by nearest neighbour."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for new, old in zip(size, labels.shape, strict=True)
    )
    return labels[rows][:, columns]


def outline(labels: np.ndarray) -> np.ndarray:
    """The pixels that touch, by a side, one of another label; bool [H, W]."""
    around = np.pad(labels, 1, mode="edge")
    here = around[1:-1, 1:-1]
    return (
        (here != around[:-2, 1:-1])
        | (here != around[2:, 1:-1])
        | (here != around[1:-1, :-2])
        | (here != around[1:-1, 2:])
    )


def _hatched(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    diagonal = np.add.outer(np.arange(where.shape[0]), np.arange(where.shape[1]))
    lines = where & (diagonal % 8 < 2)
    image[where] = 0.75 * image[where] + 0.25 * np.array(GREY)
    image[lines] = GREY
    return image

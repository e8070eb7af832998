"""Masks drawn over images.

Each class is tinted in its colour, with a bright outline; the background stays as it is, and pixels
without a label are hatched. Arrays in and out; no file and no dataset is known here.
"""

import colorsys
from collections.abc import Sequence

import numpy as np

from segdata.core import IGNORE_LABEL

GREY = (150, 150, 150)
"""The colour of pixels without a label."""

_BACKGROUNDS = ("background", "ground", "other", "void", "unlabeled", "unlabelled")
_TINT, _HATCH = 0.3, 0.25  # share of the colour


def palette(classes: int) -> np.ndarray:
    """A colour for each class.

    Args:
        classes: How many.

    Returns:
        uint8 [K, 3]; the hues of consecutive classes are far apart, class 1 is green.
    """
    hues = [(1 / 3 + 0.618034 * (number - 1)) % 1 for number in range(classes)]
    colours = [colorsys.hsv_to_rgb(hue, 0.75, 1) for hue in hues]
    return (255 * np.array(colours)).round().astype(np.uint8)


def tinted(classes: Sequence[str]) -> list[bool]:
    """Which classes are drawn: all but the background.

    That is a class of this name; else class 0 where there are two, or its name says so.
    """
    named = [name.casefold().strip(" _-") == "background" for name in classes]
    is_first = classes[0].lower() in _BACKGROUNDS or (len(classes) <= 2 and not any(named))
    return [not (own or (is_first and number == 0)) for number, own in enumerate(named)]


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
    drawn = image.copy()
    edges = outline(mask if instances is None else instances)
    for number, colour in enumerate(palette(len(classes))):
        if tinted(classes)[number]:
            inside = mask == number
            _blend(drawn, inside, colour, share=_TINT)
            drawn[inside & edges] = colour
    drawn[(mask >= len(classes)) & (mask != IGNORE_LABEL)] = (255, 0, 0)
    ignored = mask == IGNORE_LABEL
    _blend(drawn, ignored, GREY, share=_HATCH)
    drawn[ignored & _diagonals(mask.shape)] = GREY
    return drawn


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


def _blend(
    image: np.ndarray, where: np.ndarray, colour: Sequence[int] | np.ndarray, *, share: float
) -> None:
    """Mixes a colour into some pixels, in place."""
    levels = (1 - share) * np.arange(256)[:, None] + share * np.asarray(colour)
    table = levels.round().astype(np.uint8)  # no float for each pixel
    for channel in range(3):
        image[..., channel][where] = table[:, channel][image[..., channel][where]]


def _diagonals(shape: tuple[int, ...]) -> np.ndarray:
    rows, columns = (np.arange(side).astype(np.uint8) for side in shape)  # modulo 256, as 8 wants
    return np.add.outer(rows, columns) % 8 < 2

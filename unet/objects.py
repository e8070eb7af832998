"""Single objects: how a prediction is split into them, and how they are matched and scored.

A label map is [H, W] of whole numbers, 0 for background, else the number of an object. Objects are
matched as the Data Science Bowl 2018 does: an object is found if the intersection over union (IoU)
of a predicted one with it is above a threshold of at least 0.5, so each has one match at most. The
score of an image at a threshold is TP / (TP + FP + FN), found objects over found, wrong and missed
ones. The competition leaves it undefined where there is no object in truth or prediction; here it
is 1, as the scores of pixels are in `metrics`. Where nothing is to be found and something is, it
is 0.

Source: the competition's evaluation page, https://www.kaggle.com/c/data-science-bowl-2018. NumPy
only; `watershed` makes the objects.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from unet.saved import require

PERCENTS = tuple(range(50, 100, 5))
"""Thresholds of the IoU in percent: 0.50, 0.55 … 0.95."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Separation:
    """How a mask is split into objects.

    The defaults were the best of the real nuclei; docs/objects.md has the figures.
    """

    smoothing: float = 1.0
    """Of the distance to an object's edge: standard deviation of a Gaussian, in pixels; 0 for
    none."""

    seed_depth: float = 0.75
    """Two parts are two objects where the neck between them is narrower than both by this much on
    either side, in pixels."""

    least_area: int = 20
    """Smaller objects are left out, in pixels; the smallest of 10,699 real nuclei has 21."""

    def __post_init__(self) -> None:
        require(0 <= self.smoothing <= 100, "smoothing", self.smoothing, "in [0, 100]")
        depth = self.seed_depth
        require(0 < depth < np.inf, "seed_depth", depth, "a number above 0")
        require(self.least_area >= 0, "least_area", self.least_area, "0 or more")


class Matches(NamedTuple):
    """The objects of an image, counted."""

    true: int
    """Objects in truth."""

    found: int
    """Objects in the prediction."""

    matched: np.ndarray
    """int64 [10]: how many match at each of `PERCENTS`."""

    @property
    def precision(self) -> np.ndarray:
        """TP / (TP + FP + FN) at each of `PERCENTS`, float64 [10]; 1 where there is no object."""
        every = self.true + self.found - self.matched
        return np.where(every > 0, self.matched / np.maximum(every, 1), 1.0)


def border_of(classes: Sequence[str]) -> int | None:
    """Which of a model's classes is the border between objects, by its name; None if none is.

    Where there is one class besides the background, that is what objects are of.
    """
    return classes.index("border") if "border" in classes and len(classes) > 2 else None


def match(true: np.ndarray, found: np.ndarray, ignored: np.ndarray | None = None) -> Matches:
    """Matches the objects of an image; the IoU is compared in whole numbers, without rounding.

    Args:
        true: The truth, a label map [H, W].
        found: The prediction, a label map [H, W].
        ignored: Bool [H, W]: pixels without a label. They count in no area, and an object that has
            more than half of its pixels there counts neither as found nor as missed or wrong.

    Raises:
        ValueError: If the shapes differ.
    """
    shapes = {true.shape, found.shape, found.shape if ignored is None else ignored.shape}
    if len(shapes) > 1:
        listed = " and ".join(str(list(shape)) for shape in sorted(shapes))
        raise ValueError(f"label maps and ignored pixels of one image differ: {listed}.")
    true_areas, found_areas = _areas(true, ignored), _areas(found, ignored)
    both = (true > 0) & (found > 0)
    if ignored is not None:
        both &= ~ignored
    pairs = true[both].astype(np.int64) * len(found_areas) + found[both]
    pairs, shared = np.unique(pairs, return_counts=True)  # a sparse joint histogram
    own, other = true_areas[pairs // len(found_areas)], found_areas[pairs % len(found_areas)]
    union = own + other - shared
    counted = (own > 0) & (other > 0)
    matched = [np.count_nonzero(counted & (100 * shared > p * union)) for p in PERCENTS]
    return Matches(
        int(np.count_nonzero(true_areas)),
        int(np.count_nonzero(found_areas)),
        np.array(matched, np.int64),
    )


def sums_of(matches: Matches) -> np.ndarray:
    """What is added up of an image, float64 [6], for `scores_of`."""
    precision = matches.precision
    counts = (matches.true, matches.found, matches.matched[0])
    return np.array([1, precision.mean(), precision[0], *counts], np.float64)


def scores_of(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Scores from sums over images.

    Args:
        sums: float64 [..., 6], of `sums_of`, over one image or more.

    Returns:
        Float64 [...] by name: `object_ap`, `object_ap50` and `object_f1`, as in `summary`.
    """
    images, precision, precision50, true, found, matched = np.moveaxis(sums, -1, 0)
    every = true + found
    return {
        "object_ap": precision / images,
        "object_ap50": precision50 / images,
        "object_f1": np.where(every > 0, 2 * matched / np.maximum(every, 1), 1.0),
    }


def summary(images: Iterable[Matches]) -> dict[str, float]:
    """Sums up the matches of a dataset.

    Returns:
        `object_ap`, the competition's score: the mean over images of the mean over thresholds from
        0.50 to 0.95; `object_ap50`, the same at 0.50 alone; `object_f1`, 2 TP / (2 TP + FP + FN) of
        all objects together at 0.50, 1 where there are none; and how many objects there are,
        `objects_true`, were found, `objects_found`, and match at 0.50, `objects_matched`.

    Raises:
        ValueError: If there are no images.
    """
    sums = [sums_of(image) for image in images]
    if not sums:
        raise ValueError("there are no objects to score: no image has labels.")
    whole = np.sum(sums, axis=0)
    scores = {name: float(value) for name, value in scores_of(whole).items()}
    names = ("objects_true", "objects_found", "objects_matched")
    return scores | dict(zip(names, map(int, whole[3:]), strict=True))


def _areas(labels: np.ndarray, ignored: np.ndarray | None) -> np.ndarray:
    """By number the pixels of each object, int64; 0 for background and what is left out."""
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    if ignored is not None:
        inside = np.bincount(labels[~ignored], minlength=len(areas))
        areas = np.where(2 * inside >= areas, inside, 0)
        areas[0] = 0
    return areas

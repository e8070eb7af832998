"""All that is said of a model on a dataset: scores with intervals, calibration, contours, objects.

Images are looked at one by one and not kept; of each remain a few numbers.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from segdata.core import IGNORE_LABEL
from unet import (
    boundaries,
    calibration,
    evaluate,
    intervals,
    metrics,
    objects,
    results,
    watershed,
)
from unet.evaluate import Scored
from unet.intervals import Interval
from unet.objects import Matches, Separation
from unet.recipes import Recipe

FOREGROUND = ("background", "foreground")
"""The classes of a model of one channel, which has no names for them."""

LABELS = {
    "dice": "Dice, mean over images",
    "iou": "IoU, mean over images",
    "dataset_dice": "Dice of all pixels together",
    "dataset_iou": "IoU of all pixels together",
    "boundary_f1": "Boundary F1, mean over images",
    "object_ap": "AP of objects, IoU 0.50 to 0.95",
    "object_ap50": "AP of objects, IoU 0.50",
    "object_f1": "F1 of all objects together, IoU 0.50",
    "mae": "Mean absolute error",
    "rmse": "Root of mean squared error",
    "r2": "R², share of the variance explained",
    "loss": "Loss, at the training size",
}
"""What scores are called on pages."""

Scores = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""From sums over images, float64 [..., S], to scores [...] by name."""


class Row(NamedTuple):
    """What is kept of an image that has labels."""

    dataset: str
    id: str
    group: str

    sums: np.ndarray
    """float64 [S], from which `scores_of` makes scores; added up for those of several images."""

    objects: Matches | None = None
    """Its objects, counted; None where the true ones are not known."""

    @property
    def name(self) -> str:
        """Its id, with its dataset where there are several."""
        return f"{self.dataset}: {self.id}" if self.dataset else self.id


class Part(NamedTuple):
    """What is added up of a dataset."""

    confusion: np.ndarray
    """int64 [K, K], truth by prediction."""

    histogram: np.ndarray
    """int64 [2, 256], from `calibration.histogram`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    """A model on a dataset, or on several by name."""

    recipe: Recipe

    classes: tuple[str, ...]
    """The names of the classes, by their ids."""

    scores: Mapping[str, float]
    """As `evaluate.summary` returns them, `boundary_f1` and those of objects if asked for."""

    intervals: Mapping[str, Interval]
    """Of some of the scores; empty where groups are not known, or are fewer than two."""

    parts: Mapping[str, Part]
    """By dataset, and of all together under ""; empty of a regression."""

    rows: tuple[Row, ...]
    """The images in their order."""

    def by_class(self, dataset: str = "") -> dict[str, dict[str, float]]:
        """Dice, IoU, precision and recall of each class, of all pixels; NaN where it has none."""
        if not self.parts:
            return {}
        channels = self.recipe.model.output_channels
        scores = metrics.scores(self.parts[dataset].confusion, channels=channels)
        names = self.classes[1:] if channels == 1 else self.classes
        return {
            name: {score: float(values[i]) for score, values in scores.items()}
            for i, name in enumerate(names)
        }

    @property
    def groups(self) -> int:
        """How many groups the images are of; 0 where that is not known."""
        return len({(row.dataset, row.group) for row in self.rows if row.group})


def judge(
    images: Iterable[Scored],
    recipe: Recipe,
    *,
    classes: Sequence[str] = (),
    boundary: bool = False,
    tolerance: float | None = None,
    separation: Separation | None = None,
) -> Judgement:
    """Judges a model by its scored images; by their objects too, where these have true ones.

    Args:
        images: From `evaluate.scored_native` or `evaluate.scored`.
        recipe: The same.
        classes: The names of the classes; `FOREGROUND` if not given.
        boundary: Whether to score contours, which takes about as long as all other scores.
        tolerance: Of contours, in pixels; `boundaries.SHARE` of the diagonal if not given.
        separation: How predicted masks are split into objects; the defaults if not given.

    Raises:
        ValueError: If no image has labels, or names and classes of the model differ in number.
    """
    channels = recipe.model.output_channels
    classes = tuple(classes) or (FOREGROUND if channels == 1 else tuple(map(str, range(channels))))
    if len(classes) != max(channels, 2):
        raise ValueError(f"classes are {', '.join(classes)}; the model has {max(channels, 2)}.")
    rows: list[Row] = []
    parts: dict[str, Part] = {}

    def observed() -> Iterator[Scored]:
        for image in images:
            if image.scores:
                contour = math.nan
                if boundary and not recipe.is_regression:
                    pair = image.mask, image.found
                    contour = boundaries.f1(*pair, channels=channels, tolerance=tolerance)
                matched = _matched(image, classes, separation)
                rows.append(_row(image, contour, channels=channels)._replace(objects=matched))
                if not recipe.is_regression:
                    _add(parts, image, channels=channels)
            yield image

    scores = evaluate.summary(observed(), recipe)
    if have := [row.objects for row in rows if row.objects is not None]:
        scores |= objects.summary(have)
    if boundary and not recipe.is_regression:
        for name in dict.fromkeys(["", *(row.dataset for row in rows)]):
            own = [row.sums for row in rows if name in ("", row.dataset)]
            key = f"boundary_f1/{name}" if name else "boundary_f1"
            scores[key] = float(scores_of(np.sum(own, axis=0), recipe)["boundary_f1"])
    if len(parts) > 1 or "" not in parts:
        whole = [*parts.values()]
        if whole:
            sums = (sum(x.confusion for x in whole), sum(x.histogram for x in whole))
            parts = {"": Part(*map(np.asarray, sums)), **parts}
    return Judgement(
        recipe=recipe,
        classes=classes,
        scores=scores,
        intervals={name: ends for name, ends in _intervals(rows, recipe) if name in scores},
        parts=parts,
        rows=tuple(rows),
    )


class Threshold(NamedTuple):
    """A threshold, and what it was chosen by."""

    threshold: float

    score: str
    """The score that is highest with it."""

    value: float
    """The score with it, of the images that it was chosen by."""

    images: int
    """How many they are."""


def best_threshold(images: Iterable[Scored], recipe: Recipe) -> Threshold:
    """The threshold of a model of one channel that scores best.

    Args:
        images: As for `judge`; of the training, and not those that the model is judged by.
        recipe: The same; the score is its `best_by`, or mean Dice where that is the loss.

    Raises:
        ValueError: If the model has another output than one channel of a sigmoid, or no image has
            labels.
    """
    if recipe.model.output_activation != "sigmoid":
        raise ValueError(
            f"a model with {recipe.model.output_activation} has no threshold; one with sigmoid has."
        )
    search = calibration.Search("dice" if recipe.best_by == "loss" else recipe.best_by)
    for image in images:
        search.add(calibration.histogram(image.mask, image.found, image.probability))
    threshold, value = search.best()
    return Threshold(threshold, search.score, value, search.images)


def scores_of(sums: np.ndarray, recipe: Recipe) -> dict[str, np.ndarray]:
    """Scores from sums over images.

    Args:
        sums: float64 [..., S], of `Row.sums`.
        recipe: The same.

    Returns:
        Float64 [...] by name: `dice`, `iou`, `dataset_dice`, `dataset_iou` and `boundary_f1`, NaN
        where no image has a contour or none was scored; of a regression `mae`, `rmse` and `r2`.
    """
    if recipe.is_regression:
        return metrics.regression_of(sums)
    images, dice, iou, contour, contours = np.moveaxis(sums[..., :5], -1, 0)
    channels = recipe.model.output_channels
    whole = metrics.of_counts(sums[..., 5:].reshape(*sums.shape[:-1], 3, channels))
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "dice": dice / images,
            "iou": iou / images,
            "dataset_dice": metrics.mean(whole["dice"]),
            "dataset_iou": metrics.mean(whole["iou"]),
            "boundary_f1": contour / contours,
        }


def added(rows: Sequence[Row], recipe: Recipe) -> Iterator[tuple[np.ndarray, Scores]]:
    """What is added up of images, and what makes scores of it: of pixels; of objects, if all have.

    Args:
        rows: N images.
        recipe: The same as for `judge`.

    Yields:
        float64 [N, S], and a function from sums over images, float64 [..., S], to scores.
    """
    yield np.array([row.sums for row in rows]), functools.partial(scores_of, recipe=recipe)
    have = [objects.sums_of(row.objects) for row in rows if row.objects is not None]
    if have and len(have) == len(rows):
        yield np.array(have), objects.scores_of


def to_json(judgement: Judgement) -> dict[str, Any]:
    """A judgement as an object for `json.dump`; its keys are explained in docs/evaluation.md."""
    found: dict[str, Any] = dict(judgement.scores)
    if judgement.groups:
        found["groups"] = judgement.groups
    if judgement.intervals:
        found["intervals"] = {name: [*ends] for name, ends in judgement.intervals.items()}
    for dataset, part in judgement.parts.items():
        of = f"/{dataset}" if dataset else ""
        bins = [x._asdict() for x in calibration.bins(part.histogram)]
        found[f"classes{of}"] = judgement.by_class(dataset)
        found[f"confusion{of}"] = {
            true: dict(zip(judgement.classes, map(int, row), strict=True))
            for true, row in zip(judgement.classes, part.confusion, strict=True)
        }
        found[f"calibration_error{of}"] = calibration.error(part.histogram)
        found[f"calibration{of}"] = bins
    return _without_nan(found)


def text(judgement: Judgement) -> str:
    """A judgement as lines for a terminal."""
    scores = dict(judgement.scores)
    if judgement.recipe.model.output_activation != "sigmoid":
        scores.pop("threshold", None)  # the most probable class is found
    for dataset, part in judgement.parts.items():
        key = f"calibration/{dataset}" if dataset else "calibration"
        scores[key] = calibration.error(part.histogram)
    wide = max(13, *map(len, scores))
    lines = []
    for name, value in scores.items():
        is_count = name.startswith(("images", "unlabelled", "objects_"))
        line = f"{name:{wide}} {value:,.0f}" if is_count else f"{name:{wide}} {value:.4f}"
        if ends := judgement.intervals.get(name):
            line += f"  {ends[0]:.4f} to {ends[1]:.4f}"
        lines.append(line)
    if judgement.intervals:
        lines.append(f"95 % intervals, by drawing {judgement.groups:,} groups of images anew")
        lines += filter(None, [intervals.caution(judgement.groups)])
    for dataset, part in judgement.parts.items():
        of = f" of {dataset}" if dataset else ""
        lines += ["", *_class_lines(judgement, dataset, f"class{of}")]
        lines += ["", *_confusion_lines(judgement.classes, part.confusion, f"truth{of}")]
    return "\n".join(lines)


def confusions(
    classes: Sequence[str], confusion: np.ndarray, *, most: int
) -> list[tuple[str, str, int, float]]:
    """The most frequent errors: truth, prediction, pixels and their share of the truth's."""
    wrong = confusion * (1 - np.eye(len(confusion), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(confusion)) for place in order if wrong.flat[place]]
    return [
        (classes[i], classes[j], int(wrong[i, j]), wrong[i, j] / confusion[i].sum())
        for i, j in pairs
    ]


def _row(image: Scored, contour: float, *, channels: int) -> Row:
    sums = image.sums.astype(np.float64)
    if "dice" in image.scores:
        has_contour = not math.isnan(contour)
        counts = metrics.counts(image.sums, channels=channels).ravel()
        own = (image.scores["dice"], image.scores["iou"], contour if has_contour else 0.0)
        sums = np.array([1, *own, has_contour, *counts], np.float64)
    return Row(image.dataset, image.id, image.group, sums)


def _matched(
    image: Scored, classes: Sequence[str], separation: Separation | None
) -> Matches | None:
    """The objects of an image whose true ones are known."""
    if image.instances is None or image.found.dtype != np.uint8:
        return None
    kinds, border = results.kinds_of(classes), objects.border_of(classes)
    if len(kinds) + (border is not None) == len(classes):
        kinds = kinds[1:]  # none is the background by its name; in maps of objects it is 0
    found, _ = watershed.of_classes(image.found, kinds, separation, border=border)
    return objects.match(image.instances, found, image.mask == IGNORE_LABEL)


def _add(parts: dict[str, Part], image: Scored, *, channels: int) -> None:
    arrays = image.mask, image.found, image.probability
    own = Part(image.sums, calibration.histogram(*arrays, channels=channels))
    before = parts.get(image.dataset)
    parts[image.dataset] = Part(*map(np.add, before, own)) if before else own


def _intervals(rows: Sequence[Row], recipe: Recipe) -> Iterator[tuple[str, Interval]]:
    """Of all images together, and of each of several datasets."""
    if not all(row.group for row in rows):
        return
    for name in dict.fromkeys(["", *(row.dataset for row in rows)]):
        own = [row for row in rows if name in ("", row.dataset)]
        groups = [f"{row.dataset}/{row.group}" for row in own]
        for sums, scores in added(own, recipe):
            for score, ends in intervals.of(groups, sums, scores).items():
                yield f"{score}/{name}" if name else score, ends


def _class_lines(judgement: Judgement, dataset: str, head: str) -> Iterator[str]:
    rows = judgement.by_class(dataset)
    names = [*next(iter(rows.values()))]
    wide = max(13, len(head), *map(len, rows))
    yield f"{head:{wide}}" + "".join(f" {name:>9}" for name in names)
    for name, scores in rows.items():
        cells = ("–" if math.isnan(value) else f"{value:.4f}" for value in scores.values())
        yield f"{name:{wide}}" + "".join(f" {cell:>9}" for cell in cells)


_MATRIX = 8  # classes, above which a matrix is too wide to be read
_ERRORS = 10


def _confusion_lines(classes: Sequence[str], matrix: np.ndarray, head: str) -> Iterator[str]:
    wide = max(13, len(head), *map(len, classes))
    if len(classes) <= _MATRIX:
        cells = [[f"{count:,}" for count in row] for row in matrix.tolist()]
        each = max(9, *map(len, classes), *(len(cell) for row in cells for cell in row))
        yield f"{head:{wide}}" + "".join(f" {name:>{each}}" for name in classes) + "  (found)"
        for name, row in zip(classes, cells, strict=True):
            yield f"{name:{wide}}" + "".join(f" {cell:>{each}}" for cell in row)
        return
    yield f"{head:{wide}} found as, the {_ERRORS} most frequent errors"
    for true, found, pixels, share in confusions(classes, matrix, most=_ERRORS):
        yield f"{true:{wide}} {found:{wide}} {pixels:>13,} {share:>6.1%}"


def _without_nan(value: Any) -> Any:
    """The same with None for what is not a number, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value

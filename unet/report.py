"""A run as one HTML page: scores, curves, settings, and the images it does best and worst.

Images are scored at their own size, one by one; pictures are kept of those that are shown.
"""

import dataclasses
import heapq
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from segdata.console import counted
from segdata.inspection import charts, page
from unet import calibration, evaluate, intervals, judging, pictures, recipes, runs
from unet.evaluate import Scored
from unet.judging import Judgement

_SHOWN = 6
_FEW = 20  # images: below, one more or less changes the mean Dice by more than models differ
_PICTURE = (240, 480)  # pixels of a picture's longer side, least and most
_MATRIX = 8  # classes, above which a matrix is too wide for a phone
_ERRORS = 12


def write(
    run: pathlib.Path,
    images: Iterable[Any] | Mapping[str, Iterable[Any]],
    *,
    network: Any = None,
) -> pathlib.Path:
    """Scores a run's best model and writes `report.html` into its folder.

    Args:
        run: The run's folder.
        images: Validation images at their own size, as for `evaluate.evaluate_native`. Objects are
            scored where they have true ones.
        network: The run's best model; loaded if not given.

    Returns:
        The page.

    Raises:
        ValueError: If the folder holds no run that has finished an epoch, or no image has labels.
        OSError: If the page cannot be written.
    """
    settings, state = runs.settings(run), runs.state(run)
    recipe = settings.recipe
    best, worst = _Extremes(+1, recipe), _Extremes(-1, recipe)
    judge = evaluate.scorer(network or runs.load(run), recipe, decides=False)
    scored = evaluate.scored_native(judge, images, recipe)
    judgement = judging.judge(_observed(scored, best, worst), recipe, classes=settings.classes)
    shown = runs.best_epoch(state.history, recipe.best_by)
    body = f"""<div class="figures">{_scores(judgement)}</div>
{_classes(judgement)}
<h2>Curves</h2>
<div class="cards">{_charts(state.history, shown) if state.history else ""}</div>
{_galleries(worst.shown(), best.shown(), int(judgement.scores["images"]), settings)}
<h2>Settings</h2>
<div class="cards">{_settings(settings)}</div>"""
    title = f"{settings.name or recipe.dataset}: {run.name}"
    text = page.document(title, lead=_lead(settings, state.history, shown), body=body)
    with runs.writing(run / "report.html") as file:
        file.write_text(text, encoding="utf-8")
    return run / "report.html"


class _Shown(NamedTuple):
    """An image as it is shown."""

    id: str
    score: float
    views: Mapping[str, np.ndarray]


class _Extremes:
    """Keeps only the few best (`sign` 1) or worst (−1) images that have labels."""

    def __init__(self, sign: int, recipe: recipes.Recipe):
        self.name, larger_is_better = _judged_by(recipe)
        self.channels = recipe.model.output_channels
        self.sign = sign if larger_is_better else -sign
        self.heap: list[tuple[float, int, _Shown]] = []

    def add(self, image: Scored, position: int) -> None:
        if not image.scores:
            return
        score = image.scores[self.name]
        key = (self.sign * score, -position)  # of equals, the first ones
        if len(self.heap) == _SHOWN and key < self.heap[0][:2]:
            return
        views = {
            name: pictures.resized(pixels, least=_PICTURE[0], most=_PICTURE[1])
            for name, pixels in pictures.views(image, channels=self.channels).items()
        }
        item = (*key, _Shown(image.name, score, views))
        (heapq.heappush if len(self.heap) < _SHOWN else heapq.heappushpop)(self.heap, item)

    def shown(self) -> list[_Shown]:
        return [image for *_, image in sorted(self.heap, key=lambda item: item[:2], reverse=True)]


def _observed(images: Iterator[Scored], *extremes: _Extremes) -> Iterator[Scored]:
    for position, image in enumerate(images):
        for one in extremes:
            one.add(image, position)
        yield image


def _judged_by(recipe: recipes.Recipe) -> tuple[str, bool]:
    """The score that images are sorted by, and whether more of it is better."""
    return ("rmse", False) if recipe.is_regression else ("dice", True)


def _lead(settings: runs.Settings, history: tuple[dict[str, Any], ...], best: int | None) -> str:
    recipe, choice = settings.recipe, settings.choice
    parts = [_source(settings), f"Trained on {recipe.dataset}, {choice}."]
    if best is not None:
        minutes = sum(row["seconds"] for row in history) / 60
        parts.append(
            f"{len(history)} of {recipe.epochs} epochs in {minutes:.1f} minutes; "
            f"the model is that of epoch {history[best]['epoch']}."
        )
        shares = [row["input_share"] for row in history if "input_share" in row]
        if shares:
            parts.append(f"Waiting for input: {sum(shares) / len(shares):.1%} of the training.")
    return " ".join(filter(None, parts))


def _source(settings: runs.Settings) -> str:
    """Where the settings are from: figures of a published recipe are not those of this run."""
    recipe, name = settings.recipe, settings.name
    if name not in recipes.RECIPES or recipe.source != recipes.named(name).source:
        return recipe.source  # of `small` what was chosen and why
    ours, published = (recipes.to_json(x) for x in (recipe, recipes.named(name)))
    changed = [key for key in published if ours.get(key) != published[key]]
    said = f" Settings of this run that are not the recipe's: {', '.join(changed)}."
    return f"The recipe {name}: {recipe.source}{said if changed else ''}"


_OF_OBJECTS = ("object_ap", "object_ap50", "object_f1")
_OF_PIXELS = ("dice", "iou", "dataset_dice", "dataset_iou", "mae", "rmse", "r2", "loss")


def _scores(judgement: Judgement) -> str:
    recipe, scores = judgement.recipe, judgement.scores

    def table(shown: Sequence[str], caption: str, of: str = "") -> str:
        rows = []
        for name in shown:
            if name in scores:
                ends = judgement.intervals.get(name + of)
                interval = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "–"
                rows.append((judging.LABELS[name], f"{scores[name + of]:.4f}", interval))
        return page.table(rows, caption=caption, heads=("", "score", "95 % interval"))

    images = counted(int(scores["images"]), "validation image")
    caption = f"Best model on {images}, at native size"
    caption += f", {recipe.validated_on}" if recipe.fold else ""
    if "unlabelled" in scores:
        caption += f"; {scores['unlabelled']:,.0f} without labels left out"
    whole = table(_OF_PIXELS, caption)
    names = [name.partition("/")[2] for name in scores if name.startswith("images/")]
    for name in names:
        whole += table(_OF_PIXELS, f"{name}, {scores[f'images/{name}']:,.0f} of them", f"/{name}")
    if "object_ap" in scores:
        true, found, matched = (scores[f"objects_{x}"] for x in ("true", "found", "matched"))
        caption = f"Objects: {true:,} in truth, {found:,} found, {matched:,} of them right"
        whole += table(_OF_OBJECTS, caption)
    note = (
        f"<p>Intervals: {judgement.groups:,} groups of images drawn anew, 1,000 times. "
        f"{intervals.caution(judgement.groups)}</p>"
        if judgement.intervals
        else ""
    )
    return whole + note


def _classes(judgement: Judgement) -> str:
    """Scores and confusion of the classes, and how right the probabilities are."""
    if not judgement.parts:
        return ""
    tables = ""
    for dataset, part in judgement.parts.items():
        of = f" of {dataset}" if dataset else ""
        rows = judgement.by_class(dataset).items()
        heads = ("", "Dice", "IoU", "precision", "recall")
        tables += page.table(
            ((name, *map(_number, each.values())) for name, each in rows),
            caption=f"Classes{of}, all pixels together",
            heads=heads,
        )
        tables += _confusion(judgement.classes, part.confusion, of)
    histogram = judgement.parts[""].histogram
    points = [x for x in calibration.bins(histogram) if x.pixels]
    several = judgement.recipe.model.output_channels > 1
    what = "of the predicted class, and how often it is right" if several else "of the foreground"
    chart = charts.reliability(
        f"Calibration error {calibration.error(histogram):.4f}",
        [(x.confidence, x.frequency, x.pixels) for x in points],
    )
    return (
        f'<h2>Classes</h2><div class="figures">{tables}</div>'
        f"<h2>Calibration</h2><p>The probability {what}, in {calibration.BINS} bins; on the "
        f'diagonal it is what it says.</p><div class="cards">{chart}</div>'
    )


def _confusion(classes: tuple[str, ...], matrix: np.ndarray, of: str) -> str:
    if len(classes) > _MATRIX:
        found = judging.confusions(classes, matrix, most=_ERRORS)
        return page.table(
            [(true, seen, f"{pixels:,}", f"{share:.1%}") for true, seen, pixels, share in found],
            caption=f"The most frequent errors{of}",
            heads=("truth", "found", "pixels", "share of the truth"),
        )
    rows = [
        (name, *(f"{count / total:.2%}" if total else "–" for count in row), f"{total:,}")
        for name, row, total in zip(classes, matrix, matrix.sum(axis=1).tolist(), strict=True)
    ]
    return page.table(
        rows, caption=f"What the truth{of} is found as", heads=("truth", *classes, "pixels")
    )


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"


def _charts(history: tuple[dict[str, Any], ...], best: int | None) -> str:
    epochs = [row["epoch"] for row in history]
    marked = None if best is None else epochs[best]
    plans = {
        "Loss": {"training": "loss", "validation": "val_loss"},
        "Dice": {"training": "dice", "validation": "val_dice"},
        "Dataset IoU": {"training": "dataset_iou", "validation": "val_dataset_iou"},
        "Absolute error": {"training": "mae", "validation": "val_mae"},
        "Root of squared error": {"training": "rmse", "validation": "val_rmse"},
        "Learning rate": {"at the epoch's end": "learning_rate"},
    }
    return "".join(
        charts.lines(
            title,
            epochs,
            {label: [row[key] for row in history] for label, key in plan.items()},
            marked=marked,
        )
        for title, plan in plans.items()
        if all(key in row for row in history for key in plan.values())
    )


def _galleries(worst: list[_Shown], best: list[_Shown], count: int, settings: runs.Settings) -> str:
    """Worst and best images; those of a small split once."""
    few = (
        f"<p>{counted(count, 'image')}: too few to judge a model by, as each weighs "
        f"{1 / count:.0%} of the mean. Validate on more, or on each of several folds.</p>"
        if count < _FEW
        else ""
    )
    key = f"{few}<p>{pictures.legend(settings.classes)}</p>"
    if count <= _SHOWN:
        return f"<h2>All images, the worst first</h2>{key}{_gallery(worst, settings)}"
    return (
        f"<h2>Worst images</h2>{key}{_gallery(worst, settings)}"
        f"<h2>Best images</h2>{_gallery(best, settings)}"
    )


def _gallery(images: list[_Shown], settings: runs.Settings) -> str:
    name, _ = _judged_by(settings.recipe)
    rows = "".join(
        f"<tr><th>{image.score:.3f}</th>"
        + "".join(
            f"<td>{page.image(_encoded(pixels, label), f'{label} {image.id}'.strip())}</td>"
            for label, pixels in image.views.items()
        )
        + "</tr>"
        for image in images
    )
    columns = "RMSE" if name == "rmse" else "Dice", "Image", "Truth", "Prediction", "Overlay"
    heads = "".join(f"<th>{column}</th>" for column in columns)
    return f'<table class="gallery"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'


def _encoded(pixels: np.ndarray, label: str) -> str:
    """A picture as the address of itself; photos in a fifth of the bytes."""
    is_photo = label in ("image", "overlay") and pixels.ndim == 3
    return page.data_uri(pixels, "JPEG" if is_photo else "PNG")


def _settings(settings: runs.Settings) -> str:
    recipe = recipes.to_json(settings.recipe)
    groups: dict[str, dict[str, Any]] = {
        "Run": {
            "recipe": settings.name,
            "data_dir": settings.data_dir,
            "deterministic": settings.deterministic,
            "checkpoint_minutes": settings.checkpoint_minutes,
            "steps_per_execution": settings.steps_per_execution,
        },
        "Hardware and versions": {**dataclasses.asdict(settings.choice), **settings.made_with},
        "Recipe": {
            k: v for k, v in recipe.items() if k not in ("model", "augment", "mix", "source")
        },
        "Model": recipe["model"],
        "Augmentation": recipe["augment"] or {"none": ""},
        **({"Mixture": recipe["mix"]} if recipe["mix"] else {}),
    }
    return "".join(
        page.table(((key, _plain(value)) for key, value in group.items()), caption=name)
        for name, group in groups.items()
    )


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)

"""A run as one HTML page: curves, scores, settings, and the images it does best and worst."""

import dataclasses
import heapq
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from segdata.inspection import charts, page
from unet import evaluate, pictures, recipes, runs
from unet.evaluate import Scored

_SHOWN = 6
_FEW = 20  # images: below, one more or less changes the mean Dice by more than models differ


def write(
    run: pathlib.Path,
    batches: evaluate.Batches | Mapping[str, evaluate.Batches],
    *,
    network: Any = None,
) -> pathlib.Path:
    """Scores a run's best model and writes `report.html` into its folder.

    Args:
        run: The run's folder.
        batches: Validation images and masks, as for `evaluate.evaluate`.
        network: The run's best model; loaded if not given.

    Returns:
        The page.

    Raises:
        ValueError: If the folder holds no run that has finished an epoch, or `batches` nothing.
        OSError: If the page cannot be written.
    """
    settings, state = runs.settings(run), runs.state(run)
    recipe = settings.recipe
    best, worst = _Extremes(+1, recipe), _Extremes(-1, recipe)
    judge = evaluate.scorer(network or runs.load(run), recipe)
    scored = evaluate.scored(judge, batches, recipe)
    scores = evaluate.summary(_observed(scored, best, worst), recipe)
    shown = runs.best_epoch(state.history, recipe.best_by)
    body = f"""<div class="cards">{_scores(scores, recipe)}</div>
<h2>Curves</h2>
<div class="cards">{_charts(state.history, shown) if state.history else ""}</div>
{_galleries(worst.images(), best.images(), int(scores["images"]), settings)}
<h2>Settings</h2>
<div class="cards">{_settings(settings)}</div>"""
    title = f"{settings.name or recipe.dataset}: {run.name}"
    text = page.document(title, lead=_lead(settings, state.history, shown), body=body)
    with runs.writing(run / "report.html") as file:
        file.write_text(text, encoding="utf-8")
    return run / "report.html"


class _Extremes:
    """Keeps only the few best (`sign` 1) or worst (−1) images that have labels."""

    def __init__(self, sign: int, recipe: recipes.Recipe):
        self.name, larger_is_better = _judged_by(recipe)
        self.sign = sign if larger_is_better else -sign
        self.heap: list[tuple[float, int, Scored]] = []

    def add(self, image: Scored, position: int) -> None:
        if not image.scores:
            return
        item = (self.sign * image.scores[self.name], -position, image)  # of equals, the first ones
        (heapq.heappush if len(self.heap) < _SHOWN else heapq.heappushpop)(self.heap, item)

    def images(self) -> list[Scored]:
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
    parts = [recipe.source, f"Trained on {recipe.dataset}, {choice}."]
    if best is not None:
        minutes = sum(row["seconds"] for row in history) / 60
        parts.append(
            f"{len(history)} of {recipe.epochs} epochs in {minutes:.1f} minutes; "
            f"the model is that of epoch {history[best]['epoch']}."
        )
    return " ".join(filter(None, parts))


def _scores(scores: Mapping[str, float], recipe: recipes.Recipe) -> str:
    shown = {
        "Dice": ("dice", "mean over images"),
        "IoU": ("iou", "mean over images"),
        "Dataset Dice": ("dataset_dice", "all pixels together"),
        "Dataset IoU": ("dataset_iou", "all pixels together"),
        "Absolute error": ("mae", "mean over all pixels"),
        "Root of squared error": ("rmse", "mean over all pixels"),
        "R²": ("r2", "share of the variance explained"),
        "Loss": ("loss", "all images" if recipe.loss == "batch_dice" else "mean over images"),
    }
    shown = {label: each for label, each in shown.items() if each[0] in scores}
    rows = [(label, f"{scores[name]:.4f}", note) for label, (name, note) in shown.items()]
    caption = f"Best model on {scores['images']:,.0f} validation images"
    caption += f", {recipe.validated_on}" if recipe.fold else ""
    if "unlabelled" in scores:
        caption += f"; {scores['unlabelled']:,.0f} without labels left out"
    whole = page.table(rows, caption=caption)
    names = [name.partition("/")[2] for name in scores if name.startswith("images/")]
    return whole + "".join(
        page.table(
            [
                (label, f"{scores[f'{score}/{name}']:.4f}", note)
                for label, (score, note) in shown.items()
            ],
            caption=f"{name}, {scores[f'images/{name}']:,.0f} of them",
        )
        for name in names
    )


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


def _galleries(worst: list[Scored], best: list[Scored], count: int, settings: runs.Settings) -> str:
    """Worst and best images; those of a small split once."""
    few = (
        f"<p>{count} images are too few to judge a model by: each weighs {1 / count:.0%} of the "
        "mean. Validate on more, or on each of several folds.</p>"
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


def _gallery(images: list[Scored], settings: runs.Settings) -> str:
    recipe = settings.recipe
    name, _ = _judged_by(recipe)
    rows = "".join(
        f"<tr><th>{image.scores[name]:.3f}</th>"
        + "".join(
            f"<td>{page.image(page.data_uri(pixels), label)}</td>"
            for label, pixels in pictures.views(
                image, channels=recipe.model.output_channels
            ).items()
        )
        + "</tr>"
        for image in images
    )
    columns = "RMSE" if name == "rmse" else "Dice", "Image", "Truth", "Prediction", "Overlay"
    heads = "".join(f"<th>{column}</th>" for column in columns)
    return f'<table class="gallery"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'


def _settings(settings: runs.Settings) -> str:
    recipe = recipes.to_json(settings.recipe)
    groups: dict[str, dict[str, Any]] = {
        "Run": {
            "recipe": settings.name,
            "data_dir": settings.data_dir,
            "deterministic": settings.deterministic,
            "checkpoint_minutes": settings.checkpoint_minutes,
            **dataclasses.asdict(settings.choice),
        },
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

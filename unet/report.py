"""One HTML page that shows a run: curves, scores, settings, and the images it does best and worst.

The page is one file and fetches nothing: charts are SVG, images are data URIs. It reads in light
and in dark.
"""

import base64
import dataclasses
import heapq
import html
import io
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from unet import charts, evaluate, losses, pictures, recipes, runs
from unet.evaluate import Scored

_SHOWN = 6


def write(
    run: pathlib.Path, batches: Iterable[tuple[Any, Any]], *, network: Any = None
) -> pathlib.Path:
    """Scores a run's best model and writes `report.html` into its folder.

    Args:
        run: The run's folder.
        batches: Validation images uint8 [B, H, W, 3] and masks uint8 [B, H, W, 1].
        network: The run's best model; loaded if not given.

    Returns:
        The page.

    Raises:
        ValueError: If the folder holds no run that has finished an epoch, or `batches` nothing.
        OSError: If the page cannot be written.
    """
    settings, state = runs.settings(run), runs.state(run)
    recipe = settings.recipe
    best, worst = _Extremes(+1), _Extremes(-1)
    loss = losses.BY_NAME[recipe.loss]
    scored = evaluate.scored(
        network or runs.load(run), batches, threshold=recipe.threshold, loss=loss
    )
    scores = evaluate.summary(_watched(scored, best, worst), loss=loss)
    shown = runs.best_epoch(state.history)
    page = _PAGE.format(
        title=html.escape(f"{settings.name or recipe.dataset}: {run.name}"),
        lead=_lead(settings, state.history, shown),
        scores=_scores(scores, recipe.loss),
        charts=_charts(state.history, shown) if state.history else "",
        worst=_gallery(worst.images(), recipe.threshold),
        best=_gallery(best.images(), recipe.threshold),
        settings=_settings(settings),
        legend=pictures.legend(settings.classes),
        css=_CSS,
    )
    with runs.writing(run / "report.html") as file:
        file.write_text(page, encoding="utf-8", errors="backslashreplace")  # names of files
    return run / "report.html"


class _Extremes:
    """Keeps the few images of highest (`sign` 1) or lowest (−1) Dice, and nothing else."""

    def __init__(self, sign: int):
        self.sign = sign
        self.heap: list[tuple[float, int, Scored]] = []

    def see(self, image: Scored, position: int) -> None:
        item = (self.sign * image.dice, -position, image)  # of equals, the first ones
        (heapq.heappush if len(self.heap) < _SHOWN else heapq.heappushpop)(self.heap, item)

    def images(self) -> list[Scored]:
        return [image for *_, image in sorted(self.heap, key=lambda item: item[:2], reverse=True)]


def _watched(images: Iterator[Scored], *watchers: _Extremes) -> Iterator[Scored]:
    for position, image in enumerate(images):
        for watcher in watchers:
            watcher.see(image, position)
        yield image


def _lead(settings: runs.Settings, history: tuple[dict[str, Any], ...], best: int | None) -> str:
    recipe, choice = settings.recipe, settings.choice
    parts = [recipe.source, f"Trained on {recipe.dataset}, {choice}."]
    if best is not None:
        minutes = sum(row["seconds"] for row in history) / 60
        parts.append(
            f"{len(history)} of {recipe.epochs} epochs in {minutes:.1f} minutes; "
            f"the model is that of epoch {history[best]['epoch']}."
        )
    return html.escape(" ".join(filter(None, parts)))


def _scores(scores: Mapping[str, float], loss: str) -> str:
    shown = {
        "Dice": ("dice", "mean over images"),
        "IoU": ("iou", "mean over images"),
        "Dataset Dice": ("dataset_dice", "all pixels together"),
        "Dataset IoU": ("dataset_iou", "all pixels together"),
        "Loss": ("loss", "all images" if loss == "batch_dice" else "mean over images"),
    }
    cells = "".join(
        f"<tr><th>{label}</th><td>{scores[key]:.4f}</td><td>{note}</td></tr>"
        for label, (key, note) in shown.items()
    )
    caption = f"Best model on {scores['images']:,.0f} validation images"
    return f'<table class="scores"><caption>{caption}</caption><tbody>{cells}</tbody></table>'


def _charts(history: tuple[dict[str, Any], ...], best: int | None) -> str:
    epochs = [row["epoch"] for row in history]
    marked = None if best is None else epochs[best]
    plans = {
        "Loss": {"training": "loss", "validation": "val_loss"},
        "Dice": {"training": "dice", "validation": "val_dice"},
        "Dataset IoU": {"training": "dataset_iou", "validation": "val_dataset_iou"},
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
    )


def _gallery(images: list[Scored], threshold: float) -> str:
    rows = "".join(
        f"<tr><th>{image.dice:.3f}</th>"
        + "".join(
            f"<td>{_img(pixels, alt)}</td>"
            for alt, pixels in pictures.views(image, threshold=threshold).items()
        )
        + "</tr>"
        for image in images
    )
    heads = "".join(f"<th>{h}</th>" for h in ("Dice", "Image", "Truth", "Prediction", "Overlay"))
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
        "Recipe": {k: v for k, v in recipe.items() if k not in ("model", "augment", "source")},
        "Model": recipe["model"],
        "Augmentation": recipe["augment"] or {"none": ""},
    }
    return "".join(
        f"<table><caption>{name}</caption><tbody>"
        + "".join(
            f"<tr><th>{html.escape(key)}</th><td>{html.escape(_plain(value))}</td></tr>"
            for key, value in group.items()
        )
        + "</tbody></table>"
        for name, group in groups.items()
    )


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)


def _img(pixels: np.ndarray, alt: str) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{alt}" src="data:image/png;base64,{data}">'


_CSS = """
:root { color-scheme: light dark; --back: #fbfbfa; --card: #fff; --ink: #1d2127; --soft: #667080;
  --rule: #e3e5e9; --s0: #2a6fdb; --s1: #d9622b; }
@media (prefers-color-scheme: dark) { :root { --back: #14171c; --card: #1c2027; --ink: #e6e8eb;
  --soft: #98a2b0; --rule: #2f353f; --s0: #6ea8ff; --s1: #ff9a62; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 60rem; background: var(--back);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.6rem 0 .8rem; }
p { color: var(--soft); margin: .2rem 0 1rem; max-width: 46rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem;
  align-items: start; }
.chart, .cards table { margin: 0; padding: .9rem 1rem; background: var(--card);
  border: 1px solid var(--rule); border-radius: 10px; }
figcaption { display: flex; flex-wrap: wrap; gap: 0 1rem; margin-bottom: .4rem; }
.key { color: var(--soft); font-size: .85rem; white-space: nowrap; margin-right: 1rem; }
.key i { display: inline-block; width: .7rem; height: .7rem; margin-right: .35rem;
  border-radius: 3px; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 11px; }
.grid { stroke: var(--rule); } .mark { stroke: var(--soft); stroke-dasharray: 3 3; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.line.s0 { stroke: var(--s0); } .line.s1 { stroke: var(--s1); }
.dot.s0 { fill: var(--s0); } .dot.s1 { fill: var(--s1); }
i.s0 { background: var(--s0); } i.s1 { background: var(--s1); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .7rem 1rem .3rem; }
.cards table { display: block; } .cards tbody { display: table; width: 100%; }
.cards caption { display: block; padding: 0 0 .4rem; }
th { text-align: left; font-weight: 500; vertical-align: top; padding: .25rem 1rem .25rem 0; }
td { padding: .25rem 0; overflow-wrap: anywhere; }
tr + tr > * { border-top: 1px solid var(--rule); }
.scores td:last-child { color: var(--soft); } .scores td { font-size: 1.05rem; }
.scores td + td { font-size: .85rem; }
.gallery td { width: 23%; padding: .35rem .35rem .35rem 0; }
.gallery th { padding-top: .5rem; color: var(--soft); font-size: .85rem; }
.gallery img { display: block; width: 100%; border-radius: 6px; image-rendering: pixelated; }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{css}</style>
</head>
<body>
<h1>{title}</h1>
<p>{lead}</p>
<div class="cards">{scores}</div>
<h2>Curves</h2>
<div class="cards">{charts}</div>
<h2>Worst images</h2>
<p>{legend}</p>
{worst}
<h2>Best images</h2>
{best}
<h2>Settings</h2>
<div class="cards">{settings}</div>
</body>
</html>
"""

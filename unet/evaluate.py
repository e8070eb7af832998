"""Scores of a model on a dataset.

Every image is scored by itself and sums are float64, so scores do not depend on the batch size.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from unet import losses, metrics
from unet.losses import Loss
from unet.metrics import Counts

Batches = Iterable[tuple[Any, Any]]
"""Images uint8 [B, H, W, 3] and masks uint8 [B, H, W, 1], as often as it is iterated over."""


class Scored(NamedTuple):
    """One image with its prediction and scores."""

    image: np.ndarray
    """uint8 [H, W, 3]."""

    mask: np.ndarray
    """uint8 [H, W, 1]: 1 foreground, or the class id; 255 is the ignore label."""

    probability: np.ndarray
    """float32 [H, W, C]."""

    counts: Counts
    """Its pixels by class; int64 [K] each."""

    dice: float
    iou: float

    loss: np.ndarray
    """Its part in the loss of the dataset: float32, from `losses.parts`."""

    dataset: str = ""
    """Which dataset it is of, where there are several."""


def evaluate(
    network: Any,
    batches: Batches | Mapping[str, Batches],
    *,
    threshold: float,
    loss: Loss,
) -> dict[str, float]:
    """Scores a model.

    Args:
        network: From uint8 [B, H, W, 3] to float32 [B, H, W, C].
        batches: Of a dataset, or those of several by name.
        threshold: A pixel is foreground above this probability, where C is 1.
        loss: One of `unet.losses`.

    Returns:
        As `summary`, and `threshold`.

    Raises:
        ValueError: If there are no batches.
    """
    scores = summary(scored(network, batches, threshold=threshold, loss=loss), loss=loss)
    return {**scores, "threshold": threshold}


def scored(
    network: Any,
    batches: Batches | Mapping[str, Batches],
    *,
    threshold: float,
    loss: Loss,
) -> Iterator[Scored]:
    """Predicts and scores image by image; arguments as in `evaluate`."""
    if isinstance(batches, Mapping):
        for name, own in batches.items():
            for image in scored(network, own, threshold=threshold, loss=loss):
                yield image._replace(dataset=name)
        return
    for images, masks in batches:
        probabilities = np.asarray(network.predict_on_batch(images))
        images, masks = np.asarray(images), np.asarray(masks)
        counts = metrics.counts(
            masks,
            metrics.decide(probabilities, threshold=threshold),
            channels=probabilities.shape[-1],
        )
        dice, iou = metrics.dice(*counts), metrics.iou(*counts)
        parts: Any = keras.ops.convert_to_numpy(losses.parts(loss, masks, probabilities))
        for i in range(len(images)):
            yield Scored(
                image=images[i],
                mask=masks[i],
                probability=probabilities[i],
                counts=Counts(*(n[i] for n in counts)),
                dice=float(dice[i]),
                iou=float(iou[i]),
                loss=parts[i],
            )


def summary(images: Iterable[Scored], *, loss: Loss) -> dict[str, float]:
    """Sums up the scores of a dataset.

    Args:
        images: From `scored`.
        loss: The same loss.

    Returns:
        `images`, their number; `dice` and `iou`, means over images; `dataset_dice` and
        `dataset_iou`, of all pixels together; `loss`, from `losses.total`. Of several classes,
        Dice and IoU are means over those that occur. Where there are several datasets, the same of
        each, as `dice/NAME`.

    Raises:
        ValueError: If there are no images.
    """
    rows: dict[str, list[Any]] = {}
    for image in images:
        row = (image.dice, image.iou), image.counts, image.loss
        rows.setdefault(image.dataset, []).append(row)
    if not rows:
        raise ValueError("there are no images to score.")
    together = _summed([row for own in rows.values() for row in own], loss=loss)
    for name in filter(None, rows):
        scores = _summed(rows[name], loss=loss)
        together |= {f"{score}/{name}": value for score, value in scores.items()}
    return together


def _summed(rows: list[Any], *, loss: Loss) -> dict[str, float]:
    scores, counts, parts = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    dice, iou = scores.mean(axis=0).tolist()
    totals = counts.sum(axis=0)  # exact up to 2⁵³ pixels
    return {
        "images": len(rows),
        "dice": dice,
        "iou": iou,
        "dataset_dice": float(metrics.dice(*totals)),
        "dataset_iou": float(metrics.iou(*totals)),
        "loss": losses.total(loss, parts),
    }

"""Scores of a model on a data set.

Every image is scored by itself and sums are float64, so nothing depends on the batch size.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from unet import metrics
from unet.metrics import Counts


class Scored(NamedTuple):
    """One image and what a model made of it."""

    image: np.ndarray
    """uint8 [H, W, 3]."""

    mask: np.ndarray
    """uint8 [H, W, 1]: 1 foreground, 255 not labelled."""

    probability: np.ndarray
    """float32 [H, W, 1]."""

    counts: Counts
    """Its pixels; int64 scalars."""

    dice: float
    iou: float
    loss: float


def evaluate(
    network: Any,
    batches: Iterable[tuple[Any, Any]],
    *,
    threshold: float,
    loss: Callable[[Any, Any], Any],
) -> dict[str, float]:
    """Scores a model.

    Args:
        network: From uint8 [B, H, W, 3] to float32 [B, H, W, 1].
        batches: Images uint8 [B, H, W, 3] and masks uint8 [B, H, W, 1].
        threshold: A pixel is foreground above this probability.
        loss: One of `unet.losses`.

    Returns:
        As `summary`, and `threshold`.

    Raises:
        ValueError: If there are no batches.
    """
    scores = summary(scored(network, batches, threshold=threshold, loss=loss))
    return {**scores, "threshold": threshold}


def scored(
    network: Any,
    batches: Iterable[tuple[Any, Any]],
    *,
    threshold: float,
    loss: Callable[[Any, Any], Any],
) -> Iterator[Scored]:
    """Predicts and scores image by image; takes what `evaluate` takes."""
    for images, masks in batches:
        probabilities = np.asarray(network.predict_on_batch(images))
        images, masks = np.asarray(images), np.asarray(masks)
        counts = metrics.counts(masks, probabilities > threshold)
        dice, iou = metrics.dice(*counts), metrics.iou(*counts)
        losses: Any = keras.ops.convert_to_numpy(loss(masks, probabilities))
        for i in range(len(images)):
            yield Scored(
                image=images[i],
                mask=masks[i],
                probability=probabilities[i],
                counts=Counts(*(n[i] for n in counts)),
                dice=float(dice[i]),
                iou=float(iou[i]),
                loss=float(losses[i]),
            )


def summary(images: Iterable[Scored]) -> dict[str, float]:
    """Sums up a data set.

    Args:
        images: What `scored` gives.

    Returns:
        `images`, their number; `dice`, `iou` and `loss`, means over images; `dataset_dice` and
        `dataset_iou`, of all pixels together.

    Raises:
        ValueError: If there are no images.
    """
    rows = [(image.dice, image.iou, image.loss, *image.counts) for image in images]
    if not rows:
        raise ValueError("there are no images to score.")
    table = np.array(rows, np.float64)  # counts too: exact up to 2⁵³ pixels
    dice, iou, loss = table[:, :3].mean(axis=0).tolist()
    totals = table[:, 3:].sum(axis=0).tolist()
    return {
        "images": len(rows),
        "dice": dice,
        "iou": iou,
        "dataset_dice": float(metrics.dice(*totals)),
        "dataset_iou": float(metrics.iou(*totals)),
        "loss": loss,
    }

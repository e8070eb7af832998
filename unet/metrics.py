"""Scores of binary segmentation, all made of three counts.

Masks are uint8 [B, H, W, 1]: 1 is foreground, 255 not labelled, all else background. Pixels that
are not labelled count in nothing. Where neither truth nor prediction holds any foreground the score
is 1: nothing was to be found, and nothing was. The scores are NumPy; `Overlap` keeps the same
counts inside Keras.
"""

# Keras ships no stubs: a checker takes what its ops return for None.
# pyright: reportOptionalOperand=false, reportOperatorIssue=false, reportOptionalSubscript=false

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from unet.losses import UNLABELLED


class Counts(NamedTuple):
    """Labelled pixels of each image by what was predicted of them; int64 [B] each."""

    true_positive: np.ndarray
    false_positive: np.ndarray
    false_negative: np.ndarray


def counts(mask: np.ndarray, prediction: np.ndarray) -> Counts:
    """Counts the pixels of each image.

    Args:
        mask: uint8 [B, H, W, 1].
        prediction: bool [B, H, W, 1], true where foreground was predicted.

    Returns:
        int64 [B] each.

    Raises:
        ValueError: If the shapes differ.
    """
    if mask.shape != prediction.shape:
        raise ValueError(f"mask {mask.shape} and prediction {prediction.shape} differ in shape.")
    truth, labelled = mask == 1, mask != UNLABELLED
    axes = tuple(range(1, mask.ndim))
    return Counts(
        np.sum(truth & prediction, axis=axes),
        np.sum(labelled & ~truth & prediction, axis=axes),
        np.sum(truth & ~prediction, axis=axes),
    )


def dice(true_positive, false_positive, false_negative) -> np.ndarray:
    """2·TP / (2·TP + FP + FN), of each image or of sums; 1 where all counts are 0.

    Args:
        true_positive: int64 [...].
        false_positive: int64 [...].
        false_negative: int64 [...].

    Returns:
        float64 [...] in [0, 1].
    """
    return _ratio(2 * true_positive, false_positive + false_negative)


def iou(true_positive, false_positive, false_negative) -> np.ndarray:
    """TP / (TP + FP + FN), of each image or of sums; 1 where all counts are 0.

    Args:
        true_positive: int64 [...].
        false_positive: int64 [...].
        false_negative: int64 [...].

    Returns:
        float64 [...] in [0, 1].
    """
    return _ratio(true_positive, false_positive + false_negative)


@keras.saving.register_keras_serializable(package="unet")
class Overlap(keras.metrics.Metric):
    """Mean Dice over images, and Dice and IoU of the whole data set, from running sums.

    `keras.metrics.BinaryIoU` scatters every pixel into a matrix; three sums say the same. Sums are
    float32: exact up to 2²⁴ pixels of a kind, within one part in 10⁶ far beyond.

    Args:
        threshold: A pixel is foreground above this probability.
    """

    def __init__(self, *, threshold: float = 0.5, name: str = "overlap", **options: object):
        super().__init__(name=name, **{**options, "dtype": "float32"})
        self.threshold = threshold
        self.sums = self.add_weight(shape=(3,), initializer="zeros", name="sums")
        self.dice = self.add_weight(shape=(), initializer="zeros", name="dice")
        self.images = self.add_weight(shape=(), initializer="zeros", name="images")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch: masks uint8 and probabilities float32, both [B, H, W, 1]."""
        if sample_weight is not None:
            raise ValueError("Overlap takes no sample weights; mark pixels 255 to leave them out.")
        truth, labelled = y_true == 1, y_true != UNLABELLED
        found = ops.logical_and(y_pred > self.threshold, labelled)
        hits = _pixels(ops.logical_and(truth, found))
        extra, missed = _pixels(found) - hits, _pixels(truth) - hits
        every = 2 * hits + extra + missed
        scores = ops.where(every > 0, 2 * hits / ops.maximum(every, 1), 1)
        self.sums.assign(self.sums + ops.stack([ops.sum(n) for n in (hits, extra, missed)]))
        self.dice.assign(self.dice + ops.sum(scores))
        self.images.assign(self.images + ops.cast(ops.shape(hits)[0], "float32"))

    def result(self) -> dict[str, Any]:
        """Returns `dice`, `dataset_dice` and `dataset_iou`; all 1 before the first image."""
        hits, extra, missed = (self.sums[i] for i in range(3))
        wrong = extra + missed
        some = hits + wrong > 0
        return {
            "dice": ops.where(self.images > 0, self.dice / ops.maximum(self.images, 1), 1),
            "dataset_dice": ops.where(some, 2 * hits / ops.maximum(2 * hits + wrong, 1), 1),
            "dataset_iou": ops.where(some, hits / ops.maximum(hits + wrong, 1), 1),
        }

    def get_config(self):
        """Returns what `__init__` takes."""
        return {"name": self.name, "dtype": self.dtype, "threshold": self.threshold}


def _ratio(right, wrong) -> np.ndarray:
    total = np.asarray(right + wrong, np.float64)
    return np.where(total > 0, right / np.maximum(total, 1), 1.0)


def _pixels(selected):
    """float32 [B]: how many pixels of each image are selected."""
    return ops.sum(ops.cast(selected, "float32"), axis=(1, 2, 3))

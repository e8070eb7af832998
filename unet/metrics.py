"""Scores of segmentation: Dice and IoU from counts of true and false positives and negatives.

Masks are uint8 [B, H, W, 1]: 1 is foreground, 255 the ignore label, all else background. Pixels
with the ignore label are left out. Where neither truth nor prediction has any foreground, the score
is 1.

A model of C > 1 channels predicts the classes 0 to C-1. Each is the foreground of its own counts,
and a score is the mean over the classes that occur in truth or prediction: in the image for the
score of an image, anywhere for the score of a dataset. The scores are NumPy; `Overlap` keeps the
same counts inside Keras.
"""

# Keras ships no stubs: a checker takes what its ops return for None.
# pyright: reportOptionalOperand=false, reportOperatorIssue=false, reportOptionalSubscript=false

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from segdata.core import IGNORE_LABEL


class Counts(NamedTuple):
    """Counts of labelled pixels for each image and class; int64 [B, K] each."""

    true_positive: np.ndarray
    false_positive: np.ndarray
    false_negative: np.ndarray


def decide(output: np.ndarray, *, threshold: float) -> np.ndarray:
    """The class of each pixel: the most probable of several, or 1 above the threshold.

    Args:
        output: float32 [..., C].
        threshold: Used where C is 1.

    Returns:
        uint8 [..., 1].
    """
    if output.shape[-1] == 1:
        return (output > threshold).astype(np.uint8)
    return output.argmax(axis=-1)[..., None].astype(np.uint8)


def counts(mask: np.ndarray, prediction: np.ndarray, *, channels: int = 1) -> Counts:
    """Counts the pixels of each image.

    Args:
        mask: uint8 [B, H, W, 1].
        prediction: uint8 or bool [B, H, W, 1], the predicted class.
        channels: The model's output channels: 1, to count class 1, or the number of classes.

    Returns:
        int64 [B, K] each; K is `channels`.

    Raises:
        ValueError: If the shapes differ.
    """
    if mask.shape != prediction.shape:
        raise ValueError(f"mask {mask.shape} and prediction {prediction.shape} differ in shape.")
    labelled, axes = mask != IGNORE_LABEL, tuple(range(1, mask.ndim))

    def count(number: int) -> tuple[np.ndarray, ...]:
        truth, found = mask == number, prediction == number
        selections = truth & found, labelled & ~truth & found, truth & ~found
        return tuple(np.sum(selected, axis=axes) for selected in selections)

    each = [count(number) for number in _classes(channels)]
    return Counts(*(np.stack(column, axis=-1) for column in zip(*each, strict=True)))


def dice(true_positive, false_positive, false_negative) -> np.ndarray:
    """2·TP / (2·TP + FP + FN), the mean over classes that occur; 1 where all counts are 0.

    Args:
        true_positive: int64 [..., K], of each image or of sums.
        false_positive: int64 [..., K].
        false_negative: int64 [..., K].

    Returns:
        float64 [...] in [0, 1].
    """
    return _ratio(2 * true_positive, false_positive + false_negative)


def iou(true_positive, false_positive, false_negative) -> np.ndarray:
    """TP / (TP + FP + FN), the mean over classes that occur; 1 where all counts are 0.

    Args:
        true_positive: int64 [..., K], of each image or of sums.
        false_positive: int64 [..., K].
        false_negative: int64 [..., K].

    Returns:
        float64 [...] in [0, 1].
    """
    return _ratio(true_positive, false_positive + false_negative)


@keras.saving.register_keras_serializable(package="unet")
class Overlap(keras.metrics.Metric):
    """Mean Dice over images, and Dice and IoU of the whole dataset, from running sums.

    `keras.metrics.BinaryIoU` scatters every pixel into a matrix; three sums are enough. Sums are
    float32: exact up to 2²⁴ pixels of a kind, within one part in 10⁶ far beyond.

    Args:
        threshold: A pixel is foreground above this probability.
        channels: The model's output channels: 1, or the number of classes.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.5,
        channels: int = 1,
        name: str = "overlap",
        **options: object,
    ):
        super().__init__(name=name, **{**options, "dtype": "float32"})
        self.threshold = threshold
        self.channels = channels
        self.sums = self.add_weight(shape=(3 * channels,), initializer="zeros", name="sums")
        self.dice = self.add_weight(shape=(), initializer="zeros", name="dice")
        self.images = self.add_weight(shape=(), initializer="zeros", name="images")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch: masks uint8 [B, H, W, 1] and probabilities float32 [B, H, W, C]."""
        if sample_weight is not None:
            raise ValueError("Overlap takes no sample weights; mark pixels 255 to leave them out.")
        classes = ops.cast(np.array(_classes(self.channels)), y_true.dtype)
        truth, labelled = y_true == classes, y_true != IGNORE_LABEL
        found = ops.logical_and(self._found(y_pred, classes), labelled)
        hits = _pixels(ops.logical_and(truth, found))
        extra, missed = _pixels(found) - hits, _pixels(truth) - hits
        sums = [ops.sum(n, axis=0) for n in (hits, extra, missed)]
        self.sums.assign(self.sums + ops.concatenate(sums))
        self.dice.assign(self.dice + ops.sum(_mean_ratio(2 * hits, extra + missed)))
        self.images.assign(self.images + ops.cast(ops.shape(hits)[0], "float32"))

    def result(self) -> dict[str, Any]:
        """Returns `dice`, `dataset_dice` and `dataset_iou`; all 1 before the first image."""
        sums = ops.reshape(self.sums, (3, self.channels))
        hits, wrong = sums[0], sums[1] + sums[2]
        return {
            "dice": ops.where(self.images > 0, self.dice / ops.maximum(self.images, 1), 1),
            "dataset_dice": _mean_ratio(2 * hits, wrong),
            "dataset_iou": _mean_ratio(hits, wrong),
        }

    def get_config(self):
        """Returns what `__init__` takes."""
        own = {"threshold": self.threshold, "channels": self.channels}
        return {"name": self.name, "dtype": self.dtype, **own}

    def _found(self, output, classes):
        """The pixels predicted to be of each class; bool [B, H, W, K]."""
        if self.channels == 1:
            return output > self.threshold
        return ops.cast(ops.argmax(output, axis=-1)[..., None], classes.dtype) == classes


def _classes(channels: int) -> range:
    """Which classes are counted: all, or of two the foreground alone."""
    return range(channels) if channels > 1 else range(1, 2)


def _ratio(right, wrong) -> np.ndarray:
    total = np.asarray(right + wrong, np.float64)
    score = (right / np.maximum(total, 1)).sum(axis=-1)
    occurring = (total > 0).sum(axis=-1)
    return np.where(occurring > 0, score / np.maximum(occurring, 1), 1.0)


def _mean_ratio(right, wrong):
    """The same of tensors, float32 [..., K] → [...]."""
    total = right + wrong
    score = ops.sum(right / ops.maximum(total, 1), axis=-1)
    occurring = ops.sum(ops.cast(total > 0, "float32"), axis=-1)
    return ops.where(occurring > 0, score / ops.maximum(occurring, 1), 1)


def _pixels(selected):
    """float32 [B, K]: how many pixels of each image and class are selected."""
    return ops.sum(ops.cast(selected, "float32"), axis=(1, 2))

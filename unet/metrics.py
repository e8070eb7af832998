"""Scores of segmentation from confusion matrices; errors of regression from sums.

Masks are uint8 [B, H, W, 1], 255 the ignore label; its pixels are left out. A model of one channel
tells foreground, class 1, from background, class 0, and its scores are of the foreground.
A model of C > 1 channels predicts the classes 0 to C-1, and a score is the mean over the classes
that occur in truth or prediction: in the image for the score of an image, anywhere for the score of
a dataset. Where no class occurs, as where nothing is to be found and nothing is found, it is 1.
Images without any label have no score.

The scores are NumPy; `Overlap` and `Errors` keep the same sums inside Keras.
"""

# Keras ships no stubs: a checker takes what its ops return for None.
# pyright: reportOptionalOperand=false, reportOperatorIssue=false, reportOptionalSubscript=false

from typing import Any

import keras
import numpy as np
from keras import ops

from segdata.core import IGNORE_LABEL

_ROUNDED = 1e-13  # share of a sum of squares, below which a variance is what rounding left


def decide(probability: np.ndarray, *, threshold: float) -> np.ndarray:
    """The class of each pixel: the most probable of several, or 1 above the threshold.

    Args:
        probability: float32 [..., C].
        threshold: Used where C is 1.

    Returns:
        uint8 [...].
    """
    if probability.shape[-1] == 1:
        return (probability[..., 0] > threshold).astype(np.uint8)
    return probability.argmax(axis=-1).astype(np.uint8)


def confusion(mask: np.ndarray, found: np.ndarray, *, channels: int = 1) -> np.ndarray:
    """How many labelled pixels of each class are found to be of which.

    Args:
        mask: uint8 [...], the truth.
        found: uint8 [...], the predicted class.
        channels: The model's output channels: 1, or the number of classes.

    Returns:
        int64 [K, K], truth by prediction; K is 2 for one channel.

    Raises:
        ValueError: If the shapes differ, or the truth has a class beyond the channels.
    """
    if mask.shape != found.shape:
        raise ValueError(f"mask {mask.shape} and prediction {found.shape} differ in shape.")
    side = max(channels, 2)
    # Of all pairs of bytes: twice as fast as picking out the labelled pixels.
    pairs = mask.astype(np.uint16).ravel() << 8 | found.ravel()
    counts = np.bincount(pairs, minlength=1 << 16).reshape(256, 256)
    counts[IGNORE_LABEL] = 0
    if (beyond := np.flatnonzero(counts[side:IGNORE_LABEL].any(axis=1))).size:
        most = side + beyond[-1]
        raise ValueError(f"a mask has class {most}; the model's are 0 to {side - 1}.")
    return counts[:side, :side].copy()


def scores(confusion: np.ndarray, *, channels: int = 1) -> dict[str, np.ndarray]:
    """Dice, IoU, precision and recall of each class.

    Args:
        confusion: int64 [..., K, K], of each image or a sum.
        channels: 1 for the foreground alone.

    Returns:
        `dice`, 2·TP / (2·TP + FP + FN), `iou`, TP / (TP + FP + FN), `precision`, TP / (TP + FP),
        `recall`, TP / (TP + FN): float64 [..., K], or [..., 1] for one channel; NaN where the
        denominator is 0.
    """
    return of_counts(counts(confusion, channels=channels))


def counts(confusion: np.ndarray, *, channels: int = 1) -> np.ndarray:
    """Pixels of each class found rightly, found, and true; what `of_counts` needs of a matrix.

    Args:
        confusion: int64 [..., K, K], of each image or a sum.
        channels: 1 for the foreground alone.

    Returns:
        int64 [..., 3, K], or [..., 3, 1] for one channel; TP, TP + FP and TP + FN.
    """
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    each = np.stack([right, confusion.sum(axis=-2), confusion.sum(axis=-1)], axis=-2)
    return each[..., 1:] if channels == 1 else each


def of_counts(counts: np.ndarray) -> dict[str, np.ndarray]:
    """`scores` from the numbers of `counts`, or from sums of them."""
    right, found, true = np.moveaxis(counts, -2, 0)
    return {
        "dice": _ratio(2 * right, found + true),
        "iou": _ratio(right, found + true - right),
        "precision": _ratio(right, found),
        "recall": _ratio(right, true),
    }


def mean(score: np.ndarray) -> np.ndarray:
    """The mean of a score over the classes that occur, float64 [...]; 1 where none does."""
    occurs = ~np.isnan(score)
    total = np.where(occurs, score, 0).sum(axis=-1)
    return np.where(occurs.any(axis=-1), total / np.maximum(occurs.sum(axis=-1), 1), 1.0)


def errors(target: np.ndarray, output: np.ndarray) -> np.ndarray:
    """What `regression` needs of an image.

    Args:
        target: uint8 or float32 [...]; 255 is the ignore label.
        output: float32 [...].

    Returns:
        float64 [5]: over labelled pixels their number, Σ|e|, Σe², Σt and Σt², with e the output
        less the target t.
    """
    labelled = target != IGNORE_LABEL
    truth = target[labelled].astype(np.float64)
    wrong = output[labelled] - truth
    sums = np.abs(wrong), wrong**2, truth, truth**2
    return np.array([truth.size, *(x.sum() for x in sums)])


def regression(sums: np.ndarray) -> dict[str, float]:
    """Errors over all pixels together: `mae`, `rmse`, and `r2`, the share of variance explained.

    Args:
        sums: float64 [5], from `errors`, added up over images.
    """
    return {name: float(value) for name, value in regression_of(sums).items()}


def regression_of(sums: np.ndarray) -> dict[str, np.ndarray]:
    """`regression` of many sums at once: float64 [..., 5] to [...] by name."""
    count, absolute, squared, total, squares = np.moveaxis(sums, -1, 0)
    variance = squares - total**2 / count
    varies = variance > _ROUNDED * squares
    explained = 1 - squared / np.where(varies, variance, 1)
    r2 = np.where(varies, explained, squared == 0)
    return {"mae": absolute / count, "rmse": (squared / count) ** 0.5, "r2": r2}


@keras.saving.register_keras_serializable(package="unet")
class Overlap(keras.metrics.Metric):
    """Mean Dice over images, and Dice and IoU of the whole dataset, from running sums.

    `keras.metrics.BinaryIoU` scatters every pixel into a matrix; three sums are enough. Sums are
    float32: exact up to 2²⁴ pixels of a kind, within one part in 10⁶ far beyond.

    Args:
        threshold: With one channel, a pixel is foreground above this probability.
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
        """Adds a batch: masks uint8 [B, H, W, 1] and logits float32 [B, H, W, C]."""
        if sample_weight is not None:
            raise ValueError("Overlap takes no sample weights; mark pixels 255 to leave them out.")
        labelled = y_true != IGNORE_LABEL
        hits, found, true = self._counts(y_true, y_pred, labelled)
        extra, missed = found - hits, true - hits
        sums = [ops.sum(n, axis=0) for n in (hits, extra, missed)]
        has_labels = ops.cast(ops.any(labelled, axis=(1, 2, 3)), "float32")
        self.sums.assign(self.sums + ops.concatenate(sums))
        dice = _mean_ratio(2 * hits, extra + missed)
        self.dice.assign(self.dice + ops.sum(dice * has_labels))
        self.images.assign(self.images + ops.sum(has_labels))

    def result(self) -> dict[str, Any]:
        """Returns `dice`, `dataset_dice` and `dataset_iou`; all 1 before the first label."""
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

    def _counts(self, mask, logits, labelled):
        """Pixels of each image and class found rightly, found, and true; float32 [B, K]."""
        if self.channels == 1:
            true = mask == 1
            found = ops.logical_and(ops.sigmoid(logits) > self.threshold, labelled)
            return _pixels(ops.logical_and(true, found)), _pixels(found), _pixels(true)
        none = self.channels
        true = ops.minimum(ops.cast(mask, "int32"), none)
        found = ops.cast(ops.argmax(logits, axis=-1)[..., None], "int32")
        found = ops.where(labelled, found, none)
        hits = ops.where(found == true, true, none)
        return tuple(_of_each(x, classes=none) for x in (hits, found, true))


@keras.saving.register_keras_serializable(package="unet")
class Errors(keras.metrics.Metric):
    """Mean absolute and root mean squared error of a regression over all labelled pixels."""

    def __init__(self, *, name: str = "errors", **options: object):
        super().__init__(name=name, **{**options, "dtype": "float32"})
        self.sums = self.add_weight(shape=(3,), initializer="zeros", name="sums")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch: targets uint8 or float32 [B, H, W, 1] and outputs float32 alike."""
        if sample_weight is not None:
            raise ValueError("Errors takes no sample weights; mark pixels 255 to leave them out.")
        labelled = ops.cast(y_true != IGNORE_LABEL, "float32")
        wrong = (y_pred - ops.cast(y_true, "float32")) * labelled
        self.sums.assign(
            self.sums
            + ops.stack([ops.sum(labelled), ops.sum(ops.abs(wrong)), ops.sum(ops.square(wrong))])
        )

    def result(self) -> dict[str, Any]:
        """Returns `mae` and `rmse`; 0 before the first label."""
        count = ops.maximum(self.sums[0], 1)
        return {"mae": self.sums[1] / count, "rmse": ops.sqrt(self.sums[2] / count)}

    def get_config(self):
        """Returns what `__init__` takes."""
        return {"name": self.name, "dtype": self.dtype}


def _ratio(part, whole) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean_ratio(right, wrong):
    """The mean over classes that occur, float32 [..., K] → [...]; 1 where none does."""
    total = right + wrong
    score = ops.sum(right / ops.maximum(total, 1), axis=-1)
    occurring = ops.sum(ops.cast(total > 0, "float32"), axis=-1)
    return ops.where(occurring > 0, score / ops.maximum(occurring, 1), 1)


def _pixels(selected):
    """float32 [B, K]: how many pixels of each image and class are selected."""
    return ops.sum(ops.cast(selected, "float32"), axis=(1, 2))


def _of_each(found, *, classes: int):
    """How many pixels of int32 [B, H, W, 1] are of each class; classes beyond are left out.

    They are added up in one pass: to compare all with each of 29 classes takes twice the time.
    """
    batch = ops.shape(found)[0]
    rows = ops.reshape(found, (batch, -1)) + (classes + 1) * ops.arange(batch)[:, None]
    segments = ops.reshape(rows, (-1,))
    ones = ops.ones_like(segments, dtype="float32")
    counts = ops.segment_sum(ones, segments, num_segments=batch * (classes + 1))
    return ops.reshape(counts, (batch, classes + 1))[:, :classes]

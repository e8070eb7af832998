"""Whether probabilities are what they say, from histograms: calibration, and the best threshold.

A histogram holds labelled pixels by their probability in 255ths: int64 [2, 256], those in which the
event did not occur and those in which it did. The event is that the pixel is foreground; of a model
of several classes, whose probability is that of the predicted class, that the prediction is right.

Source: Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
binning", AAAI 2015; for several classes Guo et al., "On calibration of modern neural networks",
ICML 2017, whose 15 bins are used.
"""

from typing import NamedTuple

import numpy as np

from segdata.core import IGNORE_LABEL
from unet import metrics

BINS = 15


class Bin(NamedTuple):
    """Pixels whose probabilities lie close together."""

    least: float
    """The probability that it begins at."""

    most: float
    """The probability that it ends below; the last one holds 1."""

    pixels: int

    confidence: float
    """The mean probability; NaN without pixels."""

    frequency: float
    """The share of pixels in which the event occurred; NaN without pixels."""


def histogram(
    mask: np.ndarray, found: np.ndarray, probability: np.ndarray, *, channels: int = 1
) -> np.ndarray:
    """The histogram of an image.

    Args:
        mask: uint8 [H, W], the truth; 255 is the ignore label.
        found: uint8 [H, W], the predicted class.
        probability: uint8 [H, W] in 255ths: of the foreground, or of the predicted class.
        channels: The model's output channels.

    Returns:
        int64 [2, 256].
    """
    event = mask == (1 if channels == 1 else found)
    # The ignore label is a third row: twice as fast as picking out the labelled pixels.
    row = np.where(mask == IGNORE_LABEL, np.uint16(512), event.astype(np.uint16) << 8)
    return np.bincount((row | probability).ravel(), minlength=768)[:512].reshape(2, 256)


def bins(histogram: np.ndarray) -> list[Bin]:
    """The histogram in `BINS` bins of equal width: a reliability table."""
    number = np.minimum(np.arange(256) * BINS // 255, BINS - 1)
    level = np.arange(256) / 255
    made = []
    for i in range(BINS):
        part, values = histogram[:, number == i], level[number == i]
        pixels = int(part.sum())
        right, total = float(part[1].sum()), float((part.sum(axis=0) * values).sum())
        shares = (total / pixels, right / pixels) if pixels else (np.nan, np.nan)
        made.append(Bin(i / BINS, (i + 1) / BINS, pixels, *shares))
    return made


def error(histogram: np.ndarray) -> float:
    """The expected calibration error: Σ n |frequency − confidence| / Σ n over the bins.

    Probabilities in 255ths change it by 1/510 at most.

    Returns:
        In [0, 1]; NaN without pixels.
    """
    full = [x for x in bins(histogram) if x.pixels]
    pixels = sum(x.pixels for x in full)
    wrong = sum(x.pixels * abs(x.frequency - x.confidence) for x in full)
    return wrong / pixels if pixels else np.nan


def at_thresholds(histogram: np.ndarray) -> np.ndarray:
    """What `metrics.of_counts` needs of the foreground, at each of `THRESHOLDS`.

    Args:
        histogram: int64 [2, 256] of a model of one channel.

    Returns:
        int64 [255, 3, 1].
    """
    above = histogram[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]  # brighter than each level
    true = np.full(255, histogram[1].sum())
    return np.stack([above[1], above.sum(axis=0), true], axis=-1)[..., None]


THRESHOLDS = (np.arange(255) + 0.5) / 255
"""Between each two 255ths: the thresholds that histograms tell apart."""


class Search:
    """The best threshold for a score, from one histogram after another.

    Args:
        score: `dice` or `iou`, means over images; `dataset_dice` or `dataset_iou`, of all pixels.
    """

    def __init__(self, score: str):
        self.score = score
        self.images = 0
        self.total = np.zeros(255) if score in ("dice", "iou") else np.zeros((255, 3, 1), np.int64)

    def add(self, histogram: np.ndarray) -> None:
        """Adds an image; one without labels changes nothing."""
        if not histogram.any():
            return
        self.images += 1
        each = at_thresholds(histogram)
        is_mean = self.total.ndim == 1
        self.total = self.total + (_score(each, self.score) if is_mean else each)

    def best(self) -> tuple[float, float]:
        """The threshold, and the score at it; of equal ones the nearest to one half.

        Raises:
            ValueError: If no image has labels.
        """
        if not self.images:
            raise ValueError("no image to choose a threshold by has labels.")
        is_mean = self.total.ndim == 1
        scores = self.total / self.images if is_mean else _score(self.total, self.score)
        equal = np.flatnonzero(scores >= scores.max() - 1e-12)
        chosen = equal[np.abs(THRESHOLDS[equal] - 0.5).argmin()]
        return float(THRESHOLDS[chosen]), float(scores[chosen])


def _score(counts: np.ndarray, score: str) -> np.ndarray:
    """At each threshold, float64 [255]."""
    return metrics.mean(metrics.of_counts(counts)[score.removeprefix("dataset_")])

"""Losses of segmentation.

Each takes masks uint8 [B, H, W, 1], 255 the ignore label, and logits float32 [B, H, W, C], and
returns one value an image: float32 [B]. With one channel, 1 is foreground and all else background;
with more, masks hold the classes 0 to C-1. The loss of an image does not depend on others in its
batch, so means over images do not depend on the batch size. Pixels with the ignore label are left
out; the loss of an image without any other is 0.

Losses take logits, not probabilities: a probability near 1 has no digits left to say how near.
Only `batch_dice` is the loss of a batch as a whole and has the same value for all its images.
`parts` and `total` score a dataset as one batch, whatever batches it came in.
"""

# Keras ships no stubs: a checker takes what its ops return for None.
# pyright: reportOptionalOperand=false, reportOperatorIssue=false, reportOptionalSubscript=false
# pyright: reportOptionalMemberAccess=false

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from keras import ops

from segdata.core import IGNORE_LABEL

Loss = Callable[[Any, Any], Any]

_PIXELS = (1, 2, 3)
_SMOOTH = 1e-5


@keras.saving.register_keras_serializable(package="unet")
def cross_entropy(mask, logits):
    """Cross-entropy in nats, each image's mean over its labelled pixels.

    Args:
        mask: uint8 [B, H, W, 1].
        logits: float32 [B, H, W, C].

    Returns:
        float32 [B], 0 or more.

    Raises:
        ValueError: If the shapes differ.
    """
    truth, labelled = _split(mask, logits)
    return _mean(_entropy(truth, logits), labelled)


@keras.saving.register_keras_serializable(package="unet")
def focal(mask, logits):
    """Cross-entropy in which a pixel of probability p weighs (1 − p)²; each image's mean.

    Args:
        mask: uint8 [B, H, W, 1].
        logits: float32 [B, H, W, C].

    Returns:
        float32 [B], 0 or more.

    Raises:
        ValueError: If the shapes differ.

    Source: Lin et al., "Focal loss for dense object detection", ICCV 2017, with γ = 2, α = 1.
    """
    truth, labelled = _split(mask, logits)
    entropy = _entropy(truth, logits)
    return _mean(ops.square(-ops.expm1(-entropy)) * entropy, labelled)


@keras.saving.register_keras_serializable(package="unet")
def dice(mask, logits):
    """Soft Dice loss of each image: 1 − (2 Σpt + 1) / (Σp + Σt + 1), over labelled pixels.

    The 1 makes an empty prediction of an empty mask cost nothing. Of several classes, the mean over
    all of them.

    Args:
        mask: uint8 [B, H, W, 1].
        logits: float32 [B, H, W, C].

    Returns:
        float32 [B] in [0, 1).

    Raises:
        ValueError: If the shapes differ.

    Source: Milletari, Navab and Ahmadi, "V-Net", 3DV 2016, with plain instead of squared sums.
    """
    return ops.mean(_dice(*_overlap(mask, logits), smooth=1), axis=-1)


@keras.saving.register_keras_serializable(package="unet")
def tversky(mask, logits):
    """Dice in which what is missed costs more than what is too much; each image's.

    1 − (Σpt + 1) / (Σpt + 0.3 Σp(1−t) + 0.7 Σ(1−p)t + 1); of several classes, the mean over them.

    Args:
        mask: uint8 [B, H, W, 1].
        logits: float32 [B, H, W, C].

    Returns:
        float32 [B] in [0, 1).

    Raises:
        ValueError: If the shapes differ.

    Source: Salehi, Erdogmus and Gholipour, "Tversky loss function", MLMI 2017.
    """
    common, found, true = _sums(mask, logits)
    wrong = 0.3 * (found - common) + 0.7 * (true - common)
    return ops.mean(1 - (common + 1) / (common + wrong + 1), axis=-1)


@keras.saving.register_keras_serializable(package="unet")
def lovasz(mask, logits):
    """The convex surrogate of the IoU of each image: hinge with one channel, else softmax.

    Of several classes, the mean over those that the image has.

    Args:
        mask: uint8 [B, H, W, 1].
        logits: float32 [B, H, W, C].

    Returns:
        float32 [B], 0 or more.

    Raises:
        ValueError: If the shapes differ.

    Source: Berman, Rannen Triki and Blaschko, "The Lovász-Softmax loss", CVPR 2018.
    """
    truth, labelled = _split(mask, logits)
    signs = 2 * truth - 1
    errors = ops.maximum(1 - logits * signs, 0) if logits.shape[-1] == 1 else None
    if errors is None:
        errors = ops.abs(truth - ops.softmax(logits, axis=-1))
    shape = ops.shape(truth)
    flat = (shape[0], shape[1] * shape[2], truth.shape[-1])
    # What is not labelled has no error and is no truth: it comes last and changes no sum.
    errors, truth = (ops.reshape(x * labelled, flat) for x in (errors, truth))
    order = ops.argsort(-errors, axis=1)
    errors, sorted_truth = (ops.take_along_axis(x, order, axis=1) for x in (errors, truth))
    found = ops.cumsum(sorted_truth, axis=1)
    true = found[:, -1:]
    ranks = ops.cumsum(ops.ones_like(errors), axis=1)
    jaccard = 1 - (true - found) / ops.maximum(true + ranks - found, 1)
    steps = ops.concatenate([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], axis=1)
    costs = ops.sum(errors * ops.stop_gradient(steps), axis=1)
    if truth.shape[-1] == 1:
        return costs[:, 0]
    occurs = ops.cast(true[:, 0] > 0, "float32")
    return ops.sum(costs * occurs, axis=-1) / ops.maximum(ops.sum(occurs, axis=-1), 1)


@keras.saving.register_keras_serializable(package="unet")
def batch_dice(mask, logits):
    """Soft Dice loss of a batch as one flat image: 1 − (2 Σpt + 10⁻⁵) / (Σp + Σt + 10⁻⁵).

    Args:
        mask: uint8 [B, H, W, 1].
        logits: float32 [B, H, W, C]; of several classes, the mean over all of them.

    Returns:
        float32 [B] in [0, 1): the batch's value, for each of its images.

    Raises:
        ValueError: If the shapes differ.
    """
    common, both = _overlap(mask, logits)
    whole = _dice(ops.sum(common, axis=0), ops.sum(both, axis=0), smooth=_SMOOTH)
    return ops.ones_like(both[:, 0]) * ops.mean(whole)


@keras.saving.register_keras_serializable(package="unet")
def cross_entropy_dice(mask, logits):
    """`cross_entropy` plus `dice`: the one for calibration, the other for small foregrounds."""
    return cross_entropy(mask, logits) + dice(mask, logits)


@keras.saving.register_keras_serializable(package="unet")
def squared_error(target, output):
    """Squared error, each image's mean over its labelled pixels; for dense regression.

    Args:
        target: uint8 or float32 [B, H, W, 1], not scaled; 255 is the ignore label.
        output: float32 [B, H, W, 1].

    Returns:
        float32 [B], 0 or more.

    Raises:
        ValueError: If the shapes differ.
    """
    _, labelled = _split(target, output)
    return _mean(ops.square(ops.cast(target, "float32") - output), labelled)


BY_NAME: Mapping[str, Loss] = MappingProxyType(
    {
        f.__name__: f
        for f in (
            cross_entropy,
            focal,
            dice,
            cross_entropy_dice,
            tversky,
            lovasz,
            batch_dice,
            squared_error,
        )
    }
)


def parts(loss: Loss, mask, output):
    """Each image's part in the loss of a dataset, float32 [B, K]; for `total`."""
    if loss is batch_dice:
        return ops.concatenate(_overlap(mask, output), axis=-1)
    return loss(mask, output)[:, None]


def total(loss: Loss, parts: np.ndarray) -> float:
    """The loss of a dataset: the mean over its images, or `batch_dice` of all of them together.

    Args:
        loss: One of these losses.
        parts: From `parts`, float64 [N, K], N images.
    """
    if loss is batch_dice:
        return float(_dice(*np.split(parts.sum(axis=0), 2), smooth=_SMOOTH).mean())
    return float(parts.mean())


def _entropy(truth, logits):
    """Of each pixel, float32 [B, H, W, 1]."""
    if logits.shape[-1] == 1:
        return ops.softplus(ops.where(truth > 0, -logits, logits))
    whole = ops.logsumexp(logits, axis=-1, keepdims=True)
    return whole - ops.sum(truth * logits, axis=-1, keepdims=True)


def _overlap(mask, logits):
    """Σpt and Σp + Σt of each image and channel, over labelled pixels; float32 [B, C] each."""
    common, found, true = _sums(mask, logits)
    return common, found + true


def _sums(mask, logits):
    """Σpt, Σp and Σt of each image and channel, over labelled pixels; float32 [B, C] each."""
    truth, labelled = _split(mask, logits)
    is_one = logits.shape[-1] == 1
    probability = (ops.sigmoid(logits) if is_one else ops.softmax(logits, axis=-1)) * labelled
    truth = truth * labelled
    return tuple(ops.sum(x, axis=(1, 2)) for x in (truth * probability, probability, truth))


def _dice(common, both, *, smooth: float):
    return 1 - (2 * common + smooth) / (both + smooth)


def _mean(values, labelled):
    """Each image's mean over its labelled pixels; float32 [B]."""
    labels = ops.sum(labelled, axis=_PIXELS)
    return ops.sum(values * labelled, axis=_PIXELS) / ops.maximum(labels, 1)


def _split(mask, logits):
    """Truth of each channel and labelled, float32 {0, 1}, [B, H, W, C] and [B, H, W, 1]."""
    sides = zip(mask.shape[:-1], logits.shape[:-1], strict=False)
    fits = len(mask.shape) == len(logits.shape) == 4 and mask.shape[-1] == 1
    if not fits or any(a != b for a, b in sides if a is not None and b is not None):
        raise ValueError(
            f"masks {tuple(mask.shape)} and logits {tuple(logits.shape)} differ in shape; masks "
            f"have one channel."
        )
    channels = logits.shape[-1]
    classes = np.arange(channels) if channels > 1 else np.ones(1)
    truth = mask == ops.cast(classes, mask.dtype)
    return ops.cast(truth, "float32"), ops.cast(mask != IGNORE_LABEL, "float32")

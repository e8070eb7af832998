"""Losses of segmentation.

Each takes masks uint8 [B, H, W, 1] (1 is foreground, 255 the ignore label, all else background)
and probabilities float32 [B, H, W, 1], and returns one value an image: float32 [B]. The loss of an
image does not depend on others in its batch, so means over images do not depend on the batch size.
Pixels with the ignore label are left out; the loss of an image without any other is 0.

Only `batch_dice` is the loss of a batch as a whole and has the same value for all its images.
`parts` and `total` score a dataset as one batch, whatever batches it came in.
"""

# Keras ships no stubs: a checker takes what its ops return for None.
# pyright: reportOptionalOperand=false, reportOperatorIssue=false, reportOptionalSubscript=false

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
def cross_entropy(mask, probability):
    """Cross-entropy in nats, each image's mean over its labelled pixels.

    Args:
        mask: uint8 [B, H, W, 1].
        probability: float32 [B, H, W, 1]; or [B, H, W, C], of each class, where masks hold the
            classes 0 to C-1.

    Returns:
        float32 [B], 0 or more.

    Raises:
        ValueError: If the shapes differ.
    """
    if probability.shape[-1] == 1:
        truth, labelled = _split(mask, probability)
        return _mean(ops.binary_crossentropy(truth, probability), labelled)
    _, labelled = _split(mask, probability[..., :1])
    truth = ops.cast(ops.where(mask == IGNORE_LABEL, 0, mask), "int32")[..., 0]
    entropy = ops.sparse_categorical_crossentropy(truth, probability)
    return _mean(entropy[..., None], labelled)


@keras.saving.register_keras_serializable(package="unet")
def dice(mask, probability):
    """Soft Dice loss of each image: 1 − (2 Σpt + 1) / (Σp + Σt + 1), over labelled pixels.

    The 1 makes an empty prediction of an empty mask cost nothing.

    Args:
        mask: uint8 [B, H, W, 1].
        probability: float32 [B, H, W, 1].

    Returns:
        float32 [B] in [0, 1).

    Raises:
        ValueError: If the shapes differ.

    Source: Milletari, Navab and Ahmadi, "V-Net", 3DV 2016, with plain instead of squared sums.
    """
    return _dice(*_overlap(mask, probability), smooth=1)


@keras.saving.register_keras_serializable(package="unet")
def batch_dice(mask, probability):
    """Soft Dice loss of a batch as one flat image: 1 − (2 Σpt + 10⁻⁵) / (Σp + Σt + 10⁻⁵).

    Args:
        mask: uint8 [B, H, W, 1].
        probability: float32 [B, H, W, 1].

    Returns:
        float32 [B] in [0, 1): the batch's value, for each of its images.

    Raises:
        ValueError: If the shapes differ.
    """
    common, both = _overlap(mask, probability)
    return ops.ones_like(both) * _dice(ops.sum(common), ops.sum(both), smooth=_SMOOTH)


@keras.saving.register_keras_serializable(package="unet")
def cross_entropy_dice(mask, probability):
    """`cross_entropy` plus `dice`: the one for calibration, the other for small foregrounds."""
    return cross_entropy(mask, probability) + dice(mask, probability)


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
    {f.__name__: f for f in (cross_entropy, dice, cross_entropy_dice, batch_dice, squared_error)}
)


def parts(loss: Loss, mask, output):
    """Each image's part in the loss of a dataset, float32 [B, K]; for `total`."""
    if loss is batch_dice:
        return ops.stack(_overlap(mask, output), axis=-1)
    return loss(mask, output)[:, None]


def total(loss: Loss, parts: np.ndarray) -> float:
    """The loss of a dataset: the mean over its images, or `batch_dice` of all of them together.

    Args:
        loss: One of these losses.
        parts: From `parts`, float64 [N, K], N images.
    """
    if loss is batch_dice:
        return float(_dice(*parts.sum(axis=0), smooth=_SMOOTH))
    return float(parts.mean())


def _overlap(mask, probability):
    """Σpt and Σp + Σt of each image, over labelled pixels; float32 [B] each."""
    truth, labelled = _split(mask, probability)
    probability = probability * labelled
    common = ops.sum(truth * probability, axis=_PIXELS)
    return common, ops.sum(truth, axis=_PIXELS) + ops.sum(probability, axis=_PIXELS)


def _dice(common, both, *, smooth: float):
    return 1 - (2 * common + smooth) / (both + smooth)


def _mean(values, labelled):
    """Each image's mean over its labelled pixels; float32 [B]."""
    labels = ops.sum(labelled, axis=_PIXELS)
    return ops.sum(values * labelled, axis=_PIXELS) / ops.maximum(labels, 1)


def _split(mask, probability):
    """Truth and labelled, both float32 {0, 1}."""
    if tuple(mask.shape) != tuple(probability.shape):
        raise ValueError(
            f"masks {tuple(mask.shape)} and probabilities {tuple(probability.shape)} differ in "
            f"shape; masks have one channel, and only cross_entropy takes probabilities of more."
        )
    return ops.cast(mask == 1, "float32"), ops.cast(mask != IGNORE_LABEL, "float32")

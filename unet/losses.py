"""Losses of binary segmentation.

Each takes masks uint8 [B, H, W, 1] (1 is foreground, 255 not labelled, all else background) and
probabilities float32 [B, H, W, 1], and gives one value an image: float32 [B]. An image's loss does
not depend on the others in its batch, so means over images do not depend on the batch size. Pixels
that are not labelled count in nothing; an image without a label costs 0.
"""

# Keras ships no stubs: a checker takes what its ops return for None.
# pyright: reportOptionalOperand=false, reportOperatorIssue=false, reportOptionalSubscript=false

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import keras
from keras import ops

UNLABELLED = 255

_PIXELS = (1, 2, 3)


@keras.saving.register_keras_serializable(package="unet")
def cross_entropy(mask, probability):
    """Binary cross-entropy in nats, each image's mean over its labelled pixels.

    Args:
        mask: uint8 [B, H, W, 1].
        probability: float32 [B, H, W, 1].

    Returns:
        float32 [B], 0 or more.

    Raises:
        ValueError: If the shapes differ.
    """
    truth, labelled = _split(mask, probability)
    entropy = ops.binary_crossentropy(truth, probability) * labelled
    return ops.sum(entropy, axis=_PIXELS) / ops.maximum(ops.sum(labelled, axis=_PIXELS), 1)


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
    truth, labelled = _split(mask, probability)
    probability = probability * labelled
    common = ops.sum(truth * probability, axis=_PIXELS)
    both = ops.sum(truth, axis=_PIXELS) + ops.sum(probability, axis=_PIXELS)
    return 1 - (2 * common + 1) / (both + 1)


@keras.saving.register_keras_serializable(package="unet")
def cross_entropy_dice(mask, probability):
    """`cross_entropy` plus `dice`: the one for calibration, the other for small foregrounds."""
    return cross_entropy(mask, probability) + dice(mask, probability)


BY_NAME: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {f.__name__: f for f in (cross_entropy, dice, cross_entropy_dice)}
)


def _split(mask, probability):
    """Truth and labelled, both float32 {0, 1}."""
    if tuple(mask.shape) != tuple(probability.shape):
        raise ValueError(
            f"masks {tuple(mask.shape)} and probabilities {tuple(probability.shape)} differ in "
            f"shape; these losses take one channel of each."
        )
    return ops.cast(mask == 1, "float32"), ops.cast(mask != UNLABELLED, "float32")

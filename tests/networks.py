"""Models whose logits are known: those of the tests that score and draw."""

from typing import Any

import keras
import numpy as np


def fixed(channels: int = 1) -> Any:
    """From uint8 [B, H, W, 3] to `logits` of its first channels."""
    image: Any = keras.Input((None, None, 3), dtype="uint8")
    output: Any = keras.ops.cast(image[..., :channels], "float32")
    output = (output - 127.5) / 32
    network: Any = keras.Model(image, output)
    network.jit_compile = False
    return network


def logits(images: np.ndarray, channels: int = 1) -> np.ndarray:
    """What `fixed` gives, float32 [B, H, W, C]."""
    return (images[..., :channels].astype(np.float32) - 127.5) / 32


def probability(images: np.ndarray, channels: int = 1) -> np.ndarray:
    """The same as probabilities, float32 [B, H, W, C]."""
    output = logits(images, channels)
    if channels == 1:
        return 1 / (1 + np.exp(-output))
    odds = np.exp(output)
    return odds / odds.sum(axis=-1, keepdims=True)

"""From a model's answer at the size it saw an image to one at the image's own size.

The probability, not the mask, is enlarged, so that edges stay smooth; and tile by tile, so that
memory does not grow with the classes.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from unet import metrics
from unet.recipes import Recipe

_BILINEAR = Image.Resampling.BILINEAR
_TILE = 1 << 16  # pixels that are enlarged at once


class Answer(NamedTuple):
    """What a model says of an image."""

    found: np.ndarray
    """uint8 [H, W], the predicted class; float32 [H, W] of a regression."""

    probability: np.ndarray
    """uint8 [H, W]: of the foreground, or of the predicted class, in 255ths."""


def at_size(output: np.ndarray, shape: tuple[int, int], recipe: Recipe) -> Answer:
    """Enlarges or shrinks an answer, and decides it there.

    Args:
        output: float32 [h, w, C], probabilities; of a regression the numbers.
        shape: Height and width of the image, H and W.
        recipe: Its threshold and the activation of its model.
    """
    is_number = recipe.is_regression
    found = np.empty(shape, np.float32 if is_number else np.uint8)
    probability = np.zeros(shape, np.uint8)
    for rows, columns, part in _resized(output, shape):
        if is_number:
            found[rows, columns] = part[..., 0]
            continue
        found[rows, columns] = metrics.decide(part, threshold=recipe.threshold)
        probability[rows, columns] = np.round(255 * part.max(axis=-1))
    return Answer(found, probability)


def _resized(output: np.ndarray, shape: Sequence[int]) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Resizes an answer, tile by tile: rows, columns and float32 [rows, columns, C]."""
    channels = [Image.fromarray(channel) for channel in np.moveaxis(output, -1, 0).copy()]
    least, most = output.min(), output.max()
    height, width = output.shape[:2]
    down, along = height / shape[0], width / shape[1]
    wide = min(shape[1], max(256, _TILE // shape[0]))  # square where the image allows
    high = _TILE // wide
    for top in range(0, shape[0], high):
        rows = slice(top, min(top + high, shape[0]))
        for left in range(0, shape[1], wide):
            columns = slice(left, min(left + wide, shape[1]))
            right, bottom = columns.stop * along, rows.stop * down
            box = (left * along, top * down, min(right, width), min(bottom, height))
            tile = (columns.stop - left, rows.stop - top)
            parts = [np.asarray(c.resize(tile, _BILINEAR, box=box)) for c in channels]
            yield rows, columns, np.clip(np.stack(parts, -1), least, most)  # against rounding

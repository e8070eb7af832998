"""Mask arithmetic.

Masks are NumPy arrays, uint8 [H, W], one class id a pixel, 255 where nobody knows. Label maps are
uint16 [H, W], 0 for background, else the number of the object. No TensorFlow here, and no files.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

UNKNOWN = 255


@dataclasses.dataclass(frozen=True)
class Instances:
    """Objects of one image, merged.

    Attributes:
        labels: uint16 [H, W], 0 for background, else the object's number, from 1.
        contested: Pixels that more than one object claimed.
    """

    labels: np.ndarray
    contested: int

    @property
    def mask(self) -> np.ndarray:
        """uint8 [H, W]: 1 in any object, 0 elsewhere."""
        return (self.labels > 0).astype(np.uint8)


def merge_instances(masks: Iterable[np.ndarray], *, shape: tuple[int, int]) -> Instances:
    """Numbers objects that come as one mask each.

    The objects are numbered in the order given, empty ones too; the earlier keeps a contested
    pixel. The work grows with the pixels of the objects, not with objects times image.

    Args:
        masks: Bool or integer [H, W] each, non-zero in the object; taken one at a time.
        shape: (H, W).

    Returns:
        The label map, and how many pixels were contested.

    Raises:
        ValueError: If a mask has another shape, or there are more than 65,535.
    """
    labels = np.zeros(shape, np.uint16)
    contested = np.zeros(shape, bool)
    flat_labels, flat_contested = labels.ravel(), contested.ravel()  # views
    for number, mask in enumerate(masks, start=1):
        if mask.shape != shape:
            raise ValueError(f"mask {number} has shape {mask.shape}, the image has {shape}.")
        if number > np.iinfo(labels.dtype).max:
            raise ValueError(f"more than {number - 1:,} masks; a label map of uint16 ends there.")
        pixels = np.flatnonzero(mask != 0)  # of bool it is 6 times as fast as of uint8
        taken = flat_labels[pixels] > 0
        flat_contested[pixels[taken]] = True
        flat_labels[pixels[~taken]] = number
    return Instances(labels, int(np.count_nonzero(contested)))

"""Raw formats: one module a source; each reads and synthesizes its format.

No TensorFlow and no TFDS here; splits, sizes and batches are not known.
"""

import dataclasses
from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from segdata import archives

Entry = TypeVar("Entry")


class SizeMismatchError(archives.ArchiveError):
    """An image and a mask of different sizes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One image and its labels.

    Attributes:
        id: Unique within the source.
        group: No split may divide the examples of a group.
        image: An encoded RGB image, 8 bits a channel, PNG or JPEG; untouched where the raw file
            already is one.
        mask: uint8 [H, W] of class ids, 255 the ignore label.
        instances: uint16 [H, W], 0 for background, else the number of the object; None where the
            source has no objects.
        overlap: The number of pixels in more than one object.
        renewed: Why a JPEG was re-encoded, such as "EXIF orientation 6"; empty where its bytes are
            untouched.
    """

    id: str
    group: str
    image: bytes
    mask: np.ndarray
    instances: np.ndarray | None = None
    overlap: int = 0
    renewed: str = ""


def whole(entries: list[Entry], faults: Mapping[str, str]) -> list[Entry]:
    """The entries of a survey without faults.

    Raises:
        ArchiveError: With the first fault, if there is one.
    """
    for fault in faults.values():
        raise archives.ArchiveError(fault)
    return entries

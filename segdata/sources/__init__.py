"""Raw formats: one module a source; each reads its format and draws it.

No TensorFlow here, no TFDS, and nothing of splits, sizes or batches.
"""

import dataclasses
from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from segdata import archives

Entry = TypeVar("Entry")


class SizeMismatchError(archives.ArchiveError):
    """An image and a mask that are not of one size."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One image and what is known of its pixels.

    Attributes:
        id: Unique within the source.
        group: Examples of one group must never be parted by a split.
        image: An encoded RGB image, 8 bits a channel, PNG or JPEG; untouched where the raw file
            already is one.
        mask: uint8 [H, W] of class ids, 255 where nobody knows.
        instances: uint16 [H, W], 0 for background, else the number of the object; None where the
            source has no objects.
        overlap: Pixels that more than one object claimed.
        renewed: Why a JPEG had to be encoded again, such as "EXIF orientation 6"; empty where its
            bytes are untouched.
    """

    id: str
    group: str
    image: bytes
    mask: np.ndarray
    instances: np.ndarray | None = None
    overlap: int = 0
    renewed: str = ""


def whole(entries: list[Entry], faults: Mapping[str, str]) -> list[Entry]:
    """The entries of a survey in which nothing is wrong.

    Raises:
        ArchiveError: The first fault, if there is one.
    """
    for fault in faults.values():
        raise archives.ArchiveError(fault)
    return entries

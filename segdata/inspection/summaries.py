"""Example summaries and the findings made from them. Plain values; no image and no file.

A finding is an "error" where it would harm training or its scores, a "warning" where somebody
should look at the examples, and a "note" otherwise.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from segdata.building import splits
from segdata.core import IGNORE_LABEL
from segdata.inspection.expectation import Agreement
from segdata.inspection.fit import Fit

Severity = Literal["error", "warning", "note"]
Key = tuple[str, str]
"""Split and id of an example."""

SPECK = 10
"""Pixels; a smaller object is probably a slip."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What an audit keeps of one example.

    Attributes:
        split: The split that it is in.
        id: Its name.
        group: Its group; a group must not be split.
        mode: The image file's format and mode, such as "PNG RGBA".
        size: The image's height and width.
        mask_size: The mask's height and width.
        counts: Value in the mask to number of pixels.
        pixels: A hash of the image's RGB pixels and size.
        mask: A hash of the mask.
        foreground: A hash of where the mask is neither 0 nor 255, a bit a pixel.
        perceptual_hash: As near duplicates are found by; see `building.splits`.
        flat: Whether all pixels of the image have one colour.
        objects: How many; None where the dataset has no objects.
        specks: How many objects are smaller than `SPECK`.
        overlap: Pixels that more than one object claimed.
        stratum: Colour and brightness of the background; see `building.splits`.
        fit: How the mask lies on the image; None where it was not measured.
        apart: Numbers of objects that lie in two places.
        agreement: How the mask agrees with those of similar images; None where that was not asked.
    """

    split: str
    id: str
    group: str
    mode: str
    size: tuple[int, int]
    mask_size: tuple[int, int]
    counts: Mapping[int, int]
    pixels: bytes
    mask: bytes
    foreground: bytes
    perceptual_hash: int
    flat: bool
    objects: int | None
    specks: int
    overlap: int
    stratum: str = ""
    fit: Fit | None = None
    apart: tuple[int, ...] = ()
    agreement: Agreement | None = None

    @property
    def key(self) -> Key:
        """Split and id."""
        return self.split, self.id

    @property
    def unlabelled(self) -> bool:
        """Whether every pixel has the ignore label."""
        return set(self.counts) <= {IGNORE_LABEL}

    @property
    def unknown(self) -> float:
        """The share of pixels with the ignore label."""
        return self.counts.get(IGNORE_LABEL, 0) / max(1, sum(self.counts.values()))

    @property
    def inside(self) -> int:
        """How many pixels are labelled and not of class 0."""
        return sum(n for value, n in self.counts.items() if value not in (0, IGNORE_LABEL))

    @property
    def contested(self) -> float:
        """The share of overlapping pixels among those inside."""
        return self.overlap / max(1, self.inside)


@dataclasses.dataclass(frozen=True)
class Damage:
    """An example that cannot be read, and why."""

    split: str
    id: str
    message: str
    mismatch: bool = False
    """Whether it can be read, but image and mask differ in size."""


@dataclasses.dataclass(frozen=True)
class Disagreement:
    """A mask that differs from a table of run lengths, or a table that cannot be read."""

    key: Key | None
    iou: float | None
    """None where it was not measured."""
    detail: str


@dataclasses.dataclass(frozen=True)
class Case:
    """One instance of a finding: an example, or several together."""

    members: tuple[Key, ...]
    detail: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found.

    Attributes:
        check: Its name.
        severity: How serious it is.
        what: A sentence with the figures.
        do: What to do about it.
        cases: The worst first.
    """

    check: str
    severity: Severity
    what: str
    do: str
    cases: tuple[Case, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summaries:
    """All that the checks read."""

    examples: Sequence[Summary]
    damages: Sequence[Damage]
    classes: Sequence[str]
    tables: Sequence[Disagreement]
    across: Sequence[Sequence[Summary]] = ()
    """Sets of near duplicates in more than one split."""

    @property
    def labelled(self) -> list[Summary]:
        """The examples with a label on some pixel."""
        return [item for item in self.examples if not item.unlabelled]

    @property
    def alike(self) -> list[list[Summary]]:
        """Examples of a split whose hashes are near, the largest sets first.

        Exact copies, blank images and a known group alone make none.
        """
        found = list[list[Summary]]()
        for split in dict.fromkeys(item.split for item in self.examples):
            shown = [item for item in self.examples if item.split == split and not item.flat]
            # Many images may share a hash: each is compared once.
            group_of = splits.near_duplicates(
                {f"{item.perceptual_hash:016x}": item.perceptual_hash for item in shown}
            )
            sets = collections.defaultdict[str, list[Summary]](list)
            for item in shown:
                sets[group_of[f"{item.perceptual_hash:016x}"]].append(item)
            found += [
                items
                for items in sets.values()
                if len({item.pixels for item in items}) > 1
                and len({item.group for item in items}) > 1
            ]
        return sorted(found, key=len, reverse=True)


def format_case(case: Case) -> str:
    """Formats a case as one line."""
    names = [f"{split}/{key}" for split, key in case.members[:4]]
    more = len(case.members) - len(names)
    joined = ", ".join(names) + (f" and {more:,} more" if more > 0 else "")
    return ": ".join(filter(None, [joined, case.detail]))

"""Slices of splits, such as `train[:80%]`, that never split a group.

Groups are contiguous in the files of a dataset. Where a slice begins or ends inside a group, that
end moves to the nearest end of a group other than the ends of the split. So slices that add up to
the split still do, and a slice of the first few examples has at least a group. No archive, file or
pixel is known here.
"""

import bisect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from segdata.building import internals

Sizes = Mapping[str, Sequence[int]]
"""Split to the sizes of its groups, in the order of the files; groups of one if missing."""


def sizes(groups: Iterable[str]) -> list[int]:
    """The sizes of groups, given the group of each example, in order."""
    return [sum(1 for _ in members) for _, members in itertools.groupby(groups)]


def each(function: Callable[[Any], Any], split: Any) -> Any:
    """Applies a function to every split of a list, a tuple or a dictionary of them."""
    match split:
        case dict():
            return {key: each(function, part) for key, part in split.items()}
        case list() | tuple():
            return type(split)(each(function, part) for part in split)
        case _:
            return split if split is None else function(split)


def absolute(known: Any, split: Any) -> list[tuple[str, int, int]]:
    """What a split is made of: a split's name, and the first and one beyond the last example.

    Args:
        known: `DatasetInfo.splits` of any TFDS dataset.
        split: A string, a `ReadInstruction`, or one of `even_splits`.
    """
    whole = known.whole(split) if isinstance(known, Splits) else split
    return internals.absolute(whole, known)


class Splits(tfds.core.SplitDict):
    """A dataset's splits; slicing them never splits a group."""

    def __init__(self, known: Iterable[tfds.core.SplitInfo], *, groups: Sizes):
        super().__init__(known)
        self._groups = groups

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self.whole(key))

    def whole(self, split: Any) -> Any:
        """The instruction that reads a split in whole groups.

        Args:
            split: A string, a `ReadInstruction`, or one of `even_splits`.
        """
        if str(split) in self:
            return split

        def move(name: str, count: int, first: int, last: int) -> tuple[int, int]:
            if last < first:  # TFDS would count its examples as fewer than none
                raise ValueError(f"{split} ends before it begins.")
            ends = list(itertools.accumulate(self._groups.get(name) or [1] * count))
            return _nearest(ends, first), _nearest(ends, last)

        return internals.Moved(split, move)


class Info(tfds.core.DatasetInfo):
    """A dataset's description, with `Splits`; the metadata `groups` are their `Sizes`."""

    @property
    def splits(self) -> Splits:
        """The splits by name; slices of them too."""
        return Splits(super().splits.values(), groups=(self.metadata or {}).get("groups", {}))


def keep_groups(info: tfds.core.DatasetInfo) -> None:
    """Makes slices of a dataset that is opened without its builder keep its groups whole."""
    if type(info) is tfds.core.DatasetInfo:
        info.__class__ = Info


def _nearest(ends: Sequence[int], index: int) -> int:
    """The end of a group nearest to an index: of equally near ones the first.

    Between the ends of the split it is an end between them, where there is one.
    """
    if index in (0, ends[-1]):
        return index
    inner = ends[:-1] or ends
    after = bisect.bisect_left(inner, index)
    return min(inner[max(0, after - 1) : after + 1], key=lambda end: abs(end - index))

"""Slices of splits, such as `train[:80%]`, that part no group.

Groups lie side by side in the files of a dataset. Where a slice begins or ends inside of one, that
end moves to the nearest end of a group, and stays off the ends of the split. So slices that make up
the split still do, and the first few examples are a group at least. Nothing of archives, files or
pixels is known here.
"""

import bisect
import dataclasses
import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import splits

Sizes = Mapping[str, Sequence[int]]
"""Split to the sizes of its groups, in the order of the files; without it, groups are of one."""


def sizes(groups: Iterable[str]) -> list[int]:
    """The sizes of groups, given the group of each example, one after the other."""
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
    parts = splits.AbstractSplit.from_spec(whole).to_absolute(known)
    return [
        (
            part.splitname,
            part.from_ or 0,
            known[part.splitname].num_examples if part.to is None else part.to,
        )
        for part in parts
    ]


class Splits(splits.SplitDict):
    """A dataset's splits, which part no group when they are sliced."""

    def __init__(self, known: Iterable[splits.SplitInfo], *, groups: Sizes):
        super().__init__(known)
        self._groups = groups

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self.whole(key))

    def whole(self, split: Any) -> Any:
        """What to read for a split.

        Args:
            split: A string, a `ReadInstruction`, or one of `even_splits`.
        """
        return split if str(split) in self else _Whole(split, self._groups)


class Info(tfds.core.DatasetInfo):
    """A dataset's description, with `Splits`; the metadata `groups` are their `Sizes`."""

    @property
    def splits(self) -> Splits:
        """The splits by name; slices of them too."""
        return Splits(super().splits.values(), groups=(self.metadata or {}).get("groups", {}))


@dataclasses.dataclass(frozen=True)
class _Whole(splits.AbstractSplit):
    split: Any
    groups: Sizes

    def __str__(self) -> str:
        return str(self.split)

    def to_absolute(self, split_infos: Mapping[str, Any]) -> list[Any]:
        def moved(part: Any) -> splits.AbstractSplit:
            count = split_infos[part.splitname].num_examples
            ends = list(itertools.accumulate(self.groups.get(part.splitname) or [1] * count))
            first, last = part.from_ or 0, count if part.to is None else part.to
            if last < first:  # TFDS would count its examples as fewer than none
                raise ValueError(f"{self.split} ends before it begins.")
            return tfds.core.ReadInstruction(
                part.splitname, from_=_nearest(ends, first), to=_nearest(ends, last), unit="abs"
            )

        parts = splits.AbstractSplit.from_spec(self.split).to_absolute(split_infos)
        return functools.reduce(operator.add, map(moved, parts)).to_absolute(split_infos)


def _nearest(ends: Sequence[int], index: int) -> int:
    """The end of a group nearest to an index: of equally near ones the first.

    Between the ends of the split it is an end between them, where there is one.
    """
    if index in (0, ends[-1]):
        return index
    inner = ends[:-1] or ends
    after = bisect.bisect_left(inner, index)
    return min(inner[max(0, after - 1) : after + 1], key=lambda end: abs(end - index))

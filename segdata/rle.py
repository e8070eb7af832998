"""Run lengths: masks as Kaggle's tables write them.

A mask is a row of pairs "start length", starts counted from 1: "1 3 10 5" are the pixels 1, 2, 3,
10, 11, 12, 13, 14. Pixels are counted down the columns by the Data Science Bowl 2018 (pixel 2 lies
below pixel 1), along the rows by Carvana (pixel 2 lies to the right of pixel 1). Tables are read
row by row, in memory that does not grow with them. NumPy only; no image is known here.

Source: the evaluation pages of https://www.kaggle.com/c/data-science-bowl-2018 and
https://www.kaggle.com/c/carvana-image-masking-challenge.
"""

import codecs
import dataclasses
import itertools
import os
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

from segdata import archives

Order = Literal["columns", "rows"]

_LONGEST_LINE = 1 << 26  # characters; a mask of 4,000 × 4,000 single pixels has as many
_LAYOUT: dict[str, Literal["F", "C"]] = {"columns": "F", "rows": "C"}


def encode(mask: np.ndarray, *, order: Order) -> str:
    """Writes a mask as run lengths.

    Args:
        mask: [H, W] of bool or integers; what is not zero is in the mask.
        order: "columns" counts pixels down the columns, "rows" along the rows.

    Returns:
        As few runs as there are, in order; "" for an empty mask.
    """
    inside = np.ravel(mask != 0, order=_layout(order))
    edges = np.flatnonzero(np.diff(inside, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    return " ".join(map(str, np.stack([starts + 1, ends - starts], axis=1).ravel().tolist()))


def decode(runs: str, *, shape: tuple[int, int], order: Order) -> np.ndarray:
    """Reads run lengths.

    Args:
        runs: Pairs "start length", ascending; runs may touch, not overlap. "" is an empty mask.
        shape: (H, W).
        order: "columns" counts pixels down the columns, "rows" along the rows.

    Returns:
        Bool [H, W].

    Raises:
        ValueError: If it is no such row of pairs, or leads out of the image; the value is named.
    """
    size = shape[0] * shape[1]
    numbers = _numbers(runs)
    starts, lengths = numbers[::2], numbers[1::2]
    ends = starts + lengths  # from 1, the first pixel after the run
    if (wrong := _first(ends > size + 1)) is not None:
        raise ValueError(
            f"run {_pair(numbers, wrong)} ends at pixel {ends[wrong] - 1:,}; the image has "
            f"{shape[0]}×{shape[1]} = {size:,}. These are the runs of another image, or its height "
            "and width are swapped."
        )
    if (wrong := _first(starts[1:] < ends[:-1])) is not None:
        raise ValueError(
            f"run {_pair(numbers, wrong + 1)} begins before run {_pair(numbers, wrong)} ends; "
            "runs ascend and do not overlap."
        )
    steps = np.zeros(size + 1, np.int8)
    steps[starts - 1] += 1
    steps[ends - 1] -= 1
    inside = np.cumsum(steps[:-1], dtype=np.int8).view(bool)
    return inside.reshape(shape, order=_layout(order))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoded:
    """What a table says of one image.

    Attributes:
        id: The image's, without an extension.
        runs: One row of pairs an object.
        order: How the table counts pixels.
        shape: (H, W) where the table tells it.
        where: The table and the line of its first row, for messages.
    """

    id: str
    runs: tuple[str, ...]
    order: Order
    shape: tuple[int, int] | None
    where: str

    def mask(self, shape: tuple[int, int]) -> np.ndarray:
        """All objects together, bool [H, W].

        Raises:
            ValueError: If the table tells another shape, or a row cannot be read.
        """
        if self.shape not in (None, shape):
            raise ValueError(f"{self.where}: {self.id} is {self.shape}, the mask is {shape}.")
        inside = np.zeros(shape, bool)
        for runs in self.runs:
            try:
                inside |= decode(runs, shape=shape, order=self.order)
            except ValueError as error:
                raise ValueError(f"{self.where}: {self.id}: {error}") from error
        return inside


def read_stage1(
    source: archives.Tree | str | os.PathLike[str], *, name: str = "stage1_solution.csv"
) -> Iterator[Encoded]:
    """Reads a table of the Data Science Bowl 2018: a row an object, down the columns.

    Args:
        source: The table, a zip that holds it, or a tree with either in it.
        name: What the table is called: `stage1_solution.csv`, with heights and widths, or
            `stage1_train_labels.csv`, without.

    Yields:
        Each image with all of its objects.

    Raises:
        ValueError: If it is no such table, or the rows of an image do not stand together.
        ArchiveError: If there is none, or it is damaged.
    """
    rows = _rows(source, name, ("ImageId", "EncodedPixels"), optional=("Height", "Width"))
    seen = set[str]()
    for key, group in itertools.groupby(rows, key=lambda row: row.values[0]):
        first, *more = group
        if key in seen:
            raise ValueError(f"{first.where}: the rows of {key} do not stand together. Sort them.")
        seen.add(key)
        height, width = first.values[2:]
        yield Encoded(
            id=key,
            runs=tuple(row.values[1] for row in (first, *more)),
            order="columns",
            shape=(_whole(height, first), _whole(width, first)) if height and width else None,
            where=first.where,
        )


def read_train_masks(
    source: archives.Tree | str | os.PathLike[str], *, name: str = "train_masks.csv"
) -> Iterator[Encoded]:
    """Reads a table of Carvana: a row an image, along the rows.

    Takes, yields and raises what `read_stage1` does.
    """
    for row in _rows(source, name, ("img", "rle_mask")):
        key, runs = row.values
        stem = key.rpartition(".")[0] or key
        yield Encoded(id=stem, runs=(runs,), order="rows", shape=None, where=row.where)


@dataclasses.dataclass(frozen=True)
class _Row:
    where: str
    values: tuple[str, ...]


def _rows(
    source: archives.Tree | str | os.PathLike[str],
    name: str,
    columns: tuple[str, ...],
    *,
    optional: tuple[str, ...] = (),
) -> Iterator[_Row]:
    """The wanted columns of each row, "" for an optional one that is not there."""
    label, lines = _lines(source, name)
    header = _fields(next(lines, ""))
    if missing := [column for column in columns if column not in header]:
        raise ValueError(
            f"{label}: there is no column {missing[0]!r}; it begins with {','.join(header)[:80]!r}."
        )
    places = [header.index(c) if c in header else None for c in (*columns, *optional)]
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        fields = _fields(line)
        if len(fields) != len(header):
            raise ValueError(
                f"{label}, line {number}: {len(fields)} fields, the first line has {len(header)}. "
                "The file is cut or damaged; download it again."
            )
        values = tuple("" if place is None else fields[place] for place in places)
        yield _Row(f"{label}, line {number}", values)


def _fields(line: str) -> list[str]:
    return [field.strip().strip('"') for field in line.split(",")]  # no field holds a comma


def _lines(source: archives.Tree | str | os.PathLike[str], name: str) -> tuple[str, Iterator[str]]:
    """A label for messages, and the lines."""
    if not isinstance(source, archives.Tree):
        path = pathlib.Path(source)
        if path.is_file() and path.suffix.lower() != ".zip":
            return str(path), _split(archives.Tree(str(path), {path.name: path}).chunks(path.name))
        source = archives.open(path)
    for member in source.names:
        match member.rpartition("/")[2]:
            case found if found == name:
                return f"{source.label}: {member}", _split(source.chunks(member))
            case found if found == f"{name}.zip":
                return _lines(source.sub(member), name)
    raise archives.ArchiveError(f"{source.label}: there is no {name} in it.")


def _split(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = ""
    for text in codecs.iterdecode(chunks, "utf-8-sig"):
        *lines, rest = (rest + text).split("\n")
        yield from lines
        if len(rest) > _LONGEST_LINE:
            raise ValueError(f"a line of over {_LONGEST_LINE:,} characters is no row of a table.")
    if rest:
        yield rest


def _numbers(runs: str) -> np.ndarray:
    words = runs.split()
    if re.search(r"[^0-9\s]", runs, re.ASCII) or any(len(word) > 18 for word in words):
        wrong = next(word for word in words if not re.fullmatch("[0-9]{1,18}", word))
        raise ValueError(f"{wrong[:40]!r} is no start or length; both are whole numbers from 1.")
    if len(words) % 2:
        raise ValueError(
            f"{len(words)} numbers, the last of them {words[-1]}; runs are pairs, start and length."
        )
    numbers = np.fromiter(map(int, words), np.int64, len(words))
    if (wrong := _first(numbers < 1)) is not None:
        raise ValueError(
            f"run {_pair(numbers, wrong // 2)} holds a {numbers[wrong]}; "
            "starts and lengths count from 1."
        )
    return numbers


def _first(wrong: np.ndarray) -> int | None:
    return int(wrong.argmax()) if wrong.any() else None


def _pair(numbers: np.ndarray, run: int) -> str:
    return f"“{numbers[2 * run]} {numbers[2 * run + 1]}”"


def _whole(text: str, row: _Row) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"{row.where}: {text!r} is no height or width in pixels.") from error


def _layout(order: Order) -> Literal["F", "C"]:
    if order not in _LAYOUT:
        raise ValueError(f"order={order!r}: it is 'columns' (DSB2018) or 'rows' (Carvana).")
    return _LAYOUT[order]

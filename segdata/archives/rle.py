"""Run lengths: masks as in Kaggle's tables.

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
import string
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

from segdata import archives
from segdata.archives import masks, trees

Order = Literal["columns", "rows"]

# Of a table that is held at once. Carvana's longest line has 40,000 characters; an image of the
# Data Science Bowl has at most 375 objects, its largest table 3,019 images.
_LONGEST_LINE = 1 << 20  # characters
_LONGEST_ID = 255  # characters
_MOST_COLUMNS = 32
_LONGEST_IMAGE = 1 << 22  # characters of all its objects
_MOST_IMAGES = 1 << 16
_LAYOUT: dict[str, Literal["F", "C"]] = {"columns": "F", "rows": "C"}


def encode(mask: np.ndarray, *, order: Order) -> str:
    """Writes a mask as run lengths.

    Args:
        mask: [H, W] of bool or integers; not zero in the mask.
        order: "columns" counts pixels down the columns, "rows" along the rows.

    Returns:
        The fewest runs, in order; "" for an empty mask.
    """
    inside = np.ravel(mask != 0, order=_layout(order))
    edges = np.flatnonzero(np.diff(inside, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    return " ".join(map(str, np.stack([starts + 1, ends - starts], axis=1).ravel().tolist()))


def encode_objects(labels: np.ndarray, *, order: Order) -> list[str]:
    """Writes each object of a label map as run lengths; one pass, however many there are.

    Args:
        labels: Integers [H, W], 0 for background, else the number of the object.
        order: As in `encode`.

    Returns:
        A row of pairs an object, by their numbers; numbers that do not occur have none.
    """
    flat = np.ravel(labels, order=_layout(order))
    starts = np.flatnonzero(np.diff(flat, prepend=0 if not flat.size else ~flat[:1]))
    lengths = np.diff(starts, append=flat.size)
    numbers = flat[starts]
    rows = np.argsort(numbers, kind="stable")[np.count_nonzero(numbers == 0) :]
    pairs = np.stack([starts + 1, lengths], axis=1)[rows]
    ends = np.flatnonzero(np.diff(numbers[rows])) + 1
    return [
        " ".join(map(str, part.ravel().tolist())) for part in np.split(pairs, ends) if part.size
    ]


def decode(runs: str, *, shape: tuple[int, int], order: Order) -> np.ndarray:
    """Reads run lengths.

    Args:
        runs: Pairs "start length", ascending; runs may touch, not overlap. "" is an empty mask.
        shape: (H, W).
        order: "columns" counts pixels down the columns, "rows" along the rows.

    Returns:
        Bool [H, W].

    Raises:
        ValueError: If it is no such row of pairs, or leads out of the image; it names the value.
    """
    return _inside([_ends(runs, shape)], shape, order)


def _ends(runs: str, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The first pixel of each run and the first one after it, from 1."""
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
    return starts, ends


def _inside(
    objects: Iterable[tuple[np.ndarray, np.ndarray]], shape: tuple[int, int], order: Order
) -> np.ndarray:
    """The pixels in any object, bool [H, W]; one pass over the image, however many there are."""
    layout = _layout(order)
    steps = np.zeros(shape[0] * shape[1] + 1, np.int32)
    for starts, ends in objects:
        steps[starts - 1] += 1
        steps[ends - 1] -= 1
    return (np.cumsum(steps[:-1], dtype=np.int32) > 0).reshape(shape, order=layout)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoded:
    """The run lengths of one image.

    Attributes:
        id: The image's, without an extension.
        runs: One row of pairs an object.
        order: The order in which the table counts pixels.
        shape: (H, W) where the table has it.
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
            ValueError: If the table has another shape, or a row cannot be read.
        """
        if self.shape not in (None, shape):
            raise ValueError(f"{self.where}: {self.id} is {self.shape}, the mask is {shape}.")
        try:
            return _inside((_ends(runs, shape) for runs in self.runs), shape, self.order)
        except ValueError as error:
            raise ValueError(f"{self.where}: {self.id}: {error}") from error

    def labels(self, shape: tuple[int, int]) -> np.ndarray:
        """Each object by its number, int32 [H, W], from 1 in the order of the rows; 0 elsewhere.

        Raises:
            ValueError: As `mask`, and if a pixel is in two objects.
        """
        self.mask(shape)
        numbers = np.zeros(shape[0] * shape[1], np.int32)
        for number, runs in enumerate(self.runs, start=1):
            for first, end in zip(*_ends(runs, shape), strict=True):
                part = numbers[first - 1 : end - 1]
                if part.any():
                    raise ValueError(
                        f"{self.where}: {self.id}: objects {part[part > 0][0]} and {number} share "
                        "pixels."
                    )
                part[:] = number
        return numbers.reshape(shape, order=_layout(self.order))


def read_stage1(
    source: trees.Tree | str | os.PathLike[str], *, name: str = "stage1_solution.csv"
) -> Iterator[Encoded]:
    """Reads a table of the Data Science Bowl 2018: a row an object, down the columns.

    Args:
        source: The table, a zip that holds it, or a tree with either in it.
        name: Of the table: `stage1_solution.csv`, with heights and widths, or
            `stage1_train_labels.csv`, without.

    Yields:
        Each image with all of its objects.

    Raises:
        ValueError: If it is no such table, the rows of an image are not consecutive, or a line,
            an image or the table is larger than any real one.
        ArchiveError: If it is missing or damaged.
    """
    rows = _rows(source, name, ("ImageId", "EncodedPixels"), optional=("Height", "Width"))
    seen = set[str]()
    for key, group in itertools.groupby(rows, key=lambda row: row.values[0]):
        first, objects = _merged(group)
        if key in seen:
            raise ValueError(f"{first.where}: the rows of {key} do not stand together. Sort them.")
        seen.add(key)
        if len(seen) > _MOST_IMAGES:
            raise ValueError(
                f"{first.where}: more than {_MOST_IMAGES:,} images. Do not trust this file."
            )
        height, width = first.values[2:]
        yield Encoded(
            id=key,
            runs=objects,
            order="columns",
            shape=(_whole(height, first), _whole(width, first)) if height and width else None,
            where=first.where,
        )


def read_train_masks(
    source: trees.Tree | str | os.PathLike[str], *, name: str = "train_masks.csv"
) -> Iterator[Encoded]:
    """Reads a table of Carvana: a row an image, along the rows.

    Arguments, results and errors are as in `read_stage1`.
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
    source: trees.Tree | str | os.PathLike[str],
    name: str,
    columns: tuple[str, ...],
    *,
    optional: tuple[str, ...] = (),
) -> Iterator[_Row]:
    """The wanted columns of each row, "" for an optional one that is missing."""
    label, lines = _lines(source, name)
    first = next(lines, "")
    if (found := first.count(",") + 1) > _MOST_COLUMNS:
        raise ValueError(
            f"{label}: its first line has {found:,} columns, more than the {_MOST_COLUMNS} of any "
            "table of run lengths. Download it again."
        )
    header = _fields(first)
    if missing := [column for column in columns if column not in header]:
        raise ValueError(
            f"{label}: there is no column {missing[0]!r}; it begins with {','.join(header)[:80]!r}."
        )
    places = [header.index(c) if c in header else None for c in (*columns, *optional)]
    for number, line in enumerate(lines, start=2):
        if not line.strip(string.whitespace):
            continue
        where = f"{label}, line {number}"
        if (found := line.count(",") + 1) != len(header):
            raise ValueError(
                f"{where}: {found:,} fields, the first line has {len(header)}. "
                "The file is cut or damaged; download it again."
            )
        fields = _fields(line)
        values = tuple("" if place is None else fields[place] for place in places)
        if len(values[0]) > _LONGEST_ID:
            raise ValueError(
                f"{where}: {values[0][:40]!r}… has {len(values[0]):,} characters; names of images "
                f"have up to {_LONGEST_ID}."
            )
        yield _Row(where, values)


def _fields(line: str) -> list[str]:
    # No field holds a comma.
    return [field.strip(string.whitespace).strip('"') for field in line.split(",")]


def _merged(rows: Iterator[_Row]) -> tuple[_Row, tuple[str, ...]]:
    """The first row of an image, and the runs of all of its objects."""
    first = next(rows)
    found: list[str] = []
    room = _LONGEST_IMAGE
    for row in itertools.chain([first], rows):
        found.append(row.values[1])
        room -= len(found[-1])
        if len(found) > masks.MOST_OBJECTS or room < 0:
            raise ValueError(
                f"{row.where}: {row.values[0]} has more than {masks.MOST_OBJECTS:,} objects, or "
                f"more than {_LONGEST_IMAGE:,} characters of runs. Do not trust this file."
            )
    return first, tuple(found)


def _lines(source: trees.Tree | str | os.PathLike[str], name: str) -> tuple[str, Iterator[str]]:
    """A label for messages, and the lines."""
    if not isinstance(source, trees.Tree):
        path = pathlib.Path(source)
        if path.is_file() and path.suffix.lower() != ".zip":
            tree = trees.Tree(str(path), {path.name: path})
            return str(path), _split(tree.chunks(path.name), str(path))
        source = trees.open(path)
    outermost = source.label
    for _ in range(trees.DEEPEST):
        for member in source.names:
            match member.rpartition("/")[2]:
                case found if found == name:
                    label = f"{source.label}: {member}"
                    return label, _split(source.chunks(member), label)
                case found if found == f"{name}.zip":
                    source = source.sub(member)
                    break
        else:
            raise archives.ArchiveError(f"{source.label}: there is no {name} in it.")
    raise archives.ArchiveError(
        f"{outermost}: {name}.zip lies in itself more than {trees.DEEPEST} times. "
        "Do not trust this file; download it from its source."
    )


def _split(chunks: Iterable[bytes], label: str) -> Iterator[str]:
    rest = ""
    try:
        for text in codecs.iterdecode(chunks, "utf-8-sig"):
            lines = (rest + text).split("\n")
            if max(map(len, lines)) > _LONGEST_LINE:
                raise ValueError(
                    f"{label}: a line of over {_LONGEST_LINE:,} characters is no row of a table. "
                    "Download it again."
                )
            *lines, rest = lines
            yield from lines
    except UnicodeDecodeError as error:
        raise ValueError(f"{label} is no text in UTF-8: {error}. Download it again.") from error
    if rest:
        yield rest


def _numbers(runs: str) -> np.ndarray:
    if re.search(r"[^0-9\s]|[0-9]{19}", runs, re.ASCII):
        words = (found[0] for found in re.finditer(r"\S+", runs, re.ASCII))
        wrong = next(word for word in words if not re.fullmatch("[0-9]{1,18}", word))
        raise ValueError(f"{wrong[:40]!r} is no start or length; both are whole numbers from 1.")
    # Without a string for each number: a tenth of the memory.
    numbers = np.fromstring(runs.strip(string.whitespace), np.int64, sep=" ")
    if len(numbers) % 2:
        raise ValueError(
            f"{len(numbers)} numbers, the last of them {numbers[-1]}; runs are pairs, start and "
            "length."
        )
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
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError(f"{row.where}: {text[:40]!r} is no height or width in pixels.")
    return int(text)


def _layout(order: Order) -> Literal["F", "C"]:
    if order not in _LAYOUT:
        raise ValueError(f"order={order!r}: it is 'columns' (DSB2018) or 'rows' (Carvana).")
    return _LAYOUT[order]

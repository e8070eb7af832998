"""Raw archives as collections of examples, with the faults of those that cannot be listed.

Where a builder refuses an archive because one file is missing, this lists the rest. Here are the
few lines that each source needs; its format is known to `segdata.sources` alone.
"""

import functools
import os
import pathlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from segdata import archives
from segdata.archives import rle, trees
from segdata.inspection.examples import Collection, Pending
from segdata.kaggle import downloads
from segdata.sources import Example, carvana, cityscapes_pairs, dsb2018

Find = Callable[[str], trees.Tree | None]
"""Finds one of a source's archives or folders by its name."""


class _Part(NamedTuple):
    """One of a source's folders, listed."""

    split: str
    tree: trees.Tree
    listing: tuple[Sequence[Any], Mapping[str, str]]
    """Entries, and id or file name to fault."""
    read: Callable[[Any], Example]
    """Reads an entry."""


def collection(name: str, *, manual_dir: str | os.PathLike[str]) -> Collection:
    """The examples of a raw archive or folder, as Kaggle ships it.

    Args:
        name: A source, such as `dsb2018`; `cityscapes_pairs/classes` labels all classes.
        manual_dir: The folder that holds the archive, or a folder of that name.

    Raises:
        ValueError: If there is no such source.
        ArchiveError: If the archive is missing or cannot be listed.
    """
    if name not in _SOURCES:
        raise ValueError(f"there is no raw source {name!r}; there are {', '.join(_SOURCES)}.")
    source = _SOURCES[name]
    plain = name.partition("/")[0]
    folder = pathlib.Path(manual_dir)
    parts = list(source.parts(lambda part: downloads.find(plain, part, folder=folder)))
    if not parts:
        raise archives.ArchiveError(
            f"{manual_dir}: there is no archive of {plain} in it. `segdata draw {plain} --to "
            f"{shlex.quote(str(manual_dir))}` synthesizes a small one; Kaggle has the real one."
        )

    def stream() -> Iterator[Pending]:
        for split, tree, (entries, _), read in parts:
            for entry in entries:
                yield Pending(
                    split=split,
                    id=entry.id,
                    read=functools.partial(read, entry),
                    original=functools.partial(tree.read, entry.image),
                )

    return Collection(
        name=f"{name}, raw",
        place=str(folder),
        classes=source.classes,
        count=sum(len(part.listing[0]) for part in parts),
        stream=stream,
        faults=tuple(
            (part.split, key, text) for part in parts for key, text in part.listing[1].items()
        ),
        tables=tuple(
            functools.partial(source.read_table, place, name=table)
            for table in source.tables
            for place in _table(plain, table, folder)
        ),
    )


def _dsb2018(find: Find) -> Iterator[_Part]:
    for name, survey in (
        ("stage1_train", dsb2018.survey),
        ("stage1_test", dsb2018.survey_unlabelled),
    ):
        if tree := find(name):
            yield _Part(name, tree, survey(tree), functools.partial(dsb2018.read_example, tree))


def _carvana(find: Find) -> Iterator[_Part]:
    labels = find("train_masks")
    if labels is None:
        return
    for names in (("train_hq", "train"), ("test_hq", "test")):
        # Both hold the same photos at two qualities.
        name, tree = next(((n, tree) for n in names if (tree := find(n))), ("", None))
        if tree is None:
            continue
        labelled = name.startswith("train")
        listing = carvana.survey(tree, labels) if labelled else carvana.survey_unlabelled(tree)
        read = functools.partial(carvana.read_example, photos=tree, labels=labels)
        yield _Part(name, tree, listing, read)


def _cityscapes_pairs(
    find: Find, *, label: Callable[[np.ndarray], np.ndarray] = cityscapes_pairs.road
) -> Iterator[_Part]:
    tree = find(cityscapes_pairs.FOLDER)
    if tree is None:
        return
    entries, faults = cityscapes_pairs.survey(tree)
    read = functools.partial(cityscapes_pairs.read_example, tree, label=label)
    yield _Part(cityscapes_pairs.FOLDER, tree, ([], faults), read)
    for split in ("train", "val"):
        members = [entry for entry in entries if entry.split == split]
        yield _Part(split, tree, (members, {}), read)


def _table(name: str, table: str, folder: pathlib.Path) -> Iterator[pathlib.Path | trees.Tree]:
    """The first place where a table of a source is, if any."""
    for place in (folder / name, folder):
        for path in (place / table, place / f"{table}.zip"):
            if path.is_file():
                yield path
                return
        for outer in downloads.SOURCES[name].wholes:
            tree = trees.find(place, outer)
            if tree and any(inner.endswith((table, f"{table}.zip")) for inner in tree.names):
                yield tree
                return


class _Source(NamedTuple):
    classes: tuple[str, ...]
    parts: Callable[[Find], Iterator[_Part]]
    tables: tuple[str, ...] = ()
    read_table: Callable[..., Iterator[rle.Encoded]] = rle.read_stage1


_SOURCES = {
    "carvana": _Source(("background", "car"), _carvana, ("train_masks.csv",), rle.read_train_masks),
    "cityscapes_pairs": _Source(("other", "road"), _cityscapes_pairs),
    "cityscapes_pairs/classes": _Source(
        cityscapes_pairs.CLASSES,
        functools.partial(_cityscapes_pairs, label=cityscapes_pairs.classes),
    ),
    "dsb2018": _Source(
        ("background", "nucleus"), _dsb2018, ("stage1_train_labels.csv", "stage1_solution.csv")
    ),
}

"""Raw archives as collections of examples: what is in them, read or not, and what is wrong.

Where a builder refuses an archive for one file that is missing, this lists the rest. The few lines
that a source needs stand here; its format is known to `segdata.sources` alone.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from segdata import archives, rle
from segdata.examples import Collection, Pending
from segdata.sources import carvana, cityscapes_pairs, dsb2018


def collection(name: str, *, manual_dir: str | os.PathLike[str]) -> Collection:
    """The examples of a raw archive or folder, as Kaggle ships it.

    Args:
        name: Which source, such as `dsb2018`.
        manual_dir: The folder that holds the archive, or its folder of that name.

    Raises:
        ValueError: If there is no such source.
        ArchiveError: If the archive is not there or cannot be listed.
    """
    if name not in _SOURCES:
        raise ValueError(f"there is no raw source {name!r}; there are {', '.join(_SOURCES)}.")
    for folder in (pathlib.Path(manual_dir), pathlib.Path(manual_dir, name)):
        if found := _SOURCES[name](folder):
            return found
    raise archives.ArchiveError(
        f"{manual_dir}: there is no archive of {name} in it. `segdata draw {name} --to "
        f"{manual_dir}` draws a small one; Kaggle has the real one."
    )


def _dsb2018(folder: pathlib.Path) -> Collection | None:
    whole = ["data-science-bowl-2018"]
    parts = {
        name: tree
        for name in ("stage1_train", "stage1_test")
        if (tree := archives.find(folder, name, within=whole))
    }
    if not parts:
        return None
    listed = {part: dsb2018.survey(tree) for part, tree in parts.items()}
    faults = list(_faults(listed))
    entries = {
        part: [entry for entry in listed[part][0] if entry.masks or part != "stage1_train"]
        for part in listed
    }
    faults += [
        ("stage1_train", entry.id, "an image and no masks; an unpacking was cut short")
        for entry in listed.get("stage1_train", ((), ()))[0]
        if not entry.masks
    ]

    def stream() -> Iterator[Pending]:
        for part, members in entries.items():
            tree = parts[part]
            for entry in members:
                yield Pending(
                    split=part,
                    id=entry.id,
                    read=functools.partial(dsb2018.read_example, tree, entry),
                    original=functools.partial(tree.read, entry.image),
                )

    return Collection(
        name="dsb2018, raw",
        place=str(folder),
        classes=("background", "nucleus"),
        count=sum(map(len, entries.values())),
        stream=stream,
        faults=tuple(faults),
        tables=tuple(
            functools.partial(rle.read_stage1, path, name=name)
            for name in ("stage1_train_labels.csv", "stage1_solution.csv")
            for path in _tables(folder, name, whole)
        ),
    )


def _carvana(folder: pathlib.Path) -> Collection | None:
    whole = [carvana.COMPETITION]
    parts: dict[str, archives.Tree] = {}
    for names in (("train_hq", "train"), ("test_hq", "test")):
        for name in names:  # both hold the same photos, in two qualities
            if tree := archives.find(folder, name, within=whole):
                parts[name] = tree
                break
    labels = archives.find(folder, "train_masks", within=whole)
    if not parts or labels is None:
        return None
    listed = {
        part: carvana.survey(tree, labels)
        if part.startswith("train")
        else (carvana.unlabelled_entries(tree), {})
        for part, tree in parts.items()
    }

    def stream() -> Iterator[Pending]:
        for part, (members, _) in listed.items():
            photos = parts[part]
            for entry in members:
                yield Pending(
                    split=part,
                    id=entry.id,
                    read=functools.partial(
                        carvana.read_example, entry, photos=photos, labels=labels
                    ),
                    original=functools.partial(photos.read, entry.image),
                )

    return Collection(
        name="carvana, raw",
        place=str(folder),
        classes=("background", "car"),
        count=sum(len(members) for members, _ in listed.values()),
        stream=stream,
        faults=_faults(listed),
        tables=tuple(
            functools.partial(rle.read_train_masks, path)
            for path in _tables(folder, "train_masks.csv", whole)
        ),
    )


def _cityscapes_pairs(folder: pathlib.Path) -> Collection | None:
    tree = archives.find(folder, cityscapes_pairs.FOLDER, within=cityscapes_pairs.DOWNLOADS)
    if tree is None:
        return None
    members, faults = cityscapes_pairs.survey(tree)

    def stream() -> Iterator[Pending]:
        for entry in members:
            yield Pending(
                split=entry.split,
                id=entry.id,
                read=functools.partial(cityscapes_pairs.read_example, tree, entry),
                original=functools.partial(tree.read, entry.image),
            )

    return Collection(
        name="cityscapes_pairs, raw",
        place=str(folder),
        classes=("other", "road"),
        count=len(members),
        stream=stream,
        faults=_faults({cityscapes_pairs.FOLDER: (members, faults)}),
    )


def _faults(
    listed: Mapping[str, tuple[Sequence[object], Mapping[str, str]]],
) -> tuple[tuple[str, str, str], ...]:
    return tuple((part, key, text) for part in listed for key, text in listed[part][1].items())


def _tables(
    folder: pathlib.Path, name: str, within: Iterable[str]
) -> Iterator[pathlib.Path | archives.Tree]:
    """The first place where a table lies, if there is any."""
    for path in (folder / name, folder / f"{name}.zip"):
        if path.is_file():
            yield path
            return
    for outer in within:
        tree = archives.find(folder, outer)
        if tree and any(n.endswith((name, f"{name}.zip")) for n in tree.names):
            yield tree
            return


_SOURCES: Mapping[str, Callable[[pathlib.Path], Collection | None]] = {
    "carvana": _carvana,
    "cityscapes_pairs": _cityscapes_pairs,
    "dsb2018": _dsb2018,
}
"""How each raw source is found in a folder."""

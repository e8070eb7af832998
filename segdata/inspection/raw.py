"""Raw archives as collections of examples, with the faults of those that cannot be listed.

Where a builder refuses an archive because one file is missing, this lists the rest.
"""

import functools
import os
import pathlib
import shlex
from collections.abc import Iterator

from segdata import archives, sources
from segdata.archives import trees
from segdata.inspection.examples import Collection, Pending
from segdata.sources import Config, Source


def collection(name: str, *, manual_dir: str | os.PathLike[str]) -> Collection:
    """The examples of a raw archive or folder, as Kaggle ships it.

    Args:
        name: A source, such as `dsb2018`; `cityscapes_pairs/classes` labels all classes.
        manual_dir: The folder that holds the archive, or a folder of that name.

    Raises:
        ValueError: If there is no such source.
        ArchiveError: If the archive is missing or cannot be listed.
    """
    base = name.partition("/")[0]
    if base not in sources.names():
        known = ", ".join(sources.names())
        raise ValueError(f"there is no raw source {name!r}; there are {known}.")
    source = sources.named(base)
    known = _choices(source)
    if name not in known:
        raise ValueError(f"there is no raw source {name!r}; of it there are {', '.join(known)}.")
    config = known[name]
    folder = pathlib.Path(manual_dir)
    parts = list(source.list(functools.partial(source.find, folder=folder), config))
    if not parts:
        place = shlex.quote(str(manual_dir))
        drawn = f"`segdata draw {source.name} --to {place}` synthesizes a small one; "
        raise archives.ArchiveError(
            f"{manual_dir}: there is no archive of {source.name} in it. "
            f"{drawn if source.draw else ''}{'Kaggle' if source.kaggle else source.homepage} has "
            "the real one."
        )

    def stream() -> Iterator[Pending]:
        for part in parts:
            for entry in part.entries:
                yield Pending(
                    split=part.name,
                    id=entry.id,
                    read=functools.partial(part.read, entry),
                    original=functools.partial(part.tree.read, entry.image),
                )

    return Collection(
        name=f"{name}, raw",
        place=str(folder),
        classes=config.classes,
        count=sum(len(part.entries) for part in parts),
        stream=stream,
        faults=tuple((part.name, key, text) for part in parts for key, text in part.faults.items()),
        tables=tuple(
            functools.partial(read, place, name=table)
            for table, read in source.tables.items()
            for place in _table(source, table, folder)
        ),
    )


def _choices(source: Source) -> dict[str, Config]:
    """What can be listed of a source: with the classes of the first config, and with others'."""
    first, *others = source.configs
    more = {f"{source.name}/{config.name}": config for config in others}
    return {source.name: first} | {
        name: config for name, config in more.items() if config.classes != first.classes
    }


def _table(source: Source, table: str, folder: pathlib.Path) -> Iterator[pathlib.Path | trees.Tree]:
    """The first place where a table of a source is, if any."""
    for place in (folder / source.name, folder):
        for path in (place / table, place / f"{table}.zip"):
            if path.is_file():
                yield path
                return
        for outer in source.wholes:
            tree = trees.find(place, outer)
            if tree and any(inner.endswith((table, f"{table}.zip")) for inner in tree.names):
                yield tree
                return

"""What is packed beside built datasets: listed, verified, removed.

NumPy and the file system alone; what a record holds is known to `core.records`.
"""

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterator

from segdata.core import records
from segdata.core.system import files

_DEEPEST = 3  # a dataset's files lie in NAME/CONFIG/VERSION
_OWN = re.compile(r"(?P<stem>.+?)(-[0-9a-f]{8})?[.](tfrecord|means|index|instances|json)([.]part)?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packed:
    """The files of one name in a folder `packed/`.

    Attributes:
        manifest: Its manifest, which may be missing; a folder that cannot be read.
        dataset: Name, configuration and version, as the folders say.
        count: How many records there are; 0 where that is not known.
        bytes: Of all its files.
        state: "current"; "stale", if the dataset was built again since; "unfinished", without a
            manifest; "damaged", with one that cannot be read; "being packed"; or "unreadable", if
            it is not known what the folder holds.
    """

    manifest: pathlib.Path
    dataset: str
    count: int
    bytes: int
    state: str

    @property
    def name(self) -> str:
        """For lists: the dataset, and what was packed of it."""
        return (
            self.dataset if self.state == "unreadable" else f"{self.dataset}/{self.manifest.stem}"
        )

    @property
    def is_in_use(self) -> bool:
        """Whether a process reads or writes its files."""
        return any(files.in_use(path) for path in records.leftovers(self.manifest))


def default_data_dir() -> pathlib.Path:
    """Where TFDS keeps datasets unless it is told."""
    return pathlib.Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


def found(data_dir: str | os.PathLike[str], *, name: str = "") -> list[Packed]:
    """All that is packed of the datasets of a folder, or of one of them.

    Args:
        data_dir: Where they were built.
        name: A dataset, with a config where wanted, or `folder:NAME`; all where empty.

    Raises:
        ValueError: If there is no such folder, or no such dataset in it.
    """
    place, name = pathlib.Path(data_dir), name.removeprefix("folder:")
    if not (place / name).is_dir():
        raise ValueError(f"{place / name}: there is no such folder; no dataset is built there.")
    found = []
    for folder in _folders(place / name, depth=len(pathlib.Path(name).parts)):
        try:
            found += _in(folder, dataset=str(folder.parent.relative_to(place)))
        except OSError:
            what = str(folder.relative_to(place))
            found.append(
                Packed(manifest=folder, dataset=what, count=0, bytes=0, state="unreadable")
            )
    return found


def remove(packed: Packed) -> bool:
    """Removes its files, unless a process uses them; returns whether they are gone.

    Where the folder may not be written to, they stay.
    """
    try:
        with files.locked(packed.manifest.with_suffix(".lock")):
            if packed.is_in_use:
                return False
            packed.manifest.unlink(missing_ok=True)
            packed.manifest.with_suffix(".json.part").unlink(missing_ok=True)
            records.remove_unused(packed.manifest)
            return not records.leftovers(packed.manifest)
    except OSError:  # it is held, or the folder is read-only
        return False


def _folders(folder: pathlib.Path, *, depth: int) -> Iterator[pathlib.Path]:
    """The folders `packed` of datasets, and those that cannot be read.

    Args:
        folder: Where datasets were built, or a part of it.
        depth: How many folders lead from there to this one: name, configuration and version.
    """
    try:
        with os.scandir(folder) as entries:
            inner = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:
        yield folder
        return
    for name in inner:
        if depth and name == "packed":
            yield folder / name
        elif depth < _DEEPEST and (depth or name.isidentifier()):  # no `lost+found`
            yield from _folders(folder / name, depth=depth + 1)


def _in(folder: pathlib.Path, *, dataset: str) -> list[Packed]:
    sizes = collections.Counter[str]()
    for path in folder.iterdir():
        match = _OWN.fullmatch(path.name)
        if match and not files.is_unfinished(path.name):
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                sizes[match["stem"]] += path.lstat().st_size
    found = []
    for stem, size in sorted(sizes.items()):
        manifest = folder / f"{stem}.json"
        count, state = _state(manifest)
        found.append(
            Packed(manifest=manifest, dataset=dataset, count=count, bytes=size, state=state)
        )
    return found


def _state(manifest: pathlib.Path) -> tuple[int, str]:
    if files.in_use(manifest.with_suffix(".lock")):
        return 0, "being packed"
    if not manifest.is_file():
        return 0, "unfinished"
    try:
        noted = json.loads(manifest.read_text())
        is_current = all(
            stamp(manifest.parent.parent / name) == noted_
            for name, noted_ in noted["files"].items()
        )
        is_current = is_current and noted["format"] == records.FORMAT
        return int(noted["count"]), "current" if is_current else "stale"
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return 0, "damaged"
    except (ArithmeticError, RecursionError):  # an infinite count; brackets without end
        return 0, "damaged"


def stamp(path: pathlib.Path) -> list[int] | None:
    """Size and time of a dataset's file, which change when it is built again; None of none."""
    return [path.stat().st_size, path.stat().st_mtime_ns] if path.exists() else None

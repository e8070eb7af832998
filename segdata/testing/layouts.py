"""Synthetic files written to disk in the layouts of real downloads.

Each function takes the folder, the names of the archives without ".zip", and the files: the name of
the archive, the name in it, the bytes. None overwrites a file.
"""

import contextlib
import os
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence

from segdata.core.system import files

File = tuple[str, str, bytes]
Writer = Callable[[str | os.PathLike[str], Sequence[str], Iterable[File]], None]


def folders(folder: str | os.PathLike[str], archives: Sequence[str], drawn: Iterable[File]) -> None:
    """The layout after unpacking: a folder for each archive.

    Raises:
        FileExistsError: If a folder or a zip of that name is there.
    """
    folder = _empty(folder, archives)
    for archive, name, data in drawn:
        path = folder / archive / name.removeprefix(f"{archive}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def zips(folder: str | os.PathLike[str], archives: Sequence[str], drawn: Iterable[File]) -> None:
    """The layout of single downloads: a zip for each archive.

    Raises:
        FileExistsError: If a folder or a zip of that name is there.
    """
    folder = _empty(folder, archives)
    with contextlib.ExitStack() as stack:
        packed = {
            archive: stack.enter_context(_written(folder / f"{archive}.zip"))
            for archive in archives
        }
        for archive, name, data in drawn:
            packed[archive].writestr(zipfile.ZipInfo(name), data)  # dated 1980, always


def zip_of_zips(
    folder: str | os.PathLike[str], archives: Sequence[str], drawn: Iterable[File], *, name: str
) -> None:
    """The layout of one download: one zip, `name`.zip, that holds a zip for each archive.

    Raises:
        FileExistsError: If a folder or a zip of that name, or of an archive's, is there.
    """
    folder = _empty(folder, [name, *archives])
    with tempfile.TemporaryDirectory(dir=folder) as apart:
        zips(apart, archives, drawn)
        with _written(folder / f"{name}.zip") as outer:
            for archive in archives:
                inner = zipfile.ZipInfo(f"{archive}.zip")
                with (
                    pathlib.Path(apart, inner.filename).open("rb") as source,
                    outer.open(inner, "w", force_zip64=True) as copy,
                ):
                    shutil.copyfileobj(source, copy, 1 << 20)


@contextlib.contextmanager
def _written(path: pathlib.Path) -> Iterator[zipfile.ZipFile]:
    """A new zip, which gets its name when it is complete."""
    with files.replacing(path) as unfinished, zipfile.ZipFile(unfinished, "w") as packed:
        yield packed


def _empty(folder: str | os.PathLike[str], archives: Sequence[str]) -> pathlib.Path:
    folder = pathlib.Path(folder)
    for path in (folder / name for archive in archives for name in (archive, f"{archive}.zip")):
        if path.exists():
            raise FileExistsError(f"{path} exists; name another folder or remove it.")
    files.make_folder(folder)
    return folder

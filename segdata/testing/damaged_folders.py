"""What happens to folders that a zip was unpacked to: a zip of a drawn source becomes one.

A change takes the zip and the name of one of its members, and returns what a message about the
damage must name.
"""

import os
import pathlib
import shutil
import zipfile
from collections.abc import Callable

Change = Callable[[pathlib.Path, str], str]


def unpacked(change: Callable[[pathlib.Path], object]) -> Change:
    """As a folder, with something done to one of the files."""

    def inflict(path: pathlib.Path, victim: str) -> str:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(path.with_suffix(""))
        path.unlink()
        change(path.with_suffix("") / victim)
        return victim

    return inflict


def unpacked_bare(path: pathlib.Path, victim: str) -> str:
    """As the folders in the folder that is in it."""
    unpacked(lambda _: None)(path, victim)
    (top,) = path.with_suffix("").iterdir()
    for folder in top.iterdir():
        folder.rename(path.with_name(folder.name))
    shutil.rmtree(path.with_suffix(""))
    return path.name


def half_unpacked(path: pathlib.Path, victim: str) -> str:
    """A folder that lacks a file, beside the zip."""
    with zipfile.ZipFile(path) as archive:
        archive.extractall(path.with_suffix(""))
    (path.with_suffix("") / victim).unlink()
    return path.name


def linked(file: pathlib.Path) -> None:
    """A file is a link to where it really lies."""
    real = file.rename(file.with_name(f".{file.name}"))
    file.symlink_to(real.name)


def folder_linked(file: pathlib.Path) -> None:
    """The folder of a file is a link to where it really lies."""
    real = file.parent.rename(file.parent.with_name(".elsewhere"))
    file.parent.symlink_to(real.name)


def dangling(file: pathlib.Path) -> None:
    """A file is a link to nothing."""
    file.unlink()
    file.symlink_to("nothing")


def linked_to_itself(file: pathlib.Path) -> None:
    """A file is a link to itself."""
    file.unlink()
    file.symlink_to(file.name)


def linked_upwards(file: pathlib.Path) -> None:
    """Beside a file is a link to the folder that it is in."""
    (file.parent / "again").symlink_to("..")


def pipe(file: pathlib.Path) -> None:
    """A file is a pipe that nobody writes to."""
    file.unlink()
    os.mkfifo(file)


def folder_instead(file: pathlib.Path) -> None:
    """A file is an empty folder."""
    file.unlink()
    file.mkdir()


def forbidden(file: pathlib.Path) -> None:
    """Nobody may read a file, the administrator excepted."""
    file.chmod(0)


def enormous(file: pathlib.Path) -> None:
    """A file is 8 GB of nothing."""
    os.truncate(file, 1 << 33)

"""Damage to folders of unpacked zips: each change turns a zip of a synthetic source into one.

A change takes the zip and the name of one of its members, and returns the name that messages about
the damage must have.
"""

import os
import pathlib
import shutil
import zipfile
from collections.abc import Callable

Change = Callable[[pathlib.Path, str], str]


def unpacked(change: Callable[[pathlib.Path], object]) -> Change:
    """Unpacks the zip and changes one of the files."""

    def inflict(path: pathlib.Path, victim: str) -> str:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(path.with_suffix(""))
        path.unlink()
        change(path.with_suffix("") / victim)
        return victim

    return inflict


def unpacked_bare(path: pathlib.Path, victim: str) -> str:
    """Unpacks the folders in its top folder, without the top folder."""
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
    """A file is a link to a file."""
    real = file.rename(file.with_name(f".{file.name}"))
    file.symlink_to(real.name)


def folder_linked(file: pathlib.Path) -> None:
    """The folder of a file is a link to a folder."""
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
    """A file is a pipe without a writer."""
    file.unlink()
    os.mkfifo(file)


def folder_instead(file: pathlib.Path) -> None:
    """A file is an empty folder."""
    file.unlink()
    file.mkdir()


def forbidden(file: pathlib.Path) -> None:
    """Only root may read a file."""
    file.chmod(0)


def enormous(file: pathlib.Path) -> None:
    """A file is 8 GB of zeros."""
    os.truncate(file, 1 << 33)

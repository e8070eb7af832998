"""Folders that TFDS builds in, until they are whole and have their name: whose they are.

A build that is killed leaves one behind. A folder is held by a lock that dies with its process, so
what nobody holds can go.
"""

import fcntl
import os
import pathlib
import shutil
import weakref

from tensorflow_datasets.core import constants


def claim(folder: str | os.PathLike[str], *, owner: object) -> None:
    """Holds a folder for as long as its owner lives, and removes those beside it that nobody holds.

    On a file system without locks nothing is held, and nothing is removed.

    Args:
        folder: The unfinished folder, such as `incomplete.4D8K1Z_1.0.0`.
        owner: An object of this process.
    """
    folder = pathlib.Path(folder)
    held = None
    while held is None or not folder.exists():
        folder.mkdir(exist_ok=True)  # until it is held, another build may take it for a leftover
        if (held := _opened(folder)) is not None:
            weakref.finalize(owner, os.close, held)
            _locks(held, fcntl.LOCK_EX)
    version = folder.name.rpartition("_")[2]
    for other in folder.parent.glob(f"{constants.INCOMPLETE_PREFIX}*_{version}"):
        if (free := _opened(other)) is not None:
            if _locks(free, fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(other)
            os.close(free)


def _opened(folder: pathlib.Path) -> int | None:
    """A descriptor of the folder; None if it is gone."""
    try:
        return os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None


def _locks(descriptor: int, how: int) -> bool:
    """Whether the lock could be had."""
    try:
        fcntl.flock(descriptor, how)
    except OSError:  # somebody has it, or the file system has none
        return False
    return True

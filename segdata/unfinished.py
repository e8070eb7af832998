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

    Args:
        folder: The unfinished folder, such as `incomplete.4D8K1Z_1.0.0`.
        owner: An object of this process.
    """
    folder = pathlib.Path(folder)
    while (held := _locked(folder, fcntl.LOCK_EX)) is None or not folder.exists():
        folder.mkdir(exist_ok=True)  # before it was held, another build took it for a leftover
    weakref.finalize(owner, os.close, held)
    version = folder.name.rpartition("_")[2]
    for other in folder.parent.glob(f"{constants.INCOMPLETE_PREFIX}*_{version}"):
        if (free := _locked(other, fcntl.LOCK_EX | fcntl.LOCK_NB)) is not None:
            shutil.rmtree(other)
            os.close(free)


def _locked(folder: pathlib.Path, how: int) -> int | None:
    """An open descriptor of the folder with a lock; None if it is gone or held."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor

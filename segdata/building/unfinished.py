"""Builds of a dataset: one at a time, and atomic.

TFDS builds in a folder such as `incomplete.4D8K1Z_1.0.0`, beside the one that it becomes. A build
that is killed leaves that behind, for the next one to remove.
"""

import contextlib
import errno
import os
import pathlib
import shutil
import stat
from collections.abc import Callable, Iterator

from segdata.building import internals
from segdata.core.system import files

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def alone(folder: str | os.PathLike[str], *, waiting: Callable[[str], object]) -> Iterator[None]:
    """Locks a dataset for one build, and removes what killed builds of it left.

    Where locks are not supported, nothing waits and nothing is removed.

    Args:
        folder: The dataset's, which need not exist; its parent is made.
        waiting: Called with the process that builds it, before waiting for it.
    """
    folder = pathlib.Path(folder)
    files.make_folder(folder.parent)
    with files.locked(_lock(folder), waiting=waiting) as held:
        if held:
            _restore(folder)
            for left in folder.parent.glob(f"{internals.INCOMPLETE}*_{folder.name}"):
                if _is_own_folder(left):
                    shutil.rmtree(left, ignore_errors=True)
        yield


@contextlib.contextmanager
def replaced(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Moves a dataset aside while another is built in its place; restores it after an error.

    Use it inside `alone`, which restores what a killed build moved aside.

    Raises:
        files.HeldError: If packed records of it are in use.
    """
    folder = pathlib.Path(folder)
    for path in folder.glob("packed/*"):
        if files.in_use(path):
            raise files.HeldError(
                f"{path} is in use; wait until what trains on it has ended, then build again."
            )
    folder.rename(_aside(folder))
    try:
        yield
    finally:
        _restore(folder)


def recover(dataset: str | os.PathLike[str]) -> None:
    """Restores the versions of a dataset that killed builds moved aside.

    Args:
        dataset: Its folder, of versions or of configurations with versions; it need not exist.

    Raises:
        files.HeldError: If a build that still runs has moved one aside.
    """
    for pattern in (".*.replaced", "*/.*.replaced"):
        for aside in pathlib.Path(dataset).glob(pattern):
            folder = aside.with_name(aside.name.removeprefix(".").removesuffix(".replaced"))

            def refuse(holder: str, folder: pathlib.Path = folder) -> None:
                raise files.HeldError(f"{folder} is being built anew by {holder}; wait for it.")

            if not folder.exists():
                with files.locked(_lock(folder), waiting=refuse) as held:
                    if held:
                        _restore(folder)


def _lock(folder: pathlib.Path) -> pathlib.Path:
    return folder.with_name(f".{folder.name}.lock")


def _aside(folder: pathlib.Path) -> pathlib.Path:
    return folder.with_name(f".{folder.name}.replaced")


def _restore(folder: pathlib.Path) -> None:
    """Restores a dataset that was moved aside; removes it if there is a new one."""
    aside = _aside(folder)
    if _is_own_folder(aside):
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(folder)


@contextlib.contextmanager
def explained(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Explains errors of a full disk.

    Raises:
        OSError: If the disk is full; it names the folder.
    """
    try:
        yield
    except Exception as error:
        cause = _full(error)
        if cause is None:
            raise
        raise OSError(
            f"{os.fspath(folder)} cannot be built: {cause}. Make room, or build to a larger disk "
            "with --data_dir; what was begun is removed."
        ) from error


def _full(error: Exception) -> str | None:
    """The part of an error that says that the disk is full; None for other errors."""
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno in _FULL else None
    # Writers of examples have errors of their own, with the system's message in them.
    return next((text for text in map(os.strerror, _FULL) if text in str(error)), None)


def _is_own_folder(path: pathlib.Path) -> bool:
    """Whether it is this user's and no file or link."""
    with contextlib.suppress(OSError):
        found = path.lstat()
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return False

"""Builds of a dataset: one at a time, and there whole or not at all.

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
    """Holds a dataset for one build, after removing what killed builds of it left.

    Where no lock can be had, nobody waits and nothing is removed.

    Args:
        folder: The dataset's, which need not be there; the one that holds it is made.
        waiting: Called with who builds it, before waiting for that.
    """
    folder = pathlib.Path(folder)
    files.make_folder(folder.parent)
    with files.locked(folder.with_name(f".{folder.name}.lock"), waiting=waiting) as held:
        if held:
            _restore(folder)
            for left in folder.parent.glob(f"{internals.INCOMPLETE}*_{folder.name}"):
                if _is_own_folder(left):
                    shutil.rmtree(left, ignore_errors=True)
        yield


@contextlib.contextmanager
def replaced(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Sets a dataset aside while another is built in its place; brings it back after an error.

    Use it inside of `alone`, which brings back what a killed build set aside.

    Raises:
        files.HeldError: If what was packed of it is in use.
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


def _aside(folder: pathlib.Path) -> pathlib.Path:
    return folder.with_name(f".{folder.name}.replaced")


def _restore(folder: pathlib.Path) -> None:
    """Brings back what was set aside; removes it where there is a new dataset."""
    aside = _aside(folder)
    if _is_own_folder(aside):
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(folder)


@contextlib.contextmanager
def explained(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Says of a full disk what to do about it.

    Raises:
        OSError: If writing fails because there is no room; it names the folder.
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
    """How a full disk is called in an error; None where that is not the matter."""
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno in _FULL else None
    # What writes examples has errors of its own, with the system's words in them.
    return next((text for text in map(os.strerror, _FULL) if text in str(error)), None)


def _is_own_folder(path: pathlib.Path) -> bool:
    """Whether it is this user's and no file or link."""
    with contextlib.suppress(OSError):
        found = path.lstat()
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return False

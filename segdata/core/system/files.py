"""Files that are there whole or not at all, and locks between processes.

A lock is the operating system's: it dies with its process. Where the platform or the file system
has none, nothing is locked, nobody is refused, and nothing of another process is removed. Standard
library only; what the files hold is not known here.
"""

import contextlib
import gc
import os
import pathlib
import re
import secrets
import socket
import stat
import time
import weakref
from collections.abc import Callable, Iterator

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_TURNS, _TURN = 10, 0.05  # seconds of each
_PREFIX = "unfinished-"
_UNFINISHED = re.compile(rf"{_PREFIX}[0-9a-f]{{16}}([.].*)?")


class HeldError(OSError):
    """A lock that another process holds."""


def require_writable(path: str | os.PathLike[str]) -> None:
    """Refuses a place for a file, before the work for it is done.

    Raises:
        OSError: If it is a folder, in none, or may not be written to.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it.")
    target = _target(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {target.parent}; make it first.")
    place = target if _stays(target) else target.parent
    if not os.access(place, os.W_OK):
        raise PermissionError(f"{path}: {place} may not be written to; choose another place.")


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file that a user named: there whole or not at all, unless it is no plain file.

    A link stays, and what it leads to is written. A pipe or a device such as /dev/null is written
    to where it is.
    """
    path = pathlib.Path(path)
    target = _target(path)
    if _stays(target):
        with _named(path):
            target.write_bytes(data)
        return
    with replacing(target) as unfinished:
        unfinished.write_bytes(data)


def make_folder(path: str | os.PathLike[str]) -> None:
    """Makes a folder that a user named, and those that it is in; one that is there stays.

    Raises:
        OSError: If there is a file, or it may not be made.
    """
    path = pathlib.Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(f"{path}: there is a file of that name; name a folder.") from error
    except PermissionError as error:
        raise PermissionError(
            f"{path} may not be made: {error.strerror}; choose another place."
        ) from error


def require_utf8(path: str | os.PathLike[str]) -> None:
    """Refuses a name that TensorFlow does not open.

    Raises:
        ValueError: If it is not UTF-8.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{os.fspath(path)}: its name is not UTF-8, and TensorFlow opens no such; rename it, "
            "or choose another folder."
        ) from error


def in_use(path: str | os.PathLike[str]) -> bool:
    """Whether somebody `use`s a file; False where that cannot be known."""
    if not _is_held(path):
        return False
    gc.collect()  # an owner in this process that only refers to itself does not live any more
    return _is_held(path)


def _is_held(path: str | os.PathLike[str]) -> bool:
    with contextlib.suppress(OSError):
        how = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # a pipe would wait
        descriptor = os.open(path, os.O_RDONLY | how)
        try:
            return hold(descriptor) is False
        finally:
            os.close(descriptor)
    return False


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A new file to write to, which becomes `path` at once, and only if nothing went wrong.

    The file is empty, has the ending of `path` and a name that no other process uses, and is locked
    where that is possible, so that `remove_unfinished` leaves it alone. It is gone after an error.

    Args:
        path: The final name; its folder must be there. What is there is replaced; a link is
            replaced, not followed.

    Yields:
        Where to write; open it, do not replace it.
    """
    path = pathlib.Path(path)
    unfinished, descriptor = _new_beside(path)
    try:
        if fcntl is None:  # Windows does not rename what is open
            os.close(descriptor)
        with _named(path):
            yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        if fcntl:
            os.close(descriptor)
        unfinished.unlink(missing_ok=True)
    _sync_folder(path.parent)


def remove_unfinished(folder: str | os.PathLike[str]) -> None:
    """Removes what killed processes left in a folder: files of `replacing` that nobody holds.

    What is not this user's, or may still be written to, stays.
    """
    for path in pathlib.Path(folder).glob(f"{_PREFIX}*"):
        if is_unfinished(path.name):
            remove_unused(path)


def resolved(path: str | os.PathLike[str]) -> pathlib.Path:
    """The absolute path without links; of links that lead to each other, where they begin.

    `Path.resolve` raises RuntimeError for such links before Python 3.13.
    """
    return pathlib.Path(os.path.realpath(path))


def home() -> pathlib.Path:
    """The user's home folder.

    Raises:
        OSError: If there is none, as in a container for a user without a name.
    """
    try:
        return pathlib.Path.home()
    except RuntimeError as error:
        raise OSError("there is no home folder; set HOME to a folder that you may use.") from error


def is_unfinished(name: str) -> bool:
    """Whether a file's name is one of those that `replacing` gives."""
    return _UNFINISHED.fullmatch(name) is not None


def remove_unused(path: pathlib.Path) -> None:
    """Removes a file that nobody holds or uses; leaves it where that cannot be known."""
    with contextlib.suppress(OSError):
        how = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(path, os.O_RDWR | how)
        try:
            if hold(descriptor):
                path.unlink()
        finally:
            os.close(descriptor)


def use(path: str | os.PathLike[str], *, owner: object) -> None:
    """Keeps a file from `remove_unused` for as long as its owner lives."""
    if fcntl:
        descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(owner, os.close, descriptor)
        for _ in range(_TURNS):  # who removes it just now is soon done; others are not waited for
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return
            time.sleep(_TURN)


@contextlib.contextmanager
def locked(
    path: str | os.PathLike[str], *, waiting: Callable[[str], object] | None = None
) -> Iterator[bool]:
    """Holds a lock file.

    Args:
        path: The lock file; made, and removed at the end.
        waiting: Called once with who holds it, before waiting for it. Where None, nothing waits.

    Yields:
        Whether it is held; False where no lock can be had.

    Raises:
        HeldError: If another process holds it and `waiting` is None; it says who.
    """
    path = pathlib.Path(path)
    if fcntl is None:
        yield False
        return
    while True:
        descriptor = _lock_file(path)
        try:
            got = hold(descriptor)
            if got is False:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
                holder = holder or "another process"
                if waiting is None:
                    raise HeldError(f"{path.parent} is in use by {holder}.")
                waiting(holder)
                waiting = _nothing
                got = hold(descriptor, wait=True)
            if got and not _is_at(descriptor, path):
                continue  # whoever held it has removed it: it locks nobody out
            with contextlib.suppress(OSError):  # a full disk; another user's file
                os.truncate(descriptor, 0)
                os.pwrite(
                    descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0
                )
            owner = os.getpid()
            try:
                yield bool(got)
            finally:
                if os.getpid() == owner:  # a fork of it may end first
                    with contextlib.suppress(OSError):
                        path.unlink()
            return
        finally:
            os.close(descriptor)


def hold(descriptor: int, *, wait: bool = False) -> bool | None:
    """Locks an open file or folder until it is closed, or its process ends.

    Returns:
        True where it is locked; False where another holds it; None where no lock can be had.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # the file system has none
        return None
    return True


def _target(path: pathlib.Path) -> pathlib.Path:
    """What a link leads to; itself where that is no plain file: /dev/stdout may have no name."""
    return resolved(path) if path.is_symlink() and not _stays(path) else path


def _stays(path: pathlib.Path) -> bool:
    """Whether it is there and no plain file."""
    return path.exists() and not path.is_file()


@contextlib.contextmanager
def _named(path: pathlib.Path) -> Iterator[None]:
    """Names the file in what the system says of a full disk, which names none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


def _new_beside(path: pathlib.Path) -> tuple[pathlib.Path, int]:
    """An empty file that nobody else knows of, and its descriptor, which holds it."""
    while True:
        new = path.with_name(f"{_PREFIX}{secrets.token_hex(8)}{path.suffix}")
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        # Before it is held, another process may take it for a leftover.
        if hold(descriptor) is not False and (fcntl is None or _is_at(descriptor, new)):
            return new, descriptor
        os.close(descriptor)


def _lock_file(path: pathlib.Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise OSError(f"{path} is no file, and a lock is wanted there. Remove it.")
    how = os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe would wait for who writes to it
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | how, 0o666)
    except PermissionError:
        with contextlib.suppress(FileNotFoundError):  # another user's locks as well
            return os.open(path, os.O_RDONLY | how)
        raise


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _sync_folder(folder: pathlib.Path) -> None:
    """Brings a new name to disk, where folders can be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _nothing(_: str) -> None:
    pass

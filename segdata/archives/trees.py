"""One read-only tree over a folder, a zip, and zips inside zips. Nothing is extracted.

A tree holds names and the places of their bytes, but no open file: it can be read by any number of
threads at once and pickled, and is never closed. No image and no dataset is known here.
"""

import bisect
import collections
import contextlib
import dataclasses
import functools
import os
import pathlib
import stat
from collections.abc import Iterator, Mapping, Sequence

from segdata.archives import ArchiveError, zips

DEEPEST = 8
"""How many zips or folders of one name are entered in each other; a zip may hold itself."""

_LARGEST = 1 << 27  # bytes; no image is as large, a bomb is
_LITTER = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "Thumbs.db", "desktop.ini"}


@dataclasses.dataclass(frozen=True)
class Tree:
    """Files by name.

    Attributes:
        label: The place of the tree, for messages.
        files: Relative posix name to the place of its bytes.
    """

    label: str
    files: Mapping[str, pathlib.Path | zips.Member] = dataclasses.field(repr=False)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The names of all files, sorted."""
        return tuple(sorted(self.files))

    def __contains__(self, name: str) -> bool:
        return name in self.files or bool(self._inside(name))

    def read(self, name: str) -> bytes:
        """A file's bytes, checked against the archive's length and checksum.

        Raises:
            ArchiveError: If there is no such file, it is damaged or cannot be read, or it is larger
                than 128 MiB.
        """
        file = self._file(name)
        size = _regular(file).st_size if isinstance(file, pathlib.Path) else file.info.file_size
        if size > _LARGEST:
            raise ArchiveError(
                f"{self.label}: {name} is {size:,} bytes, more than the {_LARGEST:,} that are read "
                "at once. It cannot be what its name says. Remove it, or download it again."
            )
        return b"".join(self.chunks(name))

    def chunks(self, name: str) -> Iterator[bytes]:
        """A file's bytes in pieces, checked on the way; only a piece at a time is in memory."""
        file = self._file(name)
        if isinstance(file, pathlib.Path):
            yield from _chunks(file)
        else:
            yield from zips.chunks(file, f"{self.label}: {name}")

    def sub(self, name: str) -> "Tree":
        """The tree inside a folder or a zip of this tree.

        Raises:
            ArchiveError: If there is no such folder or zip, or the zip is broken.
        """
        label = f"{self.label}/{name}"
        file = self.files.get(name)
        if isinstance(file, pathlib.Path):
            return _zip(zips.Span(file, 0, _regular(file).st_size), label)
        if file:
            return _zip(zips.unpacked(file, label), label)
        inside = self._inside(name)
        if not inside:
            raise ArchiveError(f"{self.label}: there is no folder or zip {name!r}.")
        start = len(name) + 1
        return Tree(label, {inner[start:]: self.files[inner] for inner in inside})

    def _file(self, name: str) -> pathlib.Path | zips.Member:
        if name not in self.files:
            raise ArchiveError(f"{self.label}: there is no file {name!r}.")
        return self.files[name]

    def _inside(self, folder: str) -> tuple[str, ...]:
        first = bisect.bisect_left(self.names, f"{folder}/")
        last = bisect.bisect_left(self.names, f"{folder}0")  # "0" follows "/"
        return self.names[first:last]


def open(path: str | os.PathLike[str]) -> Tree:  # noqa: A001 - always read as archives.open
    """The tree inside a folder or a zip file.

    Args:
        path: The folder or the file.

    Raises:
        ArchiveError: If there is nothing, or a file that is not a complete and safe zip.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        return Tree(str(path), dict(_walk(path)))
    if not path.exists():
        raise ArchiveError(f"{path}: there is no such folder or file.")
    return _zip(zips.Span(path, 0, _regular(path).st_size), str(path))


def find(
    folder: str | os.PathLike[str],
    name: str,
    *,
    within: Sequence[str] = (),
    parts: Sequence[str] = (),
) -> Tree | None:
    """Finds the tree called `name`, wherever downloading and unpacking left it.

    The order is: the folder `name`, then `name.zip`; each in `folder`, then inside the folders and
    zips of `within`. A folder inside a folder of the same name is entered.

    Args:
        folder: Where to look.
        name: Of the folder or the zip, without ".zip".
        within: Names of folders or zips that may hold it, without ".zip", such as the download of a
            whole competition.
        parts: Names of the folders in it, which may also be there without the folder around them.

    Returns:
        The tree; None if there is none.

    Raises:
        ArchiveError: If what was found is broken, or a folder lacks files of the zip beside it.
    """
    folder = pathlib.Path(folder)
    for outer in ("", *within):
        unpacked = _in_folder(folder / outer, name, parts)
        packed = _in_zip(folder / f"{outer}.zip", name, parts) if outer else None
        if unpacked and packed:
            _compare(unpacked, packed)
        if found := unpacked or packed:
            return found
    return None


def _in_folder(place: pathlib.Path, name: str, parts: Sequence[str]) -> Tree | None:
    paths = (place / name, place / f"{name}.zip")
    trees = [_innermost(open(path), name) for path in paths if path.exists()]
    if len(trees) == 2:
        _compare(*trees)
    if trees:
        return trees[0]
    if parts and all((place / part).is_dir() for part in parts):
        found = {f"{part}/{inner}": p for part in parts for inner, p in _walk(place / part)}
        return Tree(str(place), found)
    return None


def _in_zip(path: pathlib.Path, name: str, parts: Sequence[str]) -> Tree | None:
    if not path.exists():
        return None
    tree = _innermost(open(path), path.stem)
    while tree:
        if found := _child(tree, name):
            return _innermost(found, name)
        if parts and all(part in tree for part in parts):
            return tree
        tree = _unwrapped(tree)
    return None


def _compare(unpacked: Tree, packed: Tree) -> None:
    if lacking := {*packed.names} - {*unpacked.names}:
        raise ArchiveError(
            f"{unpacked.label} lacks {len(lacking):,} of the files of {packed.label}, such as "
            f"{min(lacking)}: an unpacking was cut short. Remove the folder; or the zip, if the "
            "folder is as you want it."
        )


def _regular(path: pathlib.Path) -> os.stat_result:
    """The status of a regular, readable file; opening a pipe would wait for ever."""
    with _reading(path):
        found = path.stat()
        if stat.S_ISREG(found.st_mode):
            path.open("rb").close()
            return found
    raise ArchiveError(f"{path} is no file but a folder, a pipe, a socket or a device. Remove it.")


def _chunks(path: pathlib.Path) -> Iterator[bytes]:
    _regular(path)
    with path.open("rb") as file:
        while piece := file.read(zips.CHUNK):
            yield piece


@contextlib.contextmanager
def _reading(path: str | os.PathLike[str], doing: str = "read") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArchiveError(
            f"{os.fspath(path)} cannot be {doing}: {error.strerror}. Fix its permissions, or the "
            "link that it is; or remove it."
        ) from error


def _walk(folder: str | os.PathLike[str]) -> Iterator[tuple[str, pathlib.Path]]:
    """The files of a folder by relative name.

    Links to folders are followed after all real folders, and not upwards. Of several links to one
    folder only the first is followed, by depth and name: the number of paths through folders that
    link to each other grows exponentially.
    """
    waiting = collections.deque([("", os.fspath(folder), frozenset[tuple[int, int]]())])
    linked = set[tuple[int, int]]()
    while waiting:
        prefix, place, above = waiting.popleft()
        with _reading(place, "listed"):
            found = os.stat(place)
            here = (found.st_dev, found.st_ino)
            if here in above or (here in linked and os.path.islink(place)):
                continue
            inside = sorted(os.scandir(place), key=lambda entry: entry.name)
        if os.path.islink(place):
            linked.add(here)
        above |= {here}
        for entry in inside:
            if _is_litter(entry.name):
                continue
            if not os.path.isdir(entry.path):
                yield f"{prefix}{entry.name}", pathlib.Path(entry.path)
                continue
            add = waiting.append if entry.is_symlink() else waiting.appendleft
            add((f"{prefix}{entry.name}/", entry.path, above))


def _zip(span: zips.Span, label: str) -> Tree:
    files: dict[str, pathlib.Path | zips.Member] = {}
    for name, member in zips.members(span, label):
        if any(map(_is_litter, name.split("/"))):
            continue
        if name in files:
            raise ArchiveError(f"{label}: {name!r} is in it twice. Pack it again with one of them.")
        files[name] = member
    if not files:
        raise ArchiveError(f"{label}: it is a zip with nothing in it. Download it again.")
    return Tree(label, files)


def _is_litter(part: str) -> bool:
    """Whether operating systems and file managers leave files or folders of that name."""
    return part.startswith(".") or part in _LITTER


def _child(tree: Tree, name: str) -> Tree | None:
    for child in (name, f"{name}.zip"):
        if child in tree:
            return tree.sub(child)
    return None


def _unwrapped(tree: Tree) -> Tree | None:
    """The tree in the only folder at the top, whatever its name."""
    top, inside, _ = tree.names[0].partition("/")
    is_all = inside and tree.names[-1].startswith(f"{top}/")  # names are sorted
    return tree.sub(top) if is_all else None


def _innermost(tree: Tree, name: str) -> Tree:
    outermost = tree.label
    for _ in range(DEEPEST):
        inner = _child(tree, name)
        if inner is None:
            return tree
        tree = inner
    raise ArchiveError(
        f"{outermost}: {name!r} lies in itself more than {DEEPEST} times. "
        "Do not trust this file; download it from its source."
    )

"""One read-only tree over a folder, a zip, and zips inside zips. Nothing is extracted.

A tree holds names and where their bytes lie, no open file: it may be read from any number of
threads at once, pickled, and needs no closing. What is wrong with an archive is said at the first
touch, never passed on as data. No image, no data set is known here.
"""

import bisect
import dataclasses
import functools
import io
import os
import pathlib
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

_CHUNK = 1 << 20  # bytes; what one step of a read holds
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and the extra field
_ENCRYPTED = 0x1
_AGAIN = "Delete the archive and download it again."


class ArchiveError(OSError):
    """An archive that is missing, broken, or not what it claims to be."""


@dataclasses.dataclass(frozen=True)
class Tree:
    """Files by name.

    Attributes:
        label: Where the tree lies, for messages.
        files: Relative posix name to where its bytes are.
    """

    label: str
    files: Mapping[str, "pathlib.Path | _Member"] = dataclasses.field(repr=False)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The names of all files, sorted."""
        return tuple(sorted(self.files))

    def __contains__(self, name: str) -> bool:
        return name in self.files or bool(self._inside(name))

    def read(self, name: str) -> bytes:
        """A file's bytes, checked against the archive's length and checksum.

        Raises:
            ArchiveError: If there is no such file, or it is damaged or cannot be read.
        """
        match self.files.get(name):
            case None:
                raise ArchiveError(f"{self.label}: there is no file {name!r}.")
            case pathlib.Path() as path:
                return path.read_bytes()
            case member:
                return b"".join(_chunks(member, f"{self.label}: {name}"))

    def chunks(self, name: str) -> Iterator[bytes]:
        """A file's bytes piece by piece, checked as they pass; nothing larger is held."""
        match self.files.get(name):
            case pathlib.Path() as path:
                with path.open("rb") as file:
                    while piece := file.read(_CHUNK):
                        yield piece
            case _Member() as member:
                yield from _chunks(member, f"{self.label}: {name}")
            case None:
                raise ArchiveError(f"{self.label}: there is no file {name!r}.")

    def sub(self, name: str) -> "Tree":
        """The tree inside a folder or a zip of this tree.

        Raises:
            ArchiveError: If there is no such folder or zip, or the zip is broken.
        """
        label = f"{self.label}/{name}"
        if name in self.files:
            return _zip(_span(self.files[name], label), label)
        inside = self._inside(name)
        if not inside:
            raise ArchiveError(f"{self.label}: there is no folder or zip {name!r}.")
        start = len(name) + 1
        return Tree(label, {inner[start:]: self.files[inner] for inner in inside})

    def _inside(self, folder: str) -> tuple[str, ...]:
        first = bisect.bisect_left(self.names, f"{folder}/")
        last = bisect.bisect_left(self.names, f"{folder}0")  # "0" follows "/"
        return self.names[first:last]


def open(path: str | os.PathLike[str]) -> Tree:  # noqa: A001 - always read as archives.open
    """The tree inside a folder or a zip file.

    Args:
        path: The folder or the file.

    Raises:
        ArchiveError: If there is nothing, or a file that is not a whole and well-behaved zip.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        return Tree(str(path), dict(_walk(path)))
    if not path.exists():
        raise ArchiveError(f"{path}: there is no such folder or file.")
    return _zip(_span(path, str(path)), str(path))


def find(folder: str | os.PathLike[str], name: str, *, within: Sequence[str] = ()) -> Tree | None:
    """The tree that is called `name`, wherever downloading and unpacking left it.

    Looked for in this order: the folder `name`, then `name.zip`; each in `folder`, then inside
    the folders and zips of `within`. A folder inside a folder of the same name is entered.

    Args:
        folder: Where to look.
        name: Of the folder or the zip, without ".zip".
        within: Names of what may hold it, without ".zip", such as the whole competition's download.

    Returns:
        None if there is no such thing.

    Raises:
        ArchiveError: If what was found is broken.
    """
    folder = pathlib.Path(folder)
    for place in (folder, *(folder / outer for outer in within)):
        for path in (place / name, place / f"{name}.zip"):
            if path.exists():
                return _innermost(open(path), name)
    for outer in within:
        path = folder / f"{outer}.zip"
        if path.exists():
            tree = _innermost(open(path), outer)
            if found := _child(tree, name):
                return _innermost(found, name)
    return None


class _Span(NamedTuple):
    """A stretch of a file, in bytes."""

    path: pathlib.Path
    start: int
    size: int

    def open(self) -> io.BufferedReader:
        return io.BufferedReader(_Window(self))


class _Member(NamedTuple):
    """A file in a zip."""

    archive: _Span
    info: zipfile.ZipInfo


class _Window(io.RawIOBase):
    """A stretch of a file as a file of its own."""

    def __init__(self, span: _Span):
        self._span = span
        self._at = 0
        self._file = span.path.open("rb", buffering=0)

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._span.size)[whence]
        if self._at < 0:
            raise ValueError("before the start")
        return self._at

    def readinto(self, buffer) -> int:
        room = max(0, self._span.size - self._at)
        self._file.seek(self._span.start + self._at)
        count = self._file.readinto(memoryview(buffer)[:room]) or 0
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _walk(folder: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    def fail(error: OSError) -> None:
        raise ArchiveError(f"{error.filename}: cannot be listed: {error.strerror}.") from error

    for parent, _, files in os.walk(folder, onerror=fail, followlinks=True):
        prefix = pathlib.Path(parent).relative_to(folder).as_posix()
        for file in files:
            name = file if prefix == "." else f"{prefix}/{file}"
            if not _is_litter(name):
                yield name, pathlib.Path(parent, file)


def _zip(span: _Span, label: str) -> Tree:
    try:
        with span.open() as file, zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    # A damaged directory makes the parser stumble in all of these ways.
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error) as error:
        raise ArchiveError(f"{label}: {_diagnosis(span)}") from error
    files = {}
    for info in infos:
        name = _safe_name(info, label)
        if info.is_dir() or name.endswith("/") or _is_litter(name):
            continue
        if name in files:
            raise ArchiveError(
                f"{label}: {name!r} is in it twice; which is meant, nobody knows. Pack it again."
            )
        files[name] = _Member(span, info)
    return Tree(label, files)


def _diagnosis(span: _Span) -> str:
    with span.open() as file:
        head = file.read(1024)
    if head.startswith(b"PK"):
        return (
            f"it begins like a zip and has no readable end: {span.size:,} bytes of a longer file, "
            "or damaged. Delete it and download it again."
        )
    if b"<html" in head.lower() or b"<!doctype" in head.lower():
        return (
            "it is a web page, not a zip: the download met a login or rules that are not yet "
            "accepted. Delete it, sign in, and download it again."
        )
    return f"it is not a zip: it begins with {head[:8]!r}. Delete it and download it again."


def _safe_name(info: zipfile.ZipInfo, label: str) -> str:
    name = info.filename.replace("\\", "/")
    parts = name.split("/")
    if not parts[0] or parts[0].endswith(":") or ".." in parts:
        raise ArchiveError(
            f"{label}: the name {info.filename!r} leads out of the archive. "
            "Do not trust this file; download it from its source."
        )
    if "." in parts or "" in parts[:-1]:
        name = "/".join(part for part in parts[:-1] if part not in ("", ".")) + f"/{parts[-1]}"
    return name.removeprefix("/")


def _is_litter(name: str) -> bool:
    """Whether macOS or a file manager left it there."""
    base = name.rpartition("/")[2]
    return base.startswith("._") or base == ".DS_Store" or "__MACOSX/" in name


def _child(tree: Tree, name: str) -> Tree | None:
    for child in (name, f"{name}.zip"):
        if child in tree:
            return tree.sub(child)
    return None


def _innermost(tree: Tree, name: str) -> Tree:
    while inner := _child(tree, name):
        tree = inner
    return tree


def _span(file: "pathlib.Path | _Member", label: str) -> _Span:
    """Where the bytes of a zip lie on disk, inflating them first if that cannot be helped."""
    if isinstance(file, pathlib.Path):
        return _Span(file, 0, file.stat().st_size)
    archive, info = file
    if info.compress_type == zipfile.ZIP_STORED:
        with archive.open() as outer:
            return _Span(
                archive.path, archive.start + _data_start(outer, info, label), info.file_size
            )
    return _Span(_inflated(file, label), 0, info.file_size)


def _inflated(member: _Member, label: str) -> pathlib.Path:
    """A copy of a deflated zip in the user's cache, made once: deflate cannot be read at random."""
    cache = pathlib.Path(
        os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "segdata"
    )
    info = member.info
    path = cache / f"{info.CRC:08x}-{info.file_size}.zip"
    if path.exists() and path.stat().st_size == info.file_size:
        return path
    cache.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(cache).free) < info.file_size:
        raise ArchiveError(
            f"{label} is a compressed zip; reading it takes {info.file_size:,} bytes in {cache}, "
            f"where {free:,} are free. Make room, or set XDG_CACHE_HOME to a larger disk."
        )
    with tempfile.TemporaryDirectory(dir=cache) as unfinished:
        copy = pathlib.Path(unfinished, path.name)
        with copy.open("wb") as file:
            file.writelines(_chunks(member, label))
        copy.replace(path)
    return path


def _chunks(member: _Member, label: str) -> Iterator[bytes]:
    """The bytes of a member, checked as they pass; nothing larger than a chunk is held."""
    archive, info = member
    size, crc = 0, 0
    with archive.open() as file:
        file.seek(_data_start(file, info, label))
        packed = _pieces(file, info.compress_size, label)
        stored = info.compress_type == zipfile.ZIP_STORED
        for piece in packed if stored else _inflate(packed, label):
            size += len(piece)
            crc = zlib.crc32(piece, crc)
            if size > info.file_size:
                raise ArchiveError(
                    f"{label} is longer than the {info.file_size:,} bytes it claims. "
                    "Do not trust this file; download it from its source."
                )
            yield piece
    if size < info.file_size:
        raise ArchiveError(f"{label} is cut: {size:,} of {info.file_size:,} bytes. {_AGAIN}")
    if crc != info.CRC:
        raise ArchiveError(
            f"{label} is damaged: its checksum is {crc:08x}, not {info.CRC:08x}. {_AGAIN}"
        )


def _data_start(file: io.BufferedReader, info: zipfile.ZipInfo, label: str) -> int:
    """Where a member's data begins, in bytes from the start of its archive."""
    if info.flag_bits & _ENCRYPTED:
        raise ArchiveError(f"{label} is encrypted. Unpack it with its password, give the folder.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(
            f"{label} is packed with method {info.compress_type}; stored (0) and deflated (8) can "
            "be read. Unpack it and give the folder."
        )
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
        raise ArchiveError(
            f"{label} is not at byte {info.header_offset:,}, where the archive says. {_AGAIN}"
        )
    _, name, extra = _LOCAL_HEADER.unpack(header)
    return info.header_offset + _LOCAL_HEADER.size + name + extra


def _pieces(file: io.BufferedReader, size: int, label: str) -> Iterator[bytes]:
    while size:
        piece = file.read(min(size, _CHUNK))
        if not piece:
            raise ArchiveError(f"{label} is cut: its last {size:,} bytes are missing. {_AGAIN}")
        size -= len(piece)
        yield piece


def _inflate(pieces: Iterator[bytes], label: str) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for piece in pieces:
            yield inflater.decompress(piece, _CHUNK)
            while not inflater.eof and (
                more := inflater.decompress(inflater.unconsumed_tail, _CHUNK)
            ):
                yield more
    except zlib.error as error:
        raise ArchiveError(f"{label} is damaged: {error}. {_AGAIN}") from error

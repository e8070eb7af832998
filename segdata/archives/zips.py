"""Zips read in place: their members, the places of members' bytes, and those bytes, checked.

A damaged zip raises when it is opened or read; damaged data is never returned. Nothing is extracted
except a zip that is deflated inside a zip, once, to the user's cache.
"""

import functools
import hashlib
import io
import os
import pathlib
import shutil
import stat
import struct
import zipfile
from collections.abc import Iterator
from typing import NamedTuple

from zlib_ng import zlib_ng

from segdata.archives import ArchiveError
from segdata.core.system import files

CHUNK = 1 << 20  # bytes; read at once
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and the extra field
_ENTRY, _END = b"PK\1\2", b"PK\5\6"
_LONGEST_END = 22 + 65535  # bytes, with its comment
_ENCRYPTED, _UTF8 = 0x1, 0x800
_MOST_FILES = 1 << 18  # the largest real archive has 100,064
_LARGEST_DIRECTORY = 1 << 26  # bytes; that archive's has 9 MB
_DEEPEST_NAME = 64  # folders in a name
# A zip of pictures deflates to a third at best, a bomb to a thousandth.
_SWELLING, _SMALL = 20, 1 << 20  # times the packed size; bytes that are always allowed
_SWELLING_AGAIN = 2  # of one inside such a one, or eight in each other would swell by 20⁸
_AGAIN = "Delete the archive and download it again."
_OTHERS = {b"Rar!": "RAR", b"7z\xbc\xaf": "7-Zip", b"\x1f\x8b": "gzip", b"BZh": "bzip2"}


class Span(NamedTuple):
    """A range of a file, in bytes."""

    path: pathlib.Path
    start: int
    size: int

    def open(self) -> io.BufferedReader:
        """The range as a file of its own."""
        return io.BufferedReader(_Window(self))


class Member(NamedTuple):
    """A file in a zip."""

    archive: Span
    info: zipfile.ZipInfo


def members(archive: Span, label: str) -> Iterator[tuple[str, Member]]:
    """The files of a zip by relative posix name; folders are left out.

    Args:
        archive: The zip.
        label: The place of the zip, for messages.

    Raises:
        ArchiveError: If it is not a complete zip, one of several parts, or a name leads out of it.
    """
    try:
        with _Bounded(_Window(archive)) as file, zipfile.ZipFile(file) as opened:
            infos = opened.infolist()
    # A damaged directory makes the parser raise any of these.
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error) as error:
        raise ArchiveError(f"{label}: {_diagnosis(archive, error)}") from error
    for info in infos:
        if info.volume:
            raise ArchiveError(
                f"{label}: it is the last of several parts. Join them first: "
                "`zip -s 0 PARTS.zip --out WHOLE.zip`."
            )
        if not 0 <= info.header_offset < archive.size:
            raise ArchiveError(f"{label}: its beginning or its middle is missing. {_AGAIN}")
        name = _safe_name(info, label)
        if not info.is_dir() and not name.endswith("/"):
            yield name, Member(archive, info)


def chunks(member: Member, label: str) -> Iterator[bytes]:
    """The bytes of a member in chunks, checked on the way; one chunk at a time is in memory.

    Raises:
        ArchiveError: If it is damaged, or packed in a way that cannot be read.
    """
    archive, info = member
    size, crc = 0, 0
    with archive.open() as file:
        file.seek(_data_start(file, info, label))
        packed = _pieces(file, info.compress_size, label)
        stored = info.compress_type == zipfile.ZIP_STORED
        for piece in packed if stored else _inflate(packed, label):
            size += len(piece)
            crc = zlib_ng.crc32(piece, crc)
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


def unpacked(member: Member, label: str) -> Span:
    """The place on disk of a zip in a zip; a deflated one is inflated first.

    Raises:
        ArchiveError: If it is damaged, no zip, over 20 times its packed size, or the disk is too
            full for it.
    """
    archive, info = member
    if info.compress_type == zipfile.ZIP_STORED:
        with archive.open() as file:
            start = archive.start + _data_start(file, info, label)
        return Span(archive.path, start, info.file_size)
    return Span(_inflated(member, label), 0, info.file_size)


class _Window(io.RawIOBase):
    """A range of a file as a file of its own."""

    def __init__(self, span: Span):
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
            raise OSError("before the start")  # as a file does
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


class _Bounded(io.BufferedReader):
    """A limit on the directory, which `zipfile` reads into memory whatever its size."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _LARGEST_DIRECTORY:
            raise zipfile.BadZipFile(
                f"it has {size:,} bytes, more than the {_LARGEST_DIRECTORY:,} that are read"
            )
        data = super().read(size)
        if (count := data.count(_ENTRY)) > _MOST_FILES:
            raise zipfile.BadZipFile(
                f"it lists {count:,} files, more than the {_MOST_FILES:,} that are read"
            )
        return data


def _diagnosis(span: Span, error: Exception) -> str:
    with span.open() as file:
        head = file.read(1024)
        file.seek(max(0, span.size - _LONGEST_END))
        tail = file.read()
    again = "Delete it and download it again."
    if isinstance(error, UnicodeDecodeError):
        return "a name in it claims to be UTF-8 and is not. Pack it again, or download it again."
    if not head:
        return f"it is not a zip: it is empty. {again}"
    if head.startswith(b"PK") and _END in tail:
        return f"it is a zip whose directory cannot be read: {error}. {again}"
    if head.startswith(b"PK"):
        return (
            f"it begins like a zip and has no readable end: {span.size:,} bytes of a longer file, "
            f"or damaged. {again}"
        )
    if b"<html" in head.lower() or b"<!doctype" in head.lower():
        return (
            "it is a web page, not a zip: the download met a login or rules that are not yet "
            "accepted. Delete it, sign in, and download it again."
        )
    for magic, kind in _OTHERS.items():
        if head.startswith(magic):
            return f"it is a {kind} archive, not a zip. Unpack it and give the folder."
    return f"it is not a zip: it begins with {head[:8]!r}. {again}"


def _safe_name(info: zipfile.ZipInfo, label: str) -> str:
    name = info.filename.replace("\\", "/")
    parts = name.split("/")
    if not parts[0] or parts[0].endswith(":") or ".." in parts:
        raise ArchiveError(
            f"{label}: the name {info.filename!r} leads out of the archive. "
            "Do not trust this file; download it from its source."
        )
    if len(parts) > _DEEPEST_NAME:
        raise ArchiveError(
            f"{label}: the name {name[:40]!r}… leads through {len(parts) - 1:,} folders, more than "
            f"the {_DEEPEST_NAME - 1} that are entered. Do not trust this file; download it from "
            "its source."
        )
    if "." in parts or "" in parts[:-1]:
        name = "/".join(part for part in parts[:-1] if part not in ("", ".")) + f"/{parts[-1]}"
    return name.removeprefix("/")


def _inflated(member: Member, label: str) -> pathlib.Path:
    """A copy of a deflated zip in the user's cache, made once: deflate cannot be read at random.

    Its name is the SHA-256 of the packed bytes, so it cannot be taken for another zip. Its length
    and checksum are compared with those in the archive before it is used.
    """
    archive, info = member
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or files.home() / ".cache", "segdata")
    packed = min(info.compress_size, archive.size)
    swelling = _SWELLING_AGAIN if archive.path.parent == cache else _SWELLING
    if info.file_size > max(_SMALL, swelling * packed):
        raise ArchiveError(
            f"{label} is a compressed zip of {packed:,} bytes that claims to hold "
            f"{info.file_size:,}, more than {swelling} times as many. Do not trust this file; "
            "download it from its source."
        )
    with archive.open() as file:
        start = archive.start + _data_start(file, info, label)
    path = cache / f"{_hashes(Span(archive.path, start, packed))[0]}.zip"
    try:
        if not _is_whole(path, info):
            cache.mkdir(parents=True, exist_ok=True)
            _inflate_to(path, member, label)
    except ArchiveError:
        raise
    except OSError as error:
        raise ArchiveError(
            f"{label} is a compressed zip, and cannot be inflated to {cache}: {error.strerror}. "
            "Make room, fix its permissions, or set XDG_CACHE_HOME to another folder."
        ) from error
    return path


def _is_whole(copy: pathlib.Path, info: zipfile.ZipInfo) -> bool:
    span = Span(copy, 0, info.file_size)
    return copy.exists() and copy.stat().st_size == span.size and _hashes(span)[1] == info.CRC


def _inflate_to(path: pathlib.Path, member: Member, label: str) -> None:
    size = member.info.file_size
    files.remove_unfinished(path.parent)
    if (free := shutil.disk_usage(path.parent).free) < size:
        raise ArchiveError(
            f"{label} is a compressed zip; reading it takes {size:,} bytes in {path.parent}, "
            f"where {free:,} are free. Make room, or set XDG_CACHE_HOME to a larger disk."
        )
    with files.replacing(path) as copy:
        with copy.open("wb") as file:
            file.writelines(chunks(member, label))
        for _ in members(Span(copy, 0, size), label):
            pass  # raises if it is no zip, and the copy is removed


def _hashes(span: Span) -> tuple[str, int]:
    """The SHA-256 and CRC-32 of a range, cached as long as its file stays the same."""
    found = span.path.stat()
    return _hashed(span, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))


@functools.lru_cache
def _hashed(span: Span, _version: tuple[int, ...]) -> tuple[str, int]:
    sha256, crc = hashlib.sha256(), 0
    with span.open() as file:
        while piece := file.read(CHUNK):
            sha256.update(piece)
            crc = zlib_ng.crc32(piece, crc)
    return sha256.hexdigest(), crc


def _data_start(file: io.BufferedReader, info: zipfile.ZipInfo, label: str) -> int:
    """The start of a member's data, in bytes from the start of its archive."""
    if info.flag_bits & _ENCRYPTED:
        raise ArchiveError(f"{label} is encrypted. Unpack it with its password, give the folder.")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise ArchiveError(
            f"{label} is a symbolic link, not a file. Pack the archive again with the file itself, "
            "or unpack it and give the folder."
        )
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(
            f"{label} is packed with method {info.compress_type} "
            f"({zipfile.compressor_names.get(info.compress_type, 'unknown')}); stored (0) and "
            "deflated (8) can be read. Unpack it and give the folder."
        )
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
        raise ArchiveError(
            f"{label} is not at byte {info.header_offset:,}, where the archive says. {_AGAIN}"
        )
    _, name, extra = _LOCAL_HEADER.unpack(header)
    found = file.read(name)
    if found != info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437"):
        raise ArchiveError(
            f"{label} is called {found.decode(errors='replace')!r} where it lies: the archive "
            "contradicts itself. Do not trust this file; download it from its source."
        )
    return info.header_offset + _LOCAL_HEADER.size + name + extra


def _pieces(file: io.BufferedReader, size: int, label: str) -> Iterator[bytes]:
    while size:
        piece = file.read(min(size, CHUNK))
        if not piece:
            raise ArchiveError(f"{label} is cut: its last {size:,} bytes are missing. {_AGAIN}")
        size -= len(piece)
        yield piece


def _inflate(pieces: Iterator[bytes], label: str) -> Iterator[bytes]:
    inflater = zlib_ng.decompressobj(-zlib_ng.MAX_WBITS)
    try:
        for piece in pieces:
            yield inflater.decompress(piece, CHUNK)
            while not inflater.eof and (
                more := inflater.decompress(inflater.unconsumed_tail, CHUNK)
            ):
                yield more
    except zlib_ng.error as error:  # pyright: ignore[reportGeneralTypeIssues] - its stub errs
        raise ArchiveError(f"{label} is damaged: {error}. {_AGAIN}") from error

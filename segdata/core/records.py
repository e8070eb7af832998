"""Packed records: a dataset at its training size, as raw bytes, written and opened with NumPy.

A packed file is a TFRecord of records of one size: H·W·4 bytes, red, green, blue and class id of
each pixel in turn. Any TFRecord reader can stream it; and since record i starts at byte
i·(H·W·4+16)+12, the same file is a memory-mapped array. Beside it lie the means of its channels
and, written last, a manifest: what it was made from, how many records it holds and their checksum.
A packed file is never written to again: what is packed anew has another name.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import re
import secrets
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np

from segdata.core.system import arguments, files
from segdata.core.system.compiling import compiled

FORMAT = 2
"""Of the files; those of another are packed anew. In 1 the means were float64."""
_HEADER, _FOOTER = 12, 4  # TFRecord: length and its CRC before each record, the record's CRC after
_MEANS = 12  # bytes of an example's: three int32, little-endian
_POLYNOMIAL = 0x82F63B78  # of CRC-32C, reversed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records:
    """An open packed file, which stays on disk for as long as this is kept.

    Attributes:
        path: The TFRecord file.
        count: How many records it holds.
        size: Height and width of each, in pixels.
        checksum: CRC-32 of all records, the pixels and then the means of each.
    """

    path: pathlib.Path
    count: int
    size: tuple[int, int]
    checksum: int

    def __reduce__(self) -> Any:
        """Another process, or a copy, keeps the file as well."""
        return _records, (self.path, self.count, self.size, self.checksum)

    @property
    def stride(self) -> int:
        """Bytes from one record to the next."""
        return self.size[0] * self.size[1] * 4 + _HEADER + _FOOTER

    @property
    def lead(self) -> int:
        """32-bit words before the first pixel of a record."""
        return _HEADER // 4

    @property
    def manifest(self) -> pathlib.Path:
        """The manifest beside the file, for `load`."""
        return self.path.with_name(f"{self.path.stem.rpartition('-')[0]}.json")

    @property
    def means_path(self) -> pathlib.Path:
        """The file of `means`."""
        return self.path.with_suffix(".means")

    def array(self) -> np.ndarray:
        """All records, memory-mapped: uint8 [count, H, W, 4], read-only."""
        rows = np.memmap(self.path, np.uint8, "r", shape=(self.count, self.stride))
        return rows[:, _HEADER:-_FOOTER].reshape(self.count, *self.size, 4)

    def words(self) -> np.ndarray:
        """The whole file, memory-mapped: uint32 [count·stride/4], read-only."""
        return np.asarray(
            np.memmap(self.path, np.uint32, "r", shape=(self.count * self.stride // 4,))
        )

    def means(self) -> np.ndarray:
        """Mean of each channel over each record, memory-mapped: int32 [count, 3], 16 places."""
        return np.asarray(np.memmap(self.means_path, "<i4", "r", shape=(self.count, 3)))

    def verify(self) -> None:
        """Reads the file once and compares it with its checksum, at 3.4 GB/s from RAM.

        Raises:
            OSError: If they differ, or it cannot be read.
        """
        means = np.memmap(self.means_path, np.uint8, "r", shape=(self.count, _MEANS))
        checksum = 0
        for row, mean in zip(self.array(), means, strict=True):
            checksum = zlib.crc32(mean, zlib.crc32(row, checksum))
        if checksum != self.checksum:
            raise OSError(f"{self.path} is damaged: delete it, and it is packed again.")


def load(manifest: str | os.PathLike[str]) -> Records:
    """Opens a packed file by its manifest, whatever it was made from.

    It is read only where its size, its time or its place on the disk are others than when it was
    written or last read.

    Args:
        manifest: `Records.manifest` of what was packed; `NAME.json`.

    Raises:
        OSError: If there is none, or the file is damaged.
        ValueError: If it is none, or of another format.
    """
    manifest = pathlib.Path(manifest)
    if not manifest.is_file():
        raise FileNotFoundError(f"{manifest}: there is no such manifest of a packed file.")
    try:
        noted = json.loads(manifest.read_text())
        found = noted["format"]
        if found != FORMAT:
            raise ValueError(f"its format is {found!r:.40}, not {FORMAT}; pack it again")
        return _opened(manifest, noted)
    except OSError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{manifest} is no manifest of a packed file: {error!s:.200}.") from error


def opened(
    manifest: pathlib.Path, *, size: tuple[int, int], count: int, source: Mapping[str, Any]
) -> Records | None:
    """The same of a packed file that is whole, has as many records, and was made from this.

    Returns:
        None where there is none.
    """
    try:
        noted = json.loads(manifest.read_text())
        known = {"token": noted["token"], "crc32": noted["crc32"], "seen": noted["seen"]}
        wanted = {"format": FORMAT, **source, "count": count, "size": list(size), **known}
        return _opened(manifest, noted) if noted == wanted else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None  # a manifest may hold anything


def _opened(manifest: pathlib.Path, noted: dict[str, Any]) -> Records:
    """What a manifest tells of.

    Raises:
        OSError: If the file is missing or damaged.
        ValueError: If a field is odd; others may raise what they like.
    """
    height, width = noted["size"]
    records = _records(
        _path(manifest, noted["token"]),
        arguments.integer("count", noted["count"], least=1),
        arguments.size((height, width)),
        arguments.integer("crc32", noted["crc32"], least=0),
    )
    now = _seen(records)
    if [now[0][0], now[1][0]] != [records.count * records.stride, records.count * _MEANS]:
        raise OSError(f"{records.path} is cut: delete it, and it is packed again.")
    if now != noted["seen"]:
        records.verify()
        with contextlib.suppress(OSError):  # where it may not be written, it is read each time
            _write_manifest(manifest, noted, records)
    return records


def write(
    manifest: pathlib.Path,
    rows: Iterable[np.ndarray],
    *,
    size: tuple[int, int],
    source: Mapping[str, Any],
) -> Records:
    """Writes a packed file and its manifest, under their names only when whole.

    Args:
        manifest: `NAME.json`, in a folder that is there. What was packed there before is removed
            when nobody uses it.
        rows: uint8 [H, W, 4] each.
        size: H and W.
        source: What the rows were made from, kept in the manifest.

    Returns:
        The file, open.

    Raises:
        OSError: If there is no room, or the folder may not be written to.
    """
    files.remove_unfinished(manifest.parent)
    remove_unused(manifest)  # first: a full disk needs the room
    token = secrets.token_hex(4)
    records = Records(path=_path(manifest, token), count=0, size=size, checksum=0)
    try:
        with (
            files.replacing(records.path) as path,
            files.replacing(records.means_path) as means,
            path.open("wb") as rows_file,
            means.open("wb") as means_file,
        ):
            count, checksum = _write_rows(rows, rows_file, means_file, size=size)
        records = dataclasses.replace(records, count=count, checksum=checksum)
        if records.path.stat().st_size != count * records.stride:
            raise OSError(f"{records.path} does not hold what was written to it; is there room?")
        _use(records)
        _write_manifest(manifest, {"format": FORMAT, **source, "token": token}, records)
    except OSError as error:
        for path in (records.path, records.means_path):
            path.unlink(missing_ok=True)
        raise OSError(f"{manifest.parent}: {manifest.stem} cannot be packed: {error}") from error
    return records


def remove_unused(manifest: pathlib.Path) -> None:
    """Removes what was packed under this name before, but for what a process uses."""
    own = re.compile(re.escape(manifest.stem) + r"(-[0-9a-f]{8})?[.](tfrecord|means)")
    for path in manifest.parent.iterdir():
        if own.fullmatch(path.name):
            files.remove_unused(path)


def means_of(row: np.ndarray) -> np.ndarray:
    """Mean of each channel of records uint8 [..., H, W, 4]: int32 [..., 3], 16 binary places."""
    total = row[..., :3].sum(axis=(-3, -2), dtype=np.int64)
    area = row.shape[-3] * row.shape[-2]
    return ((total * (1 << 17) + area) // (2 * area)).astype("<i4")


def _write_rows(
    rows: Iterable[np.ndarray], file: BinaryIO, means: BinaryIO, *, size: tuple[int, int]
) -> tuple[int, int]:
    """Writes records and their means; returns their number and checksum, of what was meant."""
    length = (size[0] * size[1] * 4).to_bytes(8, "little")
    head = length + _masked(length)
    count, checksum = 0, 0
    for row in rows:
        data, mean = row.tobytes(), means_of(row).tobytes()
        file.write(head + data + _masked(data))
        means.write(mean)
        checksum = zlib.crc32(mean, zlib.crc32(data, checksum))
        count += 1
    return count, checksum


def _masked(data: bytes) -> bytes:
    """CRC-32C as TFRecord has it: turned by 15 bits, and a constant added."""
    crc = _crc32c(np.frombuffer(data, np.uint8), _tables())
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32).to_bytes(4, "little")


@functools.cache
def _tables() -> np.ndarray:
    """uint32 [8, 256]: what a byte that is followed by 0 to 7 others does to the remainder."""
    tables = np.zeros((8, 256), np.uint32)
    tables[0] = np.arange(256)
    for _ in range(8):
        tables[0] = tables[0] >> 1 ^ np.where(tables[0] & 1, _POLYNOMIAL, 0).astype(np.uint32)
    for n in range(1, 8):
        tables[n] = tables[n - 1] >> 8 ^ tables[0][tables[n - 1] & 255]
    return tables


@compiled
def _crc32c(data: np.ndarray, tables: np.ndarray) -> int:
    """Eight bytes at a time."""
    crc = np.uint32(0xFFFFFFFF)
    whole = len(data) // 8 * 8
    low = np.uint32(255)
    for i in range(0, whole, 8):
        value = np.uint32(0)
        for k in range(4):
            byte = np.uint32(data[i + k]) ^ ((crc >> np.uint32(8 * k)) & low)
            value ^= tables[7 - k, byte]
            value ^= tables[3 - k, data[i + 4 + k]]
        crc = value
    for i in range(whole, len(data)):
        crc = (crc >> np.uint32(8)) ^ tables[0, (crc ^ np.uint32(data[i])) & low]
    return int(crc ^ np.uint32(0xFFFFFFFF))


def _path(manifest: pathlib.Path, token: str) -> pathlib.Path:
    if not re.fullmatch("[0-9a-f]{8}", token):
        raise ValueError(f"{manifest}: token={token!r} is not eight hexadecimal digits.")
    return manifest.with_name(f"{manifest.stem}-{token}.tfrecord")


def _records(path: pathlib.Path, count: int, size: tuple[int, int], checksum: int) -> Records:
    records = Records(path=path, count=count, size=size, checksum=checksum)
    _use(records)
    return records


def _use(records: Records) -> None:
    for path in (records.path, records.means_path):
        files.use(path, owner=records)


def _seen(records: Records) -> list[list[int]]:
    """What changes where somebody writes to the files: size, time and place on the disk of each."""
    found = [path.stat() for path in (records.path, records.means_path)]
    return [[stat.st_size, stat.st_mtime_ns, stat.st_ino] for stat in found]


def _write_manifest(manifest: pathlib.Path, noted: Mapping[str, Any], records: Records) -> None:
    noted = {
        **noted,
        "count": records.count,
        "size": list(records.size),
        "crc32": records.checksum,
        "seen": _seen(records),
    }
    with files.replacing(manifest) as path:
        path.write_text(json.dumps(noted, indent=1))

"""TFRecord files, with NumPy: frames of bytes, each with its length and two checksums.

What a record holds is not known here.
"""

import functools
import os
from collections.abc import Iterator

import numpy as np

from segdata.core.system.compiling import compiled

HEADER, FOOTER = 12, 4
"""Bytes before a record, its length and that length's checksum; and after it, its own."""

_POLYNOMIAL = 0x82F63B78  # of CRC-32C, reversed


def framed(data: bytes) -> bytes:
    """A record as it lies in a file."""
    length = len(data).to_bytes(8, "little")
    return b"".join([length, _masked(length), data, _masked(data)])


def frames(path: str | os.PathLike[str], *, first: int = 0) -> Iterator[bytes]:
    """The records of a file in order, each with the checksum behind it, for `unframed`.

    Args:
        path: The file.
        first: The record to begin with; those before it are passed over.

    Raises:
        ValueError: If a length is damaged, the file ends inside a record, or it is a folder, a pipe
            or a device.
        OSError: If it cannot be read.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for
        raise ValueError(f"{path} is no file but a folder, a pipe or a device.")
    with open(path, "rb") as file:
        size, number = os.fstat(file.fileno()).st_size, 0
        while head := file.read(HEADER):
            length = int.from_bytes(head[:8], "little")
            if head[8:] != _masked(head[:8]):
                raise ValueError(f"{path}: the length of record {number} is damaged.")
            if file.tell() + length + FOOTER > size:
                raise ValueError(f"{path} is cut in record {number}.")
            if number < first:
                file.seek(length + FOOTER, os.SEEK_CUR)
            else:
                yield file.read(length + FOOTER)
            number += 1


def unframed(frame: bytes) -> bytes:
    """The record of one of `frames`.

    Raises:
        ValueError: If it is damaged.
    """
    data = frame[:-FOOTER]
    if frame[-FOOTER:] != _masked(data):
        raise ValueError("the checksum of a record is wrong.")
    return data


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

"""LZW is looked through before it is decoded: what is sound passes, what is not is refused."""

import io
from collections.abc import Iterable
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from segdata.archives import ArchiveError, large, lzw, scientific

CLEAR, END = 256, 257


def packed(codes: Iterable[int], *, is_old: bool = False) -> bytes:
    """A few codes as bits: 9 of each."""
    bits = "".join(f"{code:09b}"[:: -1 if is_old else 1] for code in codes)
    each = [f"{bits[i : i + 8]:0<8}" for i in range(0, len(bits), 8)]
    return bytes(int(byte[:: -1 if is_old else 1], 2) for byte in each)


def decoded(data: bytes, *, most: int) -> bytes | None:
    """A slow decoder; None where a code may not stand where it does."""
    is_old = data[0] == 0 and data[1] & 1
    bits = "".join(f"{byte:08b}"[:: -1 if is_old else 1] for byte in data)
    table: list[bytes] = []
    out, at, width, last = b"", 0, 9, None
    while len(out) < most and at + width <= len(bits):
        text = bits[at : at + width]
        code, at = int(text[:: -1 if is_old else 1], 2), at + width
        if code == END:
            break
        if code == CLEAR:
            table, width, last = [bytes([i]) for i in range(256)] + [b"", b""], 9, b""
        elif last is None:
            return None
        elif last == b"":
            if code > 255:
                return None
            last = table[code]
            out += last
        else:
            if code > len(table):
                return None
            table.append(last + (table[code] if code < len(table) else last)[:1])
            last = table[code]
            out += last
            if len(table) + (0 if is_old else 1) in (512, 1024, 2048):
                width += 1
    return out[:most]


def noise(size: int, *, values: int) -> bytes:
    return np.random.default_rng(size).integers(0, values, size).astype(np.uint8).tobytes()


@pytest.mark.parametrize("values", [1, 2, 17, 256])
@pytest.mark.parametrize("size", [1, 2, 5, 700, 20_011])
def test_what_is_sound_passes_and_decodes_to_what_was_encoded(size, values):
    plain = noise(size, values=values)
    data = bytes(imagecodecs.lzw_encode(plain))
    assert decoded(data, most=size) == plain
    for end in {0, 1, 2, len(data) // 2, len(data) - 1, len(data)}:
        assert lzw.is_sound(data[:end], most=size)


def test_the_old_order_of_bits_passes_too():
    codes = [CLEAR, 7, 8, 258, 260, 260, 9, CLEAR, 5, 258, END]
    for is_old in (False, True):
        data = packed(codes, is_old=is_old)
        expected = decoded(data, most=100)
        assert expected is not None
        assert bytes(imagecodecs.lzw_decode(data, out=len(expected))) == expected
        assert lzw.is_sound(data, most=100)


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize(
    ("codes", "fault"),
    [
        ([CLEAR, 258, END], 1),  # what the decoder does not check
        ([CLEAR, 7, 8, CLEAR, 300, END], 3),
        ([CLEAR, 7, 260, END], 1),
        ([7, 8, END], 0),
    ],
)
def test_a_code_that_may_not_stand_there_is_none(codes, fault, is_old):
    if is_old and not fault:
        return  # it is known by its first code
    data = packed(codes, is_old=is_old)
    assert decoded(data, most=100) is None
    assert not lzw.is_sound(data, most=100)
    assert lzw.is_sound(data, most=fault and fault - 1)  # what follows is not decoded


def test_of_damaged_bytes_those_pass_that_a_slow_decoder_takes():
    taken = 0
    for case in range(400):
        rng = np.random.default_rng(case)
        size = int(rng.integers(1, 1500))
        data = bytearray(imagecodecs.lzw_encode(noise(size, values=int(rng.integers(1, 30)))))
        for _ in range(int(rng.integers(0, 40))):
            data[int(rng.integers(2, len(data)))] ^= 1 << int(rng.integers(8))
        expected = decoded(bytes(data), most=size)
        assert lzw.is_sound(bytes(data), most=size) == (expected is not None)
        taken += expected is not None
    assert 50 < taken < 350


PAGES: dict[str, Any] = {
    "grey": {"photometric": "minisblack"},
    "two pages": {"photometric": "minisblack"},
    "tiles, predictor": {"photometric": "minisblack", "tile": (16, 16), "predictor": 2},
}


@pytest.mark.parametrize("kind", PAGES)
def test_a_tiff_with_damaged_lzw_is_refused_by_name(tmp_path, kind):
    shape = (2, 37, 41) if kind == "two pages" else (37, 41)
    pixels = np.random.default_rng(0).integers(0, 9, shape).astype(np.uint8)
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        for page in pixels.reshape(-1, 37, 41):
            file.write(page, compression="lzw", metadata=None, **PAGES[kind])
    sound, last = bytearray(buffer.getvalue()), len(pixels.reshape(-1, 37, 41)) - 1
    with tifffile.TiffFile(io.BytesIO(sound)) as file:
        at = file.pages[last].dataoffsets[-1]
    found = scientific.read(bytes(sound), name="x.tif", page=last).pixels
    np.testing.assert_array_equal(found[..., 0], pixels.reshape(-1, 37, 41)[last])
    assert sound[at] == 0x80
    sound[at + 1 : at + 3] = b"\x7f\xff"  # after the clear code one above 255
    with pytest.raises(ArchiveError, match=r"x\.tif is no readable TIFF: its LZW data"):
        scientific.read(bytes(sound), name="x.tif", page=last)
    with pytest.raises(ArchiveError, match=r"x\.tif is no readable TIFF: its LZW data"):
        scientific.read_mask(bytes(sound), name="x.tif", page=last)
    path = tmp_path / "x.tif"
    path.write_bytes(sound)
    with (
        large.opened(path, page=last) as rows,
        pytest.raises(ArchiveError, match=r"x\.tif is no readable TIFF: its LZW data"),
    ):
        rows[30:37]

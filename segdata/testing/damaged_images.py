"""Damage to image files: bytes of a PNG, JPEG or GIF to damaged ones.

Images that can still be read have the same pixels, or nearly, where a JPEG is re-encoded.
"""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import ExifTags, Image

from segdata.archives import images

Change = Callable[[bytes], bytes]

_PAGE = b"<!DOCTYPE html><html><title>Sign in</title></html>"
_ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)  # fmt: skip - first row and column, steps between rows and columns
_START, _ADOBE = b"\xff\xc0", b"\xff\xee"  # markers of a JPEG


def cut(data: bytes) -> bytes:
    """Ends in the middle."""
    return data[: len(data) // 2]


def emptied(_: bytes) -> bytes:
    """Has no bytes."""
    return b""


def with_tail(data: bytes) -> bytes:
    """Has more bytes after its end."""
    return data + b"\0\0left over" * 50


def web_page(_: bytes) -> bytes:
    """Is a web page that a server sent instead."""
    return _PAGE


def postscript(_: bytes) -> bytes:
    """Is a program, which some decoders would start."""
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


def with_garbage_exif(data: bytes) -> bytes:
    """Has invalid EXIF."""
    if data.startswith(b"\xff\xd8"):
        return data[:2] + b"\xff\xe1\0\x10Exif\0\0garbage!" + data[2:]
    header, *rest = images.png_chunks(data)
    return _png([header, (b"eXIf", b"garbage!"), *rest])


def saved_as(kind: str, **options) -> Change:
    """Is of another kind, under the name it had."""
    return lambda data: _saved(_decoded(data), kind, **options)


def in_mode(mode: str, kind: str, **options) -> Change:
    """Has other channels."""
    return lambda data: _saved(_decoded(data).convert(mode), kind, **options)


def turned(data: bytes) -> bytes:
    """Is turned by EXIF."""
    image = _decoded(data)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return _saved(
        image.transpose(Image.Transpose.ROTATE_90), image.format, exif=exif.tobytes(), quality=95
    )


def narrowed(data: bytes) -> bytes:
    """Has lost its last column."""
    image = _decoded(data)
    return _saved(image.crop((0, 0, image.width - 1, image.height)), image.format, quality=95)


def shrunk(data: bytes) -> bytes:
    """Has half the size."""
    image = _decoded(data)
    return _saved(image.resize((image.width // 2, image.height // 2), 0), image.format)


def left_half(data: bytes) -> bytes:
    """Has lost its right half."""
    image = _decoded(data)
    return _saved(image.crop((0, 0, image.width // 2, image.height)), image.format, quality=95)


def two_pictures(data: bytes) -> bytes:
    """Is followed by a small one in the same file, as phones write it."""
    image = _decoded(data)
    small = image.resize((image.width // 8, image.height // 8))
    return _saved(image, "MPO", save_all=True, append_images=[small], quality=95)


def two_frames(data: bytes) -> bytes:
    """Has two frames."""
    image = _decoded(data)
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _saved(image, image.format, save_all=True, append_images=[mirrored])


def claims(width: int, height: int) -> Change:
    """Has a header that gives another size."""

    def change(data: bytes) -> bytes:
        if data.startswith(b"\xff\xd8"):
            at = data.index(_START)
            return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]
        if data.startswith(b"GIF"):
            sides, at = struct.pack("<HH", width, height), _descriptor(data)
            return data[:6] + sides + data[10 : at + 5] + sides + data[at + 9 :]
        header = struct.pack(">II", width, height) + data[24:29]
        return _png([(b"IHDR", header), *list(images.png_chunks(data))[1:]])

    return change


def of_half_height(data: bytes) -> bytes:
    """Has a header that gives half the height."""
    image = _decoded(data)
    return claims(image.width, image.height // 2)(data)


def twelve_bits(data: bytes) -> bytes:
    """Has the header of a JPEG of 12 bits a channel."""
    at = data.index(_START)
    return data[: at + 4] + b"\x0c" + data[at + 5 :]


def without_adobe(data: bytes) -> bytes:
    """Is CMYK, without the mark that says that it is inverted."""
    data = in_mode("CMYK", "JPEG", quality=95)(data)
    at = data.index(_ADOBE)
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4]) :]


def of_16_bits(data: bytes) -> bytes:
    """Has 16 bits a channel."""
    return _raw(_pixels(data).astype(">u2") * 257, bits=16)


def of_16_bits_grey(data: bytes) -> bytes:
    """Has 16 bits and no colour."""
    grey = np.asarray(_decoded(data).convert("L"), np.uint16) * 257
    return _saved(Image.fromarray(grey), "PNG")


def with_palette(data: bytes) -> bytes:
    """Has a palette of greys."""
    return _saved(_decoded(data).convert("L").convert("P"), "PNG")


def interlaced(data: bytes) -> bytes:
    """Comes in seven passes."""
    return _raw(_pixels(data), passes=_ADAM7)


def with_transparent_colour(data: bytes) -> bytes:
    """Has a transparent colour."""
    pixels = _pixels(data)
    return _raw(pixels, more=[(b"tRNS", pixels[0, 0].astype(">u2").tobytes())])


def with_long_data(data: bytes) -> bytes:
    """Has 16 MB more pixels than its size has room for."""
    return _raw(_pixels(data), tail=bytes(1 << 24))


def with_long_text(data: bytes) -> bytes:
    """Has a comment of 16 MB, deflated."""
    header, *rest = images.png_chunks(data)
    return _png([header, (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 24))), *rest])


def with_wrong_checksum(data: bytes) -> bytes:
    """Has a wrong checksum on its pixels."""
    at = data.index(b"IDAT") + 4 + int.from_bytes(data[data.index(b"IDAT") - 4 :][:4])
    return data[:at] + bytes(4) + data[at + 4 :]


def unended(data: bytes) -> bytes:
    """Lacks its last chunk."""
    return data[: data.index(b"IEND") - 4]


def one_bit(data: bytes) -> bytes:
    """Has one bit a pixel."""
    return _saved(Image.fromarray(_inside(data)), "PNG")


def smooth(data: bytes) -> bytes:
    """Has soft edges: 200 just inside, 55 just outside."""
    image, inside = _decoded(data), _inside(data)
    padded = np.pad(inside, 1, mode="edge")
    near = [padded[1 + y :, 1 + x :][: len(inside), : inside.shape[1]] for y, x in _AROUND]
    levels = np.where(inside, 255, 0)
    levels[inside & ~np.logical_and.reduce(near)] = 200
    levels[~inside & np.logical_or.reduce(near)] = 55
    return _saved(Image.fromarray(levels.astype(np.uint8)), image.format)


_AROUND = ((-1, 0), (1, 0), (0, -1), (0, 1))


def of_ones(data: bytes) -> bytes:
    """Has grey levels 0 and 1."""
    kind = _decoded(data).format
    return _saved(Image.fromarray(_inside(data).astype(np.uint8)), kind)


def rgba(data: bytes) -> bytes:
    """Has colours and is opaque everywhere."""
    return _saved(Image.fromarray(np.where(_inside(data), 255, 0).astype(np.uint8)), "PNG", "RGBA")


def inverted_palette(data: bytes) -> bytes:
    """Has a palette whose first colour is white."""
    image = _decoded(data)
    indices = Image.fromarray((~_inside(data)).astype(np.uint8)).convert("P")
    indices.putpalette([255, 255, 255, 0, 0, 0])
    return _saved(indices, image.format)


def see_through(data: bytes) -> bytes:
    """Has a transparent background."""
    return _saved(_decoded(data), "GIF", transparency=0)


def with_flipped_size(data: bytes) -> bytes:
    """Is a GIF whose frame is 32,768 pixels wider and higher by a flipped bit each."""
    at = _descriptor(data)
    sides = bytes((data[at + 5], data[at + 6] ^ 0x80, data[at + 7], data[at + 8] ^ 0x80))
    return data[: at + 5] + sides + data[at + 9 :]


def with_own_palette(data: bytes) -> bytes:
    """Is a GIF whose palette belongs to the frame."""
    bits = data[10] & 7
    palette = data[13 : 13 + 3 * 2 ** (bits + 1)]
    at = _descriptor(data)
    frame = data[at : at + 9] + bytes([data[at + 9] | 0x80 | bits]) + palette + data[at + 10 :]
    return data[:10] + bytes([data[10] & 0x7F]) + data[11:13] + data[13 + len(palette) : at] + frame


def cropped_frame(data: bytes) -> bytes:
    """Is a GIF whose frame is cropped to the mask."""
    image = _decoded(data)
    left, top, right, bottom = Image.fromarray(_inside(data)).getbbox() or (0, 0, 1, 1)
    small = _saved(image.crop((left, top, right, bottom)), "GIF")
    at = _descriptor(small)
    screen, place = struct.pack("<HH", *image.size), struct.pack("<HH", left, top)
    return small[:6] + screen + small[10 : at + 1] + place + small[at + 5 :]


def _decoded(data: bytes) -> Image.Image:
    with images.opened(data, name="a drawn image", kinds=images.KINDS) as image:
        image.load()
        return image


def _saved(image: Image.Image, kind: str | None, mode: str = "", **options) -> bytes:
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def _pixels(data: bytes) -> np.ndarray:
    return np.asarray(_decoded(data).convert("RGB"))


def _inside(data: bytes) -> np.ndarray:
    """Bool [H, W] of a mask that is white on black."""
    return np.asarray(_decoded(data).convert("L")) > 127


def _raw(
    pixels: np.ndarray,
    *,
    bits: int = 8,
    passes: tuple[tuple[int, int, int, int], ...] = (),
    more: list[tuple[bytes, bytes]] | None = None,
    tail: bytes = b"",
) -> bytes:
    """An RGB PNG as Pillow cannot write it."""
    header = struct.pack(">IIBBBBB", *pixels.shape[1::-1], bits, 2, 0, 0, bool(passes))
    parts = [pixels[y::down, x::along] for y, x, down, along in passes or ((0, 0, 1, 1),)]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    data = (b"IDAT", zlib.compress(rows + tail))
    return _png([(b"IHDR", header), *(more or []), data, (b"IEND", b"")])


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    found = b"\x89PNG\r\n\x1a\n"
    for kind, content in chunks:
        check = struct.pack(">I", zlib.crc32(kind + content))
        found += struct.pack(">I", len(content)) + kind + content + check
    return found


def _descriptor(data: bytes) -> int:
    """Where the first frame of a GIF begins."""
    at = 13 + (3 * 2 ** ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    while data[at] == 0x21:  # an extension: its kind, then blocks up to an empty one
        at += 2
        while data[at]:
            at += 1 + data[at]
        at += 1
    return at

"""Encoded images: opened so that what is wrong names the file, written as PNG.

The only place that opens images. The decoder is chosen here and not by Pillow, some of whose
decoders start programs. No archive format and no dataset is known here.
"""

import contextlib
import io
import os
import pathlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from zlib_ng import zlib_ng

from segdata import archives
from segdata.archives import resizing, trees
from segdata.core.system.compiling import compiled

# 261 real images on one core: level 1 makes 25.5 MB at 115 images/s, 3 makes 22.3 MB at 83, 6 makes
# 21.0 MB at 34, 9 makes 18.7 MB at 4.
_COMPRESS_LEVEL = 3

_LARGEST_GIF = 1 << 22  # bytes; Pillow joins comments in time that grows with their square
_BMP_RUNS = (1, 2)  # Pillow decodes them in Python: 1 kB to 8 GB
_MOST_SCANS = 100  # of a JPEG, each of which goes over the whole image; a photo has ten
_LONGEST_SIDE = 1 << 16  # pixels
MOST_PIXELS = 1 << 25
"""Of an image: 13 times the largest real one; as RGBA 128 MiB."""

Kind = Literal["PNG", "JPEG", "GIF", "BMP", "TIFF", "WebP"]
_OPEN: dict[Kind, type[ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
}
KINDS: tuple[Kind, ...] = tuple(_OPEN)
"""All kinds of images that can be opened."""

_PNG = b"\x89PNG\r\n\x1a\n"
_GREY = bytes([8, 0, 0, 0, 0])  # in a PNG's header: 8 bits, one channel, rows from the top down
_PICTURES = {
    _PNG: "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
    b"RIFF": "WebP",
}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_JARGON = {
    "not identified by this driver": "its header gives no size",
    "Decompressed data too large for PngImagePlugin.MAX_TEXT_CHUNK": "a comment inflates to over "
    "1 MiB",
}


@contextlib.contextmanager
def opened(
    data: bytes, *, name: str, kinds: Sequence[Kind] = ("PNG", "JPEG")
) -> Iterator[Image.Image]:
    """An image with its header read and its pixels not yet decoded.

    Decode it inside the context, and read there whatever else comes from the file, such as EXIF:
    exceptions inside become an error that names the file.

    Args:
        data: The encoded image.
        name: Of the archive and the file, for messages.
        kinds: The kinds that it may be; by default those in built datasets.

    Raises:
        ArchiveError: If it is of another kind, animated, larger than 33 megapixels, or damaged,
            here or where its pixels are decoded.
    """
    kind = _kind(data, name, kinds)
    if kind == "GIF" and len(data) > _LARGEST_GIF:
        raise archives.ArchiveError(
            f"{name} is a GIF of {len(data):,} bytes; up to {_LARGEST_GIF:,} are read. Save it as "
            "a PNG."
        )
    if kind == "JPEG" and (scans := _scans(data)) > _MOST_SCANS:
        raise archives.ArchiveError(
            f"{name} is a JPEG of {scans:,} scans; up to {_MOST_SCANS} are decoded. Save it again."
        )
    try:
        if kind == "PNG":
            _check(data)
        image = _OPEN[kind](io.BytesIO(data))
        _measure(image, name)
        yield image
    except archives.ArchiveError:
        raise
    except Exception as error:  # Pillow raises nearly any kind on damaged images
        raise archives.ArchiveError(
            f"{name} is no readable {kind}: {_gist(error)}. Download it again."
        ) from error


@contextlib.contextmanager
def opened_file(
    path: str | os.PathLike[str], *, kinds: Sequence[Kind] = KINDS
) -> Iterator[Image.Image]:
    """The same for a file; raises as `data_of` does, too."""
    with opened(data_of(path), name=str(path), kinds=kinds) as image:
        yield image


def data_of(path: str | os.PathLike[str]) -> bytes:
    """The bytes of an image file.

    Raises:
        ArchiveError: If there is no such file, or it cannot be read.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise archives.ArchiveError(f"{path}: there is no such file.")
    if path.is_dir():
        raise archives.ArchiveError(f"{path} is a folder; name the image files in it.")
    return trees.Tree(str(path.parent), {path.name: path}).read(path.name)


def rgb(image: Image.Image) -> Image.Image:
    """Converts to RGB and drops transparency; palettes go by RGBA, or Pillow warns."""
    image.load()  # here, where an error names the file
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def at_size(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Decodes an opened image at the size of a model's input, in packing and prediction alike.

    A JPEG is decoded at the smallest scale that still holds twice the size.

    Args:
        image: Not decoded yet.
        size: Height and width, H and W, in pixels.

    Returns:
        uint8 [H, W, 3].
    """
    width, height = image.size
    reduced = image.draft("RGB", (2 * size[1], 2 * size[0]))
    step = round(width / reduced[1][2]) if reduced else 1
    pixels = np.asarray(rgb(image))
    return resizing.image(pixels, size, full=(height, width), step=step)


def classes(image: Image.Image) -> np.ndarray:
    """The class ids of a mask: uint8 [H, W]; one bit decodes to 0 and 255, as in TFDS.

    Raises:
        ValueError: If it has several channels, or more than 8 bits.
    """
    found = np.asarray(image.convert("L") if image.mode == "1" else image)
    if found.ndim != 2 or found.dtype != np.uint8:
        raise ValueError(f"a mask of mode {image.mode}, not of one channel of 8 bits")
    return found


def classes_of_png(data: bytes, *, name: str) -> np.ndarray:
    """The class ids of a mask that is a PNG: uint8 [H, W].

    Args:
        data: The PNG; one bit decodes to 0 and 255, as in TFDS.
        name: Of the file, for messages.

    Raises:
        ArchiveError: If it is no whole PNG of one channel and up to 8 bits.
    """
    if (found := grey(data)) is not None:
        return found
    with opened(data, name=name, kinds=["PNG"]) as image:
        return classes(image)


def grey(data: bytes) -> np.ndarray | None:
    """Decodes a PNG that holds 8-bit grey levels and nothing else.

    Masks are such PNGs: runs, which zlib copies byte by byte and Pillow inflates row by row. Of a
    real car's mask of 1918×1280 zlib-ng inflates all at once in 0.3 ms, and Pillow in 4.8.

    Returns:
        uint8 [H, W]; None of any other file, of damaged ones too: `opened` reads it, or says what
        is wrong with it.
    """
    if data[:16] != _PNG + b"\0\0\0\rIHDR" or data[24:29] != _GREY:
        return None
    width, height = struct.unpack_from(">2I", data, 16)
    if not 0 < width * height <= MOST_PIXELS or max(width, height) > _LONGEST_SIDE:
        return None
    size = height * (1 + width)
    try:
        (_, *pixels, _) = png_chunks(data)
        inflater = zlib_ng.decompressobj()
        rows = inflater.decompress(b"".join(content for _, content in pixels), size + 1)
    except (ValueError, zlib_ng.error):  # pyright: ignore[reportGeneralTypeIssues] - its stub errs
        return None
    if {kind for kind, _ in pixels} != {b"IDAT"} or len(rows) != size or not inflater.eof:
        return None
    found = np.empty((height, width), np.uint8)
    is_whole = _unfilter(np.frombuffer(rows, np.uint8).reshape(height, 1 + width), found)
    return found if is_whole else None


def upright(image: Image.Image) -> Image.Image:
    """Turns an image by its EXIF orientation; nothing else of EXIF is read."""
    turn = orientation(image)
    return image.transpose(_UPRIGHT[turn]) if turn > 1 else image


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, from 1 to 8; 1 is upright, also without EXIF."""
    found = image.getexif().get(ExifTags.Base.Orientation, 1)
    return found if found in range(1, 9) else 1


def png(image: Image.Image, *, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """A PNG of the image, in its mode.

    Args:
        image: Of any mode that PNG has.
        strategy: Of zlib. For flat masks and for noise `zlib.Z_RLE` makes files a third smaller
            than the default, and is half again as fast.
    """
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=_COMPRESS_LEVEL, compress_type=strategy)
    return buffer.getvalue()


def mask_png(mask: np.ndarray) -> bytes:
    """A PNG of one channel, for flat areas.

    Pillow tries five filters on each row; without filters, masks of synthetic cars of 1918×1280
    take 5 ms instead of 11, and 4.6 kB instead of 5.9.

    Args:
        mask: uint8 [H, W].
    """
    height, width = mask.shape
    rows = np.zeros(
        (height, 1 + width), np.uint8
    )  # each begins with the number of its filter: none
    rows[:, 1:] = mask
    deflate = zlib.compressobj(_COMPRESS_LEVEL, strategy=zlib.Z_RLE)
    chunks = {
        b"IHDR": struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0),  # 8 bits, grey
        b"IDAT": deflate.compress(rows.data) + deflate.flush(),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG to its end: kind and content of each.

    Raises:
        ValueError: If it is cut, or a checksum is wrong.
    """
    at, kind = len(_PNG), b""
    while kind != b"IEND":
        size, kind = struct.unpack_from(">I4s", data, at) if at + 8 <= len(data) else (0, b"")
        content, crc = data[at + 8 : at + 8 + size], data[at + 8 + size : at + 12 + size]
        if len(crc) < 4:
            raise ValueError(f"it is cut after {len(data):,} bytes")
        if zlib_ng.crc32(kind + content) != int.from_bytes(crc):
            raise ValueError(f"the checksum of its {kind.decode('latin-1')} chunk is wrong")
        yield kind, content
        at += 12 + size


def _check(data: bytes) -> None:
    """Pillow does not look at the checksums of pixels, and other readers do."""
    for _ in png_chunks(data):
        pass


def _scans(jpeg: bytes) -> int:
    """How often a scan begins; 5 times as fast as `bytes.count`."""
    found = np.frombuffer(jpeg, np.uint8)
    return int(np.count_nonzero((found[:-1] == 0xFF) & (found[1:] == 0xDA)))


@compiled
def _unfilter(rows: np.ndarray, pixels: np.ndarray) -> bool:
    """Undoes what makes rows of a PNG smaller: uint8 [H, 1 + W] to [H, W]; False if unknown."""
    height, width = pixels.shape
    above = np.zeros(width, np.uint8)
    for y in range(height):
        kind, packed, row = rows[y, 0], rows[y, 1:], pixels[y]
        if kind == 0:
            for x in range(width):  # 4 times as fast as an assignment
                row[x] = packed[x]
        elif kind == 1:  # the difference from the pixel on the left
            left = 0
            for x in range(width):
                left = (packed[x] + left) & 255
                row[x] = left
        elif kind == 2:  # from the pixel above
            for x in range(width):
                row[x] = packed[x] + above[x]
        elif kind == 3:  # from the mean of both
            left = 0
            for x in range(width):
                left = (packed[x] + (left + above[x]) // 2) & 255
                row[x] = left
        elif kind == 4:  # from whichever of these and the corner is nearest to what they predict
            left = corner = 0
            for x in range(width):
                up = np.int64(above[x])
                near_left, near_up = abs(up - corner), abs(left - corner)
                near_corner = abs(left + up - 2 * corner)
                if near_left <= near_up and near_left <= near_corner:
                    guess = left
                else:
                    guess = up if near_up <= near_corner else corner
                left = (packed[x] + guess) & 255
                row[x] = left
                corner = up
        else:
            return False
        above = row
    return True


def _kind(data: bytes, name: str, kinds: Sequence[Kind]) -> Kind:
    """The kind of an image; raises if it is not one of `kinds`."""
    *others, last = kinds
    wanted = f"{', '.join(others)} or {last}" if others else last
    if not data:
        raise archives.ArchiveError(f"{name} is empty, 0 bytes. Download it again.")
    found = next((k for magic, k in _PICTURES.items() if data.startswith(magic)), "")
    for kind in kinds:
        if kind == found:
            return kind
    if found:
        raise archives.ArchiveError(
            f"{name} is a {found}, not a {wanted}. Save it as a {last}, or download it again."
        )
    page = "a web page" if data.lstrip().startswith(b"<") else f"no picture: {data[:8]!r}…"
    raise archives.ArchiveError(
        f"{name} is {page}, not a {wanted}. Download it again, or convert it."
    )


def _gist(error: Exception) -> str:
    """What is wrong with an image, in words that need no knowledge of Pillow."""
    if isinstance(error, MemoryError):
        return "there is too little memory for it"
    text = " ".join(str(error).split())[:200].rstrip(".")
    if not isinstance(error, (OSError, SyntaxError, ValueError, Image.DecompressionBombError)):
        return "its header is cut or damaged"
    return _JARGON.get(text, text)


def _measure(image: Image.Image, name: str) -> None:
    # Where frames are looked for, the size may still grow. They are not counted: that takes hours.
    several = getattr(image, "is_animated", False)
    pixels = image.width * image.height
    if pixels > MOST_PIXELS:
        raise archives.ArchiveError(
            f"{name} claims {image.width:,}×{image.height:,} pixels; up to {MOST_PIXELS:,} are "
            "decoded. Download it again; or make it smaller, if it is as large."
        )
    if max(image.size) > _LONGEST_SIDE:
        raise archives.ArchiveError(
            f"{name} claims {image.width:,}×{image.height:,} pixels; sides up to "
            f"{_LONGEST_SIDE:,} are decoded. Download it again, or cut it in pieces."
        )
    if several:
        raise archives.ArchiveError(
            f"{name} has 2 frames or more, where one is meant. Save the right one alone."
        )
    if image.format == "BMP" and image.info.get("compression", 0) in _BMP_RUNS:
        raise archives.ArchiveError(
            f"{name} is a BMP of run lengths, which may decode to anything. Save it as a PNG."
        )

"""Images and masks of any kind as arrays: TIFF and OME-TIFF by tifffile, all others by Pillow.

Here nothing is scaled: what has more than 8 bits keeps them. A file of several pages or channels is
read only where it is said which. No dataset is known here.
"""

import contextlib
import dataclasses
import io
import itertools
import logging
import math
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from segdata import archives
from segdata.archives import images, lzw
from segdata.archives.mask_files import Stored

ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp")
"""Of the files that are read."""
FOREIGN = (
    *(".avif", ".czi", ".dcm", ".dng", ".h5", ".hdf5", ".heic", ".heif", ".ims", ".jp2", ".lif"),
    *(".lsm", ".mat", ".mrc", ".nd2", ".nii", ".npy", ".npz", ".oib", ".oif", ".ppm", ".svs"),
    *(".tga", ".vsi", ".zarr"),
)
"""Of files that may be images, and are not read."""

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# None, LZW, JPEG, deflate (two numbers), PackBits, Zstandard (two).
COMPRESSIONS = (1, 5, 7, 8, 32946, 32773, 34926, 50000)
_LZW, _LOSSY = 5, 7  # the latter is JPEG
_PLAIN = (1, 32773)  # in which values are no differences, whatever a file says of a predictor
_REVERSED = 2  # bits of each byte: the lowest comes first
# What a TIFF's values mean: 1 is grey, 4 which pixels are meant.
_WHITE_IS_0, _RGB, _PALETTE, _YCBCR = 0, 2, 3, 6
_MEANINGS = (_WHITE_IS_0, 1, _RGB, _PALETTE, 4)
_ALPHA = ((1,), (2,))  # of the samples beyond grey or colours: premultiplied or not; 0 says nothing
_LARGEST_STACK = 1 << 29  # bytes, decoded, where pages cannot be read one by one
_MOST_SAMPLES = 64
_MOST_PLANES = 1 << 20  # which tifffile lists one by one, and a few bytes may claim
_KINDS: tuple[images.Kind, ...] = tuple(kind for kind in images.KINDS if kind != "TIFF")


class PagesError(archives.ArchiveError):
    """A file of several pages, none of which is chosen."""


class ChannelsError(archives.ArchiveError):
    """A file of several channels, none of which is chosen."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A decoded image.

    Attributes:
        pixels: [H, W, C], of one to three channels, of the type that the file has.
        is_plain: Whether the file is an upright 8-bit RGB PNG or JPEG, whose bytes can be kept.
        lost: What of the file is not in the pixels, such as "transparency".
        turned: The orientation, of EXIF or TIFF, that was undone; 1 where there was none.
    """

    pixels: np.ndarray
    is_plain: bool = False
    lost: str = ""
    turned: int = 1


def read(
    data: bytes, *, name: str, page: int | None = None, channels: Sequence[str] = ()
) -> Picture:
    """Decodes an image of any kind; a palette as its colours, and upright.

    Args:
        data: The file.
        name: Of the archive and the file, for messages.
        page: Which page of a TIFF, from 0; None where it has one.
        channels: Names (of OME-TIFF) or numbers of one to three channels.

    Raises:
        PagesError: If it has several pages, and `page` is None or beyond the last.
        ChannelsError: If it has other than one or three channels, or not those.
        ArchiveError: If it is no image, damaged or too large.
    """
    if data.startswith(TIFF):
        return _tiff(data, name, page, channels)
    if page:
        raise PagesError(f"{name} has 1 page, and page {page} was asked for.")
    pixels, lost = _deep_png(data, name), ""
    with images.opened(data, name=name, kinds=_KINDS) as opened:
        turned = images.orientation(opened)
        if pixels is None and opened.mode in ("I", "F", "I;16", "I;16B", "I;16L", "I;16N"):
            pixels = np.asarray(images.upright(opened))
            pixels = (pixels.astype(np.uint16) if opened.mode != "F" else pixels)[..., None]
        elif pixels is not None:
            pixels = _turned(pixels, turned)
        is_plain = pixels is None and turned == 1 and opened.mode == "RGB"
        is_plain &= opened.format in ("PNG", "JPEG") and "transparency" not in opened.info
        if pixels is None:
            lost = _lost(opened)
            upright = images.upright(opened)
            is_grey = upright.mode in ("1", "L", "LA") and "transparency" not in opened.info
            pixels = np.asarray(upright.convert("L") if is_grey else images.rgb(upright))
            pixels = pixels[..., None] if is_grey else pixels
        elif pixels.shape[-1] in (2, 4):
            lost = "transparency"
            pixels = pixels[..., :-1]
    names = ["grey"] if pixels.shape[-1] == 1 else ["red", "green", "blue"]
    if channels:
        pixels, is_plain = _chosen(pixels, names, channels, name), False
    return Picture(pixels=pixels, is_plain=is_plain, lost=lost, turned=turned)


def read_mask(data: bytes, *, name: str, page: int | None = None) -> Stored:
    """Decodes a mask of any kind, as it is stored.

    Raises:
        ArchiveError: If it is no image, damaged, too large, of fractions, a TIFF whose 0 is white,
            or partly transparent in colours other than black, or black and nothing else.
    """
    if data.startswith(TIFF):
        with _opened_tiff(data, name) as file:
            plane = _plane(file, name, page)
        if plane.photometric == _WHITE_IS_0:
            raise archives.ArchiveError(
                f"{name} says that its 0 is white, and programs differ in whether they swap black "
                "and white then. Save it with 0 as black, or as a PNG; in ImageJ choose the lookup "
                "table Grays first."
            )
        pixels = plane.pixels
        if pixels.shape[-1] not in (1, 3):
            raise ChannelsError(f"{name} has {pixels.shape[-1]} channels; a mask has one, or RGB.")
        is_grey = pixels.shape[-1] == 1
        pixels = _whole_numbers(pixels[..., 0], name) if is_grey else _eight_bits(pixels, name)
        return Stored(pixels, plane.palette, is_lossy=plane.is_lossy)
    if (levels := images.grey(data)) is not None:
        return Stored(levels)
    if (deep := _deep_png(data, name)) is not None:
        _eight_bits(deep, name)
    with images.opened(data, name=name, kinds=_KINDS) as opened:
        lossy = opened.format == "JPEG" or _is_lossy_webp(data)
        image = images.upright(opened)
        if opened.mode == "P" and "transparency" not in opened.info:
            palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
            return Stored(np.asarray(image), palette)
        if opened.mode == "1":
            return Stored(np.asarray(image.convert("L")))
        if opened.mode == "L" and "transparency" not in opened.info:
            return Stored(np.asarray(image), is_lossy=lossy)
        if opened.mode.startswith(("I", "F")):
            return Stored(_whole_numbers(np.asarray(image), name))
        if "A" in opened.mode or "transparency" in opened.info:
            seen = np.asarray(image.convert("RGBA"))
            alpha = seen[..., 3]
            if ((alpha != 255) & ((alpha != 0) | seen[..., :3].any(axis=-1))).any():
                raise archives.ArchiveError(
                    f"{name} is partly transparent, and not black there: what that means cannot be "
                    "known. Save it without transparency."
                )
            if not seen[..., :3].any() and alpha.min() < alpha.max():
                raise archives.ArchiveError(
                    f"{name} is black, and transparent in a part of it: if that is the mask, save "
                    "it as grey levels."
                )
            return Stored(np.ascontiguousarray(seen[..., :3]), is_lossy=lossy)
        return Stored(np.asarray(images.rgb(image)), is_lossy=lossy)


def _is_lossy_webp(data: bytes) -> bool:
    """Whether a file is a WebP, and the chunk of its pixels that of lossy ones."""
    at = 12 if data.startswith(b"RIFF") else len(data)
    while at + 8 <= len(data) and data[at : at + 4] not in (b"VP8 ", b"VP8L"):
        at += 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 1) // 2 * 2
    return data[at : at + 4] == b"VP8 "


def _lost(image: Image.Image) -> str:
    """What converting an image to 8-bit grey or RGB leaves out."""
    if image.mode in ("LA", "RGBA", "PA", "La", "RGBa") or "transparency" in image.info:
        alpha = image.convert("RGBA").getchannel("A")
        return "transparency" if alpha.getextrema()[0] != 255 else ""
    return f"the colour space {image.mode}" if image.mode not in ("1", "L", "P", "RGB") else ""


def _deep_png(data: bytes, name: str) -> np.ndarray | None:
    """The pixels of a PNG of 16-bit colours, of which Pillow gives 8; None of all others."""
    if not data.startswith(b"\x89PNG") or data[24:25] != b"\x10" or data[25:26] == b"\0":
        return None
    with images.opened(data, name=name, kinds=["PNG"]) as opened:
        opened.load()  # sizes and checksums are checked there
        return np.asarray(imagecodecs.png_decode(data))


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes an EXIF orientation."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels


def _whole_numbers(pixels: np.ndarray, name: str) -> np.ndarray:
    """A mask's numbers as uint8, uint16 or uint32."""
    if pixels.dtype in (np.uint8, np.uint16, np.uint32):
        return pixels
    if pixels.dtype == bool:
        return pixels.astype(np.uint8)
    numbers = pixels.astype(np.int64) if np.isfinite(pixels).all() else np.array([-1])
    if (
        (numbers < 0).any()
        or (numbers > np.iinfo(np.uint32).max).any()
        or (numbers != pixels).any()
    ):
        raise archives.ArchiveError(
            f"{name} has numbers that are not whole, or below 0. Save it with whole numbers."
        )
    return numbers.astype(np.uint16 if numbers.max(initial=0) < 1 << 16 else np.uint32)


def _eight_bits(colours: np.ndarray, name: str) -> np.ndarray:
    """A mask's colours as uint8, where they have no more bits than that."""
    if colours.dtype == np.uint16 and not (colours % 257).any():
        return (colours // 257).astype(np.uint8)
    if colours.dtype != np.uint8:
        raise archives.ArchiveError(
            f"{name} has colours of more than 8 bits. Save it as grey levels of 16 bits, or as "
            "colours of 8."
        )
    return colours


def _tiff(data: bytes, name: str, page: int | None, channels: Sequence[str]) -> Picture:
    with _opened_tiff(data, name) as file:
        plane = _plane(file, name, page)
    pixels, names = plane.pixels, plane.channels
    if plane.palette is not None:
        pixels = plane.palette[pixels[..., 0].astype(np.intp)]
    elif plane.photometric == _WHITE_IS_0:
        pixels = _swapped(pixels, plane.bits, name)
    lost = ""
    is_rgb = plane.palette is not None or plane.photometric in (_RGB, _YCBCR)
    if is_rgb and pixels.shape[-1] >= 3 and not channels:
        if pixels.shape[-1] == 4:
            pixels, lost = pixels[..., :3], _lost_band(pixels[..., 3], is_alpha=plane.has_alpha)
        names = ["red", "green", "blue"]
    if channels:
        pixels = _chosen(pixels, names, channels, name)
    elif not (pixels.shape[-1] == 1 or (is_rgb and pixels.shape[-1] == 3)):
        raise ChannelsError(f"{name} has {pixels.shape[-1]} channels: {', '.join(names)}.")
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    elif plane.bits < 8 and plane.palette is None:
        most = (1 << plane.bits) - 1
        pixels = ((255 * pixels.astype(np.uint16) + most // 2) // most).astype(np.uint8)
    if pixels.dtype.kind == "f" and np.isnan(pixels).any():
        lost = "what is no number (NaN)"
    return Picture(pixels=np.ascontiguousarray(pixels), lost=lost, turned=plane.turned)


def _lost_band(band: np.ndarray, *, is_alpha: bool) -> str:
    """What is lost with the fourth band of colours."""
    if not is_alpha:
        is_even = (band == band.flat[0]).all()
        return "" if is_even else "a fourth band, whose meaning the file does not say,"
    opaque = np.iinfo(band.dtype).max if band.dtype.kind in "ui" else 1
    return "transparency" if (band != opaque).any() else ""


def _swapped(pixels: np.ndarray, bits: int, name: str) -> np.ndarray:
    """Black for white and white for black."""
    if pixels.dtype == bool:
        return ~pixels
    if pixels.dtype.kind != "u":
        raise archives.ArchiveError(
            f"{name} says that its 0 is white, and has values of {pixels.dtype}, of which none is "
            "black then. Save it with 0 as black."
        )
    return pixels.dtype.type((1 << bits) - 1) - pixels


@contextlib.contextmanager
def _opened_tiff(data: bytes, name: str) -> Iterator[tifffile.TiffFile]:
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong is raised below
    try:
        # Other files that an OME-TIFF names are not opened.
        with tifffile.TiffFile(io.BytesIO(data), name=name, _multifile=False) as file:
            require_listable(data, file, name)
            yield file
    except archives.ArchiveError:
        raise
    except Exception as error:  # tifffile and codecs raise nearly any kind on damaged files
        text = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise archives.ArchiveError(
            f"{name} is no readable TIFF: {text}. Copy it again, or export it anew."
        ) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Plane:
    """One plane of a TIFF.

    Attributes:
        pixels: [H, W, C], upright.
        channels: Their names.
        photometric: The TIFF's number for what its values mean.
        bits: Of a value.
        palette: uint8 [N, 3], where values are its rows.
        turned: The orientation that was undone.
        is_lossy: Whether it is compressed as JPEG.
        has_alpha: Whether the first channel beyond its colours is transparency.
    """

    pixels: np.ndarray
    channels: list[str]
    photometric: int
    bits: int
    palette: np.ndarray | None
    turned: int
    is_lossy: bool
    has_alpha: bool


def _plane(file: tifffile.TiffFile, name: str, page: int | None) -> _Plane:
    planes = [
        (series, outer)
        for series in file.series
        for outer in itertools.product(
            *(range(size) for axis, size in _sides(series) if axis not in "YXCS")
        )
    ]
    if not planes:
        raise archives.ArchiveError(f"{name} has no image in it. Export it anew.")
    if page is None and len(planes) > 1:
        axes = ", ".join(
            f"{size} along {axis}"
            for axis, size in _sides(file.series[0])
            if axis not in "YXCS" and size > 1
        )
        raise PagesError(
            f"{name} has {len(planes)} pages ({axes or 'separate images'}), where one is meant."
        )
    if page is not None and page >= len(planes):
        raise PagesError(f"{name} has {len(planes)} pages, and page {page} was asked for.")
    series, outer = planes[page or 0]
    _check(series, name)
    pixels = _read_plane(series, outer, name)
    first = series.keyframe
    found = first.tags.valueof("Orientation", default=1)
    turned = found if found in range(1, 9) else 1
    return _Plane(
        pixels=_turned(pixels, turned),
        channels=_channel_names(file, file.series.index(series), pixels.shape[-1]),
        photometric=int(first.photometric),
        bits=int(first.bitspersample),
        palette=_palette(first, name) if int(first.photometric) == _PALETTE else None,
        turned=turned,
        is_lossy=int(first.compression) == _LOSSY,
        has_alpha=first.extrasamples[:1] in _ALPHA,
    )


def _palette(page: Any, name: str) -> np.ndarray:
    """uint8 [N, 3] of a TIFF's uint16 [3, N]; some programs write 8 bits there."""
    colours = page.colormap
    if np.dtype(page.dtype).kind not in "bu" or colours.shape != (3, 1 << page.bitspersample):
        raise archives.ArchiveError(f"{name} has a palette that lacks colours. Export it anew.")
    return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8).T


def require_listable(data: Any, file: tifffile.TiffFile, name: str) -> None:
    """Checks that tifffile can list the planes of a file.

    Args:
        data: Its bytes, or a map of them.
        file: The same, opened.
        name: Of the file, for messages.

    Raises:
        ArchiveError: If its pages lead back to themselves, or it claims over a million planes.
    """
    _require_ending_chain(data, file, name)
    _require_few_planes(file, name)


def _require_ending_chain(data: Any, file: tifffile.TiffFile, name: str) -> None:
    """Raises ArchiveError where a page is followed by one before it: tifffile would not end."""
    form, seen = file.tiff, set[int]()
    (offset,) = struct.unpack_from(form.offsetformat, data, 8 if form.is_bigtiff else 4)
    while offset and offset + form.tagnosize <= len(data):
        if offset in seen:
            raise archives.ArchiveError(
                f"{name} is no readable TIFF: its list of pages leads back to itself. Copy it "
                "again, or export it anew."
            )
        seen.add(offset)
        (tags,) = struct.unpack_from(form.tagnoformat, data, offset)
        end = offset + form.tagnosize + tags * form.tagsize
        if end + form.offsetsize > len(data):
            return
        (offset,) = struct.unpack_from(form.offsetformat, data, end)


def _require_few_planes(file: tifffile.TiffFile, name: str) -> None:
    """Raises ArchiveError where a file claims more planes than can be listed."""
    claimed = 0
    if file.is_ome:  # tifffile would list them to say how many there are
        for pixels in re.findall(r"<(?:\w+:)?Pixels\b[^>]*", file.ome_metadata or ""):
            sides = re.findall(r"\bSize[ZCT]\s*=\s*[\"'](\d{1,20})", pixels)
            claimed = max(claimed, math.prod(map(int, sides)))
    if claimed <= _MOST_PLANES:
        for series in file.series:
            shape = (size for axis, size in _sides(series) if axis not in "YX")
            claimed = max(claimed, math.prod(shape))
    if claimed > _MOST_PLANES:
        raise archives.ArchiveError(
            f"{name} claims {claimed:,} planes; up to {_MOST_PLANES:,} are listed. Export it anew."
        )


def _sides(series: Any) -> list[tuple[str, int]]:
    return list(zip(series.axes, series.shape, strict=True))


def guard(pages: Iterable[Any]) -> None:
    """Has pages of tifffile decode LZW only where it is sound, and differences as libtiff does.

    Source: TIFF 6.0, section 14, has them with LZW alone; libtiff with deflate and Zstandard too.

    Raises:
        ValueError: If strips or tiles are not listed, or some have no bytes where they are.
    """
    pages = [page for page in pages if page]
    for page in pages:
        _require_parts(page)
    for page in {id(page.keyframe): page.keyframe for page in pages}.values():
        if int(page.compression) in _PLAIN:
            page.predictor = 1
        if int(page.compression) == _LZW:
            _guard(page)


def _require_parts(page: Any) -> None:
    """Raises ValueError where strips or tiles are not there, but for those without a place.

    For millions of such tifffile takes minutes, and one without bytes it takes for the next.
    """
    if page.is_contiguous:  # which is read at once
        return
    wanted, starts, counts = math.prod(page.chunked), page.dataoffsets, page.databytecounts
    if (listed := min(len(starts), len(counts))) < wanted:
        raise ValueError(f"it lists {listed:,} of its {wanted:,} strips or tiles")
    for number, (start, count) in enumerate(zip(starts, counts, strict=False)):
        if start and not count:
            raise ValueError(f"its strip or tile {number} has no bytes")


def _guard(page: Any) -> None:
    decode, most = page.decode, math.prod(page.chunks) * np.dtype(page.dtype).itemsize

    def guarded(data: bytes | None, index: int, **options: Any) -> Any:
        if data is not None:
            bits = imagecodecs.bitorder_decode(data) if page.fillorder == _REVERSED else data
            if not lzw.is_sound(bits, most=most):
                raise ValueError(f"its LZW data, part {index}, are damaged")
        return decode(data, index, **options)

    page.decode = guarded


def _check(series: Any, name: str) -> None:
    sides = dict(_sides(series))
    first = series.keyframe
    height, width = sides.get("Y", 0), sides.get("X", 0)
    samples = sides.get("C", 1) * sides.get("S", 1)
    if not height or not width or len(sides) != len(series.axes):
        raise archives.ArchiveError(f"{name} has the axes {series.axes}, which are no image.")
    if max(height * width, first.imagewidth * first.imagelength) > images.MOST_PIXELS:
        raise archives.ArchiveError(
            f"{name} claims {width:,}×{height:,} pixels; up to {images.MOST_PIXELS:,} are decoded. "
            "Cut it into tiles."
        )
    if samples > _MOST_SAMPLES:
        raise ChannelsError(f"{name} has {samples:,} channels; up to {_MOST_SAMPLES} are read.")
    is_jpeg = int(first.compression) == _LOSSY  # which becomes RGB as it is decoded
    if int(first.photometric) not in _MEANINGS and not (
        int(first.photometric) == _YCBCR and is_jpeg
    ):
        raise archives.ArchiveError(
            f"{name} has the colours {first.photometric.name}, which are not read. Save it as grey "
            "or RGB."
        )
    if series.dtype is None or series.dtype.kind not in "buif":
        raise archives.ArchiveError(
            f"{name} holds numbers of {series.dtype}, which are no brightness. Save what is to be "
            "seen, such as their magnitude."
        )
    if int(first.compression) not in COMPRESSIONS:
        raise archives.ArchiveError(
            f"{name} is compressed by {first.compression.name}, which is not read. Save it with "
            "LZW or deflate."
        )


def _read_plane(series: Any, outer: tuple[int, ...], name: str) -> np.ndarray:
    """[H, W, C] at a place of the axes other than Y, X, C and S."""
    axes = [axis for axis, _ in _sides(series)]
    inner = series.keyframe.axes
    outside = axes[: len(axes) - len(inner)]
    place = dict(zip((axis for axis in axes if axis not in "YXCS"), outer, strict=True))
    shape = series.shape[: len(outside)]
    if series.axes.endswith(inner) and len(series.pages) == math.prod(shape):
        ranges = [
            range(size) if axis in "CS" else [place[axis]]
            for axis, size in zip(outside, shape, strict=True)
        ]
        at = [
            int(np.ravel_multi_index(i, shape)) if shape else 0 for i in itertools.product(*ranges)
        ]
        guard(pages := [series.pages[index] for index in at])
        found = np.stack([page.asarray() for page in pages])
        found = found.reshape(*(len(values) for values in ranges), *found.shape[1:])
    else:
        size = math.prod(series.shape) * np.dtype(series.dtype).itemsize
        if size > _LARGEST_STACK:
            raise archives.ArchiveError(
                f"{name} is a stack of {size:,} bytes, more than the {_LARGEST_STACK:,} that are "
                "decoded at once. Save the page alone."
            )
        guard(series.pages)
        found = series.asarray()
        index = tuple(
            slice(place[axis], place[axis] + 1) if axis in place else slice(None) for axis in axes
        )
        found = found[index]
    order = [axis for axis in "YXCS" if axis in axes]
    kept = [axis for axis in axes if axis in "YXCS"]
    found = found.reshape(
        [size for axis, size in zip(axes, found.shape, strict=True) if axis in kept]
    )
    found = found.transpose([kept.index(axis) for axis in order])
    return found.reshape(*found.shape[:2], -1)


def _channel_names(file: tifffile.TiffFile, image: int, count: int) -> list[str]:
    """Those of an image of OME-TIFF, else numbers from 0."""
    numbers = [str(number) for number in range(count)]
    if not file.is_ome or not file.ome_metadata:
        return numbers
    found = tifffile.xml2dict(file.ome_metadata).get("OME", {}).get("Image", {})
    found = found if isinstance(found, list) else [found]
    if len(found) != len(file.series):  # which of them this is, is not known
        return numbers
    channels = found[image].get("Pixels", {}).get("Channel", [])
    channels = channels if isinstance(channels, list) else [channels]
    names = [str(channel.get("Name", "")) for channel in channels]
    is_whole = len(names) == count and all(names) and len({*names}) == count
    return names if is_whole else numbers


def _chosen(
    pixels: np.ndarray, names: Sequence[str], channels: Sequence[str], name: str
) -> np.ndarray:
    """Some channels, in the order asked for."""
    found = []
    for channel in channels:
        if channel in names:
            found.append(names.index(channel))
        elif channel.isdecimal() and int(channel) < len(names):
            found.append(int(channel))
        else:
            raise ChannelsError(f"{name} has no channel {channel!r}; it has {', '.join(names)}.")
    return pixels[..., found]

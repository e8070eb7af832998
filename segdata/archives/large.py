"""TIFFs that are too large for memory, read by rows.

A file in tiles, in strips or uncompressed is decoded a few rows at a time; only what is asked for
is in memory. Such a file is upright and grey or RGB; others are refused. Files that fit are read by
`scientific`, to the same pixels.
"""

import contextlib
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tifffile

from segdata import archives
from segdata.archives import images, scientific

MOST_AT_ONCE = images.MOST_PIXELS
"""An image of more pixels is read by rows."""
MOST_PIXELS = 1 << 32
"""An image of more is refused."""

_WHOLE = 1 << 27  # bytes of a file; larger ones are not read at once


class Rows:
    """The rows of an image.

    Attributes:
        shape: H, W and C.
        dtype: Of its numbers.
    """

    def __init__(self, page: Any, name: str, channels: Sequence[int]):
        self._page, self._name, self._channels = page, name, list(channels)
        self.dtype = np.dtype(page.dtype)
        self.shape = (page.imagelength, page.imagewidth, len(self._channels))
        self._decoded: dict[int, np.ndarray] = {}
        self._mapped = None
        scientific.guard([page])
        if page.is_memmappable:
            kind = self.dtype.newbyteorder(page.parent.byteorder)
            path = page.parent.filehandle.path
            shape = (*self.shape[:2], page.samplesperpixel)
            self._mapped = np.memmap(path, kind, "r", page.dataoffsets[0], shape)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Rows from a first one to a last one, [n, W, C], of the file's type.

        Raises:
            ArchiveError: If that part of the file is damaged.
        """
        first, last, _ = rows.indices(self.shape[0])
        if self._mapped is not None:
            return self._mapped[first:last, :, self._channels].astype(self.dtype)
        high = self._page.chunks[0]
        needed = range(first // high, -(-last // high))
        self._decoded = {n: self._decoded[n] for n in needed if n in self._decoded}
        for number in needed:
            if number not in self._decoded:
                self._decoded[number] = self._row_of_chunks(number)
        found = np.concatenate([self._decoded[number] for number in needed])
        start = first - needed[0] * high
        return found[start : start + last - first]

    def _row_of_chunks(self, number: int) -> np.ndarray:
        """All tiles or strips of one row of them, [n, W, C]."""
        page, (height, width, _) = self._page, self.shape
        high, wide = page.chunks[0], page.chunks[1]
        top = number * high
        out = np.zeros((min(high, height - top), width, len(self._channels)), self.dtype)
        across = -(-width // wide)
        tables = page.jpegtables
        for column in range(across):
            index = number * across + column
            left = column * wide
            try:
                start, count = page.dataoffsets[index], page.databytecounts[index]
                page.parent.filehandle.seek(start)
                data = page.parent.filehandle.read(count)
                tile = page.decode(data if start else None, index, jpegtables=tables)[0]
                if tile is None:  # which a file may leave out
                    out[:, left : left + wide] = page.nodata
                else:
                    tile = tile[0][: len(out), : width - left][..., self._channels]
                    out[: len(tile), left : left + tile.shape[1]] = tile
            except Exception as error:  # codecs raise nearly any kind on damaged data
                raise _unreadable(self._name, error) from error
        return out


def is_large(path: pathlib.Path) -> bool:
    """Whether a file is a TIFF that has to be read by rows; False for all that cannot be read."""
    if not path.is_file():
        return False  # opening a pipe would wait for who writes to it
    with contextlib.suppress(Exception), path.open("rb") as file:  # `scientific` says what is wrong
        if not file.read(4).startswith(scientific.TIFF):
            return False
        if path.stat().st_size > _WHOLE:
            return True
        with tifffile.TiffFile(path, _multifile=False) as tiff:
            page: Any = tiff.pages[0]
            return page.imagelength * page.imagewidth > MOST_AT_ONCE
    return False


@contextlib.contextmanager
def opened(
    path: pathlib.Path, *, page: int | None = None, channels: Sequence[str] = ()
) -> Iterator[Rows]:
    """Opens a large TIFF.

    Args:
        path: The file.
        page: As in `scientific.read`.
        channels: Numbers of one to three channels.

    Raises:
        PagesError: If it has several pages, and `page` is None or beyond the last.
        ChannelsError: If it has other than one or three channels, or not those.
        ArchiveError: If it cannot be read by rows, is damaged, or claims over 2³² pixels.
    """
    name = str(path)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(tifffile.TiffFile(path, _multifile=False))
            scientific.require_listable(np.memmap(path, np.uint8, "r"), file, name)
            pages = _pages(file, name)
        except archives.ArchiveError:
            raise
        except Exception as error:  # as above
            raise _unreadable(name, error) from error
        if page is None and len(pages) > 1:
            raise scientific.PagesError(f"{name} has {len(pages)} pages, where one is meant.")
        if (page or 0) >= len(pages):
            raise scientific.PagesError(
                f"{name} has {len(pages)} pages, and page {page or 0} was asked for."
            )
        try:
            chosen: Any = pages[page or 0].aspage()
            rows = Rows(chosen, name, _require_plain(chosen, name, channels))
        except archives.ArchiveError:
            raise
        except Exception as error:  # tags may hold anything
            raise _unreadable(name, error) from error
        yield rows


def _pages(file: tifffile.TiffFile, name: str) -> list[Any]:
    """The page of each plane, as `scientific` counts them, without smaller copies."""
    found: list[Any] = []
    for series in file.series:
        inner = series.keyframe.axes
        outer = len(series.axes) - len(inner)
        is_whole = series.axes.endswith(inner) and not {*series.axes[:outer]} & {*"CS"}
        if not is_whole or [*map(bool, series.pages)] != [True] * math.prod(series.shape[:outer]):
            raise archives.ArchiveError(
                f"{name} is too large to be read at once, and by rows only planes are read that "
                f"are pages of their own, with all their channels; it has the axes {series.axes}. "
                "Save it so."
            )
        found += [] if series.keyframe.is_reduced else series.pages
    return found


def _require_plain(page: Any, name: str, channels: Sequence[str]) -> list[int]:
    """The numbers of the channels to read; raises ArchiveError for what is not read by rows."""
    count, meaning = page.samplesperpixel, int(page.photometric)
    sides = (page.imagelength, page.imagewidth, *page.chunks[:2])
    if min(sides) < 1 or page.dtype is None:
        raise archives.ArchiveError(f"{name} has no image in it. Export it anew.")
    if page.imagelength * page.imagewidth > MOST_PIXELS:
        raise archives.ArchiveError(
            f"{name} claims {page.imagewidth:,}×{page.imagelength:,} pixels; up to "
            f"{MOST_PIXELS:,} are read. Cut it into parts."
        )
    upright = page.tags.valueof("Orientation", default=1) == 1
    is_rgb = meaning in (2, 6)  # RGB, and JPEG's colours
    is_plain = upright and (meaning == 1 or is_rgb) and page.imagedepth == 1
    if not is_plain or (count > 1 and page.planarconfig != 1) or page.bitspersample % 8:
        raise archives.ArchiveError(
            f"{name} is too large to be read at once, and by rows only upright grey or RGB of 8, "
            "16 or 32 bits is read, its colours pixel by pixel. Save it so."
        )
    if int(page.compression) not in scientific.COMPRESSIONS:
        raise archives.ArchiveError(
            f"{name} is compressed by method {int(page.compression)}, which is not read. Save it "
            "with LZW or deflate."
        )
    wide = -(-page.imagewidth // page.chunks[1]) * page.chunks[1]
    if not page.is_memmappable and page.chunks[0] * wide > images.MOST_PIXELS:
        raise archives.ArchiveError(
            f"{name} is too large to be read at once, and its tiles or strips are "
            f"{page.chunks[0]:,} rows high. Save it in tiles of 512×512 pixels."
        )
    if channels:
        known = [each for each in channels if each.isdecimal() and int(each) < count]
        if len(known) < len(channels):
            raise scientific.ChannelsError(
                f"{name} has no channels {', '.join(channels)}; read by rows, it has the numbers 0 "
                f"to {count - 1}."
            )
        return [*map(int, channels)]
    if count == 1 or (is_rgb and count in (3, 4)):
        return [*range(min(count, 3))]
    raise scientific.ChannelsError(f"{name} has {count} channels.")


def _unreadable(name: str, error: Exception) -> archives.ArchiveError:
    text = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
    return archives.ArchiveError(f"{name} is no readable TIFF: {text}. Copy it again.")

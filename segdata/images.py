"""Encoded images: opened so that what is wrong names the file, written as PNG.

Pillow and bytes in memory; no file, no archive format and no data set is known here.
"""

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Literal

from PIL import Image

from segdata import archives

# 261 real images on one core: level 1 makes 25.5 MB at 115 images/s, 3 makes 22.3 MB at 83, 6 makes
# 21.0 MB at 34, 9 makes 18.7 MB at 4.
_COMPRESS_LEVEL = 3


@contextlib.contextmanager
def opened(data: bytes, *, kind: Literal["PNG", "JPEG", "GIF"], name: str) -> Iterator[Image.Image]:
    """An image with its header read and its pixels not yet decoded; decode it inside.

    Args:
        data: The encoded image.
        kind: What it must be, whatever its name says.
        name: Of the archive and the file, for messages.

    Raises:
        ArchiveError: If it is of another kind or damaged, here or where its pixels are decoded.
    """
    try:
        yield Image.open(io.BytesIO(data), formats=[kind])
    except archives.ArchiveError:
        raise
    # A damaged image makes Pillow raise any of these.
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise archives.ArchiveError(f"{name} is no readable {kind}: {error}.") from error


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

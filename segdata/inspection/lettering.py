r"""Text on pictures, with the letters for every name.

Pillow's own font has the Latin letters. Any other character is drawn with the first font on this
machine that has it; where none has, the character is written as Python escapes it, such as
`\u732b`, so that no name becomes a row of empty boxes.
"""

import functools
import itertools
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from PIL import ImageDraw, ImageFont

from segdata import console

_FOLDERS = (
    "~/.local/share/fonts",
    "~/.fonts",
    "~/Library/Fonts",
    "/usr/local/share/fonts",
    "/usr/share/fonts",
    "/Library/Fonts",
    "/System/Library/Fonts",
    "C:/Windows/Fonts",
)
_KINDS = (".ttf", ".otf", ".ttc")
_NO_CHARACTER = "\U0010ffff"  # in no font: what is drawn for it stands for any missing character


def write(
    pen: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    *,
    size: int,
    fill: tuple[int, int, int],
) -> None:
    """Writes a line of text.

    Args:
        pen: Draws on the picture.
        place: x of the left end, y of the middle of the line, in pixels.
        text: Any string; what cannot be printed is escaped.
        size: Of the letters, in pixels.
        fill: RGB.
    """
    x, y = place
    ascent, descent = ImageFont.load_default(size).getmetrics()
    for font, run in _runs(text, size):
        pen.text((x, y + (ascent - descent) / 2), run, fill=fill, font=font, anchor="ls")
        x += font.getlength(run)


def length(text: str, *, size: int) -> float:
    """How wide `write` makes a text, in pixels."""
    return sum(font.getlength(run) for font, run in _runs(text, size))


def shortened(text: str, *, size: int, width: float) -> str:
    """The text, or as much of its beginning as fits a width in pixels, with an ellipsis."""
    text = legible(text)
    if length(text, size=size) <= width:
        return text
    fitting = (
        text[:count] + "…"
        for count in range(len(text) - 1, 0, -1)
        if length(text[:count] + "…", size=size) <= width
    )
    return next(fitting, "…")


def legible(text: str) -> str:
    """The text with every character escaped that cannot be printed or that no font has."""
    return "".join(
        each if _path(each) is not None else each.encode("unicode_escape").decode()
        for each in console.printable(text)
    )


def _runs(text: str, size: int) -> Iterator[tuple[ImageFont.FreeTypeFont, str]]:
    """Stretches of text that one font has."""
    for path, characters in itertools.groupby(legible(text), _path):
        yield _opened(path or "", size), "".join(characters)


@functools.cache
def _path(character: str) -> str | None:
    """The file of a font that has a character; "" for Pillow's own, None where there is none."""
    return next((path for path in ("", *_files()) if _has(path, character)), None)


@functools.cache
def _files() -> tuple[str, ...]:
    folders = (pathlib.Path(os.path.expanduser(folder)) for folder in _FOLDERS)
    found = (path for folder in folders for path in sorted(folder.rglob("*")))
    return tuple(str(path) for path in found if path.suffix.lower() in _KINDS)


def _has(path: str, character: str) -> bool:
    if character == " ":
        return True
    try:
        font = _opened(path, 24)
        masks: Any = (font.getmask(each) for each in (character, _NO_CHARACTER))
        drawn, missing = masks
    except OSError:  # a damaged font, or one of coloured pictures
        return False
    return drawn.size[0] > 0 and (drawn.size, bytes(drawn)) != (missing.size, bytes(missing))


@functools.lru_cache(maxsize=64)
def _opened(path: str, size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.truetype(path, size) if path else ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise OSError(f"Pillow was built without FreeType on {sys.platform}; install its wheel.")
    return font

"""The rates as bars on a logarithmic scale."""

import itertools
import math
import pathlib

from goals import TIMES_THE_BEST_PEER
from PIL import Image, ImageDraw, ImageFont
from rows import LIMIT, OURS

_WIDTH, _LEFT, _RIGHT, _BAR, _TITLE, _TOP = 1200, 330, 120, 22, 34, 84
_INK, _FAINT, _WHITE = (40, 40, 40), (225, 225, 225), (255, 255, 255)
_COLOURS = {OURS: (24, 110, 180), LIMIT: (150, 150, 150), "": (222, 135, 60)}


def draw(rates: dict[str, float], path: pathlib.Path, *, machine: str) -> None:
    """Writes a PNG: a group of bars for each kind of row, the fastest first.

    Args:
        rates: Row name to images a second.
        path: Where.
        machine: Written below the title.
    """
    kinds = [kind for kind in TIMES_THE_BEST_PEER if any(n.endswith(f" {kind}") for n in rates)]
    groups = {
        kind: sorted(
            (rate, name.removesuffix(f" {kind}"))
            for name, rate in rates.items()
            if name.endswith(f" {kind}")
        )[::-1]
        for kind in kinds
    }
    height = _TOP + 30 + sum(_TITLE + _BAR * len(bars) for bars in groups.values())
    image = Image.new("RGB", (_WIDTH, height), _WHITE)
    pen = ImageDraw.Draw(image)
    large, normal = ImageFont.load_default(22), ImageFont.load_default(15)
    pen.text((20, 14), "Training batches, images per second (logarithmic)", _INK, large)
    pen.text((20, 46), machine, _INK, normal)
    low = math.floor(math.log10(min(rates.values())))
    high = math.ceil(math.log10(max(rates.values())))
    scale = (_WIDTH - _LEFT - _RIGHT) / (high - low)
    for power in range(low, high + 1):
        x = _LEFT + (power - low) * scale
        pen.line((x, _TOP, x, height - 10), _FAINT)
        pen.text((x, _TOP - 4), f"{10**power:,}", _INK, normal, anchor="mb")
    top = itertools.accumulate(
        (_TITLE + _BAR * len(bars) for bars in groups.values()), initial=_TOP + 4
    )
    for (kind, bars), y in zip(groups.items(), top, strict=False):
        pen.text((20, y + 8), _title(kind), _INK, large)
        for row, (rate, whose) in enumerate(bars):
            middle = y + _TITLE + _BAR * (row + 0.5)
            end = _LEFT + (math.log10(rate) - low) * scale
            colour = next(c for begin, c in _COLOURS.items() if whose.startswith(begin))
            pen.rectangle((_LEFT, middle - 8, end, middle + 8), colour)
            pen.text((_LEFT - 8, middle), whose, _INK, normal, anchor="rm")
            pen.text((end + 6, middle), f"{rate:,.0f}", _INK, normal, anchor="lm")
    image.save(path)


def _title(kind: str) -> str:
    """In characters that the font has."""
    if kind == "crops":
        return "crops of 512 x 512 from 1918 x 1280"
    what, _, side = kind.rpartition(" ")
    if side.endswith("²"):
        return f"{what}, {side[:-1]} x {side[:-1]}"
    return f"{kind}, 128 x 128"

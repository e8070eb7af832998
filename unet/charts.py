"""Line charts as SVG text, styled by the page they stand in.

Series are `class="line s0"`, `s1`, …; the page gives these classes their colours, light and dark.
"""

import html
import math
from collections.abc import Mapping, Sequence

_WIDTH, _HEIGHT = 420, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 12, 30


def lines(
    title: str, epochs: Sequence[int], series: Mapping[str, Sequence[float]], *, marked: int | None
) -> str:
    """Draws one chart of values by epoch.

    Args:
        title: Its name.
        epochs: Epoch numbers, ascending; at least one.
        series: Name → one finite value an epoch.
        marked: The epoch to mark, or None.

    Returns:
        A `<figure>` with legend and SVG.
    """
    every = [value for values in series.values() for value in values]
    ticks = nice_ticks(min(every), max(every))
    low, high = ticks[0], ticks[-1]
    span = max(epochs[-1] - epochs[0], 1)
    radius = 2.6 if len(epochs) < 40 else 1

    def x(epoch: float) -> float:
        return _LEFT + (epoch - epochs[0]) / span * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text x="{_LEFT - 7}" y="{y(t) + 4:.1f}" text-anchor="end">{t:g}</text>'
        for t in ticks
    ]
    parts += [
        f'<text x="{x(e):.1f}" y="{_HEIGHT - 10}" text-anchor="middle">{e}</text>'
        for e in _whole_ticks(epochs[0], epochs[-1])
    ]
    if marked is not None:
        at = f"{x(marked):.1f}"
        parts.append(
            f'<line class="mark" x1="{at}" x2="{at}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}">'
            f"<title>best epoch: {marked}</title></line>"
        )
    for i, (name, values) in enumerate(series.items()):
        points = [(x(e), y(v)) for e, v in zip(epochs, values, strict=True)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline class="line s{i}" points="{path}"/>')
        parts += [
            f'<circle class="dot s{i}" cx="{a:.1f}" cy="{b:.1f}" r="{radius}">'
            f"<title>{html.escape(name)}, epoch {e}: {v:.4g}</title></circle>"
            for (a, b), e, v in zip(points, epochs, values, strict=True)
        ]
    legend = "".join(
        f'<span class="key"><i class="s{i}"></i>{html.escape(name)}</span>'
        for i, name in enumerate(series)
    )
    return (
        f'<figure class="chart"><figcaption><b>{html.escape(title)}</b>{legend}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">'
        f"{''.join(parts)}</svg></figure>"
    )


def nice_ticks(low: float, high: float) -> list[float]:
    """Round numbers, at most seven, the first at or below `low` and the last at or above `high`."""
    if high - low < 1e-9 * max(abs(high), 1e-9):
        low, high = low - abs(low or 1) / 10, high + abs(high or 1) / 10
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _whole_ticks(first: int, last: int) -> range:
    return range(first, last + 1, max(1, math.ceil((last - first) / 8)))

"""Charts as SVG, styled by `page`: lines by epoch, histograms of shares."""

import math
from collections.abc import Iterable, Mapping, Sequence

from segdata.inspection.page import escaped

_WIDTH, _HEIGHT = 420, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 30
_BARS_HEIGHT, _BARS_TOP, _BARS_BOTTOM = 180, 18, 26


def lines(
    title: str, epochs: Sequence[int], series: Mapping[str, Sequence[float]], *, marked: int | None
) -> str:
    """Draws one chart of values by epoch.

    Args:
        title: Its name.
        epochs: Epoch numbers, ascending; at least one.
        series: Name → one finite value an epoch; at most two series.
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
        + _text(f"{t:g}", _LEFT - 7, y(t) + 4, anchor="end")
        for t in ticks
    ]
    parts += [_text(f"{e}", x(e), _HEIGHT - 10) for e in _whole_ticks(epochs[0], epochs[-1])]
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
            f"<title>{escaped(name)}, epoch {e}: {v:.4g}</title></circle>"
            for (a, b), e, v in zip(points, epochs, values, strict=True)
        ]
    legend = "".join(
        f'<span class="key"><i class="s{i}"></i>{escaped(name)}</span>'
        for i, name in enumerate(series)
    )
    return _figure(title, legend, parts, height=_HEIGHT)


def histogram(title: str, counts: Sequence[int], *, of: str) -> str:
    """Draws a histogram of shares between 0 and 1.

    Args:
        title: Its name.
        counts: Of each bin; the bins are equally wide.
        of: What the axes are.

    Returns:
        A `<figure>` with SVG.
    """
    step, base = _WIDTH / len(counts), _BARS_HEIGHT - _BARS_BOTTOM
    scale = (base - _BARS_TOP) / max(1, *counts)
    parts = [f'<line class="grid" x1="0" x2="{_WIDTH}" y1="{base}" y2="{base}"/>']
    parts += [
        f'<rect class="dot s0" x="{i * step + 1:.1f}" y="{base - count * scale:.1f}" '
        f'width="{step - 2:.1f}" height="{count * scale:.1f}" rx="2"><title>{i / len(counts):.0%} '
        f"to {(i + 1) / len(counts):.0%}: {count:,}</title></rect>"
        for i, count in enumerate(counts)
        if count
    ]
    highest = max(range(len(counts)), key=counts.__getitem__)
    parts.append(_text(f"{counts[highest]:,}", (highest + 0.5) * step, _BARS_TOP - 5))
    parts += [
        _text(f"{share:.0%}", min(max(share * _WIDTH, 10), _WIDTH - 16), _BARS_HEIGHT - 8)
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    return _figure(title, f"<span>{escaped(of)}</span>", parts, height=_BARS_HEIGHT)


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


def _text(text: str, x: float, y: float, *, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _figure(title: str, legend: str, parts: Iterable[str], *, height: int) -> str:
    return (
        f'<figure class="card"><figcaption><b>{escaped(title)}</b>{legend}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escaped(title)}">'
        f"{''.join(parts)}</svg></figure>"
    )

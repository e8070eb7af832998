"""Charts as SVG, styled by `page`: lines by epoch, histograms, reliability, intervals."""

import math
from collections.abc import Iterable, Mapping, Sequence

from segdata.inspection.page import escaped

_WIDTH, _HEIGHT = 420, 242
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 42
_ROW, _MARGIN = 38, 24
_BARS_HEIGHT, _BARS_TOP, _BARS_BOTTOM = 180, 18, 26


def lines(
    title: str,
    epochs: Sequence[int],
    series: Mapping[str, Sequence[float]],
    *,
    marked: int | None,
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
    ticks = {e: f"{e}" for e in _whole_ticks(epochs[0], epochs[-1])}
    labels = [f"epoch {epoch}" for epoch in epochs]
    mark = None if marked is None else (marked, f"best epoch: {marked}")
    return _curves(title, epochs, labels, series, of="epoch", ticks=ticks, mark=mark)


def rates(
    title: str,
    rates: Sequence[float],
    series: Mapping[str, Sequence[float]],
    *,
    marked: float | None,
) -> str:
    """Draws one chart of values by learning rate, on a logarithmic axis.

    Args:
        title: Its name.
        rates: Above 0, ascending; at least one.
        series: Name → one finite value a rate; at most two series.
        marked: The rate to mark, or None.

    Returns:
        A `<figure>` with legend and SVG.
    """
    places = [math.log10(rate) for rate in rates]
    powers = range(math.ceil(places[0] - 1e-9), math.floor(places[-1] + 1e-9) + 1)
    ticks = {power: f"1e{power}" for power in powers}
    labels = [f"rate {rate:.2g}" for rate in rates]
    mark = None if marked is None else (math.log10(marked), f"rate {marked:.2g}")
    return _curves(title, places, labels, series, of="learning rate", ticks=ticks, mark=mark)


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


def reliability(title: str, points: Sequence[tuple[float, float, int]]) -> str:
    """Draws how often what was predicted with a probability is so; on the diagonal it is right.

    Args:
        title: Its name.
        points: Mean probability and frequency, in [0, 1], and number of pixels; one or more.

    Returns:
        A `<figure>` with SVG.
    """

    def place(share: float, frequency: float) -> tuple[float, float]:
        return (
            _LEFT + share * (_WIDTH - _LEFT - _RIGHT),
            _TOP + (1 - frequency) * (_HEIGHT - _TOP - _BOTTOM),
        )

    (left, base), (right, top) = place(0, 0), place(1, 1)
    parts = [f'<line class="mark" x1="{left}" x2="{right}" y1="{base}" y2="{top}"/>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = place(share, share)
        parts.append(
            f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            + _text(f"{share:g}", _LEFT - 7, y + 4, anchor="end")
            + _text(f"{share:g}", x, _HEIGHT - 23)
        )
    every = sum(pixels for *_, pixels in points)
    path = [place(share, frequency) for share, frequency, _ in points]
    parts.append(
        f'<polyline class="line s0" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in path)}"/>'
    )
    parts += [
        f'<circle class="dot s0" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>probability {share:.3f}: '
        f"so in {frequency:.3f} of {pixels:,} pixels, {pixels / every:.1%} of all</title></circle>"
        for (x, y), (share, frequency, pixels) in zip(path, points, strict=True)
    ]
    parts += _axes("probability", "frequency")
    return _figure(title, "", parts, height=_HEIGHT)


def intervals(title: str, rows: Sequence[tuple[str, float, float, float]], *, of: str) -> str:
    """Draws values with their intervals below each other, and a line at 0.

    Args:
        title: Its name.
        rows: Name, value, lower and upper end of each; one or more.
        of: What the values are.

    Returns:
        A `<figure>` with SVG.
    """
    ticks = nice_ticks(min(0, *(row[2] for row in rows)), max(0, *(row[3] for row in rows)))
    low, high = ticks[0], ticks[-1]
    height = _TOP + _ROW * len(rows) + _BOTTOM
    base = height - _BOTTOM

    def x(value: float) -> float:
        return _MARGIN + (value - low) / (high - low) * (_WIDTH - 2 * _MARGIN)

    parts = [
        f'<line class="{"mark" if t == 0 else "grid"}" x1="{x(t):.1f}" x2="{x(t):.1f}" '
        f'y1="{_TOP}" y2="{base}"/>' + _text(f"{t:g}", x(t), base + 19)
        for t in ticks
    ]
    for i, (name, value, least, most) in enumerate(rows):
        y = _TOP + _ROW * (i + 0.7)
        parts.append(
            _text(escaped(name), _MARGIN, y - 9, anchor="start")
            + f'<line class="line s0" x1="{x(least):.1f}" x2="{x(most):.1f}" y1="{y}" y2="{y}"/>'
            f'<circle class="dot s0" cx="{x(value):.1f}" cy="{y}" r="4"><title>{escaped(name)}: '
            f"{value:.4g}, {least:.4g} to {most:.4g}</title></circle>"
        )
    parts.append(_text(escaped(of), _WIDTH / 2, height - 6))
    return _figure(title, "", parts, height=height)


def nice_ticks(low: float, high: float) -> list[float]:
    """Round numbers, at most seven, the first at or below `low` and the last at or above `high`."""
    if high - low < 1e-9 * max(abs(high), 1e-9):
        low, high = low - abs(low or 1) / 10, high + abs(high or 1) / 10
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _curves(
    title: str,
    places: Sequence[float],
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    of: str,
    ticks: Mapping[int, str],
    mark: tuple[float, str] | None,
) -> str:
    """One chart: `places` along the axis, a label for each; ticks and a mark there."""
    every = [value for values in series.values() for value in values]
    levels = nice_ticks(min(every), max(every))
    low, high = levels[0], levels[-1]
    span = places[-1] - places[0] or 1
    radius = 2.6 if len(places) < 40 else 1

    def x(place: float) -> float:
        return _LEFT + (place - places[0]) / span * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        + _text(f"{t:g}", _LEFT - 7, y(t) + 4, anchor="end")
        for t in levels
    ]
    parts += [_text(label, x(place), _HEIGHT - 23) for place, label in ticks.items()]
    parts += _axes(of, title)
    if mark is not None:
        at = f"{x(mark[0]):.1f}"
        parts.append(
            f'<line class="mark" x1="{at}" x2="{at}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}">'
            f"<title>{mark[1]}</title></line>"
        )
    for i, (name, values) in enumerate(series.items()):
        points = [(x(place), y(v)) for place, v in zip(places, values, strict=True)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline class="line s{i}" points="{path}"/>')
        parts += [
            f'<circle class="dot s{i}" cx="{a:.1f}" cy="{b:.1f}" r="{radius}">'
            f"<title>{escaped(name)}, {label}: {v:.4g}</title></circle>"
            for (a, b), label, v in zip(points, labels, values, strict=True)
        ]
    legend = "".join(
        f'<span class="key"><i class="s{i}"></i>{escaped(name)}</span>'
        for i, name in enumerate(series)
    )
    return _figure(title, legend, parts, height=_HEIGHT)


def _whole_ticks(first: int, last: int) -> range:
    return range(first, last + 1, max(1, math.ceil((last - first) / 8)))


def _axes(along: str, up: str) -> list[str]:
    """The names of a chart's axes."""
    middle = _TOP + (_HEIGHT - _TOP - _BOTTOM) / 2
    return [
        _text(escaped(along), (_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6),
        f'<g transform="rotate(-90 12 {middle})">{_text(escaped(up.lower()), 12, middle)}</g>',
    ]


def _text(text: str, x: float, y: float, *, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _figure(title: str, legend: str, parts: Iterable[str], *, height: int) -> str:
    return (
        f'<figure class="card"><figcaption><b>{escaped(title)}</b>{legend}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escaped(title)}">'
        f"{''.join(parts)}</svg></figure>"
    )

"""An audit as one HTML page: findings with pictures of their worst examples, and the figures.

The page is one file and fetches nothing: charts are SVG, images are data URIs. It reads in light
and in dark.
"""

import base64
import html
import io
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from segdata import console
from segdata.archives import images
from segdata.core.system.parallel import ordered_map
from segdata.inspection import audit, overlays
from segdata.inspection.examples import Collection, Pending
from segdata.inspection.summaries import Case, Finding, Key, Summary
from segdata.sources import Example

_CASES, _MEMBERS, _EXTREMES = 6, 4, 6  # of which there are pictures
_LISTED = 200  # cases named in full
_SIDE = 260  # pixels, of a picture's longer side
_BINS = 24


def page(report: audit.Report, collection: Collection) -> str:
    """Makes the page; reads again those examples that are shown.

    Args:
        report: The audit.
        collection: What was audited.

    Returns:
        HTML.
    """
    extremes = _extremes(report)
    wanted = {key for finding in report.findings for key in _shown(finding)}
    wanted |= {item.key for items in extremes.values() for item in items}
    pictures = _pictures(collection, wanted)
    return _PAGE.format(
        title=_escaped(f"Audit of {report.name}"),
        lead=_escaped(report.place),
        verdict=_verdict(report),
        findings="".join(_finding(finding, pictures) for finding in report.findings)
        or "<p>Every check passed.</p>",
        figures=_figures(report),
        charts=_charts(report),
        legend=_legend(report.classes),
        extremes="".join(_row(name, items, pictures) for name, items in extremes.items()),
        css=_CSS,
    )


def _shown(finding: Finding) -> Iterable[Key]:
    return (key for case in finding.cases[:_CASES] for key in case.members[:_MEMBERS])


def _extremes(report: audit.Report) -> dict[str, list[Summary]]:
    """A few examples at either end of each measure, even where no check minds them."""
    labelled = [item for item in report.summaries if not item.unlabelled]
    counted = [item for item in labelled if item.objects is not None]
    inside = _foreground(report.classes)
    ordered = {
        f"Least {inside}": sorted(labelled, key=_inside),
        f"Most {inside}": sorted(labelled, key=_inside, reverse=True),
        "Most not labelled": sorted(
            (item for item in labelled if item.unknown), key=lambda item: -item.unknown
        ),
        "Most objects": sorted(counted, key=lambda item: -(item.objects or 0)),
    }
    return {name: items[:_EXTREMES] for name, items in ordered.items() if items}


def _foreground(classes: Sequence[str]) -> str:
    return classes[1] if len(classes) == 2 else f"all but {classes[0]}"


def _inside(item: Summary) -> float:
    return item.inside / max(1, sum(item.counts.values()))


def _pictures(collection: Collection, wanted: set[Key]) -> dict[Key, str]:
    """A data URI of each wanted example that can be read."""
    pending = (item for item in collection.stream() if (item.split, item.id) in wanted)

    def drawn(item: Pending) -> tuple[Key, str | None]:
        try:
            return (item.split, item.id), _picture(item.read(), collection.classes)
        except audit.DAMAGE:
            return (item.split, item.id), None

    return {key: uri for key, uri in ordered_map(drawn, pending) if uri}


def _picture(example: Example, classes: Sequence[str]) -> str:
    with images.opened(example.image, name=example.id) as opened:
        image = opened.convert("RGB")
    scale = min(1.0, _SIDE / max(image.size))
    height, width = (max(1, round(side * scale)) for side in image.size[::-1])
    drawn = overlays.overlay(
        _brightened(np.asarray(image.resize((width, height), Image.Resampling.BOX))),
        overlays.nearest(example.mask, (height, width)),
        classes=classes,
        instances=None
        if example.instances is None
        else overlays.nearest(example.instances, (height, width)),
    )
    buffer = io.BytesIO()
    Image.fromarray(drawn).save(buffer, "JPEG", quality=88, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _brightened(pixels: np.ndarray) -> np.ndarray:
    """Dim images, as fluorescence is, up to where they can be seen."""
    top = float(np.percentile(pixels, 99.5))
    if not 0 < top < 160:
        return pixels
    return np.minimum(pixels * (160 / top), 255).astype(np.uint8)


def _escaped(text: str) -> str:
    """For text and for attributes; bytes of a name that are not UTF-8 have no place in a page."""
    return html.escape(console.printable(text))


def _verdict(report: audit.Report) -> str:
    kind = "sound" if report.sound else "error"
    return f'<p class="verdict {kind}">{_escaped(audit.verdict(report))}</p>'


def _finding(finding: Finding, pictures: dict[Key, str]) -> str:
    shown = "".join(_case(case, pictures) for case in finding.cases[:_CASES])
    listed = "".join(_line(case) for case in finding.cases[:_LISTED])
    more = len(finding.cases) - _LISTED
    listed += f"<li>and {more:,} more</li>" if more > 0 else ""
    return (
        f'<section class="card {finding.severity}"><h3><span class="pill">{finding.severity}</span>'
        f"{_escaped(finding.what)}</h3><p>{_escaped(finding.do)}</p>"
        f'<div class="cases">{shown}</div>'
        f"<details{'' if shown else ' open'}><summary>{len(finding.cases):,} in full</summary>"
        f"<ul>{listed}</ul></details></section>"
    )


def _line(case: Case) -> str:
    names = ", ".join(f"{split}/{key}" for split, key in case.members)
    return f"<li>{_escaped(': '.join(filter(None, [names, case.detail])))}</li>"


def _case(case: Case, pictures: dict[Key, str]) -> str:
    if not any(key in pictures for key in case.members[:_MEMBERS]):
        return ""
    images = "".join(_img(key, pictures) for key in case.members[:_MEMBERS])
    more = len(case.members) - _MEMBERS
    detail = case.detail + (f" and {more:,} more" if more > 0 else "")
    return f'<div class="case"><div>{images}</div><small>{_escaped(detail)}</small></div>'


def _img(key: Key, pictures: dict[Key, str], detail: str = "") -> str:
    name = _escaped("/".join(key))
    picture = (
        f'<img alt="{name}" title="{name}" src="{pictures[key]}">'
        if key in pictures
        else '<i class="none">cannot be read</i>'
    )
    short = _escaped(key[1] if len(key[1]) <= 18 else f"{key[1][:16]}…")
    caption = "<br>".join(filter(None, [_escaped(key[0]), short, _escaped(detail)]))
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _row(name: str, items: Sequence[Summary], pictures: dict[Key, str]) -> str:
    told = {
        "Most not labelled": lambda item: f"{item.unknown:.1%} not labelled",
        "Most objects": lambda item: f"{item.objects:,} objects",
    }.get(name, lambda item: f"{_inside(item):.1%} {name.split(maxsplit=1)[1]}")
    images = "".join(_img(item.key, pictures, told(item)) for item in items)
    return f'<h3>{_escaped(name)}</h3><div class="strip">{images}</div>'


def _legend(classes: Sequence[str]) -> str:
    keys = [
        f'<span class="key"><i style="background:rgb{tuple(colour.tolist())}"></i>'
        f"{_escaped(name)}</span>"
        for name, colour, drawn in zip(
            classes, overlays.palette(classes), overlays.tinted(classes), strict=True
        )
        if drawn
    ]
    return "".join(keys) + '<span class="key"><i class="hatched"></i>not labelled</span>'


def _figures(report: audit.Report) -> str:
    heads = "".join(f"<th>{_escaped(split)}</th>" for split in report.splits)
    rows = "".join(
        f"<tr><th>{_escaped(name)}</th>"
        + "".join(f"<td>{_escaped(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, cells in audit.figures(report).items()
    )
    notes = "".join(f"<p>{_escaped(note)}</p>" for note in report.notes)
    table = f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table>{notes}"
    return f'<div class="card">{table}</div>'


def _charts(report: audit.Report) -> str:
    """For each split, how many examples have how much that is not of class 0."""
    inside, charts = _foreground(report.classes), []
    for split in report.splits:
        shares = [
            _inside(item)
            for item in report.summaries
            if item.split == split and not item.unlabelled
        ]
        if shares:
            counts, _ = np.histogram(shares, bins=_BINS, range=(0, 1))
            charts.append(_histogram(f"{inside.capitalize()} in {split}", counts.tolist()))
    return "".join(charts)


def _histogram(title: str, counts: Sequence[int]) -> str:
    width, height, bottom, top = 420, 180, 26, 18
    step = width / len(counts)
    scale = (height - bottom - top) / max(1, *counts)
    bars = "".join(
        f'<rect class="bar" x="{i * step + 1:.1f}" y="{height - bottom - count * scale:.1f}" '
        f'width="{step - 2:.1f}" height="{count * scale:.1f}" rx="2"><title>{i / len(counts):.0%} '
        f"to {(i + 1) / len(counts):.0%}: {count:,}</title></rect>"
        for i, count in enumerate(counts)
        if count
    )
    highest = max(range(len(counts)), key=counts.__getitem__)
    peak = (
        f'<text x="{(highest + 0.5) * step:.1f}" y="{top - 5}" text-anchor="middle">'
        f"{counts[highest]:,}</text>"
    )
    ticks = "".join(
        f'<text x="{min(max(share * width, 10), width - 16):.1f}" y="{height - 8}" '
        f'text-anchor="middle">{share:.0%}</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
    )
    axis = f'<line class="grid" x1="0" x2="{width}" y1="{height - bottom}" y2="{height - bottom}"/>'
    return (
        f'<figure class="card chart"><figcaption><b>{_escaped(title)}</b> share of an '
        f'example’s pixels, number of examples</figcaption><svg viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{_escaped(title)}">{axis}{bars}{peak}{ticks}</svg></figure>'
    )


_CSS = """
:root { color-scheme: light dark; --back: #fbfbfa; --card: #fff; --ink: #1d2127; --soft: #667080;
  --rule: #e3e5e9; --bar: #2a6fdb; --error: #c5303c; --warning: #b26a00; --note: #4a6c94;
  --sound: #23824a; }
@media (prefers-color-scheme: dark) { :root { --back: #14171c; --card: #1c2027; --ink: #e6e8eb;
  --soft: #98a2b0; --rule: #2f353f; --bar: #6ea8ff; --error: #ff7b80; --warning: #f2b253;
  --note: #9fbde0; --sound: #6fd497; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 66rem; background: var(--back);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.6rem 0 .8rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p, small { color: var(--soft); margin: .2rem 0 .6rem; overflow-wrap: anywhere; }
.verdict { display: inline-block; padding: .35rem .8rem; border-radius: 8px; font-weight: 600;
  border: 1px solid currentColor; margin-top: .6rem; }
.error { --tone: var(--error); } .warning { --tone: var(--warning); } .note { --tone: var(--note); }
.sound { --tone: var(--sound); } .verdict { color: var(--tone); }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: .9rem 1.1rem; margin: 0 0 1rem; }
section.card { border-left: 4px solid var(--tone); }
section.card h3 { margin-top: 0; }
.pill { color: var(--tone); border: 1px solid currentColor; border-radius: 99px; font-size: .75rem;
  padding: .05rem .55rem; margin-right: .6rem; text-transform: uppercase; letter-spacing: .04em; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(24rem, 1fr)); gap: 1rem; }
.chart { margin: 0; } .chart figcaption { color: var(--soft); margin-bottom: .5rem; }
.chart b { color: var(--ink); margin-right: .4rem; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 11px; }
.grid { stroke: var(--rule); } .bar { fill: var(--bar); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th { text-align: left; font-weight: 500; padding: .22rem 1.2rem .22rem 0; }
td, thead th + th { text-align: right; padding: .22rem 0 .22rem 1rem; }
tbody th { color: var(--soft); }
tbody tr > * { border-top: 1px solid var(--rule); }
.cases, .strip { display: flex; flex-wrap: wrap; gap: .8rem; }
.case { border-radius: 8px; } .case > div { display: flex; flex-wrap: wrap; gap: .4rem; }
.case small { display: block; max-width: 20rem; }
figure { margin: 0; } .cases figure, .strip figure { width: 9.4rem; }
.cases img, .strip img { display: block; width: 9.4rem; max-height: 14rem;
  object-fit: contain; border-radius: 6px; }
.cases figcaption, .strip figcaption { color: var(--soft); font-size: .78rem; line-height: 1.35;
  margin-top: .2rem; overflow-wrap: anywhere; }
.none { display: grid; place-items: center; height: 9.4rem; color: var(--soft); font-size: .8rem;
  border: 1px dashed var(--rule); border-radius: 6px; }
details { color: var(--soft); font-size: .85rem; margin-top: .5rem; } summary { cursor: pointer; }
ul { margin: .4rem 0 0; padding-left: 1.1rem; } li { overflow-wrap: anywhere; }
.key { color: var(--soft); font-size: .85rem; white-space: nowrap; margin-right: 1rem; }
.key i { display: inline-block; width: .7rem; height: .7rem; margin-right: .35rem;
  border-radius: 3px; }
.hatched { background: repeating-linear-gradient(135deg, #999 0 2px, #6666 2px 4px); }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{css}</style>
</head>
<body>
<h1>{title}</h1>
<p>{lead}</p>
{verdict}
<h2>Findings</h2>
<p>{legend} <span class="key">Dim images are brightened to be seen.</span></p>
{findings}
<h2>Figures</h2>
{figures}
<div class="charts">{charts}</div>
<h2>Extremes</h2>
<p>No fault of theirs; they are where a fault would show first.</p>
{extremes}
</body>
</html>
"""

"""An audit as one HTML page: findings with pictures of their worst examples, and the figures."""

from collections.abc import Iterable, Sequence

import numpy as np

from segdata.archives import images
from segdata.core.system.parallel import ordered_map
from segdata.inspection import audit, charts, overlays, page
from segdata.inspection.examples import Collection, Pending
from segdata.inspection.page import escaped
from segdata.inspection.summaries import Case, Finding, Key, Summary
from segdata.sources import Example

_CASES, _MEMBERS, _EXTREMES = 6, 4, 6  # with pictures
_LISTED = 200  # cases named in full
_SIDE = 260  # pixels, of a picture's longer side
_BINS = 24
_SHARES = "share of an example’s pixels, number of examples"


def document(report: audit.Report, collection: Collection) -> str:
    """Makes the page; reads the examples that are shown once more.

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
    findings = "".join(_finding(finding, pictures) for finding in report.findings)
    rows = "".join(_row(name, items, pictures) for name, items in extremes.items())
    body = f"""{_verdict(report)}
<h2>Findings</h2>
<p>{_legend(report.classes)} <span class="key">Dim images are shown brighter.</span></p>
{findings or "<p>Every check passed.</p>"}
<h2>Figures</h2>
{_figures(report)}
<div class="cards">{_charts(report)}</div>
<h2>Extremes</h2>
<p>Examples at the ends of each measure. None of them need be wrong, but faults show here first.</p>
{rows}"""
    return page.document(f"Audit of {report.name}", lead=report.place, body=body)


def _shown(finding: Finding) -> Iterable[Key]:
    return (key for case in finding.cases[:_CASES] for key in case.members[:_MEMBERS])


def _extremes(report: audit.Report) -> dict[str, list[Summary]]:
    """A few examples at either end of each measure, whether or not a check found them."""
    labelled = [item for item in report.summaries if not item.unlabelled]
    counted = [item for item in labelled if item.objects is not None]
    inside = _foreground(report.classes)
    ordered = {
        f"Least {inside}": sorted(labelled, key=_inside),
        f"Most {inside}": sorted(labelled, key=_inside, reverse=True),
        "Most with the ignore label": sorted(
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
        scale = min(1.0, _SIDE / max(opened.size))
        size = max(1, round(opened.height * scale)), max(1, round(opened.width * scale))
        image = images.at_size(opened, size)
    instances = example.instances
    drawn = overlays.overlay(
        _brightened(image),
        overlays.nearest(example.mask, size),
        classes=classes,
        instances=None if instances is None else overlays.nearest(instances, size),
    )
    return page.data_uri(drawn, "JPEG")


def _brightened(pixels: np.ndarray) -> np.ndarray:
    """Brightens dim images, such as fluorescence, so that they can be seen."""
    top = float(np.percentile(pixels, 99.5))
    if not 0 < top < 160:
        return pixels
    return np.minimum(pixels * (160 / top), 255).astype(np.uint8)


def _verdict(report: audit.Report) -> str:
    kind = "sound" if report.sound else "error"
    return f'<p class="verdict {kind}">{escaped(audit.verdict(report))}</p>'


def _finding(finding: Finding, pictures: dict[Key, str]) -> str:
    shown = "".join(_case(case, pictures) for case in finding.cases[:_CASES])
    listed = "".join(_line(case) for case in finding.cases[:_LISTED])
    more = len(finding.cases) - _LISTED
    listed += f"<li>and {more:,} more</li>" if more > 0 else ""
    return (
        f'<section class="card {finding.severity}"><h3><span class="pill">{finding.severity}</span>'
        f"{escaped(finding.what)}</h3><p>{escaped(finding.do)}</p>"
        f'<div class="cases">{shown}</div>'
        f"<details{'' if shown else ' open'}><summary>{len(finding.cases):,} in full</summary>"
        f"<ul>{listed}</ul></details></section>"
    )


def _line(case: Case) -> str:
    names = ", ".join(f"{split}/{key}" for split, key in case.members)
    return f"<li>{escaped(': '.join(filter(None, [names, case.detail])))}</li>"


def _case(case: Case, pictures: dict[Key, str]) -> str:
    if not any(key in pictures for key in case.members[:_MEMBERS]):
        return ""
    images = "".join(_img(key, pictures) for key in case.members[:_MEMBERS])
    more = len(case.members) - _MEMBERS
    detail = case.detail + (f" and {more:,} more" if more > 0 else "")
    return f'<div class="case"><div>{images}</div><small>{escaped(detail)}</small></div>'


def _img(key: Key, pictures: dict[Key, str], detail: str = "") -> str:
    picture = (
        page.image(pictures[key], "/".join(key))
        if key in pictures
        else '<i class="none">cannot be read</i>'
    )
    short = escaped(key[1] if len(key[1]) <= 18 else f"{key[1][:16]}…")
    caption = "<br>".join(filter(None, [escaped(key[0]), short, escaped(detail)]))
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _row(name: str, items: Sequence[Summary], pictures: dict[Key, str]) -> str:
    detail = {
        "Most with the ignore label": lambda item: f"{item.unknown:.1%} with the ignore label",
        "Most objects": lambda item: f"{item.objects:,} objects",
    }.get(name, lambda item: f"{_inside(item):.1%} {name.split(maxsplit=1)[1]}")
    images = "".join(_img(item.key, pictures, detail(item)) for item in items)
    return f'<h3>{escaped(name)}</h3><div class="strip">{images}</div>'


def _legend(classes: Sequence[str]) -> str:
    colours = zip(classes, overlays.palette(len(classes)), overlays.tinted(classes), strict=True)
    keys = [page.key(name, colour) for name, colour, tinted in colours if tinted]
    return "".join([*keys, page.key("ignore label", None)])


def _figures(report: audit.Report) -> str:
    rows = ([name, *cells] for name, cells in audit.figures(report).items())
    notes = "".join(f"<p>{escaped(note)}</p>" for note in report.notes)
    return f'<div class="figures">{page.table(rows, heads=["", *report.splits])}</div>{notes}'


def _charts(report: audit.Report) -> str:
    """A histogram for each split: examples by their share of pixels that are not of class 0."""
    inside, drawn = _foreground(report.classes), []
    for split in report.splits:
        shares = [
            _inside(item)
            for item in report.summaries
            if item.split == split and not item.unlabelled
        ]
        if shares:
            counts, _ = np.histogram(shares, bins=_BINS, range=(0, 1))
            drawn.append(
                charts.histogram(f"{inside.capitalize()} in {split}", counts.tolist(), of=_SHARES)
            )
    return "".join(drawn)

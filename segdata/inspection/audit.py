"""What is wrong with a dataset, example by example.

Each example is read once and summarised: sizes, counts of classes, hashes. The checks read the
summaries alone, so memory grows by some hundred bytes an example; thumbnails, which show whether
what looks alike is the same, and cells, which teach what a mask should be like, lie in temporary
files. Where examples come from is not known here.
"""

import collections
import dataclasses
import hashlib
import math
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from segdata import console
from segdata.archives import images, rle
from segdata.building import splits
from segdata.core import IGNORE_LABEL
from segdata.core.system import parallel
from segdata.inspection import checks, expectation, fit, likeness, misfits
from segdata.inspection.examples import Collection, Pending
from segdata.inspection.summaries import (
    SPECK,
    Case,
    Damage,
    Disagreement,
    Finding,
    Summary,
    format_case,
)
from segdata.sources import SizeMismatchError

DAMAGE = (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError)
"""What reading a damaged example may raise: sources their own errors, Pillow all of these."""

_HELD = 1 << 26  # bytes in memory, of thumbnails of 16,384 examples; more go to a file
_MEASURED = 200  # of the masks that disagree with a table, how many are compared pixel by pixel
_ROWS = {
    "only_ground": "empty masks",
    "no_ground": "full masks",
    "unlabelled": "without labels",
    "objects": "objects",
    "overlapping": "with overlaps",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What an audit found.

    Attributes:
        name: What was audited.
        place: Where it is.
        classes: The name of each class id.
        summaries: The summary of each example that could be read, in order.
        damages: What could not be read.
        findings: The most serious first.
        notes: What the build of the dataset recorded.
    """

    name: str
    place: str
    classes: tuple[str, ...]
    summaries: tuple[Summary, ...]
    damages: tuple[Damage, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether no finding is an error."""
        return not any(finding.severity == "error" for finding in self.findings)

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits, in order."""
        return tuple(dict.fromkeys(item.split for item in (*self.summaries, *self.damages)))


def audit(
    collection: Collection, *, progress: Callable[[Iterable], Iterable] = lambda items: items
) -> Report:
    """Reads every example once, on all cores, and checks the summaries.

    Args:
        collection: The examples.
        progress: Wraps the iterator of summaries, such as `tqdm.tqdm`.

    Raises:
        ValueError: If there are no examples.
    """
    damages = [Damage(*fault) for fault in collection.faults]
    summaries = list[Summary]()
    with (
        tempfile.SpooledTemporaryFile(_HELD) as thumbnails,  # 4 kB an example
        tempfile.SpooledTemporaryFile(_HELD) as cells,  # 5 kB
    ):
        for seen in progress(parallel.ordered_map(summarise, collection.stream())):
            if isinstance(seen, Damage):
                damages.append(seen)
            else:
                summary, thumbnail, kept = seen
                summaries.append(summary)
                thumbnails.write(thumbnail.tobytes())
                cells.write(kept.tobytes())
        across = _across(summaries, thumbnails)
        if len(collection.classes) == 2:
            summaries = list(_agreeing(summaries, cells))
    if not summaries and not damages:
        raise ValueError(f"{collection.name} in {collection.place} holds no examples.")
    return Report(
        name=collection.name,
        place=collection.place,
        classes=collection.classes,
        summaries=tuple(summaries),
        damages=tuple(damages),
        findings=checks.run(
            summaries,
            damages,
            classes=collection.classes,
            tables=_compared(collection, summaries),
            across=across,
        ),
        notes=collection.notes,
    )


def summarise(pending: Pending) -> tuple[Summary, np.ndarray, np.ndarray] | Damage:
    """Reads and summarises an example.

    Returns:
        Its summary, its thumbnail as of `likeness` and its cells as of `expectation`.
    """
    try:
        example = pending.read()
        with images.opened(example.image, name=example.id) as opened:
            mode = f"{opened.format} {opened.mode}"
            image = opened.convert("RGB")
        if pending.original:
            with images.opened(pending.original(), name=example.id, kinds=images.KINDS) as opened:
                mode = f"{opened.format} {opened.mode}"
        counts = np.array(Image.fromarray(example.mask).histogram())  # a tenth of bincount's time
    except SizeMismatchError as error:
        return Damage(pending.split, pending.id, str(error), mismatch=True)
    except DAMAGE as error:
        return Damage(pending.split, pending.id, str(error))
    values = np.flatnonzero(counts)
    areas = None if example.instances is None else np.bincount(example.instances.ravel())[1:]
    look = splits.look(image)
    fits, cells = None, np.zeros(expectation.SHAPE, np.uint8)
    if image.size == example.mask.shape[::-1]:
        small = fit.reduced(image, example.mask)
        fits, cells = fit.measure(*small), expectation.cells(*small)
    summary = Summary(
        split=pending.split,
        id=example.id,
        group=example.group,
        mode=mode,
        size=(image.height, image.width),
        mask_size=(example.mask.shape[0], example.mask.shape[1]),
        counts=dict(zip(values.tolist(), counts[values].tolist(), strict=True)),
        pixels=_digest(np.asarray(image)),
        foreground=_digest(np.packbits(_foreground(example.mask), axis=-1)),
        mask=_digest(example.mask),
        perceptual_hash=look.hash,
        flat=all(low == high for low, high in _extrema(image)),
        objects=None if areas is None else int(np.count_nonzero(areas)),
        specks=0 if areas is None else int(np.count_nonzero((areas > 0) & (areas < SPECK))),
        overlap=example.overlap,
        stratum=look.stratum,
        fit=fits,
        apart=() if example.instances is None else fit.apart(example.instances),
    )
    return summary, likeness.thumbnail(image), cells


def table(report: Report) -> str:
    """The report as text: figures of each split, then the findings."""
    grid = [["", *report.splits], *([name, *cells] for name, cells in figures(report).items())]
    widths = [max(len(line[i]) for line in grid) for i in range(len(grid[0]))]
    lines = [f"{report.name} in {report.place}", ""]
    for first, *others in grid:
        cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    lines += [""] if report.notes else []
    lines += report.notes
    for finding in report.findings:
        lines += ["", f"{finding.severity.upper():7}  {finding.what}", f"{'':9}{finding.do}"]
        lines += [f"{'':9}- {text}" for text in _formatted(finding.cases, most=5)]
    return "\n".join(map(console.printable, [*lines, "", verdict(report)]))


def verdict(report: Report) -> str:
    """One sentence."""
    counts = collections.Counter(finding.severity for finding in report.findings)
    listed = ", ".join(
        f"{counts[severity]} {severity}{'' if counts[severity] == 1 else 's'}"
        for severity in ("error", "warning", "note")
        if counts[severity]
    )
    count = len(report.summaries) + len(report.damages)
    ending = "fit for training" if report.sound else "training would suffer"
    examples = f"{count:,} example{'' if count == 1 else 's'}"
    return f"{examples}: {listed or 'no findings'}; {ending}."


def to_json(report: Report) -> dict[str, Any]:
    """The report as JSON's types; every case of every finding is in it."""
    return {
        "dataset": report.name,
        "place": report.place,
        "sound": report.sound,
        "classes": list(report.classes),
        "notes": list(report.notes),
        "splits": {split: statistics(report, split) for split in report.splits},
        "findings": [
            {
                "check": finding.check,
                "severity": finding.severity,
                "what": finding.what,
                "do": finding.do,
                "count": len(finding.cases),
                "cases": [
                    {
                        "examples": [{"split": split, "id": key} for split, key in case.members],
                        "detail": case.detail,
                    }
                    for case in finding.cases
                ],
            }
            for finding in report.findings
        ],
    }


def statistics(report: Report, split: str) -> dict[str, Any]:
    """The figures of one split.

    Returns:
        Counts of examples, groups, sizes (`H×W`), modes, pixels of each class, of the ignore label
        and of other values, examples without labels, of class 0 alone and without class 0, objects.
    """
    members = [item for item in report.summaries if item.split == split]
    labelled = [item for item in members if not item.unlabelled]
    totals = collections.Counter[int]()
    for item in labelled:
        totals.update(item.counts)
    known = range(len(report.classes))
    objects = [item.objects for item in members if item.objects is not None]
    return {
        "examples": len(members),
        "damaged": sum(item.split == split for item in report.damages),
        "groups": len({item.group for item in members}),
        "sizes": _common(f"{item.size[0]}×{item.size[1]}" for item in members),
        "modes": _common(item.mode for item in members),
        "unlabelled": len(members) - len(labelled),
        "pixels": {name: totals[number] for number, name in enumerate(report.classes)},
        "not_labelled_pixels": totals[IGNORE_LABEL],
        "foreign_pixels": sum(
            count for value, count in totals.items() if value not in known and value != IGNORE_LABEL
        ),
        "only_ground": sum(set(item.counts) <= {0, IGNORE_LABEL} for item in labelled),
        "no_ground": sum(0 not in item.counts for item in labelled),
        "objects": sum(objects) if any(objects) else None,
        "overlapping": sum(item.overlap > 0 for item in members),
    }


def figures(report: Report) -> dict[str, list[str]]:
    """The statistics as a table: the name of a row to one cell a split."""
    found = [statistics(report, split) for split in report.splits]
    shown = {"examples": [f"{one['examples']:,}" for one in found]}
    for name in ("damaged", "groups"):
        shown |= _counted(name, [one[name] for one in found])
    for name, kind, most in (("other sizes", "sizes", 8), ("other modes", "modes", 4)):
        common = sum((collections.Counter(one[kind]) for one in found), collections.Counter())
        listed = [key for key, _ in common.most_common()]
        for key in listed[:most]:
            shown |= _counted(key, [one[kind].get(key, 0) for one in found])
        shown |= _counted(name, [sum(one[kind].get(k, 0) for k in listed[most:]) for one in found])
    pixels = [
        one["pixels"]
        | {"ignore label": one["not_labelled_pixels"], "no such class": one["foreign_pixels"]}
        for one in found
    ]
    for name in pixels[0]:
        if name != "no such class" or any(one[name] for one in pixels):
            shown[name] = [_share(one[name], sum(one.values())) for one in pixels]
    for key in ("only_ground", "no_ground", "unlabelled", "objects", "overlapping"):
        shown |= _counted(_ROWS[key], [one[key] or 0 for one in found])
    return shown


def _counted(name: str, counts: Sequence[int]) -> dict[str, list[str]]:
    return {name: [f"{count:,}" if count else "–" for count in counts]} if any(counts) else {}


def _share(count: int, total: int) -> str:
    if not total:
        return "–"
    return f"{count / total:.2%}" if count * 10_000 >= total else f"{count:,} px" if count else "0"


def _common(values: Iterable[str]) -> dict[str, int]:
    return dict(collections.Counter(values).most_common())


def _formatted(cases: Sequence[Case], *, most: int) -> list[str]:
    lines = [format_case(case) for case in cases[:most]]
    more = len(cases) - most
    return lines + ([f"and {more:,} more"] if more > 0 else [])


def _across(summaries: Sequence[Summary], thumbnails: Any) -> list[list[Summary]]:
    """Sets of near duplicates in more than one split, but of no group that is in both."""
    shown = [number for number, item in enumerate(summaries) if not item.flat]
    if not shown:
        return []
    found = likeness.across(
        _held(thumbnails, (len(summaries), likeness.SIDE, likeness.SIDE)),
        shown=shown,
        groups=[item.group for item in summaries],
        parts=[item.split for item in summaries],
    )
    return [[summaries[number] for number in members] for members in found]


def _agreeing(summaries: Sequence[Summary], cells: Any) -> Iterator[Summary]:
    """The summaries, with how masks agree with those of similar images where they teach it."""
    found = dict[int, expectation.Agreement]()
    held = _held(cells, (len(summaries), *expectation.SHAPE))
    for stratum in misfits.strata(summaries):
        if stratum.steady:
            few = expectation.agreements(held, indices=stratum.sample)
            if not misfits.learned(few):
                continue  # as of nuclei; brightness says what is inside
        agreements = expectation.agreements(held, indices=stratum.members)
        found |= zip(stratum.members, agreements, strict=True)
    for number, item in enumerate(summaries):
        yield dataclasses.replace(item, agreement=found[number]) if number in found else item


def _held(file: Any, shape: tuple[int, ...]) -> np.ndarray:
    """What was written to a temporary file, uint8; mapped where it is not in memory."""
    if math.prod(shape) > _HELD:
        file.flush()
        return np.memmap(file, np.uint8, "r", shape=shape)
    file.seek(0)
    return np.frombuffer(file.read(), np.uint8).reshape(shape)


def _compared(collection: Collection, summaries: Sequence[Summary]) -> list[Disagreement]:
    """Masks that differ from the tables of run lengths."""
    by_id = {item.id: item for item in summaries if not item.unlabelled}
    found: list[Disagreement] = []
    for open_table in collection.tables:
        apart: dict[str, rle.Encoded] = {}
        try:
            for encoded in open_table():
                if encoded.id in by_id:
                    found += _disagreement(encoded, by_id[encoded.id], apart)
        except (OSError, ValueError) as error:
            found.append(Disagreement(None, 0, str(error)))
        for pending in collection.stream() if apart else ():
            if pending.id in apart:
                found.append(_measured(pending, apart[pending.id]))
    return found


def _disagreement(
    encoded: rle.Encoded, item: Summary, apart: dict[str, rle.Encoded]
) -> list[Disagreement]:
    """What is wrong with a row; one whose mask must be read again is added to `apart`."""
    try:
        if _digest(np.packbits(encoded.mask(item.mask_size), axis=-1)) == item.foreground:
            return []
    except ValueError as error:
        return [Disagreement(item.key, 0, str(error))]
    if len(apart) == _MEASURED:
        return [Disagreement(item.key, None, f"differs from {encoded.where}")]
    apart[encoded.id] = encoded
    return []


def _measured(pending: Pending, encoded: rle.Encoded) -> Disagreement:
    found = _foreground(pending.read().mask)
    expected = encoded.mask((found.shape[0], found.shape[1]))
    shared, either = np.count_nonzero(found & expected), np.count_nonzero(found | expected)
    detail = f"{either - shared:,} px differ from {encoded.where}"
    return Disagreement((pending.split, pending.id), shared / either, detail)


def _foreground(mask: np.ndarray) -> np.ndarray:
    return (mask != 0) & (mask != IGNORE_LABEL)


def _digest(pixels: np.ndarray) -> bytes:
    digest = hashlib.blake2b(repr((pixels.shape, pixels.dtype.str)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def _extrema(image: Image.Image) -> Sequence[Any]:
    return image.getextrema()

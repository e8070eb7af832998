"""Checks of a dataset: from small summaries of its examples to what is worth a word.

A check is a function of the evidence that returns a finding, or nothing where all is well. No
image, no file and no data set is known here.
"""

import collections
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from segdata.core import IGNORE_LABEL
from segdata.inspection.summaries import (
    SPECK,
    Case,
    Damage,
    Disagreement,
    Evidence,
    Finding,
    Key,
    Severity,
    Summary,
)

Kind = TypeVar("Kind", bound=Hashable)

_MOSTLY_UNKNOWN = 0.5  # of an example's pixels
_RARE = 1e-4  # of all labelled pixels
_MUCH_OVERLAP = 0.05  # of an example's object pixels
_AGREES = 0.9  # IoU of a mask and its run lengths; below it, one of them is of another image


def run(
    examples: Sequence[Summary],
    damages: Sequence[Damage] = (),
    *,
    classes: Sequence[str],
    tables: Sequence[Disagreement] = (),
) -> tuple[Finding, ...]:
    """Runs every check.

    Args:
        examples: Summaries of what could be read.
        damages: What could not.
        classes: The name of each class id.
        tables: Where masks and run lengths disagree.

    Returns:
        The findings, errors first, then warnings, then notes.
    """
    evidence = Evidence(examples=examples, damages=damages, classes=classes, tables=tables)
    found = [finding for check in _CHECKS if (finding := check(evidence))]
    return tuple(sorted(found, key=lambda f: ("error", "warning", "note").index(f.severity)))


def _damaged(evidence: Evidence) -> Finding | None:
    cases = [Case(((d.split, d.id),), d.message) for d in evidence.damages if not d.mismatch]
    return _found(
        "damaged",
        "error",
        f"{_examples(cases)} cannot be read.",
        "Fetch the archive again; where the archive is whole, build again.",
        cases,
    )


def _size_mismatch(evidence: Evidence) -> Finding | None:
    cases = [Case(((d.split, d.id),), d.message) for d in evidence.damages if d.mismatch]
    cases += [
        Case((item.key,), f"image {_size(item.size)}, mask {_size(item.mask_size)}")
        for item in evidence.examples
        if item.size != item.mask_size
    ]
    return _found(
        "size mismatch",
        "error",
        f"{_examples(cases)} with a mask of another size than the image.",
        "Find the right masks or leave the examples out: pixels would be taught a wrong class.",
        cases,
    )


def _foreign_values(evidence: Evidence) -> Finding | None:
    known = {*range(len(evidence.classes)), IGNORE_LABEL}
    worst = _by(evidence.examples, lambda x: sum(x.counts.values()) - _sum(x, known))
    cases = [
        Case(
            (item.key,),
            f"{count:,} pixels of {', '.join(map(str, sorted(item.counts.keys() - known)))}",
        )
        for item, count in worst
    ]
    return _found(
        "values outside the classes",
        "error",
        f"{_examples(cases)} with values that are no class: classes are 0 to "
        f"{len(evidence.classes) - 1}, and {IGNORE_LABEL} is not labelled.",
        "Build again with a reader that knows these values; a loss would fail or learn nonsense.",
        cases,
    )


def _absent_class(evidence: Evidence) -> Finding | None:
    labelled = evidence.labelled
    parts = [split for split, _ in _grouped(labelled, lambda item: item.split)]
    cases, severity = [], "warning"
    for number, name in enumerate(evidence.classes):
        here = {item.split for item in labelled if number in item.counts}
        if missing := [split for split in parts if split not in here]:
            cases.append(Case((), f"{name}: absent from {', '.join(missing)}"))
            if not here or "train" in missing:
                severity = "error"
    return _found(
        "absent class",
        severity,
        f"{len(cases)} of {len(evidence.classes)} classes {'is' if len(cases) == 1 else 'are'} "
        "nowhere in a split that is labelled.",
        "What is absent from training is never learned, what is absent from validation is never "
        "scored; split anew or drop the class.",
        cases,
    )


def _rare_class(evidence: Evidence) -> Finding | None:
    totals = collections.Counter[int]()
    for item in evidence.labelled:
        totals.update(item.counts)
    known = sum(totals[number] for number in range(len(evidence.classes)))
    cases = []
    for number, name in enumerate(evidence.classes):
        if 0 < totals[number] < _RARE * known:
            most = max(evidence.labelled, key=lambda item: item.counts.get(number, 0))
            cases.append(Case((most.key,), f"{name}: {totals[number]:,} pixels in all"))
    return _found(
        "rare class",
        "warning",
        f"{len(cases)} of {len(evidence.classes)} classes with fewer than one pixel in 10,000.",
        "Look whether these pixels are of the class at all; a loss hardly sees them.",
        cases,
    )


def _no_labels(evidence: Evidence) -> Finding | None:
    if evidence.labelled or not evidence.examples:
        return None
    return _found(
        "no labels",
        "error",
        "No example has a label.",
        "These are test images, or the masks were not found; fetch the masks.",
        [Case((), "every mask is 255 everywhere")],
    )


def _parted_groups(evidence: Evidence) -> Finding | None:
    cases = [
        Case(_keys(members), f"group {group}")
        for group, members in _grouped(evidence.examples, lambda item: item.group)
        if _parted(members)
    ]
    return _found(
        "groups across splits",
        "error",
        f"{_count(cases, 'group')} in more than one split.",
        "Split by group: scores on what was trained on are too good to be true.",
        cases,
    )


def _repeated_ids(evidence: Evidence) -> Finding | None:
    cases = [
        Case(_keys(members), "")
        for _, members in _grouped(evidence.examples, lambda item: item.id)
        if len(members) > 1
    ]
    return _found(
        "repeated ids",
        "error",
        f"{_count(cases, 'id')} given to more than one example.",
        "Give each its own: a mask may have met another's image.",
        cases,
    )


def _exact_across(evidence: Evidence) -> Finding | None:
    cases = [
        Case(_keys(members), "the same pixels")
        for _, members in _copies(evidence)
        if _parted(members)
    ]
    return _found(
        "exact duplicates across splits",
        "error",
        f"{_count(cases, 'image')} in more than one split, pixel for pixel.",
        "Keep one of each: scores on what was trained on are too good to be true.",
        cases,
    )


def _contradictions(evidence: Evidence) -> Finding | None:
    cases = [
        Case(_keys(members), "the same pixels, different masks")
        for _, members in _copies(evidence)
        if len({item.mask for item in members if not item.unlabelled}) > 1
    ]
    return _found(
        "contradicting masks",
        "error",
        f"{_count(cases, 'image')} there more than once, with different masks.",
        "Keep the better mask: both cannot be learned.",
        cases,
    )


def _exact_within(evidence: Evidence) -> Finding | None:
    cases = [
        Case(_keys(members), "the same pixels")
        for _, members in _copies(evidence)
        if not _parted(members)
    ]
    return _found(
        "exact duplicates",
        "warning",
        f"{_count(cases, 'image')} there more than once in a split, pixel for pixel.",
        "Keep one of each, unless it is meant to weigh more.",
        cases,
    )


def _near_across(evidence: Evidence) -> Finding | None:
    cases = [Case(_keys(members), "") for members in evidence.alike if _parted(members)]
    return _found(
        "near duplicates across splits",
        "warning",
        f"{_sets(cases)} alike across splits.",
        "Look at them: if they are the same scene, split anew by what looks alike.",
        cases,
    )


def _near_within(evidence: Evidence) -> Finding | None:
    cases = [Case(_keys(members), "") for members in evidence.alike if not _parted(members)]
    count = sum(len(case.members) for case in cases)
    return _found(
        "near duplicates",
        "note",
        f"{_sets(cases)} alike within a split, {count:,} images in all.",
        "Nothing, as long as they stay in one split.",
        cases,
    )


def _tables(evidence: Evidence) -> Finding | None:
    worst = sorted(evidence.tables, key=lambda d: 2 if d.iou is None else d.iou)
    cases = [
        Case((d.key,) if d.key else (), d.detail + (f" (IoU {d.iou:.4f})" if d.iou else ""))
        for d in worst
    ]
    other = any(d.iou is not None and d.iou < _AGREES for d in worst)
    return _found(
        "masks and run lengths",
        "error" if other else "warning",
        f"{_examples(cases)} with a mask that is not what a table of run lengths says.",
        f"Below an IoU of {_AGREES} one of them is damaged, of another image or in another order "
        "of pixels; above, one of them was mended.",
        cases,
    )


def _mostly_unknown(evidence: Evidence) -> Finding | None:
    worst = _by(evidence.labelled, lambda item: max(0, item.unknown - _MOSTLY_UNKNOWN))
    cases = [Case((item.key,), f"{item.unknown:.1%} not labelled") for item, _ in worst]
    return _found(
        "mostly not labelled",
        "warning",
        f"{_examples(cases)} of which more than half the pixels are not labelled.",
        "They teach little for what they cost; look at them.",
        cases,
    )


def _unlabelled(evidence: Evidence) -> Finding | None:
    cases, severity = [], "note"
    for split, members in _grouped(evidence.examples, lambda item: item.split):
        bare = [item for item in members if item.unlabelled]
        if len(bare) == len(members) and split not in ("train", "validation"):
            cases.append(Case((), f"all of {split}: {_examples(bare)}"))
        elif bare:
            severity = "warning"
            cases += [Case((item.key,), "") for item in bare]
    return _found(
        "without labels",
        severity,
        "Some examples have no label at all.",
        "In a test split that is as it should be; elsewhere they teach and score nothing.",
        cases if evidence.labelled else [],
    )


def _only_ground(evidence: Evidence) -> Finding | None:
    cases = [
        Case((item.key,), f"nothing but {evidence.classes[0]}")
        for item in evidence.labelled
        if set(item.counts) <= {0, IGNORE_LABEL}
    ]
    return _found(
        "empty masks",
        "warning",
        f"{_examples(cases)} with nothing but {evidence.classes[0]}.",
        "Look whether there really is nothing in them. A Dice of an empty mask is 0 or 1.",
        cases,
    )


def _no_ground(evidence: Evidence) -> Finding | None:
    if len(evidence.classes) != 2:
        return None  # where class 0 is one of many, it may well be out of sight
    cases = [
        Case((item.key,), f"no {evidence.classes[0]}")
        for item in evidence.labelled
        if 0 not in item.counts
    ]
    return _found(
        "full masks",
        "warning",
        f"{_examples(cases)} without any {evidence.classes[0]}.",
        "Look whether the masks were inverted or filled by mistake.",
        cases,
    )


def _flat(evidence: Evidence) -> Finding | None:
    cases = [Case((item.key,), "") for item in evidence.examples if item.flat]
    return _found(
        "blank images",
        "warning",
        f"{_examples(cases)} of one single colour.",
        "Leave them out: there is nothing to see.",
        cases,
    )


def _overlaps(evidence: Evidence) -> Finding | None:
    worst = _by(evidence.examples, lambda item: item.contested)
    cases = [
        Case((item.key,), f"{item.overlap:,} of {item.inside:,} object pixels") for item, _ in worst
    ]
    much = bool(worst) and worst[0][1] > _MUCH_OVERLAP
    return _found(
        "overlapping objects",
        "warning" if much else "note",
        f"{_examples(cases)} with pixels that more than one object claims.",
        "For classes it does not matter; for single objects, see which of them should have the "
        "pixels.",
        cases,
    )


def _specks(evidence: Evidence) -> Finding | None:
    worst = _by(evidence.examples, lambda item: item.specks)
    cases = [Case((item.key,), f"{count:.0f} of {item.objects}") for item, count in worst]
    total = sum(item.specks for item in evidence.examples)
    return _found(
        "specks",
        "note",
        f"{_examples(cases)} with objects of under {SPECK} pixels, {total:,} in all.",
        "Look whether a hand slipped; resizing to a training size may swallow them.",
        cases,
    )


_CHECKS: tuple[Callable[[Evidence], Finding | None], ...] = (
    _damaged,
    _size_mismatch,
    _foreign_values,
    _parted_groups,
    _exact_across,
    _contradictions,
    _repeated_ids,
    _no_labels,
    _absent_class,
    _rare_class,
    _tables,
    _near_across,
    _exact_within,
    _unlabelled,
    _mostly_unknown,
    _only_ground,
    _no_ground,
    _flat,
    _overlaps,
    _specks,
    _near_within,
)


def _found(
    check: str, severity: Severity, what: str, do: str, cases: Sequence[Case]
) -> Finding | None:
    if not cases:
        return None
    return Finding(check=check, severity=severity, what=what, do=do, cases=tuple(cases))


def _grouped(
    items: Iterable[Summary], key: Callable[[Summary], Kind]
) -> list[tuple[Kind, list[Summary]]]:
    groups = collections.defaultdict[Kind, list[Summary]](list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.items())


def _copies(evidence: Evidence) -> list[tuple[bytes, list[Summary]]]:
    groups = _grouped(evidence.examples, lambda item: item.pixels)
    return [(pixels, members) for pixels, members in groups if len(members) > 1]


def _parted(members: Sequence[Summary]) -> bool:
    return len({item.split for item in members}) > 1


def _by(
    items: Iterable[Summary], measure: Callable[[Summary], float]
) -> list[tuple[Summary, float]]:
    """Those of which there is something to measure, the most first."""
    measured = [(item, value) for item in items if (value := measure(item)) > 0]
    return sorted(measured, key=lambda pair: pair[1], reverse=True)


def _sum(item: Summary, values: Iterable[int]) -> int:
    return sum(item.counts.get(value, 0) for value in values)


def _keys(members: Iterable[Summary]) -> tuple[Key, ...]:
    return tuple(item.key for item in members)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"


def _count(cases: Sequence[Case], noun: str) -> str:
    return f"{len(cases):,} {noun} is" if len(cases) == 1 else f"{len(cases):,} {noun}s are"


def _sets(cases: Sequence[Case]) -> str:
    return "1 set of images looks" if len(cases) == 1 else f"{len(cases):,} sets of images look"


def _examples(cases: Sequence[object]) -> str:
    return "1 example" if len(cases) == 1 else f"{len(cases):,} examples"

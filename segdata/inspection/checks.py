"""Checks of a dataset: from the summaries of its examples to findings.

A check is a function of the summaries that returns a finding, or None. No image, file or dataset is
known here.
"""

import collections
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from segdata.core import IGNORE_LABEL
from segdata.inspection import misfits
from segdata.inspection.summaries import (
    SPECK,
    Case,
    Damage,
    Disagreement,
    Finding,
    Key,
    Severity,
    Summaries,
    Summary,
)

Kind = TypeVar("Kind", bound=Hashable)

_MOSTLY_IGNORED = 0.5  # of an example's pixels
_RARE = 1e-4  # of all labelled pixels
_MUCH_OVERLAP = 0.05  # of an example's object pixels
_AGREES = 0.9  # IoU of a mask and its run lengths; below it, one of them is of another image


def run(
    examples: Sequence[Summary],
    damages: Sequence[Damage] = (),
    *,
    classes: Sequence[str],
    tables: Sequence[Disagreement] = (),
    across: Sequence[Sequence[Summary]] = (),
) -> tuple[Finding, ...]:
    """Runs every check.

    Args:
        examples: Summaries of what could be read.
        damages: What could not be read.
        classes: The name of each class id.
        tables: Where masks and run lengths disagree.
        across: Sets of near duplicates in more than one split.

    Returns:
        The findings, errors first, then warnings, then notes.
    """
    summaries = Summaries(
        examples=examples, damages=damages, classes=classes, tables=tables, across=across
    )
    found = [finding for check in _CHECKS if (finding := check(summaries))]
    return tuple(sorted(found, key=lambda f: ("error", "warning", "note").index(f.severity)))


def _damaged(summaries: Summaries) -> Finding | None:
    cases = [Case(((d.split, d.id),), d.message) for d in summaries.damages if not d.mismatch]
    return _found(
        "damaged",
        "error",
        f"{_examples(cases)} cannot be read.",
        "Fetch the archive again; where the archive is whole, build again.",
        cases,
    )


def _size_mismatch(summaries: Summaries) -> Finding | None:
    cases = [Case(((d.split, d.id),), d.message) for d in summaries.damages if d.mismatch]
    cases += [
        Case((item.key,), f"image {_size(item.size)}, mask {_size(item.mask_size)}")
        for item in summaries.examples
        if item.size != item.mask_size
    ]
    return _found(
        "size mismatch",
        "error",
        f"{_examples(cases)} with a mask of another size than the image.",
        "Find the right masks or leave the examples out: pixels would be learned as a wrong class.",
        cases,
    )


def _foreign_values(summaries: Summaries) -> Finding | None:
    known = {*range(len(summaries.classes)), IGNORE_LABEL}
    worst = _by(summaries.examples, lambda x: sum(x.counts.values()) - _sum(x, known))
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
        f"{len(summaries.classes) - 1}, and {IGNORE_LABEL} is the ignore label.",
        "Build again with a reader that knows these values; a loss would fail or learn nonsense.",
        cases,
    )


def _absent_class(summaries: Summaries) -> Finding | None:
    labelled = summaries.labelled
    parts = [split for split, _ in _grouped(labelled, lambda item: item.split)]
    cases, severity = [], "warning"
    for number, name in enumerate(summaries.classes):
        here = {item.split for item in labelled if number in item.counts}
        if missing := [split for split in parts if split not in here]:
            cases.append(Case((), f"{name}: absent from {', '.join(missing)}"))
            if not here or "train" in missing:
                severity = "error"
    return _found(
        "absent class",
        severity,
        f"{len(cases)} of {len(summaries.classes)} classes {'is' if len(cases) == 1 else 'are'} "
        "absent from a labelled split.",
        "What is absent from training is never learned, what is absent from validation is never "
        "scored; split again or drop the class.",
        cases,
    )


def _rare_class(summaries: Summaries) -> Finding | None:
    totals = collections.Counter[int]()
    for item in summaries.labelled:
        totals.update(item.counts)
    known = sum(totals[number] for number in range(len(summaries.classes)))
    cases = []
    for number, name in enumerate(summaries.classes):
        if 0 < totals[number] < _RARE * known:
            most = max(summaries.labelled, key=lambda item: item.counts.get(number, 0))
            cases.append(Case((most.key,), f"{name}: {totals[number]:,} pixels in all"))
    return _found(
        "rare class",
        "warning",
        f"{len(cases)} of {len(summaries.classes)} classes with fewer than one pixel in 10,000.",
        "Check whether these pixels are of the class at all; they hardly change a loss.",
        cases,
    )


def _no_labels(summaries: Summaries) -> Finding | None:
    if summaries.labelled or not summaries.examples:
        return None
    return _found(
        "no labels",
        "error",
        "No example has a label.",
        "These are test images, or the masks were not found; fetch the masks.",
        [Case((), "every mask is 255 everywhere")],
    )


def _split_groups(summaries: Summaries) -> Finding | None:
    cases = [
        Case(_keys(members), f"group {group}")
        for group, members in _grouped(summaries.examples, lambda item: item.group)
        if _crosses_splits(members)
    ]
    return _found(
        "groups across splits",
        "error",
        f"{_count(cases, 'group')} in more than one split.",
        "Split by group: scores on what was trained on are too good to be true.",
        cases,
    )


def _repeated_ids(summaries: Summaries) -> Finding | None:
    cases = [
        Case(_keys(members), "")
        for _, members in _grouped(summaries.examples, lambda item: item.id)
        if len(members) > 1
    ]
    return _found(
        "repeated ids",
        "error",
        f"{_count(cases, 'id')} given to more than one example.",
        "Give each its own: a mask may have been paired with another image.",
        cases,
    )


def _exact_across(summaries: Summaries) -> Finding | None:
    cases = [
        Case(_keys(members), "the same pixels")
        for _, members in _copies(summaries)
        if _crosses_splits(members)
    ]
    return _found(
        "exact duplicates across splits",
        "error",
        f"{_count(cases, 'image')} in more than one split, pixel for pixel.",
        "Keep one of each: scores on what was trained on are too good to be true.",
        cases,
    )


def _contradictions(summaries: Summaries) -> Finding | None:
    cases = [
        Case(_keys(members), "the same pixels, different masks")
        for _, members in _copies(summaries)
        if len({item.mask for item in members if not item.unlabelled}) > 1
    ]
    return _found(
        "contradicting masks",
        "error",
        f"{_count(cases, 'image')} there more than once, with different masks.",
        "Keep the better mask: both cannot be learned.",
        cases,
    )


def _exact_within(summaries: Summaries) -> Finding | None:
    cases = [
        Case(_keys(members), "the same pixels")
        for _, members in _copies(summaries)
        if not _crosses_splits(members)
    ]
    return _found(
        "exact duplicates",
        "warning",
        f"{_count(cases, 'image')} there more than once in a split, pixel for pixel.",
        "Keep one of each, unless it is meant to weigh more.",
        cases,
    )


def _near_across(summaries: Summaries) -> Finding | None:
    cases = [Case(_keys(members), "") for members in summaries.across if len(_pixels(members)) > 1]
    return _found(
        "near duplicates across splits",
        "warning",
        f"{_sets(cases)} alike across splits.",
        "Look at them: if they show the same scene, put them into one group and split again.",
        cases,
    )


def _near_within(summaries: Summaries) -> Finding | None:
    cases = [Case(_keys(members), "") for members in summaries.alike]
    count = sum(len(case.members) for case in cases)
    return _found(
        "near duplicates",
        "note",
        f"{_sets(cases)} alike within a split, {count:,} images in all.",
        "No action is needed while they stay in one split.",
        cases,
    )


def _tables(summaries: Summaries) -> Finding | None:
    worst = sorted(summaries.tables, key=lambda d: 2 if d.iou is None else d.iou)
    cases = [
        Case((d.key,) if d.key else (), d.detail + (f" (IoU {d.iou:.4f})" if d.iou else ""))
        for d in worst
    ]
    other = any(d.iou is not None and d.iou < _AGREES for d in worst)
    return _found(
        "masks and run lengths",
        "error" if other else "warning",
        f"{_examples(cases)} with a mask that differs from a table of run lengths.",
        f"Below an IoU of {_AGREES} one of them is damaged, of another image or in another order "
        "of pixels; above it, one of them was edited.",
        cases,
    )


def _mostly_ignored(summaries: Summaries) -> Finding | None:
    worst = _by(summaries.labelled, lambda item: max(0, item.unknown - _MOSTLY_IGNORED))
    cases = [Case((item.key,), f"{item.unknown:.1%} with the ignore label") for item, _ in worst]
    return _found(
        "mostly ignore label",
        "warning",
        f"{_examples(cases)} of which more than half the pixels have the ignore label.",
        "They add little to training for their cost; look at them.",
        cases,
    )


def _unlabelled(summaries: Summaries) -> Finding | None:
    cases, severity = [], "note"
    for split, members in _grouped(summaries.examples, lambda item: item.split):
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
        "That is normal in a test split; elsewhere they add nothing to training or scores.",
        cases if summaries.labelled else [],
    )


def _only_background(summaries: Summaries) -> Finding | None:
    cases = [
        Case((item.key,), f"nothing but {summaries.classes[0]}")
        for item in summaries.labelled
        if set(item.counts) <= {0, IGNORE_LABEL}
    ]
    return _found(
        "empty masks",
        "warning",
        f"{_examples(cases)} with nothing but {summaries.classes[0]}.",
        "Check whether there really is nothing in them. The Dice of an empty mask is 0 or 1.",
        cases,
    )


def _no_background(summaries: Summaries) -> Finding | None:
    if len(summaries.classes) != 2:
        return None  # class 0 of many may well be out of sight
    cases = [
        Case((item.key,), f"no {summaries.classes[0]}")
        for item in summaries.labelled
        if 0 not in item.counts
    ]
    return _found(
        "full masks",
        "warning",
        f"{_examples(cases)} without any {summaries.classes[0]}.",
        "Check whether the masks were inverted or filled by mistake.",
        cases,
    )


def _flat(summaries: Summaries) -> Finding | None:
    cases = [Case((item.key,), "") for item in summaries.examples if item.flat]
    return _found(
        "blank images",
        "warning",
        f"{_examples(cases)} of one single colour.",
        "Leave them out: there is nothing to see.",
        cases,
    )


def _overlaps(summaries: Summaries) -> Finding | None:
    worst = _by(summaries.examples, lambda item: item.contested)
    cases = [
        Case((item.key,), f"{item.overlap:,} of {item.inside:,} object pixels") for item, _ in worst
    ]
    much = bool(worst) and worst[0][1] > _MUCH_OVERLAP
    return _found(
        "overlapping objects",
        "warning" if much else "note",
        f"{_examples(cases)} with pixels that more than one object claims.",
        "Decide which of them should have the pixels; within a class only objects differ.",
        cases,
    )


def _specks(summaries: Summaries) -> Finding | None:
    worst = _by(summaries.examples, lambda item: item.specks)
    cases = [Case((item.key,), f"{count:.0f} of {item.objects}") for item, count in worst]
    total = sum(item.specks for item in summaries.examples)
    return _found(
        "specks",
        "note",
        f"{_examples(cases)} with objects of under {SPECK} pixels, {total:,} in all.",
        "Check whether they are slips; resizing to a training size may remove them.",
        cases,
    )


def _misfits(summaries: Summaries) -> Finding | None:
    cases = misfits.found(summaries.labelled, two_classes=len(summaries.classes) == 2)
    return _found(
        "annotations that do not fit",
        "warning",
        f"{_examples(cases)} with a mask that does not seem to fit its image.",
        "Look at them: the mask may be of another image, moved, inverted or unfinished.",
        [Case((item.key,), detail) for item, detail in cases],
    )


def _apart(summaries: Summaries) -> Finding | None:
    cases = [
        Case((item.key,), f"object {', '.join(map(str, item.apart))} of {item.objects}")
        for item in summaries.examples
        if item.apart
    ]
    return _found(
        "objects in two places",
        "warning",
        f"{_examples(cases)} with an object in two places of about the same size.",
        "Look at them: two objects may have one number.",
        cases,
    )


_CHECKS: tuple[Callable[[Summaries], Finding | None], ...] = (
    _damaged,
    _size_mismatch,
    _foreign_values,
    _split_groups,
    _exact_across,
    _contradictions,
    _repeated_ids,
    _no_labels,
    _absent_class,
    _rare_class,
    _tables,
    _near_across,
    _misfits,
    _apart,
    _exact_within,
    _unlabelled,
    _mostly_ignored,
    _only_background,
    _no_background,
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


def _copies(summaries: Summaries) -> list[tuple[bytes, list[Summary]]]:
    groups = _grouped(summaries.examples, lambda item: item.pixels)
    return [(pixels, members) for pixels, members in groups if len(members) > 1]


def _pixels(members: Sequence[Summary]) -> set[bytes]:
    return {item.pixels for item in members}


def _crosses_splits(members: Sequence[Summary]) -> bool:
    return len({item.split for item in members}) > 1


def _by(
    items: Iterable[Summary], measure: Callable[[Summary], float]
) -> list[tuple[Summary, float]]:
    """Those with a positive measure, the largest first."""
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

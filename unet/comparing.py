"""Runs side by side on the same images: scores, and differences to the first run.

The difference has an interval of its own, from draws of groups that are the same for both runs:
images that are hard for both widen neither. One that holds 0 may be chance.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from segdata.console import counted
from segdata.inspection import charts, page
from unet import intervals, judging
from unet.intervals import Interval
from unet.judging import Judgement, Row

_SHOWN = 12  # images on which two runs differ most


class Difference(NamedTuple):
    """Of a score of a run to that of the first."""

    value: float

    interval: Interval | None
    """None where groups are not known, or are fewer than two."""

    @property
    def is_clear(self) -> bool:
        """Whether the interval does not hold 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs by name, the first of which the others are compared with."""

    judged: Mapping[str, Judgement]

    differences: Mapping[str, Mapping[str, Difference]]
    """Of each run but the first, by score."""

    @property
    def first(self) -> str:
        """The name of the first run."""
        return next(iter(self.judged))

    @property
    def scores(self) -> list[str]:
        """The names of the scores that are compared: those that all runs have."""
        first, *others = self.differences.values()
        return [name for name in first if all(name in each for each in others)]


def compare(judged: Mapping[str, Judgement]) -> Comparison:
    """Compares runs.

    Args:
        judged: Two or more by name, each on the same images, in any order.

    Raises:
        ValueError: If they are fewer, or classes, images or truth differ; the message names two
            runs and what differs.
    """
    if len(judged) < 2:
        raise ValueError("there is one run only; name two or more to compare.")
    (first, base), *others = judged.items()
    by_id = {(row.dataset, row.id): row for row in base.rows}
    if len(by_id) < len(base.rows):
        raise ValueError(f"images of {first} have the same names: they cannot be told apart.")
    groups = [f"{row.dataset}/{row.group}" for row in base.rows]
    is_grouped = all(row.group for row in base.rows)
    differences = {}
    for name, judgement in others:
        _require_alike(first, base, name, judgement)
        own = {(row.dataset, row.id): row for row in judgement.rows}
        if own.keys() != by_id.keys() or len(own) < len(judgement.rows):
            common = len(own.keys() & by_id.keys())
            raise ValueError(
                f"{first} and {name} were judged by different images: {len(base.rows):,} and "
                f"{len(judgement.rows):,}, of which {common:,} are the same. Give a --split that "
                "both have, and runs of one dataset."
            )
        theirs = [own[key] for key in by_id]
        for ours, other in zip(base.rows, theirs, strict=True):
            if not np.array_equal(_truth(ours, base), _truth(other, base)):
                raise ValueError(
                    f"the truth of {ours.name} is not the same for {first} and {name}."
                )
        differences[name] = _differences(base, groups if is_grouped else [], theirs)
    return Comparison(judged, differences)


def to_json(comparison: Comparison) -> dict[str, Any]:
    """A comparison as an object for `json.dump`."""
    judged, first = comparison.judged, comparison.judged[comparison.first]
    return {
        "images": len(first.rows),
        "groups": first.groups,
        "first": comparison.first,
        "runs": {name: judging.to_json(judgement) for name, judgement in judged.items()},
        "differences": {
            name: {
                score: {"difference": each.value, "interval": each.interval and [*each.interval]}
                for score, each in scores.items()
            }
            for name, scores in comparison.differences.items()
        },
    }


def text(comparison: Comparison) -> str:
    """A comparison as lines for a terminal."""
    wide = max(13, *map(len, comparison.judged))
    head = f"{'':13} {'run':{wide}}  score   {'95 % interval':17} difference  95 % interval"
    lines = [_lead(comparison), "", head]
    for score in comparison.scores:
        for name in comparison.judged:
            value, ends, difference, its_ends = _cells(comparison, score, name)
            label = score if name == comparison.first else ""
            line = f"{label:13} {name:{wide}}  {value:7} {ends:17} {difference:>10}  {its_ends}"
            lines.append(line.rstrip())
    return "\n".join([*lines, "", "* the interval does not hold 0"])


def document(comparison: Comparison) -> str:
    """A comparison as an HTML page."""
    heads = ("Score", "Run", "Value", "95 % interval", "Difference", "95 % interval")
    rows = [
        (
            judging.LABELS[score] if name == comparison.first else "",
            name,
            *_cells(comparison, score, name),
        )
        for score in comparison.scores
        for name in comparison.judged
    ]
    drawn = "".join(_chart(comparison, score) for score in comparison.scores)
    none = "<p>Groups of images are not known, or there is one: there are no intervals.</p>"
    body = f"""<div class="figures">{page.table(rows, heads=heads)}</div>
<p>* the interval does not hold 0. Intervals of differences are of draws that are the same for both
runs.</p>
<h2>Differences</h2>
<div class="cards">{drawn or none}</div>
<h2>Images</h2>
<div class="figures">{"".join(_images(comparison, name) for name in comparison.differences)}</div>
<h2>Runs</h2>
<div class="cards">{"".join(_run(*each) for each in comparison.judged.items())}</div>"""
    return page.document(" and ".join(comparison.judged), lead=_lead(comparison), body=body)


def _require_alike(first: str, base: Judgement, name: str, judgement: Judgement) -> None:
    for what, ours, theirs in (
        ("outputs", base.recipe.model.output_activation, judgement.recipe.model.output_activation),
        ("classes", ", ".join(base.classes), ", ".join(judgement.classes)),
    ):
        if ours != theirs:
            raise ValueError(
                f"{first} and {name} have different {what}, {ours} and {theirs}: their scores are "
                "not of the same."
            )


def _truth(row: Row, judgement: Judgement) -> np.ndarray:
    """What is kept of an image's truth alone: pixels of each class, or of targets."""
    if judgement.recipe.is_regression:
        return row.sums[[0, 3, 4]]
    return row.sums[-judgement.recipe.model.output_channels :]


def _differences(
    base: Judgement, groups: Sequence[str], theirs: Sequence[Row]
) -> dict[str, Difference]:
    """Of pixels; and of objects, where both have their scores."""
    found = {}
    pairs = (judging.added(rows, base.recipe) for rows in (base.rows, theirs))
    for (ours, scores), (others, _) in zip(*pairs, strict=False):
        both = np.concatenate([ours, others], axis=-1)

        def between(sums: np.ndarray, scores: judging.Scores = scores) -> dict[str, np.ndarray]:
            one, other = (scores(half) for half in np.split(sums, 2, axis=-1))
            return {name: other[name] - one[name] for name in one}

        ends = intervals.of(groups, both, between) if groups else {}
        found |= {
            name: Difference(float(value), ends.get(name))
            for name, value in between(both.sum(axis=0)).items()
            if not np.isnan(value)
        }
    return found


def _lead(comparison: Comparison) -> str:
    base = comparison.judged[comparison.first]
    groups = f" of {counted(base.groups, 'group')}" if base.groups else ""
    few = f" {caution}" if (caution := intervals.caution(base.groups)) else ""
    return f"{counted(len(base.rows), 'image')}{groups}, at native size.{few}"


def _cells(comparison: Comparison, score: str, name: str) -> tuple[str, str, str, str]:
    """Value and interval of a run, its difference to the first and the interval of that."""
    judgement = comparison.judged[name]
    value = f"{judgement.scores[score]:.4f}"
    ends = _range(judgement.intervals.get(score))
    if name == comparison.first:
        return value, ends, "", ""
    found = comparison.differences[name][score]
    star = " *" if found.is_clear else ""
    return value, ends, f"{found.value:+.4f}", _range(found.interval, sign="+") + star


def _range(ends: Interval | None, sign: str = "") -> str:
    return f"{ends[0]:{sign}.4f} to {ends[1]:{sign}.4f}" if ends else "–"


def _chart(comparison: Comparison, score: str) -> str:
    """The differences of a score with their intervals; nothing where there are none."""
    rows = [
        (name, each.value, *each.interval)
        for name, scores in comparison.differences.items()
        if (each := scores[score]).interval is not None
    ]
    of = f"difference to {comparison.first}"
    return charts.intervals(judging.LABELS[score], rows, of=of) if rows else ""


def _images(comparison: Comparison, name: str) -> str:
    """The images that a run and the first differ on most."""
    base, other = comparison.judged[comparison.first], comparison.judged[name]
    score = "rmse" if base.recipe.is_regression else "dice"
    theirs = {(row.dataset, row.id): row for row in other.rows}
    rows = [
        (
            row.name,
            float(judging.scores_of(row.sums, base.recipe)[score]),
            float(judging.scores_of(theirs[row.dataset, row.id].sums, base.recipe)[score]),
        )
        for row in base.rows
    ]
    rows.sort(key=lambda row: -abs(row[2] - row[1]))
    return page.table(
        [(key, f"{a:.4f}", f"{b:.4f}", f"{b - a:+.4f}") for key, a, b in rows[:_SHOWN]],
        heads=("Image", comparison.first, name, "Difference"),
        caption=f"{'RMSE' if score == 'rmse' else 'Dice'}: the largest differences",
    )


def _run(name: str, judgement: Judgement) -> str:
    recipe = judgement.recipe
    size = "×".join(map(str, recipe.size))
    is_sigmoid = recipe.model.output_activation == "sigmoid"
    rows = [
        ("Source of the recipe", recipe.source or "–"),
        ("Trained on", f"{recipe.dataset}, {size}"),
        ("Parameters", f"{recipe.model.parameters:,}"),
        ("Loss", recipe.loss),
        ("Threshold", f"{recipe.threshold:.4f}" if is_sigmoid else "–"),
    ]
    return page.table(rows, caption=name)

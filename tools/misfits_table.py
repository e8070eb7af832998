"""Annotations that do not fit, planted in synthetic and real examples: found and falsely accused.

    python tools/misfits_table.py [--examples 200] [--real DIR]

Of every ten examples of a source one gets a mistake, each kind in turn, so that similar images say
what is usual; then the audit's own check is run. `--real` names a manual dir of dsb2018.
"""

import argparse
import collections
import dataclasses
import pathlib
import sys
import tempfile
from collections.abc import Callable

import numpy as np

from segdata.inspection import audit, overlays, raw
from segdata.inspection.examples import Collection
from segdata.sources import Example, carvana, cityscapes_pairs, dsb2018

Plant = Callable[[Example, Example, np.random.Generator], Example]
Row = tuple[str, str, int, int, int, int]
"""Source, mistake, how many were planted, found, how many were right, and accused."""


def shifted(example: Example, other: Example, rng: np.random.Generator, *, by: float) -> Example:
    """The mask moved by a share of the longer side, in any direction."""
    mask, turn = example.mask, rng.uniform(0, 2 * np.pi)
    rows, columns = (round(by * max(mask.shape) * move) for move in (np.sin(turn), np.cos(turn)))
    moved = np.roll(np.pad(mask, max(mask.shape)), (rows, columns), (0, 1))
    kept = tuple(slice(max(mask.shape), max(mask.shape) + side) for side in mask.shape)
    return dataclasses.replace(example, mask=moved[kept], instances=None)


def swapped(example: Example, other: Example, rng: np.random.Generator) -> Example:
    """The mask of another image, at this one's size."""
    shape = example.mask.shape
    mask = overlays.nearest(other.mask, (shape[0], shape[1]))
    return dataclasses.replace(example, mask=mask, instances=None)


def inverted(example: Example, other: Example, rng: np.random.Generator) -> Example:
    """Inside and outside exchanged."""
    mask = np.where(example.mask < 2, 1 - example.mask, example.mask)
    return dataclasses.replace(example, mask=mask, instances=None)


def halved(example: Example, other: Example, rng: np.random.Generator) -> Example:
    """Half of the objects missing, or the right half of a single one."""
    mask = example.mask.copy()
    if example.instances is None:
        columns = np.flatnonzero((mask == 1).any(axis=0))
        mask[:, int(np.median(columns)) :][mask[:, int(np.median(columns)) :] == 1] = 0
    else:
        numbers = rng.permutation(np.unique(example.instances)[1:])
        mask[np.isin(example.instances, numbers[: (len(numbers) + 1) // 2])] = 0
    return dataclasses.replace(example, mask=mask, instances=None)


def one_number(example: Example, other: Example, rng: np.random.Generator) -> Example:
    """Two objects that do not touch, the second at least half as large, with one number."""
    labels = example.instances
    if labels is None:
        raise ValueError(f"{example.id} has no objects.")
    areas = np.bincount(labels.ravel())
    pairs = [
        (int(a), int(b))
        for a in rng.permutation(np.flatnonzero(areas[1:] >= 40) + 1)
        for b in np.flatnonzero((areas >= areas[a] / 2) & (areas <= areas[a]))
        if a != b and b
    ]
    apart = next((pair for pair in pairs if not _touch(labels, *pair)), None)
    if apart is None:
        return example
    merged = np.where(labels == apart[1], apart[0], labels).astype(labels.dtype)
    return dataclasses.replace(example, instances=merged)


MISTAKES: dict[str, Plant] = {
    "shifted by 3 %": lambda *given: shifted(*given, by=0.03),
    "shifted by 5 %": lambda *given: shifted(*given, by=0.05),
    "shifted by 10 %": lambda *given: shifted(*given, by=0.1),
    "of another image": swapped,
    "inverted": inverted,
    "half missing": halved,
    "two objects, one number": one_number,
}
_CHECKS = ("annotations that do not fit", "objects in two places")


def rows(collection: Collection, name: str, *, seed: int = 0) -> list[Row]:
    """The rows of the table for one source; each mistake is planted in every tenth example."""
    strata = collections.Counter(item.stratum for item in audit.audit(collection).summaries)
    found = []
    for mistake, plant in MISTAKES.items():
        planted = _planted(collection, plant, seed=seed)
        if planted is None:
            continue
        changed, victims = planted
        report = audit.audit(changed)
        accused = {
            key
            for finding in report.findings
            if finding.check in _CHECKS
            for case in finding.cases
            for _, key in case.members
        }
        right = len(report.summaries) - len(victims)
        kinds = f"{name} ({', '.join(sorted(strata))})"
        hits = len(accused & victims)
        found.append((kinds, mistake, len(victims), hits, right, len(accused - victims)))
    return found


def _planted(
    collection: Collection, plant: Plant, *, seed: int
) -> tuple[Collection, set[str]] | None:
    """The collection with a mistake in every tenth example, and the ids of those."""
    items = list(collection.stream())
    if plant is one_number and items[0].read().instances is None:
        return None
    chosen = {number: items[number] for number in range(0, len(items), 10)}

    def read(number: int) -> Example:
        rng = np.random.default_rng([seed, number])
        return plant(items[number].read(), items[(number + 3) % len(items)].read(), rng)

    changed = [
        dataclasses.replace(item, read=lambda number=number: read(number))
        if number in chosen
        else item
        for number, item in enumerate(items)
    ]
    victims = {item.id for item in chosen.values()}
    return dataclasses.replace(collection, stream=lambda: iter(changed), tables=()), victims


def _touch(labels: np.ndarray, one: int, other: int) -> bool:
    """Whether two objects have neighbouring pixels, corners among them."""
    around = np.pad(labels == one, 1)
    sides = [slice(0, -2), slice(1, -1), slice(2, None)]
    grown = np.any([around[a, b] for a in sides for b in sides], axis=0)
    return bool((grown & (labels == other)).any())


def table(found: list[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| source | mistake | planted | found | right | falsely accused |"]
    lines += ["|---|---|---|---|---|---|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in found]
    return "\n".join(lines)


def main() -> int:
    """Prints the table; returns how many right examples were accused."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    flags.add_argument("--examples", type=int, default=200, help="of each synthetic source")
    flags.add_argument("--real", type=pathlib.Path, help="a manual dir with stage1_train.zip")
    settings = flags.parse_args()
    count, found = settings.examples, list[Row]()
    with tempfile.TemporaryDirectory() as folder:
        dsb2018.draw_zips(pathlib.Path(folder, "dsb2018"), examples=count, seed=0)
        carvana.draw(pathlib.Path(folder, "carvana"), examples=count, seed=0, size=(192, 288))
        cityscapes_pairs.draw(pathlib.Path(folder, "cityscapes_pairs"), examples=count, seed=0)
        for name in ("dsb2018", "carvana", "cityscapes_pairs"):
            found += rows(raw.collection(name, manual_dir=pathlib.Path(folder, name)), name)
    if settings.real:
        found += rows(raw.collection("dsb2018", manual_dir=settings.real), "real nuclei")
    print(table(found))
    return sum(row[-1] for row in found)


if __name__ == "__main__":
    sys.exit(main())

"""Trains a recipe on each of several folds, with several seeds, and scores what was left out.

    python tools/cross_validation.py --out DIR --data_dir DIR [--recipe dsb2018] [--folds 5]
        [--seeds 0 1 2] [any flags of `unet train`]

Folds are whole groups of images of `train+validation`, or of what --train_split says. Each run
lies in DIR/seed-S-fold-K and is scored at the images' own size, with objects where the dataset
numbers them (--objects), and at the training's. What is there already is kept: the command can be
stopped and given again. Printed are the scores of each seed over all its folds together, with half
of a 95 % interval over groups, and the mean and spread of the seeds: dataset_iou from the counts of
all pixels, the others as means over images.
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from segdata import console
from segdata.core.system import files

MEANS = ("dice", "iou", "object_ap", "object_ap50")


def main() -> None:
    """Trains and scores what is missing, and prints a table."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the runs")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--objects", action="store_true", help="score objects too")
    asked, flags = parser.parse_known_args()
    if "train_split" not in (given := console.given(flags)):
        flags += ["--train_split", "train+validation"]
    if own := given & {"fold", "seed"}:
        parser.error(f"--{own.pop()} is set for each run; give --folds N and --seeds S ...")
    judged = {"native": ["--objects"] * asked.objects, "training": ["--at", "training"]}
    rows: dict[str, list[dict[str, float]]] = {size: [] for size in judged}
    for seed in asked.seeds:
        folds: dict[str, list[dict[str, Any]]] = {size: [] for size in judged}
        for fold in range(asked.folds):
            run = asked.out / f"seed-{seed}-fold-{fold}"
            own = ["--seed", str(seed), "--fold", str(fold), str(asked.folds), *flags]
            for size, how in judged.items():
                folds[size].append(scored(run, own, *how))
                if "confusion" not in folds[size][-1]:
                    sys.exit(f"{run}: the scores of a regression cannot be pooled over folds.")
                print(f"{run.name}, {size}: {shown(together(folds[size][-1:]))}", flush=True)
        for size, found in folds.items():
            rows[size].append(together(found))
            said = shown(rows[size][-1], halves(found))
            print(f"seed {seed}, {size}, {rows[size][-1]['images']} images: {said}", flush=True)
    for size, found in rows.items():
        print(f"mean and spread over seeds, {size}: {shown(spread(found))}")


def scored(run: pathlib.Path, flags: Sequence[str], *judged: str) -> dict[str, Any]:
    """Trains, or resumes, and scores a run; what its folder already holds is not made again.

    Args:
        run: Its folder; beside it lie what it printed and its scores.
        flags: Of `unet train`.
        judged: Flags of `unet evaluate`.
    """
    unet = [sys.executable, "-m", "unet"]
    log = run.with_suffix(".log")
    scores = run.with_suffix("".join(judged).replace("--", ".") + ".json")
    if not scores.exists():
        run.parent.mkdir(parents=True, exist_ok=True)
        begin = ["resume", str(run)] if run.exists() else ["train", "--out", str(run), *flags]
        with log.open("a") as said:
            ended = subprocess.run([*unet, *begin], check=False, stdout=said, stderr=said)
        if ended.returncode:
            last = log.read_text().rstrip().rpartition("\n")[2]
            sys.exit(f"{last}\n{log} has all that was said.")
        judge = [*unet, "evaluate", str(run), "--json", *judged]
        found = subprocess.run(judge, check=True, stdout=subprocess.PIPE)
        files.write(scores, found.stdout)
    return json.loads(scores.read_bytes())


def together(folds: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The scores of all images of several folds."""
    count = [fold["images"] for fold in folds]
    found = {
        name: sum(fold[name] * n for fold, n in zip(folds, count, strict=True)) / sum(count)
        for name in MEANS
        if name in folds[0]
    }
    return {"images": sum(count)} | found | {"dataset_iou": pooled(folds)}


def halves(folds: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Half of the interval of each mean: no group is in two folds, so their variances add."""
    count = [fold["images"] for fold in folds]
    found = {}
    for name in MEANS:
        ends = [fold.get("intervals", {}).get(name) for fold in folds]
        if all(ends):
            each = [n * (high - low) / 2 for n, (low, high) in zip(count, ends, strict=True)]
            found[name] = math.hypot(*each) / sum(count)
    return found


def pooled(folds: Sequence[dict[str, Any]]) -> float:
    """Mean IoU, from the counts of all folds, of the scored classes that occur; 1 if none does."""
    names = list(folds[0]["confusion"])
    count = {
        (true, found): sum(fold["confusion"][true][found] for fold in folds)
        for true in names
        for found in names
    }
    each = {
        name: sum(count[name, x] + count[x, name] for x in names) - count[name, name]
        for name in folds[0]["classes"]
    }
    scores = [count[name, name] / union for name, union in each.items() if union]
    return statistics.mean(scores) if scores else 1.0


def spread(rows: Sequence[dict[str, float]]) -> dict[str, str]:
    """Mean, least and most of each score."""
    names = [name for name in rows[0] if name != "images"]
    columns = {name: [row[name] for row in rows] for name in names}
    return {
        name: f"{statistics.mean(x):.4f} ({min(x):.4f} to {max(x):.4f})"
        for name, x in columns.items()
    }


def shown(row: Mapping[str, Any], within: Mapping[str, float] = MappingProxyType({})) -> str:
    """A line of scores, each with half of its interval where that is known."""
    return ", ".join(
        (f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}")
        + (f" ± {within[name]:.4f}" if name in within else "")
        for name, value in row.items()
        if name != "images"
    )


if __name__ == "__main__":
    main()

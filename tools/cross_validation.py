"""Trains a recipe on each of several folds, with several seeds, and scores what was left out.

    python tools/cross_validation.py --out DIR --data_dir DIR [--recipe dsb2018] [--folds 5]
        [--seeds 0 1 2] [any flags of `unet train`]

Folds are whole groups of images of `train+validation`, or of what --train_split says. Each run
lies in DIR/seed-S-fold-K and is scored at the images' own size, with objects where the dataset
numbers them (--objects). What is there already is kept: the command can be stopped and given again.
Printed are the scores of each seed over all its folds together, and their mean and spread:
dataset_iou from the counts of all pixels, the others as means over images.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

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
    if "--train_split" not in flags:
        flags += ["--train_split", "train+validation"]
    rows = []
    for seed in asked.seeds:
        folds = []
        for fold in range(asked.folds):
            run = asked.out / f"seed-{seed}-fold-{fold}"
            own = ["--seed", str(seed), "--fold", str(fold), str(asked.folds), *flags]
            folds.append(scored(run, own, *["--objects"] * asked.objects))
            print(f"{run.name}: {shown(together(folds[-1:]))}", flush=True)
        rows.append(together(folds))
        print(f"seed {seed}, {rows[-1]['images']} images: {shown(rows[-1])}", flush=True)
    print("mean and spread over seeds: " + shown(spread(rows)))


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
            subprocess.run([*unet, *begin], check=True, stdout=said, stderr=said)
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


def shown(row: dict[str, Any]) -> str:
    """A line of scores."""
    return ", ".join(
        f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in row.items()
        if name != "images"
    )


if __name__ == "__main__":
    main()

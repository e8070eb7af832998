"""Trains recipes and prints a table: parameters, scores at both sizes, minutes, images a second.

    python tools/recipes_table.py --out DIR --data_dir DIR [--recipes NAME …]
        [any flags of `unet train`]

Each run lies in DIR/NAME. What is there already is kept: the command can be stopped and given
again. Scores are of the validation images, with 95 % intervals over groups of them; minutes are
those of the training with its validation, on this machine.
"""

import argparse
import pathlib
from typing import Any

from cross_validation import scored

from unet import runs

DEFAULT = ("dsb2018", "carvana", "cityscapes", "cityscapes-classes")
HEADS = ("recipe", "parameters", "native: Dice", "dataset IoU", "as trained: Dice", "dataset IoU")
TIMES = ("minutes", "images/s", "waits for input")


def main() -> None:
    """Trains and scores what is missing, and prints the table."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the runs")
    parser.add_argument("--recipes", nargs="+", default=list(DEFAULT))
    asked, flags = parser.parse_known_args()
    print(f"| {' | '.join((*HEADS, *TIMES))} |\n|---|{'---:|' * (len(HEADS) + len(TIMES) - 1)}")
    for name in asked.recipes:
        run = asked.out / name
        own = ["--recipe", name, *flags]
        both = [scored(run, own), scored(run, own, "--at", "training")]
        print(f"| {' | '.join([name, *cells(run, both)])} |", flush=True)


def cells(run: pathlib.Path, both: list[dict[str, Any]]) -> list[str]:
    """What the table says of a run and its scores at native size and at that of the training."""
    history = runs.state(run).history
    seconds = sum(row["seconds"] for row in history)
    images = sum(row["images_per_second"] * row["seconds"] for row in history)
    waits = [row["input_share"] for row in history if "input_share" in row]
    return [
        f"{runs.settings(run).recipe.model.parameters:,}",
        *(score(found, name) for found in both for name in ("dice", "dataset_iou")),
        f"{seconds / 60:.1f}",
        f"{images / seconds:.0f}",
        f"{sum(waits) / len(waits):.1%}" if waits else "–",
    ]


def score(found: dict[str, Any], name: str) -> str:
    """A score with its interval, where there is one."""
    ends = found.get("intervals", {}).get(name)
    within = f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
    return f"{found[name]:.4f}{within}"


if __name__ == "__main__":
    main()

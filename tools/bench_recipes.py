"""How fast each recipe trains on this machine, at its own size and batch.

    python tools/bench_recipes.py [--data_dir DATA] [--recipes carvana carvana-fcn …]

A training step is timed after a first one that compiles; steps are repeated for a few seconds, and
the best counts. Batches are noise unless a folder of built datasets is given.
"""

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from unet import hardware
from unet.recipes import RECIPES, Recipe

_SECONDS = 10.0


def main() -> None:
    """Prints one row a recipe, our own first."""
    parser = argparse.ArgumentParser(description="How fast each recipe trains on this machine.")
    parser.add_argument("--data_dir", help="where the datasets were built; noise if not given")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    asked = parser.parse_args()
    hardware.prepare_environment()
    choice = hardware.choose()
    hardware.apply(choice)
    print(choice)
    print("| recipe | size, batch | parameters | images/s | of carvana's |")
    print("|---|---|---:|---:|---:|")
    ours = None
    for name in ["carvana", *(name for name in asked.recipes if name != "carvana")]:
        recipe = RECIPES[name]
        rate = images_per_second(recipe, _batches(recipe, asked.data_dir), xla=choice.compile)
        ours = ours or rate
        height, width = recipe.size
        print(
            f"| {name} | {height}×{width}, {recipe.batch} | {recipe.model.parameters:,} "
            f"| {rate:,.2f} | {rate / ours:.3f} |",
            flush=True,
        )


def images_per_second(recipe: Recipe, batches: Iterator[tuple[Any, Any]], *, xla: bool) -> float:
    """The rate of the fastest of a few training steps, the first left out."""
    from unet import train

    network: Any = train.compiled(recipe, steps_per_epoch=100, xla=xla)
    network.train_on_batch(*next(batches))
    begun, best = time.monotonic(), float("inf")
    while True:
        pair = next(batches)
        start = time.monotonic()
        network.train_on_batch(*pair)
        best = min(best, time.monotonic() - start)
        if time.monotonic() - begun > _SECONDS:
            return recipe.batch / best


def _batches(recipe: Recipe, data_dir: str | None) -> Iterator[tuple[Any, Any]]:
    if data_dir is None:
        rng = np.random.default_rng(0)
        image = rng.integers(0, 256, (recipe.batch, *recipe.size, 3), np.uint8)
        mask = rng.integers(0, 2, (recipe.batch, *recipe.size, 1), np.uint8)
        while True:
            yield image, mask
    from segdata import pipeline
    from segdata.core.augment import Augment

    yield from pipeline.train_batches(
        recipe.dataset,
        "train",
        size=recipe.size,
        batch=recipe.batch,
        augment=Augment(**recipe.augment),
        seed=0,
        steps="endless",
        data_dir=data_dir,
    )


if __name__ == "__main__":
    main()

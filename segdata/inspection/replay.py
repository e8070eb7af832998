"""What a training saw in a step, made again from the settings of its run and drawn."""

import json
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from segdata import packing
from segdata.core.augment import Augment
from segdata.core.stream import Stream
from segdata.inspection import sheet


def drawn(
    run: str | os.PathLike[str], *, step: int, data_dir: str | os.PathLike[str] | None = None
) -> Image.Image:
    """A contact sheet of the batch of a step.

    Args:
        run: The folder of a run of `unet train`, whose `settings.json` is read.
        step: Which, from 0.
        data_dir: Where the dataset is now, if not where the run's settings say.

    Raises:
        OSError: If there are no settings.
        ValueError: If they are of another kind, or there is no such step.
    """
    path = pathlib.Path(run, "settings.json")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; name the folder of a run.")
    try:
        settings: Any = json.loads(path.read_text())
        recipe = settings["recipe"]
        name, split, size = recipe["dataset"], recipe["train_split"], recipe["size"]
        fold = recipe.get("fold")
        augment, batch, seed = Augment(**recipe["augment"]), recipe["batch"], recipe["seed"]
        place = data_dir or settings["data_dir"]
        mix = recipe.get("mix")
        reached = _reached(path.with_name("state.json"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not the settings of a run: {error!s:.200}.") from error
    if mix:
        raise ValueError(
            f"{run} was trained on several datasets; segdata.mix with the settings in {path} gives "
            f"the batch, as `mix(…).batch({step})`."
        )
    if reached is not None and not 0 <= step < reached:
        raise ValueError(f"step={step}: {run} has come to step {reached:,}; from 0 to before that.")
    records = packing.pack(name, split, size=size, fold=fold, data_dir=place)
    stream = Stream(records, batch=batch, augment=augment, seed=seed)
    rows, epochs = stream.plan.order(stream.steps(step, 1)[0])
    features: Any = packing.built(name, data_dir=place).info.features
    return sheet.sheet(
        list(np.concatenate(stream.batch(step), axis=-1)),
        [f"#{row} e{epoch}" for row, epoch in zip(rows, epochs, strict=True)],
        classes=tuple(features["mask"].names),
        title=f"{pathlib.Path(run).name}, step {step:,}: {name}, {split}; #record e(poch)",
    )


def _reached(state: pathlib.Path) -> int | None:
    """How many steps the run has made; None where it has saved none."""
    return int(json.loads(state.read_text())["step"]) if state.is_file() else None

"""What a training saw in a step, made again from the settings of its run and drawn."""

import json
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from segdata import mixing, packing
from segdata.building.features import from_json
from segdata.core.augment import Augment
from segdata.core.mixture import Mixture
from segdata.core.stream import Stream
from segdata.inspection import sheet


def drawn(
    run: str | os.PathLike[str], *, step: int, data_dir: str | os.PathLike[str] | None = None
) -> Image.Image:
    """A contact sheet of the batch of a step.

    Args:
        run: The folder of a run of `unet train`, whose `settings.json` is read.
        step: Which, from 0. A training that diverged has seen up to an epoch of steps after its
            last checkpoint.
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
        name, split, fold = recipe["dataset"], recipe["train_split"], recipe.get("fold")
        record_size = recipe.get("record_size")
        augment = Augment(**recipe["augment"])
        what = {key: recipe[key] for key in ("size", "batch", "seed")}
        named, mix = recipe.get("features", {}), recipe.get("mix")
        place = data_dir or settings["data_dir"]
        saved = _saved(path.with_name("state.json"))
        epoch = int(settings.get("made_with", {}).get("steps an epoch", 0))
        last = epoch * recipe.get("epochs", 0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not the settings of a run: {error!s:.200}.") from error
    if saved is not None and not 0 <= step < (most := max(saved, min(saved + epoch, last))):
        raise ValueError(
            f"step={step}: {run} has come to step {saved:,}; from 0 to before {most:,}."
        )
    begin = f"{pathlib.Path(run).name}, step {step:,}"
    if mix:
        given = mixing.from_json(
            mix, split=split, augment=augment, record_size=record_size, fold=fold
        )
        return _of_mixture(mixing.mix(**given.training, **what, data_dir=place), step, begin)
    features = from_json(named)
    rule = packing.Rule.of_batches(what["size"], record_size)
    records = packing.pack_by(rule, name, split, fold=fold, data_dir=place, **features)
    stream = Stream(records, **what, augment=augment)
    rows, epochs = stream.plan.order(stream.steps(step, 1)[0])
    return sheet.sheet(
        list(np.concatenate(stream.batch(step), axis=-1)),
        [f"#{row} e{epoch}" for row, epoch in zip(rows, epochs, strict=True)],
        classes=mixing.class_names((name,), features={name: features}, data_dir=place)[name],
        title=f"{begin}: {name}, {split}; #record e(poch)",
        whole_ids=True,
    )


def _of_mixture(mixture: Mixture, step: int, begin: str) -> Image.Image:
    numbers, places = (found[0] for found in mixture.order(mixture.steps(step, 1)[0]))
    parts = [mixture.parts[number] for number in numbers]
    ids = []
    for part, place in zip(parts, places, strict=True):
        (row,), (epoch,) = part.stream.plan.at(np.array([place]))
        ids.append(f"{mixture.names[part.source]} #{row} e{epoch}")
    return sheet.sheet(
        list(np.concatenate(mixture.batch(step), axis=-1)),
        ids,
        classes=mixture.classes,
        title=f"{begin}: {', '.join(mixture.names)}; dataset #record e(poch)",
        whole_ids=True,
    )


def _saved(state: pathlib.Path) -> int | None:
    """The step of the last checkpoint; None where there is none."""
    return int(json.loads(state.read_text())["step"]) if state.is_file() else None

"""From the flags of a training that is to begin to its settings and data.

Keras, which takes seconds to load, is imported when the flags have been read.
"""

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from segdata import console
from unet import hardware, model, recipes, runs, saved
from unet.flags import Start, Training
from unet.recipes import Recipe
from unet.runs import Settings

if TYPE_CHECKING:
    from segdata.inspection.traits import Traits
    from unet.data import Data


def read(kind: type[Training], argv: Sequence[str], *, prog: str) -> tuple[Any, Recipe]:
    """Reads the flags of a training as `training`, `settings` and `augment`, and its recipe."""
    start = console.Parser(prog=prog, add_help=False)
    start.add_arguments(Start, dest="start")
    chosen = start.parse_known_args(list(argv))[0].start
    recipe = recipes.named(chosen.recipe)
    from segdata.core.augment import Augment

    parser = console.Parser(prog=prog)
    parser.add_arguments(kind, dest="training")
    _add_recipe(parser, recipe)
    parser.add_arguments(Augment, dest="augment", default=Augment(**recipe.augment))
    return parser.read(argv), recipe


def plan(asked: Any, recipe: Recipe, argv: Sequence[str]) -> tuple[Settings, "Data"]:
    """The settings of a training, and its data; from `read`."""
    given: Training = asked.training
    load_keras(deterministic=given.deterministic)
    console.import_modules(given.features.imports)
    kept = {"augment": _differences(asked.augment), "source": recipe.source}  # have no flag
    recipe = Recipe(**vars(asked.settings) | kept | _mixture(given))
    recipe = dataclasses.replace(recipe, features=given.features.as_json())
    model.require_known(recipe.model)  # before the dataset is read
    if given.recipe == "small":
        recipe = _chosen(recipe, given.data_dir, given=console.given(argv))
    from unet import pretrained
    from unet.data import Data

    data_dir = _kept(given.data_dir)
    data = Data(recipe, data_dir)
    classes = data.classes()
    if given.balance_classes:
        recipe = _balanced(recipe, data)
        data = dataclasses.replace(data, recipe=recipe)
    _say_if_average_lags(recipe, steps=recipe.epochs * data.steps_per_epoch)
    settings = Settings(
        name=given.recipe,
        recipe=recipe,
        choice=hardware.choose(
            given.precision, given.compile, devices=given.devices, batch=recipe.batch
        ),
        classes=classes,
        scalings=data.scalings(),
        trained_on=data.sizes(),
        made_with=data.made_with(),
        init_from=pretrained.of(given.init_from) if given.init_from else {},
        data_dir=data_dir,
        deterministic=given.deterministic,
    )
    return settings, data


def load_keras(*, deterministic: bool = False) -> None:
    """Loads Keras and what it needs, without the lines that they print.

    What ~/.keras/keras.json and KERAS_MAX_EPOCHS say of the training is undone: a recipe says it.
    """
    hardware.prepare_environment(deterministic=deterministic)
    with console.quiet_start():
        hardware.detect()
    import keras

    keras.config.set_floatx("float32")  # of losses, whose masks and weights are float32
    keras.config.set_max_epochs(None)  # `fit` would return before the training has ended, for ever
    keras.config.set_max_steps_per_epoch(None)


def _add_recipe(parser: console.Parser, recipe: Recipe) -> None:
    """Adds a flag for each setting, also those of this kind of model."""
    fields = [("model", type(recipe.model), dataclasses.field(default=recipe.model))]
    kind = dataclasses.make_dataclass(
        "Recipe",
        fields,
        bases=(Recipe,),
        namespace={"__doc__": Recipe.__doc__},
        frozen=True,
        kw_only=True,
    )
    parser.add_arguments(kind, dest="settings", default=kind(**vars(recipe)))


def _differences(augment: Any) -> Mapping[str, Any]:
    """The settings that differ from their defaults, which do nothing."""
    return {
        f.name: getattr(augment, f.name)
        for f in dataclasses.fields(augment)
        if getattr(augment, f.name) != f.default
    }


def _chosen(recipe: Recipe, data_dir: str | None, *, given: Collection[str]) -> Recipe:
    """The recipe `small` for a dataset or a mixture; prints what was chosen and why."""
    if not recipe.dataset:
        raise ValueError(
            "--recipe small chooses from a dataset, --dataset folder:NAME, or from several, --mix "
            "NAME=1 NAME=1."
        )
    from segdata.building import features
    from segdata.inspection import traits
    from unet import small

    if recipe.mix:
        recipe, said = small.choose_mixed(*_measured(recipe, data_dir), recipe, given=given)
    else:
        named = features.from_json(recipe.features)
        found = traits.measure(recipe.dataset, recipe.train_split, data_dir=data_dir, **named)
        recipe, said = small.choose(found, recipe, given=given)
    for line in said:
        console.log(line)
    return recipe


def _measured(recipe: Recipe, data_dir: str | None) -> tuple[dict[str, "Traits"], "Traits"]:
    """What the datasets of a mixture are like, each and together."""
    from segdata import mixing
    from segdata.inspection import traits

    mix = mixing.from_json(recipe.mix, split=recipe.train_split).training
    shares, splits, features = mix["shares"], mix["split"], mix["features"]
    known = mixing.class_names(tuple(shares), features=features, data_dir=data_dir)
    told = {name: mix[name] for name in ("labels", "background") if name in mix}
    space = mixing.joined(known, **told)
    found = {
        name: traits.measure(name, splits[name], data_dir=data_dir, **features[name])
        for name in shares
    }
    joint = traits.joined(found, shares=shares, classes=space.classes, tables=space.tables)
    return found, joint


def _balanced(recipe: Recipe, data: "Data") -> Recipe:
    """With weights that balance the classes of the first epoch; prints them."""
    if recipe.class_weights:
        raise ValueError("--balance_classes chooses class_weights; give one of the two.")
    from unet import losses

    # As many numbers as there are classes fit the loss or not, before anything is counted.
    classes = max(recipe.model.output_channels, 2)
    dataclasses.replace(recipe, class_weights=(1.0,) * classes)
    batches = itertools.islice(data.batches(0), data.steps_per_epoch)
    weights = losses.balanced_weights((mask for _, mask in batches), classes=classes)
    console.log(f"class weights: {', '.join(f'{weight:.3g}' for weight in weights)}")
    return dataclasses.replace(recipe, class_weights=weights)


def _say_if_average_lags(recipe: Recipe, *, steps: int) -> None:
    """Prints a line where a training is too short for its average of the weights."""
    updates = steps // recipe.accumulation
    if recipe.ema_momentum > (most := recipes.most_momentum(updates)):
        over = round(1 / (1 - recipe.ema_momentum))
        console.log(
            f"ema_momentum {recipe.ema_momentum:g} averages the weights over some {over:,} "
            f"updates, and there are {updates:,} in all: the average, which is scored and kept, "
            f"will be behind what is trained. Give --ema_momentum {most:g}, or more epochs."
        )


def _mixture(train: Training) -> dict[str, Any]:
    """What changes in a recipe for several datasets; nothing where there is one."""
    if not train.mix:
        if train.background != "ignore":
            raise ValueError("--background is for several datasets; give --mix.")
        return {}
    if not train.features.are_usual:
        raise ValueError(
            "--image, --mask, --labels and alike are for one dataset; of several, `features` in "
            "the file of --mix says them."
        )
    if len(train.mix) == 1 and "=" not in train.mix[0]:
        mix = _mix_file(train.mix[0])
        if train.background != "ignore":
            raise ValueError(f"--background: say it in {train.mix[0]}.")
    else:
        mix = {"shares": _shares(train.mix), "background": train.background}
    from segdata import mixing

    names = mixing.from_json(mix).evaluation["names"]
    return {"dataset": "+".join(names), "mix": mix}


def _mix_file(path: str) -> dict[str, Any]:
    """The file of `--mix`."""
    try:
        return saved.parsed(pathlib.Path(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"--mix {path}: give datasets with their shares, dsb2018=0.5 mine=2, or a JSON file "
            f"that has them: {runs.reason(error)}."
        ) from error


def _shares(given: Sequence[str]) -> dict[str, float]:
    """Datasets and their shares, as `--mix` has them."""
    shares: dict[str, float] = {}
    for each in given:
        name, _, share = each.rpartition("=")
        try:
            is_new, shares[name] = name not in shares, float(share)
        except ValueError:
            is_new = False
        if not (name and is_new and 0 < shares[name] < math.inf):
            raise ValueError(
                f"--mix {each}: give the name of each dataset once, with its share above 0: "
                "dsb2018=0.5."
            )
    return shares


def _kept(data_dir: str | None) -> str | None:
    """The folder as a run keeps it: found again from any folder."""
    if data_dir is None or "://" in data_dir:
        return data_dir
    return str(pathlib.Path(data_dir).absolute())

"""The command `unet`: train, resume, evaluate, predict, report, recipes.

The only module that knows that batches come from `segdata.pipeline`, which it imports when needed.
"""

import dataclasses
import json
import math
import pathlib
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from segdata import console
from segdata.cli import Features
from unet import hardware, recipes, runs, saved
from unet.hardware import Compilation, Precision
from unet.recipes import RECIPES, Loss, Recipe
from unet.runs import Settings


def _positional(name: str, **custom_args: Any) -> dict[str, Any]:
    """Field metadata of a positional argument."""
    return {"positional": True, "custom_args": {"metavar": name, **custom_args}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Start:
    """Flags that set the defaults of all others or are needed before Keras loads."""

    recipe: str = "dsb2018"
    """The recipe to start from; `unet recipes` lists them."""

    deterministic: bool = False
    """The same run gives the same weights, bit for bit; slower on a GPU."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Features(Features):
    stratum: str | None = None
    """The feature that is its stratum, for --fold; stratum if not given."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(_Start):
    """Trains a U-Net. Every setting of the recipe can be changed by a flag."""

    out: pathlib.Path
    """The folder to make for the run."""

    data_dir: str | None = None
    """Where the dataset was built; TFDS's default if not given."""

    features: _Features = dataclasses.field(default_factory=_Features)

    mix: list[str] = dataclasses.field(default_factory=list)
    """Several datasets instead of one, each with its share of the examples: dsb2018=0.5 mine=2. Or
    a JSON file of the arguments of segdata.mix: {"shares": {"dsb2018": 0.5, "mine": 2}, ...}."""

    background: Literal["ignore", "negative"] = "ignore"
    """Of mixed datasets: whether a background may hold classes of the others, or holds none."""

    precision: Precision = "auto"
    """Precision of products; auto is the fastest that this machine supports."""

    compile: Compilation = "auto"
    """Whether XLA compiles the model; auto chooses the faster for this machine."""

    checkpoint_minutes: float = 10.0
    """The most work that a kill may cost; 0 saves every step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Run:
    """Resumes a run from its last checkpoint."""

    run: pathlib.Path = dataclasses.field(metadata=_positional("RUN"))
    """The run's folder."""

    data_dir: str | None = None
    """Where the dataset is now, if it has moved since the run began."""

    imports: str = ""
    """Modules to import first, which register datasets; separated by commas."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(_Run):
    """Scores the best model of a run."""

    split: str | None = None
    """The split to score on; what the run was validated on if not given."""

    loss: Loss | None = None
    """The loss to score with; the recipe's if not given."""

    json: bool = False
    """Print one JSON object."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict:
    """Writes a mask and an overlay for each image file.

    A mask holds 0 and 255 for background and foreground; of a model of several classes, their ids.
    """

    run: pathlib.Path = dataclasses.field(metadata=_positional("RUN"))
    """The run's folder."""

    files: list[pathlib.Path] = dataclasses.field(metadata=_positional("FILE", nargs="+"))
    """Images of any size."""

    to: pathlib.Path
    """The folder to write into; made if missing."""

    overwrite: bool = False
    """Replace masks and overlays that are there already."""

    like: str = ""
    """Of a run on several datasets the one that these images are like, where their depths do not
    say it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    return console.run(
        "unet",
        "Trains, scores and applies small U-Nets.",
        {
            "train": _train,
            "resume": _resume,
            "evaluate": _evaluate,
            "predict": _predict,
            "report": _report,
            "recipes": _recipes,
        },
        sys.argv[1:] if argv is None else argv,
    )


def _train(argv: Sequence[str]) -> None:
    """Train a recipe into a new run folder."""
    start = console.Parser(prog="unet train", add_help=False)
    start.add_arguments(_Start, dest="start")
    chosen = start.parse_known_args(list(argv))[0].start
    recipe = recipes.named(chosen.recipe)
    from segdata.core.augment import Augment

    parser = console.Parser(prog="unet train")
    parser.add_arguments(Train, dest="train")
    _add_recipe(parser, recipe)
    parser.add_arguments(Augment, dest="augment", default=Augment(**recipe.augment))
    asked = parser.read(argv)
    train: Train = asked.train
    runs.require_new(train.out)  # before any work on the data
    _load_keras(deterministic=train.deterministic)
    console.import_modules(train.features.imports)
    kept = {"augment": _differences(asked.augment), "source": recipe.source}  # have no flag
    recipe = Recipe(**vars(asked.settings) | kept | _mixture(train))
    recipe = dataclasses.replace(recipe, features=train.features.as_json())
    if train.recipe == "small":
        recipe = _chosen(recipe, train.data_dir, given=console.given(argv))
    settings = Settings(
        name=train.recipe,
        recipe=recipe,
        choice=hardware.choose(train.precision, train.compile),
        classes=_classes(recipe, train.data_dir),
        scalings=_scalings(recipe, train.data_dir),
        data_dir=train.data_dir,
        deterministic=train.deterministic,
        checkpoint_minutes=train.checkpoint_minutes,
    )
    from unet import train as training

    print(settings.choice)
    training.run(settings, out=train.out, **_data(settings.recipe, train.data_dir))
    _finish(train.out, settings)


def _resume(argv: Sequence[str]) -> None:
    """Resume a run that was stopped or killed."""
    asked = console.parse(_Run, argv, prog="unet resume")
    settings = _settings(asked)
    _load_keras(deterministic=settings.deterministic)
    console.import_modules(asked.imports)
    from unet import train as training

    print(settings.choice)
    training.resume(asked.run, **_data(settings.recipe, settings.data_dir))
    _finish(asked.run, settings)


def _evaluate(argv: Sequence[str]) -> None:
    """Score the best model of a run."""
    asked = console.parse(Evaluate, argv, prog="unet evaluate")
    settings = _settings(asked)
    _load_keras()
    console.import_modules(asked.imports)
    from unet import evaluate, losses

    recipe = settings.recipe
    if asked.split:  # all of it, and no fold
        mix = {**recipe.mix, "validation_split": asked.split} if recipe.mix else {}
        recipe = dataclasses.replace(recipe, validation_split=asked.split, fold=None, mix=mix)
    scores = evaluate.evaluate(
        runs.load(asked.run),
        _validation(recipe, settings.data_dir),
        threshold=recipe.threshold,
        loss=losses.BY_NAME[asked.loss or recipe.loss],
    )
    if asked.json:
        print(json.dumps({**scores, **_fold(recipe)}))
        return
    wide = max(13, *map(len, scores))
    if recipe.fold:
        print(f"{'scored on':{wide}} {recipe.validated_on}")
    for name, value in scores.items():
        shown = f"{value:,.0f}" if name.startswith("images") else f"{value:.4f}"
        print(f"{name:{wide}} {shown}")


def _predict(argv: Sequence[str]) -> int:
    """Write masks and overlays for image files."""
    asked = console.parse(Predict, argv, prog="unet predict")
    settings = runs.settings(asked.run)
    _load_keras()
    from unet import predict

    failed = 0
    for path, error in predict.files(
        runs.load(asked.run),
        asked.files,
        size=settings.recipe.size,
        threshold=settings.recipe.threshold,
        classes=settings.classes,
        to=asked.to,
        overwrite=asked.overwrite,
        scalings=_like(runs.scalings(settings), asked.like),
    ):
        failed += error is not None
        if error is None:
            console.log(f"{asked.to / path.stem}.mask.png")
        else:
            console.fail("unet predict", str(error))
    return 2 if failed else 0


def _report(argv: Sequence[str]) -> None:
    """Write a run's report.html again."""
    asked = console.parse(_Run, argv, prog="unet report")
    settings = _settings(asked)
    _load_keras()
    console.import_modules(asked.imports)
    _finish(asked.run, settings)


def _recipes(argv: Sequence[str]) -> None:
    """List the recipes."""
    console.Parser(prog="unet recipes", description="List the recipes.").read(argv)
    for name, recipe in RECIPES.items():
        print(
            f"{name}\n    {recipe.source}\n    {_data_of(recipe)}\n    "
            f"{type(recipe.model).__name__} {'–'.join(map(str, recipe.model.filters))}, "
            f"{recipe.model.parameters:,} parameters"
        )


def _data_of(recipe: Recipe) -> str:
    if not recipe.dataset:
        return "any dataset that is built: --dataset NAME"
    height, width = recipe.size
    return (
        f"{recipe.dataset} at {height}×{width}, {recipe.epochs} epochs of batches of {recipe.batch}"
    )


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


def _load_keras(*, deterministic: bool = False) -> None:
    hardware.prepare_environment(deterministic=deterministic)
    with console.quiet_start():
        hardware.detect()


def _settings(asked: _Run) -> Settings:
    settings = runs.settings(asked.run)
    return dataclasses.replace(settings, data_dir=asked.data_dir or settings.data_dir)


def _differences(augment: Any) -> Mapping[str, Any]:
    """The settings that differ from their defaults, which do nothing."""
    return {
        f.name: getattr(augment, f.name)
        for f in dataclasses.fields(augment)
        if getattr(augment, f.name) != f.default
    }


def _chosen(recipe: Recipe, data_dir: str | None, *, given: Collection[str]) -> Recipe:
    """The recipe `small` for a dataset; prints what was chosen and why."""
    if recipe.mix or not recipe.dataset:
        raise ValueError("--recipe small chooses from one dataset: --dataset folder:NAME.")
    from segdata.inspection import traits
    from unet import small

    found = traits.measure(recipe.dataset, recipe.train_split, data_dir=data_dir, **_named(recipe))
    recipe, said = small.choose(found, recipe, given=given)
    for line in said:
        console.log(line)
    return recipe


def _mixture(train: Train) -> dict[str, Any]:
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
        mix = _read(train.mix[0])
        if train.background != "ignore":
            raise ValueError(f"--background: say it in {train.mix[0]}.")
    else:
        mix = {"shares": _shares(train.mix), "background": train.background}
    from segdata import mixing

    names = mixing.from_json(mix).evaluation["names"]
    return {"dataset": "+".join(names), "mix": mix}


def _read(path: str) -> dict[str, Any]:
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


def _classes(recipe: Recipe, data_dir: str | None) -> tuple[str, ...]:
    """The names of the classes of a model with softmax; raises ValueError if its number differs."""
    is_softmax = recipe.model.output_activation == "softmax"
    if not (is_softmax or recipe.mix or recipe.features):
        return ()
    from segdata import mixing

    if recipe.mix:
        given = _mix(recipe).evaluation
        known = mixing.class_names(given["names"], features=given["features"], data_dir=data_dir)
        told = {name: given[name] for name in ("labels", "background") if name in given}
        labels = mixing.joined(known, **told)
        print(labels)
        names = labels.classes
    else:
        features = {recipe.dataset: _named(recipe)}
        known = mixing.class_names((recipe.dataset,), features=features, data_dir=data_dir)
        names = known[recipe.dataset]
    channels = recipe.model.output_channels
    if len(names) != (channels if is_softmax else 2):
        softmax = "" if is_softmax else "--output_activation softmax "
        raise ValueError(
            f"output_channels is {channels}, but {recipe.dataset} has {len(names)} classes; give "
            f"{softmax}--output_channels {len(names)}."
        )
    if not is_softmax and names[1] in mixing.REST:
        raise ValueError(
            f"--labels: a model of one channel finds the class that is named second, and of "
            f"{recipe.dataset} that is {names[1]!r}; name it first."
        )
    return names if is_softmax else ()


def _named(recipe: Recipe) -> Any:
    """The features of the dataset, as keywords of `segdata.pipeline`."""
    from segdata.building import features

    return features.from_json(recipe.features)


def _augment(recipe: Recipe) -> Any:
    from segdata.core.augment import Augment

    try:
        return Augment(**recipe.augment)
    except TypeError as error:
        raise ValueError(f"the augmentation of settings.json is damaged: {error}") from error


def _mix(recipe: Recipe) -> Any:
    """The arguments of `segdata.mix` and `segdata.mix_eval_batches`."""
    from segdata import mixing

    return mixing.from_json(
        recipe.mix,
        split=recipe.train_split,
        validation_split=recipe.validation_split,
        augment=_augment(recipe),
        fold=recipe.fold,
    )


def _scalings(recipe: Recipe, data_dir: str | None) -> dict[str, Any]:
    """How brightness becomes 8 bits in the datasets, by their names."""
    from segdata import packing

    named = {recipe.dataset: _named(recipe)}
    if recipe.mix:
        mix = _mix(recipe).training
        named = {name: {} for name in mix["shares"]} | mix["features"]
    return {
        name: _scaling(packing.built(name, data_dir=data_dir), features)
        for name, features in named.items()
    }


def _scaling(builder: Any, named: Mapping[str, Any]) -> dict[str, Any] | None:
    """As it was when the dataset was built, or is when it is packed."""
    bands, ends = named.get("bands"), named.get("value_range")
    if bands is None and ends is None:
        return dict(builder.info.metadata or {}).get("intensity")
    import numpy as np

    from segdata.archives import intensity
    from segdata.building import features

    low, high = map(float, ends or (0, 255))
    kind = features.found(builder, "image", named.get("image", "image")).kind
    return intensity.Scaling(
        low=(low,),
        high=(high,),
        rule="the value_range given",
        channels=tuple(map(str, bands or ())),
        types=(np.dtype(kind.np_dtype).name,),
    ).to_json()


def _like(scalings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """All scalings, or the one of a dataset."""
    if name and name not in scalings:
        raise ValueError(f"--like {name}: the run was trained on {', '.join(scalings)}.")
    return {name: scalings[name]} if name else scalings


def _data(recipe: Recipe, data_dir: str | None) -> dict[str, Any]:
    """The arguments of `train.run` and `train.resume` that come from the dataset."""
    validation = _validation(recipe, data_dir)
    if recipe.mix:
        return {"validation": validation, **_mixed(recipe, data_dir)}
    from segdata import pipeline

    augment, split, what = _augment(recipe), recipe.train_split, {**_fold(recipe), **_named(recipe)}

    def batches(start_step: int) -> Any:
        return pipeline.train_batches(
            recipe.dataset,
            split,
            size=recipe.size,
            batch=recipe.batch,
            augment=augment,
            seed=recipe.seed,
            start_step=start_step,
            steps="endless",
            data_dir=data_dir,
            **what,
        )

    steps = pipeline.steps_per_epoch(
        recipe.dataset, split, batch=recipe.batch, data_dir=data_dir, **what
    )
    return {"batches": batches, "validation": validation, "steps_per_epoch": steps}


def _mixed(recipe: Recipe, data_dir: str | None) -> dict[str, Any]:
    """The same of several datasets."""
    from segdata import mixing
    from segdata.adapters import tf

    mixture = mixing.mix(
        **_mix(recipe).training,
        size=recipe.size,
        batch=recipe.batch,
        seed=recipe.seed,
        data_dir=data_dir,
    )
    return {
        "batches": lambda start_step: tf.training(mixture, start_step=start_step),
        "steps_per_epoch": mixture.steps_per_epoch,
        "account": lambda steps: mixture.account(mixture.steps(0, steps)),
    }


def _validation(recipe: Recipe, data_dir: str | None) -> Any:
    """What is held out of the training: a split of its own, or a fold."""
    what = {"size": recipe.size, "batch": recipe.batch, "data_dir": data_dir}
    if recipe.mix:
        from segdata import mixing

        return mixing.mix_eval_batches(**_mix(recipe).evaluation, **what)
    from segdata import pipeline

    split = recipe.train_split if recipe.fold else recipe.validation_split
    return pipeline.eval_batches(recipe.dataset, split, **what, **_fold(recipe), **_named(recipe))


def _fold(recipe: Recipe) -> dict[str, Any]:
    return {"fold": recipe.fold} if recipe.fold else {}


def _finish(run: pathlib.Path, settings: Settings) -> None:
    from unet import report

    console.log(str(report.write(run, _validation(settings.recipe, settings.data_dir))))


if __name__ == "__main__":
    sys.exit(main())

"""The command `unet`: it trains, scores, applies and exports models, and says which there are.

Keras, which takes seconds to load, is imported when the arguments have been read.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import pathlib
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from segdata import console
from segdata.cli import Features
from segdata.core.system import files
from unet import hardware, objects, recipes, runs, saved
from unet.hardware import Compilation, Precision
from unet.objects import Separation
from unet.recipes import RECIPES, Flips, Loss, Recipe
from unet.runs import Settings

if TYPE_CHECKING:
    from segdata.inspection.traits import Traits
    from unet.data import Data


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
class _Training(_Start):
    """A training that is yet to begin."""

    data_dir: str | None = None
    """Where the dataset was built; TFDS's default if not given."""

    features: _Features = dataclasses.field(default_factory=_Features)

    mix: list[str] = dataclasses.field(default_factory=list)
    """Several datasets instead of one, each with its share of the examples: dsb2018=0.5 mine=2. Or
    a JSON file of the arguments of segdata.mix: {"shares": {"dsb2018": 0.5, "mine": 2}, ...}."""

    background: Literal["ignore", "negative"] = "ignore"
    """Of mixed datasets: whether a background may hold classes of the others, or holds none."""

    balance_classes: bool = False
    """Set class_weights so that all classes weigh alike in the first epoch of the training."""

    init_from: pathlib.Path | None = None
    """Start from the weights of the best model of another run; a head of other classes starts
    afresh."""

    precision: Precision = "auto"
    """Precision of products; auto is the fastest that this machine supports."""

    compile: Compilation = "auto"
    """Whether XLA compiles the model; auto chooses the faster for this machine."""

    devices: int | None = None
    """How many devices share each batch; if not given one CPU, or as many accelerators as can have
    equal shares."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(_Training):
    """Trains a U-Net. Every setting of the recipe can be changed by a flag."""

    out: pathlib.Path
    """The folder to make for the run."""

    checkpoint_minutes: float = 10.0
    """The most work that a kill may cost; 0 saves every step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Run:
    """A run, and where its data are."""

    run: pathlib.Path = dataclasses.field(metadata=_positional("RUN"))
    """The run's folder."""

    data_dir: str | None = None
    """Where the dataset is now, if it has moved since the run began."""

    imports: str = ""
    """Modules to import first, which register datasets; separated by commas."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resume(_Run):
    """Resumes a run from its last checkpoint."""

    precision: Precision = "auto"
    """Precision of products on this machine; auto keeps it, or chooses anew on other hardware."""

    compile: Compilation = "auto"
    """Likewise whether XLA compiles the model."""

    devices: int | None = None
    """How many devices share each batch; if not given as before, where there are as many."""

    epochs: int | None = None
    """More epochs than before, in all; the learning rate goes on as if there had always been as
    many: with a cosine it rises again."""

    accept_changes: bool = False
    """Go on although the data, the steps an epoch or the libraries are not as they were."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sweep:
    """A learning-rate range test."""

    to: pathlib.Path = pathlib.Path("lr.html")
    """The page to write, with the picture."""

    lowest: float = 1e-6
    """The first learning rate."""

    highest: float = 1.0
    """The last one; the test ends before, where the loss diverges."""

    steps: int = 100
    """How many rates, each for one update of the weights."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatesOfRun(_Sweep, _Run):
    """Tests learning rates on fresh weights, with the settings of a run, which stays as it is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rates(_Sweep, _Training):
    """Tests learning rates on fresh weights; `unet lr RUN` with the settings of a run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(_Run):
    """Scores the best model of a run."""

    split: str | None = None
    """The split to score on; what the run was validated on if not given."""

    at: Literal["native", "training"] = "native"
    """Score at the images' own size, or at the size of the training."""

    objects: bool = False
    """Score single objects too, as the Data Science Bowl 2018 does (docs/objects.md)."""

    separation: Separation = dataclasses.field(default_factory=Separation)

    loss: Loss | None = None
    """The loss to score with, without settings of its own; the recipe's if not given."""

    flips: Flips = "auto"
    """Score the mean over the mirror images and turns that the training showed; auto as the recipe
    says."""

    threshold: str | None = None
    """A pixel is foreground above this probability: a number; or best, the one that scores best on
    the training images, which takes a pass over them. The recipe's if not given."""

    boundary: bool = False
    """Score contours too, by boundary F1; that takes about as long as all other scores."""

    boundary_tolerance: float | None = None
    """Pixels that a contour may be off, with --boundary; 0.75 % of the diagonal if not given."""

    json: bool = False
    """Print one JSON object."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare:
    """Scores the best models of several runs on the same images, at the images' own size.

    Single objects are scored too, where the dataset has maps of them (docs/objects.md). Differences
    are to the first run, with intervals of paired draws of groups of images.
    """

    runs: list[pathlib.Path] = dataclasses.field(metadata=_positional("RUN", nargs="+"))
    """The folders of two or more runs."""

    data_dir: str | None = None
    """Where the dataset is now, if it has moved since the runs began."""

    imports: str = ""
    """Modules to import first, which register datasets; separated by commas."""

    split: str | None = None
    """The split to score on; what each run was validated on if not given."""

    boundary: bool = False
    """Score contours too, by boundary F1."""

    to: pathlib.Path | None = None
    """An HTML page to write."""

    json: bool = False
    """Print one JSON object."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Submit(_Run):
    """Predicts the unlabelled images of a competition and writes the table that it takes.

    Of dsb2018 a row an object, of carvana a row an image, as run lengths. The table is read back
    and compared with the masks before it gets its name.
    """

    to: pathlib.Path
    """The table to write, a .csv; replaced if it is there."""

    split: str = "test"
    """The split to predict."""

    separation: Separation = dataclasses.field(default_factory=Separation)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict:
    """Writes a mask and an overlay for each image file.

    A mask holds 0 and 255 for background and foreground; of a model of several classes, their ids.
    Of a regression the numbers are written, as a TIFF.
    """

    run: pathlib.Path = dataclasses.field(metadata=_positional("RUN"))
    """The run's folder."""

    inputs: list[pathlib.Path] = dataclasses.field(metadata=_positional("INPUT", nargs="+"))
    """Images of any size: files, folders with all that are in them, zips, patterns in quotes."""

    to: pathlib.Path
    """The folder to write into; made if missing."""

    write: list[str] = dataclasses.field(default_factory=list)
    """What to write: mask, overlay, probability, labels, contours, objects, page; the first two if
    not given. docs/prediction.md says what each is."""

    flips: Flips = "auto"
    """Average over the mirror images and turns that the training showed: up to 8 times the work;
    auto as the recipe says."""

    overlap: float | None = None
    """Of a run on crops: the share of a tile's side by which tiles overlap; 0.25 if not given."""

    pixel_size: float | None = None
    """Side of a pixel in µm, for objects and contours; in pixels if not given."""

    separation: Separation = dataclasses.field(default_factory=Separation)

    overwrite: bool = False
    """Replace masks and overlays that are there already."""

    like: str = ""
    """Of a run on several datasets the one that these images are like, where their depths do not
    say it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export(_Run):
    """Writes the best model of a run as a file or folder that runs without this package.

    It takes uint8 images and gives masks and probabilities. It is compared with the original first.
    """

    to: pathlib.Path
    """NAME.onnx, NAME.tflite (LiteRT), NAME.keras, or without an ending a SavedModel's folder."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    return console.run(
        "unet",
        "Trains, scores and applies small U-Nets.",
        {
            "train": _train,
            "resume": _resume,
            "lr": _lr,
            "evaluate": _evaluate,
            "compare": _compare,
            "submit": _submit,
            "predict": _predict,
            "export": _export,
            "report": _report,
            "recipes": _recipes,
        },
        sys.argv[1:] if argv is None else argv,
    )


def _train(argv: Sequence[str]) -> None:
    """Train a recipe into a new run folder."""
    asked, recipe = _read_training(Train, argv, prog="unet train")
    train: Train = asked.training
    runs.require_new(train.out)  # before any work on the data
    settings, data = _planned(asked, recipe, argv)
    settings = dataclasses.replace(settings, checkpoint_minutes=train.checkpoint_minutes)
    from unet import train as training

    print(settings.choice)
    with _resumable(train.out):
        training.run(settings, out=train.out, data=data)
    _finish(train.out, settings, data)


def _lr(argv: Sequence[str]) -> None:
    """Test learning rates, with a recipe or a run's settings."""
    if argv and not argv[0].startswith("-"):
        sweep: Any = console.parse(RatesOfRun, argv, prog="unet lr")
        settings = _settings(sweep)
        _load_keras(deterministic=settings.deterministic)
        console.import_modules(sweep.imports)
        from unet.data import Data

        choice = hardware.again(settings.choice, batch=settings.recipe.batch)
        settings = dataclasses.replace(settings, choice=choice)
        data = Data(settings.recipe, settings.data_dir)
    else:
        asked, recipe = _read_training(Rates, argv, prog="unet lr")
        sweep = asked.training
        settings, data = _planned(asked, recipe, argv)
    from unet import rates

    print(settings.choice)
    found = rates.sweep(
        settings, data, lowest=sweep.lowest, highest=sweep.highest, steps=sweep.steps
    )
    rates.write(sweep.to, found, title=f"{settings.recipe.dataset}: learning rates")
    console.log(rates.said(found))
    console.log(str(sweep.to))


def _resume(argv: Sequence[str]) -> None:
    """Resume a run that was stopped or killed."""
    asked = console.parse(Resume, argv, prog="unet resume")
    settings = _settings(asked)
    _load_keras(deterministic=settings.deterministic)
    console.import_modules(asked.imports)
    from unet import train as training
    from unet.data import Data

    choice = hardware.again(
        settings.choice,
        asked.precision,
        asked.compile,
        devices=asked.devices,
        batch=settings.recipe.batch,
    )
    settings = dataclasses.replace(settings, choice=choice)
    data = Data(settings.recipe, settings.data_dir)
    changes = runs.changes(settings, data.made_with())
    if changes and not asked.accept_changes:
        raise ValueError(
            f"{asked.run}: {'; '.join(changes)}. The run would not end as it began; bring back "
            "what it was begun with, or give --accept_changes to go on."
        )
    for change in changes:
        console.log(f"going on although {change}")
    if asked.epochs is not None:
        recipe = runs.extend(asked.run, epochs=asked.epochs).recipe
        settings = dataclasses.replace(settings, recipe=recipe)
    print(settings.choice)
    with _resumable(asked.run):
        training.resume(asked.run, data=data, settings=settings)
    _finish(asked.run, settings, data)


def _evaluate(argv: Sequence[str]) -> None:
    """Score the best model of a run."""
    asked = console.parse(Evaluate, argv, prog="unet evaluate")
    settings = _settings(asked)
    if asked.objects and (asked.at == "training" or settings.recipe.is_regression):
        raise ValueError(
            "--objects: objects are scored at the images' own size, of a model of classes."
        )
    _load_keras()
    console.import_modules(asked.imports)
    from unet import judging

    if asked.flips != "auto" and asked.at == "training":
        raise ValueError("--flips: at the size of the training one view alone is scored.")
    trained_by = recipes.flipping(settings.recipe, asked.flips)
    tolerance = asked.boundary_tolerance
    if tolerance is not None and not (asked.boundary and 0 <= tolerance < math.inf):
        raise ValueError(f"--boundary_tolerance {tolerance:g}: 0 or more pixels, with --boundary.")
    if asked.boundary and trained_by.is_regression:
        raise ValueError("--boundary: a regression has no contours.")
    recipe = _on_split(trained_by, asked.split)
    if asked.loss:
        plain = {"label_smoothing": 0.0, "class_weights": (), "boundary_weight": 0.0}
        recipe = dataclasses.replace(recipe, loss=asked.loss, **plain)
    network, chosen = runs.load(asked.run), None
    if asked.threshold == "best":
        several = judging.trained_on(trained_by)
        place = settings.data_dir
        trained = (x for one in several for x in _scored(network, one, place, at=asked.at))
        chosen = judging.best_threshold(trained, recipe)
        recipe = dataclasses.replace(recipe, threshold=chosen.threshold)
    elif asked.threshold is not None:
        recipe = dataclasses.replace(recipe, threshold=_threshold(asked.threshold, recipe))
    images = _scored(network, recipe, settings.data_dir, at=asked.at, objects=asked.objects)
    found = judging.judge(
        images,
        recipe,
        classes=settings.classes,
        boundary=asked.boundary,
        tolerance=tolerance,
        separation=asked.separation,
    )
    if asked.json:
        more: dict[str, Any] = {"fold": recipe.fold} if recipe.fold else {}
        more |= {"threshold_choice": chosen._asdict()} if chosen else {}
        print(json.dumps(judging.to_json(found) | more))
        return
    if chosen:
        print(
            f"the threshold {chosen.threshold:.4f} gives the highest {chosen.score}, "
            f"{chosen.value:.4f}, on the {chosen.images:,} training images"
        )
    if recipe.fold:
        print(f"{'scored on':13} {recipe.validated_on}")
    print(judging.text(found))


def _compare(argv: Sequence[str]) -> None:
    """Compare the best models of several runs."""
    asked = console.parse(Compare, argv, prog="unet compare")
    names = _names(asked.runs)
    every = [runs.settings(run) for run in asked.runs]
    if asked.to is not None and not asked.to.absolute().parent.is_dir():
        raise ValueError(f"--to {asked.to}: there is no folder {asked.to.absolute().parent}.")
    _load_keras()
    console.import_modules(asked.imports)
    from unet import comparing, judging
    from unet.data import Data

    planned = []
    for settings in every:
        recipe = _on_split(settings.recipe, asked.split)
        planned.append(Data(recipe, asked.data_dir or settings.data_dir))
    has_objects = all(data.has_objects for data in planned)
    judged = {}
    for name, run, settings, data in zip(names, asked.runs, every, planned, strict=True):
        recipe, place = data.recipe, data.data_dir
        judged[name] = judging.judge(
            _scored(runs.load(run), recipe, place, at="native", objects=has_objects),
            recipe,
            classes=settings.classes,
            boundary=asked.boundary,
        )
    found = comparing.compare(judged)
    if asked.to is not None:
        with files.replacing(asked.to) as unfinished:
            unfinished.write_text(comparing.document(found), encoding="utf-8")
    print(json.dumps(comparing.to_json(found)) if asked.json else comparing.text(found))
    if asked.to is not None and not asked.json:
        console.log(str(asked.to))


def _submit(argv: Sequence[str]) -> None:
    """Write the table that a competition takes."""
    from unet import submissions  # compiled loops take a second to load

    asked = console.parse(Submit, argv, prog="unet submit")
    settings = _settings(asked)
    form = submissions.format_of(settings.recipe)
    submissions.require_table(asked.to)
    _load_keras()
    console.import_modules(asked.imports)
    from unet import evaluate
    from unet.data import Data

    recipe = settings.recipe
    images = Data(recipe, settings.data_dir).unlabelled(asked.split)
    judge = evaluate.scorer(runs.load(asked.run), recipe, decides=False)
    scored = evaluate.scored_native(judge, images, recipe)
    written = submissions.write(
        asked.to,
        ((image.id, image.found) for image in scored),
        form=form,
        separation=asked.separation,
        border=objects.border_of(settings.classes),
    )
    console.log(f"{asked.to}: {written}")


def _predict(argv: Sequence[str]) -> int:
    """Write masks and overlays for image files."""
    asked = console.parse(Predict, argv, prog="unet predict")
    settings = runs.settings(asked.run)
    _load_keras()
    from unet import model, predicting, results

    chosen = {"kinds": tuple(asked.write)} if asked.write else {}
    separation = asked.separation
    wanted = results.Wanted(**chosen, pixel_size=asked.pixel_size, separation=separation)
    given = predicting.inputs(asked.inputs, to=asked.to)
    is_plain = not asked.write and asked.pixel_size is None
    failed = 0
    for path, error, written in predicting.files(
        model.serving(runs.load(asked.run), settings.recipe.model.output_activation),
        given,
        recipe=recipes.flipping(settings.recipe, asked.flips),
        classes=settings.classes,
        to=asked.to,
        overwrite=asked.overwrite,
        scalings=predicting.like(runs.scalings(settings), asked.like),
        wanted=None if is_plain else wanted,
        overlap=asked.overlap,
    ):
        failed += error is not None
        if error is None:
            console.log(str(written[0] if written else path))
        else:
            console.fail("unet predict", str(error))
    return 2 if failed else 0


def _export(argv: Sequence[str]) -> None:
    """Write the best model as ONNX, LiteRT, SavedModel or Keras file."""
    asked = console.parse(Export, argv, prog="unet export")
    settings = _settings(asked)
    from unet import export

    kind = export.kind_of(asked.to)  # before Keras is loaded
    _load_keras()
    console.import_modules(asked.imports)
    original = export.network(asked.run, settings)
    what, images = _to_compare(settings)
    compared = export.write(asked.to, original, settings=settings, images=images)
    size = export.input_size(settings, kind)
    model = settings.recipe.model
    taken = f"{size[0]}×{size[1]} pixels" if size else f"{model.least} pixels and more"
    console.log(f"{asked.to}: takes images of {taken}, multiples of {model.stride}")
    console.log(
        f"compared with the original on {compared.images} {what}: largest difference "
        f"{compared.difference:.2g}, equal pixels of masks {compared.equal:.4%}"
    )


def _to_compare(settings: Settings) -> tuple[str, Iterator[Any]]:
    """What an export is compared on: images of the validation if they are there, else random."""
    from unet import export
    from unet.data import Data

    try:
        native = Data(settings.recipe, settings.data_dir).native()
        several = native.values() if isinstance(native, dict) else [native]
        images = (example.record[..., :3] for each in several for example in each)
        first = next(images)
    except (ValueError, OSError, StopIteration) as error:
        console.log(f"the validation images are not there: {runs.reason(error)}")
        return "random images", export.random_images(settings)
    return "images of the validation", itertools.chain([first], images)


def _report(argv: Sequence[str]) -> None:
    """Write a run's report.html again."""
    asked = console.parse(_Run, argv, prog="unet report")
    settings = _settings(asked)
    _load_keras()
    console.import_modules(asked.imports)
    from unet.data import Data

    _finish(asked.run, settings, Data(settings.recipe, settings.data_dir))


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


def _read_training(kind: type[_Training], argv: Sequence[str], *, prog: str) -> tuple[Any, Recipe]:
    """Reads the flags of a training as `training`, `settings` and `augment`, and its recipe."""
    start = console.Parser(prog=prog, add_help=False)
    start.add_arguments(_Start, dest="start")
    chosen = start.parse_known_args(list(argv))[0].start
    recipe = recipes.named(chosen.recipe)
    from segdata.core.augment import Augment

    parser = console.Parser(prog=prog)
    parser.add_arguments(kind, dest="training")
    _add_recipe(parser, recipe)
    parser.add_arguments(Augment, dest="augment", default=Augment(**recipe.augment))
    return parser.read(argv), recipe


def _planned(asked: Any, recipe: Recipe, argv: Sequence[str]) -> tuple[Settings, "Data"]:
    """The settings of a training, and its data; from `_read_training`."""
    given: _Training = asked.training
    _load_keras(deterministic=given.deterministic)
    console.import_modules(given.features.imports)
    kept = {"augment": _differences(asked.augment), "source": recipe.source}  # have no flag
    recipe = Recipe(**vars(asked.settings) | kept | _mixture(given))
    recipe = dataclasses.replace(recipe, features=given.features.as_json())
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
    settings = Settings(
        name=given.recipe,
        recipe=recipe,
        choice=hardware.choose(
            given.precision, given.compile, devices=given.devices, batch=recipe.batch
        ),
        classes=classes,
        scalings=data.scalings(),
        made_with=data.made_with(),
        init_from=pretrained.of(given.init_from) if given.init_from else {},
        data_dir=data_dir,
        deterministic=given.deterministic,
    )
    return settings, data


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
    found = {}
    for name in shares:
        split = splits if isinstance(splits, str) else splits[name]
        found[name] = traits.measure(name, split, data_dir=data_dir, **features.get(name, {}))
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


def _mixture(train: _Training) -> dict[str, Any]:
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


def _scored(
    network: Any, recipe: Recipe, data_dir: str | None, *, at: str, objects: bool = False
) -> Iterator[Any]:
    """The images that a recipe is judged by, scored one by one."""
    from unet import evaluate
    from unet.data import Data

    data = Data(recipe, data_dir)
    if at == "training":
        return evaluate.scored(evaluate.scorer(network, recipe), data.validation, recipe)
    judge = evaluate.scorer(network, recipe, decides=False)
    return evaluate.scored_native(judge, data.native(objects=objects), recipe)


def _on_split(recipe: Recipe, split: str | None) -> Recipe:
    """A recipe that is judged by all of a split, and by no fold; the same where there is none."""
    if split is None:
        return recipe
    mix = {**recipe.mix, "validation_split": split} if recipe.mix else {}
    return dataclasses.replace(recipe, validation_split=split, fold=None, mix=mix)


def _names(folders: Sequence[pathlib.Path]) -> list[str]:
    """What runs are called: by their folders' names, or by whole paths where these are the same.

    Raises:
        ValueError: If there are fewer than two, or one is there twice.
    """
    whole = [str(folder.absolute()) for folder in folders]
    if len(whole) < 2 or len(set(whole)) < len(whole):
        listed = " ".join(map(str, folders))
        raise ValueError(f"RUN {listed}: name two runs or more, each once.")
    short = [folder.absolute().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _threshold(given: str, recipe: Recipe) -> float:
    """The number of `--threshold`."""
    with contextlib.suppress(ValueError):
        if recipe.model.output_activation == "sigmoid" and 0 <= float(given) < 1:
            return float(given)
    raise ValueError(
        f"--threshold {given}: best, or a number in [0, 1), for a model with sigmoid; this one has "
        f"{recipe.model.output_activation}."
    )


def _kept(data_dir: str | None) -> str | None:
    """The folder as a run keeps it: found again from any folder."""
    if data_dir is None or "://" in data_dir:
        return data_dir
    return str(pathlib.Path(data_dir).absolute())


@contextlib.contextmanager
def _resumable(run: pathlib.Path) -> Iterator[None]:
    """Says how to go on where a signal ended the training."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if (run / "settings.json").exists():
            print(f"stopped; `unet resume {shlex.quote(str(run))}` goes on.", file=sys.stderr)
        raise


def _finish(run: pathlib.Path, settings: Settings, data: "Data") -> None:
    from unet import report

    console.log(str(report.write(run, data.native(objects=data.has_objects))))


if __name__ == "__main__":
    sys.exit(main())

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
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from segdata import console
from segdata.core.system import files
from unet import flags, hardware, objects, planning, recipes, runs
from unet.recipes import RECIPES, Recipe
from unet.runs import Settings

if TYPE_CHECKING:
    from unet.data import Data


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
    asked, recipe = planning.read(flags.Train, argv, prog="unet train")
    train: flags.Train = asked.training
    runs.require_new(train.out)  # before any work on the data
    settings, data = planning.plan(asked, recipe, argv)
    settings = dataclasses.replace(
        settings,
        checkpoint_minutes=train.checkpoint_minutes,
        steps_per_execution=train.steps_per_execution,
    )
    from unet import train as training

    print(settings.choice)
    with _resumable(train.out):
        training.run(settings, out=train.out, data=data)
    _finish(train.out, settings, data)


def _lr(argv: Sequence[str]) -> None:
    """Test learning rates, with a recipe or a run's settings."""
    if argv and not argv[0].startswith("-"):
        sweep: Any = console.parse(flags.RatesOfRun, argv, prog="unet lr")
        files.require_writable(sweep.to)  # before any work
        settings = _settings(sweep)
        planning.load_keras(deterministic=settings.deterministic)
        console.import_modules(sweep.imports)
        choice = hardware.again(settings.choice, batch=settings.recipe.batch)
        settings = dataclasses.replace(settings, choice=choice)
        data = _data(settings)
    else:
        asked, recipe = planning.read(flags.Rates, argv, prog="unet lr")
        sweep = asked.training
        files.require_writable(sweep.to)
        settings, data = planning.plan(asked, recipe, argv)
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
    asked = console.parse(flags.Resume, argv, prog="unet resume")
    settings = _settings(asked)
    planning.load_keras(deterministic=settings.deterministic)
    console.import_modules(asked.imports)
    from unet import train as training

    choice = hardware.again(
        settings.choice,
        asked.precision,
        asked.compile,
        devices=asked.devices,
        batch=settings.recipe.batch,
    )
    settings = dataclasses.replace(settings, choice=choice)
    data = _data(settings)
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
    asked = console.parse(flags.Evaluate, argv, prog="unet evaluate")
    settings = _settings(asked)
    if asked.objects and (asked.at == "training" or settings.recipe.is_regression):
        raise ValueError(
            "--objects: objects are scored at the images' own size, of a model of classes."
        )
    _require_objects(asked.separation, "--objects", given=asked.objects)
    planning.load_keras()
    console.import_modules(asked.imports)
    from unet import judging

    if asked.flips != "auto" and asked.at == "training":
        raise ValueError("--flips: at the size of the training one view alone is scored.")
    if asked.larger != "tiles" and asked.at == "training":
        raise ValueError("--larger: at the size of the training images are seen as it saw them.")
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
        data = _data(settings, trained_by, part="training", larger=asked.larger)
        trained = _scored(network, data, at=asked.at)
        chosen = judging.best_threshold(trained, recipe)
        recipe = dataclasses.replace(recipe, threshold=chosen.threshold)
    else:
        recipe = _at_threshold(recipe, asked.threshold)
    data = _data(settings, recipe, larger=asked.larger)
    if asked.split is None:
        _say_if_others(asked.run, settings, data)
    images = _scored(network, data, at=asked.at, objects=asked.objects)
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
            f"{chosen.value:.4f}, on {console.counted(chosen.images, 'training image')}"
        )
    if recipe.fold:
        print(f"{'scored on':13} {recipe.validated_on}")
    print(judging.text(found))


def _compare(argv: Sequence[str]) -> None:
    """Compare the best models of several runs."""
    asked = console.parse(flags.Compare, argv, prog="unet compare")
    names = _names(asked.runs)
    every = [runs.settings(run) for run in asked.runs]
    if asked.to is not None:
        files.require_writable(asked.to)
    planning.load_keras()
    console.import_modules(asked.imports)
    from unet import comparing, judging

    planned = []
    for settings in every:
        place = asked.data_dir or settings.data_dir
        recipe = _on_split(settings.recipe, asked.split)
        planned.append(_data(dataclasses.replace(settings, data_dir=place), recipe))
    has_objects = all(data.has_objects for data in planned)
    judged = {}
    for name, run, settings, data in zip(names, asked.runs, every, planned, strict=True):
        if asked.split is None:
            _say_if_others(run, settings, data)
        judged[name] = judging.judge(
            _scored(runs.load(run), data, at="native", objects=has_objects),
            data.recipe,
            classes=settings.classes,
            boundary=asked.boundary,
        )
    found = comparing.compare(judged)
    print(json.dumps(comparing.to_json(found)) if asked.json else comparing.text(found))
    if asked.to is not None:
        files.write(asked.to, comparing.document(found).encode())
    if asked.to is not None and not asked.json:
        console.log(str(asked.to))


def _submit(argv: Sequence[str]) -> None:
    """Write the table that a competition takes."""
    from unet import submissions  # compiled loops take a second to load

    asked = console.parse(flags.Submit, argv, prog="unet submit")
    settings = _settings(asked)
    recipe = _at_threshold(settings.recipe, asked.threshold)
    form = submissions.format_of(recipe)
    submissions.require_table(asked.to)
    planning.load_keras()
    console.import_modules(asked.imports)
    from unet import evaluate

    images = _data(settings, larger=asked.larger).unlabelled(asked.split)
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
    asked = console.parse(flags.Predict, argv, prog="unet predict")
    settings = runs.settings(asked.run)
    recipe = _at_threshold(recipes.flipping(settings.recipe, asked.flips), asked.threshold)
    planning.load_keras()
    from unet import model, predicting, results

    chosen = {"kinds": tuple(asked.write)} if asked.write else {}
    separation = asked.separation
    wanted = results.Wanted(**chosen, pixel_size=asked.pixel_size, separation=separation)
    how = "--write labels, contours, objects, coco or page"
    _require_objects(separation, how, given=wanted.counts_objects)
    if asked.pixel_size is not None and not {"contours", "objects"} & {*wanted.kinds}:
        raise ValueError(
            "--pixel_size is for a table or contours; give --write objects or contours."
        )
    given = predicting.inputs(asked.inputs, to=asked.to)
    seen = predicting.seen_by(recipe, settings.trained_on, asked.larger)
    failed = larger = 0
    for path, error, written, shape in predicting.files(
        model.serving(runs.load(asked.run), settings.recipe.model.output_activation),
        given,
        recipe=recipe,
        classes=settings.classes,
        to=asked.to,
        overwrite=asked.overwrite,
        scalings=predicting.like(runs.scalings(settings), asked.like),
        wanted=wanted if asked.write else None,
        overlap=asked.overlap,
        seen=seen,
    ):
        failed += error is not None
        if error is None:
            console.log(str(written[0] if written else path))
            larger += seen(*shape[:2]) != recipe.seen(*shape[:2])
        else:
            console.fail("unet predict", str(error))
    if larger:
        console.log(
            f"{console.counted(larger, 'image')} far larger than those of the training, "
            f"{settings.trained_on['width']}×{settings.trained_on['height']} pixels at the median: "
            "seen in tiles, at their scale. Give --larger shrink for the same view in more pixels."
        )
    return 2 if failed else 0


def _export(argv: Sequence[str]) -> None:
    """Write the best model as ONNX, LiteRT, SavedModel or Keras file."""
    asked = console.parse(flags.Export, argv, prog="unet export")
    settings = _settings(asked)
    recipe = _at_threshold(settings.recipe, asked.threshold)
    settings = dataclasses.replace(settings, recipe=recipe)
    from unet import export

    kind = export.kind_of(asked.to)  # before Keras is loaded
    files.make_folder(asked.to.parent)
    files.require_writable(asked.to)
    planning.load_keras()
    console.import_modules(asked.imports)
    export.load_libraries(kind)
    original = export.network(asked.run, settings)
    what, images = _to_compare(settings)
    compared = export.write(asked.to, original, settings=settings, images=images)
    size = export.input_size(settings, kind)
    model = settings.recipe.model
    taken = (
        f"{size[0]}×{size[1]} pixels"
        if size
        else f"{model.least} pixels and more, multiples of {model.stride}"
    )
    console.log(f"{asked.to}: takes images of {taken}")
    console.log(
        f"compared with the original on {console.counted(compared.images, what)}: largest "
        f"difference {compared.difference:.2g}, equal pixels of masks {compared.equal:.4%}"
    )


def _to_compare(settings: Settings) -> tuple[str, Iterator[Any]]:
    """What an export is compared on: images of the validation if they are there, else random."""
    from unet import export

    try:
        native = _data(settings, larger="shrink").native()
        several = native.values() if isinstance(native, dict) else [native]
        images = (example.record[..., :3] for each in several for example in each)
        first = next(images)
    except (ValueError, OSError, StopIteration) as error:
        console.log(f"the validation images are not there: {runs.reason(error)}")
        return "random image", export.random_images(settings)
    return "validation image", itertools.chain([first], images)


def _report(argv: Sequence[str]) -> None:
    """Write a run's report.html again."""
    asked = console.parse(flags.Run, argv, prog="unet report")
    settings = _settings(asked)
    planning.load_keras()
    console.import_modules(asked.imports)
    data = _data(settings)
    _say_if_others(asked.run, settings, data)
    _finish(asked.run, settings, data)


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
    batches = f"{recipe.steps_per_epoch or 'all'} batches of {recipe.batch}"
    return f"{recipe.dataset} at {height}×{width}, {recipe.epochs} epochs of {batches}"


def _settings(asked: flags.Run) -> Settings:
    settings = runs.settings(asked.run)
    return dataclasses.replace(settings, data_dir=asked.data_dir or settings.data_dir)


def _data(
    settings: Settings,
    recipe: Recipe | None = None,
    *,
    part: str = "held-out",
    larger: recipes.Larger = "tiles",
) -> "Data":
    """The data of a run, or of a recipe like it; refused if the run was trained on others."""
    from unet.data import Data

    sizes = settings.trained_on if larger == "tiles" else {}
    data = Data(recipe or settings.recipe, settings.data_dir, part=part, trained_on=sizes)
    data.require_like(classes=settings.classes, scalings=settings.scalings)
    return data


def _say_if_others(run: pathlib.Path, settings: Settings, data: "Data") -> None:
    """Says where a run is scored on other images than in training, as of a dataset built anew."""
    kept = settings.made_with.get("validation images")
    with contextlib.suppress(OSError):  # where they cannot be packed that is not known
        if kept and kept != (found := data.judged_by()):
            print(
                console.printable(
                    f"{run}: the validation images are not those of its training, as where the "
                    f"dataset was built anew: their checksum was {kept} and is {found}. If it was "
                    "trained on some of them, its scores are too high."
                ),
                file=sys.stderr,
            )


def _scored(network: Any, data: "Data", *, at: str, objects: bool = False) -> Iterator[Any]:
    """Images scored one by one."""
    from unet import evaluate

    recipe = data.recipe
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
    whole = [files.resolved(folder) for folder in folders]
    if len(whole) < 2 or len(set(whole)) < len(whole):
        listed = " ".join(map(str, folders))
        raise ValueError(f"RUN {listed}: name two runs or more, each once.")
    short = [folder.name for folder in whole]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _require_objects(separation: objects.Separation, how: str, *, given: bool) -> None:
    """Requires that flags, which say how objects are told apart, are given where this is done."""
    if separation != objects.Separation() and not given:
        raise ValueError(
            f"--smoothing, --seed_depth and --least_area are for objects alone; give {how}."
        )


def _at_threshold(recipe: Recipe, given: float | str | None) -> Recipe:
    """A recipe with the number of `--threshold`; the same where there is none."""
    if given is None:
        return recipe
    if (activation := recipe.model.output_activation) != "sigmoid":
        raise ValueError(f"--threshold {given}: a model with {activation} has no threshold.")
    with contextlib.suppress(ValueError):
        if 0 <= float(given) < 1:
            return dataclasses.replace(recipe, threshold=float(given))
    best = "best, or " if isinstance(given, str) else ""
    raise ValueError(f"--threshold {given}: {best}a number in [0, 1).")


@contextlib.contextmanager
def _resumable(run: pathlib.Path) -> Iterator[None]:
    """Says how to go on where a signal ended the training."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if (run / "settings.json").exists():
            with contextlib.suppress(OSError):  # the terminal may be closed
                command = f"unet resume {shlex.quote(str(run))}"
                print(f"stopped; `{command}` resumes it.", file=sys.stderr)
        raise


def _finish(run: pathlib.Path, settings: Settings, data: "Data") -> None:
    from unet import report

    seen = dataclasses.replace(data, trained_on=settings.trained_on)
    console.log(str(report.write(run, seen.native(objects=data.has_objects))))


if __name__ == "__main__":
    sys.exit(main())

import dataclasses
import itertools
import json
import pathlib
import resource
import shutil
import subprocess
import sys
import warnings
import zipfile
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
from PIL import Image

import unet
from segdata.building import features
from segdata.native import Native
from unet import cli, data, hardware, planning, runs
from unet.data import Data
from unet.flags import Train
from unet.hardware import Hardware
from unet.model import FCN
from unet.recipes import RECIPES, Recipe

TINY = [
    "--filters",
    "2",
    "3",
    "--size",
    "8",
    "8",
    "--batch",
    "2",
    "--epochs",
    "1",
    "--checkpoint_minutes",
    "0",
]
SOFTMAX = ["--output_activation", "softmax", "--output_channels", "30"]


def drawn(seed: int, images: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 2, (images, 2, 2, 1), np.uint8).repeat(4, 1).repeat(4, 2)
    return (mask * 150 + rng.integers(0, 90, (images, 8, 8, 3), np.uint8)).astype(np.uint8), mask


class Drawn(Data):
    """Data of NumPy arrays in place of a dataset's; keeps what was asked for."""

    asked: ClassVar[list[tuple[Data, int | None]]] = []
    scaled: ClassVar[dict[str, Any]] = {}
    made: ClassVar[dict[str, str]] = {"training images": "1"}

    @property
    def steps_per_epoch(self):
        return 2

    def batches(self, start_step):
        self.asked.append((self, start_step))
        return map(drawn, itertools.count(start_step))

    @property
    def validation(self):
        self.asked.append((self, None))
        return [drawn(1000), drawn(1001, images=1)]

    def native(self, *, objects=False):
        return [
            Native(f"{len(images)}-{number}", "", image, mask[..., 0], np.dstack([image, mask]))
            for images, masks in self.validation
            for number, (image, mask) in enumerate(zip(images, masks, strict=True))
        ]

    def _class_names(self):
        features.Features(**features.from_json(self.recipe.features))
        return ("background", "object")

    def scalings(self):
        return {self.recipe.dataset: self.scaled.get(self.recipe.dataset)}

    def sizes(self):
        return {"height": 10, "width": 16, "longest": 300}

    def made_with(self):
        data._augment(self.recipe)
        return self.made

    def judged_by(self):
        return "2"


@pytest.fixture(scope="module", autouse=True)
def asked():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unet.data.Data", Drawn)
        yield Drawn.asked


@pytest.fixture(scope="module")
def trained(tmp_path_factory, asked) -> pathlib.Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    flags = "--learning_rate 0.01 --vertical_flip 0 --rotation_range -5 5 --data_dir here --seed 3"
    assert cli.main(["train", "--out", str(out), *TINY, *flags.split()]) == 0
    return out


def test_any_setting_of_the_recipe_can_be_changed_by_a_flag(trained, asked):
    settings = runs.settings(trained)
    ours = RECIPES["dsb2018"]
    assert settings.recipe == dataclasses.replace(
        ours,
        size=(8, 8),
        batch=2,
        epochs=1,
        learning_rate=0.01,
        seed=3,
        model=dataclasses.replace(ours.model, filters=(2, 3)),
        augment={k: v for k, v in ours.augment.items() if k != "vertical_flip"}
        | {"rotation_range": (-5.0, 5.0)},
    )
    here = str(pathlib.Path("here").absolute())
    assert (settings.name, settings.data_dir) == ("dsb2018", here)
    data, start_step = next(call for call in asked if call[1] is not None)
    assert (data.recipe, data.data_dir, start_step) == (settings.recipe, here, 0)


def test_a_recipe_of_another_model_has_the_flags_of_that_model(tmp_path, asked):
    flags = [*TINY, "--out", str(tmp_path / "run"), "--validation_split", "validation[:5]"]
    asked.clear()
    assert cli.main(["train", "--recipe", "carvana-fcn", *flags]) == 0
    recipe = runs.settings(tmp_path / "run").recipe
    assert recipe == dataclasses.replace(
        RECIPES["carvana-fcn"],
        size=(8, 8),
        batch=2,
        epochs=1,
        validation_split="validation[:5]",
        model=FCN(filters=(2, 3)),
    )
    assert all(data.recipe == recipe for data, _ in asked)
    with pytest.raises(SystemExit):
        cli.main(["train", "--recipe", "carvana-fcn", *flags, "--convolutions", "3"])


@pytest.mark.heavy
def test_a_fold_is_left_out_of_training_and_scored(tmp_path, asked, capsys):
    out = tmp_path / "run"
    asked.clear()
    assert cli.main(["train", "--out", str(out), *TINY, "--fold", "1", "4"]) == 0
    assert runs.settings(out).recipe.fold == (1, 4)
    assert {data.recipe.fold for data, _ in asked} == {(1, 4)}
    assert (
        "validation images, at native size, fold 1 of 4 of train"
        in (out / "report.html").read_text()
    )
    capsys.readouterr()
    asked.clear()
    assert cli.main(["evaluate", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["fold"] == [1, 4]
    assert cli.main(["evaluate", str(out)]) == 0
    assert "scored on     fold 1 of 4 of train" in capsys.readouterr().out
    assert {data.recipe.fold for data, _ in asked} == {(1, 4)}
    assert cli.main(["evaluate", str(out), "--split", "test", "--json"]) == 0
    assert "fold" not in json.loads(capsys.readouterr().out.splitlines()[-1])
    scored = asked[-1][0].recipe
    assert (scored.validation_split, scored.fold) == ("test", None)


def test_modules_that_register_datasets_are_imported_first(trained, tmp_path, monkeypatch, capsys):
    (tmp_path / "my_cells.py").write_text("import pathlib; pathlib.Path('imported').touch()")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    given = ["--imports", "my_cells"]
    run = str(trained.resolve())
    for command in (["evaluate", run], ["report", run], ["resume", run]):
        sys.modules.pop("my_cells", None)
        assert cli.main([*command, *given]) == 0
        pathlib.Path("imported").unlink()
    for command in (["train", "--out", "run"], ["evaluate", run], ["resume", run]):
        assert cli.main([*command, "--imports", "no.such"]) == 2
        assert "--imports no.such: No module named 'no'" in capsys.readouterr().err


def test_a_run_can_be_scored_by_another_loss(trained, capsys):
    def loss(*flags: str) -> float:
        assert cli.main(["evaluate", str(trained), "--json", *flags]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])["loss"]

    parts = [loss("--loss", name) for name in ("cross_entropy", "dice")]
    assert loss() == pytest.approx(sum(parts))
    assert 0 < loss("--loss", "batch_dice") < 1


def test_a_trained_run_has_a_model_and_a_report(trained):
    assert (trained / "best.keras").exists()
    assert "<svg" in (trained / "report.html").read_text()


def test_a_training_is_as_its_recipe_says_whatever_keras_is_told(tmp_path):
    """As keras.json tells it the precision, and KERAS_MAX_EPOCHS how long `fit` may train."""
    keras.config.set_floatx("float64")
    keras.config.set_max_epochs(1)
    keras.config.set_max_steps_per_epoch(1)
    try:
        assert cli.main(["train", *TINY, "--epochs", "2", "--out", str(tmp_path / "run")]) == 0
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_max_epochs(None)
        keras.config.set_max_steps_per_epoch(None)
    assert [row["step"] for row in runs.state(tmp_path / "run").history] == [2, 4]


@pytest.mark.heavy
def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path, asked):
    flags = [*TINY, "--epochs", "2", "--out", str(tmp_path / "run")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "write_metrics", stops_on_call(2))
        assert cli.main(["train", *flags]) == 130
    asked.clear()
    assert cli.main(["resume", str(tmp_path / "run"), "--data_dir", "moved"]) == 0
    data, start_step = next(call for call in asked if call[1] is not None)
    assert (start_step, data.data_dir) == (2, "moved")
    assert runs.state(tmp_path / "run").step == 4


@pytest.mark.parametrize(
    ("recipe", "flags", "expected"),
    [
        ("dsb2018", "--record_size none", {"record_size": None}),
        ("dsb2018", "--record-size=none --seed 3", {"record_size": None, "seed": 3}),
        ("dsb2018", "--record_size none --record_size 64", {"record_size": 64}),
        ("dsb2018", "--fold 0 5 --record_size 64 --fold none", {"record_size": 64, "fold": None}),
        ("carvana-unet", "--patience none --clip_norm 1", {"patience": None, "clip_norm": 1.0}),
        ("ronneberger2015", "--record_size none", {"record_size": None}),
        (
            "ronneberger2015",
            "--class_weights none --loss dice",
            {"class_weights": (), "loss": "dice"},
        ),
        (
            "ronneberger2015",
            "--class_weights=none --class_weights 1 2 3",
            {"class_weights": (1, 2, 3)},
        ),
    ],
)
def test_what_a_recipe_sets_and_may_be_none_can_be_taken_back(recipe, flags, expected):
    argv = ["--recipe", recipe, "--out", "run", *flags.split()]
    asked, before = planning.read(Train, argv, prog="unet train")
    assert {name: getattr(asked.settings, name) for name in expected} == expected
    others = {field.name for field in dataclasses.fields(Recipe)} - {*expected, "augment", "source"}
    assert all(getattr(asked.settings, name) == getattr(before, name) for name in others)


def test_rates_of_dropout_for_other_levels_can_be_taken_back():
    argv = ["--recipe", "carvana-unet", "--out", "run", "--dropout", "none", "--filters", "8", "16"]
    asked, _ = planning.read(Train, argv, prog="unet train")
    assert (asked.settings.model.filters, asked.settings.model.dropout) == ((8, 16), ())


@pytest.mark.parametrize("flags", ["--epochs none", "--record_size nix", "--fold 0 5 none", "none"])
def test_none_is_refused_in_one_line_where_there_has_to_be_a_value(flags, tmp_path, capfd):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "--out", str(tmp_path / "run"), *flags.split()])
    assert stopped.value.code == 2
    (said,) = capfd.readouterr().err.splitlines()
    assert "none" in said or "nix" in said


@pytest.mark.heavy
def test_what_a_run_was_made_with_must_be_there_or_be_given_up(tmp_path, capsys, monkeypatch):
    flags = [*TINY, "--epochs", "2", "--out", str(tmp_path / "run")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "write_metrics", stops_on_call(2))
        assert cli.main(["train", *flags]) == 130
    assert f"`unet resume {tmp_path / 'run'}` resumes it" in capsys.readouterr().err
    monkeypatch.setattr(Drawn, "made", {"training images": "2"})
    resume = ["resume", str(tmp_path / "run")]
    assert cli.main(resume) == 2
    said = capsys.readouterr().err
    assert "training images was 1 and is 2" in said
    assert "--accept_changes" in said
    assert runs.state(tmp_path / "run").step == 2
    assert cli.main([*resume, "--accept_changes"]) == 0
    assert "going on although training images was 1 and is 2" in capsys.readouterr().out
    assert runs.state(tmp_path / "run").step == 4


@pytest.mark.heavy
def test_a_run_starts_from_another_and_is_extended(trained, tmp_path, capsys):
    out = tmp_path / "run"
    flags = [*TINY, "--init_from", str(trained), "--out", str(out)]
    assert cli.main(["train", *flags, "--balance_classes", "--ema_momentum", "0.5"]) == 0
    printed = capsys.readouterr().out
    assert f"First weights are those of the best model of {trained}." in printed
    settings = runs.settings(out)
    assert set(settings.init_from) == {"run", "sha256"}
    background, foreground = settings.recipe.class_weights
    masks = np.concatenate([drawn(seed)[1] for seed in (0, 1)])
    assert background * (masks == 0).sum() == pytest.approx(foreground * (masks == 1).sum())
    assert f"class weights: {background:.3g}, {foreground:.3g}" in printed
    assert cli.main(["resume", str(out), "--epochs", "2"]) == 0
    assert runs.state(out).step == 4
    assert "<svg" in (out / "report.html").read_text()
    assert cli.main(["resume", str(out), "--epochs", "1"]) == 2
    assert "--epochs 1: " in capsys.readouterr().err
    assert cli.main(["evaluate", str(out), "--loss", "dice"]) == 0
    both = ["--balance_classes", "--class_weights", "1", "2"]
    assert cli.main(["train", *TINY, *both, "--out", str(tmp_path / "no")]) == 2
    assert "give one of the two" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_learning_rates_are_tested_with_a_recipe_or_a_run_which_stays_as_it_is(
    trained, tmp_path, capsys
):
    before = {file: file.read_bytes() for file in trained.rglob("*") if file.is_file()}
    page = tmp_path / "rates.html"
    sweep = ["--steps", "11", "--to", str(page), "--highest", "0.01"]
    assert cli.main(["lr", str(trained), *sweep]) == 0
    by_run = capsys.readouterr().out.splitlines()[-2:]
    assert by_run[-1] == str(page)
    assert ">learning rate</text>" in page.read_text()
    assert {file: file.read_bytes() for file in trained.rglob("*") if file.is_file()} == before
    page.unlink()
    assert cli.main(["lr", *TINY[:-2], *sweep, "--loss", "dice"]) == 0
    assert page.exists()
    assert cli.main(["lr", str(trained), "--steps", "1"]) == 2
    assert "--steps 1: it must be more than 10" in capsys.readouterr().err


def test_on_other_hardware_precision_is_chosen_anew(tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    machine = Hardware(name="new", kind="cpu", flags=frozenset({"avx512_bf16"}))
    assert cli.main(["train", "--out", str(out), *TINY]) == 0
    monkeypatch.setattr(hardware, "detect", lambda: machine)
    assert cli.main(["resume", str(out)]) == 0
    assert "going on on new: mixed_bfloat16" in capsys.readouterr().err
    assert cli.main(["resume", str(out), "--precision", "float32"]) == 0
    assert "going on on new: float32" in capsys.readouterr().err
    assert cli.main(["resume", str(out), "--precision", "float16"]) == 2


def test_devices_that_cannot_share_a_batch_leave_no_folder(tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    machine = Hardware(name="new", kind="cpu", count=4)
    monkeypatch.setattr(hardware, "detect", lambda: machine)
    for devices in ("3", "8"):
        assert cli.main(["train", "--out", str(out), *TINY, "--devices", devices]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"devices is {devices}; it must be 1 or 2: " in line
        assert "4 × new" in line
        assert not out.exists()


@pytest.mark.heavy
def test_a_full_disk_is_one_line_and_with_room_the_run_goes_on(tmp_path, capsys):
    run = tmp_path / "run"
    train = ["train", *TINY, "--out", str(run)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for largest, name, left in (
            (500, "settings.json", []),
            (5_000, "checkpoint-00000001.npz", ["metrics.jsonl", "settings.json"]),
        ):
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
            assert cli.main(train) == 2
            (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
            assert f"{run / name} cannot be written: File too large. Fix that, then " in line
            assert sorted(path.name for path in run.iterdir()) == left
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"`unet resume {run}` resumes" in line
    assert cli.main(["resume", str(run)]) == 0
    assert (run / "best.keras").exists()
    assert (run / "report.html").exists()


def test_a_run_that_trains_is_read_but_trained_by_no_other(trained, capsys):
    before = (trained / "state.json").read_bytes()
    with runs.held(trained):
        assert cli.main(["resume", str(trained)]) == 2
        assert f"{trained} is in use by process " in capsys.readouterr().err
        assert cli.main(["report", str(trained)]) == 0
        assert cli.main(["evaluate", str(trained)]) == 0
    assert (trained / "state.json").read_bytes() == before


@pytest.mark.parametrize("kind", ["cut", "empty", "flipped", "another"])
def test_a_damaged_model_is_one_line(trained, tmp_path, capsys, kind):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    data = bytearray((run / "best.keras").read_bytes())
    if kind == "flipped":
        data[-20_000] ^= 1
    (run / "best.keras").write_bytes(data[: {"cut": len(data) // 2, "empty": 0}.get(kind)])
    if kind == "another":
        settings = (run / "settings.json").read_text()
        (run / "settings.json").write_text(
            settings.replace('"convolutions": 2', '"convolutions": 3')
        )
    for argv in (["evaluate"], ["report"], ["predict", "x.png", "--to", str(tmp_path)]):
        command, *rest = argv
        with warnings.catch_warnings(record=True, action="always") as warned:
            assert cli.main([command, str(run), *rest]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len([*warned, *lines]) == 1
        assert f"{run / 'best.keras'} is damaged" in lines[0]
        assert "Bring it back from a copy, or train again" in lines[0]


def test_a_lost_model_is_not_taken_for_one_that_never_was(trained, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "best.keras").unlink()
    for argv in (["evaluate"], ["predict", "x.png", "--to", str(tmp_path)]):
        command, *rest = argv
        assert cli.main([command, str(run), *rest]) == 2
        assert f"{run} has no best.keras: it is lost. Bring it back" in capsys.readouterr().err
    assert cli.main(["resume", str(run)]) == 0  # its only epoch was its last
    assert cli.main(["evaluate", str(run)]) == 0


def test_an_augmentation_that_does_not_fit_is_one_line(trained, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    settings = json.loads((run / "settings.json").read_text())
    settings["recipe"]["augment"] = {"sharpness": 1}
    (run / "settings.json").write_text(json.dumps(settings))
    assert cli.main(["resume", str(run)]) == 2
    assert "sharpness" in capsys.readouterr().err.splitlines()[-1]


def stops_on_call(number: int):
    real, calls = runs.write_metrics, itertools.count(1)

    def write(*arguments):
        real(*arguments)
        if next(calls) == number:
            raise KeyboardInterrupt

    return write


def test_scores_are_printed_for_people_and_as_json(trained, capsys, asked):
    assert cli.main(["evaluate", str(trained), "--json", "--split", "test"]) == 0
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(scores) == {
        *("images", "dice", "iou", "dataset_dice", "dataset_iou", "threshold", "loss"),
        *("classes", "confusion", "calibration", "calibration_error"),
    }
    assert asked[-1][0].recipe.validation_split == "test"
    assert cli.main(["evaluate", str(trained)]) == 0
    printed = capsys.readouterr().out
    assert f"dice          {scores['dice']:.4f}" in printed
    assert "images        3" in printed


def test_contours_are_scored_when_asked_for(trained, capsys):
    def score(*flags: str) -> float:
        assert cli.main(["evaluate", str(trained), "--json", "--boundary", *flags]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])["boundary_f1"]

    assert 0 <= score("--at", "training") <= score("--boundary_tolerance", "20") <= 1


def test_the_threshold_is_a_number_or_the_best_for_the_images_of_the_training(
    trained, capsys, asked
):
    def scores(*flags: str) -> dict[str, Any]:
        assert cli.main(["evaluate", str(trained), "--json", *flags]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    given = {t: scores("--threshold", str(t)) for t in (0.1, 0.5, 0.9)}
    assert [found["threshold"] for found in given.values()] == [0.1, 0.5, 0.9]
    asked.clear()
    best = scores("--threshold", "best")
    assert [data.part for data, _ in asked] == ["training", "held-out"]
    choice = best["threshold_choice"]
    assert (choice["score"], choice["images"]) == ("dice", 3)
    assert best["threshold"] == choice["threshold"]
    # Here the images of the training are those of the validation.
    assert choice["value"] == pytest.approx(best["dice"])
    assert best["dice"] >= max(found["dice"] for found in given.values()) - 1e-6
    assert cli.main(["evaluate", str(trained), "--threshold", "best"]) == 0
    printed = capsys.readouterr().out.splitlines()[0]
    assert printed.startswith(f"the threshold {best['threshold']:.4f} gives the highest dice")
    asked.clear()
    scores("--threshold", "best", "--at", "training")
    assert [data.part for data, _ in asked] == ["training", "held-out"]


def test_predictions_and_exports_are_made_at_any_threshold(trained, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    probability = unet.predict(trained, image).output[..., 0]
    threshold = str(float(np.median(probability)))
    for given in (threshold, None):
        flags, to = ["--threshold", given] * bool(given), tmp_path / f"at-{given}"
        predict = ["predict", str(trained), str(tmp_path / "image.png"), "--to", str(to)]
        assert cli.main([*predict, *flags]) == 0
        found = np.asarray(Image.open(to / "image.mask.png"))
        np.testing.assert_array_equal(found, 255 * (probability > float(given or 0.5)))
    assert 0 < np.count_nonzero(probability > float(threshold)) < probability.size
    to = tmp_path / "model.keras"
    assert cli.main(["export", str(trained), "--to", str(to), "--threshold", threshold]) == 0
    with zipfile.ZipFile(to) as archive:
        assert json.loads(archive.read("unet.json"))["threshold"] == float(threshold)


def test_runs_are_compared_on_the_same_images(trained, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    both, page = [str(trained), str(other)], tmp_path / "page.html"
    (tmp_path / "link").symlink_to(page)
    assert cli.main(["compare", *both, "--boundary", "--to", str(tmp_path / "link")]) == 0
    printed = capsys.readouterr().out
    assert "3 images, at native size" in printed
    assert "dataset_iou" in printed
    assert "Boundary F1" in page.read_text()
    assert cli.main(["compare", *both, "--split", "test", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["differences"]["other"]["dice"] == {"difference": 0.0, "interval": None}
    assert cli.main(["compare", *both, "--to", str(tmp_path / "no" / "page.html")]) == 2
    assert f"there is no folder {tmp_path / 'no'}" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "compare", "report", "resume", "lr"])
def test_data_unlike_those_of_the_training_are_refused(tmp_path, capsys, monkeypatch, command):
    softmax = ["--output_activation", "softmax", "--output_channels", "2"]
    out, other = tmp_path / "run", tmp_path / "other"
    assert cli.main(["train", "--out", str(out), *TINY, *softmax]) == 0
    shutil.copytree(out, other)
    more = {"compare": [str(other)], "resume": ["--accept_changes"]}.get(command, [])
    argv = [command, str(out), *more]
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    for names, scaled, said in (
        (("object", "background"), None, "classes object, background, and"),
        (("background", "object", "rim"), None, "trained on background, object: numbers"),
        (("background", "object"), [0, 4095], "scaled from 0–4095 when it was built, and 8 bits"),
    ):
        kept = scaled and {"low": scaled[:1], "high": scaled[1:], "rule": "of a test"}
        with monkeypatch.context() as patch:
            patch.setattr(Drawn, "_class_names", lambda _, names=names: names)
            patch.setattr(Drawn, "scaled", {"dsb2018": kept})
            capsys.readouterr()
            assert cli.main(argv) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert said in line
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("command", ["evaluate", "compare", "report"])
def test_scores_on_other_images_than_those_of_the_training_are_said_to_be(
    trained, tmp_path, capsys, command
):
    out, other = tmp_path / "run", tmp_path / "other"
    for run, kept in ((out, "1"), (other, "2")):
        shutil.copytree(trained, run)
        settings = json.loads((run / "settings.json").read_text())
        settings["made_with"]["validation images"] = kept
        (run / "settings.json").write_text(json.dumps(settings))
    assert cli.main([command, str(out), *[str(other)] * (command == "compare")]) == 0
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"{out}: the validation images are not those of its training")
    assert "was 1 and is 2" in said
    assert cli.main(["evaluate", str(out), "--split", "test"]) == 0
    assert not capsys.readouterr().err


def test_a_page_that_may_not_be_written_is_said_before_the_work(trained, tmp_path, capsys, asked):
    shutil.copytree(trained, tmp_path / "other")
    asked.clear()
    for place, said in (
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "x.html", "there is no folder"),
    ):
        for argv in (["compare", trained, tmp_path / "other"], ["lr", trained], ["lr", *TINY[:-2]]):
            assert cli.main([*map(str, argv), "--to", str(place)]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert said in line
    assert not asked


def test_predict_says_where_images_are_far_larger_than_those_of_the_training(
    trained, tmp_path, capsys
):
    sizes = {"a": (450, 20), "b": (451, 20), "c": (20, 600)}
    for name, size in sizes.items():
        Image.fromarray(drawn(5)[0][0]).resize(size).save(tmp_path / f"{name}.png")
    files = [str(tmp_path / f"{name}.png") for name in sizes]
    to = tmp_path / "to"
    assert cli.main(["predict", str(trained), *files, "--to", str(to)]) == 0
    *_, said = capsys.readouterr().out.splitlines()
    assert said.startswith("2 images far larger than those of the training, 16×10 pixels at the")
    shrink = ["--larger", "shrink", "--overwrite"]
    assert cli.main(["predict", str(trained), *files, "--to", str(to), *shrink]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_predict_names_each_bad_file_and_does_the_others(trained, tmp_path, capsys):
    for name in ("a.png", "b.png"):
        Image.fromarray(drawn(5)[0][0]).resize((31, 17)).save(tmp_path / name)
    (tmp_path / "bad.png").write_text("hello")
    files = [str(tmp_path / name) for name in ("a.png", "bad.png", "none.png", "b.png")]
    assert cli.main(["predict", str(trained), *files, "--to", str(tmp_path / "to")]) == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 2
    assert "bad.png" in err.splitlines()[0]
    assert "none.png" in err.splitlines()[1]
    assert len(out.splitlines()) == 2
    for name in ("a", "b"):
        for kind, mode in (("mask", "L"), ("overlay", "RGB")):
            with Image.open(tmp_path / "to" / f"{name}.{kind}.png") as image:
                assert (image.size, image.mode) == ((31, 17), mode)
    again = ["predict", str(trained), files[0], "--to", str(tmp_path / "to")]
    assert cli.main(again) == 2
    assert "a.mask.png is there already; give --overwrite" in capsys.readouterr().err
    assert cli.main([*again, "--overwrite"]) == 0


def test_a_run_keeps_how_brightness_was_scaled_and_predicts_where_the_dataset_is_not(
    tmp_path, monkeypatch, capsys
):
    kept = {"low": [100.0], "high": [3400.0], "rule": "of a test", "types": ["uint16"]}
    with monkeypatch.context() as patch:
        patch.setattr(Drawn, "scaled", {"dsb2018": kept})
        assert cli.main(["train", "--out", str(tmp_path / "run"), *TINY]) == 0
    assert runs.settings(tmp_path / "run").scalings == {"dsb2018": kept}
    monkeypatch.setattr("unet.data.Data", lambda *_, **__: pytest.fail("there is no dataset"))
    levels = drawn(5)[0][0][..., 0]
    Image.fromarray((100 + levels * (3300 / 255)).round().astype(np.uint16)).save(
        tmp_path / "deep.png"
    )
    Image.fromarray(levels).save(tmp_path / "plain.png")
    files = [str(tmp_path / f"{name}.png") for name in ("plain", "deep")]
    predict = ["predict", str(tmp_path / "run"), *files, "--to", str(tmp_path / "to")]
    assert cli.main(predict) == 2
    assert "plain.png: its pixels are uint8" in capsys.readouterr().err
    mask, overlay = (
        np.asarray(Image.open(tmp_path / "to" / f"deep.{kind}.png")) for kind in ("mask", "overlay")
    )
    np.testing.assert_array_equal(overlay[mask == 0], np.stack([levels] * 3, -1)[mask == 0])
    assert cli.main([*predict, "--like", "cells"]) == 2
    assert "--like cells: the run was trained on dsb2018" in capsys.readouterr().err


def test_a_report_can_be_written_again(trained):
    before = (trained / "report.html").read_text()
    (trained / "report.html").unlink()
    assert cli.main(["report", str(trained)]) == 0
    assert (trained / "report.html").read_text() == before


def test_recipes_are_listed(capsys):
    assert cli.main(["recipes"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in RECIPES)
    for shown in ("FCN 64–128–256, 2,879,489 parameters", "34,550,273", "carvana at 96×128"):
        assert shown in printed


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["train", "--recipe", "carvana-net", "--out", "{new}"], "dsb2018-generator"),
        (["train", "--out", "{new}", "--filters", "4", "0"], "filters"),
        (["train", "--out", "{new}", "--size", "100", "100"], "stride, 16"),
        (["train", "--recipe", "carvana-fcn", "--out", "{new}", "--size", "8", "12"], "stride, 8"),
        (["train", "--out", "{new}", "--loss", "squared_error", *SOFTMAX], "loss"),
        (["train", "--out", "{new}", "--horizontal_flip", "2"], "horizontal_flip"),
        (["train", "--out", "{new}", "--activation", "glorot"], "activation is 'glorot'"),
        (["train", "--out", "{new}", "--initializer", "constant"], "initializer is 'constant'"),
        (["train", "--out", "{run}", *TINY], "unet resume"),
        (["train", "--out", "{new}", "--mix", "dsb2018"], "--mix dsb2018: give datasets"),
        (["train", "--out", "{new}", "--mix", "dsb2018=1", "dsb2018=2"], "each dataset once"),
        (["train", "--out", "{new}", "--mix", "dsb2018=1", "--labels", "1=a"], "file of --mix"),
        (["train", "--out", "{new}", "--labels", "1"], "--labels 1: 1=pet"),
        (["train", "--out", "{new}", "--bands", "1", "2"], "one channel, or three"),
        (["train", "--out", "{new}", "--background", "negative"], "give --mix"),
        (["train", "--out", "{new}", "--precision", "float16"], "cannot multiply in"),
        (["train", "--out", "{new}", "--deterministic"], "TF_DETERMINISTIC_OPS"),
        (["resume", "{new}"], "holds no run"),
        (["evaluate", "{new}"], "holds no run"),
        (["evaluate", "{begun}"], "no best.keras"),
        (
            ["evaluate", "{run}", "--boundary_tolerance", "2"],
            "2: 0 or more pixels, with --boundary",
        ),
        (["evaluate", "{run}", "--boundary", "--boundary_tolerance=-1"], "0 or more pixels"),
        (["compare", "{run}"], "name two runs or more, each once"),
        (["compare", "{run}", "{run}"], "name two runs or more, each once"),
        (["compare", "{run}", "{run}/../run"], "name two runs or more, each once"),
        (["evaluate", "{run}", "--least_area", "5"], "are for objects alone; give --objects"),
        (
            ["predict", "{run}", "x.png", "--to", "{new}", "--least_area", "5"],
            "give --write labels",
        ),
        (
            ["predict", "{run}", "x.png", "--to", "{new}", "--pixel_size", "2"],
            "give --write objects",
        ),
        (
            ["predict", "{run}", "x.png", "--to", "{new}", "--threshold", "1"],
            "--threshold 1.0: a number in [0, 1).",
        ),
        (["compare", "{run}", "{new}"], "holds no run"),
        (["predict", "{new}", "x.png", "--to", "{new}"], "holds no run"),
        (["compare", "{loop}", "{run}"], "symbolic links"),
        (["report", "{begun}"], "no best.keras"),
        (["tran"], "train, resume"),
    ],
)
def test_a_mistake_is_one_clear_line(trained, tmp_path, monkeypatch, capsys, argv, said):
    monkeypatch.delenv("TF_DETERMINISTIC_OPS", raising=False)
    monkeypatch.setattr(hardware, "detect", lambda: Hardware(name="plain CPU", kind="cpu"))
    runs.create(tmp_path / "begun", runs.settings(trained))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    places = {"run": trained} | {name: tmp_path / name for name in ("new", "begun", "loop")}
    assert cli.main([argument.format(**places) for argument in argv]) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert said in error
    assert not places["new"].exists()


@pytest.mark.parametrize(
    "argv",
    [
        ["train", "--nonsense"],
        ["predict", "run", "--to", "x"],
        ["predict", "run", "x.png", "--to", "x", "--threshold", "best"],
        ["evaluate"],
    ],
)
def test_a_mistyped_flag_exits_with_2(argv, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(argv)
    assert exit_.value.code == 2


@pytest.mark.parametrize(
    "command", ["train", "resume", "lr", "evaluate", "compare", "submit", "predict", "export"]
)
def test_the_help_of_each_command_is_in_the_words_of_docstrings(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main([command, "--help"])
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: unet {command} [-h]")
    assert not any(internal in shown for internal in ("['", "<", "(*", "Literal", "%(", "_F"))


def test_help_and_import_load_neither_keras_nor_tensorflow():
    code = (
        "import sys, unet, unet.cli\n"
        "for argv in (['--help'], ['recipes'], ['evaluate', 'nowhere']): unet.cli.main(argv)\n"
        "sys.exit(bool({'keras', 'tensorflow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0

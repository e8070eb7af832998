"""A U-Net trained on several datasets by the command line, killed, resumed and scored for each."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import own_folders as own
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from segdata import cli as data_cli
from segdata import mixing, packing
from segdata.core.augment import Augment
from segdata.core.stream import Stream
from segdata.inspection import lettering, replay
from unet import cli, recipes, runs
from unet.data import Data

MIX = ["--mix", "dsb2018=3", "carvana=1", "--background", "negative"]
FLAGS = [
    *("--filters", "2", "3", "--size", "16", "16", "--batch", "4", "--epochs", "3"),
    *("--steps_per_epoch", "0"),
    *("--checkpoint_minutes", "0", "--output_activation", "softmax", "--loss", "cross_entropy"),
]
SHARES = {"dsb2018": 3, "carvana": 1, "folder:mine": 2}
FILE: dict[str, Any] = {
    "shares": SHARES,
    "labels": {"folder:mine": {"background": "background", "cell": "nucleus", "car": "vehicle"}},
    "background": "negative",
    "weights": {"folder:mine": {"cell": 2}},
    "features": {"carvana": {"labels": {"background": "background", "car": "vehicle"}}},
    "augment": {
        "carvana": None,
        "folder:mine": {"rotation_range": [-20, 20], "noise_range": [0, 0.1]},
    },
    "record_size": [24, 32],
    "validation_split": {
        "dsb2018": "validation",
        "carvana": "validation",
        "folder:mine": "train[:3]",
    },
}


HELD = {"dsb2018": ("background", "nucleus"), "carvana": ("background", "car")}


@pytest.fixture(scope="module")
def data_dir(built_datasets, tmp_path_factory) -> pathlib.Path:
    """Two built-in datasets, and a folder of images and masks."""
    root = tmp_path_factory.mktemp("mine")
    for number in range(8):
        own.write(root / "images" / f"{number}.png", own.photo(number))
        own.write(root / "masks" / f"{number}.png", own.classes(number))
    classes = ["--classes", "background", "cell", "car"]
    code, _, error = own.build(root, "--masks", root / "masks", *classes)
    assert code == 0, error
    for name in ("dsb2018", "carvana"):
        (root / "data" / name).symlink_to(built_datasets / name)
    return root / "data"


@pytest.fixture(scope="module")
def never(data_dir) -> pathlib.Path:
    """The undisturbed run."""
    path, run = data_dir.parent / "mix.json", data_dir.parent / "never"
    path.write_text(json.dumps(FILE))
    assert start("train", "--out", run, *flags(path, data_dir)).wait() == 0
    return run


def flags(path, data_dir) -> list[Any]:
    own_flags = ["--output_channels", "3", "--deterministic", "--data_dir", data_dir]
    return ["--mix", path, *FLAGS, *own_flags]


def start(*argv: Any) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "unet.cli", *argv],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def measured(run: pathlib.Path) -> list[dict]:
    clocks = ("seconds", "images_per_second", "input_share")
    return [{k: v for k, v in row.items() if k not in clocks} for row in runs.state(run).history]


@pytest.mark.heavy
def test_a_run_on_a_mixture_that_is_killed_and_resumed_is_the_undisturbed_one(
    never, data_dir, tmp_path, capsys
):
    path, killed = tmp_path / "mix.json", tmp_path / "killed"
    path.write_text(json.dumps(FILE))
    process = start("train", "--out", killed, *flags(path, data_dir))
    while not (killed / "state.json").exists() or runs.state(killed).step < 9:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    path.unlink()  # what it said is kept in the run
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert start("resume", killed).wait() == 0

    assert measured(never) == measured(killed)
    one, other = runs.state(never), runs.state(killed)
    with np.load(never / str(one.checkpoint)) as a, np.load(killed / str(other.checkpoint)) as b:
        for name in set(a.files) - {"state"}:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    account = json.loads((never / "sources.json").read_text())
    assert account == json.loads((killed / "sources.json").read_text())
    images = {name: held["images"] for name, held in account.items()}
    assert sum(images.values()) == 4 * one.step
    for name, share in SHARES.items():
        assert abs(images[name] - 4 * one.step * share / 6) < 1
        assert f"val_dice/{name}" in one.history[-1]
        assert name in (never / "report.html").read_text()
    settings = runs.settings(never)
    assert settings.classes == ("background", "nucleus", "vehicle")
    assert settings.recipe.mix == FILE

    assert cli.main(["evaluate", str(killed), "--json", "--at", "training"]) == 0
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])
    row = one.history[runs.best_epoch(one.history) or 0]
    for name in ("loss", "dice", *(f"dice/{name}" for name in SHARES)):
        assert scores[name] == pytest.approx(row[f"val_{name}"], rel=1e-4)
    assert scores["images/folder:mine"] == 3 * 4  # tiles
    assert cli.main(["evaluate", str(killed), "--json", "--split", "train"]) == 0
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])
    for name in SHARES:
        records = packing.pack(name, "train", size=(16, 16), data_dir=data_dir)
        assert scores[f"images/{name}"] == records.count


@pytest.mark.heavy
def test_what_a_step_on_a_mixture_saw_is_drawn_and_each_source_named(
    never, data_dir, tmp_path, monkeypatch
):
    drawn: dict[str, Any] = {}

    def sheet(pixels, ids, **options):
        drawn.update(pixels=pixels, ids=ids, **options)
        return of(pixels, ids, **options)

    of = replay.sheet.sheet
    monkeypatch.setattr(replay.sheet, "sheet", sheet)
    picture = tmp_path / "step.png"
    argv = ["show", "--replay", never, "--step", 7, "--to", picture, "--data_dir", data_dir]
    assert data_cli.main([*map(str, argv)]) == 0
    recipe = runs.settings(never).recipe
    given = mixing.from_json(FILE, augment=Augment(**recipe.augment)).training
    assert given["augment"]["dsb2018"] == Augment(**recipe.augment) != Augment()
    mixture = mixing.mix(**given, size=(16, 16), batch=4, seed=recipe.seed, data_dir=data_dir)
    np.testing.assert_array_equal(
        drawn["pixels"], np.concatenate(mixture.batch(7), axis=-1), strict=True
    )
    named = [name.partition(" #") for name in drawn["ids"]]
    assert [name for name, _, _ in named] == [mixture.names[n] for n in mixture.sources(7)]
    assert drawn["classes"] == ("background", "nucleus", "vehicle")
    for row, (name, _, rest) in enumerate(named):
        number, epoch = map(int, rest.split(" e"))
        plain = Stream(
            packing.pack(name, "train", size=(24, 32), data_dir=data_dir),
            batch=1,
            augment=given["augment"][name],
            seed=recipe.seed,
            size=(16, 16),
        )
        image, _ = plain.replay(np.array([number]), np.array([epoch]))
        np.testing.assert_array_equal(drawn["pixels"][row][..., :3], image[0])
    widest = max(lettering.length(key, size=12) for key in drawn["ids"])
    with Image.open(picture) as image:
        assert image.width > 4 * widest


@pytest.mark.heavy
def test_a_fold_of_each_dataset_is_left_out_of_training_and_scored(
    built_datasets, tmp_path, capsys
):
    run, where = tmp_path / "run", ["--data_dir", str(built_datasets)]
    more = ["--output_channels", "3", "--fold", "1", "2", "--epochs", "1"]
    assert cli.main(["train", "--out", str(run), *MIX, *FLAGS, *more, *where]) == 0
    assert runs.settings(run).recipe.fold == (1, 2)
    capsys.readouterr()
    assert cli.main(["evaluate", str(run), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert scores["fold"] == [1, 2]
    account = json.loads((run / "sources.json").read_text())
    for name in ("dsb2018", "carvana"):
        options: Any = {"size": (16, 16), "fold": (1, 2), "data_dir": built_datasets}
        out = packing.pack(name, "train", part="held-out", **options)
        assert scores[f"images/{name}"] == out.count > 0
        train = packing.pack(name, "train", **options)
        assert not {*map(int, train.rows)} & {*map(int, out.rows)}
        assert account[name]["images"] > 0
    assert "fold 1 of 2 of train" in (run / "report.html").read_text()
    assert cli.main(["evaluate", str(run), "--json", "--split", "validation"]) == 0
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "fold" not in scores
    whole = packing.pack("dsb2018", "validation", size=(16, 16), data_dir=built_datasets)
    assert scores["images/dsb2018"] == whole.count


@pytest.mark.parametrize("is_mixed", [True, False])
def test_other_images_to_train_on_or_to_judge_by_are_noticed(tmp_path, is_mixed):
    mix = {"dataset": "folder:mine", "mix": {"shares": {"folder:mine": 1}}}
    recipe = recipes.Recipe(size=(16, 16), batch=2, **(mix if is_mixed else {}))
    recipe = dataclasses.replace(recipe, dataset="folder:mine")
    shown: list[dict[str, str]] = []
    for changed in ("", "val", "train"):
        for number, part in enumerate(("train", "train", "train", "val", "val")):
            name = f"{part}/{number}.png"
            mask = own.classes(number + 100 * (part == changed)) > 0
            own.write(tmp_path / "images" / name, own.photo(number))
            own.write(tmp_path / "masks" / name, 255 * mask.astype(np.uint8))
        flags = ("--masks", tmp_path / "masks", "--overwrite")
        assert own.build(tmp_path, *flags)[0] == 0
        shown.append(Data(recipe, str(tmp_path / "data")).made_with())
    plain, judged, trained = shown
    whats = [{name for name in plain if plain[name] != other[name]} for other in (judged, trained)]
    assert whats == [{"validation images"}, {"training images"}]
    assert len(plain["validation images"]) == 8


@pytest.mark.parametrize("is_mixed", [True, False])
def test_the_sizes_of_the_images_of_a_training_are_known(built_datasets, is_mixed):
    several: dict[str, Any] = {"dataset": "dsb2018"}
    if is_mixed:
        several = {"dataset": "dsb2018+carvana", "mix": {"shares": {"dsb2018": 3, "carvana": 1}}}
    recipe = recipes.Recipe(size=(16, 32), **several)
    sides = [
        example["image"].shape[:2]
        for name in several["dataset"].split("+")
        for example in tfds.as_numpy(tfds.load(name, split="train", data_dir=built_datasets))
    ]
    assert Data(recipe, str(built_datasets)).sizes() == {
        "height": int(np.median([height for height, _ in sides])),
        "width": int(np.median([width for _, width in sides])),
        "longest": max(max(size) for size in sides),
    }


@pytest.mark.parametrize("fold", [None, (1, 2)])
@pytest.mark.parametrize("is_mixed", [True, False])
def test_the_images_of_a_training_are_those_that_its_batches_hold(built_datasets, fold, is_mixed):
    count = packing.pack("dsb2018", "train", size=(16, 32), data_dir=built_datasets).count
    things = {"background": "background", "nucleus": "thing", "car": "thing"}
    mix = {
        "shares": {"dsb2018": 3, "carvana": 1},
        "labels": {name: {key: things[key] for key in held} for name, held in HELD.items()},
        "weights": {"dsb2018": [i % 3 for i in range(count)], "carvana": {"car": 2}},
    }
    several: dict[str, Any] = {"dataset": "dsb2018"}
    if is_mixed:
        several = {"dataset": "dsb2018+carvana", "mix": mix}
    recipe = recipes.Recipe(size=(16, 32), batch=4, fold=fold, record_size=None, **several)
    held = Data(dataclasses.replace(recipe, augment={}), str(built_datasets), part="training")
    training: Any = held.training
    steps = range(12 * training.steps_per_epoch)
    seen = {image.tobytes() for step in steps for image in training.batch(step)[0]}
    whole = held.validation if is_mixed else {"": held.validation}
    assert seen == {image.tobytes() for own in whole.values() for x, _ in own for image in x}
    own_size = held.native() if is_mixed else {"": held.native()}
    images = [x for own in own_size.values() for x in own]
    assert seen == {x.record[..., :3].tobytes() for x in images}
    assert all(set(np.unique(x.mask)) <= {0, 1, 255} for x in images)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([*MIX[:3]], "the mixture loses the class 'background'"),
        ([*MIX], "give --output_channels 3"),
        (["--mix", "dsb2018=1", "nothing=1"], "'nothing' is not a dataset known here"),
        (["--mix", "lost.json"], "labels of carvana lose the class 'car'"),
        (["--mix", "none.json"], "--mix none.json: give datasets with their shares"),
        (["--mix", "twice.json"], "it names 'dsb2018' twice"),
        (["--mix", "odd.json"], "a mixture has no setting 'seed'"),
        (["--mix", "weights.json"], "weights of dsb2018: it has no class 'car'"),
        (["--mix", "lost.json", "--background", "negative"], "say it in lost.json"),
        ([*MIX, "--mask", "trimap"], "`features` in the file of --mix says them"),
        ([*MIX, "--fold", "0", "99"], "99 folds of"),
        (["--mix", "dsb2018=1", "carvana=-1", *MIX[3:]], "--mix carvana=-1: give"),
    ],
)
def test_a_mixture_that_does_not_fit_is_one_line(
    built_datasets, tmp_path, monkeypatch, capsys, flags, said
):
    monkeypatch.chdir(tmp_path)
    both: dict[str, Any] = {"shares": {"dsb2018": 1, "carvana": 1}, "background": "negative"}
    for name, more in (
        ("lost", {"labels": {"carvana": {"background": None}}}),
        ("odd", {"seed": 3}),
        ("weights", {"weights": {"dsb2018": {"car": 2}}}),
    ):
        pathlib.Path(f"{name}.json").write_text(json.dumps(both | more))
    pathlib.Path("twice.json").write_text('{"shares": {"dsb2018": 1, "dsb2018": 2}}')
    channels = ["--output_channels", "3" if said.startswith(("99", "weights")) else "4"]
    argv = ["train", "--out", "run", *flags, *FLAGS, *channels, "--data_dir", str(built_datasets)]
    assert cli.main(argv) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not pathlib.Path("run").exists()

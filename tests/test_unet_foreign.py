"""`unet train` on a dataset of somebody else, whose features flags name once."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

import segdata
from segdata import cli as data_cli
from segdata.core.augment import Augment
from segdata.inspection import overlays
from unet import cli, runs

LABELS = ["--labels", "2-3=background", "1=pet"]
FLAGS = [
    *("--dataset", "oxford_iiit_pet", "--mask", "segmentation_mask"),
    *("--train_split", "train[:4]", "--validation_split", "test[:2]"),
    *("--filters", "2", "3", "--size", "16", "16", "--batch", "2", "--epochs", "2"),
    *("--horizontal_flip", "0.5"),
]
NAMED = {"mask": "segmentation_mask", "labels": {range(2, 4): "background", 1: "pet"}}


@pytest.fixture(scope="module")
def trained(built_foreign, tmp_path_factory) -> pathlib.Path:
    run = tmp_path_factory.mktemp("runs") / "pets"
    where = ["--recipe", "dsb2018-generator", "--data_dir", str(built_foreign)]  # whole images
    assert cli.main(["train", "--out", str(run), *FLAGS, *LABELS, *where]) == 0
    return run


@pytest.mark.heavy
def test_what_the_flags_named_is_kept_and_scored_without_them(trained, built_foreign, capsys):
    assert runs.settings(trained).recipe.features == {
        "mask": "segmentation_mask",
        "labels": {"2-3": "background", "1": "pet"},
    }
    state = runs.state(trained)
    assert state.step == 4
    best = state.history[runs.best_epoch(state.history) or 0]
    for split, count in (([], 2), (["--split", "train"], 6)):
        capsys.readouterr()
        assert cli.main(["evaluate", str(trained), "--json", *split]) == 0
        scores = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert scores["images"] == count
        is_that_of_training = scores["loss"] == pytest.approx(best["val_loss"], rel=1e-4)
        assert is_that_of_training == (not split)
    for command in ("resume", "report"):
        assert cli.main([command, str(trained)]) == 0


@pytest.mark.heavy
def test_what_a_step_saw_is_drawn_with_the_features_of_the_run(trained, built_foreign, tmp_path):
    picture = str(tmp_path / "x.png")
    command = ["show", "--replay", str(trained), "--step", "3", "--to", picture]
    assert data_cli.main([*command, "--mask", "segmentation_mask"]) == 2
    assert data_cli.main(command) == 0
    drawn = np.asarray(Image.open(picture).convert("RGB"))
    batches = segdata.train_batches(
        "oxford_iiit_pet",
        "train[:4]",
        size=(16, 16),
        batch=2,
        augment=Augment(horizontal_flip=0.5),
        seed=0,
        start_step=3,
        data_dir=built_foreign,
        **NAMED,
    )
    image, mask = next(batches.as_numpy_iterator())
    assert {*np.unique(mask)} == {0, 1}
    for pixels, label in zip(image, mask, strict=True):
        under = overlays.overlay(pixels, label[..., 0], classes=("background", "pet"))
        for cell in (pixels, under):
            windows = np.lib.stride_tricks.sliding_window_view(drawn, cell.shape)[..., 0, :, :, :]
            assert (windows == cell).all(axis=(-3, -2, -1)).any()


@pytest.mark.heavy
def test_the_recipe_small_chooses_from_the_features_that_are_named(built_foreign, tmp_path):
    run = tmp_path / "run"
    argv = ["train", "--recipe", "small", "--out", str(run), "--data_dir", str(built_foreign)]
    assert cli.main([*argv, *FLAGS, *LABELS]) == 0
    recipe = runs.settings(run).recipe
    assert recipe.model.output_activation == "sigmoid"
    assert "The classes: background " in recipe.source
    assert ", pet " in recipe.source


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "segmentation_mask' of oxford_iiit_pet/4.0.0 does not name its classes"),
        (["--labels", "1=pet", "2-3=background"], "finds the class that is named second"),
        (["--labels", "2=a", "1=b", "3=c"], "has 3 classes; give --output_activation softmax"),
        ([*LABELS, "--image", "photo"], "image='photo': oxford_iiit_pet/4.0.0 has no such feature"),
        ([*LABELS, "--dataset", "nothing"], "'nothing' is not a dataset known here"),
        ([*LABELS, "--fold", "0", "9"], "9 folds of 4 groups"),
        ([*LABELS, "--fold", "0", "2", "--stratum", "x"], "stratum='x': oxford_iiit_pet"),
    ],
)
def test_features_that_do_not_fit_are_one_line(built_foreign, tmp_path, capsys, flags, said):
    where = ["--data_dir", str(built_foreign), "--out", str(tmp_path / "run")]
    assert cli.main(["train", *FLAGS, *where, *flags]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()

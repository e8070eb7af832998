"""Objects and tables from the command line, on drawn datasets."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
from building import build
from PIL import Image

from segdata import cli as segdata_cli
from segdata import native, packing
from segdata.archives import rle, trees
from segdata.sources import carvana, dsb2018
from unet import cli, runs
from unet.data import Data
from unet.recipes import RECIPES

FLAGS = ["--filters", "4", "8", "--size", "64", "64", "--batch", "4", "--checkpoint_minutes", "100"]


def train(out: pathlib.Path, data_dir: pathlib.Path, *flags: str) -> None:
    where = ["--data_dir", str(data_dir), "--out", str(out)]
    assert cli.main(["train", *where, *FLAGS, *flags]) == 0


@pytest.fixture(scope="module")
def nuclei(built_dsb2018, tmp_path_factory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("runs") / "nuclei"
    whole = ["--recipe", "dsb2018-generator", "--loss", "cross_entropy_dice", "--standardise"]
    more = ["--initializer", "he_normal", "--learning_rate", "6e-3", "--epochs", "12"]
    train(out, built_dsb2018, *whole, *more, "--schedule", "cosine")
    return out


@pytest.mark.heavy
def test_objects_are_scored_beside_pixels(nuclei, capsys):
    def scores(*flags: str) -> dict[str, float]:
        capsys.readouterr()
        assert cli.main(["evaluate", str(nuclei), "--json", *flags]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    found = scores("--objects")
    plain = scores()
    assert {*plain} < {*found}
    numbers = {name: value for name, value in plain.items() if isinstance(value, int | float)}
    assert {"images", "dice", "dataset_iou", "loss"} <= {*numbers}
    assert {name: found[name] for name in numbers} == pytest.approx(numbers)
    assert {*found} - {*plain} == {
        *("object_ap", "object_ap50", "object_f1"),
        *("objects_true", "objects_found", "objects_matched"),
    }
    assert 0.1 < found["object_ap"] <= found["object_ap50"] <= 1
    assert found["objects_matched"] <= min(found["objects_true"], found["objects_found"])
    none = scores("--objects", "--least_area", "1000000")
    assert (none["objects_found"], none["object_ap"]) == (0, 0)
    assert none["objects_true"] == found["objects_true"]
    assert scores("--objects", "--split", "train")["objects_true"] > found["objects_true"]
    assert cli.main(["evaluate", str(nuclei), "--objects"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["objects_true", f"{found['objects_true']:,}"] in lines


@pytest.mark.heavy
def test_a_table_of_nuclei_is_of_the_test_images(nuclei, built_dsb2018, tmp_path, capsys):
    path = tmp_path / "table.csv"
    assert cli.main(["submit", str(nuclei), "--to", str(path)]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    rule = packing.Rule.of((64, 64), fit="stretch")
    images = list(native.examples("dsb2018", "test", rule=rule, data_dir=built_dsb2018))
    table = list(rle.read_stage1(path))
    assert [each.id for each in table] == [each.id for each in images]
    assert said.startswith(f"{path}: 2 images, {sum(len(each.runs) for each in table)} masks")
    for each, image in zip(table, images, strict=True):
        mask = each.mask(image.mask.shape)
        assert 0.01 < mask.mean() < 0.7
        grey = image.image.mean(axis=-1)
        assert abs(grey[mask].mean() - grey[~mask].mean()) > 5  # nuclei, and no others


@pytest.mark.heavy
def test_a_table_is_of_the_masks_that_predict_writes_also_of_far_larger_images(
    nuclei, drawn_dsb2018, tmp_path, capsys
):
    run, path, to = tmp_path / "run", tmp_path / "table.csv", tmp_path / "masks"
    shutil.copytree(nuclei, run)
    settings = json.loads((run / "settings.json").read_text())
    settings["trained_on"] = {"height": 60, "width": 60, "longest": 80}
    (run / "settings.json").write_text(json.dumps(settings))
    zipped, all_of_it = drawn_dsb2018 / "stage1_test.zip", ["--least_area", "0"]
    masks = {}
    for larger in ("tiles", "shrink"):
        flags = ["--larger", larger]
        table = ["--to", str(path), *flags, *all_of_it]
        assert cli.main(["submit", str(run), *table]) == 0
        written = ["--to", str(to / larger), *flags, "--write", "mask"]
        assert cli.main(["predict", str(run), str(zipped), *written]) == 0
        masks[larger] = []
        for each in rle.read_stage1(path):
            (mask,) = (to / larger).glob(f"**/{each.id}.mask.png")
            wanted = np.asarray(Image.open(mask)) > 0
            np.testing.assert_array_equal(each.mask(wanted.shape), wanted)
            masks[larger].append(wanted)
    assert any((a != b).any() for a, b in zip(*masks.values(), strict=True))

    def dice(*flags: str) -> float:
        capsys.readouterr()
        assert cli.main(["evaluate", str(run), "--json", *flags]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])["dice"]

    assert dice() != dice("--larger", "shrink")
    capsys.readouterr()
    assert cli.main(["export", str(run), "--to", str(tmp_path / "model.keras")]) == 0
    assert "validation image" in capsys.readouterr().out


@pytest.mark.heavy
def test_a_table_of_cars_is_of_the_config_that_has_test_images(drawn_carvana, tmp_path, capsys):
    data_dir, path = tmp_path / "data", tmp_path / "table.csv"
    build("carvana", drawn_carvana, data_dir)
    run = tmp_path / "run"
    few = ["--epochs", "1", "--steps_per_epoch", "2"]
    train(run, data_dir, *["--recipe", "carvana", *few, "--stem_stride", "1"])
    assert runs.state(run).step == 2
    capsys.readouterr()
    assert cli.main(["submit", str(run), "--to", str(path)]) == 2
    assert "segdata build carvana/with_test" in capsys.readouterr().err
    assert not path.exists()
    build("carvana/with_test", drawn_carvana, data_dir)
    assert cli.main(["submit", str(run), "--to", str(path)]) == 0
    lines = path.read_text().splitlines()
    assert lines[0] == "img,rle_mask"
    tree = trees.find(drawn_carvana, "test_hq")
    assert tree
    photos = carvana.survey_unlabelled(tree)[0]
    assert sorted(line.partition(",")[0] for line in lines[1:]) == [f"{p.id}.jpg" for p in photos]


def test_nuclei_built_without_test_images_say_how_to_get_them(tmp_path, capsys):
    manual, data_dir = tmp_path / "manual", str(tmp_path / "data")
    dsb2018.draw_zips(manual, examples=4, seed=1, unlabelled=1)
    (test,) = manual.rglob("stage1_test.zip")
    test.rename(tmp_path / "stage1_test.zip")
    command = ["build", "dsb2018", "--manual_dir", str(manual), "--data_dir", data_dir]
    assert segdata_cli.main(command) == 0
    data = Data(dataclasses.replace(RECIPES["dsb2018"], size=(64, 64)), data_dir)
    with pytest.raises(ValueError, match=r"stage1_test\.zip into .* build dsb2018 --overwrite"):
        data.unlabelled("test")
    (tmp_path / "stage1_test.zip").rename(test)
    assert segdata_cli.main([*command, "--overwrite"]) == 0
    assert len(list(data.unlabelled("test"))) == 1


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["evaluate", "--objects", "--at", "training"], "at the images' own size"),
        (["evaluate", "--larger", "shrink", "--at", "training"], "--larger: at the size of the"),
        (["evaluate", "--objects", "--seed_depth", "0"], "seed_depth"),
        (["evaluate", "--objects", "--split", "test"], "none of the 2 images"),
        (["submit", "--to", "table.txt"], "such as table.csv"),
        (["submit", "--to", "no/table.csv"], "there is no folder"),
        (["submit", "--to", "table.csv", "--split", "tests"], "no split 'tests'"),
    ],
)
def test_a_mistake_is_one_line(nuclei, command, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert cli.main([command[0], str(nuclei), *command[1:]]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert said in lines[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.heavy
def test_borders_are_trained_on_as_classes(built_borders, tmp_path, capsys):
    run = tmp_path / "run"
    softmax = "--output_activation softmax --output_channels 3 --dataset dsb2018/borders"
    few = ["--epochs", "1", "--steps_per_epoch", "0"]
    train(run, built_borders, "--recipe", "dsb2018", *few, *softmax.split())
    assert runs.settings(run).classes == ("background", "nucleus", "border")
    capsys.readouterr()
    assert cli.main(["evaluate", str(run), "--objects", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["objects_true"] > 0
    assert np.isfinite(found["object_ap"])

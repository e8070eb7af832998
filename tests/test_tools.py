import importlib
import json
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from unet import model as unet_model
from unet import recipes, runs
from unet.model import FCN, UNet

TOOLS = pathlib.Path(__file__).parents[1] / "tools"


def test_the_demo_removes_nothing_that_it_did_not_make(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("mine")
    command = [sys.executable, str(TOOLS / "demo.py"), "--to", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "holds other files than those of a demo" in done.stderr
    assert (tmp_path / "data" / "mine.txt").read_text() == "mine"


def test_the_demo_averages_weights_over_fewer_updates_than_it_makes(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(TOOLS))
    demo: Any = importlib.import_module("demo")
    ran = list[list[str]]()

    def run(command):
        ran.append([str(word) for word in command])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(sys, "argv", ["demo.py", "--to", str(tmp_path)])
    monkeypatch.setattr(subprocess, "run", run)
    assert demo.main() == 0
    given = dict(word[2:].split("=") for words in ran for word in words if "=" in word)
    updates = int(given["epochs"]) * int(given["steps_per_epoch"])
    assert float(given["ema_momentum"]) <= recipes.most_momentum(updates)


def test_a_wrong_name_of_what_to_build_is_one_line():
    command = [sys.executable, str(TOOLS / "build_once.py"), "limit", "cars", "drawn", "data"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "invalid choice: 'cars'" in done.stderr
    assert "Traceback" not in done.stderr


def test_duplicates_are_planted_in_fewer_cars_than_there_are_changes(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    tool: Any = importlib.import_module("duplicates_table")
    found, _ = tool.rows(tool.turntables(2), "cars", copies=1)
    assert sum("views of a car" in row[1] for row in found) == 1


@pytest.mark.heavy
def test_the_benchmark_measures_its_rows_and_judges_its_goals(built_dsb2018, tmp_path):
    figures, picture = tmp_path / "figures.json", tmp_path / "bars.png"
    command = [sys.executable, str(TOOLS / "bench"), "--data_dir", str(built_dsb2018)]
    command += ["--rows", "segdata none", "tf.data batched none", "segdata flip + colour 256²"]
    command += ["--seconds", "0.05", "--rounds", "1", "--megabytes", "8", "--no-memory"]
    done = subprocess.run(
        [*command, "--json", str(figures), "--picture", str(picture)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())
    rates = found["images_per_second"]
    asked = {"segdata none", "tf.data batched none", "segdata flip + colour 256²"}
    assert set(rates) == {"copy limit none", *asked}
    assert min(rates.values()) > 0
    goals = {goal["goal"]: goal for goal in found["goals"]}
    best = goals["none: 10 × the best peer"]
    assert best["peer"] == "tf.data batched none"
    times = rates["segdata none"] / rates["tf.data batched none"]
    assert best["value"] == pytest.approx(times, abs=1e-3)
    assert best["state"] == ("met" if times >= 10 else "missed")
    assert goals["everything: 5 × the best peer"]["state"] == "not measured"
    assert goals["first batch, cold: 5.0 s"]["value"] > goals["first batch, warm: 1.0 s"]["value"]
    assert picture.stat().st_size > 1000


@pytest.mark.parametrize("scored", [("b",), ("a", "b", "c")])
def test_scores_of_folds_are_pooled_by_pixels_and_averaged_by_images(monkeypatch, scored):
    monkeypatch.syspath_prepend(str(TOOLS))
    tool: Any = importlib.import_module("cross_validation")
    rng = np.random.default_rng(0)
    folds, pixels = [], []
    for images in (3, 5):
        truth, found = rng.integers(0, 2, (2, 200))  # c does not occur
        pixels.append((truth, found))
        matrix = np.zeros((3, 3), int)
        np.add.at(matrix, (truth, found), 1)
        confusion = {
            a: dict(zip("abc", row.tolist(), strict=True))
            for a, row in zip("abc", matrix, strict=True)
        }
        folds.append(
            {
                "images": images,
                "dice": images / 10,
                "classes": dict.fromkeys(scored),
                "confusion": confusion,
            }
        )
    truth, found = np.concatenate(pixels, axis=1)
    numbers = ["abc".index(name) for name in scored if name != "c"]
    ious = [np.mean(((truth == n) & (found == n))[(truth == n) | (found == n)]) for n in numbers]
    expected = {"images": 8, "dice": (3 * 0.3 + 5 * 0.5) / 8, "dataset_iou": np.mean(ious)}
    assert tool.together(folds) == pytest.approx(expected)
    assert tool.spread([{"images": 8, "dice": 0.1}, {"images": 8, "dice": 0.3}]) == {
        "dice": "0.2000 (0.1000 to 0.3000)"
    }


def test_the_interval_of_all_folds_is_that_of_a_mean_of_independent_means(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    tool: Any = importlib.import_module("cross_validation")
    rng = np.random.default_rng(0)
    scores = [rng.normal(0.9, 0.05, 150), rng.normal(0.7, 0.2, 90)]  # of images, a group each
    folds = []
    for each in scores:
        means = rng.choice(each, (2000, len(each))).mean(1)
        ends = np.percentile(means, (2.5, 97.5))
        folds.append({"images": len(each), "intervals": {"dice": tuple(ends)}})
    both = sum(rng.choice(each, (2000, len(each))).sum(1) for each in scores) / 240
    low, high = np.percentile(both, (2.5, 97.5))
    assert tool.halves(folds) == {"dice": pytest.approx((high - low) / 2, rel=0.1)}
    assert tool.halves([*folds, {"images": 3, "intervals": {}}]) == {}


def test_folds_in_which_nothing_is_to_be_found_and_nothing_is_found_score_1(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    tool: Any = importlib.import_module("cross_validation")
    counts = {"background": {"background": 9, "foreground": 0}}
    counts["foreground"] = {"background": 0, "foreground": 0}
    fold = {"images": 2, "dice": 1.0, "confusion": counts, "classes": {"foreground": {}}}
    assert tool.together([fold, fold])["dataset_iou"] == 1


@pytest.mark.parametrize("flag", ["--train_split=train", "--train-split=train"])
def test_folds_are_of_the_split_that_is_given_in_any_spelling(monkeypatch, tmp_path, flag):
    monkeypatch.syspath_prepend(str(TOOLS))
    tool: Any = importlib.import_module("cross_validation")
    trained = []

    def scored(run, flags, *judged):
        trained.append(flags)
        return {"images": 2, "dice": 1.0, "confusion": {}, "classes": {}}

    monkeypatch.setattr(tool, "scored", scored)
    command = ["cross_validation", "--out", str(tmp_path), "--seeds", "4", "--folds", "2"]
    monkeypatch.setattr("sys.argv", [*command, flag])
    tool.main()
    wanted = [["--seed", "4", "--fold", fold, "2", flag] for fold in "0011"]
    assert trained == wanted
    for more in (["--seed", "3"], ["--fold=1", "2"]):
        monkeypatch.setattr("sys.argv", [*command, *more])
        with pytest.raises(SystemExit, match="2"):
            tool.main()
    assert trained == wanted


def test_a_training_that_is_refused_ends_a_tool_with_its_reason(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(TOOLS))
    tool: Any = importlib.import_module("cross_validation")
    with pytest.raises(SystemExit, match=r"(?s)^unet train: error: .*'nosuch'.*\n.*run\.log"):
        tool.scored(tmp_path / "run", ["--recipe", "nosuch"])
    assert [path.name for path in tmp_path.iterdir()] == ["run.log"]


@pytest.mark.heavy
def test_the_table_of_recipes_is_of_the_runs_that_it_trains(built_dsb2018, tmp_path):
    command = [sys.executable, str(TOOLS / "recipes_table.py"), "--out", str(tmp_path)]
    command += ["--data_dir", str(built_dsb2018), "--recipes", "dsb2018-generator"]
    command += ["--size", "32", "32", "--filters", "2", "4", "--epochs", "2"]
    lines = []
    for _ in range(2):  # the second prints what there is
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        lines.append(done.stdout.splitlines())
    assert lines[0] == lines[1]
    name, parameters, dice, *_ = [cell.strip() for cell in lines[0][2].strip("|").split("|")]
    run = runs.settings(tmp_path / name)
    assert parameters == f"{run.recipe.model.parameters:,}"
    scores = json.loads((tmp_path / f"{name}.json").read_text())
    low, high = scores["intervals"]["dice"]
    assert dice == f"{scores['dice']:.4f} ({low:.3f} to {high:.3f})"
    at_training = json.loads((tmp_path / f"{name}.attraining.json").read_text())
    assert f"{at_training['dice']:.4f}" in lines[0][2]
    pixels = [
        sum(sum(row.values()) for row in x["confusion"].values()) for x in (at_training, scores)
    ]
    assert pixels[0] == at_training["images"] * 32**2 != pixels[1]


def test_a_peer_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS / "bench"))
    rows: Any = importlib.import_module("rows")
    monkeypatch.setitem(rows.ROWS, "a peer", rows.Row(rows.ours.gather, (), ("no_such_module",)))
    assert "no_such_module not installed" in rows.left_out()["a peer"]


@pytest.mark.parametrize(
    "model",
    [
        UNet(filters=(2, 3, 4), padding="valid", upsampling="transposed", head_filters=3),
        UNet(filters=(2, 3), padding="valid", stem_stride=2, image_skip=True, skips=False),
        UNet(filters=(2, 3, 4), stem_stride=2, upsampling="transposed", transposed_kernel=3),
        FCN(filters=(2, 3)),
    ],
)
def test_the_training_benchmark_counts_and_runs_the_layers_of_the_model(model, monkeypatch):
    import keras
    import torch

    monkeypatch.syspath_prepend(str(TOOLS / "bench_train"))
    layers: Any = importlib.import_module("layers")
    torch_unet: Any = importlib.import_module("torch_unet")
    network = unet_model.build(model)
    own = [layer for layer in network.layers if layer.name != "logits" and layer.weights]
    image = np.zeros((1, 48, 32, 3), np.uint8)
    total = 0
    for layer, output in zip(
        own,
        keras.Model(network.inputs, [x.output for x in own]).predict_on_batch(image),
        strict=True,
    ):
        _, height, width, _ = output.shape
        times = layer.strides[0] ** 2 if type(layer) is keras.layers.Conv2DTranspose else 1
        total += 2 * height * width / times * np.prod(layer.kernel.shape)
    assert layers.flops(model, 48, 32) == total
    other = torch_unet.Network(model)
    assert sum(x.numel() for x in other.parameters()) == model.parameters
    found = other(torch.zeros(1, 3, 48, 32))
    assert found.shape == (1, model.output_channels, 48, 32)

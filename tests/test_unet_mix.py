"""A U-Net trained on several datasets by the command line, killed, resumed and scored for each."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from segdata import mixing
from unet import cli, runs

MIX = ["--mix", "dsb2018=3", "carvana=1", "--background", "negative"]
FLAGS = [
    *("--filters", "2", "3", "--size", "16", "16", "--batch", "4", "--epochs", "3"),
    *("--checkpoint_minutes", "0", "--deterministic", "--output_activation", "softmax"),
    *("--loss", "cross_entropy"),
]


def start(*argv: str | pathlib.Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "unet.cli", *argv],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def measured(run: pathlib.Path) -> list[dict]:
    clocks = ("seconds", "images_per_second")
    return [{k: v for k, v in row.items() if k not in clocks} for row in runs.state(run).history]


@pytest.mark.heavy
def test_a_run_on_a_mixture_that_is_killed_and_resumed_is_the_undisturbed_one(
    built_datasets, tmp_path, capsys
):
    flags = [*MIX, *FLAGS, "--output_channels", "3", "--data_dir", str(built_datasets)]
    never, killed = tmp_path / "never", tmp_path / "killed"
    assert start("train", "--out", never, *flags).wait() == 0
    process = start("train", "--out", killed, *flags)
    while not (killed / "state.json").exists() or runs.state(killed).step < 9:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
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
    assert abs(images["carvana"] - one.step) < 1
    for name in ("dsb2018", "carvana"):
        assert f"val_dice/{name}" in one.history[-1]
        assert name in (never / "report.html").read_text()
    settings = runs.settings(never)
    assert settings.classes == ("background", "nucleus", "car")
    assert settings.recipe.mix["shares"] == {"dsb2018": 3, "carvana": 1}

    assert cli.main(["evaluate", str(killed), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])
    row = one.history[runs.best_epoch(one.history) or 0]
    for name in ("dice", "dice/dsb2018", "dice/carvana"):
        assert scores[name] == pytest.approx(row[f"val_{name}"], rel=1e-4)
    sets = mixing.mix_eval_batches(
        images, size=(16, 16), batch=4, data_dir=built_datasets, background="negative"
    )
    for name, batches in sets.items():
        assert scores[f"images/{name}"] == batches.records.count


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([*MIX[:3]], "the mixture loses the class 'background'"),
        ([*MIX], "give --output_channels 3"),
        (["--mix", "dsb2018=1", "nothing=1"], "'nothing' is not a dataset known here"),
        ([*MIX, "--labels", "lost.json"], "labels of carvana lose the class 'car'"),
        ([*MIX, "--labels", "none.json"], "none.json"),
        (["--mix", "dsb2018=1", "carvana=-1", *MIX[3:]], "--mix carvana=-1: give"),
    ],
)
def test_a_mixture_that_does_not_fit_is_one_line(
    built_datasets, tmp_path, monkeypatch, capsys, flags, said
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_DETERMINISTIC_OPS", "1")
    pathlib.Path("lost.json").write_text('{"carvana": {"background": null}}')
    channels = ["--output_channels", "4"]
    argv = ["train", "--out", "run", *flags, *FLAGS, *channels, "--data_dir", str(built_datasets)]
    assert cli.main(argv) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not pathlib.Path("run").exists()

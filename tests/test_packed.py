"""The commands about what is packed: `segdata packed`, `verify`, and `show --replay`."""

import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import holding
import numpy as np
import pytest
from PIL import Image

from segdata import cli, packed, packing
from segdata.core import records
from segdata.core.augment import Augment
from segdata.core.stream import Stream
from segdata.core.system import files
from segdata.inspection import overlays

HOLD = """
import sys
from segdata.core import records
held = records.load(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def built(built_dsb2018, tmp_path):
    """A copy of the built dataset with two sizes packed, which nobody uses."""
    copy = tmp_path / "data"
    shutil.copytree(
        built_dsb2018, copy, ignore=lambda _, names: [name for name in names if name == "packed"]
    )
    for size in ((8, 12), "native"):
        packing.pack("dsb2018", "train", size=size, data_dir=copy)
    return copy


def lines_of(capsys, *command):
    code = cli.main([*map(str, command)])
    return code, capsys.readouterr().out.splitlines()


def manifests(built):
    return {packed_.manifest.stem: packed_ for packed_ in packed.found(built)}


def test_what_is_packed_is_listed_with_its_size(built, capsys):
    code, lines = lines_of(capsys, "packed", "--data_dir", built)
    assert code == 0
    (folder,) = built.glob("dsb2018/*/*/packed")
    total = sum(path.stat().st_size for path in folder.iterdir())
    shown = [line.split() for line in lines]
    assert shown[0] == ["packed", "records", "MB", "state"]
    place = str(folder.parent.relative_to(built))
    assert [row[0] for row in shown[1:3]] == [f"{place}/train-8x12", f"{place}/train-native"]
    assert {(row[1], row[3]) for row in shown[1:3]} == {("21", "current")}
    assert shown[3] == ["in", "all", f"{total / 1e6:.1f}"]
    assert lines_of(capsys, "packed", "dsb2018/default", "--data_dir", built)[1] == lines


@pytest.mark.parametrize("command", ["packed", "verify"])
def test_a_dataset_of_ones_own_has_its_name_with_folder_here_too(tmp_path, capsys, command):
    (tmp_path / "cells").mkdir()
    assert cli.main([command, "folder:cells", "--data_dir", str(tmp_path)]) == 0
    assert "no such" not in capsys.readouterr().err


def test_what_another_build_left_is_pruned_and_the_rest_stays(built, capsys):
    (folder,) = built.glob("dsb2018/*/*/packed")
    manifest = folder / "train-8x12.json"
    noted = json.loads(manifest.read_text())
    noted["files"]["dataset_info.json"][1] += 1
    manifest.write_text(json.dumps(noted))
    (folder / "train-9x9-0123abcd.tfrecord.part").write_bytes(bytes(5000))
    (folder / "notes.txt").write_text("mine")
    states = {stem: each.state for stem, each in manifests(built).items()}
    assert states == {"train-8x12": "stale", "train-9x9": "unfinished", "train-native": "current"}
    code, lines = lines_of(capsys, "packed", "--data_dir", built, "--prune", "stale")
    assert code == 0
    assert [line.split()[-1] for line in lines[1:-1]] == ["removed", "removed", "current"]
    assert set(manifests(built)) == {"train-native"}
    assert (folder / "notes.txt").exists()
    assert not list(folder.glob("train-8x12*"))


def test_what_a_process_uses_is_not_removed(built, capsys):
    held = manifests(built)["train-native"].manifest
    with holding.process(HOLD, held):
        _, lines = lines_of(capsys, "packed", "--data_dir", built, "--prune", "all")
    assert [line.split()[-2:] for line in lines[1:-1]][1] == ["in", "use"]
    assert set(manifests(built)) == {"train-native"}
    records.load(held).verify()
    lines_of(capsys, "packed", "--data_dir", built, "--prune", "all")
    assert manifests(built) == {}
    assert len(packing.pack("dsb2018", "train", size=(8, 12), data_dir=built)) == 21


def test_what_another_process_is_packing_is_left_alone(built, capsys):
    (folder,) = built.glob("dsb2018/*/*/packed")
    with (
        files.locked(folder / "train-9x9.lock"),
        files.replacing(folder / "train-9x9.json") as unfinished,
    ):
        (folder / "train-9x9-0123abcd.tfrecord.part").write_bytes(bytes(9))
        for prune in ("stale", "all"):
            _, lines = lines_of(capsys, "packed", "--data_dir", built, "--prune", prune)
            assert unfinished.exists()
            (line,) = [line for line in lines if "train-9x9" in line]
            assert line.endswith("in use")
        code, lines = lines_of(capsys, "verify", "--data_dir", built)
        assert (code, lines) == (0, ["nothing is packed there."])


@pytest.mark.parametrize("text", ["[]", "\udcff", "[" * 5000, '{"count": 1e999, "files": {}}'])
def test_a_damaged_manifest_is_named(built, capsys, text):
    manifest = manifests(built)["train-8x12"].manifest
    if "1e999" in text:
        text = json.dumps(json.loads(manifest.read_text()) | {"count": 0}).replace(
            '"count": 0', '"count": 1e999'
        )
    manifest.write_text(text, errors="surrogateescape")
    assert manifests(built)["train-8x12"].state == "damaged"
    code, lines = lines_of(capsys, "verify", "--data_dir", built)
    assert code == 1
    assert "train-8x12.json is no manifest of a packed file" in lines[0]
    lines_of(capsys, "packed", "--data_dir", built, "--prune", "stale")
    assert set(manifests(built)) == {"train-native"}


@pytest.mark.parametrize("command", ["packed", "verify"])
def test_a_dataset_that_is_not_there_is_named(built, capsys, command):
    for arguments in (["carvana", "--data_dir", built], ["--data_dir", built / "none"]):
        assert cli.main([command, *map(str, arguments)]) == 2
        assert "there is no such folder" in capsys.readouterr().err
    assert cli.main(["packed", "--data_dir", str(built), "--prune", "some"]) == 2
    assert "--prune some: stale or all" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["tfrecord", "index"])
def test_damage_that_left_no_trace_is_found_by_verify(built, capsys, ending):
    code, lines = lines_of(capsys, "verify", "--data_dir", built)
    assert code == 0
    assert [line.split()[-1] for line in lines] == ["whole", "whole"]
    (path,) = built.glob(f"dsb2018/*/*/packed/train-native-*.{ending}")
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(-3, io.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-3, io.SEEK_END)
        file.write(bytes([byte ^ 16]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    code, lines = lines_of(capsys, "verify", "dsb2018", "--data_dir", built)
    assert code == 1
    assert "is damaged: delete it" in lines[1]
    assert lines[0].endswith(": whole")


@pytest.mark.parametrize("where", ["dataset", "version", "packed"])
def test_a_folder_that_cannot_be_read_is_named_and_the_rest_is_listed(
    built, capsys, monkeypatch, where
):
    (folder,) = built.glob("dsb2018/*/*/packed")
    hidden = {"dataset": built / "dsb2018", "version": folder.parent, "packed": folder}[where]
    shutil.copytree(built / "dsb2018/default", built / "other")
    (built / "file" / "1.0.0").mkdir(parents=True)
    (built / "file" / "1.0.0" / "packed").write_text("no folder")
    (built / "lost+found").mkdir()

    def denied(function):
        def read(path):
            if pathlib.Path(path) in (hidden, built / "lost+found"):
                raise PermissionError(f"{path}: denied")
            return function(path)

        return read

    monkeypatch.setattr(os, "scandir", denied(os.scandir))
    monkeypatch.setattr(os, "listdir", denied(os.listdir))
    code, lines = lines_of(capsys, "packed", "--data_dir", built, "--prune", "all")
    name = str(hidden.relative_to(built))
    assert code == 0
    assert [line.split()[0] for line in lines[1:-1]] == [
        name,
        *[f"other/{folder.parent.name}/train-{size}" for size in ("8x12", "native")],
    ]
    states = [" ".join(line.split()[3:]) for line in lines[1:-1]]
    assert states == ["unreadable", "removed", "removed"]
    code, lines = lines_of(capsys, "verify", "--data_dir", built)
    assert code == 1
    assert lines == [f"{name}: {hidden} cannot be read."]


def test_a_folder_that_may_not_be_written_to_does_not_end_pruning(built, capsys, monkeypatch):
    shutil.copytree(built / "dsb2018/default", built / "other")
    real = os.open

    def denied(path, *more, **options):
        if "dsb2018" in str(path) and str(path).endswith(".lock"):
            raise PermissionError(f"{path}: denied")
        return real(path, *more, **options)

    monkeypatch.setattr(os, "open", denied)
    code, lines = lines_of(capsys, "packed", "--data_dir", built, "--prune", "all")
    assert code == 0
    states = [" ".join(line.split()[3:]) for line in lines[1:-1]]
    assert states == ["not removed", "not removed", "removed", "removed"]


def test_listing_needs_no_framework(built):
    program = "import sys; from segdata import cli; cli.main(['packed', '--data_dir', sys.argv[1]])"
    program += "; assert not {'tensorflow', 'tensorflow_datasets', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program, str(built)], check=True, capture_output=True)


def a_run(folder, **changes):
    recipe = {
        "dataset": "dsb2018",
        "train_split": "train",
        "size": [16, 24],
        "batch": 4,
        "seed": 3,
        "augment": {"horizontal_flip": 0.5, "rotation_range": [-20, 20]},
    }
    folder.mkdir()
    settings = {"recipe": recipe | changes, "data_dir": None}
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder


def test_what_a_step_of_a_run_saw_is_drawn(built, tmp_path, capsys):
    run, picture = a_run(tmp_path / "run"), tmp_path / "step.png"
    command = ["show", "--replay", run, "--step", 7, "--to", picture, "--data_dir", built]
    assert cli.main([*map(str, command)]) == 0
    assert "what step 7 of" in capsys.readouterr().out
    held = packing.pack("dsb2018", "train", size=(16, 24), data_dir=built)
    augment = Augment(horizontal_flip=0.5, rotation_range=(-20, 20))
    image, mask = Stream(held, batch=4, augment=augment, seed=3).batch(7)
    drawn = np.asarray(Image.open(picture).convert("RGB"))
    for pixels, label in zip(image, mask, strict=True):
        under = overlays.overlay(pixels, label[..., 0], classes=("background", "nucleus"))
        for cell in (pixels, under):
            windows = np.lib.stride_tricks.sliding_window_view(drawn, cell.shape)[..., 0, :, :, :]
            assert (windows == cell).all(axis=(-3, -2, -1)).any()


def test_a_step_after_the_last_checkpoint_is_drawn_as_that_of_a_run_that_diverged(
    built, tmp_path, capsys
):
    run = a_run(tmp_path / "run", epochs=3)
    settings = json.loads((run / "settings.json").read_text())
    made_with = {"made_with": {"steps an epoch": "10"}}
    (run / "settings.json").write_text(json.dumps(settings | made_with))
    command = ["show", "--replay", run, "--to", tmp_path / "x.png", "--data_dir", built, "--step"]
    for saved, steps in ((10, 20), (25, 30), (30, 30)):
        (run / "state.json").write_text(json.dumps({"step": saved}))
        assert cli.main([*map(str, command), str(steps - 1)]) == 0
        assert cli.main([*map(str, command), str(steps)]) == 2
        assert f"come to step {saved}; from 0 to before {steps}." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no such file; name the folder of a run"),
        ("{}", "is not the settings of a run"),
        ('{"recipe": 3}', "is not the settings of a run"),
    ],
)
def test_a_folder_that_is_no_run_is_named(tmp_path, capsys, text, message):
    if text is not None:
        (tmp_path / "settings.json").write_text(text)
    picture = str(tmp_path / "x.png")
    assert cli.main(["show", "--replay", str(tmp_path), "--to", picture]) == 2
    assert message in capsys.readouterr().err
    for more in ([], ["dsb2018", "--replay", str(tmp_path)]):
        assert cli.main(["show", *more, "--to", picture]) == 2
        assert "name a built dataset, or give --replay" in capsys.readouterr().err
    assert not pathlib.Path(picture).exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--step", "-1"], "--step -1: a whole number from 0"),
        (["--step", "30"], "step=30: .* has come to step 30; from 0 to before 30"),
        (["--augment"], "--replay draws what the run did"),
        (["--grey", "1"], "--replay draws what the run did"),
        (["--foreground", "1"], "--replay draws what the run did"),
    ],
)
def test_what_cannot_be_replayed_is_named(built, tmp_path, capsys, more, message):
    run = a_run(tmp_path / "run")
    (run / "state.json").write_text('{"step": 30}')
    command = ["show", "--replay", run, "--to", tmp_path / "x.png", "--data_dir", built]
    assert cli.main([*map(str, command), *more]) == 2
    assert re.search(message, capsys.readouterr().err)

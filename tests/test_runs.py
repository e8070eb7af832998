import dataclasses
import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from segdata.core.system import files
from unet import recipes, runs
from unet.hardware import Choice
from unet.recipes import RECIPES, Recipe
from unet.runs import Settings, State

SETTINGS = Settings(
    recipe=RECIPES["carvana-fcn"],
    choice=Choice(hardware="test", precision="float32", compile=False),
    classes=("road", "sky"),
)
SCORES = ("loss", "dice", "dataset_iou", "val_loss", "val_dice", "val_dataset_iou")
ROW = dict.fromkeys(SCORES, 0.5) | {"epoch": 1, "step": 3, "learning_rate": 1e30, "seconds": 2}
STATE = State(step=5, checkpoint="checkpoint-00000005.npz", seconds=1.5, history=(ROW,))
DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000


@pytest.fixture
def run(tmp_path):
    runs.create(tmp_path / "run", SETTINGS)
    runs.write_state(tmp_path / "run", STATE)
    return tmp_path / "run"


def contents(run):
    return {path.name: path.read_bytes() for path in run.iterdir()}


@pytest.mark.parametrize("name", RECIPES)
def test_what_was_written_is_read(tmp_path, name):
    settings = dataclasses.replace(SETTINGS, recipe=RECIPES[name], data_dir="here")
    runs.create(tmp_path / "run", settings)
    assert runs.settings(tmp_path / "run") == settings
    assert runs.state(tmp_path / "run") == State()
    runs.write_state(tmp_path / "run", STATE)
    assert runs.state(tmp_path / "run") == STATE


def changed(text: bytes, path: str, value: object) -> bytes:
    """JSON with one more value, or another one, or one that is gone."""
    saved = json.loads(text)
    *parents, last = path.split(".")
    owner = saved
    for parent in parents:
        owner = owner[int(parent) if parent.isdigit() else parent]
    if value is None:
        del owner[last]
    else:
        owner[last] = value
    return json.dumps(saved).encode()


ANY = [b"", b"{", b"\0" * 200, b"\xff\xfe\xfa", b"[]", b"null", b"3", DEEP, b"1" * 5000]


@pytest.mark.parametrize(
    ("name", "key"), [("settings.json", "data_dir"), ("state.json", "seconds")]
)
def test_however_deep_a_value_is_nested_it_is_refused(run, name, key):
    saved = json.dumps(json.loads((run / name).read_bytes()) | {key: "deep"})
    for depth in (*range(100, 900, 100), *range(900, 1000)):
        (run / name).write_text(saved.replace('"deep"', "[" * depth + "]" * depth))
        with pytest.raises(ValueError, match=rf"{name} is damaged"):
            runs.state(run)


@pytest.mark.parametrize("text", ANY, ids=range(len(ANY)))
@pytest.mark.parametrize("name", ["settings.json", "state.json"])
def test_a_file_that_holds_something_else_is_named(run, name, text):
    (run / name).write_bytes(text)
    with pytest.raises(ValueError, match=rf"{name} is damaged"):
        runs.state(run)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("recipe", None), ("choice", None), ("recipe.model", None), ("extra", 1)),
        *(("choice", []), ("choice.precision", "float8"), ("choice.compile", 1)),
        *(("classes", 3), ("classes", [1]), ("data_dir", 3), ("deterministic", "no")),
        *(("checkpoint_minutes", "soon"), ("checkpoint_minutes", float("inf"))),
        ("steps_per_execution", 0),
        ("trained_on", {"height": 9, "width": 9}),
        ("trained_on", {"height": 0, "width": 9, "longest": 9}),
        *(("recipe", "dsb2018"), ("recipe.model", [1]), ("recipe.model.kind", [])),
        *(("recipe.model.filters", "ab"), ("recipe.model.filters", [2, 0.5])),
        *(("recipe.batch", "8"), ("recipe.batch", 2.5), ("recipe.batch", True)),
        *(("recipe.epochs", 10**20), ("recipe.seed", 2**63), ("recipe.augment", 3)),
        *(("recipe.size", [8]), ("recipe.size", [8, 8, 8]), ("recipe.loss", "none")),
        *(
            ("recipe.augment.deep", [[1]]),
            ("recipe.augment.horizontal_flip", []),
            ("recipe.mix.augment", {"dsb2018": {"horizontal_flip": [0.5]}}),
            ("recipe.threshold", float("nan")),
            ("recipe.learning_rate", 1e999),
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(run, path, value):
    text = (run / "settings.json").read_bytes()
    (run / "settings.json").write_bytes(changed(text, path, value))
    with pytest.raises(ValueError, match=r"settings\.json is damaged .*Bring it back") as caught:
        runs.settings(run)
    assert path.rpartition(".")[2] in str(caught.value) or value is not None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("step", None), ("history", None), ("extra", 1), ("step", "5"), ("step", 10**30)),
        ("step", -5),
        *(("checkpoint", 5), ("seconds", []), ("history", 3), ("history", [3])),
        *(("history.0.val_loss", None), ("history.0.epoch", "one"), ("history.0.dice", 1e999)),
        *(("history.0.epoch", 1.5), ("history.0.loss", 1.7e308), ("history.0.step", True)),
        ("history.0.note", [[[1]]]),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_resuming_mends_it(run, path, value):
    text = (run / "state.json").read_bytes()
    (run / "state.json").write_bytes(changed(text, path, value))
    with pytest.raises(ValueError, match=r"state\.json is damaged: .*`unet resume .*run` writes"):
        runs.state(run)


def test_a_folder_in_place_of_a_state_is_to_be_removed(run):
    (run / "state.json").unlink()
    (run / "state.json").mkdir()
    with pytest.raises(ValueError, match=r"state\.json is a folder; remove it, and `unet resume"):
        runs.state(run)


@pytest.mark.parametrize("name", ["settings.json", "state.json"])
def test_whatever_bytes_change_it_is_read_or_refused_in_one_line(run, name):
    rng = np.random.default_rng(0)
    whole = (run / name).read_bytes()
    refused = []
    for _ in range(300):
        text = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for place in rng.integers(0, len(text), rng.integers(0, 4)):
            text[place] = rng.integers(0, 256)
        (run / name).write_bytes(text)
        try:
            runs.state(run)
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > 200
    assert all(str(run / name) in line and len(line) < 500 for line in refused)


def test_a_lock_that_a_killed_process_left_makes_no_run(tmp_path):
    (tmp_path / ".lock").write_text("process 1 on a machine")
    (tmp_path / "unfinished-0123456789abcdef.json").write_text("{")
    runs.create(tmp_path, SETTINGS)
    assert sorted(os.listdir(tmp_path)) == ["settings.json"]
    with pytest.raises(ValueError, match=r"never overwritten: `unet resume .*` resumes"):
        runs.create(tmp_path, SETTINGS)


HOLD = """
import pathlib, sys
from unet import runs
with runs.held(pathlib.Path(sys.argv[1])):
    print(flush=True)
    sys.stdin.read()
"""


def test_one_process_holds_a_run_and_others_are_told_which(run):
    (run / "unfinished-0123456789abcdef.npz").write_text("of a killed process")
    command = [sys.executable, "-c", HOLD, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        before = contents(run)
        with pytest.raises(files.HeldError, match=f"run is in use by process {other.pid} on "):
            runs.held(run).__enter__()
        assert contents(run) == before
        assert runs.state(run) == STATE  # who only reads is not kept out
        other.kill()
    with runs.held(run):
        assert sorted(os.listdir(run)) == [".lock", "settings.json", "state.json"]


def test_of_two_processes_that_make_one_run_the_second_stops(tmp_path):
    (tmp_path / "run").mkdir()
    with runs.held(tmp_path / "run"), pytest.raises(files.HeldError, match="in use by process"):
        runs.create(tmp_path / "run", SETTINGS)


def test_nothing_is_written_over_what_another_process_wrote(run):
    theirs = dataclasses.replace(STATE, step=72)
    runs.write_state(run, theirs, known=STATE)
    before = contents(run)
    for known in (STATE, State()):
        with pytest.raises(files.HeldError, match=r"state\.json is not as this process left it"):
            runs.write_state(run, dataclasses.replace(STATE, step=18), known=known)
        with (
            pytest.raises(files.HeldError, match="this one stops"),
            runs.writing(run / "best.keras", known=known) as path,
        ):
            path.write_text("mine")
    assert contents(run) == before


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EFBIG, "File too large"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EIO, "Input/output error"),
        OSError("Unable to synchronously create dataset (file write failed)"),  # as h5py has it
        RuntimeError("Can't decrement id ref count (unable to extend file)"),
        ValueError("Can't close the ZIP file"),
    ],
    ids=str,
)
def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(run, fault):
    def write():
        with runs.writing(run / "best.keras") as path:
            path.write_bytes(b"half")
            raise fault

    before = contents(run)
    with pytest.raises(OSError, match=r"best\.keras cannot be written: .*`unet resume .*` resumes"):
        write()
    assert contents(run) == before


@pytest.mark.parametrize("known", [None, STATE])
def test_a_folder_that_was_renamed_is_not_said_to_be_full(run, known):
    with (
        pytest.raises(OSError, match=r"run was removed or renamed meanwhile\. Where it is now"),
        runs.writing(run / "best.keras", known=known),
    ):
        run.rename(run.with_name("other"))


def test_a_path_in_a_command_is_quoted(tmp_path):
    runs.create(tmp_path / "my run; ls", SETTINGS)
    with pytest.raises(ValueError, match=r"`unet resume '.*/my run; ls'`"):
        runs.require_new(tmp_path / "my run; ls")


def test_recipes_fit_their_own_annotations():
    for recipe in (*RECIPES.values(), Recipe()):
        assert recipes.from_json(json.loads(json.dumps(recipes.to_json(recipe)))) == recipe


def test_what_a_run_was_begun_with_and_is_not_used_now_is_said():
    settings = dataclasses.replace(
        SETTINGS, made_with={"backend": "jax", "jax": "0.10", "keras": "3"}
    )
    assert runs.changes(settings, {"backend": "tensorflow", "keras": "3"}) == [
        "backend was jax and is tensorflow",
        "jax was 0.10 and is not used",
    ]

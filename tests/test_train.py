import dataclasses
import errno
import io
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import RecordWriter

from segdata.core.system import files
from unet import checkpoints, evaluate, runs, train
from unet.hardware import Choice
from unet.model import UNet
from unet.recipes import Recipe
from unet.runs import Settings, State

STEPS = 3
RECIPE = Recipe(
    size=(8, 8),
    batch=2,
    epochs=2,
    model=UNet(filters=(2, 3), dropout=(0.3,), batch_norm=True),
    loss="cross_entropy_dice",
    learning_rate=0.01,
    schedule="cosine",
    warmup=0.5,
)
CHOICE = Choice(
    hardware="test", precision="float32", compile=keras.backend.backend() == "jax"
)  # as `hardware` chooses on a CPU
SETTINGS = Settings(recipe=RECIPE, choice=CHOICE, checkpoint_minutes=0)


@pytest.fixture(autouse=True)
def _float32():
    yield
    keras.config.set_dtype_policy("float32")


def batch(step: int, images: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng((1, step))
    mask = rng.integers(0, 2, (images, 2, 2, 1), np.uint8).repeat(4, 1).repeat(4, 2)
    image = mask * 120 + rng.integers(0, 130, (images, 8, 8, 3), np.uint8)
    mask[:, 0] = 255
    return image.astype(np.uint8), mask


def batches(start_step: int):
    return map(batch, itertools.count(start_step))


VALIDATION = [batch(10_000), batch(10_001, images=3)]


def data(**changes: Any) -> Any:
    """What is trained on."""
    usual = {"batches": batches, "validation": VALIDATION, "steps_per_epoch": STEPS}
    return types.SimpleNamespace(account=lambda _: {}, **usual | changes)


def fit(out: pathlib.Path, settings: Settings = SETTINGS, **changes: Any) -> State:
    return train.run(settings, data=data(**changes), out=out)


def go_on(out: pathlib.Path) -> State:
    return train.resume(out, data=data())


def with_recipe(**changes) -> Settings:
    return dataclasses.replace(SETTINGS, recipe=dataclasses.replace(RECIPE, **changes))


def measured(state: State) -> list[dict]:
    """The history without what a clock says."""
    clocks = ("seconds", "images_per_second", "input_share")
    return [{k: v for k, v in row.items() if k not in clocks} for row in state.history]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    fit(out)
    return out


def test_a_run_leaves_what_it_promises(whole):
    state = runs.state(whole)
    assert sorted(file.name for file in whole.iterdir()) == [
        "best.keras",
        f"checkpoint-{2 * STEPS - 1:08}.npz",
        f"checkpoint-{2 * STEPS:08}.npz",
        "metrics.jsonl",
        "settings.json",
        "state.json",
        "tensorboard",
    ]
    assert state.step == 2 * STEPS
    assert runs.settings(whole) == SETTINGS
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert rows == list(state.history)
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 3), (2, 6)]
    promised = {"loss", "val_loss", "val_dice", "val_dataset_iou", "learning_rate"}
    assert promised | {"seconds", "images_per_second", "input_share"} < rows[0].keys()
    assert all(0 <= row["input_share"] <= 1 for row in rows)


def test_event_files_hold_the_history(whole):
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter  # noqa: F401 - the format below is its

    found = {}
    for file in (whole / "tensorboard").iterdir():
        data = file.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
            data = data[16 + length :]
    for row in runs.state(whole).history:
        assert found["val_dice", row["step"]] == pytest.approx(row["val_dice"])


def test_the_history_has_the_same_scores_of_training_and_validation(whole):
    for row in runs.state(whole).history:
        for name in ("loss", "dice", "dataset_dice", "dataset_iou"):
            assert row.keys() >= {name, f"val_{name}"}
        both = row["dataset_iou"], row["dataset_dice"]
        assert both[1] == pytest.approx(2 * both[0] / (1 + both[0]), rel=1e-4)


def test_validation_scores_of_the_best_epoch_are_those_of_evaluate(whole):
    history = runs.state(whole).history
    row = history[runs.best_epoch(history) or 0]
    scores = evaluate.evaluate(runs.load(whole, CHOICE), VALIDATION, RECIPE)
    assert scores["images"] == 5
    for name in ("loss", "dice", "dataset_dice", "dataset_iou"):
        assert row[f"val_{name}"] == pytest.approx(scores[name], rel=1e-5)


def test_a_finished_run_is_left_as_it_is(whole):
    before = (whole / "state.json").read_bytes()
    assert go_on(whole).step == 2 * STEPS
    assert (whole / "state.json").read_bytes() == before


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("file", "times"),
    [("checkpoint", 2), ("state.json", 2), ("state.json", 3), ("best.keras", 1)],
)
def test_a_run_that_dies_while_it_writes_any_file_is_resumed(
    whole, tmp_path, monkeypatch, file, times
):
    real, seen = pathlib.Path.replace, itertools.count(1)

    def dies(self, target):
        if pathlib.Path(target).name.startswith(file) and next(seen) == times:
            raise InterruptedError(target)
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "replace", dies)
        with pytest.raises(InterruptedError, match=f"{file}.* cannot be written"):
            fit(tmp_path / "run")
    state = go_on(tmp_path / "run")
    for row, expected in zip(measured(state), measured(runs.state(whole)), strict=True):
        assert row == pytest.approx(expected, rel=1e-4)
    assert (tmp_path / "run" / "best.keras").exists()
    assert not list((tmp_path / "run").glob("unfinished-*"))


def test_training_goes_on_while_a_checkpoint_of_what_was_is_written(tmp_path, monkeypatch):
    real_save, real_end = train.checkpoints.save, train._Keeper.on_train_batch_end
    later, seen = threading.Event(), []

    def save(run, state, variables, *, known):
        if state.step == 1:
            before = [array.copy() for array in variables["model"]]
            assert later.wait(60), "the second step waited for the first checkpoint"
            assert all(map(np.array_equal, variables["model"], before))
            seen.append(state.step)
        return real_save(run, state, variables, known=known)

    def end(self, batch, logs=None):
        if self.state.step == 1:
            later.set()
        real_end(self, batch, logs)

    monkeypatch.setattr(train.checkpoints, "save", save)
    monkeypatch.setattr(train._Keeper, "on_train_batch_end", end)
    assert fit(tmp_path / "run").step == 2 * STEPS
    assert seen == [1]
    assert runs.state(tmp_path / "run").step == 2 * STEPS


def test_metrics_that_cannot_be_written_are_said_once_and_stop_nothing(
    tmp_path, monkeypatch, capsys
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RecordWriter, "flush", full)
    monkeypatch.setattr(runs, "write_metrics", full)
    assert fit(tmp_path / "run").step == 2 * STEPS
    said = [line for line in capsys.readouterr().err.splitlines() if "No space" in line]
    for line, name in zip(said, ("metrics.jsonl", "tensorboard"), strict=True):
        assert f"{name} cannot be written: No space left on device. Training continues" in line


def test_a_process_that_lost_its_run_to_another_stops_and_takes_nothing_back(tmp_path, monkeypatch):
    """As one does that was stopped, where no lock kept the other out, and wakes up again."""
    real, out = train._Keeper.on_train_batch_end, tmp_path / "run"
    theirs = State(step=72, checkpoint="checkpoint-00000072.npz")

    def wakes(self, batch, logs=None):
        if self.state.step == 2:
            self.background.wait()
            runs.write_state(out, theirs)
            (out / "checkpoint-00000072.npz").write_text("theirs")
            found.update((file.name, file.read_bytes()) for file in out.iterdir())
        real(self, batch, logs)

    found: dict[str, bytes] = {}
    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(train._Keeper, "on_train_batch_end", wakes)
    with pytest.raises(files.HeldError, match=r"state\.json is not as this process left it"):
        fit(out)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == found


def test_any_iterable_and_any_precision_trains(tmp_path):
    choice = dataclasses.replace(CHOICE, precision="mixed_bfloat16")
    state = fit(tmp_path / "run", dataclasses.replace(SETTINGS, choice=choice))
    assert all(np.isfinite(row["val_loss"]) for row in state.history)
    network = runs.load(tmp_path / "run", CHOICE)
    assert network.predict_on_batch(batch(0)[0]).dtype == np.float32


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_linear_head_learns_any_number(tmp_path, kind):
    def targets(step: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = batch(step)
        value = image.mean(axis=-1, keepdims=True) / 40
        return image, np.where(mask == 255, 255, value).astype(kind)

    model = UNet(filters=(4, 4), output_activation="linear")
    settings = with_recipe(model=model, loss="squared_error", epochs=4, learning_rate=0.1)
    state = fit(
        tmp_path / "run",
        settings,
        batches=lambda start: map(targets, itertools.count(start)),
        validation=[targets(10_000)],
        steps_per_epoch=10,
    )
    assert state.history[-1]["val_loss"] < 0.9 * state.history[0]["val_loss"]


def test_a_run_never_overwrites(whole, tmp_path):
    with pytest.raises(ValueError, match=r"unet resume .*another folder"):
        fit(whole)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="other files"):
        fit(tmp_path)


def test_what_is_no_run_is_not_resumed(tmp_path):
    with pytest.raises(ValueError, match=r"holds no run: there is no settings\.json"):
        go_on(tmp_path)
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        go_on(tmp_path)


def test_a_checkpoint_of_another_model_is_refused(whole, tmp_path):
    runs.create(tmp_path / "run", with_recipe(model=UNet(filters=(4, 4))))
    state = runs.state(whole)
    (tmp_path / "run" / str(state.checkpoint)).write_bytes(
        (whole / str(state.checkpoint)).read_bytes()
    )
    runs.write_state(tmp_path / "run", state)
    with pytest.raises(ValueError, match="another model"):
        go_on(tmp_path / "run")


def test_a_checkpoint_of_the_other_backend_is_resumed(tmp_path):
    """Whose seeds and steps are integers of another type."""
    other = {"int64": "uint32", "int32": "int64", "uint32": "int64"}
    found = []
    for name in ("own", "other"):
        out = tmp_path / name
        fit(out, with_recipe(epochs=1))
        if name == "other":
            state, held = checkpoints.newest(out)
            cast = {
                group: [value.astype(other.get(str(value.dtype), value.dtype)) for value in values]
                for group, values in held.items()
            }
            kinds = [
                [value.dtype for values in x.values() for value in values] for x in (held, cast)
            ]
            assert kinds[0] != kinds[1]
            checkpoints.save(out, state, cast, known=state)
        runs.extend(out, epochs=2)
        go_on(out)
        found.append(checkpoints.newest(out)[1])
    for group in ("model", "optimizer"):
        for ours, theirs in zip(found[0][group], found[1][group], strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_run_without_an_epoch_has_no_best_model(tmp_path):
    runs.create(tmp_path / "run", SETTINGS)
    with pytest.raises(ValueError, match=r"no best\.keras.*unet resume"):
        runs.load(tmp_path / "run", CHOICE)


def test_a_training_that_diverges_stops_within_a_step_and_names_it(tmp_path):
    bad = STEPS + 1

    def targets(step: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = batch(step)
        return image, mask + np.float32(np.nan if step == bad else 0)

    model = UNet(filters=(2, 3), output_activation="linear")
    with pytest.raises(ValueError, match=rf"at step {bad}: the training div.*--step {bad}"):
        fit(
            tmp_path / "run",
            with_recipe(model=model, loss="squared_error"),
            batches=lambda start: map(targets, itertools.count(start)),
        )
    state = runs.state(tmp_path / "run")
    assert state.step == bad  # the steps 0 to bad - 1 were saved
    with np.load(tmp_path / "run" / str(state.checkpoint)) as held:
        assert all(np.isfinite(held[name]).all() for name in held.files if name != "state")


def test_steps_in_one_call_give_the_same_bits_and_stop_at_any_step(tmp_path):
    """Of 6 steps an epoch 3 at once where 5 may be; of the 4 that are left after 2, all 4."""
    calls: list[int] = []

    class Counted(train._Keeper):
        def on_train_batch_end(self, batch, logs=None):
            calls.append(self.model.steps_per_execution)
            if interrupt and self.state.step + calls[-1] == 2:
                self.signals.got = signal.SIGINT
            super().on_train_batch_end(batch, logs)

    one, many, given = tmp_path / "one", tmp_path / "many", data(steps_per_epoch=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_Keeper", Counted)
        interrupt = False
        fit(one, steps_per_epoch=6)
        assert calls == [1] * 12
        interrupt = True
        with pytest.raises(KeyboardInterrupt):
            fit(many, dataclasses.replace(SETTINGS, steps_per_execution=2), steps_per_epoch=6)
        assert runs.state(many).step == 2
        calls.clear()
        interrupt = False
        settings = dataclasses.replace(runs.settings(many), steps_per_execution=5)
        train.resume(many, data=given, settings=settings)
        assert calls == [4, 3, 3]
    assert measured(runs.state(one)) == measured(runs.state(many))
    held = [np.load(run / str(runs.state(run).checkpoint)) for run in (one, many)]
    for name in {*held[0].files} - {"state"}:
        np.testing.assert_array_equal(held[0][name], held[1][name], err_msg=name)


def test_averaged_weights_outlive_their_validation_where_xla_compiles(tmp_path):
    """A compiled prediction of JAX gives the memory of its weights away."""
    choice = dataclasses.replace(CHOICE, compile=True)
    settings = dataclasses.replace(with_recipe(ema_momentum=0.5), choice=choice)
    assert fit(tmp_path / "run", settings).step == 2 * STEPS


def test_a_call_of_several_steps_that_diverges_names_them(tmp_path):
    def targets(step: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = batch(step)
        return image, mask + np.float32(np.nan if step == 4 else 0)

    model = UNet(filters=(2, 3), output_activation="linear")
    settings = with_recipe(model=model, loss="squared_error")
    with pytest.raises(ValueError, match=r"in one of the steps 3 to 5: .*--step 3"):
        fit(
            tmp_path / "run",
            dataclasses.replace(settings, steps_per_execution=3),
            batches=lambda start: map(targets, itertools.count(start)),
        )
    assert runs.state(tmp_path / "run").step == 3


def test_a_rate_that_is_far_too_high_is_said(tmp_path):
    settings = with_recipe(learning_rate=1e30, optimizer="sgd", schedule="constant")
    with pytest.raises(ValueError, match=r"diverged.*learning_rate"):
        fit(tmp_path / "run", settings)


def wrong(what: str) -> dict[str, Any]:
    """A training whose data do not fit the recipe."""
    image, mask = batch(0)
    bad: Any = {
        "images": (image[:, :4], mask),
        "masks": (image, mask[:, :4]),
        "types": (image.astype(np.float32), mask),
        "classes": (image, mask + 2),
        "labels": (image, np.full_like(mask, 255)),
    }
    if what == "of two, one's labels":
        return {"validation": {"a": VALIDATION, "b": [bad["labels"]] * 2}}
    if what == "nothing":
        return {"validation": []}
    if what.startswith("validation "):
        return {"validation": [bad[what.removeprefix("validation ")]]}
    return {"batches": lambda start: itertools.repeat(bad[what])}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("nothing", "the validation has no images"),
        (
            "images",
            r"images of the training are uint8 \(4, 8, 3\); this recipe's are uint8 \(8, 8, 3",
        ),
        ("masks", r"masks of the training are uint8 \(4, 8, 1\)"),
        ("types", "images of the training are float32"),
        ("classes", "masks of the training hold 2, 3, but the classes of this model are 0 to 1"),
        ("validation masks", "masks of the validation are"),
        ("validation classes", "masks of the validation hold 2, 3"),
        ("validation labels", "no image of the validation has labels; give --validation_split"),
        ("of two, one's labels", "no image of the validation of b has labels"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_the_folder_is_made(tmp_path, what, said):
    with pytest.raises(ValueError, match=said):
        fit(tmp_path / "run", **wrong(what))
    assert not (tmp_path / "run").exists()


def test_some_images_of_the_validation_may_lack_labels():
    image, mask = batch(0)
    empty = [(image, np.full_like(mask, 255)), *VALIDATION]
    network = train.compiled(RECIPE, steps_per_epoch=STEPS, xla=False)
    train.require_fit(network, batch(0), {"a": empty, "b": VALIDATION}, RECIPE)


def test_a_training_that_would_never_change_the_weights_is_refused(tmp_path):
    with pytest.raises(ValueError, match="accumulation is 7, and there are 6 batches in all"):
        fit(tmp_path / "never", with_recipe(accumulation=7))
    assert not (tmp_path / "never").exists()
    assert fit(tmp_path / "once", with_recipe(accumulation=6)).step == 6


@pytest.mark.parametrize("setting", ["activation", "initializer"])
def test_a_model_that_cannot_be_built_leaves_no_folder(tmp_path, setting):
    named: Any = {setting: "nosuch"}
    model = UNet(filters=(2, 3), **named)
    with pytest.raises(ValueError, match=f"{setting}.*nosuch"):
        fit(tmp_path / "run", with_recipe(model=model))
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:.*ran out of data")
def test_a_stream_that_ends_is_refused(tmp_path):
    with pytest.raises(ValueError, match="endless"):
        fit(tmp_path / "run", batches=lambda start: itertools.islice(batches(start), 2))


def test_early_stopping_is_a_function_of_the_history_alone():
    def done(losses, **changes):
        history = tuple({"val_loss": loss} for loss in losses)
        recipe = dataclasses.replace(RECIPE, epochs=10, **changes)
        return train.finished(State(step=len(losses), history=history), recipe, steps_per_epoch=1)

    assert not done([3.0, 2.0, 2.5], patience=2)
    assert done([3.0, 2.0, 2.5, 2.0], patience=2)
    assert not done([3.0, 2.0, 2.5, 1.9], patience=2)
    assert not done([1.0] + [2.0] * 8)
    assert done([1.0] * 10)


def test_each_epoch_leaves_pictures_of_the_same_validation_images(whole):
    (file,) = (whole / "tensorboard").iterdir()
    data, found = file.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
        for value in event.summary.value:
            if value.HasField("image"):
                with Image.open(io.BytesIO(value.image.encoded_image_string)) as image:
                    found.append((event.step, value.tag, np.asarray(image)))
    tags = [f"validation/{number}" for number in (1, 2, 3)]
    assert [(step, tag) for step, tag, _ in found] == [(s, tag) for s in (3, 6) for tag in tags]
    images = np.concatenate([images for images, _ in VALIDATION])
    for i, (_, _, picture) in enumerate(found):
        assert picture.shape == (8, 32, 3)
        assert np.array_equal(picture[:, :8], images[i % 3])


@pytest.mark.parametrize("by", ["dice", "iou", "dataset_dice", "dataset_iou", "mae", "rmse"])
def test_the_best_epoch_is_that_of_the_score_that_is_asked_for(by):
    values, higher = [0.3, 0.9, 0.2, 0.9, 0.4], by not in ("mae", "rmse")
    history = tuple({"val_loss": 9.0 - i, f"val_{by}": v} for i, v in enumerate(values))
    assert runs.best_epoch(history) == 4
    assert runs.best_epoch(history, by) == (1 if higher else 2)
    linear = UNet(output_activation="linear")
    number = {} if higher else {"model": linear, "loss": "squared_error"}
    recipe = Recipe(epochs=9, patience=3, best_by=by, **number)
    state = State(step=5, history=history)
    assert train.finished(state, recipe, steps_per_epoch=1) == higher  # 3 epochs after it, or 2
    assert not train.finished(state, dataclasses.replace(recipe, best_by="loss"), steps_per_epoch=1)
    with pytest.raises(ValueError, match=f"lacks val_{by}"):
        runs.best_epoch(({"val_loss": 1.0},), by)


@pytest.mark.heavy
def test_the_model_that_is_kept_is_that_of_the_best_epoch_by_the_score(tmp_path):
    settings = with_recipe(epochs=5, best_by="dataset_iou", learning_rate=0.3, schedule="constant")
    history = fit(tmp_path / "run", settings).history
    best = max(range(5), key=lambda i: history[i]["val_dataset_iou"])
    assert len({row["val_dataset_iou"] for row in history}) > 1
    scores = evaluate.evaluate(runs.load(tmp_path / "run"), VALIDATION, settings.recipe)
    assert scores["dataset_iou"] == pytest.approx(history[best]["val_dataset_iou"], rel=1e-5)


def test_a_run_stops_early_and_keeps_its_best(tmp_path):
    # A rate that changes nothing: no epoch is better than the first.
    still = {"learning_rate": 1e-30, "schedule": "constant", "warmup": 0}
    settings = with_recipe(epochs=8, patience=1, model=UNet(filters=(2, 3)), **still)
    state = fit(tmp_path / "run", settings)
    assert len(state.history) == 2
    assert runs.best_epoch(state.history) == 0


SCRIPT = """
    import dataclasses, itertools, pathlib, resource, sys, time
    from unet import hardware
    hardware.prepare_environment(deterministic=True)
    from unet import runs, train
    sys.path.insert(0, sys.argv[2])
    import test_train as case

    def batches(start_step):
        for step in itertools.count(start_step):
            time.sleep(0.02)
            yield case.batch(step)

    if int(sys.argv[3]):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
    out, minutes = pathlib.Path(sys.argv[1]), float(sys.argv[4])
    data = case.data(batches=batches, steps_per_epoch=10)
    if out.exists():
        train.resume(out, data=data)
    else:
        changes = dict(case.VARIANTS[sys.argv[5]])
        own = {"steps_per_execution": changes.pop("steps_per_execution", 1)}
        recipe = case.with_recipe(epochs=3, **changes)
        settings = dataclasses.replace(recipe, checkpoint_minutes=minutes, **own)
        train.run(settings, out=out, data=data)
"""


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "averaged": {
        "optimizer": "adamw",
        "accumulation": 3,
        "ema_momentum": 0.8,
        "clip_norm": 0.5,
        "weight_decay": 0.1,
    },
    "nesterov": {
        "optimizer": "sgd",
        "momentum": 0.9,
        "nesterov": True,
        "ema_momentum": 0.5,
        "steps_per_execution": 5,
    },
}


def start(
    out: pathlib.Path, *, largest_file: int = 0, minutes: float = 0, variant: str = "plain"
) -> subprocess.Popen:
    """Starts a training that takes signals, also where they are ignored here.

    As SIGINT is in what a script starts in the background, and SIGHUP under `nohup`.
    """
    here, script = pathlib.Path(__file__).parent, textwrap.dedent(SCRIPT)
    command = [sys.executable, "-c", script, out, here, str(largest_file), str(minutes), variant]
    taken = (signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in taken}
    try:
        # No `preexec_fn`: it forks, and JAX, with its threads, warns where it was imported before.
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def kill_at(out: pathlib.Path, step: int, *, variant: str = "plain") -> None:
    """Starts or resumes a run, and kills it when its state has come to a step."""
    process = start(out, variant=variant)
    while not (out / "state.json").exists() or runs.state(out).step < step:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGSTOP)
    before = (out / "state.json").read_bytes()
    with pytest.raises(files.HeldError, match=f"in use by process {process.pid} on"):
        go_on(out)
    assert (out / "state.json").read_bytes() == before
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def damage(out: pathlib.Path) -> None:
    """Cuts the newest checkpoint, and the state."""
    newest = max(out.glob("checkpoint-*"))
    newest.write_bytes(newest.read_bytes()[:-1000])
    (out / "state.json").write_text("{")


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("number", "code"),
    # A shell gives 130, 143 and 129.
    [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_a_run_that_is_asked_to_end_saves_first(tmp_path, number, code):
    """With checkpoints that are hours apart."""
    out = tmp_path
    for attempt in range(8):  # until it is within an epoch that the signal comes
        out = tmp_path / str(attempt)
        process = start(out, minutes=600)
        while not (out / "state.json").exists():  # the first epoch
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.01 * attempt)
        process.send_signal(number)
        assert process.wait() == code
        if runs.state(out).step % 10:
            break
    assert runs.state(out).step % 10
    assert start(out).wait() == 0
    assert runs.state(out).step == 30


@pytest.mark.usefixtures("loud_seeds")
def test_what_libraries_print_when_seeds_are_set_is_not_shown(capfd):
    train._made(with_recipe(epochs=1), data())
    assert "cudart_stub" not in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_is_ignored_stays_ignored(tmp_path, number):
    """As with `nohup`, and SIGINT of what a script starts in the background."""

    def batches(start_step):
        for step in itertools.count(start_step):
            os.kill(os.getpid(), number)
            yield batch(step)

    before = signal.signal(number, signal.SIG_IGN)
    try:
        state = train.run(with_recipe(epochs=1), out=tmp_path / "run", data=data(batches=batches))
    finally:
        signal.signal(number, before)
    assert state.step == STEPS


@pytest.mark.heavy
@pytest.mark.jax
def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(tmp_path):
    """Killed, out of room for its best model, killed, and its newest files damaged."""
    never, often = tmp_path / "never", tmp_path / "often"
    assert start(never).wait() == 0
    kill_at(often, 4)
    assert start(often, largest_file=60000).wait() == 1
    assert runs.state(often).step == 10
    assert not list(often.glob("unfinished-*")) + list(often.glob("best.keras"))
    kill_at(often, 13)
    assert runs.state(often).step % 10 != 0
    damage(often)
    assert start(often).wait() == 0

    require_equal(never, often)


@pytest.mark.heavy
@pytest.mark.parametrize("variant", [pytest.param("averaged", marks=pytest.mark.jax), "nesterov"])
def test_whatever_the_optimizer_keeps_is_resumed_to_the_bit(tmp_path, variant):
    """Killed within an epoch and while gradients are accumulated."""
    never, often = tmp_path / "never", tmp_path / "often"
    whole = start(never, variant=variant)
    kill_at(often, 14, variant=variant)
    assert runs.state(often).step < 20
    assert whole.wait() == 0
    assert start(often).wait() == 0
    require_equal(never, often)


def require_equal(never: pathlib.Path, often: pathlib.Path) -> None:
    """Requires two runs to have ended with the same bits."""
    one, other = runs.state(never), runs.state(often)
    assert one.step == other.step == 30
    assert measured(one) == measured(other)
    with np.load(never / str(one.checkpoint)) as a, np.load(often / str(other.checkpoint)) as b:
        assert a.files == b.files
        groups = {name.split("/")[0] for name in a.files}
        assert groups == {"model", "optimizer", "metrics", "count", "state"}
        for name in set(a.files) - {"state"}:  # which tells the time, and was compared above
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    for x, y in zip(
        runs.load(never, CHOICE).weights, runs.load(often, CHOICE).weights, strict=True
    ):
        np.testing.assert_array_equal(x, y)

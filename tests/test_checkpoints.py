import dataclasses
import errno
import io
import os
import zipfile

import numpy as np
import pytest

from unet import checkpoints, runs
from unet.hardware import Choice
from unet.recipes import Recipe
from unet.runs import Settings, State

CHOICE = Choice(hardware="test", precision="float32", compile=False)


def variables(step: int) -> dict[str, list[np.ndarray]]:
    rng = np.random.default_rng(step)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((3, 4), (4,), ())]
    return {
        "model": weights,
        "optimizer": [np.array(step)],
        "metrics": [np.array([1, step], np.float32)],
    }


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(
        [(a.dtype, a.tobytes()) for a in one[group]]
        == [(np.asarray(b).dtype, np.asarray(b).tobytes()) for b in other[group]]
        for group in one
    )


@pytest.fixture
def run(tmp_path):
    """A run with the checkpoints of steps 4 and 5."""
    run = tmp_path / "run"
    runs.create(run, Settings(recipe=Recipe(), choice=CHOICE))
    state = State()
    for step in (3, 4, 5):
        reached = dataclasses.replace(state, step=step, seconds=step / 4)
        state = checkpoints.save(run, reached, variables(step), known=state)
    return run


def forged(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip with right checksums."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def test_the_last_two_are_kept_and_the_newest_is_read(run):
    (run / "checkpoint-mine.npz").write_text("mine")
    state, held = checkpoints.newest(run)
    assert state == runs.state(run)
    assert (state.step, state.checkpoint) == (5, "checkpoint-00000005.npz")
    assert same(held, variables(5))
    checkpoints.save(run, dataclasses.replace(state, step=9), variables(9), known=state)
    assert sorted(path.name for path in run.glob("checkpoint*")) == [
        "checkpoint-00000005.npz",
        "checkpoint-00000009.npz",
        "checkpoint-mine.npz",
    ]


def test_a_new_run_has_none_and_leftovers_of_others_are_none(tmp_path):
    (tmp_path / "unfinished-checkpoint-00000004.npz").write_text("")
    assert checkpoints.newest(tmp_path) == (State(), {})


def of_another_step(data: bytes) -> bytes:
    """A whole checkpoint whose state is not of the step in its name."""
    held = dict(np.load(io.BytesIO(data)))
    state = runs.decoded(held["state"].tobytes())
    state = dataclasses.replace(state, step=state.step + 10**6)
    file = io.BytesIO()
    np.savez(file, **{**held, "state": np.frombuffer(runs.encoded(state), np.uint8)})
    return file.getvalue()


DAMAGE = {
    "of another step": of_another_step,
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "end cut": lambda data: data[:-1],
    "zeros": lambda data: bytes(len(data)),
    "no arrays": lambda data: forged(),
    "no state": lambda data: forged(("model/00000.npy", header("(0,)"))),
    "state of no JSON": lambda data: forged(("state.npy", header("(2,)", "'|u1'") + b"{]")),
    "huge": lambda data: forged(("state.npy", header("(1099511627776,)"))),
    "objects": lambda data: forged(("state.npy", header("(1,)", "'|O'") + b"cos\nsystem\n.")),
    "no header": lambda data: forged(("state.npy", b"\x93NUMPY\x01\x00\x05\x00{((((")),
    "bomb": lambda data: forged(("state.npy", bytes(10**6)), method=zipfile.ZIP_DEFLATED),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_one_is_named_and_the_one_before_is_read(run, capsys, kind):
    newest = run / "checkpoint-00000005.npz"
    newest.write_bytes(DAMAGE[kind](newest.read_bytes()))
    state, held = checkpoints.newest(run)
    assert state.step == 4
    assert state.seconds == 1
    assert same(held, variables(4))
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{newest} is damaged: " in said
    assert "Resuming from checkpoint-00000004.npz" in said
    runs.write_state(run, state)
    # Where the run comes by again, the damaged one is replaced or gone, and two whole ones stay.
    checkpoints.save(run, dataclasses.replace(state, step=6), variables(6), known=state)
    names = sorted(path.name for path in run.glob("checkpoint*"))
    assert names == ["checkpoint-00000004.npz", "checkpoint-00000006.npz"]


def test_one_that_is_missing_or_a_copy_is_passed_over(run, capsys):
    os.replace(run / "checkpoint-00000005.npz", run / "checkpoint-00000007.npz")
    assert checkpoints.newest(run)[0].step == 4
    assert "checkpoint-00000007.npz is damaged: it is a copy of" in capsys.readouterr().err


def test_whichever_bit_flips_no_other_numbers_are_read(run):
    newest = run / "checkpoint-00000005.npz"
    whole = newest.read_bytes()
    seen = set()
    for place in np.random.default_rng(0).integers(0, 8 * len(whole), 400):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        newest.write_bytes(data)
        state, held = checkpoints.newest(run)
        seen.add(state.step)
        assert same(held, variables(state.step))
    assert seen == {4, 5}  # a bit of a date or of padding says nothing


@pytest.mark.parametrize("text", [None, b"", b"{}", b"[" * 100_000])
def test_a_lost_state_is_in_the_checkpoint_too(run, text):
    before = runs.state(run)
    if text is None:
        (run / "state.json").unlink()
    else:
        (run / "state.json").write_bytes(text)
    assert checkpoints.newest(run)[0] == before


def test_where_none_is_whole_the_run_does_not_start_again_unasked(run):
    for path in run.glob("checkpoint*"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"checkpoint-00000005\.npz is damaged.*no whole one"):
        checkpoints.newest(run)
    for path in run.glob("checkpoint*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"run has lost its checkpoints.*remove state\.json"):
        checkpoints.newest(run)
    (run / "state.json").unlink()
    assert checkpoints.newest(run) == (State(), {})


@pytest.mark.parametrize("failing", ["checkpoint-00000009.npz", "state.json"])
def test_a_full_disk_changes_nothing(run, monkeypatch, failing):
    real = runs.writing

    def writing(path, **options):
        if path.name == failing:
            monkeypatch.setattr(os, "fsync", full)
        return real(path, **options)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    state, _ = checkpoints.newest(run)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "writing", writing)
        with pytest.raises(OSError, match=rf"{failing} cannot be written: No space left"):
            checkpoints.save(run, dataclasses.replace(state, step=9), variables(9), known=state)
    monkeypatch.undo()
    assert not list(run.glob("unfinished-*"))
    assert runs.state(run) == state
    found, held = checkpoints.newest(run)
    assert same(held, variables(found.step))
    assert found.step == (5 if failing.startswith("checkpoint") else 9)

"""Checkpoints: every variable of a training and the state they belong to, in one file.

The file is a zip of arrays with their number and a checksum each, so damage is detected. The last
two are kept: where the newest is damaged, a run resumes from the one before, with the same result.
What the variables are is known to `train`.
"""

import dataclasses
import io
import pathlib
import re
import sys
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segdata import console
from unet import runs
from unet.runs import State

_NAME = re.compile(r"checkpoint-(\d{8,})\.npz")


def save(
    run: pathlib.Path,
    state: State,
    variables: Mapping[str, Sequence[Any]],
    *,
    known: State,
) -> State:
    """Commits the training state atomically: writes a checkpoint, then `state.json`.

    Older checkpoints than the last two are removed.

    Args:
        run: The run's folder.
        state: The state to save.
        variables: Arrays by group.
        known: The state that this process found or wrote last.

    Returns:
        The state with the name of its checkpoint.

    Raises:
        OSError: As in `runs.writing`.
    """
    state = named(state)
    path = run / str(state.checkpoint)
    arrays: dict[str, Any] = {
        f"{group}/{i:05}": array
        for group, held in variables.items()
        for i, array in enumerate(held)
    }
    text = np.frombuffer(runs.encoded(state), np.uint8)
    with runs.writing(path, known=known) as unfinished, unfinished.open("wb") as file:
        np.savez(file, state=text, count=len(arrays), **arrays)
    runs.write_state(run, state, known=known)
    for old in _newest_first(run):
        if _step(old) < state.step and old.name != known.checkpoint:
            old.unlink(missing_ok=True)
    return state


def named(state: State) -> State:
    """The state with the name of its checkpoint."""
    return dataclasses.replace(state, checkpoint=f"checkpoint-{state.step:08}.npz")


def newest(run: pathlib.Path) -> tuple[State, dict[str, list[np.ndarray]]]:
    """Reads the newest whole checkpoint; reports newer, damaged ones on stderr.

    Args:
        run: The run's folder.

    Returns:
        The state, and the variables by group; a fresh state and none where the run was killed
        before its first checkpoint.

    Raises:
        ValueError: If there are or were checkpoints, but none is whole.
    """
    faults = []
    for path in _newest_first(run):
        try:
            found = _read(path)
        except Exception as error:  # zipfile, zlib and NumPy raise a dozen kinds
            faults.append(f"{path} is damaged: {runs.reason(error)}")
            continue
        for fault in faults:
            line = f"{fault}. Resuming from {path.name}, which is whole."
            print(console.printable(line), file=sys.stderr)
        return found
    if not faults and not (run / "state.json").exists():
        return State(), {}
    fault = faults[0] if faults else f"{run} has lost its checkpoints"
    raise ValueError(
        f"{fault}; there is no whole one. Bring one back from a copy, or remove state.json and all "
        f"checkpoints: then the run starts again."
    )


def _read(path: pathlib.Path) -> tuple[State, dict[str, list[np.ndarray]]]:
    held: dict[str, list[np.ndarray]] = {}
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
            raise ValueError("its directory claims more bytes than it has")
        for name in archive.namelist():
            # The whole member is read before its header is parsed: that verifies its checksum.
            array = np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
            held.setdefault(name.partition("/")[0], []).append(array)
    state = runs.decoded(held.pop("state.npy")[0].tobytes())
    if held.pop("count.npy") != [sum(map(len, held.values()))]:
        raise ValueError("arrays are missing")  # one bit of a zip's directory can hide the rest
    if state.checkpoint != path.name:
        raise ValueError(f"it is a copy of {state.checkpoint}")
    if state.step != _step(path):
        raise ValueError(f"its state is of step {state.step}")
    return state, held


def _newest_first(run: pathlib.Path) -> list[pathlib.Path]:
    own = (path for path in run.iterdir() if _NAME.fullmatch(path.name) and path.is_file())
    return sorted(own, key=_step)[::-1]


def _step(path: pathlib.Path) -> int:
    found = _NAME.fullmatch(path.name)
    return int(found[1]) if found else -1

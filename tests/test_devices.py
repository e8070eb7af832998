import pathlib
import pickle
import subprocess
import sys
from typing import Any

import devices
import numpy as np
import pytest

BACKENDS = ("tensorflow", "jax")
RUNS = [(1, 2), (3, 1)]


@pytest.fixture(scope="module", params=BACKENDS)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What trainings left on one device and on several, in a process that sees three."""
    out = tmp_path_factory.mktemp(request.param) / "found"
    here = pathlib.Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", here / "devices.py", request.param, out],
        capture_output=True,
        text=True,
        cwd=here.parent,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return pickle.loads(out.read_bytes())


@pytest.mark.heavy
@pytest.mark.parametrize("case", devices.CASES)
def test_several_devices_train_as_one_does(found, case):
    """All variables of model, optimizer and metrics after 20 steps, and the loss of each step."""
    one, several = found[case]
    assert len(one) == len(several)
    assert np.ptp(one[-1]) > 0.01  # the loss is not the same all the time
    for a, b in zip(one, several, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(b.astype(float), a.astype(float), rtol=1e-5, atol=1e-5)


@pytest.mark.heavy
@pytest.mark.parametrize(("first", "then"), RUNS)
def test_a_run_is_resumed_on_another_number_of_devices(found, first, then):
    """Killed within an epoch: scores and checkpoint are those of a run on one device."""
    history, held = found[1, None]
    other_history, other_held = found[first, then]
    for row, other in zip(history, other_history, strict=True):
        for name in row.keys() - {"seconds", "images_per_second", "input_share"}:  # of clocks
            assert other[name] == pytest.approx(row[name], rel=1e-4, abs=1e-5), name
    assert held.keys() == other_held.keys()
    assert {name.partition("/")[0] for name in held} == {"count", "metrics", "model", "optimizer"}
    for name, array in held.items():
        np.testing.assert_allclose(
            other_held[name].astype(float), array.astype(float), rtol=1e-5, atol=1e-5, err_msg=name
        )


@pytest.mark.heavy
def test_each_device_has_its_rows_of_the_batch(found):
    for count in (1, 2, 3):
        assert found["rows", count] == [6 // count] * count

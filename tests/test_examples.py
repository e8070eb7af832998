"""Each example, as written, in a process of its own."""

import pathlib
import re
import subprocess
import sys

import pytest

import segdata

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["keras_fit", "jax_loop", "torch_loop"])
def test_an_example_runs_and_learns(name, built_dsb2018):
    packed = segdata.pack("dsb2018", "train", size=(64, 64), data_dir=built_dsb2018)
    where = ["--data_dir", built_dsb2018] if name == "keras_fit" else [packed.manifest]
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *where, "--epochs", "3"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"\bloss:? ([\d.]+)", done.stdout)]
    assert losses[-1] < 0.95 * losses[0]

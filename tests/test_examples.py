"""Each example, and the code of each page of documentation, as written, in its own process."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

import segdata
from unet import cli

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
DOCS = EXAMPLES.parent / "docs"
PAGES = {path.stem for path in DOCS.glob("*.md") if "```python" in path.read_text()}


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("keras_fit", "tensorflow"),
        ("jax_loop", ""),
        ("torch_loop", ""),
        ("unet_loop", "tensorflow"),
        ("unet_loop", "jax"),
    ],
)
def test_an_example_runs_and_learns(name, backend, built_dsb2018):
    packed = segdata.pack("dsb2018", "train", size=(64, 64), data_dir=built_dsb2018)
    where = ["--data_dir", built_dsb2018] if name == "keras_fit" else [packed.manifest]
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *where, "--epochs", "3"],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend} if backend else None,
    )
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"\bloss:? ([\d.]+)", done.stdout)]
    assert losses[-1] < 0.95 * losses[0]


MODEL = """
import keras

model = keras.Sequential([keras.Input((256, 256, 3)), keras.layers.Conv2D(1, 1)])
model.compile(loss="mse")
"""


TINY = ["--filters", "4", "8", "--size", "64", "64", "--epochs", "1", "--steps_per_epoch", "8"]


@pytest.mark.heavy
@pytest.mark.parametrize("page", [*sorted(PAGES - {"adding-a-dataset"}), "README"])
def test_the_code_of_a_page_runs(page, request, tmp_path):
    folder = DOCS.parent if page == "README" else DOCS
    text = (folder / f"{page}.md").read_text().replace("~/data", "data").replace("epochs=10", "")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    if page == "README":
        blocks.insert(0, MODEL)
    others = {"mixing": "built_datasets", "any-tfds-dataset": "built_foreign"}
    built = others.get(page, "built_dsb2018")
    (tmp_path / "data").symlink_to(request.getfixturevalue(built))
    if page == "unet-from-python":
        out = ["--data_dir", str(tmp_path / "data"), "--out", str(tmp_path / "runs" / "first")]
        assert cli.main(["train", *TINY, *out]) == 0
    (tmp_path / "page.py").write_text("\n".join(blocks))
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr

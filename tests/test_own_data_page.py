"""The sessions and the messages of docs/own-data.md."""

import contextlib
import io
import json
import pathlib
import re
import shlex
from typing import Any

import numpy as np
import own_folders as own
import pytest
from scipy import ndimage

from segdata import cli
from segdata.testing import streets
from unet import cli as unet_cli

ROOT = pathlib.Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "own-data.md").read_text()
COLOURS = np.array([(0, 0, 0), (128, 64, 128), (0, 0, 142)], np.uint8)
NUMBERS = {name: number for number, name in enumerate(streets._LOOKS)}
CARS = [NUMBERS[name] for name in ("car", "truck", "bus")]
SCORE = re.compile(r"0\.\d{4}")


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A street: uint8 [64, 96, 3], and background, road and cars: uint8 [64, 96]."""
    found = streets.scene(NUMBERS, side=96, rng=np.random.default_rng(seed))
    mask = (found.labels == NUMBERS["road"]) + 2 * np.isin(found.labels, CARS)
    return found.photo[24:88], mask[24:88].astype(np.uint8)


def run_lengths(mask: np.ndarray) -> list[int]:
    """As COCO has them: down the columns, outside first."""
    flat = np.r_[0, mask.ravel(order="F"), 2]
    return np.diff(np.r_[0, np.flatnonzero(np.diff(flat))]).tolist()


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """Fifty streets, coloured masks of them, COCO's JSON of the same objects, and a new street."""
    root = tmp_path_factory.mktemp("stranger")
    images, found = [], []
    for seed in range(50):
        photo, mask = drawn(seed)
        own.write(root / "street" / "images" / f"{seed:02}.png", photo)
        own.write(root / "street" / "masks" / f"{seed:02}.png", COLOURS[mask])
        images.append({"id": seed, "file_name": f"{seed:02}.png", "width": 96, "height": 64})
        for kind in (1, 2):
            objects: Any = ndimage.label(mask == kind)
            for number in range(1, objects[1] + 1):
                shape = {"counts": run_lengths(objects[0] == number), "size": [64, 96]}
                found.append({"image_id": seed, "category_id": kind, "segmentation": shape})
    kinds = [{"id": 1, "name": "road"}, {"id": 2, "name": "car"}]
    document = {"images": images, "annotations": found, "categories": kinds}
    (root / "street" / "coco.json").write_text(json.dumps(document))
    own.write(root / "new.png", drawn(99)[0])
    return root


def is_said(line: str, out: str) -> bool:
    """Whether a line was printed; scores may differ by a few hundredths."""
    pattern = SCORE.sub(r"(0\\.\\d{4})", re.escape(line).replace(r"0\.", "0."))
    wanted = [float(score) for score in SCORE.findall(line)]
    return any(
        np.allclose([float(score) for score in match.groups()], wanted, atol=0.05)
        for match in re.finditer(f"^{pattern}$", out, re.MULTILINE)
    )


@pytest.mark.heavy
@pytest.mark.parametrize("title", ["50 images with coloured masks", "the same with COCO's JSON"])
def test_the_five_commands_print_what_is_shown(street, monkeypatch, title):
    monkeypatch.chdir(street)
    section = PAGE.split(f"## Five commands: {title}")[1].split("\n## ")[0]
    session = section.split("```console\n")[1].split("```")[0]
    commands = re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]
    assert len(commands) == 5
    for command in commands:
        typed, *shown = command.splitlines()
        program, *argv = shlex.split(typed)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = {"segdata": cli.main, "unet": unet_cli.main}[program](argv)
        assert code == 0, out.getvalue()
        for line in shown:
            assert line == "…" or is_said(line, out.getvalue()), (line, out.getvalue())
    name = "street" if "coloured" in title else "outlines"
    for key, example in own.examples(street, name).items():
        np.testing.assert_array_equal(example["mask"][..., 0], drawn(int(key))[1])
    assert "<svg" in (street / "runs" / name / "report.html").read_text()


def test_a_shown_line_is_compared_with_what_was_printed():
    out = "images        5\ndice          0.9312\n"
    assert is_said("images        5", out)
    assert is_said("dice          0.9500", out)
    assert not is_said("dice          0.8500", out)
    assert not is_said("images        6", out)
    assert not is_said("ice          0.9312", out)


def test_each_message_of_the_table_is_one_that_a_test_causes():
    table = PAGE.split("## What is said")[1]
    tests = "".join(path.read_text() for path in sorted((ROOT / "tests").glob("test_own_[!d]*.py")))
    messages = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(messages) > 15
    for message in messages:
        assert re.split("[:(…]", message.strip(" `"))[0].strip() in tests

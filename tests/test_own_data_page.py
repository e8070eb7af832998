"""The commands and the messages of docs/own-data.md."""

import contextlib
import io
import json
import pathlib
import re
import shlex

import numpy as np
import own_folders as own
import pytest

from segdata import cli

ROOT = pathlib.Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "own-data.md").read_text()
COLOURS = np.array([(0, 0, 0), (128, 64, 128), (0, 0, 142)], np.uint8)
SIZE = (30, 44)


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """Fifty images, coloured masks of them, and COCO's JSON of boxes as outlines."""
    root = tmp_path_factory.mktemp("stranger")
    images, found = [], []
    for seed in range(50):
        own.write(root / "street" / "images" / f"{seed:02}.png", own.photo(seed, SIZE))
        mask = own.classes(seed, SIZE)
        own.write(root / "street" / "masks" / f"{seed:02}.png", COLOURS[mask])
        images.append({"id": seed, "file_name": f"{seed:02}.png", "width": 44, "height": 30})
        corners = [3, 4, 20, 4, 20, 5 + seed % 20, 3, 5 + seed % 20]
        found.append({"image_id": seed, "category_id": 1, "segmentation": [corners]})
    kinds = [{"id": 1, "name": "road"}]
    document = {"images": images, "annotations": found, "categories": kinds}
    (root / "street" / "coco.json").write_text(json.dumps(document))
    return root


@pytest.mark.parametrize("title", ["50 images with coloured masks", "the same with COCO's JSON"])
def test_the_five_commands_run_as_they_are_written(street, monkeypatch, title):
    monkeypatch.chdir(street)
    section = PAGE.split(f"## Five commands: {title}")[1].split("\n## ")[0]
    commands = [line[2:] for line in section.splitlines() if line.startswith("$ ")]
    assert len(commands) == 5
    said = []
    for command in commands:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = cli.main(shlex.split(command)[1:])
        found = (0, 1) if command.startswith("segdata audit") else (0,)  # noise is noted
        assert code in found, out.getvalue()
        said.append(out.getvalue())
    name = "street" if "coloured" in title else "outlines"
    classes = {"street": "0 background, 1 road, 2 car", "outlines": "0 background, 1 road"}[name]
    assert f"Classes: {classes}." in said[1]
    assert (street / f"{name}.png").stat().st_size > 1000
    examples = own.examples(street, name)
    assert len(examples) == 50
    if name == "street":
        for key, example in examples.items():
            np.testing.assert_array_equal(example["mask"][..., 0], own.classes(int(key), SIZE))


def test_each_message_of_the_table_is_one_that_a_test_causes():
    table = PAGE.split("## What is said")[1]
    tests = "".join(path.read_text() for path in sorted((ROOT / "tests").glob("test_own_[!d]*.py")))
    messages = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(messages) > 15
    for message in messages:
        assert re.split("[:(…]", message.strip(" `"))[0].strip() in tests

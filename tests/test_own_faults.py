"""What goes wrong while a user's own images are built, or in files that hold unlikely things."""

import contextlib

import holding
import own_folders as own
import pytest

from segdata import packing
from segdata.building import folder, unfinished
from segdata.core.system import files

HOLD = """
import pathlib, sys
from segdata.building import unfinished
folder = pathlib.Path(sys.argv[1])
with unfinished.alone(folder, waiting=print), unfinished.replaced(folder):
    print("held", flush=True)
    sys.stdin.read()
"""


def lay(root, seeds=range(4)):
    for seed in seeds:
        own.write(root / "images" / f"x{seed}.png", own.photo(seed))
        own.write(root / "masks" / f"x{seed}.png", own.classes(seed))
    return ["--masks", root / "masks"]


def test_a_killed_overwrite_leaves_the_old_dataset(tmp_path):
    laid, place = lay(tmp_path), tmp_path / "data" / "mine" / "1.0.0"
    assert own.build(tmp_path, *laid)[0] == 0
    aside = place.with_name(".1.0.0.replaced")
    with holding.process(HOLD, place):
        assert aside.exists()
        code, _, err = own.build(tmp_path, *laid)
        assert code == 2
        assert f"{place} is being built anew by process" in err
        with pytest.raises(files.HeldError, match=r"1\.0\.0 is being built anew by process"):
            packing.built("folder:mine", data_dir=tmp_path / "data")
    assert aside.exists()  # it was killed
    assert packing.built("folder:mine", data_dir=tmp_path / "data").data_path == place
    assert not aside.exists()
    place.rename(aside)
    code, _, err = own.build(tmp_path, *laid)
    assert code == 2
    assert "is built already. Give --overwrite" in err
    assert len(own.examples(tmp_path)) == 4


@pytest.mark.parametrize("when", ["while it is examined", "while it waits"])
def test_two_builds_of_one_name_are_not_taken_for_one(tmp_path, monkeypatch, when):
    laid = lay(tmp_path)
    other = [*lay(tmp_path / "other", range(10, 16)), "--data_dir", tmp_path / "data"]

    def build_other():
        monkeypatch.undo()
        assert own.build(tmp_path / "other", *other)[0] == 0

    def examine(*given, _examine=folder.examine):
        build_other()
        return _examine(*given)

    @contextlib.contextmanager
    def alone(*given, _alone=unfinished.alone, **more):
        build_other()
        with _alone(*given, **more):
            yield

    if when == "while it is examined":
        monkeypatch.setattr(folder, "examine", examine)
    else:
        monkeypatch.setattr(unfinished, "alone", alone)
    code, _, err = own.build(tmp_path, *laid)
    assert code == 2
    assert f"{tmp_path / 'data' / 'mine'} is built already. Give --overwrite" in err
    assert sorted(own.examples(tmp_path)) == [f"x{seed}" for seed in range(10, 16)]


def test_a_file_for_a_folder_and_a_folder_for_a_file_are_one_line(tmp_path):
    laid = lay(tmp_path)
    image = tmp_path / "images" / "x0.png"
    code, _, err = own.build(tmp_path, images="images/x0.png")
    assert (code, image.exists()) == (2, True)
    assert f"--images {image} is a file; give the folder that it is in, or a zip." in err
    for flag in ("--masks", "--yolo"):
        assert f"{flag} {image} is a file; give the folder" in own.build(tmp_path, flag, image)[2]
    for flag in ("--coco", "--pairs"):
        _, _, err = own.build(tmp_path, flag, tmp_path / "images")
        assert f"{tmp_path / 'images'} is a folder; give the file in it." in err
    assert own.build(tmp_path, *laid)[0] == 0


TABLES = {
    "a long cell": (
        b"image,mask\n" + b"a" * 140_000 + b",x\n",
        "pairs.csv, line 2: field larger than",
    ),
    "NUL": (b"image,mask\nx0.png,x0\0.png\n", "pairs.csv, line 2: a character of no text, NUL"),
}


@pytest.mark.parametrize(("table", "message"), TABLES.values(), ids=TABLES)
def test_a_table_that_is_none_is_named_with_its_line(tmp_path, table, message):
    (tmp_path / "pairs.csv").write_bytes(table)
    code, _, err = own.build(tmp_path, *lay(tmp_path), "--pairs", tmp_path / "pairs.csv")
    assert code == 2
    assert message in err


def test_a_table_may_have_any_ends_of_lines(tmp_path):
    rows = ["image,mask", *(f"x{seed}.png,x{seed}.png" for seed in range(4))]
    (tmp_path / "pairs.csv").write_bytes("\r".join(rows).encode())
    code, _, err = own.build(tmp_path, *lay(tmp_path), "--pairs", tmp_path / "pairs.csv")
    assert code == 0, err
    assert len(own.examples(tmp_path)) == 4


@pytest.mark.parametrize(
    "tasks",
    [
        '[{"id": 1, "data": [1]}]',
        '[{"id": 1, "data": "a"}]',
        '[{"id": Infinity, "data": {"image": "x.png"}}]',
    ],
)
def test_tasks_that_are_none_are_one_line(tmp_path, tasks):
    own.write(tmp_path / "images" / "x.png", own.photo(1))
    own.write(tmp_path / "masks" / "task-1-annotation-1-by-1-tag-cell-0.png", own.classes(1))
    (tmp_path / "tasks.json").write_text(tasks)
    flags = ["--masks", tmp_path / "masks", "--tasks", tmp_path / "tasks.json"]
    code, _, err = own.build(tmp_path, *flags)
    assert code == 2
    assert "tasks.json is no JSON export of Label Studio" in err


@pytest.mark.parametrize("name", ["", "folder:", ":", "/", "folder:/x"])
def test_a_name_that_is_empty_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="is no name of a dataset"):
        packing.built(name, data_dir=tmp_path)


@pytest.mark.parametrize("size", [(10**9, 10**9), (100_000, 100_000), (1, 10**30)])
def test_records_of_more_pixels_than_images_have_are_refused(size):
    with pytest.raises(ValueError, match=r"record_size=.* records have up to 33,554,432 pixels"):
        packing.Rule.of(size, name="record_size")

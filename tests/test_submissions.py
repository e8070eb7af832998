"""Tables for competitions, read back here in plain Python."""

import csv
import os

import numpy as np
import pytest

from segdata.archives import rle
from unet import submissions, watershed
from unet.model import UNet
from unet.objects import Separation
from unet.recipes import Recipe

EVERY = Separation(least_area=0)
SHAPES = [(7, 11), (16, 5), (1, 9), (8, 8)]


def drawn(seed: int) -> list[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    made = []
    for number, shape in enumerate(SHAPES):
        coarse = rng.integers(0, 2, [-(-side // 2) for side in shape], np.uint8)
        found = coarse.repeat(2, 0).repeat(2, 1)[: shape[0], : shape[1]]
        made.append((f"{9 - number}_image", np.zeros_like(found) if number == 3 else found))
    return made


def read(path, *, down: bool) -> dict[str, list[set[tuple[int, int]]]]:
    """By image the pixels of each row, counted one by one."""
    shapes = dict(zip((name for name, _ in drawn(0)), SHAPES, strict=True))
    found: dict[str, list[set[tuple[int, int]]]] = {}
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == (["ImageId", "EncodedPixels"] if down else ["img", "rle_mask"])
    for name, text in rows:
        name = name if down else name.removesuffix(".jpg")
        height, width = shapes[name]
        pixels = set()
        numbers = list(map(int, text.split()))
        for start, length in zip(numbers[::2], numbers[1::2], strict=True):
            for place in range(start - 1, start - 1 + length):
                at = (place % height, place // height) if down else divmod(place, width)
                assert at[0] < height
                assert at[1] < width
                pixels.add(at)
        found.setdefault(name, []).append(pixels)
    return found


def pixels_of(mask) -> set[tuple[int, int]]:
    return {place for place in np.ndindex(mask.shape) if mask[place]}


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    (tmp_path / f"unfinished-{'0f' * 8}.csv").touch()
    form = submissions.FORMATS["dsb2018"]
    submissions.write(tmp_path / "table.csv", iter(drawn(0)), form=form, separation=EVERY)
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize("seed", range(6))
def test_nuclei_have_a_row_each_counted_down_the_columns(tmp_path, seed):
    path = tmp_path / "table.csv"
    form = submissions.FORMATS["dsb2018"]
    written = submissions.write(path, iter(drawn(seed)), form=form, separation=EVERY)
    found = read(path, down=True)
    assert list(found) == [name for name, _ in drawn(seed)]
    objects = 0
    for name, mask in drawn(seed):
        labels = watershed.objects(mask, EVERY)
        wanted = [pixels_of(labels == n) for n in range(1, labels.max() + 1)]
        objects += len(wanted)
        assert found[name] == (wanted or [set()])
    empty = sum(not mask.any() for _, mask in drawn(seed))
    assert written == (4, objects, empty)
    assert "4 images" in str(written)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("seed", range(6))
def test_cars_have_a_row_an_image_counted_along_the_rows(tmp_path, seed):
    path = tmp_path / "table.csv"
    form = submissions.FORMATS["carvana"]
    written = submissions.write(path, iter(drawn(seed)), form=form, separation=EVERY)
    found = read(path, down=False)
    assert list(found) == [name for name, _ in drawn(seed)]
    for name, mask in drawn(seed):
        assert found[name] == [pixels_of(mask)]
    assert written.images == 4
    assert written.objects + written.empty == 4


@pytest.mark.parametrize("name", submissions.FORMATS)
def test_a_table_that_reads_otherwise_gets_no_name(tmp_path, monkeypatch, name):
    path = tmp_path / "table.csv"
    path.write_text("as it was")
    plain = rle.encode_objects

    def wrong(labels, *, order):
        return plain(np.roll(labels, 1, axis=1), order=order)

    monkeypatch.setattr(rle, "encode_objects", wrong)
    with pytest.raises(ValueError, match=r"9_image differs from its mask"):
        submissions.write(path, iter(drawn(1)), form=submissions.FORMATS[name], separation=EVERY)
    assert path.read_text() == "as it was"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_an_image_that_is_there_twice_is_noticed(tmp_path):
    once = drawn(1)
    form = submissions.FORMATS["dsb2018"]
    with pytest.raises(ValueError, match="9_image"):
        submissions.write(
            tmp_path / "table.csv", iter([*once, once[0]]), form=form, separation=EVERY
        )
    assert not list(tmp_path.iterdir())


def test_a_run_without_a_competition_is_refused():
    assert submissions.format_of(Recipe(dataset="dsb2018/borders")).is_of_objects
    assert not submissions.format_of(Recipe(dataset="carvana")).is_of_objects
    for dataset, mix in (("folder:cells", {}), ("dsb2018+carvana", {"shares": {}})):
        with pytest.raises(ValueError, match="no competition"):
            submissions.format_of(Recipe(dataset=dataset, mix=mix))
    number = Recipe(model=UNet(output_activation="linear"), loss="squared_error")
    with pytest.raises(ValueError, match="gives numbers"):
        submissions.format_of(number)


def test_a_place_that_takes_no_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"such as table\.csv"):
        submissions.require_table(tmp_path / "table.zip")
    with pytest.raises(OSError, match="no folder"):
        submissions.require_table(tmp_path / "no" / "table.csv")
    submissions.require_table(tmp_path / "table.csv")

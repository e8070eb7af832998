import numpy as np
import pytest
from PIL import Image

from segdata import cli
from segdata.core.augment import Augment
from segdata.inspection import examples, overlays, sheet

CLASSES = ("background", "nucleus")


def packed(count: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 256, (count, 32, 48, 4), np.uint8)
    pixels[..., 3] = 0
    pixels[:, 8:20, 6:30, 3] = 1
    return pixels


def drawn(count: int, augment: Augment | None = None) -> np.ndarray:
    ids = [f"example {number}" for number in range(count)]
    return np.asarray(
        sheet.sheet(packed(count), ids, classes=CLASSES, title="toy", augment=augment)
    )


def tiles(paper: np.ndarray, row: int, columns: int) -> np.ndarray:
    """The pictures of the first band's row."""
    top = 78 + row * 38
    return np.stack([paper[top : top + 32, 82 + x * 54 : 82 + x * 54 + 48] for x in range(columns)])


def test_images_stand_above_themselves_under_their_masks():
    pixels, paper = packed(3), drawn(3)
    assert np.array_equal(tiles(paper, 0, 3), pixels[..., :3])
    under = [overlays.overlay(x[..., :3], x[..., 3], classes=CLASSES) for x in pixels]
    assert np.array_equal(tiles(paper, 1, 3), np.stack(under))


def test_augmented_rows_are_what_training_sees():
    flipped = packed(3)[:, :, ::-1]
    paper = drawn(3, Augment(horizontal_flip=1.0))
    under = [overlays.overlay(x[..., :3], x[..., 3], classes=CLASSES) for x in flipped]
    for row in (2, 3, 4):
        assert np.array_equal(tiles(paper, row, 3), np.stack(under))
    mild = drawn(3, sheet.MILD)
    assert not np.array_equal(tiles(mild, 2, 3), tiles(mild, 3, 3))


def test_nine_examples_take_two_bands():
    assert drawn(9).shape[0] > drawn(8).shape[0]
    assert drawn(9).shape[1] == drawn(8).shape[1]


def test_a_cell_has_the_median_proportion():
    assert sheet.common_size([(100, 100), (1280, 1918), (1280, 1918)]) == (192, 288)
    assert sheet.common_size([(1, 1000)]) == (192, 768)
    with pytest.raises(ValueError, match="no examples"):
        sheet.common_size([])


def test_a_collection_is_drawn_without_a_trace(built_dsb2018):
    before = sorted(path for path in built_dsb2018.rglob("*"))
    found = examples.built("dsb2018", data_dir=built_dsb2018, split="train")
    image = sheet.of(found, count=3)
    assert image.width >= 640
    assert sorted(path for path in built_dsb2018.rglob("*")) == before


def test_the_command_writes_a_sheet(built_dsb2018, tmp_path, capsys):
    where = ["--data_dir", str(built_dsb2018), "--to", str(tmp_path / "sheet.png")]
    assert (
        cli.main(["show", "dsb2018", "--count", "2", "--split", "test", "--augment", *where]) == 0
    )
    assert "the first 2 examples of test" in capsys.readouterr().out
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.height > 5 * 192


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "sheet.jpg"], "end the name in .png"),
        (["--to", "sheet.png", "--count", "0"], "--count 0: a sheet holds"),
        (["--to", "sheet.png", "--split", "tests"], "has no split 'tests'"),
    ],
)
def test_a_mistake_is_one_line(built_dsb2018, capsys, arguments, message):
    where = ["--data_dir", str(built_dsb2018)]
    assert cli.main(["show", "dsb2018", *where, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_where_no_sheet_can_be_written_nothing_is_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sheet, "of", None)
    assert cli.main(["show", "dsb2018", "--to", str(tmp_path / "none" / "a.png")]) == 2
    assert f"there is no folder {tmp_path / 'none'}" in capsys.readouterr().err


def test_a_name_that_is_no_text_is_drawn_escaped():
    ids = ["\udcff", "two\nlines", "\x1b[2J"]
    escaped = [r"\udcff", r"two\nlines", r"\x1b[2J"]
    one, other = (
        sheet.sheet(packed(3), names, classes=CLASSES, title=names[0]) for names in (ids, escaped)
    )
    assert np.array_equal(np.asarray(one), np.asarray(other))

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from segdata import cli
from segdata.core.augment import Augment
from segdata.inspection import examples, lettering, overlays, sheet
from segdata.inspection.examples import Collection, Pending
from segdata.sources import Example

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
        sheet.sheet(list(packed(count)), ids, classes=CLASSES, title="toy", augment=augment)
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


WHITE = (255, 255, 255)


def blank(**sizes: tuple[int, int]) -> Collection:
    """White images of some heights and widths."""

    def pending(key: str, size: tuple[int, int]) -> Pending:
        buffer = io.BytesIO()
        Image.new("RGB", (size[1], size[0]), WHITE).save(buffer, "PNG")
        mask = np.zeros(size, np.uint8)
        example = Example(id=key, group=key, image=buffer.getvalue(), mask=mask)
        return Pending(split="train", id=key, read=lambda: example)

    return Collection(
        name="toy",
        place="memory",
        classes=CLASSES,
        count=len(sizes),
        stream=lambda: (pending(key, size) for key, size in sizes.items()),
    )


def whites(paper: Image.Image) -> list[tuple[int, int]]:
    """Height and width of each white picture of the first row."""
    white = (np.asarray(paper) == WHITE).all(axis=-1)
    rows = np.flatnonzero(white.any(axis=1))
    band = white[rows[0] : rows[0] + 192]
    edges = np.flatnonzero(np.diff(np.pad(band.any(axis=0), 1).astype(int)))
    return [
        (int(band[:, first:end].any(axis=1).sum()), int(end - first))
        for first, end in edges.reshape(-1, 2).tolist()
    ]


def test_images_keep_their_shapes():
    found = blank(square=(40, 40), wide=(20, 80), tall=(90, 30))
    assert whites(sheet.of(found, count=9)) == [(192, 192), (48, 192), (192, 64)]
    turned = sheet.of(found, count=9, augment=Augment(horizontal_flip=1.0))
    assert turned.height > sheet.of(found, count=9).height


def test_with_quarter_turns_all_are_letterboxed_to_squares():
    found = blank(wide=(20, 80), tall=(90, 30))
    made = sheet.of(found, count=9, augment=Augment(quarter_turns=True))
    assert whites(made) == [(48, 192), (192, 64)]


def test_examples_are_chosen_by_id_or_by_how_their_ids_begin():
    found = blank(a1=(10, 10), a10=(10, 20), b2=(10, 30), b3=(10, 40))

    def shapes(*ids: str) -> int:
        return len(whites(sheet.of(found, count=9, ids=ids)))

    assert [shapes("a1"), shapes("a"), shapes("b2", "a1"), shapes("a", "b")] == [1, 2, 2, 4]
    with pytest.raises(ValueError, match="toy has no example whose id is or begins with c"):
        sheet.of(found, count=9, ids=["a", "c"])


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


def test_the_command_draws_what_ids_ask_for(built_dsb2018, tmp_path, capsys):
    found = examples.built("dsb2018", data_dir=built_dsb2018, split="validation")
    first = next(found.stream()).id
    where = ["--data_dir", str(built_dsb2018), "--to", str(tmp_path / "sheet.png")]
    assert cli.main(["show", "dsb2018", "--ids", first[:20], *where]) == 0
    assert first[:20] in capsys.readouterr().out
    assert cli.main(["show", "dsb2018", "--split", "train", "--ids", first, *where]) == 2
    assert f"begins with {first}" in capsys.readouterr().err


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
        sheet.sheet(list(packed(3)), names, classes=CLASSES, title=names[0])
        for names in (ids, escaped)
    )
    assert np.array_equal(np.asarray(one), np.asarray(other))


def written(text: str) -> np.ndarray:
    picture = Image.new("RGB", (120, 24))
    lettering.write(ImageDraw.Draw(picture), (4, 12), text, size=12, fill=(255, 255, 255))
    return np.asarray(picture)


def test_latin_letters_are_drawn_and_others_are_drawn_or_escaped(monkeypatch):
    assert lettering.legible("Zelle_é_ß_Ø") == "Zelle_é_ß_Ø"
    letters = [written(letter) for letter in "éèêe"]
    assert all((one != other).any() for i, one in enumerate(letters) for other in letters[:i])
    lettering._path.cache_clear()
    monkeypatch.setattr(lettering, "_files", lambda: ())
    assert lettering.legible("katze_猫") == "katze_\\u732b"
    assert np.array_equal(written("猫"), written("\\u732b"))
    lettering._path.cache_clear()


def test_letters_that_pillow_lacks_come_from_a_font_of_the_machine():
    strange = [each for each in "жλאش猫" if lettering._path(each)]
    if not strange:
        pytest.skip("this machine has no font with other letters")
    assert (written(strange[0]) != written("\\u0436")).any()
    assert written(f"a{strange[0]}").any()
    assert lettering.legible(strange[0]) == strange[0]


def test_a_long_name_is_cut_to_its_width():
    short = lettering.shortened("m" * 200, size=12, width=90)
    assert short.endswith("…")
    assert lettering.length(short, size=12) <= 90 < lettering.length(f"m{short}", size=12)
    assert lettering.shortened("il", size=12, width=90) == "il"

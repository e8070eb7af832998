import io
import pathlib
import shutil
import struct
import time
import zipfile
import zlib

import numpy as np
import pytest
import reading
from PIL import Image

from segdata import archives
from segdata.archives import trees
from segdata.sources import dsb2018

KEY = "ab12"
RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (12, 9, 3), np.uint8)
NUCLEUS = np.zeros((12, 9), bool)
NUCLEUS[2:5, 3:7] = True


def png(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def source(folder: pathlib.Path, files: dict[str, bytes]) -> trees.Tree:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return trees.open(folder)


def example(folder: pathlib.Path, *, image: bytes, mask: bytes) -> dsb2018.Example:
    files = {f"{KEY}/images/{KEY}.png": image, f"{KEY}/masks/1.png": mask}
    (found,) = reading.nuclei(source(folder, files))
    return found


def decoded(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    assert image.mode == "RGB"
    return np.asarray(image)


RGB = png(Image.fromarray(COLOURS))
MASK = png(Image.fromarray(NUCLEUS.astype(np.uint8) * 255))
GREY = np.repeat(COLOURS[..., :1], 3, axis=-1)
ALPHA = np.full((12, 9, 1), 7, np.uint8)
PALETTE = Image.fromarray(COLOURS).quantize(16)
IMAGES = {
    "RGBA": (Image.fromarray(np.concatenate([COLOURS, ALPHA], -1)), COLOURS),
    "grey": (Image.fromarray(COLOURS[..., 0]), GREY),
    "grey with alpha": (Image.fromarray(np.concatenate([COLOURS[..., :1], ALPHA], -1)), GREY),
    "palette": (PALETTE, np.asarray(PALETTE.convert("RGB"))),
    "16-bit grey": (Image.fromarray(COLOURS[..., 0].astype(np.uint16) * 257), GREY),
}
WHITE = np.repeat(NUCLEUS[..., None], 3, axis=-1).astype(np.uint8) * 255
TWO_COLOURS = Image.fromarray(NUCLEUS.astype(np.uint8) + 1, "P")
TWO_COLOURS.putpalette([9, 9, 9, 0, 0, 0, 0, 200, 0])
MASKS = {
    "8-bit": Image.fromarray(NUCLEUS.astype(np.uint8) * 255),
    "1-bit": Image.fromarray(NUCLEUS),
    "RGB": Image.fromarray(WHITE),
    "RGBA, opaque everywhere": Image.fromarray(np.dstack([WHITE, np.full((12, 9), 255, np.uint8)])),
    "blue alone": Image.fromarray(WHITE * np.array([0, 0, 1], np.uint8)),
    "palette whose black is 1": TWO_COLOURS,
    "16-bit": Image.fromarray(NUCLEUS.astype(np.uint16) * 65535),
    "zero and one": Image.fromarray(NUCLEUS.astype(np.uint8)),
}


def test_an_rgb_image_passes_through_untouched(tmp_path):
    assert example(tmp_path, image=RGB, mask=MASK).image == RGB


@pytest.mark.parametrize("kind", IMAGES)
def test_every_kind_of_png_becomes_8_bit_rgb(tmp_path, kind):
    image, expected = IMAGES[kind]
    np.testing.assert_array_equal(
        decoded(example(tmp_path, image=png(image), mask=MASK).image), expected
    )


def test_16_bit_colour_is_encoded_anew_though_pillow_calls_it_rgb(tmp_path):
    deep = _png16(COLOURS.astype(np.uint16) * 257)
    found = example(tmp_path, image=deep, mask=MASK)
    assert found.image != deep
    np.testing.assert_array_equal(decoded(found.image), COLOURS)


@pytest.mark.parametrize("kind", MASKS)
def test_every_kind_of_mask_marks_the_same_nucleus(tmp_path, kind):
    found = example(tmp_path, image=RGB, mask=png(MASKS[kind]))
    np.testing.assert_array_equal(found.mask, NUCLEUS.astype(np.uint8))
    np.testing.assert_array_equal(found.instances, NUCLEUS.astype(np.uint16))
    assert (found.mask.dtype, found.id, found.group) == (np.uint8, KEY, KEY)


def test_nuclei_are_numbered_by_name_and_overlap_is_counted(tmp_path):
    shifted = png(Image.fromarray(np.roll(NUCLEUS, 1, axis=0)))
    files = {
        f"{KEY}/images/x.png": RGB,
        f"{KEY}/masks/b.png": MASK,
        f"{KEY}/masks/a-2.png": shifted,
    }
    (found,) = reading.nuclei(source(tmp_path, files))
    assert found.instances is not None
    assert (found.instances[2, 3], found.instances[5, 3]) == (2, 1)
    assert found.overlap == 8


def test_unlabelled_images_are_unknown_everywhere(tmp_path):
    tree = source(tmp_path, {f"{KEY}/images/{KEY}.png": RGB})
    (entry,), _ = dsb2018.survey_unlabelled(tree)
    found = dsb2018.read_example(tree, entry)
    np.testing.assert_array_equal(found.mask, np.full((12, 9), 255, np.uint8))
    assert found.instances is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"readme.txt": b""}, "no source of dsb2018"),
        ({f"{KEY}/images/{KEY}.png": RGB}, f"{KEY} has an image and no masks"),
        ({f"{KEY}/masks/1.png": MASK, "x/images/x.png": RGB}, f"{KEY} has masks and 0 images"),
        (
            {f"{KEY}/images/1.png": RGB, f"{KEY}/images/2.png": RGB, f"{KEY}/masks/1.png": MASK},
            f"{KEY} has 2 images",
        ),
        (
            {f"a/{KEY}/images/1.png": RGB, f"b/{KEY}/images/1.png": RGB},
            f"{KEY} has 2 images",
        ),
        (
            {f"{KEY}/images/1.png": RGB, f"{KEY}/masks/1.png": png(Image.new("L", (9, 11)))},
            rf"{KEY}/masks/1\.png is 9×11, its image 9×12",
        ),
        (
            {f"{KEY}/images/1.png": RGB[:100], f"{KEY}/masks/1.png": MASK},
            rf"{KEY}/images/1\.png is no readable PNG",
        ),
        (
            {f"{KEY}/images/1.png": RGB, f"{KEY}/masks/1.png": b"GIF89a"},
            rf"{KEY}/masks/1\.png is a GIF, not a PNG",
        ),
        (
            {f"{KEY}/images/1.png": RGB[:60] + b"\0\0\0\0" + RGB[64:], f"{KEY}/masks/1.png": MASK},
            rf"{KEY}/images/1\.png is no readable PNG",
        ),
    ],
)
def test_faults_name_the_source_and_the_example(tmp_path, files, message):
    with pytest.raises(archives.ArchiveError, match=message) as caught:
        list(reading.nuclei(source(tmp_path, files)))
    assert str(tmp_path) in str(caught.value)


def test_more_masks_than_can_be_numbered_are_a_fault_of_their_image():
    names = ["a/images/a.png", "a/masks/a.png", "b/images/b.png"]
    names += [f"b/masks/{number}.png" for number in range(65_536)]
    tree = trees.Tree("some.zip", dict.fromkeys(names, pathlib.Path("png")))
    (entry,), faults = dsb2018.survey(tree)
    assert entry.id == "a"
    assert list(faults) == ["b"]
    assert "some.zip: b has 65,536 masks, more than the 65,535" in faults["b"]


def test_what_was_drawn_is_what_is_read(drawn_dsb2018):
    tree = trees.open(drawn_dsb2018 / "stage1_train.zip")
    for entry, found in zip(dsb2018.survey(tree)[0], reading.nuclei(tree), strict=True):
        raw = np.asarray(Image.open(io.BytesIO(tree.read(entry.image))))
        np.testing.assert_array_equal(decoded(found.image), raw[..., :3])
        assert (raw[..., 3] == 255).all()
        assert found.instances is not None
        for number, name in enumerate(entry.masks, start=1):
            drawn = np.asarray(Image.open(io.BytesIO(tree.read(name))))
            np.testing.assert_array_equal(drawn == 255, found.instances == number)
        assert 5 <= len(entry.masks) <= 60
        assert found.overlap == 0
        assert len(entry.id) == 64


def test_the_drawn_kinds_are_all_there_and_mostly_dim(drawn_dsb2018):
    tree = trees.open(drawn_dsb2018 / "stage1_train.zip")
    images = [decoded(example.image).astype(float) for example in reading.nuclei(tree)]
    coloured = [np.ptp(image, axis=-1).mean() > 10 for image in images]
    bright = [image.mean() > 100 for image in images]
    assert 2 <= sum(coloured) <= 6
    assert sum(bright) - sum(coloured) >= 1
    assert sum(bright) <= 7


def test_a_drawing_depends_on_its_seed_alone(tmp_path, monkeypatch):
    dsb2018.draw(tmp_path / "a", examples=3, seed=5, unlabelled=1)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    dsb2018.draw(tmp_path / "b", examples=3, seed=5, unlabelled=1)
    dsb2018.draw(tmp_path / "c", examples=3, seed=6, unlabelled=1)
    a, b, c = (trees.open(tmp_path / name) for name in "abc")
    assert {name: a.read(name) for name in a.names} == {name: b.read(name) for name in b.names}
    assert not set(a.names) & set(c.names)


def test_folders_and_zips_hold_the_same_drawing(tmp_path):
    dsb2018.draw(tmp_path / "folders", examples=2, seed=5, unlabelled=1)
    for name in ("zips", "again"):
        dsb2018.draw_zips(tmp_path / name, examples=2, seed=5, unlabelled=1)
    for part in ("stage1_train", "stage1_test"):
        folder = trees.open(tmp_path / "folders" / part)
        packed = trees.open(tmp_path / "zips" / f"{part}.zip")
        assert folder.names == packed.names
        assert all(folder.read(name) == packed.read(name) for name in folder.names)
        zips = [(tmp_path / name / f"{part}.zip").read_bytes() for name in ("zips", "again")]
        assert zips[0] == zips[1]


@pytest.mark.parametrize("draw", [dsb2018.draw, dsb2018.draw_zips])
def test_drawing_never_writes_over_a_source(tmp_path, draw):
    (tmp_path / "stage1_train.zip").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=r"stage1_train\.zip exists"):
        draw(tmp_path, examples=1, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["stage1_train.zip"]


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ValueError, match="examples=0"):
        dsb2018.draw(tmp_path, examples=0, seed=0)


def test_the_real_images_are_read(real_dsb2018):
    start = time.monotonic()
    tree = trees.open(real_dsb2018 / "stage1_train.zip")
    entries = dsb2018.survey(tree)[0]
    assert time.monotonic() - start < 2
    assert len(entries) == 261
    assert [entry.id for entry in entries] == sorted(entry.id for entry in entries)
    for entry in entries[::40]:
        found = dsb2018.read_example(tree, entry)
        assert found.instances is not None
        assert found.instances.max() == len(entry.masks)
        assert decoded(found.image).shape[:2] == found.mask.shape
        assert set(np.unique(found.mask)) == {0, 1}


def _png16(pixels: np.ndarray) -> bytes:
    """An RGB PNG of 16 bits, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_a_survey_lists_what_is_whole_and_names_the_rest(drawn_dsb2018, tmp_path):
    with zipfile.ZipFile(drawn_dsb2018 / "stage1_train.zip") as archive:
        archive.extractall(tmp_path / "stage1_train")
    lone, two, bare, *whole = sorted(path.name for path in (tmp_path / "stage1_train").iterdir())
    shutil.rmtree(tmp_path / "stage1_train" / lone / "images")
    (tmp_path / "stage1_train" / two / "images" / "second.png").write_bytes(b"")
    shutil.rmtree(tmp_path / "stage1_train" / bare / "masks")
    entries, faults = dsb2018.survey(trees.open(tmp_path / "stage1_train"))
    assert [entry.id for entry in entries] == whole
    assert list(faults) == [lone, two, bare]
    for key, fault in {lone: "0 images", two: "2 images", bare: "no masks"}.items():
        assert key in faults[key]
        assert fault in faults[key]
    unlabelled, faults = dsb2018.survey_unlabelled(trees.open(tmp_path / "stage1_train"))
    assert [entry.id for entry in unlabelled] == [bare, *whole]
    assert list(faults) == [lone, two]

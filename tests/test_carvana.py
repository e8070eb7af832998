import functools
import io
import pathlib

import numpy as np
import pytest
import reading
from PIL import Image

from segdata import archives
from segdata.archives import trees
from segdata.sources import carvana
from segdata.testing import layouts

KEY = "0cdf5b5d0ce1_01"
RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (12, 9, 3), np.uint8)
CAR = np.zeros((12, 9), np.uint8)
CAR[2:7, 3:8] = 1
SMALL = (64, 96)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def palette_gif(*colours: int, indices: np.ndarray = CAR) -> bytes:
    image = Image.fromarray(indices).convert("P")
    image.putpalette(list(colours))
    return encoded(image, "GIF", optimize=False)


def opened(folder: pathlib.Path, files: dict[str, bytes]) -> tuple[trees.Tree, trees.Tree]:
    for part in ("train_hq", "train_masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return trees.open(folder / "train_hq"), trees.open(folder / "train_masks")


def example(folder: pathlib.Path, *, photo: bytes, mask: bytes) -> carvana.Example:
    files = {f"train_hq/{KEY}.jpg": photo, f"train_masks/{KEY}_mask.gif": mask}
    (found,) = reading.cars(*opened(folder, files))
    return found


def pixels(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    assert image.mode == "RGB"
    return np.asarray(image)


RGB = encoded(Image.fromarray(COLOURS), "JPEG")
GIF = palette_gif(0, 0, 0, 255, 255, 255)
MASKS = {
    "black and white": GIF,
    "white and black, turned": palette_gif(255, 255, 255, 0, 0, 0, indices=1 - CAR),
    "grey levels": encoded(Image.fromarray(CAR * 255), "GIF"),
    "grey levels of 0 and 1": encoded(Image.fromarray(CAR), "GIF"),
    "nearly black and nearly white": palette_gif(3, 0, 6, 250, 255, 251),
    "other indices": palette_gif(9, 9, 9, 0, 0, 0, 200, 201, 202, indices=CAR + 1),
}


def test_an_upright_rgb_photo_passes_through_untouched(tmp_path):
    found = example(tmp_path, photo=RGB, mask=GIF)
    assert found.image == RGB
    assert found.renewed == ""
    assert (found.id, found.group) == (KEY, "0cdf5b5d0ce1")


@pytest.mark.parametrize("shape", [(1, 1), (7, 30), (30, 7), (8, 8)])
def test_a_photo_smaller_than_a_block_of_its_jpeg_is_read(tmp_path, shape):
    photo = encoded(Image.fromarray(np.full((*shape, 3), 90, np.uint8)), "JPEG")
    mask = palette_gif(0, 0, 0, 255, 255, 255, indices=np.ones(shape, np.uint8))
    found = example(tmp_path, photo=photo, mask=mask)
    assert found.image == photo
    np.testing.assert_array_equal(found.mask, np.ones(shape))


@pytest.mark.parametrize("kind", MASKS)
def test_every_kind_of_mask_marks_the_same_car(tmp_path, kind):
    found = example(tmp_path, photo=RGB, mask=MASKS[kind])
    assert found.mask.dtype == np.uint8
    np.testing.assert_array_equal(found.mask, CAR)


def test_an_empty_mask_stays_empty(tmp_path):
    mask = palette_gif(0, 0, 0, 255, 255, 255, indices=0 * CAR)
    assert not example(tmp_path, photo=RGB, mask=mask).mask.any()


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_exif_orientation_is_applied_and_noted(tmp_path, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    smooth = np.dstack([np.add.outer(np.arange(16) * 9, np.arange(24) * 4)] * 3).astype(np.uint8)
    upright = smooth if turn < 5 else smooth.transpose(1, 0, 2)
    photo = encoded(Image.fromarray(smooth), "JPEG", quality=95, exif=exif.tobytes())
    mask = palette_gif(0, 0, 0, 255, 255, 255, indices=np.zeros(upright.shape[:2], np.uint8))
    found = example(tmp_path, photo=photo, mask=mask)
    assert found.renewed == ("" if turn == 1 else f"EXIF orientation {turn}")
    expected = {
        1: smooth,
        2: smooth[:, ::-1],
        3: smooth[::-1, ::-1],
        4: smooth[::-1],
        5: upright,
        6: upright[:, ::-1],
        7: upright[::-1, ::-1],
        8: upright[::-1],
    }[turn]
    difference = np.abs(pixels(found.image).astype(int) - expected)
    assert difference.max() <= 6
    assert Image.open(io.BytesIO(found.image)).getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_photo_of_another_mode_becomes_rgb_and_is_noted(tmp_path, mode):
    smooth = Image.fromarray(np.full((12, 9, 3), (90, 140, 200), np.uint8)).convert(mode)
    found = example(tmp_path, photo=encoded(smooth, "JPEG", quality=95), mask=GIF)
    expected = np.asarray(smooth.convert("RGB")).astype(int)
    assert np.abs(pixels(found.image) - expected).max() <= 4
    assert found.renewed == f"mode {mode}"


def test_unlabelled_photos_are_unknown_everywhere(tmp_path):
    photos, _ = opened(tmp_path, {f"train_hq/{KEY}.jpg": RGB})
    (entry,), _ = carvana.survey_unlabelled(photos)
    found = carvana.read_example(entry, photos=photos)
    np.testing.assert_array_equal(found.mask, np.full((12, 9), 255, np.uint8))


PHOTO, MASK = f"train_hq/{KEY}.jpg", f"train_masks/{KEY}_mask.gif"
FRAMES = encoded(
    Image.fromarray(CAR * 255), "GIF", save_all=True, append_images=[Image.fromarray(0 * CAR)]
)
FAULTS = {
    "nothing": ({}, r"train_hq: there is no <12 hex digits>_<view>\.jpg"),
    "no masks": ({PHOTO: RGB}, r"train_masks: there is no <car>_<view>_mask\.gif"),
    "a photo without its mask": (
        {PHOTO: RGB, MASK: GIF, "train_hq/0cdf5b5d0ce1_02.jpg": RGB},
        r"train_hq: 0cdf5b5d0ce1_02\.jpg has no 0cdf5b5d0ce1_02_mask\.gif in .*train_masks",
    ),
    "a mask without its photo": (
        {PHOTO: RGB, MASK: GIF, "train_masks/0cdf5b5d0ce1_02_mask.gif": GIF},
        r"train_masks: 0cdf5b5d0ce1_02_mask\.gif has no photo 0cdf5b5d0ce1_02\.jpg in .*train_hq",
    ),
    "a photo twice": (
        {PHOTO: RGB, PHOTO.replace("jpg", "JPG"): RGB, MASK: GIF},
        "are the same example",
    ),
    "a foreign photo": (
        {PHOTO: RGB, MASK: GIF, "train_hq/holiday.jpg": RGB},
        r"holiday\.jpg is not called",
    ),
    "a mask of another size": (
        {PHOTO: RGB, MASK: palette_gif(0, 0, 0, 9, 9, 9, indices=CAR.T)},
        rf"{KEY}_mask\.gif is 12×9, its photo 9×12",
    ),
    "a mask of two frames": ({PHOTO: RGB, MASK: FRAMES}, rf"{KEY}_mask\.gif has 2 frames"),
    "a mask that is no GIF": ({PHOTO: RGB, MASK: RGB}, rf"{KEY}_mask\.gif is a JPEG, not a GIF"),
    "a cut mask": ({PHOTO: RGB, MASK: GIF[:-12]}, rf"{KEY}_mask\.gif is no readable GIF"),
    "a photo that is no JPEG": ({PHOTO: GIF, MASK: GIF}, rf"{KEY}\.jpg is a GIF, not a JPEG"),
    "a cut photo": ({PHOTO: RGB[:-60], MASK: GIF}, rf"{KEY}\.jpg is no readable JPEG"),
    "an empty photo": ({PHOTO: b"", MASK: GIF}, rf"{KEY}\.jpg is empty"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_names_the_archive_and_the_file(tmp_path, kind):
    files, message = FAULTS[kind]
    with pytest.raises(archives.ArchiveError, match=message) as caught:
        list(reading.cars(*opened(tmp_path, files)))
    assert str(tmp_path) in str(caught.value)


def test_what_was_drawn_is_what_is_read(drawn_carvana):
    photos, labels = (
        trees.open(drawn_carvana / f"{name}.zip").sub(name) for name in ("train_hq", "train_masks")
    )
    found = list(reading.cars(photos, labels))
    assert len(found) == 12
    for item in found:
        assert item.image == photos.read(f"{item.id}.jpg")
        gif = Image.open(io.BytesIO(labels.read(f"{item.id}_mask.gif")))
        assert (gif.format, gif.mode, gif.info["version"]) == ("GIF", "P", b"GIF89a")
        np.testing.assert_array_equal(np.asarray(gif), item.mask)
        assert set(np.unique(item.mask)) == {0, 1}


def test_drawn_photos_are_like_real_ones(tmp_path):
    carvana.draw(tmp_path, examples=2, seed=3, views=1, write=layouts.folders)
    for item in reading.cars(*opened(tmp_path, {})):
        jpeg = Image.open(io.BytesIO(item.image))
        assert (jpeg.size, jpeg.mode) == ((1918, 1280), "RGB")
        assert getattr(jpeg, "layer", [(0, 2, 2)])[0][1:3] == (2, 2)  # 4:2:0
        assert 70_000 < len(item.image) < 300_000
        assert 0.09 < item.mask.mean() < 0.37


def test_views_of_a_car_differ_and_a_car_can_be_told_from_its_ground(drawn_carvana):
    photos, labels = (
        trees.open(drawn_carvana / f"{name}.zip").sub(name) for name in ("train_hq", "train_masks")
    )
    by_car: dict[str, list[np.ndarray]] = {}
    for item in reading.cars(photos, labels):
        by_car.setdefault(item.group, []).append(item.mask)
        image, car = pixels(item.image).astype(float), item.mask == 1
        assert np.abs(image[car].mean(axis=0) - image[~car].mean(axis=0)).max() > 10
    assert [len(views) for views in by_car.values()] == [4, 4, 4]
    for views in by_car.values():
        assert len({view.tobytes() for view in views}) == 4


def test_a_drawing_depends_on_its_arguments_alone(tmp_path, monkeypatch):
    draw = functools.partial(carvana.draw, examples=3, unlabelled=1, size=SMALL, views=2)
    draw(tmp_path / "a", seed=5)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    draw(tmp_path / "b", seed=5)
    draw(tmp_path / "c", seed=6)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["test_hq.zip", "train_hq.zip", "train_masks.zip"]
    for name in names:
        a, b, c = ((tmp_path / place / name).read_bytes() for place in "abc")
        assert a == b != c


def test_low_quality_draws_the_same_cars_in_fewer_bytes(tmp_path):
    draw = functools.partial(carvana.draw, examples=1, seed=5, size=SMALL, write=layouts.folders)
    draw(tmp_path / "high")
    draw(tmp_path / "low", quality="low")
    (high,) = (tmp_path / "high" / "train_hq").iterdir()
    (low,) = (tmp_path / "low" / "train").iterdir()
    assert high.name == low.name
    assert low.stat().st_size < high.stat().st_size


@pytest.mark.parametrize("taken", ["train_hq", "train_masks", "test_hq"])
def test_drawing_never_writes_over_a_source(tmp_path, taken):
    (tmp_path / f"{taken}.zip").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=rf"{taken}\.zip exists"):
        carvana.draw(tmp_path, examples=1, seed=0, unlabelled=1, size=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == [f"{taken}.zip"]


@pytest.mark.parametrize("wrong", [{"examples": 0}, {"unlabelled": -1}, {"views": 17}])
def test_nothing_to_draw_is_refused(tmp_path, wrong):
    arguments = {"examples": 1, "seed": 0, "size": SMALL} | wrong
    with pytest.raises(ValueError, match="draw at least one"):
        carvana.draw(tmp_path, **arguments)

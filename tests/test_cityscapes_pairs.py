import functools
import io
import pathlib

import numpy as np
import pytest
import reading
from PIL import Image

from segdata import archives
from segdata.archives import trees
from segdata.core import IGNORE_LABEL
from segdata.sources import cityscapes_pairs
from segdata.sources.cityscapes_pairs import CLASSES, PALETTE
from segdata.testing import layouts

COLOURS = np.array(list(PALETTE.values()), np.uint8)
ROAD = CLASSES.index("road")


def encoded(pixels: np.ndarray, *, quality: int = 90, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, **options)
    return buffer.getvalue()


def pair(index: int, quality: int, sampling: str = "4:2:0") -> tuple[bytes, np.ndarray, np.ndarray]:
    """A drawn pair as a JPEG, its photo as drawn, and its true classes."""
    photo, labels = cityscapes_pairs.scene(index, seed=7)
    both = np.concatenate([photo, COLOURS[labels]], axis=1)
    return encoded(both, quality=quality, subsampling=sampling), photo, labels


def source(folder: pathlib.Path, files: dict[str, bytes]) -> trees.Tree:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return trees.open(folder)


def example(folder: pathlib.Path, data: bytes, config: str = "road") -> cityscapes_pairs.Example:
    (found,) = reading.streets(source(folder, {"train/1.jpg": data}), config)
    return found


def decoded(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("quality", [70, 75, 80, 85, 90, 95])
def test_the_road_is_found_where_it_is(tmp_path, quality, record_property):
    both = either = unknown = right = wrong = 0
    for index in range(8):
        data, _, labels = pair(index, quality)
        found = example(tmp_path, data).mask
        known, true = found != IGNORE_LABEL, labels == ROAD
        both += np.count_nonzero(known & (found == 1) & true)
        either += np.count_nonzero(known & ((found == 1) | true))
        unknown += np.count_nonzero(~known)
        classes = example(tmp_path, data, "classes").mask
        right += np.count_nonzero(classes == labels)
        wrong += np.count_nonzero((classes != labels) & (classes != IGNORE_LABEL))
    pixels = 8 * 256 * 256
    figures = {
        "road IoU": both / either,
        "road 255": unknown / pixels,
        "classes right": right / (right + wrong),
        "classes 255": 1 - (right + wrong) / pixels,
    }
    for name, value in figures.items():
        record_property(name, round(float(value), 5))
    print(quality, {name: round(value, 4) for name, value in figures.items()})
    assert both / either >= 0.995
    assert unknown / pixels < 0.08
    assert right / (right + wrong) >= 0.99
    assert 1 - (right + wrong) / pixels < 0.13


def test_every_colour_of_the_palette_is_its_own_class(tmp_path):
    colours = np.repeat(np.repeat(COLOURS[None], 16, axis=0), 16, axis=1)
    np.testing.assert_array_equal(
        cityscapes_pairs.classes(colours)[0, ::16], np.arange(len(CLASSES))
    )
    np.testing.assert_array_equal(
        cityscapes_pairs.road(colours)[0, ::16], np.arange(len(CLASSES)) == ROAD
    )


def test_the_palette_is_that_of_cityscapes():
    assert len(CLASSES) == len(set(PALETTE.values())) == 29
    assert CLASSES[:3] == ("road", "sidewalk", "building")
    assert CLASSES[18] == "bicycle"
    distances = np.linalg.norm(COLOURS[1:].astype(float) - COLOURS[0], axis=1)
    nearest = [CLASSES[1 + i] for i in np.argsort(distances)[:2]]
    assert set(nearest) == {"bridge", "wall"}
    assert 45 < distances.min() < 55


def test_a_colour_of_no_class_is_unknown():
    strange = np.full((4, 4, 3), (20, 255, 20), np.uint8)
    assert (cityscapes_pairs.road(strange) == IGNORE_LABEL).all()
    assert (cityscapes_pairs.classes(strange) == IGNORE_LABEL).all()


@pytest.mark.parametrize("quality", [75, 95])
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_the_photo_is_that_of_a_jpeg_without_the_mask(tmp_path, quality, sampling):
    data, photo, _ = pair(3, quality, sampling)
    found = decoded(example(tmp_path, data).image).astype(int)
    alone = decoded(encoded(photo, quality=quality, subsampling=sampling))
    np.testing.assert_array_equal(found[:, :-1], alone[:, :-1])
    assert np.abs(found[:, -1] - alone[:, -1]).max() <= 4
    naive = decoded(data)[:, 255].astype(int)
    if sampling != "4:4:4":  # what is mended is there to be mended
        assert np.abs(naive - alone[:, -1]).max() > 10


def test_a_number_of_thousands_of_digits_is_a_fault_of_its_file():
    names = ["train/1.jpg", f"train/{'9' * 5_000}.jpg"]
    tree = trees.Tree("some.zip", dict.fromkeys(names, pathlib.Path("photo")))
    (entry,), faults = cityscapes_pairs.survey(tree)
    assert entry.id == "train/1"
    assert list(faults) == names[1:]
    assert "is not called train/<number>.jpg" in faults[names[1]]


@pytest.mark.parametrize("width", [2, 18, 30, 62])
def test_any_even_width_is_split_in_the_middle(tmp_path, width):
    both = np.full((24, width, 3), PALETTE["road"], np.uint8)
    found = example(tmp_path, encoded(both, subsampling="4:4:4"))
    assert decoded(found.image).shape == (24, width // 2, 3)
    np.testing.assert_array_equal(found.mask, np.ones((24, width // 2), np.uint8))


def test_pairs_come_by_split_and_number(tmp_path):
    data = encoded(np.zeros((16, 32, 3), np.uint8))
    names = ["val/1.jpg", "train/10.jpg", "train/2.jpg", "train/1.jpg"]
    tree = source(tmp_path, dict.fromkeys(names, data))
    found = list(reading.streets(tree))
    assert [item.id for item in found] == ["train/1", "train/2", "train/10", "val/1"]
    assert [item.group for item in found] == [item.id for item in found]


GREY = np.zeros((16, 32), np.uint8)
FAULTS = {
    "nothing": ({"readme.txt": b""}, "no source of cityscapes_pairs"),
    "another name": ({"train/one.jpg": b""}, r"train/one\.jpg is not called"),
    "another folder": ({"test/1.jpg": b""}, r"test/1\.jpg is not called"),
    "twice": (
        {"train/1.jpg": b"", "again/train/1.jpg": b""},
        r"again/train/1\.jpg and train/1\.jpg are the same pair",
    ),
    "an odd width": (
        {"val/3.jpg": encoded(np.zeros((16, 33, 3), np.uint8))},
        r"val/3\.jpg is 33 pixels wide",
    ),
    "grey": ({"val/3.jpg": encoded(GREY)}, r"val/3\.jpg has the colours L"),
    "cut": ({"val/3.jpg": pair(0, 90)[0][:-400]}, r"val/3\.jpg is no readable JPEG"),
    "empty": ({"val/3.jpg": b""}, r"val/3\.jpg is empty"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_names_the_archive_and_the_file(tmp_path, kind):
    files, message = FAULTS[kind]
    with pytest.raises(archives.ArchiveError, match=message) as caught:
        list(reading.streets(source(tmp_path, files)))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", cityscapes_pairs.DOWNLOADS)
def test_what_was_drawn_is_found_under_either_name_of_the_download(tmp_path, name):
    cityscapes_pairs.draw(tmp_path, examples=8, seed=7)
    (drawn,) = tmp_path.iterdir()
    drawn.rename(tmp_path / f"{name}.zip")
    tree = trees.find(tmp_path, cityscapes_pairs.FOLDER, within=cityscapes_pairs.DOWNLOADS)
    assert tree is not None
    found = list(reading.streets(tree, "classes"))
    assert [item.id for item in found] == [*(f"train/{n}" for n in range(1, 8)), "val/1"]
    for index, item in enumerate(found):
        photo, labels = cityscapes_pairs.scene(index, seed=7)
        assert np.abs(decoded(item.image) - photo.astype(int)).mean() < 6
        known = item.mask != IGNORE_LABEL
        assert np.mean((item.mask == labels)[known]) > 0.99


def test_drawn_pairs_are_like_real_ones(tmp_path):
    cityscapes_pairs.draw(tmp_path, examples=8, seed=2, write=layouts.folders)
    tree = trees.open(tmp_path)
    sizes = set()
    for entry in cityscapes_pairs.survey(tree)[0]:
        data = tree.read(entry.image)
        jpeg = Image.open(io.BytesIO(data))
        assert (jpeg.size, jpeg.mode) == ((512, 256), "RGB")
        sizes.add(len(data))
        road = (cityscapes_pairs.scene(0, seed=2).labels == ROAD).mean()
        assert 0.1 < road < 0.6
    assert len(sizes) == 8


def test_a_drawing_depends_on_its_arguments_alone(tmp_path, monkeypatch):
    draw = functools.partial(cityscapes_pairs.draw, examples=3)
    draw(tmp_path / "a", seed=5)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    draw(tmp_path / "b", seed=5)
    draw(tmp_path / "c", seed=6)
    a, b, c = (next((tmp_path / place).iterdir()).read_bytes() for place in "abc")
    assert a == b != c


@pytest.mark.parametrize("wrong", [{"examples": 0}, {"quality_range": (90, 80)}])
def test_nothing_to_draw_is_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="draw at least one"):
        cityscapes_pairs.draw(tmp_path, **({"examples": 1, "seed": 0} | wrong))

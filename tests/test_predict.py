import csv
import dataclasses
import errno
import functools
import json
import os
import pathlib
import re
import tracemalloc
import zipfile
from typing import Any

import foreign
import numpy as np
import own_folders as own
import pytest
import tensorflow_datasets as tfds
import tifffile
from PIL import Image

from segdata import packing
from segdata.archives import resizing
from segdata.archives.intensity import Scaling
from segdata.building.reading import Stored
from segdata.inspection import overlays
from unet import inference, metrics, predicting, results
from unet.data import Data
from unet.model import UNet
from unet.recipes import Recipe


def at(height: int, width: int, **changes: Any) -> Recipe:
    """A recipe of a size."""
    return Recipe(size=(height, width), model=UNet(filters=(2,)), **changes)


class Bright:
    """Foreground is what is bright; remembers what size it was shown."""

    jit_compile = False

    def __init__(self):
        self.seen: list[tuple[int, ...]] = []

    def predict_on_batch(self, images) -> np.ndarray:
        self.seen.append(images.shape)
        return images.mean(axis=-1, keepdims=True).astype(np.float32) / 255


def probability_of(network, seen: np.ndarray, *, shape: tuple[int, int]) -> np.ndarray:
    """The tiles that a mask is decided from, together: float32 [H, W, C]."""
    whole = None
    recipe = at(*seen.shape[:2])
    for rows, columns, part in inference.parts(network.predict_on_batch, seen, shape, recipe):
        assert part.dtype == np.float32
        if whole is None:
            whole = np.full((*shape, part.shape[-1]), np.nan, np.float32)
        whole[rows, columns] = part
    assert whole is not None
    return whole


def half_white(height: int, width: int) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = 255
    return image


@pytest.mark.parametrize(("height", "width"), [(16, 16), (161, 519), (5, 7), (1, 1), (300, 20)])
def test_a_probability_has_its_images_size(height, width):
    network, image = Bright(), half_white(height, width)
    seen = resizing.image(image, (16, 32))
    probability = probability_of(network, seen, shape=image.shape[:2])
    assert network.seen == [(1, 16, 32, 3)]
    assert probability.shape == (height, width, 1)
    assert probability.min() >= 0
    assert probability.max() <= 1


def test_what_is_on_the_left_stays_on_the_left():
    seen = resizing.image(half_white(60, 100), (16, 32))
    probability = probability_of(Bright(), seen, shape=(60, 100))
    assert probability[:, :45].max() < 0.1
    assert probability[:, 55:].min() > 0.9


@pytest.mark.parametrize("shape", [(97, 131), (200, 90), (7, 9), (16, 32)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_what_the_model_sees_of_a_file_is_what_packing_makes_of_it(tmp_path, shape, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    path = tmp_path / f"noise.{kind.lower()}"
    Image.fromarray(pixels).save(path, kind)
    mask = np.zeros(shape, np.uint8)
    rule = packing.Rule.of((16, 32), fit="stretch", has_instances=False)
    row = packing.row(Stored(id="noise", group="", image=path.read_bytes(), mask=mask), rule)
    assert isinstance(row, np.ndarray)
    image, seen = predicting.read(path, seen=lambda *_: (16, 32))
    assert image.shape == pixels.shape
    np.testing.assert_array_equal(seen, row[..., :3])
    if kind == "PNG":
        np.testing.assert_array_equal(image, pixels)
        np.testing.assert_array_equal(seen, resizing.image(pixels, (16, 32)))


def test_several_classes_are_written_by_number_and_drawn_in_their_colours(tmp_path):
    class Thirds:
        jit_compile = False

        def predict_on_batch(self, images) -> np.ndarray:
            place = np.arange(images.shape[2]) * 3 // images.shape[2]
            return np.broadcast_to(np.eye(3, dtype=np.float32)[place], images.shape)

    Image.fromarray(half_white(12, 30)).save(tmp_path / "a.png")
    assert list(
        predicting.files(
            Thirds(),
            [tmp_path / "a.png"],
            recipe=at(8, 24),
            classes=("road", "car", "sky"),
            to=tmp_path,
        )
    ) == [
        (
            tmp_path / "a.png",
            None,
            tuple(tmp_path / f"a.{kind}.png" for kind in ("mask", "overlay")),
            (12, 30, 3),
        )
    ]
    with Image.open(tmp_path / "a.mask.png") as image:
        assert np.array_equal(np.asarray(image), np.arange(30)[None] // 10 + np.zeros((12, 1)))
    with Image.open(tmp_path / "a.overlay.png") as image:
        assert np.array_equal(
            np.asarray(image)[5, [9, 10, 19, 20]], overlays.palette(3)[[0, 1, 1, 2]]
        )


@pytest.mark.parametrize(
    ("mode", "suffix"), [("RGB", "jpg"), ("RGBA", "png"), ("L", "png"), ("P", "gif"), ("1", "png")]
)
def test_eight_bit_images_are_read_as_rgb(tmp_path, mode, suffix):
    Image.fromarray(half_white(8, 8)).convert(mode).save(tmp_path / f"image.{suffix}")
    pixels, _ = predicting.read(tmp_path / f"image.{suffix}", seen=lambda *_: (8, 8))
    assert np.allclose(pixels, half_white(8, 8), atol=3)


def test_a_file_that_is_no_8_bit_image_is_named_with_its_fault(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    Image.fromarray(half_white(64, 64)).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "deep.png")
    for name, fault in [
        ("text.png", "is no picture"),
        ("cut.png", "it is cut after"),
        ("deep.png", "8 bits"),
        ("none.png", "there is no such file"),
        (".", "a folder"),
    ]:
        with pytest.raises((ValueError, OSError), match=fault) as caught:
            predicting.read(tmp_path / name, seen=lambda *_: (8, 8))
        assert str(tmp_path / name) in str(caught.value)


def camera(seed: int) -> np.ndarray:
    """Levels of a 12-bit camera: uint16 [H, W]."""
    return own.photo(seed)[..., 0].astype(np.uint16) * 13 + 100


def turned(path: pathlib.Path, seed: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(own.photo(seed)).save(path, exif=exif)


def ome(path: pathlib.Path, seed: int) -> None:
    axes = {"axes": "ZCYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    planes = [[camera(seed + 3 * n), camera(seed + 3 * n) * 2] for n in range(2)]
    tifffile.imwrite(path, np.array(planes), ome=True, metadata=axes)


FILES = {
    "12-bit TIFF": ("tif", lambda path, seed: tifffile.imwrite(path, camera(seed)), []),
    "big-endian": (
        "tif",
        lambda path, seed: tifffile.imwrite(path, camera(seed), byteorder=">"),
        [],
    ),
    "16-bit PNG": ("png", lambda path, seed: Image.fromarray(camera(seed)).save(path), []),
    "channels of a page": ("ome.tif", ome, ["--page", "1", "--channels", "GFP", "0"]),
    "a range": (
        "tif",
        lambda path, seed: tifffile.imwrite(path, camera(seed) / np.float32(100)),
        ["--range", "2", "30"],
    ),
    "grey PNG": ("png", lambda path, s: Image.fromarray(own.photo(s)[..., 1]).save(path), []),
    "turned by EXIF": ("png", turned, []),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_seen_as_the_dataset_that_was_built_of_it_has_it(tmp_path, kind):
    ending, write, flags = FILES[kind]
    for seed in range(3):
        (tmp_path / "images").mkdir(exist_ok=True)
        write(tmp_path / "images" / f"x{seed}.{ending}", seed)
        shape = (own.SIZE[1], own.SIZE[0]) if write is turned else own.SIZE
        own.write(tmp_path / "masks" / f"x{seed}.png", own.classes(seed, shape))
    code, _, fault = own.build(tmp_path, "--masks", tmp_path / "masks", *flags)
    assert code == 0, fault
    metadata = dict(tfds.builder("mine", data_dir=tmp_path / "data").info.metadata or {})
    kept = metadata["intensity"] and Scaling.from_json(metadata["intensity"])
    for key, example in own.examples(tmp_path).items():
        path = tmp_path / "images" / f"{key}.{ending}"
        image, seen = predicting.read(path, seen=lambda *_: (16, 24), scaling=kept)
        np.testing.assert_array_equal(image, example["image"])
        np.testing.assert_array_equal(seen, resizing.image(example["image"], (16, 24)))


def test_bands_and_value_range_of_somebody_elses_dataset_are_kept_too(tmp_path):
    foreign.SatelliteLike(data_dir=tmp_path).download_and_prepare()
    features = {"image": "bands", "mask": "cover", "bands": [4, 0, 2], "value_range": [0, 4095]}
    recipe = Recipe(dataset="satellite_like", features=features)
    (kept,) = Data(recipe, str(tmp_path)).scalings().values()
    pixels = np.random.default_rng(1).integers(0, 4096, (*own.SIZE, 5)).astype(np.uint16)
    how: Any = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "x.tif", pixels, **how)
    image, _ = predicting.read(
        tmp_path / "x.tif", seen=lambda *_: (8, 8), scaling=Scaling.from_json(kept)
    )
    np.testing.assert_array_equal(image, np.rint(pixels[..., [4, 0, 2]] / 4095 * 255))
    tifffile.imwrite(tmp_path / "x.tif", (pixels >> 4).astype(np.uint8), **how)
    with pytest.raises(ValueError, match="its pixels are uint8"):
        predicting.read(tmp_path / "x.tif", seen=lambda *_: (8, 8), scaling=Scaling.from_json(kept))
    plain = dataclasses.replace(recipe, features={"image": "grey", "mask": "cover"})
    assert Data(plain, str(tmp_path)).scalings() == {"satellite_like": None}


def test_an_image_of_more_bits_than_those_of_the_dataset_is_refused(tmp_path):
    for seed in range(3):
        (tmp_path / "images").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "images" / f"x{seed}.tif", camera(seed))
        own.write(tmp_path / "masks" / f"x{seed}.png", own.classes(seed))
    for name, flags, bits in (("mine", [], 12), ("ranged", ["--range", "0", "4095"], None)):
        code, _, fault = own.build(tmp_path, "--masks", tmp_path / "masks", *flags, name=name)
        assert code == 0, fault
        metadata: Any = tfds.builder(name, data_dir=tmp_path / "data").info.metadata
        kept = Scaling.from_json(metadata["intensity"])
        assert kept.bits == bits
        brightest = camera(5).clip(max=4094)
        for more in (1, 2):
            brightest[3, 4] = 4094 + more
            tifffile.imwrite(tmp_path / "new.tif", brightest)
            if more == 2 and bits:
                with pytest.raises(ValueError, match=r"value is 4,096, of 14 bits, .* have 12\."):
                    predicting.read(tmp_path / "new.tif", seen=lambda *_: (8, 8), scaling=kept)
            else:
                predicting.read(tmp_path / "new.tif", seen=lambda *_: (8, 8), scaling=kept)


DEEP = Scaling(low=(100,), high=(3400,), rule="of a test", types=("uint16",))
SEVERAL = [
    (DEEP, "8-bit", r"its pixels are uint8, and those .* trained on uint16.*Give the original"),
    (DEEP, "fractions", "its pixels are float32"),
    (None, "deep", r"its pixels are uint16, .* trained on uint8.* Convert it to 8 bits"),
    (DEEP, "pages", r"has 3 pages .* The model was trained on images of one page, grey or RGB"),
    (DEEP, "channels", r"has 2 channels: 0, 1. The model was trained on images of one page"),
    (
        dataclasses.replace(DEEP, page=1),
        "deep",
        "has 1 pages, and page 1 was asked for. The model was trained on page 1, of which its",
    ),
    (
        dataclasses.replace(DEEP, channels=("GFP",)),
        "deep",
        "has no channel 'GFP'; it has 0. The model was trained on the channels GFP, of which",
    ),
]


@pytest.mark.parametrize(("scaling", "name", "fault"), SEVERAL)
def test_what_is_not_like_the_dataset_is_refused_by_name_and_others_go_on(
    tmp_path, scaling, name, fault
):
    deep = camera(0)
    tifffile.imwrite(tmp_path / "deep.tif", deep)
    tifffile.imwrite(tmp_path / "8-bit.tif", (deep >> 4).astype(np.uint8))
    tifffile.imwrite(tmp_path / "fractions.tif", deep / np.float32(7))
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([deep] * 3), photometric="minisblack")
    tifffile.imwrite(
        tmp_path / "channels.tif",
        np.stack([deep] * 2, -1),
        photometric="minisblack",
        planarconfig="contig",
    )
    like = dataclasses.replace(scaling, page=None, channels=()) if scaling else None
    good = tmp_path / ("deep.tif" if scaling else "8-bit.tif")
    errors = [
        predicted([path], tmp_path / to, scalings={"mine": each})[0]
        for path, each, to in (
            (tmp_path / f"{name}.tif", scaling, "refused"),
            (good, like, "read"),
        )
    ]
    assert errors[0] is not None
    assert errors[0].startswith(str(tmp_path / f"{name}.tif"))
    assert re.search(fault, errors[0])
    assert errors[1] is None
    assert len(list((tmp_path / "read").iterdir())) == 2


def test_of_several_datasets_the_one_is_taken_that_a_file_fits(tmp_path):
    tifffile.imwrite(tmp_path / "deep.tif", camera(0))
    Image.fromarray(own.photo(0)).save(tmp_path / "plain.png")
    paths = [tmp_path / "deep.tif", tmp_path / "plain.png"]
    scalings = {"nuclei": None, "folder:cells": DEEP, "folder:same": DEEP}
    assert predicted(paths, tmp_path / "to", scalings=scalings) == [None, None]
    scalings["folder:plates"] = dataclasses.replace(DEEP, high=(4000,))
    deep, plain = predicted(paths, tmp_path / "other", scalings=scalings)
    assert plain is None
    assert "folder:same and folder:plates, which the model was trained on" in str(deep)
    assert "--like folder:same" in str(deep)


def test_a_file_that_is_like_none_of_several_datasets_is_refused_with_each_fault(tmp_path):
    path = tmp_path / "fractions.tif"
    tifffile.imwrite(path, camera(0) / np.float32(7))
    scalings = {"nuclei": None, "folder:cells": DEEP}
    (error,) = predicted([path], tmp_path / "to", scalings=scalings)
    assert error is not None
    assert error.startswith(f"{path} is like the images of none of the datasets")
    assert error.count(str(path)) == 1
    assert re.search(r"nuclei: its pixels .* trained on uint8.* folder:cells: its .* uint16", error)


def test_images_that_are_seen_whole_are_asked_in_batches_and_answered_as_alone(tmp_path):
    rng = np.random.default_rng(1)
    shapes = [(16, 32), (40, 50), (16, 32), (9, 9), (16, 32), (16, 32), (16, 32)]
    paths = [tmp_path / f"{number}.png" for number in range(len(shapes))]
    for path, shape in zip(paths, shapes, strict=True):
        Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8)).save(path)
    paths.insert(2, tmp_path / "missing.png")
    wanted = results.Wanted(kinds=("mask", "probability"))
    crops = {"record_size": "native", "batch": 4}
    for name, changes in (("whole", {"batch": 4}), ("crops", crops)):
        together, alone = Bright(), Bright()
        how: dict[str, Any] = {"recipe": at(16, 32, **changes), "classes": (), "wanted": wanted}
        done = [*predicting.files(together, paths, to=tmp_path / name, **how)]
        assert [each.path for each in done] == paths
        assert [each.error is None for each in done] == [n != 2 for n in range(len(paths))]
        for path in paths:
            list(predicting.files(alone, [path], to=tmp_path / f"{name} alone", **how))
        for path in (tmp_path / name).iterdir():
            assert path.read_bytes() == (tmp_path / f"{name} alone" / path.name).read_bytes()
        asked = [[shape[0] for shape in network.seen] for network in (together, alone)]
        assert sum(asked[0]) == sum(asked[1])
        assert asked[0] == [3, 4] if name == "whole" else len(asked[0]) < len(asked[1])


@pytest.mark.parametrize("shape", [(16, 32), (2, 4)])
def test_no_more_images_are_read_ahead_than_memory_holds(tmp_path, monkeypatch, shape):
    monkeypatch.setattr(predicting, "_READ_AHEAD", 2 * 16 * 32)
    network, paths = Bright(), [tmp_path / f"{number}.png" for number in range(5)]
    for path in paths:
        Image.fromarray(half_white(*shape)).save(path)
    recipe = at(16, 32, batch=4)
    list(predicting.files(network, paths, recipe=recipe, classes=(), to=tmp_path / "to"))
    assert [shape[0] for shape in network.seen] == [2, 2, 1]


def test_a_bad_file_does_not_stop_the_others(tmp_path):
    for name in ("a.png", "c.png"):
        Image.fromarray(half_white(10, 30)).save(tmp_path / name)
    Image.fromarray(half_white(10, 30)).save(tmp_path / "a.bmp")
    (tmp_path / "b.png").write_text("hello")
    paths = [tmp_path / name for name in ("a.png", "b.png", "a.bmp", "c.png")]
    to = tmp_path / "made" / "masks"
    results = list(predicting.files(Bright(), paths, recipe=at(8, 8), classes=(), to=to))
    assert [path for path, *_ in results] == paths
    assert [error is None for _, error, *_ in results] == [True, False, False, True]
    assert "overwrite" in str(results[2][1])
    assert sorted(file.name for file in to.iterdir()) == [
        "a.mask.png",
        "a.overlay.png",
        "c.mask.png",
        "c.overlay.png",
    ]
    with Image.open(to / "c.mask.png") as image:
        mask = np.asarray(image)
    assert mask.shape == (10, 30)
    assert set(np.unique(mask)) == {0, 255}


def test_what_a_killed_prediction_left_is_removed_by_the_next(tmp_path):
    Image.fromarray(half_white(10, 30)).save(tmp_path / "a.png")
    to, left = tmp_path / "to", f"unfinished-{'0f' * 8}.json"
    (to / "in").mkdir(parents=True)
    for name in (left, f"in/{left}", "unfinished-mine.json"):
        (to / name).touch()
    given = [predicting.Input(tmp_path / "a.png", "in/a")]
    assert list(predicting.files(Bright(), given, recipe=at(8, 8), classes=(), to=to))
    assert not (to / left).exists()
    assert not (to / "in" / left).exists()
    assert (to / "unfinished-mine.json").exists()


def test_a_link_to_itself_is_one_bad_file_of_a_folder(tmp_path):
    Image.fromarray(half_white(10, 30)).save(tmp_path / "a.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    found = predicting.inputs([tmp_path], to=tmp_path / "to")
    results = list(
        predicting.files(Bright(), found, recipe=at(8, 8), classes=(), to=tmp_path / "to")
    )
    assert [each.path.name for each in results] == ["a.png", "loop.png"]
    assert results[0].error is None
    assert "loop.png" in str(results[1].error)


class Random:
    jit_compile = False

    """Probabilities of so many classes that are what chance makes them."""

    def __init__(self, classes: int):
        self.classes = classes

    def predict_on_batch(self, images) -> np.ndarray:
        rng = np.random.default_rng(0)
        return rng.random((*images.shape[:3], self.classes), np.float32)


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("shape", [(1, 1), (255, 257), (10_000, 7), (2, 70_000), (700, 810)])
def test_tiles_have_no_seams_and_a_mask_is_what_the_probabilities_decide(classes, shape):
    seen, network = np.zeros((16, 24, 3), np.uint8), Random(classes)
    whole = probability_of(network, seen, shape=shape)
    at_once = [
        np.asarray(Image.fromarray(channel).resize(shape[::-1], Image.Resampling.BILINEAR))
        for channel in np.moveaxis(network.predict_on_batch(seen[None])[0], -1, 0)
    ]
    np.testing.assert_allclose(whole, np.stack(at_once, axis=-1), atol=1e-5)
    for threshold in (0.2, 0.5):
        recipe = at(16, 24, threshold=threshold)
        parts = inference.parts(network.predict_on_batch, seen, shape, recipe)
        found, probability = inference.decided(parts, shape, recipe)
        np.testing.assert_array_equal(found, metrics.decide(whole, threshold=threshold))
        assert np.abs(probability - 255 * whole.max(axis=-1)).max() <= 0.501


def test_a_regression_is_written_as_numbers(tmp_path):
    recipe = Recipe(
        size=(8, 8),
        model=UNet(filters=(2,), output_activation="linear"),
        loss="squared_error",
    )
    Image.fromarray(half_white(20, 30)).save(tmp_path / "a.png")
    paths = [tmp_path / "a.png"]
    assert list(predicting.files(Bright(), paths, recipe=recipe, classes=(), to=tmp_path)) == [
        (paths[0], None, (tmp_path / "a.values.tif",), (20, 30, 3))
    ]
    values = tifffile.imread(tmp_path / "a.values.tif")
    assert (values.dtype, values.shape) == (np.float32, (20, 30))
    assert (values[:, 0].max(), values[:, -1].min()) == (0, 1)
    assert not (tmp_path / "a.mask.png").exists()


def test_memory_does_not_grow_with_the_classes(tmp_path):
    Image.fromarray(np.zeros((1000, 1000), np.uint8)).save(tmp_path / "a.png")
    peaks = []
    for classes in (2, 29):
        tracemalloc.start()
        (result,) = predicting.files(
            Random(classes),
            [tmp_path / "a.png"],
            recipe=at(16, 16),
            classes=[str(number) for number in range(classes)],
            to=tmp_path / str(classes),
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert result[1] is None
    assert max(peaks) < 45e6  # as float32 the 29 classes alone are 116 MB


def test_a_small_file_of_too_many_pixels_is_refused(tmp_path):
    Image.new("1", (8000, 8000)).save(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size < 10_000
    tracemalloc.start()
    with pytest.raises(OSError, match=r"a\.png claims 8,000×8,000 pixels; up to 33,554,432"):
        predicting.read(tmp_path / "a.png", seen=lambda *_: (8, 8))
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def predicted(paths, to, **options) -> list[str | None]:
    results = predicting.files(Bright(), paths, recipe=at(8, 8), classes=(), to=to, **options)
    return [error for _, error, *_ in results]


def cell(folder: pathlib.Path, name: str = "cell.png") -> pathlib.Path:
    Image.fromarray(half_white(10, 30)).save(folder / name)
    return folder / name


@pytest.mark.parametrize("kind", ["mask", "overlay"])
def test_what_is_there_is_kept_unless_overwriting_is_asked_for(tmp_path, kind):
    image, made = cell(tmp_path), tmp_path / f"cell.{kind}.png"
    made.write_bytes(b"made by hand")
    (error,) = predicted([image], tmp_path)
    assert f"{made} is there already; give --overwrite" in str(error)
    assert made.read_bytes() == b"made by hand"
    assert len(list(tmp_path.iterdir())) == 2
    assert predicted([image], tmp_path, overwrite=True) == [None]
    assert made.read_bytes().startswith(b"\x89PNG")


def test_a_link_is_replaced_and_what_it_leads_to_is_kept(tmp_path):
    image, elsewhere = cell(tmp_path), tmp_path / "elsewhere.png"
    elsewhere.write_bytes(b"made by hand")
    for target in (elsewhere, tmp_path / "nowhere.png"):
        (tmp_path / "cell.mask.png").unlink(missing_ok=True)
        (tmp_path / "cell.overlay.png").unlink(missing_ok=True)
        (tmp_path / "cell.mask.png").symlink_to(target)
        (error,) = predicted([image], tmp_path)
        assert "is there already" in str(error)
        assert predicted([image], tmp_path, overwrite=True) == [None]
        assert not (tmp_path / "cell.mask.png").is_symlink()
    assert elsewhere.read_bytes() == b"made by hand"
    assert not (tmp_path / "nowhere.png").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_image_that_is_given_is_never_overwritten(tmp_path, monkeypatch, overwrite):
    cell(tmp_path)
    data = cell(tmp_path, "cell.mask.png").read_bytes()
    monkeypatch.chdir(tmp_path)
    paths = [pathlib.Path("cell.png"), tmp_path / "cell.mask.png"]
    first, second = predicted(paths, pathlib.Path(), overwrite=overwrite)
    assert "cell.mask.png, which is given as an image" in str(first)
    assert second is None
    assert (tmp_path / "cell.mask.png").read_bytes() == data
    assert (tmp_path / "cell.mask.mask.png").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    (error,) = predicted([cell(tmp_path)], tmp_path / "to")
    assert "cell.mask.png" in str(error)
    assert str(error).endswith("cannot be written: No space left on device.")
    assert list((tmp_path / "to").iterdir()) == []


class Uneven(Bright):
    """Says something else of an image that is flipped or turned."""

    def predict_on_batch(self, images) -> np.ndarray:
        ramp = np.linspace(0, 1, images.shape[1] * images.shape[2], dtype=np.float32)
        return super().predict_on_batch(images) * ramp.reshape(*images.shape[1:3], 1)


ACROSS, DOWN, BOTH = (lambda x: x[:, ::-1]), (lambda x: x[::-1]), (lambda x: x[::-1, ::-1])
TURNS = [functools.partial(np.rot90, k=k) for k in range(4)]


@pytest.mark.parametrize(
    ("size", "augment", "ways"),
    [
        ((8, 12), {"horizontal_flip": 0.5}, [np.array, ACROSS]),
        ((8, 12), {"vertical_flip": 1.0}, [np.array, DOWN]),
        ((8, 12), {"horizontal_flip": 0.5, "vertical_flip": 0.5}, [np.array, ACROSS, DOWN, BOTH]),
        ((8, 8), {"quarter_turns": True}, TURNS),
        (
            (8, 8),
            {"quarter_turns": True, "vertical_flip": 0.5},
            [*TURNS, *(lambda x, turn=turn: turn(x)[::-1] for turn in TURNS)],
        ),
    ],
)
def test_what_the_augmentation_shows_is_averaged_where_it_came_from(size, augment, ways):
    model = UNet(filters=(2, 2))
    recipe = Recipe(size=size, augment=augment, flips=True, model=model)
    network, images = Uneven(), np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)
    found = inference.flipped(network.predict_on_batch, recipe)(images)
    assert found.dtype == np.float32
    total = np.zeros((3, *size, 1))
    for each in ways:
        way = each(np.arange(size[0] * size[1]).reshape(size))
        for number, image in enumerate(images):
            answer = Uneven().predict_on_batch(image.reshape(-1, 3)[way][None])[0, ..., 0]
            for place in np.ndindex(*way.shape):
                total[number].reshape(-1)[way[place]] += answer[place]
    assert len(network.seen) == len(ways)
    np.testing.assert_allclose(found, total / len(ways), atol=1e-5)


def test_of_several_datasets_the_views_are_averaged_that_each_was_shown():
    both = {"horizontal_flip": 0.5, "vertical_flip": 0.5, "quarter_turns": True}
    for given, count in [
        ({}, 8),
        ({"cars": None}, 1),
        ({"cars": {}}, 1),
        ({"cars": {"horizontal_flip": 0.5}}, 2),
        ({"cars": {"horizontal_flip": 0.5}, "cells": {"vertical_flip": 0.5}}, 1),
        ({"cars": {"quarter_turns": True}}, 4),
    ]:
        mix = {"shares": {"cells": 1, "cars": 2}, "augment": given}
        assert len(Recipe(augment=both, mix=mix).views) == count
        assert len(Recipe(augment=both, mix={"shares": mix["shares"]}).views) == 8


def test_without_flips_the_model_is_asked_itself():
    recipe = Recipe(augment={"horizontal_flip": 0.5})
    ask = Uneven().predict_on_batch
    assert inference.flipped(ask, recipe) is ask


def test_tiles_overlap_as_asked(tmp_path):
    image = cell(tmp_path)
    for overlap, tiles in ((0.0, 4), (0.5, 7)):
        network = Bright()
        recipe = at(16, 8, record_size="native", batch=100)
        options: dict[str, Any] = {"recipe": recipe, "classes": (), "overlap": overlap}
        list(predicting.files(network, [image], **options, to=tmp_path / str(overlap)))
        assert network.seen[0][0] == tiles
    with pytest.raises(ValueError, match=r"--overlap 0\.9"):
        list(predicting.files(Bright(), [image], **{**options, "overlap": 0.9}, to=tmp_path))


def test_folders_patterns_and_zips_are_searched(tmp_path):
    folder = tmp_path / "in"
    for name in ("b.png", "deep/a.PNG", "deep/er/a.png", "to/b.mask.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cell(folder, name)
    (folder / "notes.txt").write_text("hello")
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        for name in ("x.png", "inner/y.png"):
            archive.write(folder / "b.png", name)
        archive.writestr("inner/bad.png", "hello")
    to = folder / "to"
    given = predicting.inputs([folder, tmp_path / "some.zip"], to=to)
    assert [(str(each.path.relative_to(tmp_path)), each.stem) for each in given] == [
        ("in/b.png", "b"),
        ("in/deep/a.PNG", "deep/a"),
        ("in/deep/er/a.png", "deep/er/a"),
        ("some.zip/inner/bad.png", "inner/bad"),
        ("some.zip/inner/y.png", "inner/y"),
        ("some.zip/x.png", "x"),
    ]
    done = list(predicting.files(Bright(), given, recipe=at(8, 8), classes=(), to=tmp_path / "out"))
    assert [error is None for _, error, *_ in done] == [True, True, True, False, True, True]
    assert "some.zip/inner/bad.png" in str(done[3][1])
    masks = sorted((tmp_path / "out").rglob("*.mask.png"))
    assert [str(path.relative_to(tmp_path / "out")) for path in masks] == [
        *("b.mask.png", "deep/a.mask.png", "deep/er/a.mask.png", "inner/y.mask.png"),
        "x.mask.png",
    ]
    assert len({path.read_bytes() for path in masks}) == 1
    pattern = predicting.inputs([folder / "**" / "a.*"], to=to)
    assert [(each.path.name, each.stem) for each in pattern] == [
        ("a.PNG", "deep/a"),
        ("a.png", "deep/er/a"),
    ]
    for several in (["d*"], ["d*/**"], ["d*/**/a.*"], ["d*/a.PNG", "*/er"], ["d*", "d*"]):
        once = predicting.inputs([folder / each for each in several], to=to)
        assert sorted(each.stem for each in once) == ["deep/a", "deep/er/a"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", [os.fsdecode(b"gr\xfcn"), "two\nlines", 'a,"b', "\x1b[2J"])
def test_whatever_a_file_is_called_or_is_the_others_are_answered(tmp_path, name):
    folder, to = tmp_path / "in", tmp_path / "to"
    folder.mkdir()
    for stem in (name, "z"):
        cell(tmp_path).replace(folder / f"{stem}.png")
    (folder / f"{name}.bad.png").write_text("hello")
    os.mkfifo(folder / "pipe.png")  # nobody writes to it
    (folder / "link.png").symlink_to("nowhere")
    wanted = results.Wanted(kinds=("mask", "contours", "objects", "coco", "page"))
    options: dict[str, Any] = {"recipe": at(8, 8), "classes": (), "wanted": wanted}
    given = predicting.inputs([folder], to=to)
    done = list(predicting.files(Bright(), given, **options, to=to))
    faults = {each.path.name: each.error for each in done if each.error}
    assert {*faults} == {f"{name}.bad.png", "pipe.png", "link.png"}
    assert all(str(folder / key) in str(fault) for key, fault in faults.items())
    with (to / "objects.csv").open(newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    shown = name.encode("utf-8", "backslashreplace").decode()
    assert [row["image"] for row in rows] == [str(folder / f"{x}.png") for x in (shown, "z")]
    listed = json.loads((to / "coco.json").read_text())
    assert [photo["file_name"] for photo in listed["images"]] == [f"{name}.png", "z.png"]
    assert (to / "index.html").read_text(encoding="utf-8").count("<li>") == 3


def test_a_folder_without_images_and_a_pattern_without_files_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty has no images in it"):
        predicting.inputs([tmp_path / "empty"], to=tmp_path / "to")
    with pytest.raises(ValueError, match=r"\*\.png: no file has such a name"):
        predicting.inputs([tmp_path / "*.png"], to=tmp_path / "to")
    cell(tmp_path)
    with pytest.raises(ValueError, match="is the folder of the images"):
        predicting.inputs([tmp_path], to=tmp_path)
    (tmp_path / "bad.zip").write_bytes(b"PK")
    with pytest.raises(OSError, match=r"bad\.zip"):
        predicting.inputs([tmp_path / "bad.zip"], to=tmp_path / "to")


def test_a_regression_has_nothing_else_to_write(tmp_path):
    model = UNet(filters=(2,), output_activation="linear")
    recipe = Recipe(size=(8, 8), model=model, loss="squared_error")
    how: dict[str, Any] = {"recipe": recipe, "classes": (), "to": tmp_path}
    with pytest.raises(ValueError, match="of a regression its values are written"):
        list(predicting.files(Bright(), [cell(tmp_path)], **how, wanted=results.Wanted()))

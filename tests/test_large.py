"""Images that are read, answered and written by rows: as if they were read at once."""

import math
import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from test_predict import DEEP, Bright, at

from segdata.archives import ArchiveError, large, resizing, scientific
from unet import inference, predicting, results
from unet.results import Wanted


def noise(*shape, dtype: Any = np.uint8) -> np.ndarray:
    most = 3000 if dtype == np.uint16 else 256
    return np.random.default_rng(0).integers(0, most, shape).astype(dtype)


GREY: dict[str, Any] = {"photometric": "minisblack"}
RGB: dict[str, Any] = {"photometric": "rgb"}
LAYOUTS = {
    "one strip, plain": (noise(83, 61), GREY),
    "big-endian": (noise(83, 61, dtype=np.uint16), {**GREY, "byteorder": ">"}),
    "strips, deflate": (noise(83, 61, 3), {**RGB, "compression": "zlib", "rowsperstrip": 7}),
    "predictor": (
        noise(83, 61, dtype=np.uint16),
        {**GREY, "compression": "lzw", "predictor": 2, "rowsperstrip": 16},
    ),
    "tiles": (noise(83, 61, 3), {**RGB, "tile": (16, 32)}),
    "tiles, deflate, BigTIFF": (
        noise(83, 61),
        {**GREY, "tile": (32, 16), "compression": "zlib", "bigtiff": True},
    ),
    "tiles, JPEG": (noise(83, 61, 3), {**RGB, "tile": (32, 32), "compression": "jpeg"}),
    "alpha": (noise(83, 61, 4), {**RGB, "tile": (16, 16), "extrasamples": ["unassalpha"]}),
    "float": (noise(83, 61).astype(np.float32), {**GREY, "tile": (16, 16)}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_are_those_of_the_whole_image(tmp_path, layout):
    pixels, how = LAYOUTS[layout]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, **how)
    whole = scientific.read(path.read_bytes(), name="a").pixels
    with large.opened(path) as rows:
        assert (rows.shape, rows.dtype) == (whole.shape, whole.dtype)
        for first, last in [(0, 83), (0, 1), (82, 83), (15, 17), (40, 81), (3, 4)]:
            found = rows[first:last]
            assert found.dtype == whole.dtype
            np.testing.assert_array_equal(found, whole[first:last])


def test_a_channel_and_a_page_are_chosen(tmp_path):
    pixels = noise(3, 40, 50)
    tifffile.imwrite(tmp_path / "pages.tif", pixels, photometric="minisblack")
    with large.opened(tmp_path / "pages.tif", page=2) as rows:
        np.testing.assert_array_equal(rows[5:9][..., 0], pixels[2, 5:9])
    with (
        pytest.raises(scientific.PagesError, match="has 3 pages"),
        large.opened(tmp_path / "pages.tif"),
    ):
        pass
    tifffile.imwrite(tmp_path / "rgb.tif", noise(40, 50, 3), photometric="rgb", tile=(16, 16))
    with large.opened(tmp_path / "rgb.tif", channels=("2", "0")) as rows:
        np.testing.assert_array_equal(rows[5:9], noise(40, 50, 3)[5:9][..., [2, 0]])


@pytest.mark.parametrize("how", ["ome", "imagej", "shaped"])
@pytest.mark.parametrize("axes", ["ZYX", "CYX", "ZCYX", "TZYX", "TZCYX", "ZYXS"])
def test_a_page_is_the_plane_that_is_meant_where_the_image_is_read_at_once(tmp_path, how, axes):
    sides = {"T": 2, "Z": 4, "C": 2, "Y": 13, "X": 11, "S": 3}
    pixels = noise(*(sides[axis] for axis in axes), dtype=np.uint8)
    path = tmp_path / "a.tif"
    what: dict[str, Any] = {} if how == "shaped" else {how: True}
    kind = "rgb" if "S" in axes else "minisblack"
    tifffile.imwrite(path, pixels, photometric=kind, metadata={"axes": axes}, **what)
    chosen = ("1",) if "C" in axes or "S" in axes else ()
    for page in range(math.prod(sides[axis] for axis in axes if axis in "TZ")):
        whole = scientific.read(path.read_bytes(), name="a", page=page, channels=chosen).pixels
        if "C" in axes:
            with (
                pytest.raises(ArchiveError, match=f"by rows only planes .* axes {axes}"),
                large.opened(path, page=page, channels=("0",)),
            ):
                pass
        else:
            with large.opened(path, page=page, channels=chosen) as rows:
                np.testing.assert_array_equal(rows[2:13], whole[2:13])


def test_a_stack_of_one_page_in_the_file_is_no_single_image(tmp_path):
    # As ImageJ writes those of more than 4 GB.
    path, stack = tmp_path / "a.tif", noise(3, 13, 11)
    tifffile.imwrite(path, stack, imagej=True, truncate=True, metadata={"axes": "ZYX"})
    read = scientific.read(path.read_bytes(), name="a", page=1).pixels[..., 0]
    np.testing.assert_array_equal(read, stack[1])
    for page in (None, 0, 1):
        with pytest.raises(ArchiveError, match="axes ZYX"), large.opened(path, page=page):
            pass


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "channels apart": (noise(3, 40, 50), {**RGB, "planarconfig": "separate"}, "pixel by pixel"),
    "0 is white": (noise(40, 50), {"photometric": "miniswhite"}, "upright grey or RGB"),
    "turned": (noise(40, 50), {**GREY, "extratags": [(274, 3, 1, 6, True)]}, "upright grey"),
    "many channels": (
        noise(40, 50, 5),
        {**GREY, "planarconfig": "contig"},
        "has 5 channels",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_by_rows_is_refused(tmp_path, name):
    pixels, how, fault = REFUSED[name]
    tifffile.imwrite(tmp_path / "a.tif", pixels, **how)
    with pytest.raises(ArchiveError, match=fault), large.opened(tmp_path / "a.tif"):
        pass


def overwritten(path, tag, at, value):
    with tifffile.TiffFile(path, mode="r+") as file:
        entry = file.pages.first.tags[tag]
        entry.overwrite((*entry.value[:at], value, *entry.value[at + 1 :]))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tags", [["TileOffsets"], ["TileOffsets", "TileByteCounts"]])
@pytest.mark.parametrize("empty", [0, 7])
def test_a_tile_that_is_left_out_is_black_or_what_gdal_says(tmp_path, tags, compression, empty):
    path = tmp_path / "a.tif"
    tag: dict[str, Any] = {"extratags": [(42113, 2, 2, str(empty), True)]} if empty else {}
    how = GREY | tag
    tifffile.imwrite(path, noise(83, 61), tile=(32, 16), compression=compression, **how)
    for name in tags:
        overwritten(path, name, 5, 0)
    expected = noise(83, 61)
    expected[32:64, 16:32] = empty
    whole = scientific.read(path.read_bytes(), name="a").pixels
    np.testing.assert_array_equal(whole[..., 0], expected)
    with large.opened(path) as rows:
        np.testing.assert_array_equal(rows[0:83], whole)


def test_a_tile_of_no_bytes_and_strips_that_are_not_listed_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(83, 61), tile=(32, 16), **GREY)
    overwritten(path, "TileByteCounts", 5, 0)
    fault = "strip or tile 5 has no bytes"
    with pytest.raises(ArchiveError, match=fault):
        scientific.read(path.read_bytes(), name="a")
    with pytest.raises(ArchiveError, match=fault), large.opened(path):
        pass
    tifffile.imwrite(path, noise(6, 1), compression="zlib", **GREY)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages.first.tags["ImageLength"].overwrite(1 << 24)  # which took tifffile a minute
    fault = "lists 1 of its 2,796,203 strips"
    with pytest.raises(ArchiveError, match=fault):
        scientific.read(path.read_bytes(), name="a")
    with pytest.raises(ArchiveError, match=fault), large.opened(path):
        pass


def test_damage_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(400, 300), tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        at = page.dataoffsets[12] + 20
    data = bytearray(path.read_bytes())
    data[at : at + 200] = bytes(200)
    path.write_bytes(data)
    with large.opened(path) as rows:
        assert rows[0:64].shape == (64, 300, 1)
        with pytest.raises(ArchiveError, match=r"a\.tif is no readable TIFF"):
            rows[0:400]
    path.write_bytes(b"II*\0" + bytes(100))
    with pytest.raises(ArchiveError, match=r"a\.tif"), large.opened(path):
        pass
    tifffile.imwrite(path, noise(400, 300))
    path.write_bytes(path.read_bytes()[:-100_000])
    with pytest.raises(ArchiveError, match=r"a\.tif is no readable TIFF"), large.opened(path):
        pass
    tifffile.imwrite(path, noise(400, 300), compression="zlib", rowsperstrip=400)
    monkeypatch.setattr("segdata.archives.images.MOST_PIXELS", 400 * 299)
    with pytest.raises(ArchiveError, match="strips are 400 rows high"), large.opened(path):
        pass


def test_only_large_tiffs_are_read_by_rows(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", noise(40, 50))
    Image.fromarray(noise(40, 50)).save(tmp_path / "a.png")
    (tmp_path / "bad.tif").write_bytes(b"II*\0" + bytes(20))
    assert not any(map(large.is_large, tmp_path.iterdir()))
    monkeypatch.setattr(large, "MOST_AT_ONCE", 40 * 50 - 1)
    assert [p.name for p in tmp_path.iterdir() if large.is_large(p)] == ["a.tif"]
    assert not large.is_large(tmp_path / "none.tif")


class Rows:
    """Gives rows of an array, and keeps how many were asked for at once."""

    def __init__(self, pixels: np.ndarray):
        self.pixels, self.shape, self.most = pixels, pixels.shape, 0

    def __getitem__(self, rows: slice) -> np.ndarray:
        self.most = max(self.most, len(self.pixels[rows]))
        return self.pixels[rows]


@pytest.mark.parametrize("size", [(16, 24), (1, 1), (700, 90), (1500, 33), (2000, 100)])
def test_an_image_is_resized_by_rows_as_at_once(size):
    rows = Rows(noise(1500, 90, 3))
    found, wanted = resizing.ByRows(rows, size), resizing.image(rows.pixels, size)
    assert found.shape == wanted.shape
    np.testing.assert_array_equal(found[:], wanted)
    some = slice(size[0] // 3, size[0] // 2 + 1)
    np.testing.assert_array_equal(found[some], wanted[some])
    assert rows.most <= 300 or size == (1, 1)


@pytest.mark.parametrize("size", [(300, 100), (41, 57), (90, 500), (7, 300), (900, 31)])
@pytest.mark.parametrize("shape", [(97, 301), (400, 61), (1, 700), (150, 150)])
def test_an_answer_that_comes_in_stretches_is_resized_as_at_once(shape, size, monkeypatch):
    monkeypatch.setattr(inference, "_RESIZED", 2048)
    monkeypatch.setattr(inference, "_SQUARE", 32)
    recipe = at(16, 24, record_size="native")
    seen = noise(*size, 3)
    whole = np.full((*shape, 1), np.nan, np.float32)
    for rows, columns, part in inference.parts(
        Blocks().predict_on_batch, seen, shape, recipe, overlap=0.25
    ):
        assert np.isnan(whole[rows, columns]).all()
        whole[rows, columns] = part
    plain = Image.fromarray(seen[..., 0].astype(np.float32) / 255)
    at_once = np.asarray(plain.resize(shape[::-1], Image.Resampling.BILINEAR))
    np.testing.assert_allclose(whole[..., 0], at_once, atol=1e-5)


@pytest.mark.parametrize("shape", [(100, 70), (16, 24), (9, 5), (200, 30)])
@pytest.mark.parametrize("record_size", [None, 60, "native"])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.75])
def test_stretches_together_are_the_whole_answer(shape, record_size, overlap):
    recipe = at(16, 24, record_size=record_size)
    image = noise(*shape, 3)
    seen = resizing.image(image, recipe.seen(*shape))
    ask = Bright().predict_on_batch

    def parts(pixels):
        return inference.parts(ask, pixels, shape, recipe, overlap=overlap)

    whole = inference.decided(parts(seen), shape, recipe)
    rows = Rows(seen)
    several = list(inference.stretches(parts(rows), shape, recipe))
    assert [place.start for place, _ in several] == [
        0,
        *(place.stop for place, _ in several[:-1]),
    ]
    for whole_of, found in zip(
        whole, zip(*(each for _, each in several), strict=True), strict=True
    ):
        np.testing.assert_array_equal(np.concatenate(found), whole_of)
    if record_size == "native":
        assert rows.most <= 16


class Blocks:
    """Foreground by the brightness of one pixel alone: the same however tiles lie."""

    jit_compile = False

    def predict_on_batch(self, images) -> np.ndarray:
        return images[..., :1].astype(np.float32) / 255


@pytest.mark.parametrize("trained_on", [{}, {"height": 50, "width": 90, "longest": 100}])
@pytest.mark.parametrize("record_size", [None, 60, "native"])
@pytest.mark.parametrize("scaling", [None, DEEP])
def test_a_large_file_is_answered_as_a_small_one(
    tmp_path, monkeypatch, record_size, scaling, trained_on
):
    pixels = noise(300, 170, dtype=np.uint16 if scaling else np.uint8)
    pixels = (pixels * np.linspace(0.2, 1, 300)[:, None]).astype(pixels.dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(64, 64), compression="zlib")
    recipe = at(16, 24, record_size=record_size, threshold=0.4)
    wanted = Wanted(kinds=("mask", "overlay", "probability", "page"))
    monkeypatch.setattr(results, "OVERLAY_SIDE", 100)
    for to, most in (("whole", 300 * 170), ("rows", 300 * 170 - 1)):
        monkeypatch.setattr(large, "MOST_AT_ONCE", most)
        given = [tmp_path / "a.tif"]
        options: Any = {"recipe": recipe, "classes": (), "to": tmp_path / to, "wanted": wanted}
        options["seen"] = predicting.seen_by(recipe, trained_on, "tiles")
        done = predicting.files(Blocks(), given, **options, scalings={"mine": scaling})
        assert [error for _, error, *_ in done] == [None]
    for kind in ("mask", "probability"):
        whole = np.asarray(Image.open(tmp_path / "whole" / f"a.{kind}.png"))
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "rows" / f"a.{kind}.tif"), whole)
        assert len(np.unique(whole)) >= 2
    with Image.open(tmp_path / "rows" / "a.overlay.png") as overlay:
        assert overlay.size == (57, 100)
    assert sorted(path.name for path in (tmp_path / "rows").iterdir()) == [
        *("a.mask.tif", "a.overlay.png", "a.probability.tif", "index.html"),
    ]


@pytest.mark.parametrize("trained_on", [{"height": 32, "width": 32, "longest": 32}, {}])
def test_an_image_that_is_enlarged_beyond_memory_is_answered_as_at_once(
    tmp_path, monkeypatch, trained_on
):
    Image.fromarray(noise(300, 200)).save(tmp_path / "a.png")
    recipe, wanted, peaks = at(512, 512), Wanted(kinds=("probability",)), []
    seen = predicting.seen_by(recipe, trained_on, "tiles")  # 4800 × 3200, or one tile
    for most in (1 << 25, 1 << 17, 1 << 25, 1 << 17):  # the first two compile
        monkeypatch.setattr(large, "MOST_AT_ONCE", most)
        options: Any = {"recipe": recipe, "classes": (), "to": tmp_path / str(most), "seen": seen}
        tracemalloc.start()
        done = predicting.files(
            Blocks(), [tmp_path / "a.png"], **options, wanted=wanted, overwrite=True
        )
        assert [error for _, error, *_ in done] == [None]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    whole, by_rows = (tmp_path / str(most) / "a.probability.png" for most in (1 << 25, 1 << 17))
    assert whole.read_bytes() == by_rows.read_bytes()
    assert not trained_on or peaks[3] < peaks[2] - 2 * 4800 * 3200  # of 3 bytes a pixel


def test_objects_of_a_large_image_are_refused_before_it_is_answered(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", noise(40, 50))
    monkeypatch.setattr(large, "MOST_AT_ONCE", 1999)
    network, wanted = Bright(), Wanted(kinds=("mask", "labels"))
    options: Any = {"recipe": at(8, 8), "classes": (), "to": tmp_path / "to", "wanted": wanted}
    ((_, error, *_),) = predicting.files(network, [tmp_path / "a.tif"], **options)
    assert "has more than 1,999 pixels, of which no labels can be written" in str(error)
    assert network.seen == []


def test_an_image_of_more_bits_or_another_type_is_refused_by_rows_too(tmp_path, monkeypatch):
    monkeypatch.setattr(large, "MOST_AT_ONCE", 100)
    tifffile.imwrite(tmp_path / "a.tif", noise(40, 50, dtype=np.uint16))
    options: Any = {"recipe": at(8, 8), "classes": (), "to": tmp_path / "to"}
    ((_, error, *_),) = predicting.files(Bright(), [tmp_path / "a.tif"], **options)
    assert "its pixels are uint16, and those" in str(error)
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize("record_size", ["native", 48])
def test_memory_does_not_grow_with_the_rows(tmp_path, monkeypatch, record_size):
    monkeypatch.setattr(large, "MOST_AT_ONCE", 1000)
    peaks = []
    for height in (300, 2000, 8000):  # the first compiles
        path = tmp_path / f"{height}.tif"
        tifffile.imwrite(path, noise(height, 1000), tile=(64, 64), compression="zlib")
        recipe = at(64, 64, record_size=record_size)
        options: Any = {"recipe": recipe, "classes": (), "to": tmp_path / "to"}
        of_half = {"height": 96, "width": 80, "longest": 120}  # of 48, half as large
        options["seen"] = predicting.seen_by(recipe, of_half, "tiles")
        tracemalloc.start()
        ((_, error, *_),) = predicting.files(
            Blocks(), [path], **options, wanted=Wanted(kinds=("mask", "probability"))
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert error is None
    assert peaks[2] < 1.25 * peaks[1]


LARGE = """
import json, pathlib, resource, sys
from segdata.archives import large
large.MOST_AT_ONCE = 1 << 20
from unet import model, predicting
from unet.recipes import Recipe
recipe = Recipe(size=(256, 256), model=model.UNet(filters=(2, 2)), record_size="native", batch=4)
network = model.serving(model.build(recipe.model), "sigmoid")
for name in sys.argv[1:]:
    (done,) = predicting.files(
        network, [pathlib.Path(name)], recipe=recipe, classes=(), to=pathlib.Path("to")
    )
    assert done[1] is None, done
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.heavy
def test_a_process_needs_no_more_memory_for_more_rows(tmp_path):
    for height in (1500, 9000):
        tile = {"tile": (256, 256), "compression": "zlib", "photometric": "minisblack"}
        tifffile.imwrite(tmp_path / f"{height}.tif", noise(height, 6000), **tile)
    done = subprocess.run(
        [sys.executable, "-c", LARGE, "1500.tif", "9000.tif"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    first, second = map(int, done.stdout.split())
    # In memory at once the image and its answer would be 45 million × (3 + 4 + 1) bytes more.
    assert second - first < 40_000, (first, second)
    assert tifffile.imread(tmp_path / "to" / "9000.mask.tif").shape == (9000, 6000)

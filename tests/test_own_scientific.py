import fractions
import io
import math
import re
from typing import Any

import numpy as np
import own_folders as own
import pytest
import tensorflow_datasets as tfds
import tifffile
from PIL import Image

from segdata.archives import ArchiveError, intensity, large, scientific

SMALL = (37, 53)


def camera(seed, size=SMALL):
    """Levels of a 12-bit camera, dim on dark: uint16 [H, W]."""
    dim = own.photo(seed, size)[..., 0].astype(np.uint16) * 6 + 150
    dim[:2] = np.random.default_rng(seed).integers(0, 4096, (2, size[1]))
    return dim


def tiff(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, **options)


def lay(root, images, ending="tif", size=SMALL, **options):
    for seed, pixels in enumerate(images):
        tiff(root / "images" / f"x{seed}.{ending}", pixels, **options)
        tiff(root / "masks" / f"x{seed}.tif", own.objects(seed, size=size))
    return ["--masks", root / "masks"]


def slow_percentile(levels, percentile):
    """The lowest level that so many in a hundred do not exceed, of a sorted list."""
    levels = sorted(levels)
    wanted = math.ceil(len(levels) * fractions.Fraction(str(percentile)) / 100)
    return int(levels[max(0, wanted - 1)])


def slow_scaled(pixels, low, high):
    scaled = [[(int(v) - low) * 255 / (high - low) for v in row] for row in pixels]
    return np.array([[int(min(max(v, 0), 255) + 0.5) for v in row] for row in scaled], np.uint8)


def test_a_microscopist_gets_what_she_annotated(tmp_path):
    """Forty annotated images of 12 bits, ten of them large, with label maps in `masks/`."""
    large = (90, 130)
    sizes = [large if seed % 4 == 0 else (70, 90) for seed in range(40)]
    for seed, size in enumerate(sizes):
        tiff(
            tmp_path / "images" / f"plate-{seed:02}.tif",
            camera(seed, size),
            photometric="minisblack",
        )
        tiff(tmp_path / "images" / "masks" / f"plate-{seed:02}.tif", own.objects(seed, 60, size))
    code, out, err = own.build(tmp_path)
    assert code == 0, err
    assert "Masks are read as instances: numbers up to 60, each a connected area" in out
    assert "Brightness of 12 bits: " in out
    assert "becomes 0 to 255 in all images alike (percentiles 0.1 and 99.9 of all" in out
    found = own.examples(tmp_path)
    levels = np.concatenate([camera(seed, size).ravel() for seed, size in enumerate(sizes)])
    low, high = (slow_percentile(levels, p) for p in (0.1, 99.9))
    for seed, size in enumerate(sizes):
        example = found[f"plate-{seed:02}"]
        np.testing.assert_array_equal(example["instances"][..., 0], own.objects(seed, 60, size))
        np.testing.assert_array_equal(example["mask"][..., 0], own.objects(seed, 60, size) > 0)
        if seed < 3:
            expected = slow_scaled(camera(seed, size), low, high)
            np.testing.assert_array_equal(example["image"], np.stack([expected] * 3, -1))
    metadata: Any = tfds.builder("mine", data_dir=tmp_path / "data").info.metadata
    kept = intensity.Scaling.from_json(metadata["intensity"])
    assert (kept.low, kept.high) == ((low,), (high,))
    applied = kept.apply(camera(1, sizes[1])[..., None])
    np.testing.assert_array_equal(applied, found["plate-01"]["image"][..., :1])


STORED = {
    "LZW": {"compression": "lzw", "predictor": True},
    "deflate": {"compression": "zlib"},
    "Zstandard": {"compression": "zstd"},
    "PackBits": {"compression": "packbits"},
    "tiles": {"tile": (16, 16)},
    "big-endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True},
    "OME": {"ome": True, "metadata": {"axes": "YX"}},
    "ImageJ": {"imagej": True},
}


@pytest.mark.parametrize("kind", STORED)
def test_each_kind_of_tiff_is_read_exactly(tmp_path, kind):
    path = tmp_path / "x.tif"
    tiff(path, camera(3), **STORED[kind])
    found = scientific.read(path.read_bytes(), name="x.tif").pixels
    np.testing.assert_array_equal(found[..., 0], camera(3))


def test_a_range_is_taken_as_given(tmp_path):
    laid = lay(tmp_path, [camera(seed) for seed in range(4)])
    code, out, err = own.build(tmp_path, *laid, "--range", "100", "1500")
    assert code == 0, err
    assert "100 to 1500 becomes 0 to 255 in all images alike (the range given)" in out
    for key, example in own.examples(tmp_path).items():
        expected = slow_scaled(camera(int(key[1:])), 100, 1500)
        np.testing.assert_array_equal(example["image"][..., 1], expected)


def test_png_of_16_bits_keeps_them_until_scaled(tmp_path):
    grey = camera(1)
    for pixels in (grey, np.stack([grey, grey + 1, grey + 2], axis=-1)):
        data = io.BytesIO()
        if pixels.ndim == 2:
            Image.fromarray(pixels).save(data, "PNG")
        else:
            import imagecodecs

            data.write(imagecodecs.png_encode(pixels))
        found = scientific.read(data.getvalue(), name="x").pixels
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found.squeeze(), pixels)


PAGES = {
    "z": (np.stack([camera(0), camera(1), camera(2)]), {"ome": True, "metadata": {"axes": "ZYX"}}),
    "unnamed": (np.stack([camera(0), camera(1), camera(2)]), {"photometric": "minisblack"}),
    "ImageJ": (
        np.stack([camera(0), camera(1), camera(2)]),
        {"imagej": True, "metadata": {"axes": "ZYX"}},
    ),
}


@pytest.mark.parametrize("kind", PAGES)
def test_of_several_pages_none_is_read_silently(tmp_path, kind):
    pixels, options = PAGES[kind]
    laid = lay(tmp_path, [pixels + 5 * seed for seed in range(3)], **options)
    code, _, err = own.build(tmp_path, *laid)
    assert code == 2
    assert "3 examples of pages or channels that are not read: " in err
    assert "--skip_damaged" not in err
    assert "x0.tif has 3 pages (" in err
    assert "Say which, from 0: --page" in err
    assert own.build(tmp_path, *laid, "--page", "1", "--range", "0", "4095")[0] == 0
    for key, example in own.examples(tmp_path).items():
        expected = slow_scaled(camera(1) + 5 * int(key[1:]), 0, 4095)
        np.testing.assert_array_equal(example["image"][..., 0], expected)
    assert "page 3 was asked for" in own.build(tmp_path, *laid, "--page", "3", "--overwrite")[2]


CHANNELS = {
    "OME": (
        "CYX",
        {"ome": True, "metadata": {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}}},
    ),
    "stack": ("ZCYX", {"ome": True, "metadata": {"axes": "ZCYX"}}),
    "last": ("YXC", {"photometric": "minisblack", "planarconfig": "contig"}),
}


@pytest.mark.parametrize("kind", CHANNELS)
def test_channels_are_named_and_chosen(tmp_path, kind):
    axes, options = CHANNELS[kind]
    pixels = np.stack([camera(0), camera(1)])
    pixels = np.stack([camera(2) + pixels * 0, pixels]) if axes == "ZCYX" else pixels
    pixels = pixels.transpose(1, 2, 0) if axes == "YXC" else pixels
    laid = lay(tmp_path, [pixels] * 2, ending="ome.tif", **options)
    page = ["--page", "1"] if axes == "ZCYX" else []
    code, _, err = own.build(tmp_path, *laid, *page)
    assert code == 2
    names = "DAPI, GFP" if kind == "OME" else "0, 1"
    assert f"x0.ome.tif has 2 channels: {names}. Say which are read" in err
    chosen = "GFP" if kind == "OME" else "1"
    flags = [*laid, *page, "--range", "0", "4095"]
    code, _, err = own.build(tmp_path, *flags, "--channels", chosen)
    assert code == 0, err
    np.testing.assert_array_equal(
        own.examples(tmp_path)["x0"]["image"][..., 2], slow_scaled(camera(1), 0, 4095)
    )
    assert own.build(tmp_path, *flags, "--channels", "1", "0", "--overwrite")[0] == 0
    image = own.examples(tmp_path)["x0"]["image"]
    for channel, seed in enumerate((1, 0)):
        expected = slow_scaled(camera(seed), 0, 4095)
        np.testing.assert_array_equal(image[..., channel], expected)
    assert not image[..., 2].any()
    err = own.build(tmp_path, *flags, "--channels", "RFP", "--overwrite")[2]
    assert f"has no channel 'RFP'; it has {names}" in err


def test_each_chosen_channel_has_its_own_percentiles(tmp_path):
    pixels = np.stack([camera(0), camera(1) * 7])
    options = {"ome": True, "metadata": {"axes": "CYX"}}
    laid = lay(tmp_path, [pixels] * 2, **options)
    assert own.build(tmp_path, *laid, "--channels", "0", "1")[0] == 0
    image = own.examples(tmp_path)["x1"]["image"]
    for channel in range(2):
        low, high = (slow_percentile(pixels[channel].ravel(), p) for p in (0.1, 99.9))
        np.testing.assert_array_equal(image[..., channel], slow_scaled(pixels[channel], low, high))


def test_depths_that_differ_and_fractions_need_a_range(tmp_path):
    images = [camera(0), (camera(1) >> 4).astype(np.uint8), camera(2).astype(np.float32)]
    laid = lay(tmp_path, images)
    code, _, err = own.build(tmp_path, *laid)
    assert code == 2
    assert "images of 1 of float32, 1 of uint16, 1 of uint8" in err
    assert "Give both by --range, such as --range 0 4" in err
    assert own.build(tmp_path, *laid, "--range", "0", "4095")[0] == 0


def test_masks_of_several_pages_say_what_to_do(tmp_path):
    laid = lay(tmp_path, [own.photo(seed, SMALL) for seed in range(3)], photometric="rgb")
    pages = np.stack([own.objects(seed, size=SMALL) for seed in range(2)])
    tiff(tmp_path / "masks" / "x1.tif", pages, photometric="minisblack")
    code, _, err = own.build(tmp_path, *laid, "--page", "0")
    assert code == 2
    assert "1 example of pages or channels that are not read: " in err
    assert "x1.tif has 2 pages" in err
    assert "Save the page of its image alone" in err
    assert "--skip_damaged" not in err


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_numbers_are_refused_by_name(tmp_path, dtype):
    for seed in range(2):
        pixels = camera(seed, (40, 56)).astype(np.uint16 if seed else dtype)
        tiff(tmp_path / "images" / f"x{seed}.tif", pixels, photometric="minisblack")
        tiff(tmp_path / "masks" / f"x{seed}.tif", own.classes(seed))
    code, _, err = own.build(tmp_path, "--masks", tmp_path / "masks")
    assert code == 2
    assert f"x0.tif holds numbers of {np.dtype(dtype)}, which are no brightness" in err
    assert "--skip_damaged" in err


def test_what_is_no_number_is_black_and_said(tmp_path):
    images = [camera(seed).astype(np.float32) / 1000 - 1 for seed in range(3)]
    for image in images:
        image[0, :2] = np.nan, np.inf
    laid = lay(tmp_path, images)
    code, _, err = own.build(tmp_path, *laid)
    assert code == 2
    (low, high) = re.findall(r"such as --range (\S+) (\S+)\.", err)[0]
    assert -1 <= float(low) < 0 < float(high) < 4
    code, out, err = own.build(tmp_path, *laid, "--range", low, high)
    assert code == 0, err
    assert "what is no number (NaN) of 3 images is left out." in out
    assert own.examples(tmp_path)["x1"]["image"][0, :2, 0].tolist() == [0, 255]


def test_images_of_one_level_are_said(tmp_path):
    laid = lay(tmp_path, [np.full(SMALL, 700, np.uint16)] * 2)
    code, _, err = own.build(tmp_path, *laid)
    assert code == 2
    assert "cannot be scaled: a range from 700 to 700" in err


def test_tiff_of_8_bit_colours_is_read_as_it_is(tmp_path):
    laid = lay(tmp_path, [own.photo(s, SMALL) for s in range(3)], photometric="rgb")
    assert own.build(tmp_path, *laid)[0] == 0
    for key, example in own.examples(tmp_path).items():
        np.testing.assert_array_equal(example["image"], own.photo(int(key[1:]), SMALL))


COLOURS = np.random.default_rng(5).integers(0, 256, (3, 256), np.uint16) * 257


def test_tiffs_with_palettes_are_read_as_their_colours(tmp_path):
    indices = own.photo(1, SMALL)[..., 0]
    tiff(tmp_path / "x.tif", indices, photometric="palette", colormap=COLOURS)
    found = scientific.read((tmp_path / "x.tif").read_bytes(), name="x").pixels
    np.testing.assert_array_equal(found, np.asarray(Image.open(tmp_path / "x.tif").convert("RGB")))


def test_tiff_masks_keep_palettes(tmp_path):
    tiff(tmp_path / "x.tif", own.classes(1), photometric="palette", colormap=COLOURS)
    found = scientific.read_mask((tmp_path / "x.tif").read_bytes(), name="x")
    np.testing.assert_array_equal(found.pixels, own.classes(1))
    np.testing.assert_array_equal(found.palette, COLOURS.T // 257)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16])
def test_tiffs_whose_0_is_white_are_swapped_and_such_masks_refused(tmp_path, dtype):
    pixels = (own.photo(1, SMALL)[..., 0] > 99) if dtype is bool else camera(1).astype(dtype)
    tiff(tmp_path / "x.tif", pixels, photometric="miniswhite")
    data = (tmp_path / "x.tif").read_bytes()
    most = 1 if dtype is bool else np.iinfo(dtype).max
    expected = (most - pixels.astype(int)) * (255 if dtype is bool else 1)
    found = scientific.read(data, name="x").pixels
    np.testing.assert_array_equal(found[..., 0], expected)
    with pytest.raises(ArchiveError, match="x says that its 0 is white"):
        scientific.read_mask(data, name="x")


@pytest.mark.parametrize("bits", [2, 4, 6])
@pytest.mark.parametrize("meaning", ["minisblack", "miniswhite"])
def test_tiffs_of_fewer_than_8_bits_are_as_bright_as_they_say(tmp_path, bits, meaning):
    most = (1 << bits) - 1
    levels = own.photo(1, SMALL)[..., 0] >> (8 - bits)
    tiff(tmp_path / "x.tif", levels, photometric=meaning, bitspersample=bits, compression=None)
    data = (tmp_path / "x.tif").read_bytes()
    found = scientific.read(data, name="x").pixels
    assert found.dtype == np.uint8
    for level in range(most + 1):
        seen = most - level if meaning == "miniswhite" else level
        assert {*found[levels == level].ravel().tolist()} <= {int(255 * seen / most + 0.5)}
    if meaning == "minisblack":
        np.testing.assert_array_equal(scientific.read_mask(data, name="x").pixels, levels)


@pytest.mark.parametrize("space", ["YCbCr", "CIELab", "separated"])
def test_tiffs_of_other_colours_than_rgb_are_refused(tmp_path, space):
    pixels = own.photo(1, SMALL)
    if space == "separated":  # CMYK
        pixels = np.concatenate([pixels, pixels[..., :1]], axis=-1)
    tiff(tmp_path / "x.tif", pixels, photometric=space, planarconfig="contig")
    data = (tmp_path / "x.tif").read_bytes()
    for read in (scientific.read, scientific.read_mask):
        with pytest.raises(ArchiveError, match=f"x has the colours {space.upper()}"):
            read(data, name="x")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("band", ["unspecified", "unassalpha", "assocalpha"])
def test_a_fourth_band_is_transparency_only_where_the_file_says_so(tmp_path, band, dtype):
    opaque = 1 if dtype == "float32" else np.iinfo(dtype).max
    pixels = np.full((*SMALL, 4), opaque, dtype)
    pixels[..., :3] = own.photo(1, SMALL)
    how: Any = {"photometric": "rgb", "extrasamples": [band]}
    tiff(tmp_path / "x.tif", pixels, **how)
    assert scientific.read((tmp_path / "x.tif").read_bytes(), name="x").lost == ""
    pixels[0, 0, 3] = 0
    tiff(tmp_path / "x.tif", pixels, **how)
    found = scientific.read((tmp_path / "x.tif").read_bytes(), name="x")
    unknown = "a fourth band, whose meaning the file does not say,"
    assert found.lost == (unknown if band == "unspecified" else "transparency")
    np.testing.assert_array_equal(found.pixels, pixels[..., :3])


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_orientation_of_tiffs_is_undone(tmp_path, turn):
    options: Any = {"photometric": "rgb", "extratags": [(274, "H", 1, turn, True)]}
    tiff(tmp_path / "x.tif", own.photo(1, SMALL), **options)
    data = (tmp_path / "x.tif").read_bytes()
    found = scientific.read(data, name="x")
    exif = Image.Exif()
    exif[274] = turn
    png = io.BytesIO()
    Image.fromarray(own.photo(1, SMALL)).save(png, "PNG", exif=exif)
    np.testing.assert_array_equal(found.pixels, scientific.read(png.getvalue(), name="x").pixels)
    assert found.turned == turn
    np.testing.assert_array_equal(scientific.read_mask(data, name="x").pixels, found.pixels)


def test_each_image_of_an_ome_tiff_has_its_own_names_of_channels(tmp_path):
    path, names = tmp_path / "x.ome.tif", ["DAPI", "GFP"]
    with tifffile.TiffWriter(path, ome=True) as file:
        for first in (0, 2):
            channels: Any = {"axes": "CYX", "Channel": {"Name": names[:: 1 - first]}}
            file.write(np.stack([camera(first), camera(first + 1)]), metadata=channels)
    for page, seed in enumerate((0, 3)):
        found = scientific.read(path.read_bytes(), name="x", page=page, channels=["DAPI"]).pixels
        np.testing.assert_array_equal(found[..., 0], camera(seed))


@pytest.mark.parametrize(
    ("dtype", "is_read"), [("uint8", True), ("int32", True), ("float32", True), ("fraction", False)]
)
def test_maps_of_objects_are_whole_numbers_of_any_type(tmp_path, dtype, is_read):
    for seed in range(4):
        own.write(tmp_path / "images" / f"x{seed}.png", own.photo(seed))
        labels = own.objects(seed)
        stored = labels / 2 if dtype == "fraction" else labels.astype(dtype)
        tiff(tmp_path / "masks" / f"x{seed}.tif", stored)
    code, _, err = own.build(tmp_path, "--masks", tmp_path / "masks")
    assert code == (0 if is_read else 2)
    if is_read:
        own.equal(tmp_path, {f"x{s}": own.objects(s) for s in range(4)}, "instances")
    else:
        assert "has numbers that are not whole, or below 0" in err


@pytest.mark.parametrize("how", [None, "packbits", "tiff_lzw", "tiff_adobe_deflate", "zstd"])
@pytest.mark.parametrize("kind", ["L", "RGB", "I;16"])
def test_values_are_differences_only_where_libtiff_writes_such(tmp_path, how, kind):
    """Other programs, such as that of old confocal microscopes, claim it of plain values too."""
    pixels = np.random.default_rng(2).integers(0, 1 << (16 if kind == "I;16" else 8), (17, 23, 3))
    pixels = pixels if kind == "RGB" else pixels[..., 0]
    pixels = pixels.astype(np.uint16 if kind == "I;16" else np.uint8)
    path = tmp_path / "a.tif"
    Image.fromarray(pixels).save(path, compression=how, tiffinfo={317: 2})
    with tifffile.TiffFile(path) as file:
        assert file.pages.first.predictor == 2
    expected = pixels.reshape(17, 23, -1)
    data = path.read_bytes()
    np.testing.assert_array_equal(scientific.read(data, name="a").pixels, expected)
    np.testing.assert_array_equal(scientific.read_mask(data, name="a").pixels, pixels)
    with large.opened(path) as rows:
        np.testing.assert_array_equal(rows[3:17], expected[3:])


def test_damaged_tiffs_name_the_file(tmp_path):
    path = tmp_path / "x.tif"
    tiff(path, camera(0), compression="zlib")
    whole = path.read_bytes()
    rng, unnamed = np.random.default_rng(0), 0
    for case in range(300):
        data = bytearray(whole[: int(rng.integers(4, len(whole)))] if case % 2 else whole)
        for place in rng.integers(4, max(5, len(data)), 3):
            data[min(place, len(data) - 1)] = int(rng.integers(256))
        try:
            found = scientific.read(bytes(data), name="x.tif").pixels
            assert found.ndim == 3
        except ArchiveError as error:
            unnamed += "x.tif" not in str(error)
    assert not unnamed


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("to", [0, 1])
def test_a_tiff_whose_pages_lead_back_to_themselves_is_refused(big, to):
    buffer = io.BytesIO()
    pages = np.zeros((3, 12, 16), np.uint16)
    tifffile.imwrite(buffer, pages, photometric="minisblack", bigtiff=big, metadata=None)
    data = bytearray(buffer.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        offsets = [page.offset for page in file.pages]
        size = file.tiff.offsetsize
    assert data.count(offsets[2].to_bytes(size, "little")) == 1  # after the tags of page 1
    at = data.index(offsets[2].to_bytes(size, "little"))
    data[at : at + size] = offsets[to].to_bytes(size, "little")
    for read in (scientific.read, scientific.read_mask):
        with pytest.raises(ArchiveError, match=r"x\.tif .* leads back to itself"):
            read(bytes(data), name="x.tif", page=0)
    assert scientific.read(buffer.getvalue(), name="x.tif", page=2).pixels.shape == (12, 16, 1)


def test_a_tiff_that_claims_to_be_huge_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "x.tif"
    tiff(path, np.zeros((4, 4), np.uint8))
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages.first.tags["ImageWidth"].overwrite(1 << 20)
        file.pages.first.tags["ImageLength"].overwrite(1 << 20)
    with pytest.raises(ArchiveError, match="claims 1,048,576×1,048,576 pixels"):
        scientific.read(path.read_bytes(), name="x.tif")


def test_percentiles_and_scaling_are_those_of_slow_references():
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 3000, (11, 13, 2)).astype(np.uint16) for _ in range(3)]
    counts = np.sum([intensity.histogram(each) for each in images], axis=0)
    found = intensity.by_percentiles(counts, (2.5, 97))
    for channel in range(2):
        levels = np.concatenate([each[..., channel].ravel() for each in images])
        assert found.low[channel] == slow_percentile(levels, 2.5)
        assert found.high[channel] == slow_percentile(levels, 97)
    with pytest.raises(ValueError, match="3 channels, and ranges for 2"):
        found.apply(np.zeros((2, 2, 3), np.uint16))
    with pytest.raises(ValueError, match="is no scaling of brightness"):
        intensity.Scaling.from_json({"low": 3})


@pytest.mark.parametrize("count", [2, 999, 1000, 1001, 41_000, 65_000])
@pytest.mark.parametrize("percentiles", [(0.1, 99.9), (0, 100), (0.5, 99.5), (2.5, 97)])
def test_a_percentile_is_of_no_pixel_more_or_less(count, percentiles):
    levels = np.arange(count)
    found = intensity.by_percentiles(
        intensity.histogram(levels.astype(np.uint16)[None, :, None]), percentiles
    )
    assert found.low == (slow_percentile(levels, percentiles[0]),)
    assert found.high == (slow_percentile(levels, percentiles[1]),)


OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Image ID="Image:0"><Pixels ID="P" DimensionOrder="XYZCT" Type="uint8" SizeX="40" SizeY="48" '
    'SizeC="{}" SizeZ="1" SizeT="{}"><TiffData/></Pixels></Image></OME>'
)


@pytest.mark.parametrize(
    "description",
    ['{"shape": [99999999, 48, 40]}', OME.format(1, 99_999_999), OME.format(99_999_999, 1)],
    ids=["shape", "times", "channels"],
)
def test_planes_that_a_description_claims_are_not_listed(monkeypatch, description):
    file = io.BytesIO()
    pixels = np.zeros((48, 40), np.uint8)
    tifffile.imwrite(file, pixels, description=description, metadata=None)

    def product(*ranges):
        raise AssertionError(f"lists {ranges}")

    monkeypatch.setattr("itertools.product", product)
    with pytest.raises(ArchiveError, match=r"x\.tif claims 99,999,999 planes"):
        scientific.read(file.getvalue(), name="x.tif")

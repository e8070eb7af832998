import io
import json
import re
import shlex
from typing import Any

import imagecodecs
import numpy as np
import own_folders as own
import pytest
import tensorflow_datasets as tfds
import tifffile
from PIL import Image

import segdata
from segdata import cli
from segdata.archives import mask_files

COUNT = 6


def lay(root, mask_of, *, ending="png", **options):
    """Images and masks in two folders; `mask_of` makes a mask of a seed."""
    for seed in range(COUNT):
        own.write(root / "images" / f"x{seed}.png", own.photo(seed))
        mask = mask_of(seed)
        path = root / "masks" / f"x{seed}.{ending}"
        if isinstance(mask, Image.Image):
            path.parent.mkdir(parents=True, exist_ok=True)
            mask.save(path, **options)
        else:
            own.write(path, mask, **options)
    return ["--masks", root / "masks"]


def palette_image(indices, colours):
    image = Image.fromarray(indices, "P")
    image.putpalette(np.asarray(colours, np.uint8).tobytes(), "RGB")
    return image


def binary(seed):
    return (own.classes(seed) == 1).astype(np.uint8)


def levels(seed):
    """Grey levels 0, 100 and 200."""
    return own.classes(seed) * np.uint8(100)


def coloured(seed):
    return np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)[own.classes(seed)]


def ignored(seed):
    mask = own.classes(seed)
    mask[3:5] = 255
    return mask


BUILT = {  # kind of mask: what is stored, more flags, what is expected, how it is read
    "ids": (own.classes, [], own.classes, "ids"),
    "ids of 16 bits": (lambda s: own.classes(s).astype(np.uint16), [], own.classes, "ids"),
    "ids as RGB": (lambda s: np.stack([own.classes(s)] * 3, -1), [], own.classes, "ids"),
    "ids and ignored": (ignored, [], ignored, "ids"),
    "ids, named": (own.classes, ["--classes", "sky", "road", "car"], own.classes, "ids"),
    "0 and 1": (binary, [], binary, "ids"),
    "0 and 255": (lambda s: binary(s) * np.uint8(255), [], binary, "binary"),
    "0 and 128": (lambda s: binary(s) * np.uint8(128), [], binary, "binary"),
    "0 and 65535": (lambda s: binary(s) * np.uint16(65535), [], binary, "binary"),
    "one bit": (lambda s: Image.fromarray(binary(s) > 0), [], binary, "binary"),
    "colours": (coloured, ["--palette", "0,0,0=no", "#ff0000=a", "0,0,255=b"], own.classes, "c"),
    "colours, in another order": (
        coloured,
        ["--classes", "b", "a", "no", "--palette", "0,0,0=no", "#FF0000=a", "0,0,255=b"],
        lambda s: 2 - own.classes(s),
        "colours",
    ),
    "colours, one ignored": (
        coloured,
        ["--palette", "0,0,0=ignore", "#ff0000=a", "0,0,255=b"],
        lambda s: np.array([255, 0, 1], np.uint8)[own.classes(s)],
        "colours",
    ),
    "transparent around": (
        lambda s: np.concatenate([coloured(s), 255 * (own.classes(s)[..., None] > 0)], -1).astype(
            np.uint8
        ),
        ["--palette", "0,0,0=no", "#ff0000=a", "0,0,255=b"],
        own.classes,
        "colours",
    ),
    "grey levels": (levels, ["--palette", "0=no", "100=a", "200=b"], own.classes, "colours"),
    "palette": (
        lambda s: palette_image(own.classes(s), [(9, 9, 9), (255, 0, 0), (0, 0, 255)]),
        [],
        own.classes,
        "ids",
    ),
    "palette by colours": (
        lambda s: palette_image(own.classes(s), [(9, 9, 9), (255, 0, 0), (0, 0, 255)]),
        ["--palette", "0,0,255=b", "9,9,9=no", "255,0,0=a"],
        lambda s: np.array([1, 2, 0], np.uint8)[own.classes(s)],
        "colours",
    ),
    "objects in 16 bits": (own.objects, [], lambda s: own.objects(s) > 0, "instances"),
    "objects in 8 bits": (
        lambda s: own.objects(s).astype(np.uint8),
        [],
        lambda s: own.objects(s) > 0,
        "instances",
    ),
}


@pytest.mark.parametrize("kind", BUILT)
def test_each_kind_of_mask_is_found_out_and_read_exactly(tmp_path, kind):
    stored, flags, expected, how = BUILT[kind]
    code, out, err = own.build(tmp_path, *lay(tmp_path, stored), *flags)
    assert code == 0, err
    assert f"Masks are read as {how}" in out
    void = sum(int((ignored(seed) == 255).sum()) for seed in range(COUNT))
    said = f"The number 255 is the ignore label: {void:,} pixels of the masks."
    assert (said in out, "ignore label" in out) == (stored is ignored,) * 2
    own.equal(tmp_path, {f"x{seed}": expected(seed) for seed in range(COUNT)})
    if how == "instances":
        own.equal(tmp_path, {f"x{s}": own.objects(s) for s in range(COUNT)}, "instances")


def test_colours_without_a_palette_are_found_and_shown(tmp_path):
    code, out, _ = own.build(tmp_path, *lay(tmp_path, coloured))
    assert code == 0
    assert "found 3 colours, #000000 (" in out
    names = re.findall("Classes: (.*)\\.", out)[0].split(", ")
    assert names[0] == "0 background"
    ids = {name.split("colour_")[1]: int(name.split()[0]) for name in names[1:]}
    table = np.array([0, ids["ff0000"], ids["0000ff"]])
    own.equal(tmp_path, {f"x{seed}": table[own.classes(seed)] for seed in range(COUNT)})


def shuffled_palette(seed):
    """Each mask has a palette in an order of its own, so that indices mean nothing."""
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)
    order = np.random.default_rng(seed).permutation(3)
    return palette_image(np.argsort(order).astype(np.uint8)[own.classes(seed)], colours[order])


def test_palettes_that_differ_are_read_by_their_colours(tmp_path):
    flags = ["--palette", "0,0,0=no", "255,0,0=a", "0,0,255=b"]
    assert own.build(tmp_path, *lay(tmp_path, shuffled_palette), *flags)[0] == 0
    own.equal(tmp_path, {f"x{seed}": own.classes(seed) for seed in range(COUNT)})


def test_palettes_that_differ_in_numbers_of_other_masks_are_read_by_their_colours(tmp_path):
    def either(seed):
        colours = [(0, 0, 0), (255, 0, 0), (0, 0, 255)]
        number = 1 + seed % 2
        reds = colours if number == 1 else [colours[0], colours[2], colours[1]]
        return palette_image(binary(seed) * np.uint8(number), reds)

    assert own.build(tmp_path, *lay(tmp_path, either))[0] == 0
    own.equal(tmp_path, {f"x{seed}": binary(seed) for seed in range(COUNT)})


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("step", [1, 257])
def test_colours_of_16_bits_are_not_cut(tmp_path, ending, step):
    laid = lay(tmp_path, own.classes)
    for seed in range(COUNT):
        (tmp_path / "masks" / f"x{seed}.png").unlink()
        deep = (coloured(seed) // 255).astype(np.uint16) * np.uint16(200 * step)
        path = tmp_path / "masks" / f"x{seed}.{ending}"
        if ending == "png":
            path.write_bytes(imagecodecs.png_encode(deep))
        else:
            tifffile.imwrite(path, deep, photometric="rgb")
    palette = ["--palette", "0,0,0=no", "200,0,0=a", "0,0,200=b"]
    code, _, err = own.build(tmp_path, *laid, *palette)
    if step == 1:
        assert code == 2
        assert "has colours of more than 8 bits" in err
    else:
        assert code == 0, err
        own.equal(tmp_path, {f"x{seed}": own.classes(seed) for seed in range(COUNT)})


def smooth(seed):
    image = Image.fromarray(binary(seed) * np.uint8(255))
    return image.resize((224, 160), Image.Resampling.BICUBIC).resize(
        (own.SIZE[1], own.SIZE[0]), Image.Resampling.BOX
    )


def few_objects(seed):
    return own.objects(seed, count=3).astype(np.uint8)


REFUSED = {  # kind of mask: what is stored, options of its file, what is said, flags that go on
    "few objects": (
        few_objects,
        "(97.9 %), 1 (0.7 %), 2 (0.7 %), 3 (0.7 %): classes, or one number an object?",
        ["--mask_kind", "instances"],
        few_objects,
        "instances",
    ),
    "grey levels": (
        levels,
        "or, where grey levels stand for classes, --palette",
        ["--palette", "0=no", "100=a", "200=b"],
        own.classes,
        "mask",
    ),
    "nothing in any": (
        lambda _: np.zeros(own.SIZE, np.uint8),
        "all 6 masks are 0 everywhere",
        ["--mask_kind", "ids"],
        lambda _: np.zeros(own.SIZE, np.uint8),
        "mask",
    ),
    "a colour an object": (
        lambda s: np.array([(0, 0, 0), (255, s, 0), (0, s, 255)], np.uint8)[own.classes(s)],
        "are in one mask each: one colour an object",
        ["--mask_kind", "instances"],
        lambda s: own.classes(s) > 0,
        "mask",
    ),
    "names for colours": (
        coloured,
        "which colour is which class? Give --palette '#000000=no'",
        ["--palette", "#000000=no", "#ff0000=a", "#0000ff=b"],
        own.classes,
        "mask",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_can_be_understood_in_several_ways_names_the_flag(tmp_path, kind):
    stored, message, flags, expected, feature = REFUSED[kind]
    laid = lay(tmp_path, stored)
    more = ["--classes", "no", "a", "b"] if kind == "names for colours" else []
    code, _, err = own.build(tmp_path, *laid, *more)
    assert code == 2
    assert message in err
    assert not (tmp_path / "data" / "mine").exists()
    code, _, err = own.build(tmp_path, *laid, *flags)
    assert code == 0, err
    own.equal(tmp_path, {f"x{seed}": expected(seed) for seed in range(COUNT)}, feature)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_smooth_edges_and_jpeg_need_a_threshold(tmp_path, ending):
    laid = lay(tmp_path, smooth, ending=ending)
    code, _, err = own.build(tmp_path, *laid)
    assert code == 2
    assert "the masks are nearly all 0 or 255, with" in err
    (flag,) = re.findall("--threshold [0-9]+", err)
    assert own.build(tmp_path, *laid, *flag.split())[0] == 0
    threshold = int(flag.split()[1])
    expected = {}
    for seed in range(COUNT):
        with Image.open(tmp_path / "masks" / f"x{seed}.{ending}") as image:
            expected[f"x{seed}"] = np.asarray(image) >= threshold
    own.equal(tmp_path, expected)


def test_jpeg_colours_need_the_true_ones(tmp_path):
    laid = lay(tmp_path, coloured, ending="jpg", quality=95, subsampling=0)
    code, _, err = own.build(tmp_path, *laid)
    assert code == 2
    assert "JPEG smears colours: give --palette with the true ones and --others nearest" in err
    palette = ["--palette", "#000000=no", "#ff0000=a", "#0000ff=b"]
    code, _, err = own.build(tmp_path, *laid, *palette)
    assert "colours in the masks that are none of the classes no, a, b" in err
    assert own.build(tmp_path, *laid, *palette, "--others", "nearest")[0] == 0
    for key, example in own.examples(tmp_path).items():
        wrong = example["mask"][..., 0] != own.classes(int(key[1:]))
        assert wrong.mean() < 0.05


LOSSY = {  # options of files whose levels or colours are not those that were stored
    "JPEG": ("jpg", {"quality": 95}),
    "WebP": ("webp", {"quality": 95}),
    "TIFF": ("tif", {"compression": "jpeg"}),
}


@pytest.mark.parametrize("kind", LOSSY)
@pytest.mark.parametrize("flags", ["", "--classes a b c", "--mask_kind ids", "--mask_kind colours"])
def test_lossy_masks_are_no_class_ids(tmp_path, kind, flags):
    ending, options = LOSSY[kind]
    laid = lay(tmp_path, own.classes, ending=ending, **options)
    code, _, err = own.build(tmp_path, *laid, *flags.split())
    assert code == 2
    assert "6 of 6 masks are JPEG or lossy WebP" in err


def test_jpeg_of_0_and_255_without_smears_and_lossless_webp_are_read(tmp_path):
    def white(seed):
        return np.full(own.SIZE, seed % 2 * 255, np.uint8)

    laid = lay(tmp_path / "a", white, ending="jpg")
    assert own.build(tmp_path / "a", *laid)[0] == 0
    own.equal(tmp_path / "a", {f"x{seed}": white(seed) > 0 for seed in range(COUNT)})
    laid = lay(tmp_path / "b", own.classes, ending="webp", lossless=True)
    assert own.build(tmp_path / "b", *laid)[0] == 0
    own.equal(tmp_path / "b", {f"x{seed}": own.classes(seed) for seed in range(COUNT)})


def test_nearest_is_for_colours(tmp_path):
    flags = ["--mask_kind", "ids", "--others", "nearest"]
    code, _, err = own.build(tmp_path, *lay(tmp_path, own.classes), *flags)
    assert code == 2
    assert "--others nearest is for colours" in err


def test_a_stray_number_among_named_classes_is_named(tmp_path):
    def stray(seed):
        mask = own.classes(seed) * (own.photo(seed)[..., 0] > 128).astype(np.uint8)
        mask[5, 5] = 9
        return mask

    code, _, err = own.build(tmp_path, *lay(tmp_path, stray), "--classes", "no", "a", "b")
    assert code == 2
    assert "none of the classes no, a, b: 9 (6 pixels" in err
    assert "--threshold" not in err


def test_objects_and_names_of_two_classes_are_asked_about(tmp_path):
    laid = lay(tmp_path, few_objects)
    code, _, err = own.build(tmp_path, *laid, "--classes", "no", "cell")
    assert code == 2
    assert "if each is an object, --mask_kind instances; else --mask_kind ids" in err
    assert "--others" not in err
    flags = ["--classes", "no", "cell", "--mask_kind", "instances"]
    assert own.build(tmp_path, *laid, *flags)[0] == 0


def test_masks_that_are_255_everywhere_are_ignored_where_classes_are_named(tmp_path):
    laid = lay(tmp_path, lambda _: np.full(own.SIZE, 255, np.uint8))
    code, _, err = own.build(tmp_path, *laid, "--classes", "no", "a", "b")
    assert code == 0, err
    own.equal(tmp_path, {f"x{seed}": np.full(own.SIZE, 255) for seed in range(COUNT)})


@pytest.mark.parametrize("flags", ["", "--classes no cell", "--classes no a b"])
def test_masks_of_0_and_1_beside_masks_of_0_and_255_are_asked_about(tmp_path, flags):
    """As two programs write the same masks: 255 would be the ignore label in half of them."""

    def mixed(seed):
        return binary(seed) * np.uint8(255 if seed % 2 else 1)

    laid = lay(tmp_path, mixed)
    code, _, err = own.build(tmp_path, *laid, *flags.split())
    assert code == 2
    assert "3 of 6 masks have 255 and no other number than 0" in err
    if "a b" not in flags:
        assert own.build(tmp_path, *laid, "--mask_kind", "binary")[0] == 0
        own.equal(tmp_path, {f"x{seed}": binary(seed) for seed in range(COUNT)})
    assert own.build(tmp_path, *laid, *flags.split(), "--mask_kind", "ids", "--overwrite")[0] == 0
    own.equal(tmp_path, {f"x{seed}": mixed(seed) for seed in range(COUNT)})


def test_numbers_beyond_a_palette_have_no_colour(tmp_path):
    """They are class ids, or the ignore label, but not the black that fills up a palette."""
    colours = [(0, 0, 0), *(np.random.default_rng(1).integers(1, 256, (19, 3)).tolist())]

    def void(seed):
        return palette_image(ignored(seed), colours)

    laid = lay(tmp_path, void)
    assert own.build(tmp_path, *laid)[0] == 0
    own.equal(tmp_path, {f"x{seed}": ignored(seed) for seed in range(COUNT)})
    named = [f"{','.join(map(str, colour))}=c{n}" for n, colour in enumerate(colours)]
    code, _, err = own.build(tmp_path, *laid, "--palette", *named, "--overwrite")
    assert code == 2
    assert re.search(r"x\d.png: the number 255 in it is none of the 20 of its palette", err)


INVERTED = [(255 - grey,) * 3 for grey in range(256)]  # as of an inverting lookup table of ImageJ


@pytest.mark.parametrize("numbers", [(0, 1), (0, 255), (0, 1, 2)])
def test_palettes_that_swap_black_and_white_are_asked_about(tmp_path, numbers):
    def swapped(seed):
        return np.array(numbers, np.uint8)[own.classes(seed) % len(numbers)]

    laid = lay(tmp_path, lambda seed: palette_image(swapped(seed), INVERTED))
    code, _, err = own.build(tmp_path, *laid)
    assert code == 2
    assert "the number 0 is #ffffff in the palettes, brighter than" in err
    greys = [f"{255 - number}=c{number}" for number in numbers]
    assert own.build(tmp_path, *laid, "--palette", *greys)[0] == 0
    expected = {f"x{seed}": own.classes(seed) % len(numbers) for seed in range(COUNT)}
    own.equal(tmp_path, expected)
    kind = "binary" if 255 in numbers else "ids"
    assert own.build(tmp_path, *laid, "--mask_kind", kind, "--overwrite")[0] == 0
    own.equal(tmp_path, expected)


@pytest.mark.parametrize("some", [1, COUNT])
def test_masks_that_are_black_with_transparency_are_refused(tmp_path, some):
    def hidden(seed):
        inside = 255 * binary(seed)
        black = np.zeros_like(inside)
        colour = black if seed < some else inside
        return np.stack([colour, colour, colour, inside], axis=-1).astype(np.uint8)

    code, _, err = own.build(tmp_path, *lay(tmp_path, hidden))
    assert code == 2
    assert "x0.png is black, and transparent in a part of it" in err


def go_on(err):
    """Types the command that an error gives."""
    (command,) = re.findall("`(segdata build folder .*)` continues without them", err)
    return cli.main(shlex.split(command)[1:])


def test_everything_that_is_wrong_is_in_one_error_and_the_command_goes_on(tmp_path):
    laid = lay(tmp_path, coloured)
    own.write(tmp_path / "images" / "bare.png", own.photo(50))
    own.write(tmp_path / "masks" / "lonely.png", coloured(1))
    (tmp_path / "images" / "cells.czi").write_bytes(b"ZISRAWFILE")
    own.write(tmp_path / "images" / "small.png", own.photo(51, (20, 30)))
    own.write(tmp_path / "masks" / "small.png", coloured(2))
    (tmp_path / "images" / "cut.png").write_bytes(
        (tmp_path / "images" / "x0.png").read_bytes()[:300]
    )
    own.write(tmp_path / "masks" / "cut.png", coloured(2))
    strange = coloured(3)
    strange[5, 5:9] = (9, 9, 9)
    own.write(tmp_path / "masks" / "x3.png", strange)
    palette = ["--palette", "#000000=no", "#ff0000=a", "#0000ff=b"]
    code, _, err = own.build(tmp_path, *laid, *palette)
    assert code == 2
    for message in (
        "1 image without masks: bare.png",
        "1 mask without an image: lonely.png",
        "1 file of kinds that are not read: cells.czi",
        "1 mask of another size than the image: small.png is 56×40, its image 30×20",
        "1 example cannot be read: ",
        "cut.png is no readable PNG: it is cut after 300 bytes",
        "1 colour in the masks that are none of the classes no, a, b: #090909 (4 pixels, as in x3",
    ):
        assert message in err
    assert go_on(err) == 0
    expected = {f"x{seed}": own.classes(seed) for seed in range(COUNT)}
    expected["x3"][5, 5:9] = 255
    own.equal(tmp_path, expected)
    info: Any = tfds.builder("mine", data_dir=tmp_path / "data").info
    skipped = info.metadata["skipped"]
    assert sorted(skipped) == ["bare", "cells.czi", "cut", "lonely.png", "small"]


def test_images_without_masks_can_be_background(tmp_path):
    laid = lay(tmp_path, own.classes)
    own.write(tmp_path / "images" / "bare.png", own.photo(50))
    assert own.build(tmp_path, *laid, "--unpaired", "background")[0] == 0
    expected = {f"x{seed}": own.classes(seed) for seed in range(COUNT)}
    own.equal(tmp_path, expected | {"bare": np.zeros(own.SIZE, np.uint8)})


def test_images_without_masks_are_not_filled_with_a_class_that_is_no_background(tmp_path):
    def street(seed):
        return np.array([(0, 0, 255), (128, 64, 128), (9, 9, 9)], np.uint8)[own.classes(seed)]

    laid = [*lay(tmp_path, street), "--unpaired", "background"]
    own.write(tmp_path / "images" / "empty.png", own.photo(99))
    code, _, err = own.build(tmp_path, *laid)
    assert code == 2
    assert "1 image without masks would be colour_0000ff, class 0" in err
    palette = ["--palette", "9,9,9=car", "0,0,255=background", "128,64,128=road"]
    assert "would be car, class 0" in own.build(tmp_path, *laid, *palette)[2]
    code, out, _ = own.build(tmp_path, *laid, *palette, "--classes", "background", "road", "car")
    assert code == 0
    assert "1 image without masks is class 0, background, everywhere." in out
    expected = {f"x{seed}": own.classes(seed) for seed in range(COUNT)}
    own.equal(tmp_path, {**expected, "empty": np.zeros(own.SIZE)})


def test_numbers_that_are_no_class_are_named(tmp_path):
    laid = lay(tmp_path, own.classes)
    wrong = own.classes(4)
    wrong[10, 10:12] = 7
    own.write(tmp_path / "masks" / "x4.png", wrong)
    code, _, err = own.build(tmp_path, *laid, "--classes", "no", "a", "b")
    assert code == 2
    assert "1 number in the masks that are none of the classes no, a, b: 7 (2 pixels" in err
    assert go_on(err) == 0
    wrong[wrong == 7] = 255
    own.equal(tmp_path, {f"x{s}": wrong if s == 4 else own.classes(s) for s in range(COUNT)})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--name", "My Cells"], "--name My Cells: small letters"),
        (["--name", "mnist"], "TFDS has a dataset of that name"),
        (["--name", "carvana"], "TFDS has a dataset of that name"),
        (["--classes", "cell"], "name background too, first: --classes background cell"),
        (["--classes", "a", "a"], "each a name of its own"),
        (["--mask_kind", "labels"], "--mask_kind labels: ids, binary, colours, instances"),
        (["--palette", "red=a"], "--palette red=a: '#ff0000=road'"),
        (["--palette", "1,2,300=a"], "levels go from 0 to 255"),
        (["--validation", "0.6", "--test", "0.6"], "shares from 0, less than 1 together"),
        (["--group_regex", "("], "--group_regex (: "),
        (["--group_regex", "patient"], "is not found in x0.png"),
        (["--group_regex", "^[0-9]*"], "finds an empty text in x0.png"),
        (["--group_regex", "x(y)?"], "finds an empty text in x0.png"),
        (["--group_regex", "^(.*)/"], "'^(.*)/' makes each subfolder a group"),
        (["--group_column", "a"], "--group_column names a column of --pairs"),
        (["--percentiles", "99", "1"], "--percentiles 99 1: the lower first"),
        (["--range", "5", "5"], "two levels, the lower first"),
        (["--coco", "x.json"], "--masks and --coco: give one of them"),
    ],
)
def test_a_setting_that_is_none_is_one_line(tmp_path, flags, message):
    code, _, err = own.build(tmp_path, *lay(tmp_path, own.classes), *flags)
    assert code == 2
    assert message in err


def test_a_folder_without_images_or_pairs_says_what_is_there(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.npy").write_bytes(b"1")
    assert "there are no images in it: 1 .npy" in own.build(tmp_path)[2]
    own.write(tmp_path / "images" / "x.png", own.photo(1))
    err = own.build(tmp_path)[2]
    assert "no image has a mask of its name. 1 image: x.png. 0 masks: none." in err
    for word in ("fetch", "draw", "download"):
        assert f"segdata {word}" not in err


def test_a_dataset_is_not_taken_for_another(tmp_path):
    laid = lay(tmp_path, own.classes)
    assert own.build(tmp_path, *laid)[0] == 0
    assert "is built already. Give --overwrite" in own.build(tmp_path, *laid)[2]
    assert own.build(tmp_path, *laid, "--overwrite")[0] == 0


def test_terms_are_the_users_own(tmp_path):
    laid = lay(tmp_path, own.classes)
    more = ["--license", "CC-BY-4.0", "--citation", "@me", "--description", "Mine."]
    assert own.build(tmp_path, *laid, *more, "--homepage", "https://example.org")[0] == 0
    info = tfds.builder("mine", data_dir=tmp_path / "data").info
    assert (info.description, info.citation, info.homepage) == (
        "Mine.",
        "@me",
        "https://example.org",
    )
    assert info.as_proto.redistribution_info.license == "CC-BY-4.0"
    assert own.build(tmp_path, *laid, "--overwrite")[0] == 0
    (folder,) = (tmp_path / "data" / "mine").iterdir()
    found = json.loads((folder / "dataset_info.json").read_text())
    assert not {"citation", "redistributionInfo"} & found.keys() or not found.get("citation")
    for path in folder.glob("*.json"):
        assert not re.search("kaggle|CC0|bowl|carvana", path.read_text(), re.IGNORECASE)


def test_equal_files_make_equal_bytes_and_batches_come_of_them(tmp_path):
    for place in ("a", "b"):
        laid = lay(tmp_path / place, own.classes)
        assert own.build(tmp_path / place, *laid)[0] == 0
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / place / "data").rglob("*.*")
         if path.is_file()}
        for place in ("a", "b")
    )  # fmt: skip
    assert first == second
    records = segdata.pack("folder:mine", "train", size=(20, 28), data_dir=tmp_path / "a" / "data")
    assert len(records) == 5


def test_python_builds_the_same_as_the_command(tmp_path):
    lay(tmp_path, own.classes)
    built = segdata.build_folder(
        tmp_path / "images", masks=tmp_path / "masks", name="mine", data_dir=tmp_path / "data"
    )
    assert built.info.features["mask"].names == ["background", "class_1", "class_2"]
    own.equal(tmp_path, {f"x{seed}": own.classes(seed) for seed in range(COUNT)})


def test_slices_keep_groups_where_the_builder_is_unknown(tmp_path):
    for seed in range(12):
        own.write(tmp_path / "images" / f"p{seed // 6}_{seed}.png", own.photo(seed))
        own.write(tmp_path / "masks" / f"p{seed // 6}_{seed}.png", own.classes(seed))
    flags = ["--masks", tmp_path / "masks", "--group_regex", "p.", "--validation", "0"]
    assert own.build(tmp_path, *flags)[0] == 0
    records = segdata.pack("folder:mine", "train[:30%]", size=(8, 8), data_dir=tmp_path / "data")
    assert len(records) == 6


def test_transparency_and_turned_photos_are_said(tmp_path):
    laid = lay(tmp_path, own.classes)
    image = np.concatenate([own.photo(0), np.full((*own.SIZE, 1), 128, np.uint8)], -1)
    own.write(tmp_path / "images" / "x0.png", image)
    exif = Image.Exif()
    exif[0x112] = 6  # turned
    turned = io.BytesIO()
    Image.fromarray(np.rot90(own.photo(1))).save(turned, "PNG", exif=exif)
    (tmp_path / "images" / "x1.png").write_bytes(turned.getvalue())
    code, out, err = own.build(tmp_path, *laid)
    assert code == 0, err
    assert "transparency of 1 image is left out." in out
    found = own.examples(tmp_path)
    for seed in range(2):
        np.testing.assert_array_equal(found[f"x{seed}"]["image"], own.photo(seed))


def test_pieces_are_counted_like_scipy():
    from scipy import ndimage

    label: Any = ndimage.label
    for seed in range(5):
        mask = np.random.default_rng(seed).integers(0, 4, (23, 31)).astype(np.uint16)
        every = np.ones((3, 3))
        expected = sum(label(mask == number, structure=every)[1] for number in (1, 2, 3))
        assert mask_files.tally(mask_files.Stored(mask)).pieces == expected

import functools
import importlib
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from segdata.building import splits
from segdata.inspection import likeness

TOOLS = pathlib.Path(__file__).parents[1] / "tools"


@pytest.fixture
def duplicates_table(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("duplicates_table")


def scenes(count: int, *, seed: int = 0) -> np.ndarray:
    """Thumbnails of smooth noise, unlike each other."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.standard_normal((count, 64, 64)), (0, 5, 5))
    return np.clip(128 + 40 * noise / noise.std(), 0, 255).astype(np.uint8)


@functools.cache
def nuclei(count: int, *, bright: int) -> list[Image.Image]:
    """Images of 40 discs on noise, [253, 317], each 4 to 9 pixels in radius; unlike each other."""
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[:253, :317]
    images = []
    for _ in range(count):
        pixels = rng.normal(8, 1.5, (253, 317))
        for _ in range(40):
            y, x, radius = rng.uniform(0, 253), rng.uniform(0, 317), rng.uniform(4, 9)
            inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
            pixels[inside] += bright * rng.uniform(0.3, 1)
        images.append(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert("RGB"))
    return images


@pytest.mark.parametrize("bright", [16, 200])
@pytest.mark.parametrize(
    "box",
    [
        (0.05, 0, 1, 1),
        (0, 0.05, 1, 1),
        (0, 0, 0.95, 1),
        (0, 0, 1, 0.95),
        (0.05, 0.05, 0.95, 0.95),
        (0.025, 0.025, 0.975, 0.975),
        (0, 0, 1, 1),
    ],
)
@pytest.mark.parametrize("mirrored", [False, True])
def test_copies_of_images_with_small_objects_are_found_and_nothing_else(
    bright, box, mirrored, duplicates_table
):
    images = nuclei(12, bright=bright)
    copies = []
    for image in images:
        left, top, right, bottom = (
            round(part * side) for part, side in zip(box, 2 * image.size, strict=True)
        )
        cut = image.crop((left, top, right, bottom))
        copy = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else cut
        whole = box == (0, 0, 1, 1)
        copies.append(duplicates_table.reencoded(copy, None) if whole else copy)
    thumbnails = np.stack([likeness.thumbnail(image.convert("RGB")) for image in images + copies])
    names, parts = [str(number) for number in range(24)], ["train"] * 12 + ["test"] * 12
    sets = likeness.across(thumbnails, groups=names, parts=parts)
    assert sets == [[number, number + 12] for number in range(12)]


@pytest.mark.heavy
def test_every_copy_of_a_photo_and_of_a_car_is_found_and_nothing_else(duplicates_table):
    rows, false = duplicates_table.rows(duplicates_table.turntables(6), "cars", copies=2)
    assert len(rows) == 8
    assert [(change, planted - found) for _, change, planted, found in rows] == [
        (change, 0) for _, change, _, _ in rows
    ]
    assert false == 0


def test_the_plain_hash_is_that_of_splits():
    rng = np.random.default_rng(3)
    pixels = scenes(1)[0] + rng.integers(0, 20, (64, 64), np.uint8) // 2
    image = Image.fromarray(pixels).convert("RGB")
    (found,) = likeness._hashes(likeness.thumbnail(image)[None])
    apart = [(int(each) ^ splits.look(image).hash).bit_count() for each in found]
    assert apart[0] <= 1  # the mean of 2×2 pixels is rounded in one of them
    assert min(apart[len(found) // 2 :]) > splits.NEAR  # mirrored


def test_only_what_is_in_other_splits_and_groups_is_compared():
    one = np.concatenate([scenes(3), scenes(1)])  # the last is the first again
    names = ["a", "b", "c", "d"]
    parts = ["train", "train", "train", "test"]
    assert likeness.across(one, groups=names, parts=parts) == [[0, 3]]
    assert likeness.across(one, groups=names, parts=parts, shown=[1, 2, 3]) == []
    assert likeness.across(one, groups=["a", "b", "c", "a"], parts=parts) == []
    assert likeness.across(one, groups=names, parts=["train"] * 4) == []


@pytest.mark.parametrize(("copied", "found"), [(1, 0), (2, 1)])
def test_of_known_groups_half_of_the_smaller_must_agree(copied, found):
    first, second = scenes(4), scenes(3, seed=1)
    rng = np.random.default_rng(2)
    blurred = first[:copied] + rng.normal(0, 4, (copied, 64, 64))
    second[:copied] = np.clip(blurred, 0, 255)
    left = likeness._compared(
        np.concatenate([first, second]), np.array([0]), np.array([4]), np.array([0])
    )
    assert likeness.SURE < left[0] < likeness.GROUPED
    groups, parts = ["a"] * 4 + ["b"] * 3, ["train"] * 4 + ["test"] * 3
    sets = likeness.across(np.concatenate([first, second]), groups=groups, parts=parts)
    assert len(sets) == found * copied
    alone = [f"own {number}" for number in range(7)]
    assert likeness.across(np.concatenate([first, second]), groups=alone, parts=parts)[0] == [0, 4]


def test_a_window_is_found_to_a_hundredth_of_the_side():
    rng = np.random.default_rng(5)
    large = ndimage.gaussian_filter(rng.standard_normal((640, 640)), 25)
    image = Image.fromarray(np.clip(128 + 40 * large / large.std(), 0, 255).astype(np.uint8))
    cut = image.crop((10, 22, 618, 630))  # 608 = 95 % of 640
    one, other = (
        np.asarray(each.resize((64, 64), Image.Resampling.BOX), np.float32)[None]
        for each in (image, cut)
    )
    edges = likeness._registered(one, other, np.array([[0.025, 0.975, 0.025, 0.975]]))
    assert np.abs(edges[0] - np.array([22, 630, 10, 618]) / 640).max() < 0.01

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
    assert min(apart[11:]) > splits.NEAR  # mirrored


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

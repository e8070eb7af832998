"""Masks split into objects, against plain references and drawn discs."""

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from unet import watershed
from unet.objects import Separation

label: Any = ndimage.label
EVERY = Separation(least_area=0)
WHOLE = Separation(least_area=0, seed_depth=1e9)


def disc(shape, centre, radius) -> np.ndarray:
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def drawn(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Discs, some of which touch or overlap; uint8."""
    found = np.zeros(shape, np.uint8)
    for _ in range(int(rng.integers(7))):
        found[disc(shape, rng.uniform(0, shape), rng.uniform(0, max(shape) / 5))] = 1
    return found


def survivors(height: np.ndarray, inside: np.ndarray, depth: float) -> int:
    """How many summits stand out by `depth`, level by level from the top; heights all differ."""
    known: list[tuple[set[int], list[float]]] = []  # regions of each level, with their summits
    for level in sorted(height[inside], reverse=True):
        regions, count = label(inside & (height >= level))
        new = []
        for number in range(1, count + 1):
            pixels = set(np.flatnonzero(regions == number).tolist())
            summits = [s for old, found in known if old <= pixels for s in found]
            summits = sorted(summits or [level], reverse=True)
            new.append((pixels, [s for i, s in enumerate(summits) if not i or s - level >= depth]))
        known = new
    return sum(len(found) for _, found in known)


def ascents(height: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The summit that each pixel comes to by its highest neighbours."""
    found = np.full(height.shape, -1)
    for start in zip(*np.nonzero(inside), strict=True):
        at = start
        while True:
            y, x = at
            near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            near = [p for p in near if min(p) >= 0 and p[0] < len(height) and p[1] < len(height[0])]
            best = max([at, *(p for p in near if inside[p])], key=lambda p: height[p])
            if best == at:
                break
            at = best
        found[start] = at[0] * len(height[0]) + at[1]
    return found


@pytest.mark.parametrize("depth", [0.01, 0.3, 0.7, 5])
@pytest.mark.parametrize("shape", [(7, 9), (12, 5), (1, 30), (23, 1), (9, 9)])
def test_objects_are_the_summits_that_stand_out_and_what_leads_up_to_them(shape, depth):
    rng = np.random.default_rng(shape)
    height = rng.permutation(np.arange(shape[0] * shape[1])).reshape(shape).astype(np.float32)
    height /= height.size
    inside = rng.random(shape) < 0.8
    at = np.flatnonzero(inside)
    order = at[np.argsort(-height.ravel()[at], kind="stable")]
    labels = watershed._flood(height, order, depth)
    assert np.array_equal(labels > 0, inside)
    assert len(np.unique(labels[inside])) == survivors(height, inside, depth)
    basins = ascents(height, inside)
    for summit in np.unique(basins[inside]):
        assert len(np.unique(labels[basins == summit])) == 1
    for number in np.unique(labels[inside]):
        assert label(labels == number)[1] == 1


@pytest.mark.parametrize("seed", range(12))
def test_objects_are_connected_and_cover_the_mask(seed):
    rng = np.random.default_rng(seed)
    found = drawn(rng, (31 + seed, 57 - 2 * seed))
    labels = watershed.objects(found, EVERY)
    assert labels.dtype == np.int32
    assert np.array_equal(labels > 0, found > 0)
    first = [int(np.flatnonzero(labels == n + 1)[0]) for n in range(labels.max())]
    assert first == sorted(first)
    for number in range(1, labels.max() + 1):
        assert label(labels == number)[1] == 1
    # A depth that nothing has leaves the regions as they are.
    regions = label(found)[0]
    assert np.array_equal(watershed.objects(found, WHOLE), regions)
    assert labels.max() >= regions.max()
    assert np.array_equal(labels, watershed.objects(found.copy(), EVERY))


@pytest.mark.parametrize("seed", range(4))
def test_objects_of_ragged_masks_are_connected(seed):
    rng = np.random.default_rng(seed)
    found = (rng.random((29, 23)) < 0.7).astype(np.uint8)
    for depth in (0.1, 0.3, 0.75):
        for smoothing in (0, 1):
            split = Separation(smoothing=smoothing, seed_depth=depth, least_area=0)
            labels = watershed.objects(found, split)
            assert all(label(labels == n)[1] == 1 for n in range(1, labels.max() + 1))


def test_a_low_summit_joins_a_neighbour_and_not_one_beyond_it():
    # The last pixel to be flooded is of the higher object beside it, and touches the two others.
    height = np.array([[0, 0, 0.3, 0, 0], [0.9, 0.7, 0.1, 0.5, 0.8]], np.float32)
    for turned in (height, np.fliplr(height)):
        at = np.flatnonzero(turned)
        order = at[np.argsort(-turned.ravel()[at], kind="stable")]
        labels = watershed._flood(turned, order, 0.4)
        numbers = np.unique(labels[turned > 0])
        assert len(numbers) == 2
        assert all(label(labels == number)[1] == 1 for number in numbers)


def test_discs_that_touch_are_two_objects_and_a_long_one_is_one():
    shape = (41, 83)
    one, other = disc(shape, (20, 20), 12), disc(shape, (20, 41), 12)
    labels = watershed.objects((one | other).astype(np.uint8))
    assert labels.max() == 2
    for number, own, away in ((1, one, other), (2, other, one)):
        assert (labels[own & ~away] == number).mean() > 0.97
    bar = np.zeros(shape, np.uint8)
    bar[10:20, 5:80] = 1
    assert watershed.objects(bar).max() == 1
    deep = Separation(seed_depth=11)
    assert watershed.objects((one | other).astype(np.uint8), deep).max() == 1


def test_a_border_splits_what_no_neck_does_and_belongs_to_the_objects():
    found = np.ones((30, 41), np.uint8)
    found[:, 19:21] = 2
    assert watershed.objects(found, EVERY).max() == 1
    labels = watershed.objects(found, EVERY, border=2)
    assert labels.max() == 2
    assert (labels > 0).all()
    assert (labels[:, :20] == 1).mean() > 0.99
    assert (labels[:, 20:] == 2).mean() > 0.99


def test_a_region_that_is_all_border_is_an_object():
    found = np.zeros((20, 33), np.uint8)
    found[2:9, 2:9], found[2:9, 14:21] = 2, 1
    found[12:18, 2:30], found[12:18, 15:17] = 1, 2
    labels = watershed.objects(found, EVERY, border=2)
    assert np.array_equal(labels > 0, found > 0)
    assert labels.max() == 4
    assert watershed.objects(np.full((5, 7), 2, np.uint8), EVERY, border=2).max() == 1


def test_small_objects_are_left_out():
    found = np.zeros((9, 40), np.uint8)
    found[2:6, 2:7] = 1  # 20 pixels
    found[2:6, 10:15] = 1
    found[2, 14] = 0  # 19
    found[0, 30] = 1
    assert watershed.objects(found).max() == 1
    assert watershed.objects(found, Separation(least_area=19)).max() == 2
    assert watershed.objects(found, EVERY).max() == 3


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (6, 1), (5, 8)])
@pytest.mark.parametrize("value", [0, 1])
def test_nothing_and_everything(shape, value):
    labels = watershed.objects(np.full(shape, value, np.uint8), EVERY)
    assert labels.shape == shape
    assert (labels == value).all()


def test_pixels_that_meet_at_corners_alone_are_objects_each():
    y, x = np.indices((363, 363))
    found = ((y + x) % 2 == 0).astype(np.uint8)
    labels = watershed.objects(found, EVERY)
    assert labels.max() == found.sum() > 65_535
    assert np.array_equal(labels[found > 0], np.arange(1, found.sum() + 1))


@pytest.mark.parametrize("least", [0, 12])
def test_objects_of_classes_with_a_border_are_connected_and_not_small(least):
    rng = np.random.default_rng(0)
    split = Separation(least_area=least)
    for _ in range(20):
        found = rng.integers(0, 4, (19, 26)).astype(np.uint8)
        labels, kinds = watershed.of_classes(found, [1, 2], split, border=3)
        of_object = np.append(0, kinds)[labels]
        assert (of_object == found)[(labels > 0) & (found != 3)].all()
        assert ((labels > 0) == (found > 0)).all() or least
        assert (np.bincount(labels.ravel())[1:] >= least).all()
        assert labels.max() == len(kinds)
        assert all(label(labels == n)[1] == 1 for n in range(1, len(kinds) + 1))

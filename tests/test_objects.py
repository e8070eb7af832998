"""Objects matched and scored, against a worked example and slow references."""

from fractions import Fraction

import numpy as np
import pytest

from unet import objects


def drawn(rng: np.random.Generator, shape: tuple[int, int], *, most: int) -> np.ndarray:
    """Rectangles over each other, uint16; some numbers may have no pixels left."""
    labels = np.zeros(shape, np.uint16)
    for number in range(1, int(rng.integers(most + 1)) + 1):
        top, left = rng.integers(shape[0]), rng.integers(shape[1])
        high, wide = rng.integers(1, shape[0] // 2 + 2), rng.integers(1, shape[1] // 2 + 2)
        labels[top : top + high, left : left + wide] = number
    return labels


def moved(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """A prediction of it: an edge is wrong here and there, and numbers are others."""
    found = np.where(rng.random(labels.shape) < 0.15, np.roll(labels, 1, axis=1), labels)
    numbers = rng.permutation(int(labels.max(initial=0)) + 40)[: int(labels.max(initial=0)) + 1] + 1
    return np.where(found > 0, numbers[found], 0).astype(np.int32)


def of_pixels(labels, ignored) -> dict[int, set]:
    """By number the labelled pixels of each object that is not mostly ignored."""
    every: dict[int, set] = {}
    for place in np.ndindex(labels.shape):
        if labels[place]:
            every.setdefault(int(labels[place]), set()).add(place)
    unknown = {place for place in np.ndindex(labels.shape) if ignored[place]}
    return {
        number: pixels - unknown
        for number, pixels in every.items()
        if len(pixels & unknown) * 2 <= len(pixels)
    }


def slow(true, found, ignored) -> tuple[int, int, list[int]]:
    own, other = of_pixels(true, ignored), of_pixels(found, ignored)
    matched = []
    for percent in range(50, 100, 5):
        count = 0
        for a in own.values():
            for b in other.values():
                count += Fraction(len(a & b), len(a | b)) > Fraction(percent, 100)
        matched.append(count)
    return len(own), len(other), matched


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("shape", [(7, 11), (16, 9), (1, 13), (5, 1)])
def test_matches_are_those_of_comparing_every_pair(seed, shape):
    rng = np.random.default_rng([seed, *shape])
    true = drawn(rng, shape, most=6)
    found = moved(rng, true) if seed % 3 else drawn(rng, shape, most=6)
    ignored = rng.random(shape) < (0, 0.2, 0.6)[seed % 3]
    result = objects.match(true, found, ignored)
    assert (result.true, result.found, result.matched.tolist()) == slow(true, found, ignored)
    if not ignored.any():
        plain = objects.match(true, found)
        assert plain.matched.tolist() == result.matched.tolist()


# A worked example: four objects, of which three are found more or less.
#   a: 10 pixels, found whole: IoU 1.
#   b: 10 pixels, 8 of them found, and nothing else: IoU 8/10.
#   c: 6 pixels, 4 of them found with 2 others: IoU 4/8, which is not above 0.5.
#   d: 4 pixels, not found; and 3 pixels are found where nothing is.
TRUE = np.array([[1] * 10, [2] * 10, [3] * 6 + [0] * 4, [0] * 6 + [4] * 4])
FOUND = np.array([[7] * 10, [0] * 2 + [2] * 8, [0] * 2 + [9] * 6 + [0] * 2, [5] * 3 + [0] * 7])


def test_a_worked_example():
    result = objects.match(TRUE, FOUND)
    assert (result.true, result.found) == (4, 4)
    # 0.50 to 0.75: a and b, two true positives, two missed, two wrong. From 0.80: a alone.
    assert result.matched.tolist() == [2] * 6 + [1] * 4
    assert result.precision.tolist() == pytest.approx([2 / 6] * 6 + [1 / 7] * 4)
    assert objects.summary([result]) == pytest.approx(
        {
            "object_ap": (6 * 2 / 6 + 4 * 1 / 7) / 10,
            "object_ap50": 2 / 6,
            "object_f1": 2 * 2 / (4 + 4),
            "objects_true": 4,
            "objects_found": 4,
            "objects_matched": 2,
        }
    )


@pytest.mark.parametrize("percent", objects.PERCENTS)
def test_an_overlap_of_exactly_a_threshold_is_below_it(percent):
    true = np.ones((1, 100), np.uint16)
    found = (np.arange(100) < percent).astype(np.int32)[None]
    matched = objects.match(true, found).matched
    assert matched.sum() == objects.PERCENTS.index(percent)


def test_of_several_images_precision_is_averaged_and_f1_is_of_all():
    empty = np.zeros_like(TRUE)
    nothing, wrong = objects.match(empty, empty), objects.match(empty, FOUND)
    missed = objects.match(TRUE, empty)
    assert nothing.precision.tolist() == [1] * 10
    assert wrong.precision.tolist() == missed.precision.tolist() == [0] * 10
    some = objects.match(TRUE, FOUND)
    result = objects.summary([nothing, wrong, missed, some])
    assert result["object_ap50"] == pytest.approx((1 + 0 + 0 + 2 / 6) / 4)
    assert result["object_f1"] == pytest.approx(2 * 2 / (8 + 8))
    assert objects.summary([nothing])["object_f1"] == 1
    with pytest.raises(ValueError, match="no image has labels"):
        objects.summary([])


def test_objects_mostly_without_labels_count_neither_way():
    true = np.array([[1, 1, 1, 1, 0, 2, 2, 2, 0, 0, 0]])
    found = np.array([[1, 1, 1, 1, 0, 0, 0, 0, 3, 3, 3]])
    ignored = np.zeros((1, 11), bool)
    ignored[0, [6, 7, 9, 10]] = True  # most of the missed one and most of the wrong one
    result = objects.match(true, found, ignored)
    assert (result.true, result.found, result.matched[0]) == (1, 1, 1)
    ignored[0, [6, 9]] = False
    assert objects.match(true, found, ignored)[:2] == (2, 2)
    ignored[0, :2] = True  # half of an object: it counts, by its labelled half
    found[0, 3] = 0
    half = objects.match(true, found, ignored)
    assert (half.true, half.matched[0]) == (2, 0)  # 1 of 2 pixels, where 3 of 4 would do
    everywhere = objects.match(true, found, np.ones((1, 11), bool))
    assert everywhere[:2] == (0, 0)


def test_as_many_objects_as_a_label_map_can_number():
    labels = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    result = objects.match(labels, labels.astype(np.int32))
    assert (result.true, result.found) == (65_535, 65_535)
    assert result.matched.tolist() == [65_535] * 10
    shifted = objects.match(labels, np.roll(labels, 1).astype(np.int32))
    assert shifted.matched.tolist() == [65_534] * 10  # one is where the background is
    one = objects.match(labels, (labels > 0).astype(np.int32))
    assert (one.found, one.matched.sum()) == (1, 0)


def test_maps_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\[2, 3\] and \[3, 2\]"):
        objects.match(np.zeros((2, 3), int), np.zeros((3, 2), int))


@pytest.mark.parametrize(
    ("name", "value"),
    [("smoothing", -1), ("smoothing", np.nan), ("seed_depth", 0), ("least_area", -1)],
)
def test_a_setting_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        objects.Separation(**{name: value})


def test_the_border_is_found_by_its_name():
    assert objects.border_of(("background", "nucleus", "border")) == 2
    assert objects.border_of(()) is None
    assert objects.border_of(("background", "border")) is None  # the objects are borders

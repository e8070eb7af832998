import numpy as np
import pytest

from segdata.archives import masks


def squares(*corners: int, size: int = 4) -> list[np.ndarray]:
    drawn = []
    for corner in corners:
        mask = np.zeros((12, 9), np.uint8)
        mask[corner : corner + size, corner : corner + size] = 255
        drawn.append(mask)
    return drawn


def test_objects_are_numbered_in_order_and_the_earlier_keeps_a_contested_pixel():
    merged = masks.merge_instances(squares(0, 3), shape=(12, 9))
    assert merged.labels.dtype == np.uint16
    assert merged.labels[3, 3] == 1
    assert merged.labels[4, 4] == 2
    assert [np.count_nonzero(merged.labels == number) for number in (1, 2)] == [16, 15]
    assert merged.contested == 1


def test_a_pixel_claimed_three_times_counts_once():
    assert masks.merge_instances(squares(1, 1, 1), shape=(12, 9)).contested == 16


def test_bool_and_any_non_zero_number_mean_the_same():
    drawn = squares(0, 3, 5)
    expected = masks.merge_instances(drawn, shape=(12, 9)).labels
    for variant in (
        [m > 0 for m in drawn],
        [m // 255 for m in drawn],
        [m * np.uint16(257) for m in drawn],
    ):
        np.testing.assert_array_equal(
            masks.merge_instances(iter(variant), shape=(12, 9)).labels, expected
        )


def test_the_mask_is_one_in_every_object():
    merged = masks.merge_instances(squares(0, 5), shape=(12, 9))
    assert merged.mask.dtype == np.uint8
    np.testing.assert_array_equal(merged.mask, sum(squares(0, 5)) // 255)


def test_an_empty_object_keeps_its_number():
    empty = np.zeros((12, 9), bool)
    assert masks.merge_instances([empty, *squares(0)], shape=(12, 9)).labels.max() == 2


def test_no_objects_make_an_empty_map():
    assert not masks.merge_instances([], shape=(2, 3)).labels.any()


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"mask 2 has shape \(9, 12\), the image has \(12, 9\)"):
        masks.merge_instances([*squares(0), np.zeros((9, 12))], shape=(12, 9))


def test_more_objects_than_a_label_map_can_count_are_refused():
    mask = np.zeros((1, 1), bool)
    with pytest.raises(ValueError, match="more than 65,535 masks"):
        masks.merge_instances(65_536 * [mask], shape=(1, 1))


PALETTE = np.array([[0, 0, 0], [10, 0, 0], [255, 255, 255]], np.uint8)


@pytest.mark.parametrize("count", [1, 2, 29, 32, 33, 255])
def test_the_nearest_colour_and_its_distance_are_those_of_a_plain_loop(count):
    rng = np.random.default_rng(count)
    colours = rng.integers(0, 256, (17, 15, 3), np.uint8)
    colours[0] = rng.choice([0, 255], (15, 3))
    palette = rng.integers(0, 256, (count, 3), np.uint8)
    palette[0] = 255
    index, distance = masks.nearest_colour(colours, palette)
    apart = colours[:, :, None].astype(float) - palette.astype(float)
    expected = np.linalg.norm(apart, axis=-1)
    np.testing.assert_array_equal(index, expected.argmin(axis=-1))
    np.testing.assert_allclose(distance, expected.min(axis=-1), rtol=1e-6, atol=1e-6)
    assert (index.dtype, distance.dtype) == (np.uint8, np.float32)


def test_of_equally_near_colours_the_first_is_taken():
    index, distance = masks.nearest_colour(np.full((1, 1, 3), (5, 0, 0), np.uint8), PALETTE)
    assert (index.item(), distance.item()) == (0, 5)


@pytest.mark.parametrize("count", [0, 256])
def test_a_palette_that_cannot_be_numbered_is_refused(count):
    with pytest.raises(ValueError, match=f"a palette of {count} colours"):
        masks.nearest_colour(np.zeros((1, 1, 3), np.uint8), np.zeros((count, 3), np.uint8))


def test_a_smear_between_two_regions_is_unknown_and_a_clean_border_is_kept():
    labels = np.array([[0, 0, 2, 1, 1, 1]] * 3, np.uint8)
    distance = np.array([[0, 3, 25, 12, 12, 40]] * 3, np.float32)
    found = masks.without_smears(labels, distance, radius=30, clean=10)
    np.testing.assert_array_equal(found, [[0, 0, 255, 255, 1, 255]] * 3)
    flat = np.array([[0, 0, 1, 1]] * 3, np.uint8)
    kept = masks.without_smears(flat, np.full((3, 4), 9.0), radius=30, clean=10)
    np.testing.assert_array_equal(kept, flat)


@pytest.mark.parametrize("reach", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 12), (11, 1), (9, 14)])
def test_borders_are_the_pixels_of_objects_with_another_near(shape, reach):
    rng = np.random.default_rng(reach)
    for numbers in ([0, 1], [0, 0, 0, 1, 2], [1, 2, 65_535], [0, 7, 65_534, 65_535]):
        labels = rng.choice(np.array(numbers, np.uint16), [-(-side // 3) for side in shape])
        labels = labels.repeat(3, 0).repeat(3, 1)[: shape[0], : shape[1]]
        wanted = np.zeros(shape, bool)
        for y, x in np.ndindex(shape):
            near = labels[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
            wanted[y, x] = labels[y, x] and {*near.ravel().tolist()} - {0, int(labels[y, x])}
        np.testing.assert_array_equal(masks.borders(labels, reach=reach), wanted)

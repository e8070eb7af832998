import numpy as np
import pytest

from segdata import masks


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

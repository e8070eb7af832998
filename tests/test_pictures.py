from typing import Any

import numpy as np

from segdata.inspection import overlays
from unet import pictures
from unet.evaluate import Scored


def scored(mask, found, probability: Any = 0) -> Scored:
    mask = np.array([mask], np.uint8)
    return Scored(
        image=np.full((*mask.shape, 3), 7, np.uint8),
        mask=mask,
        found=np.array([found]),
        probability=np.broadcast_to(np.array(probability, np.uint8), mask.shape),
        sums=np.zeros((2, 2), np.int64),
        loss=np.zeros(1, np.float32),
        scores={"dice": 1.0, "iou": 1.0},
    )


def test_the_foreground_is_white_and_what_has_the_ignore_label_grey():
    views = pictures.views(scored([0, 1, 255, 1], [1, 1, 1, 0], [151, 153, 255, 0]))
    assert views["truth"].tolist() == [[0, 255, 150, 255]]
    assert views["prediction"].tolist() == [[151, 153, 255, 0]]
    extra, missed, right = [240, 82, 82], [64, 140, 255], [64, 220, 100]
    assert views["overlay"].tolist() == [[extra, right, [7] * 3, missed]]


def test_each_class_has_its_colour_and_errors_are_red():
    first, second, third = overlays.palette(3).tolist()
    views = pictures.views(scored([0, 1, 255, 1], [0, 0, 2, 1]), channels=3)
    assert views["truth"].tolist() == [[first, second, list(overlays.GREY), second]]
    assert views["prediction"].tolist() == [[first, first, third, second]]
    untouched, red = [7] * 3, [240, 82, 82]
    assert views["overlay"].tolist() == [[untouched, red, untouched, untouched]]


def test_numbers_are_grey_in_the_range_of_the_truth():
    found = np.array([0, 25, 9, 40], np.float32)
    views = pictures.views(scored([10, 20, 255, 30], found))
    assert views["truth"].tolist() == [[0, 128, 150, 255]]
    assert views["prediction"].tolist() == [[0, 191, 150, 255]]
    assert views["overlay"].tolist() == [[128, 64, 150, 128]]


def test_a_strip_holds_all_pictures_beside_each_other_shrunk_alike():
    one = scored([0, 1, 255, 1], [1, 1, 1, 0], [151, 153, 255, 0])
    views = pictures.views(one)
    strip = pictures.strip(one, most=4)
    for i, name in enumerate(views):
        wanted = views[name] if views[name].ndim == 3 else np.dstack([views[name]] * 3)
        assert np.array_equal(strip[:, 4 * i : 4 * i + 4], wanted)
    assert pictures.strip(one, most=2).shape == (1, 8, 3)

import numpy as np

from segdata.inspection import overlays
from unet import pictures
from unet.evaluate import Scored
from unet.metrics import Counts


def scored(mask, output) -> Scored:
    mask = np.array(mask, np.uint8).reshape(1, -1, 1)
    empty = np.zeros(1, np.int64)
    return Scored(
        image=np.full((1, mask.size, 3), 7, np.uint8),
        mask=mask,
        probability=np.array(output, np.float32).reshape(1, mask.size, -1),
        counts=Counts(empty, empty, empty),
        dice=1.0,
        iou=1.0,
        loss=np.zeros(1, np.float32),
    )


def test_the_foreground_is_white_and_what_is_not_labelled_grey():
    views = pictures.views(scored([0, 1, 255, 2], [0.2, 0.6, 2.0, -1.0]), threshold=0.5)
    assert views["truth"].tolist() == [[0, 255, 150, 0]]
    assert views["prediction"].tolist() == [[51, 153, 255, 0]]


def test_each_class_has_its_colour_and_errors_are_red():
    first, second, third = overlays.palette(3).tolist()
    output = [[0.9, 0, 0], [0.9, 0, 0], [0, 0, 0.9], [0, 0.9, 0]]
    views = pictures.views(scored([0, 1, 255, 1], output), threshold=0.5)
    assert views["truth"].tolist() == [[first, second, list(overlays.GREY), second]]
    assert views["prediction"].tolist() == [[first, first, third, second]]
    untouched, red = [7] * 3, [240, 82, 82]
    assert views["overlay"].tolist() == [[untouched, red, untouched, untouched]]

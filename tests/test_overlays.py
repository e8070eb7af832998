import numpy as np
import pytest

from segdata.inspection import overlays

GREY_IMAGE = np.full((9, 9, 3), 100, np.uint8)


def drawn(mask, classes=("background", "nucleus"), **more):
    return overlays.overlay(GREY_IMAGE, mask, classes=classes, **more)


def test_ground_stays_as_it_is_and_a_class_is_tinted_and_outlined():
    mask = np.zeros((9, 9), np.uint8)
    mask[2:7, 2:7] = 1
    pixels = drawn(mask)
    colour = overlays.palette(2)[1]
    assert (pixels[mask == 0] == 100).all()
    assert (pixels[2, 2:7] == colour).all()
    inside = pixels[4, 4].astype(int)
    assert (np.sign(inside - 100) == np.sign(colour.astype(int) - 100)).all()
    assert (np.abs(inside - 100) < np.abs(colour.astype(int) - 100)).all()


def test_an_outline_is_the_pixels_beside_another_label():
    labels = np.zeros((7, 7), np.uint8)
    labels[2:5, 2:5] = 1
    edges = overlays.outline(labels)
    inside = labels == 1
    assert (edges & inside).sum() == 8
    assert not edges[3, 3]
    assert (edges & ~inside).sum() == 12
    assert not overlays.outline(np.ones((3, 3), np.uint8)).any()


def test_the_image_is_left_as_it_was():
    image = np.random.default_rng(0).integers(0, 256, (300, 9, 3), np.uint8)
    before = image.copy()
    mask = np.random.default_rng(1).choice(np.array([0, 1, 2, 255], np.uint8), (300, 9))
    pixels = overlays.overlay(image, mask, classes=("background", "nucleus"))
    assert np.array_equal(image, before)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels[mask == 0], image[mask == 0])
    assert (pixels[mask == 1] != image[mask == 1]).any(axis=-1).all()
    hatched = np.add.outer(np.arange(300), np.arange(9)) % 8 < 2
    assert (pixels[(mask == 255) & hatched] == overlays.GREY).all()


def test_what_is_not_labelled_is_hatched():
    pixels = drawn(np.full((9, 9), 255, np.uint8))
    assert len(np.unique(pixels)) == 2
    assert (pixels == overlays.GREY[0]).any()


def test_a_value_without_a_class_is_red():
    assert (drawn(np.full((9, 9), 7, np.uint8)) == (255, 0, 0)).all()


def test_objects_that_touch_are_outlined_apart():
    mask = np.ones((9, 9), np.uint8)
    instances = np.ones((9, 9), np.uint16)
    instances[:, 5:] = 2
    colour = overlays.palette(2)[1]
    assert not (drawn(mask) == colour).all(axis=-1).any()
    edges = (drawn(mask, instances=instances) == colour).all(axis=-1)
    assert edges[:, 4:6].all()
    assert edges.sum() == 18


@pytest.mark.parametrize(
    ("classes", "first"),
    [(("other", "road"), False), (("road", "car", "sky"), True), (("void", "a", "b"), False)],
)
def test_class_0_is_drawn_where_it_is_no_ground(classes, first):
    assert overlays.tinted(classes) == [first, *[True] * (len(classes) - 1)]


@pytest.mark.parametrize("name", ["background", "Background", "_background_"])
def test_a_class_that_is_called_background_is_not_drawn_wherever_it_stands(name):
    assert overlays.tinted(("pet", name, "edge")) == [True, False, True]
    assert overlays.tinted(("pet", name)) == [True, False]
    assert overlays.tinted((name, "pet")) == [False, True]


def test_thirty_classes_have_thirty_colours():
    assert len(np.unique(overlays.palette(30), axis=0)) == 30


def test_nearest_is_pillows_nearest():
    from PIL import Image

    labels = np.random.default_rng(0).integers(0, 9, (37, 23), np.uint8)
    for size in ((10, 10), (37, 23), (80, 50)):
        expected = Image.fromarray(labels).resize((size[1], size[0]), Image.Resampling.NEAREST)
        assert np.array_equal(overlays.nearest(labels, size), np.asarray(expected))

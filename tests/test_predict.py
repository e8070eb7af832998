import numpy as np
import pytest
from PIL import Image

from unet import predict


class Bright:
    """Foreground is what is bright; remembers what size it was shown."""

    def __init__(self):
        self.seen: list[tuple[int, ...]] = []

    def predict_on_batch(self, images) -> np.ndarray:
        self.seen.append(images.shape)
        return images.mean(axis=-1, keepdims=True).astype(np.float32) / 255


def half_white(height: int, width: int) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = 255
    return image


@pytest.mark.parametrize(("height", "width"), [(16, 16), (161, 519), (5, 7), (1, 1), (300, 20)])
def test_a_probability_has_its_images_size(height, width):
    network = Bright()
    probability = predict.predict(network, half_white(height, width), size=(16, 32))
    assert network.seen == [(1, 16, 32, 3)]
    assert probability.shape == (height, width, 1)
    assert probability.dtype == np.float32
    assert probability.min() >= 0
    assert probability.max() <= 1


def test_what_is_on_the_left_stays_on_the_left():
    probability = predict.predict(Bright(), half_white(60, 100), size=(16, 32))
    assert probability[:, :45].max() < 0.1
    assert probability[:, 55:].min() > 0.9


def test_resizing_in_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    probability = predict.predict(Bright(), stripes, size=(8, 8))
    assert np.allclose(probability, 0.5, atol=0.05)


def test_several_classes_are_written_by_number_and_drawn_in_their_colours(tmp_path):
    class Thirds:
        def predict_on_batch(self, images) -> np.ndarray:
            place = np.arange(images.shape[2]) * 3 // images.shape[2]
            return np.broadcast_to(np.eye(3, dtype=np.float32)[place], images.shape)

    Image.fromarray(half_white(12, 30)).save(tmp_path / "a.png")
    assert list(
        predict.files(Thirds(), [tmp_path / "a.png"], size=(8, 24), threshold=0.5, to=tmp_path)
    ) == [(tmp_path / "a.png", None)]
    with Image.open(tmp_path / "a.mask.png") as image:
        assert np.array_equal(np.asarray(image), np.arange(30)[None] // 10 + np.zeros((12, 1)))
    with Image.open(tmp_path / "a.overlay.png") as image:
        assert np.array_equal(
            np.asarray(image)[5, [9, 10, 19, 20]], predict.colours(3)[[0, 1, 1, 2]]
        )


def test_an_outline_is_the_masks_own_edge():
    mask = np.zeros((7, 7), bool)
    mask[1:6, 1:6] = True
    expected = mask.copy()
    expected[2:5, 2:5] = False
    assert np.array_equal(predict.outline(mask), expected)
    assert not predict.outline(np.ones((3, 3), bool)).any()


def test_an_overlay_leaves_the_background_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    mask = np.zeros((9, 9), bool)
    mask[3:8, 3:8] = True
    drawn = predict.overlay(image, mask)
    assert np.array_equal(drawn[~mask], image[~mask])
    assert (drawn[mask] != image[mask]).any(axis=-1).all()
    assert drawn.dtype == np.uint8


@pytest.mark.parametrize(
    ("mode", "suffix"), [("RGB", "jpg"), ("RGBA", "png"), ("L", "png"), ("P", "gif"), ("1", "png")]
)
def test_eight_bit_images_are_read_as_rgb(tmp_path, mode, suffix):
    Image.fromarray(half_white(8, 8)).convert(mode).save(tmp_path / f"image.{suffix}")
    pixels = predict.read(tmp_path / f"image.{suffix}")
    assert np.allclose(pixels, half_white(8, 8), atol=3)


def test_a_file_that_is_no_8_bit_image_is_named_with_its_fault(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    Image.fromarray(half_white(64, 64)).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "deep.png")
    for name, fault in [
        ("text.png", "is no picture"),
        ("cut.png", "it is cut after"),
        ("deep.png", "8 bits"),
        ("none.png", "No such file"),
        (".", "a folder"),
    ]:
        with pytest.raises((ValueError, OSError), match=fault) as caught:
            predict.read(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_a_bad_file_does_not_stop_the_others(tmp_path):
    for name in ("a.png", "c.png"):
        Image.fromarray(half_white(10, 30)).save(tmp_path / name)
    Image.fromarray(half_white(10, 30)).save(tmp_path / "a.bmp")
    (tmp_path / "b.png").write_text("hello")
    paths = [tmp_path / name for name in ("a.png", "b.png", "a.bmp", "c.png")]
    to = tmp_path / "made" / "masks"
    results = list(predict.files(Bright(), paths, size=(8, 8), threshold=0.5, to=to))
    assert [path for path, _ in results] == paths
    assert [error is None for _, error in results] == [True, False, False, True]
    assert "overwrite" in str(results[2][1])
    assert sorted(file.name for file in to.iterdir()) == [
        "a.mask.png",
        "a.overlay.png",
        "c.mask.png",
        "c.overlay.png",
    ]
    with Image.open(to / "c.mask.png") as image:
        mask = np.asarray(image)
    assert mask.shape == (10, 30)
    assert set(np.unique(mask)) == {0, 255}

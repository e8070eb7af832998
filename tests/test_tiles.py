"""Tiles against slow plain counting."""

import numpy as np
import pytest

import segdata
from segdata.core import tiles
from segdata.core.stream import Evaluation
from unet import inference
from unet.model import UNet
from unet.recipes import Recipe

AXES = [
    (1, 8, 2),
    (7, 8, 0),
    (8, 8, 2),
    (9, 8, 2),
    (16, 8, 0),
    (17, 8, 0),
    (17, 8, 7),
    (100, 13, 3),
]


@pytest.mark.parametrize(("length", "side", "overlap"), AXES)
def test_tiles_cover_an_axis_with_the_fewest_that_overlap_enough(length, side, overlap):
    of = int(tiles.count(length, side, overlap))
    starts = [int(tiles.start(k, of, length, side)) for k in range(of)]
    if length <= side:
        assert starts == [-((side - length + 1) // 2)]
        return
    assert starts[0] == 0
    assert starts[-1] == length - side
    gaps = np.diff(starts)
    assert gaps.max() <= side - overlap
    assert gaps.max() - gaps.min() <= 1
    assert (of - 1 - 1) * (side - overlap) + side < length  # one fewer would not do


@pytest.mark.parametrize(("length", "side", "overlap"), AXES)
def test_each_pixel_is_one_tiles_own_and_nearest_to_its_middle(length, side, overlap):
    of = int(tiles.count(length, side, overlap))
    owners = [[] for _ in range(length)]
    for k in range(of):
        begin = int(tiles.start(k, of, length, side))
        first, last = (int(end) for end in tiles.own(k, of, length, side))
        for place in range(first, last):
            owners[begin + place].append(k)
    middles = [int(tiles.start(k, of, length, side)) + side / 2 for k in range(of)]
    for pixel, found in enumerate(owners):
        assert len(found) == 1
        distances = [abs(pixel + 0.5 - middle) for middle in middles]
        assert distances[found[0]] <= min(distances) + 1


@pytest.mark.parametrize(("length", "side", "overlap"), AXES)
def test_weights_sum_to_1_and_fall_to_the_edges(length, side, overlap):
    of = int(tiles.count(length, side, overlap))
    sums, weights = np.zeros(length), tiles.weights(of, length, side)
    for k in range(of):
        begin = int(tiles.start(k, of, length, side))
        for place in range(side):
            if 0 <= begin + place < length:
                sums[begin + place] += weights[k, place]
            else:
                assert weights[k, place] == 0
    np.testing.assert_allclose(sums, 1, atol=1e-6)
    if of > 2 and overlap <= side // 2:
        assert (np.diff(weights[1][: side // 2]) >= 0).all()
        assert weights[1][0] < weights[1][side // 2]


@pytest.mark.parametrize(("shape", "longest"), [((1000, 700), 512), ((3, 999), 10), ((5, 5), 9)])
def test_an_image_is_reduced_and_never_enlarged(shape, longest):
    height, width = tiles.reduced(shape[0], shape[1], longest)
    assert max(height, width) == min(longest, max(shape))
    scale = max(height, width) / max(shape)
    assert abs(height - shape[0] * scale) <= 0.5 or height == 1
    assert abs(width - shape[1] * scale) <= 0.5 or width == 1


def test_what_is_cut_beyond_an_image_is_its_mirror_image():
    image = np.arange(3 * 5).reshape(3, 5)
    wide = np.pad(image, ((6, 6), (10, 10)), mode="symmetric")
    for top, left in [(-6, -10), (0, 0), (2, 3), (-1, 4)]:
        own = tiles.cut(image, top, left, (6, 7))
        np.testing.assert_array_equal(own, wide[top + 6 : top + 12, left + 10 : left + 17])


class Sees:
    """Says of each pixel how red and how green it is, and remembers what it was shown."""

    def __init__(self, channels: int = 2):
        self.shown: list[np.ndarray] = []
        self.channels = channels

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.shown.append(images)
        return images[..., : self.channels].astype(np.float32) / 255


@pytest.mark.parametrize("shape", [(16, 24), (7, 9), (16, 25), (61, 47), (100, 24), (5, 90)])
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_what_is_said_of_tiles_is_put_together_in_its_place(shape, batch):
    recipe = Recipe(size=(16, 24), batch=batch, model=UNet(filters=(2, 2)), record_size="native")
    seen = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    ask, whole = Sees(), np.full((*shape, 2), np.nan, np.float32)
    for rows, columns, part in inference.parts(ask, seen, shape, recipe):
        assert np.isnan(whole[rows, columns]).all()
        whole[rows, columns] = part
    np.testing.assert_allclose(whole, seen[..., :2] / 255, atol=1e-6)
    assert all(images.shape[1:] == (16, 24, 3) for images in ask.shown)
    assert {len(images) for images in ask.shown[:-1]} <= {batch}


def test_the_middle_of_a_tile_outweighs_the_edge_of_another():
    recipe = Recipe(size=(8, 8), batch=1, model=UNet(filters=(2,)), record_size="native")
    answers = iter([np.zeros((1, 8, 8, 1), np.float32), np.ones((1, 8, 8, 1), np.float32)])

    def ask(_: np.ndarray) -> np.ndarray:
        return next(answers)

    seen = np.zeros((8, 12, 3), np.uint8)
    ((_, _, part),) = inference.parts(ask, seen, seen.shape[:2], recipe)
    assert (part[:, :4] == 0).all()
    assert (part[:, 8:] == 1).all()
    assert (np.diff(part[0, 3:9, 0]) > 0).all()


def test_a_reduced_image_is_answered_at_its_own_size():
    recipe = Recipe(size=(8, 8), model=UNet(filters=(2,)), record_size=20)
    assert recipe.seen(40, 30) == (20, 15)
    seen = np.zeros((20, 15, 3), np.uint8)
    seen[:, 7:] = 255
    parts = inference.parts(Sees(1), seen, (40, 30), recipe)
    found, probability = inference.decided(parts, (40, 30), recipe)
    assert found.shape == probability.shape == (40, 30)
    assert not found[:, :13].any()
    assert found[:, 15:].all()


@pytest.mark.parametrize("size", [(8, 8), (16, 40), (48, 24)])
def test_evaluation_counts_every_pixel_once(built_dsb2018, size):
    records = segdata.pack("dsb2018", "validation", size="native", data_dir=built_dsb2018)
    table = np.arange(256, dtype=np.uint8)
    table[1] = 7
    batches = list(Evaluation(records, batch=5, size=size, table=table))
    assert all(len(image) == 5 for image, _ in batches[:-1])
    image, mask = (np.concatenate(part) for part in zip(*batches, strict=True))
    number = 0
    for record in records:
        height, width = record.shape[:2]
        down, across = (max(1, -(-s // t)) for s, t in zip((height, width), size, strict=True))
        counted = np.zeros((height, width), int)
        for i in range(down):
            for j in range(across):
                top = int(tiles.start(i, down, height, size[0]))
                left = int(tiles.start(j, across, width, size[1]))
                np.testing.assert_array_equal(
                    image[number], tiles.cut(record[..., :3], top, left, size)
                )
                for y, x in np.argwhere(mask[number, ..., 0] != 255):
                    assert mask[number, y, x, 0] == table[record[top + y, left + x, 3]]
                    counted[top + y, left + x] += 1
                number += 1
        assert (counted == (record[..., 3] != 255)).all()
    assert number == len(image)


def test_eval_batches_give_tiles(built_dsb2018):
    import tensorflow as tf

    records = segdata.pack("dsb2018", "validation", size="native", data_dir=built_dsb2018)
    made = segdata.eval_batches(
        "dsb2018",
        "validation",
        size=(32, 16),
        batch=4,
        record_size="native",
        data_dir=built_dsb2018,
    )
    wanted = Evaluation(records, batch=4, size=(32, 16))
    assert isinstance(made, tf.data.Dataset)
    assert len(made) == len(wanted)
    for own, other in zip(made, wanted, strict=True):
        for a, b in zip(own, other, strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="cuts no tiles"):
        segdata.eval_batches(
            "dsb2018",
            "validation",
            size=(32, 16),
            batch=4,
            record_size="native",
            engine="xla",
            data_dir=built_dsb2018,
        )

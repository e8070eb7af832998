import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from segdata import images


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (96, 144), (161, 519)])
@pytest.mark.parametrize("values", [[0], [255], [0, 1, 255], range(256)])
def test_a_mask_is_read_as_it_was_written(shape, values):
    mask = np.random.default_rng(0).choice(np.array(values, np.uint8), shape)
    data = images.mask_png(mask)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), mask)
    np.testing.assert_array_equal(tf.io.decode_png(data)[..., 0], mask)


def test_a_flat_mask_is_small():
    mask = np.zeros((1280, 1918), np.uint8)
    mask[300:900, 400:1500] = 1
    assert len(images.mask_png(mask)) < 5_000
    assert images.mask_png(mask) == images.mask_png(np.asfortranarray(mask))

import math
from typing import Any

import keras
import numpy as np
import pytest

from unet import losses

ALL = [*losses.BY_NAME.values()]


def batch(*images) -> np.ndarray:
    return np.asarray(images)[:, None, :, None]


def masks(*rows) -> np.ndarray:
    return batch(*rows).astype(np.uint8)


def probabilities(*rows) -> np.ndarray:
    return batch(*rows).astype(np.float32)


def test_cross_entropy_is_the_mean_over_the_labelled_pixels_of_each_image():
    mask = masks([1, 0, 255, 255], [1, 1, 0, 0])
    guess = probabilities([0.5, 0.2, 0.9, 0.1], [0.9, 0.8, 0.3, 0.5])
    by_hand = [
        -(math.log(0.5) + math.log(0.8)) / 2,
        -(math.log(0.9) + math.log(0.8) + math.log(0.7) + math.log(0.5)) / 4,
    ]
    assert np.asarray(losses.cross_entropy(mask, guess)) == pytest.approx(by_hand, rel=1e-5)


def test_dice_is_of_each_image_and_smoothed_by_one():
    mask = masks([1, 0, 255, 1], [0, 0, 0, 0])
    guess = probabilities([0.5, 0.25, 1.0, 1.0], [0.5, 0.5, 0, 0])
    by_hand = [1 - (2 * 1.5 + 1) / (2 + 1.75 + 1), 1 - 1 / 2]
    assert np.asarray(losses.dice(mask, guess)) == pytest.approx(by_hand, rel=1e-6)


def test_the_sum_is_the_sum():
    mask, guess = masks([1, 0, 255, 1]), probabilities([0.3, 0.6, 0.1, 0.9])
    apart = np.asarray(losses.cross_entropy(mask, guess)) + np.asarray(losses.dice(mask, guess))
    assert np.asarray(losses.cross_entropy_dice(mask, guess)) == pytest.approx(apart)


@pytest.mark.parametrize("loss", ALL)
def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_much(loss):
    mask = masks([1, 0, 255, 1], [0, 0, 0, 0])
    right = probabilities([1, 0, 0.5, 1], [0, 0, 0, 0])
    assert np.asarray(loss(mask, right)) == pytest.approx([0, 0], abs=1e-5)
    wrong = np.asarray(loss(mask, 1 - right))
    assert np.all(wrong > 0.7)
    assert np.all(np.isfinite(wrong))


@pytest.mark.parametrize("loss", ALL)
def test_what_is_not_labelled_is_not_looked_at(loss):
    mask = masks([1, 0, 255, 255])
    one = loss(mask, probabilities([0.4, 0.4, 0.0, 1.0]))
    other = loss(mask, probabilities([0.4, 0.4, 0.7, 0.2]))
    assert np.array_equal(one, other)


@pytest.mark.parametrize("loss", ALL)
def test_an_image_without_labels_costs_nothing_and_teaches_nothing(loss):
    head = keras.Sequential([keras.Input((1, 4, 1)), keras.layers.Conv2D(1, 1)])
    head.add(keras.layers.Activation("sigmoid"))
    head.compile(keras.optimizers.SGD(1.0), loss)
    before = head.get_weights()
    cost = head.train_on_batch(probabilities([0.1, 0.9, 0.5, 0.2]), masks([255] * 4))
    assert cost == 0
    assert all(np.array_equal(a, b) for a, b in zip(before, head.get_weights(), strict=True))


@pytest.mark.parametrize("loss", ALL)
def test_a_saved_model_finds_its_loss_again(loss, tmp_path):
    head: Any = keras.Sequential([keras.Input((1, 4, 1)), keras.layers.Conv2D(1, 1)])
    head.compile("sgd", loss)
    head.save(tmp_path / "model.keras")
    again: Any = keras.models.load_model(tmp_path / "model.keras")
    data = probabilities([0.1, 0.9, 0.5, 0.2]), masks([0, 1, 1, 255])
    assert again.evaluate(*data, verbose=0) == head.evaluate(*data, verbose=0)


@pytest.mark.parametrize("loss", ALL)
def test_shapes_that_differ_are_refused(loss):
    with pytest.raises(ValueError, match="differ in shape"):
        loss(masks([1, 0, 0, 0]), np.zeros((1, 1, 3, 1), np.float32))
    with pytest.raises(ValueError, match="differ in shape"):
        loss(masks([1, 0, 0, 0]), np.zeros((1, 1, 3, 2), np.float32))


@pytest.mark.parametrize("loss", [x for x in ALL if x is not losses.cross_entropy])
def test_only_cross_entropy_takes_several_classes(loss):
    with pytest.raises(ValueError, match="differ in shape"):
        loss(masks([1, 0, 0, 0]), np.zeros((1, 1, 4, 2), np.float32))


def test_cross_entropy_of_classes_is_the_mean_over_the_labelled_pixels():
    mask = masks([2, 0, 255, 255], [1, 255, 255, 255])
    one, other = [0.2, 0.3, 0.5], [0.7, 0.2, 0.1]
    guess = np.array([[[one, other, one, one]], [[other, one, one, one]]], np.float32)
    by_hand = [-(math.log(0.5) + math.log(0.7)) / 2, -math.log(0.2)]
    assert np.asarray(losses.cross_entropy(mask, guess)) == pytest.approx(by_hand, rel=1e-5)


def test_batch_dice_is_of_the_flattened_batch():
    mask = masks([1, 0, 255, 1], [0, 0, 0, 0])
    guess = probabilities([0.5, 0.25, 1.0, 1.0], [0.5, 0.5, 0, 0])
    by_hand = 1 - (2 * 1.5 + 1e-5) / (2 + 1.75 + 1 + 1e-5)
    assert np.asarray(losses.batch_dice(mask, guess)) == pytest.approx([by_hand] * 2, rel=1e-6)


def test_squared_error_takes_targets_of_any_kind_as_they_are():
    guess = probabilities([0.5, -1.0, 7.0, 200.0])
    target = masks([1, 0, 255, 190])
    for kind in (np.uint8, np.float32):
        error = np.asarray(losses.squared_error(target.astype(kind), guess))
        assert error == pytest.approx([(0.25 + 1 + 100) / 3])


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_loss_of_a_data_set_does_not_depend_on_how_it_is_cut(loss, batch_size):
    rng = np.random.default_rng(0)
    mask = rng.choice(np.array([0, 1, 255], np.uint8), (5, 4, 6, 1), p=[0.5, 0.4, 0.1])
    guess = rng.random((5, 4, 6, 1), np.float32)
    cuts = range(0, 5, batch_size)
    parts = [losses.parts(loss, *(x[i : i + batch_size] for x in (mask, guess))) for i in cuts]
    whole = losses.total(loss, np.concatenate([np.asarray(part, np.float64) for part in parts]))
    assert whole == pytest.approx(np.asarray(loss(mask, guess)).mean(), rel=1e-6)

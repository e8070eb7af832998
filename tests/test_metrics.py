import numpy as np
import pytest

from unet import metrics


def drawn(images: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mask = rng.choice(np.array([0, 1, 255], np.uint8), (images, 5, 7, 1), p=[0.6, 0.3, 0.1])
    mask[0] = 0
    mask[1] = 255
    return mask, rng.random((images, 5, 7, 1), np.float32)


def test_counts_are_by_image_and_leave_out_what_is_not_labelled():
    mask = np.array([[1, 1, 0, 0, 255, 255], [255] * 6], np.uint8).reshape(2, 1, 6, 1)
    found = np.array([[1, 0, 1, 0, 1, 0], [1] * 6], bool).reshape(2, 1, 6, 1)
    assert [n.tolist() for n in metrics.counts(mask, found)] == [[[1], [0]]] * 3


def test_each_class_is_the_foreground_of_its_own_counts():
    mask = np.array([0, 1, 2, 2, 255, 7], np.uint8).reshape(1, 1, 6, 1)
    found = np.array([0, 2, 2, 1, 1, 0], np.uint8).reshape(1, 1, 6, 1)
    counts = metrics.counts(mask, found, channels=4)
    assert [n.tolist() for n in counts] == [[[1, 0, 1, 0]], [[1, 1, 1, 0]], [[0, 1, 1, 0]]]


def test_a_score_is_the_mean_over_the_classes_that_occur():
    counts = [np.array(n) for n in ([3, 0, 4, 0], [1, 2, 0, 0], [2, 0, 0, 0])]
    assert metrics.dice(*counts) == pytest.approx((6 / 9 + 0 + 1) / 3)
    assert metrics.iou(*counts) == pytest.approx((3 / 6 + 0 + 1) / 3)
    assert metrics.dice(*(0 * n for n in counts)) == 1


def test_a_pixel_is_of_its_most_probable_class_or_above_the_threshold():
    output = np.array([[0.2, 0.5, 0.3], [0.4, 0.35, 0.25]], np.float32)
    assert metrics.decide(output, threshold=0.9).tolist() == [[1], [0]]
    assert metrics.decide(output[:, 1:2], threshold=0.4).tolist() == [[1], [0]]
    assert metrics.decide(output[:, 1:2], threshold=0.5).tolist() == [[0], [0]]


def test_what_is_as_probable_as_the_threshold_is_background_in_both_scores():
    mask, guess = np.ones((1, 2, 2, 1), np.uint8), np.full((1, 2, 2, 1), 0.5, np.float32)
    overlap = metrics.Overlap(threshold=0.5)
    overlap.update_state(mask, guess)
    found = metrics.decide(guess, threshold=0.5)
    assert float(overlap.result()["dice"]) == metrics.dice(*metrics.counts(mask, found)) == 0


def test_scores_agree_with_the_formulas_and_with_each_other():
    one = [np.array([n]) for n in (3, 1, 2)]
    assert metrics.dice(*one) == pytest.approx(6 / 9)
    assert metrics.iou(*one) == pytest.approx(3 / 6)
    mask, guess = drawn()
    counts = metrics.counts(mask, guess > 0.5)
    dice = metrics.dice(*counts)
    assert metrics.iou(*counts) == pytest.approx(dice / (2 - dice))


def test_nothing_to_find_and_nothing_found_scores_one_but_anything_found_zero():
    mask = np.zeros((2, 2, 2, 1), np.uint8)
    found = np.zeros((2, 2, 2, 1), bool)
    found[1, 0, 0] = True
    counts = metrics.counts(mask, found)
    assert metrics.dice(*counts).tolist() == [1, 0]
    assert metrics.iou(*counts).tolist() == [1, 0]


def test_counts_refuse_shapes_that_differ():
    with pytest.raises(ValueError, match="differ in shape"):
        metrics.counts(np.zeros((1, 2, 2, 1), np.uint8), np.zeros((1, 2, 2), bool))


@pytest.mark.parametrize("batch", [1, 4, 6])
def test_the_keras_metric_gives_the_numpy_scores_whatever_the_batch_size(batch):
    mask, guess = drawn()
    overlap = metrics.Overlap(threshold=0.4)
    for start in range(0, len(mask), batch):
        overlap.update_state(mask[start : start + batch], guess[start : start + batch])
    counts = metrics.counts(mask, guess > 0.4)
    totals = [n.sum(axis=0) for n in counts]
    assert {name: float(value) for name, value in overlap.result().items()} == pytest.approx(
        {
            "dice": metrics.dice(*counts).mean(),
            "dataset_dice": float(metrics.dice(*totals)),
            "dataset_iou": float(metrics.iou(*totals)),
        }
    )


@pytest.mark.parametrize("batch", [1, 4, 6])
def test_the_keras_metric_gives_the_numpy_scores_of_classes_too(batch):
    rng = np.random.default_rng(1)
    mask = rng.choice(np.array([0, 1, 2, 255], np.uint8), (6, 5, 7, 1))
    mask[0], mask[1] = 0, 255
    guess = rng.random((6, 5, 7, 4), np.float32) * (1, 1, 1, 0)
    overlap = metrics.Overlap(channels=4)
    for start in range(0, len(mask), batch):
        overlap.update_state(mask[start : start + batch], guess[start : start + batch])
    counts = metrics.counts(mask, metrics.decide(guess, threshold=0.5), channels=4)
    totals = [n.sum(axis=0) for n in counts]
    assert {name: float(value) for name, value in overlap.result().items()} == pytest.approx(
        {
            "dice": metrics.dice(*counts).mean(),
            "dataset_dice": float(metrics.dice(*totals)),
            "dataset_iou": float(metrics.iou(*totals)),
        }
    )


def test_the_keras_metric_starts_over_and_survives_its_config():
    mask, guess = drawn()
    overlap = metrics.Overlap.from_config(metrics.Overlap(threshold=0.3).get_config())
    assert (overlap.threshold, overlap.channels) == (0.3, 1)
    overlap.update_state(mask, guess)
    overlap.reset_state()
    assert {float(value) for value in overlap.result().values()} == {1}


def test_the_keras_metric_refuses_weights():
    mask, guess = drawn()
    with pytest.raises(ValueError, match="weights"):
        metrics.Overlap().update_state(mask, guess, sample_weight=np.ones(6))

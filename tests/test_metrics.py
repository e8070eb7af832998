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
    assert [n.tolist() for n in metrics.counts(mask, found)] == [[1, 0], [1, 0], [1, 0]]


def test_scores_agree_with_the_formulas_and_with_each_other():
    assert metrics.dice(3, 1, 2) == pytest.approx(6 / 9)
    assert metrics.iou(3, 1, 2) == pytest.approx(3 / 6)
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
    totals = [n.sum() for n in counts]
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
    assert overlap.threshold == 0.3
    overlap.update_state(mask, guess)
    overlap.reset_state()
    assert {float(value) for value in overlap.result().values()} == {1}


def test_the_keras_metric_refuses_weights():
    mask, guess = drawn()
    with pytest.raises(ValueError, match="weights"):
        metrics.Overlap().update_state(mask, guess, sample_weight=np.ones(6))

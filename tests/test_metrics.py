import math

import numpy as np
import pytest

from unet import metrics


def drawn(images: int = 6, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    known = np.array([*range(classes), 255], np.uint8)
    mask = rng.choice(known, (images, 5, 7, 1))
    mask[0], mask[1] = 0, 255
    channels = classes if classes > 2 else 1
    return mask, rng.normal(0, 2, (images, 5, 7, channels)).astype(np.float32)


def decided(logits: np.ndarray, *, threshold: float = 0.5) -> np.ndarray:
    if logits.shape[-1] == 1:
        return (1 / (1 + np.exp(-logits[..., 0])) > threshold).astype(np.uint8)
    return logits.argmax(-1).astype(np.uint8)


def matrices(mask: np.ndarray, logits: np.ndarray, *, threshold: float = 0.5) -> np.ndarray:
    found = decided(logits, threshold=threshold)
    pairs = zip(mask[..., 0], found, strict=True)
    return np.array([metrics.confusion(*pair, channels=logits.shape[-1]) for pair in pairs])


def plain(mask: np.ndarray, found: np.ndarray, number: int) -> dict[str, float]:
    """The scores of one class, counted pixel by pixel."""
    pairs = [(int(t), int(f)) for t, f in zip(mask.flat, found.flat, strict=True) if t != 255]
    tp = sum(t == number == f for t, f in pairs)
    fp = sum(t != number == f for t, f in pairs)
    fn = sum(t == number != f for t, f in pairs)

    def share(part, whole):
        return part / whole if whole else math.nan

    return {
        "dice": share(2 * tp, 2 * tp + fp + fn),
        "iou": share(tp, tp + fp + fn),
        "precision": share(tp, tp + fp),
        "recall": share(tp, tp + fn),
    }


def test_a_confusion_matrix_is_truth_by_prediction_without_what_is_not_labelled():
    mask = np.array([[0, 0, 1, 2], [2, 2, 255, 255]], np.uint8)
    found = np.array([[0, 1, 1, 0], [2, 1, 0, 1]], np.uint8)
    matrix = metrics.confusion(mask, found, channels=3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 1, 1]]
    for channels in (3, 256):
        assert metrics.confusion(mask * 0 + 255, found, channels=channels).sum() == 0


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_scores_of_classes_are_those_of_counting(classes):
    mask, logits = drawn(classes=classes)
    channels, found = logits.shape[-1], decided(logits)
    numbers = range(1, 2) if channels == 1 else range(classes)
    for matrix, truth, guess in zip(matrices(mask, logits), mask, found, strict=True):
        scores = metrics.scores(matrix, channels=channels)
        for name in ("dice", "iou", "precision", "recall"):
            by_hand = [plain(truth, guess, number)[name] for number in numbers]
            assert scores[name] == pytest.approx(by_hand, nan_ok=True)


def test_the_mean_is_over_the_classes_that_occur():
    assert metrics.mean(np.array([0.5, np.nan, 1.0])) == 0.75
    assert metrics.mean(np.array([[np.nan], [0.25]])).tolist() == [1.0, 0.25]


def test_a_pixel_is_of_its_most_probable_class_or_above_the_threshold():
    output = np.array([[0.2, 0.5, 0.3], [0.4, 0.35, 0.25]], np.float32)
    assert metrics.decide(output, threshold=0.9).tolist() == [1, 0]
    assert metrics.decide(output[:, 1:2], threshold=0.4).tolist() == [1, 0]
    assert metrics.decide(output[:, 1:2], threshold=0.5).tolist() == [0, 0]


def test_what_is_as_probable_as_the_threshold_is_background_in_training_too():
    overlap = metrics.Overlap(threshold=0.5)
    overlap.update_state(np.ones((1, 2, 2, 1), np.uint8), np.zeros((1, 2, 2, 1), np.float32))
    assert float(overlap.result()["dice"]) == 0


def test_nothing_to_find_and_nothing_found_scores_one_but_anything_found_zero():
    mask, found = np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8)
    for wanted in (1, 0):
        scores = metrics.scores(metrics.confusion(mask, found))
        assert metrics.mean(scores["dice"]) == metrics.mean(scores["iou"]) == wanted
        found[0, 0] = 1


def test_shapes_that_differ_and_classes_beyond_the_model_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        metrics.confusion(np.zeros((1, 2, 2, 1), np.uint8), np.zeros((1, 2, 2), np.uint8))
    for channels, most in ((1, 1), (3, 2)):
        mask = np.full((2, 2), most + 1, np.uint8)
        with pytest.raises(ValueError, match=f"class {most + 1}; the model's are 0 to {most}"):
            metrics.confusion(mask, np.zeros((2, 2), np.uint8), channels=channels)


@pytest.mark.parametrize("batch", [1, 4, 6])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_the_keras_metric_gives_the_numpy_scores_whatever_the_batch_size(batch, classes, threshold):
    mask, logits = drawn(classes=classes)
    channels = logits.shape[-1]
    overlap = metrics.Overlap(threshold=threshold, channels=channels)
    for start in range(0, len(mask), batch):
        overlap.update_state(mask[start : start + batch], logits[start : start + batch])
    each = matrices(mask, logits, threshold=threshold)
    each = each[each.any(axis=(1, 2))]
    assert len(each) == 5  # one has no labels
    whole = metrics.scores(each.sum(axis=0), channels=channels)
    assert {name: float(value) for name, value in overlap.result().items()} == pytest.approx(
        {
            "dice": metrics.mean(metrics.scores(each, channels=channels)["dice"]).mean(),
            "dataset_dice": float(metrics.mean(whole["dice"])),
            "dataset_iou": float(metrics.mean(whole["iou"])),
        }
    )


def test_the_keras_metric_starts_over_and_survives_its_config():
    overlap = metrics.Overlap.from_config(metrics.Overlap(threshold=0.3).get_config())
    assert (overlap.threshold, overlap.channels) == (0.3, 1)
    overlap.update_state(*drawn())
    overlap.reset_state()
    assert {float(value) for value in overlap.result().values()} == {1}


@pytest.mark.parametrize("metric", [metrics.Overlap, metrics.Errors])
def test_the_keras_metrics_refuse_weights(metric):
    with pytest.raises(ValueError, match="weights"):
        metric().update_state(*drawn(), sample_weight=np.ones(6))


def test_errors_of_a_regression_are_those_of_their_formulas():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 256, (3, 4, 5, 1), np.uint8)
    output = target + rng.normal(0, 9, target.shape).astype(np.float32)
    labelled = target != 255
    truth, wrong = target[labelled].astype(float), (output - target)[labelled]
    wanted = {
        "mae": np.abs(wrong).mean(),
        "rmse": np.sqrt((wrong**2).mean()),
        "r2": 1 - (wrong**2).sum() / ((truth - truth.mean()) ** 2).sum(),
    }
    sums = sum(metrics.errors(*pair) for pair in zip(target, output, strict=True))
    assert metrics.regression(np.asarray(sums)) == pytest.approx(wanted, rel=1e-6)
    running = metrics.Errors.from_config(metrics.Errors().get_config())
    for pair in zip(target[:, None], output[:, None], strict=True):
        running.update_state(*pair)
    found = {name: float(value) for name, value in running.result().items()}
    assert found == pytest.approx({name: wanted[name] for name in found}, rel=1e-5)


@pytest.mark.parametrize("target", [np.uint8(7), np.float32(0.1), np.float32(-200.3)])
def test_a_target_without_variance_is_explained_wholly_or_not_at_all(target):
    target = np.full((25, 40), target)
    for output, r2 in ((target * 1.0, 1.0), (target + 1.0, 0.0)):
        assert metrics.regression(metrics.errors(target, output))["r2"] == r2

import numpy as np
import pytest

from unet import calibration, metrics
from unet.calibration import Search


def drawn(seed=0, *, classes=2, shape=(9, 14)):
    rng = np.random.default_rng(seed)
    known = np.array([*range(classes), 255], np.uint8)
    mask = rng.choice(known, shape)
    probability = rng.integers(0, 256, shape, np.uint8)
    if classes == 2:
        return mask, (probability > 127).astype(np.uint8), probability
    return mask, rng.integers(0, classes, shape, np.uint8), probability


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("shape", [(1, 1), (9, 14), (31, 17)])
def test_the_error_is_that_of_sorting_pixels_into_bins_one_by_one(classes, shape):
    mask, found, probability = drawn(3, classes=classes, shape=shape)
    mask.flat[0] = 1
    channels = 1 if classes == 2 else classes
    rows: list[list[tuple[float, bool]]] = [[] for _ in range(15)]
    for truth, guess, level in zip(mask.flat, found.flat, probability.flat, strict=True):
        if truth != 255:
            place = min(int(level) * 15 // 255, 14)
            rows[place].append((level / 255, truth == (1 if classes == 2 else guess)))
    wanted = sum(abs(sum(p for p, _ in row) - sum(event for _, event in row)) for row in rows)
    histogram = calibration.histogram(mask, found, probability, channels=channels)
    assert histogram.sum() == (mask != 255).sum()
    assert calibration.error(histogram) == pytest.approx(wanted / (mask != 255).sum())
    for one, row in zip(calibration.bins(histogram), rows, strict=True):
        assert one.pixels == len(row)
        if row:
            assert one.confidence == pytest.approx(np.mean([p for p, _ in row]))
            assert one.frequency == pytest.approx(np.mean([event for _, event in row]))
            assert one.least <= one.confidence <= one.most
        else:
            assert np.isnan([one.confidence, one.frequency]).all()


def test_without_pixels_there_is_no_error():
    assert np.isnan(calibration.error(np.zeros((2, 256), np.int64)))


def test_probabilities_that_are_right_have_no_error_and_those_that_are_sure_and_wrong_one():
    histogram = np.zeros((2, 256), np.int64)
    histogram[:, 51] = 80, 20
    assert calibration.error(histogram) == pytest.approx(0)
    histogram[:] = 0
    histogram[0, 255] = 7
    assert calibration.error(histogram) == 1


def test_a_threshold_finds_what_deciding_by_it_finds():
    mask, found, probability = drawn()
    counts = calibration.at_thresholds(calibration.histogram(mask, found, probability))
    for threshold, own in zip(calibration.THRESHOLDS, counts, strict=True):
        decided = metrics.decide(probability[..., None] / 255, threshold=threshold)
        matrix = metrics.confusion(mask, decided)
        assert np.array_equal(own, metrics.counts(matrix))


@pytest.mark.parametrize("score", ["dice", "iou", "dataset_dice", "dataset_iou"])
def test_the_best_threshold_is_that_of_trying_all(score):
    search, images = Search(score), []
    for seed in range(6):
        mask, _, probability = drawn(seed, shape=(5 + seed, 8))
        rng = np.random.default_rng(seed)
        mask[(probability < rng.integers(20, 200)) & (mask == 1)] = 0
        if seed == 4:
            mask[:] = 255
        search.add(calibration.histogram(mask, mask, probability))
        images += [(mask, probability)] if seed != 4 else []
    tried = {}
    for threshold in calibration.THRESHOLDS:
        each = np.array(
            [metrics.confusion(m, (p / 255 > threshold) * np.uint8(1)) for m, p in images]
        )
        name = score.removeprefix("dataset_")
        whole = each.sum(axis=0) if score.startswith("dataset_") else each
        tried[threshold] = metrics.mean(metrics.scores(whole)[name]).mean()
    best, value = search.best()
    assert value == pytest.approx(max(tried.values()))
    assert tried[best] == pytest.approx(value)
    assert search.images == 5


def test_of_equal_thresholds_the_nearest_to_one_half_is_taken():
    search = Search("dice")
    mask = np.array([[0, 0, 1, 1]], np.uint8)
    search.add(calibration.histogram(mask, mask, np.array([[3, 90, 250, 255]], np.uint8)))
    threshold, dice = search.best()
    assert dice == 1
    assert threshold == pytest.approx(0.5)
    search = Search("dice")
    search.add(calibration.histogram(mask, mask, np.array([[3, 180, 250, 255]], np.uint8)))
    assert search.best()[0] == pytest.approx(180.5 / 255)


def test_a_search_without_labels_is_refused():
    search = Search("dataset_iou")
    search.add(np.zeros((2, 256), np.int64))
    with pytest.raises(ValueError, match="no image"):
        search.best()

import numpy as np
import pytest

from unet import evaluate, losses, metrics


class Fixed:
    """A model whose probability is the red channel: what it predicts is known."""

    def predict_on_batch(self, images) -> np.ndarray:
        return np.asarray(images)[..., :1].astype(np.float32) / 255


def drawn(images: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mask = rng.choice(np.array([0, 1, 255], np.uint8), (images, 6, 4, 1), p=[0.5, 0.4, 0.1])
    mask[2] = 0
    return rng.integers(0, 256, (images, 6, 4, 3), np.uint8), mask


def scores(batch: int, **changes) -> dict[str, float]:
    images, masks = drawn()
    batches = [(images[i : i + batch], masks[i : i + batch]) for i in range(0, 7, batch)]
    options = {"threshold": 0.6, "loss": losses.cross_entropy_dice} | changes
    return evaluate.evaluate(Fixed(), batches, **options)


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
@pytest.mark.parametrize("loss", losses.BY_NAME.values())
def test_scores_do_not_depend_on_the_batch_size(batch, loss):
    assert scores(batch, loss=loss) == pytest.approx(scores(7, loss=loss), rel=1e-6)


def test_the_batch_of_batch_dice_is_the_whole_data_set():
    images, masks = drawn()
    probability = images[..., :1].astype(np.float32) / 255
    whole = np.asarray(losses.batch_dice(masks, probability))
    assert scores(2, loss=losses.batch_dice)["loss"] == pytest.approx(whole[0], rel=1e-6)
    each = [
        np.asarray(losses.batch_dice(masks[i : i + 1], probability[i : i + 1])) for i in range(7)
    ]
    assert np.mean(each) != pytest.approx(whole[0], rel=1e-2)


def test_scores_are_what_their_names_say():
    images, masks = drawn()
    probability = images[..., :1].astype(np.float32) / 255
    counts = metrics.counts(masks, probability > 0.6)
    totals = [n.sum(axis=0) for n in counts]
    assert scores(3) == pytest.approx(
        {
            "images": 7,
            "dice": metrics.dice(*counts).mean(),
            "iou": metrics.iou(*counts).mean(),
            "dataset_dice": float(metrics.dice(*totals)),
            "dataset_iou": float(metrics.iou(*totals)),
            "loss": np.mean(np.asarray(losses.cross_entropy_dice(masks, probability))),
            "threshold": 0.6,
        }
    )


def test_the_threshold_counts():
    assert scores(7, threshold=0.0)["dice"] != scores(7, threshold=0.9)["dice"]


def test_each_image_comes_with_its_own_scores():
    images, masks = drawn()
    rows = list(
        evaluate.scored(Fixed(), [(images, masks)], threshold=0.5, loss=losses.cross_entropy)
    )
    assert len(rows) == 7
    assert all(np.array_equal(row.image, image) for row, image in zip(rows, images, strict=True))
    assert rows[3].dice == metrics.dice(*rows[3].counts)
    assert rows[3].loss == losses.cross_entropy(masks[3:4], rows[3].probability[None])
    assert rows[3].probability.shape == rows[3].mask.shape == (6, 4, 1)


def test_nothing_to_score_is_refused():
    with pytest.raises(ValueError, match="no images"):
        evaluate.evaluate(Fixed(), [], threshold=0.5, loss=losses.dice)


def test_several_datasets_are_scored_each_and_together():
    images, masks = drawn()
    options = {"threshold": 0.6, "loss": losses.cross_entropy_dice}

    def part(*rows):
        return [(images[slice(*rows)], masks[slice(*rows)])]

    found = evaluate.evaluate(Fixed(), {"a": part(0, 3), "b": part(3, 7)}, **options)
    whole = evaluate.evaluate(Fixed(), part(0, 7), **options)
    assert {name: found[name] for name in whole} == whole
    for name, rows in (("a", (0, 3)), ("b", (3, 7))):
        alone = evaluate.evaluate(Fixed(), part(*rows), **options)
        del alone["threshold"]
        assert {score: found.pop(f"{score}/{name}") for score in alone} == alone
    assert found.keys() == whole.keys()

import math
from typing import Any

import keras
import numpy as np
import pytest

from unet import losses

CLASSES = [x for x in losses.BY_NAME.values() if x is not losses.squared_error]
ALL = [*losses.BY_NAME.values()]


def batch(*images) -> np.ndarray:
    return np.asarray(images)[:, None, :, None]


def masks(*rows) -> np.ndarray:
    return batch(*rows).astype(np.uint8)


def numbers(*rows) -> np.ndarray:
    return batch(*rows).astype(np.float32)


def logits(*rows) -> np.ndarray:
    p = np.clip(batch(*rows).astype(np.float64), 1e-12, 1 - 1e-12)
    return np.log(p / (1 - p)).astype(np.float32)


def drawn(channels: int, *, seed: int = 0, images: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    known = [*range(max(channels, 2)), 255]
    mask = rng.choice(np.array(known, np.uint8), (images, 5, 7, 1))
    mask[1, ..., 0] = 255
    mask[2, ..., 0] = 0
    return mask, rng.normal(0, 2, (images, 5, 7, channels)).astype(np.float32)


def by_hand(name: str, mask: np.ndarray, output: np.ndarray) -> list[float]:
    """Each image's loss in float64, pixel by pixel."""
    found = []
    for truth, z in zip(mask[..., 0], output.astype(np.float64), strict=True):
        labelled = truth != 255
        truth, z = truth[labelled].astype(int), z[labelled]
        channels = z.shape[-1]
        if channels == 1:
            p = 1 / (1 + np.exp(-z))
            p_true = np.where(truth == 1, p[:, 0], 1 - p[:, 0])
            t = (truth == 1)[:, None].astype(float)
        else:
            p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
            p_true = p[np.arange(len(truth)), truth]
            t = np.eye(channels)[truth]
        count = max(len(truth), 1)
        common, wide, true = (x.sum(0) for x in (p * t, p, t))
        entropy = -np.log(p_true).sum() / count
        dice = np.mean(1 - (2 * common + 1) / (wide + true + 1))
        wrong = 0.3 * (wide - common) + 0.7 * (true - common)
        value = {
            "cross_entropy": entropy,
            "focal": (-((1 - p_true) ** 2) * np.log(p_true)).sum() / count,
            "dice": dice,
            "cross_entropy_dice": entropy + dice,
            "tversky": np.mean(1 - (common + 1) / (common + wrong + 1)),
            "lovasz": lovasz_by_hand(t, z),
        }[name]
        found.append(float(value))
    return found


def lovasz_by_hand(t: np.ndarray, z: np.ndarray) -> float:
    """Lovász's extension of 1 − IoU, from its definition: the sum over sorted errors."""
    channels = t.shape[-1]
    softmax = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    costs = []
    for k in range(channels):
        truth = t[:, k]
        if channels > 1 and not truth.any():
            continue
        signed = np.maximum(1 - z[:, 0] * (2 * truth - 1), 0)
        errors = signed if channels == 1 else np.abs(truth - softmax[:, k])
        order = np.argsort(-errors, kind="stable")
        wrong, before, cost = np.zeros(len(truth), bool), 0.0, 0.0
        for place in order:
            wrong[place] = True
            common = truth.sum() - truth[wrong].sum()
            union = truth.sum() + (1 - truth)[wrong].sum()
            now = 1 - common / union
            cost += errors[place] * (now - before)
            before = now
        costs.append(cost)
    return float(np.mean(costs)) if costs else 0.0


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("loss", [x for x in CLASSES if x is not losses.batch_dice])
@pytest.mark.parametrize("seed", [0, 1])
def test_each_loss_is_what_its_formula_says(loss, channels, seed):
    mask, output = drawn(channels, seed=seed)
    found = np.asarray(loss(mask, output))
    assert found == pytest.approx(by_hand(loss.__name__, mask, output), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.focal, losses.cross_entropy_dice])
@pytest.mark.parametrize("size", [20.0, 90.0])
def test_what_is_surely_wrong_costs_its_logit_and_still_teaches(loss, size):
    head: Any = keras.Sequential([keras.Input((1, 2, 1)), keras.layers.Conv2D(1, 1)])
    head.compile(keras.optimizers.SGD(1.0), loss)
    head.set_weights([np.full((1, 1, 1, 1), size, np.float32), np.zeros(1, np.float32)])
    # Both pixels are wrong: 1 is foreground, −1 background, and the masks say the contrary.
    data = numbers([1.0, -1.0]), masks([0, 1])
    assert float(head.train_on_batch(*data)) == pytest.approx(size, rel=0.06)
    assert head.get_weights()[0].item() == pytest.approx(size - 1, abs=1e-3)


@pytest.mark.parametrize("loss", ALL)
def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_much(loss):
    mask = masks([1, 0, 255, 1], [0, 0, 0, 0])
    right = numbers([1, 0, 0.5, 1], [0, 0, 0, 0])
    sharp = 1.0 if loss is losses.squared_error else 60.0
    shift = 0.0 if loss is losses.squared_error else 0.5
    cost = np.asarray(loss(mask, sharp * (right - shift)))
    assert cost == pytest.approx([0, 0], abs=1e-5)
    wrong = np.asarray(loss(mask, sharp * (1 - right - shift)))
    assert np.all(wrong > 0.5)
    assert np.all(np.isfinite(wrong))


@pytest.mark.parametrize("loss", ALL)
def test_what_is_not_labelled_is_not_looked_at(loss):
    mask = masks([1, 0, 255, 255])
    one = loss(mask, logits([0.4, 0.4, 0.0, 1.0]))
    other = loss(mask, logits([0.4, 0.4, 0.7, 0.2]))
    assert np.array_equal(one, other)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("loss", CLASSES)
@pytest.mark.parametrize("far", [200.0, -200.0])
def test_what_is_not_labelled_may_have_any_logits(loss, channels, far):
    weights, costs = [], []
    for logit in (0.5, far):
        head: Any = keras.Sequential(
            [keras.Input((1, 3, channels)), keras.layers.Conv2D(channels, 1)]
        )
        head.compile(keras.optimizers.SGD(1.0), loss)
        head.set_weights([np.eye(channels)[None, None], np.zeros(channels)])
        output = np.full((1, 1, 3, channels), 0.3, np.float32)
        output[0, 0, 1] = logit
        costs.append(float(head.train_on_batch(output, masks([0, 255, 1]))))
        weights.append(head.get_weights())
    assert costs[0] == costs[1]
    for one, other in zip(*weights, strict=True):
        assert np.array_equal(one, other)


def test_weights_of_classes_may_be_numbers_of_any_type():
    mask, output = masks([0, 255, 1]), logits([0.3, 0.2, 0.6])
    for loss in (losses.cross_entropy, losses.focal, losses.cross_entropy_dice):
        plain = np.asarray(loss(mask, output, class_weights=(0.3, 1.7)))
        given = np.asarray(loss(mask, output, class_weights=tuple(np.array([0.3, 1.7]))))
        assert given.dtype == np.float32
        assert np.array_equal(plain, given)


@pytest.mark.parametrize("loss", ALL)
def test_an_image_without_labels_costs_nothing_and_teaches_nothing(loss):
    head: Any = keras.Sequential([keras.Input((1, 4, 1)), keras.layers.Conv2D(1, 1)])
    head.compile(keras.optimizers.SGD(1.0), loss)
    before = head.get_weights()
    cost = head.train_on_batch(numbers([0.1, 0.9, 0.5, 0.2]), masks([255] * 4))
    assert cost == 0
    assert all(np.array_equal(a, b) for a, b in zip(before, head.get_weights(), strict=True))


@pytest.mark.parametrize("loss", ALL)
def test_a_saved_model_finds_its_loss_again(loss, tmp_path):
    head: Any = keras.Sequential([keras.Input((1, 4, 1)), keras.layers.Conv2D(1, 1)])
    head.compile("sgd", loss)
    head.save(tmp_path / "model.keras")
    again: Any = keras.models.load_model(tmp_path / "model.keras")
    data = numbers([0.1, 0.9, 0.5, 0.2]), masks([0, 1, 1, 255])
    assert again.evaluate(*data, verbose=0) == head.evaluate(*data, verbose=0)


@pytest.mark.parametrize("loss", ALL)
def test_shapes_that_differ_are_refused(loss):
    with pytest.raises(ValueError, match="differ in shape"):
        loss(masks([1, 0, 0, 0]), np.zeros((1, 1, 3, 1), np.float32))
    with pytest.raises(ValueError, match="differ in shape"):
        loss(np.zeros((1, 1, 4, 2), np.uint8), np.zeros((1, 1, 4, 2), np.float32))


def test_batch_dice_is_of_the_flattened_batch():
    mask = masks([1, 0, 255, 1], [0, 0, 0, 0])
    guess = logits([0.5, 0.25, 1.0, 1.0], [0.5, 0.5, 0, 0])
    by_hand = 1 - (2 * 1.5 + 1e-5) / (2 + 1.75 + 1 + 1e-5)
    assert np.asarray(losses.batch_dice(mask, guess)) == pytest.approx([by_hand] * 2, rel=1e-6)


def test_batch_dice_of_classes_is_the_mean_over_them():
    mask, output = drawn(3)
    p = np.exp(output.astype(np.float64))
    p = (p / p.sum(-1, keepdims=True))[mask[..., 0] != 255]
    t = np.eye(3)[mask[mask != 255]]
    each = 1 - (2 * (p * t).sum(0) + 1e-5) / (p.sum(0) + t.sum(0) + 1e-5)
    assert np.asarray(losses.batch_dice(mask, output)) == pytest.approx([each.mean()] * 4, rel=1e-5)


def test_squared_error_takes_targets_of_any_kind_as_they_are():
    guess = numbers([0.5, -1.0, 7.0, 200.0])
    target = masks([1, 0, 255, 190])
    for kind in (np.uint8, np.float32):
        error = np.asarray(losses.squared_error(target.astype(kind), guess))
        assert error == pytest.approx([(0.25 + 1 + 100) / 3])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("loss", CLASSES)
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_loss_of_a_data_set_does_not_depend_on_how_it_is_cut(loss, batch_size, channels):
    mask, guess = drawn(channels, images=5)
    cuts = range(0, 5, batch_size)
    parts = [losses.parts(loss, *(x[i : i + batch_size] for x in (mask, guess))) for i in cuts]
    whole = losses.total(loss, np.concatenate([np.asarray(part, np.float64) for part in parts]))
    assert whole == pytest.approx(np.asarray(loss(mask, guess)).mean(), rel=1e-6)


def test_cross_entropy_of_a_probability_is_its_logarithm():
    guess, mask = logits([0.5, 0.2, 0.9]), masks([1, 0, 1])
    wanted = -(math.log(0.5) + math.log(0.8) + math.log(0.9)) / 3
    assert np.asarray(losses.cross_entropy(mask, guess)) == pytest.approx([wanted], rel=1e-6)


def settings_by_hand(
    name: str, mask: np.ndarray, output: np.ndarray, *, smoothing: float, weights: tuple
) -> list[float]:
    """Cross-entropies with smoothed labels and weights of classes, pixel by pixel."""
    found = []
    for truth, z in zip(mask[..., 0], output.astype(np.float64), strict=True):
        total, count = 0.0, 0
        for y, x in np.argwhere(truth != 255):
            own = z[y, x] if len(z[y, x]) > 1 else np.array([0.0, z[y, x, 0]])
            p = np.exp(own) / np.exp(own).sum()
            target = np.full(len(p), smoothing / len(p))
            target[truth[y, x]] += 1 - smoothing
            entropy = -float((target * np.log(p)).sum())
            if name == "focal":
                entropy *= (1 - p[truth[y, x]]) ** 2
            total += entropy * (weights[truth[y, x]] if weights else 1)
            count += 1
        found.append(total / max(count, 1))
    return found


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize(
    ("name", "smoothing", "weighted"),
    [
        ("cross_entropy", 0.1, False),
        ("cross_entropy", 0.0, True),
        ("cross_entropy", 0.3, True),
        ("focal", 0.0, True),
        ("cross_entropy_dice", 0.2, True),
    ],
)
def test_smoothing_and_weights_are_what_their_formulas_say(name, smoothing, weighted, channels):
    mask, output = drawn(channels, seed=2)
    weights = (0.25, 3.0, 0.0, 1.5)[: max(channels, 2)] if weighted else ()
    loss = losses.chosen(name, smoothing=smoothing, class_weights=weights)
    wanted = settings_by_hand(name, mask, output, smoothing=smoothing, weights=weights)
    if name == "cross_entropy_dice":
        wanted = np.add(wanted, by_hand("dice", mask, output))
    assert np.asarray(loss(mask, output)) == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_a_loss_without_settings_is_the_plain_one():
    for name, loss in losses.BY_NAME.items():
        assert losses.chosen(name) is loss


def test_a_loss_that_there_is_not_is_named_with_those_that_there_are():
    with pytest.raises(ValueError, match="'dices' is not a loss; the losses are cross_entropy, "):
        losses.chosen("dices")


def test_balanced_weights_make_all_classes_weigh_alike():
    rng = np.random.default_rng(0)
    masks = [rng.choice([0, 1, 3, 255], p=[0.7, 0.05, 0.15, 0.1], size=(2, 5, 7)) for _ in range(4)]
    weights = losses.balanced_weights([m.astype(np.uint8) for m in masks], classes=4)
    pixels = np.concatenate([m.reshape(-1) for m in masks])
    each = [float((pixels == k).sum() * weights[k]) for k in (0, 1, 3)]
    assert each == pytest.approx([each[0]] * 3)
    assert sum(each) == pytest.approx((pixels != 255).sum())
    assert weights[2] == 0
    with pytest.raises(ValueError, match="no pixel of the training is labelled"):
        losses.balanced_weights([np.full((2, 2), 255, np.uint8)], classes=2)


def boundary_by_hand(mask: np.ndarray, output: np.ndarray) -> list[float]:
    """From the definition: each pixel's distance to every other."""
    channels, found = output.shape[-1], []
    for truth, z in zip(mask[..., 0], output.astype(np.float64), strict=True):
        places = np.argwhere(truth != 255)
        softmax = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        p = 1 / (1 + np.exp(-z)) if channels == 1 else softmax
        total = 0.0
        for k in range(channels):
            own = [(y, x) for y, x in places if truth[y, x] == (k if channels > 1 else 1)]
            rest = [(y, x) for y, x in places if (y, x) not in own]
            if not own or not rest:
                continue
            for y, x in places:
                is_own = (y, x) in own
                others = rest if is_own else own
                near = min(math.hypot(y - b, x - a) for b, a in others)
                total += (1 - near if is_own else near) * p[y, x, k] / channels
        found.append(total / max(len(places), 1))
    return found


@pytest.mark.parametrize("size", [(1, 1), (1, 13), (9, 1), (7, 12), (16, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_boundary_loss_is_exact(channels, size):
    rng = np.random.default_rng(size[0])
    mask = rng.choice([0, 1, 2, 255], p=[0.8, 0.05, 0.05, 0.1], size=(5, *size, 1)).astype(np.uint8)
    mask[0], mask[1], mask[2] = 0, 255, 1
    mask[3] = 0
    mask[3, -1, -1] = 1  # far from most
    if channels == 1:
        mask[mask == 2] = 0
    output = rng.normal(0, 2, (5, *size, channels)).astype(np.float32)
    found = np.asarray(losses.boundary(mask, output))
    assert found == pytest.approx(boundary_by_hand(mask, output), rel=1e-5, abs=1e-5)


def test_the_boundary_loss_pushes_away_what_is_outside_and_is_added_with_its_weight():
    mask = np.zeros((1, 5, 9, 1), np.uint8)
    mask[0, 1:4, 1:4] = 1
    head: Any = keras.Sequential([keras.Input((5, 9, 1)), keras.layers.Conv2D(1, 1)])
    head.compile(keras.optimizers.SGD(1.0), losses.chosen("dice", boundary_weight=0.5))
    image = np.ones((1, 5, 9, 1), np.float32)
    output = head.predict_on_batch(image)
    wanted = losses.dice(mask, output) + 0.5 * losses.boundary(mask, output)
    before = head.get_weights()[1].item()
    assert float(head.train_on_batch(image, mask)) == pytest.approx(np.asarray(wanted).item())
    assert head.get_weights()[1].item() < before  # most of the image is outside


@pytest.mark.parametrize("channels", [1, 3])
def test_the_boundary_loss_is_the_same_where_sizes_are_not_known(channels):
    mask, output = drawn(channels, seed=3)
    inputs = [keras.Input((None, None, 1), dtype="uint8"), keras.Input((None, None, channels))]
    layer = keras.layers.Lambda(lambda both: losses.boundary(*both), output_shape=())
    made: Any = keras.Model(inputs, layer(inputs))
    found = made.predict_on_batch([mask, output])
    assert found == pytest.approx(boundary_by_hand(mask, output), rel=1e-5, abs=1e-5)

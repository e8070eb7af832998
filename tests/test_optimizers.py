from typing import Any

import keras
import numpy as np
import pytest

from unet import optimizers, train
from unet.model import UNet
from unet.recipes import Recipe

SHAPES = ((3, 5), (5,), (2, 1, 3))  # two kernels and a bias
STEPS = 7


def variables() -> list[Any]:
    rng = np.random.default_rng(0)
    return [keras.Variable(rng.normal(size=shape).astype(np.float32)) for shape in SHAPES]


def gradients(step: int) -> list[np.ndarray]:
    rng = np.random.default_rng((1, step))
    return [rng.normal(size=shape).astype(np.float32) for shape in SHAPES]


class Reference:
    """What the optimizer is to do, in float64."""

    def __init__(self, recipe: Recipe, weights: list[np.ndarray]):
        self.recipe, self.updates = recipe, 0
        self.weights = [np.asarray(w, np.float64) for w in weights]
        self.waiting: list[list[np.ndarray]] = []
        self.first = [np.zeros(w.shape) for w in weights]
        self.second = [np.zeros(w.shape) for w in weights]
        self.average: list[np.ndarray] = []

    def add(self, given: list[np.ndarray]) -> None:
        recipe = self.recipe
        self.waiting.append([np.asarray(g, np.float64) for g in given])
        if len(self.waiting) < recipe.accumulation:
            return
        mean = [sum(each) / recipe.accumulation for each in zip(*self.waiting, strict=True)]
        self.waiting = []
        norm = float(np.sqrt(sum((g**2).sum() for g in mean)))
        if recipe.clip_norm is not None and norm > recipe.clip_norm:
            mean = [g * recipe.clip_norm / norm for g in mean]
        self.updates += 1
        decay = recipe.weight_decay
        if decay is None:
            decay = 0.004 if recipe.optimizer == "adamw" else 0.0
        rate = recipe.learning_rate
        for i, g in enumerate(mean):
            w = self.weights[i]
            if w.ndim > 1:
                w = w - rate * decay * w
            if recipe.optimizer == "sgd":
                self.first[i] = recipe.momentum * self.first[i] - rate * g
                ahead = recipe.momentum * self.first[i] - rate * g
                w = w + (ahead if recipe.nesterov else self.first[i])
            elif recipe.optimizer == "rmsprop":
                self.second[i] = 0.9 * self.second[i] + 0.1 * g**2
                w = w - rate * g / np.sqrt(self.second[i] + recipe.epsilon)
            else:
                self.first[i] = 0.9 * self.first[i] + 0.1 * g
                self.second[i] = 0.999 * self.second[i] + 0.001 * g**2
                # Kingma and Ba's order of operations, where epsilon is added before the correction.
                own = rate * np.sqrt(1 - 0.999**self.updates) / (1 - 0.9**self.updates)
                w = w - own * self.first[i] / (np.sqrt(self.second[i]) + recipe.epsilon)
            self.weights[i] = w
        momentum = recipe.ema_momentum
        old = self.average or self.weights
        self.average = [
            momentum * a + (1 - momentum) * w for a, w in zip(old, self.weights, strict=True)
        ]


CASES: dict[str, dict[str, Any]] = {
    "plain": {"optimizer": "sgd"},
    "momentum": {"optimizer": "sgd", "momentum": 0.9},
    "nesterov": {"optimizer": "sgd", "momentum": 0.8, "nesterov": True, "weight_decay": 0.3},
    "adam": {"clip_norm": 0.7},
    "adam, decayed": {"weight_decay": 0.5},
    "adamw": {"optimizer": "adamw"},
    "adamw, none": {"optimizer": "adamw", "weight_decay": 0.0, "clip_norm": 100.0},
    "rmsprop": {"optimizer": "rmsprop", "weight_decay": 0.1, "epsilon": 1e-5},
    "accumulated": {"optimizer": "sgd", "momentum": 0.9, "accumulation": 3, "clip_norm": 2.0},
    "all": {
        "optimizer": "adamw",
        "weight_decay": 0.2,
        "accumulation": 2,
        "ema_momentum": 0.7,
        "clip_norm": 1.5,
    },
    "averaged": {"optimizer": "sgd", "ema_momentum": 0.9},
}


def applying(made: Any, held: list[Any]) -> Any:
    """Applies gradients as `fit` does."""
    if keras.backend.backend() != "jax":
        return lambda given: made.apply([keras.ops.convert_to_tensor(g) for g in given], held)
    import jax

    step = jax.jit(made.stateless_apply)

    def apply(given: list[np.ndarray]) -> None:
        now = step([v.value for v in made.variables], given, [v.value for v in held])
        for variables, values in zip((held, made.variables), now, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    return apply


@pytest.mark.parametrize("name", CASES)
def test_every_update_is_what_its_formula_says(name):
    recipe = Recipe(learning_rate=0.05, **CASES[name])
    held = variables()
    made = optimizers.build(recipe, held, steps_per_epoch=10)
    apply = applying(made, held)
    reference = Reference(recipe, [np.asarray(v) for v in held])
    for step in range(STEPS):
        apply(gradients(step))
        reference.add(gradients(step))
        for variable, wanted in zip(held, reference.weights, strict=True):
            np.testing.assert_allclose(np.asarray(variable), wanted, rtol=2e-5, atol=1e-5)
    if recipe.ema_momentum:
        for _ in range(recipe.accumulation - 1 - STEPS % recipe.accumulation):
            # The last batch before the next update completes the average of the last one.
            apply(gradients(0))
        wanted = reference.average
        for variable, mean in zip(made._model_variables_moving_average, wanted, strict=True):
            np.testing.assert_allclose(np.asarray(variable), mean, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0, [1, 1, 1, 1]),
        ("constant", 1, [0.25, 1, 1, 1]),
        ("cosine", 0, [1, 0.8535534, 0.5, 0.1464466]),
        ("cosine", 2, [0.125, 0.5625, 1, 0.5]),
    ],
)
def test_the_learning_rate_follows_its_schedule(schedule, warmup, expected):
    recipe = Recipe(epochs=4, learning_rate=1.0, schedule=schedule, warmup=warmup)
    rate: Any = optimizers.learning_rate(recipe, steps_per_epoch=4)
    rates = [rate if isinstance(rate, float) else float(rate(step)) for step in (0, 4, 8, 12)]
    assert rates == pytest.approx(expected, rel=1e-5)


SMALL: dict[str, Any] = {"size": (8, 8), "batch": 2, "epochs": 2, "model": UNet(filters=(2, 3))}


def batch(seed: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 2, (images, 8, 8, 1), np.uint8)
    mask[:, 0] = 255
    return rng.integers(0, 256, (images, 8, 8, 3), np.uint8), mask


@pytest.mark.parametrize("accumulation", [2, 3])
def test_batches_that_are_accumulated_are_one_larger_batch(accumulation):
    keras.utils.set_random_seed(0)
    many = train.compiled(
        Recipe(**SMALL, accumulation=accumulation, clip_norm=0.01), steps_per_epoch=9, xla=False
    )
    one = train.compiled(Recipe(**SMALL, clip_norm=0.01), steps_per_epoch=3, xla=False)
    one.set_weights(many.get_weights())
    first = many.get_weights()
    for step in range(2):
        image, mask = batch(step, 2 * accumulation)
        for i in range(accumulation):
            between = many.get_weights()
            many.train_on_batch(image[2 * i : 2 * i + 2], mask[2 * i : 2 * i + 2])
            if i < accumulation - 1:
                assert all(map(np.array_equal, between, many.get_weights()))
        one.train_on_batch(image, mask)
    for a, b, before in zip(many.get_weights(), one.get_weights(), first, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)
        assert not np.array_equal(a, before)


def test_averaged_weights_are_in_the_model_only_where_asked_for():
    network = train.compiled(Recipe(**SMALL, ema_momentum=0.5), steps_per_epoch=9, xla=False)
    for step in range(3):
        network.train_on_batch(*batch(step, 2))
    own = network.get_weights()
    means = [np.asarray(v) for v in network.optimizer._model_variables_moving_average]
    with optimizers.averaged(network):
        assert all(map(np.array_equal, network.get_weights(), means))
    assert not all(map(np.array_equal, means, own))
    assert all(map(np.array_equal, network.get_weights(), own))
    plain = train.compiled(Recipe(**SMALL), steps_per_epoch=9, xla=False)
    before = plain.get_weights()
    with optimizers.averaged(plain):
        assert all(map(np.array_equal, plain.get_weights(), before))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"momentum": 0.9}, "momentum is 0.9; it must be 0 but with sgd"),
        ({"optimizer": "sgd", "momentum": 1.0}, r"momentum is 1.0; it must be in \[0, 1\)"),
        ({"optimizer": "sgd", "nesterov": True}, "nesterov is True; it must be with momentum"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0"),
        ({"accumulation": 0}, "accumulation is 0"),
        ({"ema_momentum": 1.0}, "ema_momentum is 1.0"),
    ],
)
def test_settings_that_an_optimizer_does_not_have_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        Recipe(**changes)

"""The optimizer of a recipe: learning rate, decay, clipping, accumulation, averaged weights.

All of it is Keras's own, and all state is in the optimizer's variables, which a checkpoint holds.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from unet.recipes import Recipe


def build(recipe: Recipe, variables: list[Any], *, steps_per_epoch: int) -> Any:
    """Makes the optimizer of a recipe, with all its variables.

    Weight decay is decoupled, whatever the optimizer: before each update a weight loses this share,
    times the learning rate. Only kernels lose it; biases, scales and offsets, which have one
    dimension, do not. Where gradients are accumulated, the schedule counts batches, and the moving
    average has the stated momentum for each update.

    Args:
        recipe: The recipe.
        variables: The trainable variables of its model.
        steps_per_epoch: Batches in an epoch, the unit of the schedule.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019; Pascanu,
        Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
        for the norm of all gradients; Polyak and Juditsky, "Acceleration of stochastic
        approximation by averaging", 1992.
    """
    kind: Any = type(keras.optimizers.get(recipe.optimizer))
    own: dict[str, Any] = {"epsilon": recipe.epsilon}
    if recipe.optimizer == "sgd":
        own = {"momentum": recipe.momentum, "nesterov": recipe.nesterov}
    if recipe.weight_decay is not None:
        own["weight_decay"] = recipe.weight_decay
    batches = recipe.accumulation
    made = kind(
        learning_rate(recipe, steps_per_epoch=steps_per_epoch),
        global_clipnorm=recipe.clip_norm,
        gradient_accumulation_steps=batches if batches > 1 else None,
        use_ema=recipe.ema_momentum > 0,
        # Keras averages at each batch, also where it does not update.
        ema_momentum=recipe.ema_momentum ** (1 / batches),
        **own,
    )
    made.exclude_from_weight_decay([v for v in variables if len(v.shape) < 2])
    # At the end of each `fit` Keras would put the averages in the place of the weights; a run that
    # was resumed has one `fit` more.
    made.finalize_variable_values = _leave
    made.build(variables)
    return made


def learning_rate(recipe: Recipe, *, steps_per_epoch: int) -> Any:
    """The learning rate of each step: a number, or a schedule that Keras can save.

    Args:
        recipe: Highest rate, schedule, epochs and epochs of warm-up.
        steps_per_epoch: Batches in an epoch.

    Returns:
        float, or a `keras.optimizers.schedules.LearningRateSchedule`.
    """
    highest, warmup = recipe.learning_rate, round(recipe.warmup * steps_per_epoch)
    if recipe.schedule == "constant" and not warmup:
        return highest
    return keras.optimizers.schedules.CosineDecay(
        highest / warmup if warmup else highest,
        max(recipe.epochs * steps_per_epoch - warmup, 1),
        alpha=1.0 if recipe.schedule == "constant" else 0.0,
        warmup_target=highest if warmup else None,
        warmup_steps=warmup,
    )


@contextlib.contextmanager
def averaged(network: Any) -> Iterator[None]:
    """The model has its averaged weights, where the optimizer keeps such; afterwards its own.

    Running means of batch normalisation are averages already, and stay.
    """
    optimizer = getattr(network.optimizer, "inner_optimizer", network.optimizer)
    if not optimizer.use_ema:
        yield
        return
    variables = network.trainable_variables
    own = _values(variables)
    # JAX would give away the averages' own memory with that of the weights when these predict.
    _assign(variables, _values(optimizer._model_variables_moving_average))
    try:
        yield
    finally:
        _assign(variables, own)


def _values(variables: list[Any]) -> list[Any]:
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def _assign(variables: list[Any], values: list[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _leave(variables: list[Any]) -> None:
    """Leaves the weights as they are."""

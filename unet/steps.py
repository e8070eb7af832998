"""A network, and one step of its training, for a loop of one's own.

A step does what one of `unet train` does: the mean over a batch of a loss of `unet.losses`, its
gradient, dropout, running means, the optimizer with its schedule, clipping and averages. On JAX it
is a pure function; on TensorFlow it changes the variables in place, and gives them back.
"""

# Keras ships no stubs: a checker takes what its ops return for None.
# pyright: reportOptionalMemberAccess=false

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from unet import hardware, model, recipes
from unet.losses import Loss
from unet.model import FCN, UNet
from unet.recipes import Recipe


class Variables(NamedTuple):
    """What a step changes: on JAX arrays, on TensorFlow the variables themselves."""

    trainable: list[Any]
    """The weights."""

    other: list[Any]
    """Running means of batch normalisation, and seeds of dropout."""

    optimizer: list[Any]
    """Of the optimizer: its step, moments and averages."""

    @classmethod
    def of(cls, network: Any, optimizer: Any) -> "Variables":
        """Those of a network and its optimizer, which gets its own where it has none."""
        _build(optimizer, network)
        every = (network.trainable_variables, network.non_trainable_variables, optimizer.variables)
        if keras.backend.backend() == "jax":
            return cls(*([variable.value for variable in group] for group in every))
        return cls(*map(list, every))

    def put_into(self, network: Any, optimizer: Any) -> None:
        """Gives a network and its optimizer these values; on TensorFlow they have them already."""
        own = (network.trainable_variables, network.non_trainable_variables, optimizer.variables)
        for group, values in zip(own, self, strict=True):
            for variable, value in zip(group, values, strict=True):
                if variable is not value:
                    variable.assign(value)


Step = Callable[[Variables, Any, Any], tuple[Variables, Any]]
"""From variables, images and masks to variables and the loss, a number on the device."""


def build(what: UNet | FCN | Recipe | str) -> Any:
    """Builds a network with fresh weights, under Keras's current precision policy.

    `keras.utils.set_random_seed` decides the weights.

    Args:
        what: Settings of a network, a recipe, or a recipe's name: one of `unet.RECIPES`.

    Returns:
        A Keras model from uint8 [B, H, W, 3], H and W multiples of the settings' `stride`, to
        logits float32 [B, H, W, C]; with a linear head to the numbers themselves. XLA compiles it
        where that is faster on this machine.

    Raises:
        ValueError: If there is no such recipe, activation or initializer, or Keras runs on neither
            TensorFlow nor JAX.
    """
    recipe = recipes.named(what) if isinstance(what, str) else what
    network: Any = model.build(recipe.model if isinstance(recipe, Recipe) else recipe)
    network.jit_compile = hardware.choose().compile
    return network


def train_step(network: Any, optimizer: Any, loss: Loss) -> Step:
    """One step of training, compiled.

    Args:
        network: From `build`, or any Keras model from images to logits.
        optimizer: A Keras optimizer; not shared with another network. Under mixed_float16 a
            `keras.optimizers.LossScaleOptimizer`.
        loss: One of `unet.losses`, or a function of masks uint8 [B, H, W, 1] and logits float32
            [B, H, W, C] to float32 [B].

    Returns:
        A function `step(variables, image, mask)` of what `Variables.of` gives, images uint8
        [B, H, W, 3] and masks uint8 [B, H, W, 1], of NumPy or the backend, to the variables after
        the step and the mean loss before it, float32 []. On JAX it is pure, so that `jax.jit` with
        `donate_argnums=0`, sharding and `jax.lax.scan` work on it; the network has its old values
        until `Variables.put_into`. On TensorFlow it updates them in place.

    Raises:
        ValueError: If Keras runs on neither TensorFlow nor JAX; from the step on TensorFlow, if the
            variables are of another network or optimizer.
    """
    hardware.detect()
    _build(optimizer, network)
    kind = _pure if keras.backend.backend() == "jax" else _in_place
    return kind(network, optimizer, loss)


def _build(optimizer: Any, network: Any) -> None:
    if not optimizer.built:
        optimizer.build(network.trainable_variables)


def _pure(network: Any, optimizer: Any, loss: Loss) -> Step:
    import jax

    def forward(trainable: Any, other: Any, state: Any, image: Any, mask: Any) -> Any:
        logits, other = network.stateless_call(trainable, other, image, training=True)
        value: Any = ops.mean(loss(mask, logits))
        with keras.StatelessScope(list(zip(optimizer.variables, state, strict=True))):
            return optimizer.scale_loss(value), (value, other)  # of float16

    def step(variables: Variables, image: Any, mask: Any) -> tuple[Variables, Any]:
        slopes, (value, other) = jax.grad(forward, has_aux=True)(*variables, image, mask)
        trainable, state = optimizer.stateless_apply(
            variables.optimizer, slopes, variables.trainable
        )
        return Variables(trainable, other, state), value

    return jax.jit(step)


def _in_place(network: Any, optimizer: Any, loss: Loss) -> Step:
    import tensorflow as tf

    own, weights = Variables.of(network, optimizer), network.trainable_variables

    @tf.function(jit_compile=bool(network.jit_compile), reduce_retracing=True)
    def update(image: Any, mask: Any) -> Any:
        with tf.GradientTape() as tape:
            value = ops.mean(loss(mask, network(image, training=True)))
            scaled = optimizer.scale_loss(value)
        optimizer.apply_gradients(zip(tape.gradient(scaled, weights), weights, strict=True))
        return value

    def step(variables: Variables, image: Any, mask: Any) -> tuple[Variables, Any]:
        if [id(x) for group in own for x in group] != [id(x) for group in variables for x in group]:
            raise ValueError(
                "variables: on TensorFlow a step changes those of its own network and optimizer; "
                "give what Variables.of(network, optimizer) returns."
            )
        return variables, update(image, mask)

    return step

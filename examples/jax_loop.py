"""A loop of one's own in JAX: `python examples/jax_loop.py PACKED.json`.

The file is what `segdata.pack` made: this process needs neither TensorFlow nor TFDS. On an
accelerator the records lie in its memory and each batch is made there.
"""

import argparse

import jax
import jax.numpy as jnp

from segdata.adapters.jax import training
from segdata.core import records
from segdata.core.augment import Augment
from segdata.core.stream import Stream

parser = argparse.ArgumentParser()
parser.add_argument("packed", help="a manifest, beside the dataset in its folder `packed`")
parser.add_argument("--epochs", type=int, default=2)
asked = parser.parse_args()

augment = Augment(horizontal_flip=0.5, quarter_turns=True, contrast_range=(0.8, 1.25))
stream = Stream(records.load(asked.packed), batch=8, augment=augment, seed=0)


def logits(weights, image):
    """A small network: [B, H, W, 3] bytes to [B, H, W]."""
    x = image.astype(jnp.float32) / 255
    for number, kernel in enumerate(weights):
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = x if number == len(weights) - 1 else jax.nn.relu(x)
    return x[..., 0]


def loss_of(weights, image, mask):
    """Binary cross-entropy over the pixels that are not of the ignore label."""
    known, truth = mask[..., 0] != 255, mask[..., 0] == 1
    signed = jnp.where(truth, -1.0, 1.0) * logits(weights, image)
    return jnp.sum(jax.nn.softplus(signed) * known) / jnp.maximum(jnp.sum(known), 1)


@jax.jit
def step(weights, image, mask):
    """One step of gradient descent."""
    loss, slopes = jax.value_and_grad(loss_of)(weights, image, mask)
    return loss, [weight - 0.3 * slope for weight, slope in zip(weights, slopes, strict=True)]


keys = jax.random.split(jax.random.key(0), 2)
shapes = ((3, 3, 3, 16), (3, 3, 16, 1))
weights = [0.2 * jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]
for epoch in range(asked.epochs):
    losses = []
    for image, mask in training(
        stream, start_step=epoch * stream.steps_per_epoch, steps=stream.steps_per_epoch
    ):
        loss, weights = step(weights, image, mask)
        losses.append(loss)
    print(f"epoch {epoch}: loss {jnp.stack(losses).mean():.4f}")

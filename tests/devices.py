"""Trains on three virtual devices of the CPU; a process of test_devices for each backend.

It writes what was left on one device and on several: of 20 steps, all variables and the loss of
each; of runs, their history and last checkpoint; and how many rows of a batch each device has.
"""

import itertools
import os
import pathlib
import pickle
import sys
import types
from typing import Any

if __name__ == "__main__":  # before Keras is imported
    os.environ["KERAS_BACKEND"] = sys.argv[1]
    os.environ["XLA_FLAGS"] = (  # three devices, and a compiler that hurries
        "--xla_force_host_platform_device_count=3 --xla_backend_optimization_level=0 "
        "--xla_llvm_disable_expensive_passes=true"
    )

import keras
import numpy as np

from unet import hardware, losses, parallel, runs, train
from unet.model import UNet
from unet.recipes import Recipe

SIZE, STEPS = (12, 8), 20
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "moments and dropout": (
        3,
        {
            "model": UNet(filters=(3, 4), batch_norm=True, dropout=(0.3,)),
            # Biases before the normalisation have a gradient of rounding errors alone, which Adam
            # would make as large as all others.
            "optimizer": "sgd",
            "momentum": 0.9,
        },
    ),
    "the batch as a whole": (
        2,
        {"loss": "batch_dice", "accumulation": 3, "ema_momentum": 0.9, "clip_norm": 0.05},
    ),
    "classes": (
        2,
        {
            "model": UNet(filters=(3, 4), output_channels=3, output_activation="softmax"),
            "loss": "focal",
            "class_weights": (0.5, 1.0, 3.0),
            "boundary_weight": 0.01,
            "epsilon": 1e-3,  # or Adam makes gradients of rounding errors as large as all others
        },
    ),
}


def recipe(**changes: Any) -> Recipe:
    usual: dict[str, Any] = {
        "size": SIZE,
        "batch": 6,
        "epochs": 2,
        "model": UNet(filters=(3, 4)),
        "loss": "cross_entropy_dice",
        "learning_rate": 0.01,
        "schedule": "cosine",
        "warmup": 0.2,
        "weight_decay": 0.01,
    }
    return Recipe(**usual | changes)


def batch(step: int, *, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Images of unlike masks: empty, partly and hardly labelled ones; 6 in a batch."""
    rng = np.random.default_rng((1, step))
    mask = rng.integers(0, classes, (6, 6, 4, 1), np.uint8).repeat(2, 1).repeat(2, 2)
    image = mask * 60 + rng.integers(0, 130, (6, *SIZE, 3), np.uint8)
    mask[:2] = 0
    mask[:, 0] = 255
    ignored = np.array([0.2, 0.9, 1.0]).reshape(3, 1, 1, 1)
    mask[3:] = np.where(rng.random((3, *SIZE, 1)) < ignored, 255, mask[3:])
    return image.astype(np.uint8), mask


def trained(chosen: Recipe, devices: int) -> list[np.ndarray]:
    """What a training leaves, the losses of its steps last."""
    seen: list[float] = []
    log = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda _, logs: seen.append(logs["loss"])
    )
    classes = max(chosen.model.output_channels, 2)
    keras.utils.set_random_seed(0)
    with parallel.scope(devices):
        xla = keras.backend.backend() == "jax"
        network = train.compiled(chosen, steps_per_epoch=STEPS, xla=xla, devices=devices)
        stream = _stream(classes=classes)
        network.fit(stream, steps_per_epoch=STEPS, verbose=0, callbacks=[log])
    variables = [*network.variables, *network.optimizer.variables, *network.metrics_variables]
    left: Any = map(keras.ops.convert_to_numpy, variables)
    return [*left, np.array(seen, np.float64)]


def run(out: pathlib.Path, *, first: int, then: int | None = None) -> tuple[Any, dict[str, Any]]:
    """A whole run on some devices, or one killed within its second epoch and resumed on others.

    Returns:
        Its history, and all arrays of its last checkpoint.
    """
    chosen = recipe(batch=6, model=UNet(filters=(3, 4), dropout=(0.3,)), clip_norm=0.5)
    data: Any = types.SimpleNamespace(
        batches=lambda start: map(batch, itertools.count(start)),
        validation=[batch(10_000), [part[:5] for part in batch(10_001)]],
        steps_per_epoch=10,
        account=lambda _: {},
    )
    settings = [
        runs.Settings(
            recipe=chosen,
            choice=hardware.Choice(
                hardware="test",
                precision="float32",
                compile=keras.backend.backend() == "jax",
                devices=devices,
            ),
            checkpoint_minutes=0,
        )
        for devices in (first, then or first)
    ]
    real = train._Keeper.on_train_batch_end

    def dies(self: Any, number: int, logs: Any = None) -> None:
        real(self, number, logs)
        if then is not None and self.state.step == 14:
            raise InterruptedError

    try:
        train._Keeper.on_train_batch_end = dies
        train.run(settings[0], data=data, out=out)
    except InterruptedError:
        assert runs.state(out).step in (13, 14)  # the last one was being written
    finally:
        train._Keeper.on_train_batch_end = real
    state = train.resume(out, data=data, settings=settings[1])
    with np.load(out / str(state.checkpoint)) as held:
        return state.history, {name: held[name] for name in held.files if name != "state"}


def main(out: pathlib.Path) -> None:
    found: dict[Any, Any] = {}
    for name, (devices, changes) in CASES.items():
        chosen = recipe(**changes)
        found[name] = trained(chosen, 1), trained(chosen, devices)
    for first, then in ((1, None), (1, 2), (3, 1)):
        found[first, then] = run(out.parent / f"run-{first}-{then}", first=first, then=then)
    found |= {("rows", count): rows(count) for count in (1, 2, 3)}
    out.write_bytes(pickle.dumps(found))


def rows(count: int) -> list[int]:
    """How many rows of a batch each of some devices has."""
    is_jax, held = keras.backend.backend() == "jax", list[int]()
    real = losses.chosen

    def on_jax(mask: Any) -> None:
        import jax

        def note(sharding: Any) -> None:
            held[:] = [sharding.shard_shape(mask.shape)[0]] * len(sharding.device_set)

        jax.debug.inspect_array_sharding(mask, callback=note)

    def on_tensorflow(mask: Any) -> None:
        import tensorflow as tf

        def note(images: np.ndarray) -> np.ndarray:
            held.append(int(images))
            return images

        tf.numpy_function(note, [tf.shape(mask)[0]], tf.int32)

    def counting(**settings: Any) -> Any:
        def loss(mask: Any, logits: Any) -> Any:
            (on_jax if is_jax else on_tensorflow)(mask)
            return real(**settings)(mask, logits)

        return loss

    try:
        losses.chosen = counting
        with parallel.scope(count):
            network = train.compiled(recipe(), steps_per_epoch=STEPS, xla=is_jax, devices=count)
            network.fit(_stream(), steps_per_epoch=1, verbose=0)
    finally:
        losses.chosen = real
    return held


def _stream(**given: Any) -> Any:
    return (batch(step, **given) for step in itertools.count())


if __name__ == "__main__":
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        three = [tf.config.LogicalDeviceConfiguration()] * 3
        tf.config.set_logical_device_configuration(cpu, three)
    main(pathlib.Path(sys.argv[2]))

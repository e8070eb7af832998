"""One row, in its own process: a recipe on a backend."""

import dataclasses
import itertools
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from unet.recipes import RECIPES, Recipe

_RECORDS = 64
_SIDE = 2048  # of the matrices whose product gives the peak
_LEAST = 3  # steps in a window


def measured(
    *,
    recipe: str,
    backend: str,
    precision: str,
    seconds: float,
    size: list[int] | None,
    batch: int | None,
    begun: float,
) -> dict[str, Any]:
    """Images a second of training, the machine's peak, and the seconds to the first step."""
    settings = RECIPES[recipe]
    changes: dict[str, Any] = {"size": tuple(size)} if size else {}
    if batch:
        changes["batch"] = batch
    if not settings.dataset:
        changes["dataset"] = "drawn"
    settings = dataclasses.replace(settings, **changes)
    with tempfile.TemporaryDirectory() as folder:
        one = _torch if backend == "torch" else _keras
        found = one(settings, pathlib.Path(folder), precision, seconds, begun)
    return {"shape": settings.size, "images": settings.batch, **found}


def _keras(
    recipe: Recipe, folder: pathlib.Path, precision: Any, seconds: float, begun: float
) -> dict[str, Any]:
    import keras

    from unet import hardware, train

    hardware.prepare_environment()
    choice = hardware.choose(precision)
    hardware.apply(choice)
    network: Any = train.compiled(recipe, steps_per_epoch=100, xla=choice.compile)
    batches = _stream(recipe, folder)
    batch = next(iter(batches(0)))
    network.train_on_batch(*batch)
    first_step = time.time() - begun
    whole = tuple(np.asarray(part) for part in batch)
    sources: dict[str, Callable[[int], Any]] = {
        "fixed": lambda _: _repeated(whole),
        "stream": lambda step: batches(step),
    }
    rates: dict[str, list[float]] = {name: [] for name in sources}
    step, count = 1, _LEAST
    for _, name in itertools.product(range(3), sources):
        data = sources[name](step)
        given = data if hasattr(data, "element_spec") else (pair for pair in data)
        network.fit(given, steps_per_epoch=1, verbose=0, shuffle=False)
        begin = time.monotonic()
        network.fit(given, steps_per_epoch=count, verbose=0, shuffle=False)
        passed = time.monotonic() - begin
        rates[name].append(count * recipe.batch / passed)
        step += count + 1
        count = max(_LEAST, int(count * seconds / passed / 3))
    peak = _peak(keras.backend.backend(), choice.precision)
    best = {name: max(found) for name, found in rates.items()}
    return {**best, "peak": peak, "policy": choice.precision, "first_step": first_step}


def _stream(recipe: Recipe, folder: pathlib.Path) -> Callable[[int], Any]:
    """Augmented batches of drawn images from a step on, as `unet train` takes them."""
    import keras

    from segdata.core import records
    from segdata.core.augment import Augment
    from segdata.core.stream import Stream

    rng = np.random.default_rng(0)
    drawn = (_drawn(recipe, rng) for _ in range(_RECORDS))
    packed = records.write(folder / "drawn.json", drawn, size=recipe.size, source={})
    augment = Augment(**recipe.augment)
    made = Stream(packed, batch=recipe.batch, augment=augment, size=recipe.size)
    if keras.backend.backend() == "jax":
        from segdata.adapters import jax as adapter
    else:
        from segdata.adapters import tf as adapter
    return lambda step: adapter.training(made, start_step=step)


def _drawn(recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """A record: noise with a bright disc, which is the foreground or the last class."""
    height, width = recipe.size
    record = rng.integers(0, 128, (height, width, 4), np.uint8)
    y, x = np.ogrid[:height, :width]
    is_inside = (y - height / 2) ** 2 + (x - width / 2) ** 2 < min(height, width) ** 2 / 9
    record[..., :3] += is_inside[..., None] * np.uint8(120)
    record[..., 3] = is_inside * np.uint8(max(recipe.model.output_channels - 1, 1))
    return record


def _repeated(batch: tuple[np.ndarray, ...]) -> Any:
    """One batch again and again, in the way that the backend takes fastest."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return itertools.repeat(jax.device_put(batch))
    import tensorflow as tf

    return tf.data.Dataset.from_tensors(batch).repeat()


def _peak(backend: str, policy: str) -> float:
    """Multiplications and additions a second of a large product, by the backend itself."""
    side = _SIDE
    kind = {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}.get(policy, "float32")
    if backend == "jax":
        import jax

        if jax.default_backend() != "cpu":
            side *= 4
        one = jax.numpy.ones((side, side), kind)
        product = jax.jit(lambda a: a @ a)
        return _fastest(lambda: product(one).block_until_ready(), side)
    if backend == "torch":
        import torch

        many = torch.ones(side, side, dtype=getattr(torch, kind))
        return _fastest(lambda: many @ many, side)
    import tensorflow as tf

    whole = tf.ones((side, side), kind)
    return _fastest(lambda: tf.linalg.matmul(whole, whole).numpy(), side)


def _fastest(product: Callable[[], Any], side: int) -> float:
    seconds = []
    for _ in range(12):
        begin = time.monotonic()
        product()
        seconds.append(time.monotonic() - begin)
    return 2 * side**3 / min(seconds)


def _torch(
    recipe: Recipe, folder: pathlib.Path, precision: str, seconds: float, begun: float
) -> dict[str, Any]:
    import torch
    from torch_unet import Network

    rng = np.random.default_rng(0)
    whole = np.stack([_drawn(recipe, rng) for _ in range(recipe.batch)])
    image = torch.from_numpy(whole[..., :3].copy()).permute(0, 3, 1, 2)
    mask = torch.from_numpy(whole[..., 3].astype(np.int64))
    network: Any = Network(recipe.model)
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    several = torch.nn.CrossEntropyLoss()
    one = torch.nn.BCEWithLogitsLoss()

    def step(policy: str) -> None:
        scaled = (image.float() / 255).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=policy == "mixed_bfloat16"):
            logits = network(scaled).float()
        optimizer.zero_grad(set_to_none=True)
        is_one = logits.shape[1] == 1
        loss = one(logits[:, 0], mask.float()) if is_one else several(logits, mask)
        loss.backward()
        optimizer.step()

    def rate(policy: str) -> float:
        rates, count = [], _LEAST
        for _ in range(3):
            begin = time.monotonic()
            for _ in range(count):
                step(policy)
            passed = time.monotonic() - begin
            rates.append(count * recipe.batch / passed)
            count = max(_LEAST, int(count * seconds / passed / 3))
        return max(rates)

    step("float32")
    first_step = time.time() - begun
    fixed, policy = max((rate(policy), policy) for policy in ("float32", "mixed_bfloat16"))
    peak = _peak("torch", policy)
    return {"fixed": fixed, "peak": peak, "policy": policy, "first_step": first_step}

"""The learning-rate range test: at which rates a model learns, and from which on it diverges."""

import dataclasses
import math
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from segdata.core.system import files
from segdata.inspection import charts, page
from unet import parallel, pretrained, train
from unet.runs import Settings

_KEPT = 0.9  # of the smoothed loss, from one rate to the next
_DIVERGED = 4.0  # times the lowest smoothed loss, or times the first where that is below 0
_WINDOW = 5  # rates on either side of one that its slope is taken over


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a range test found; each list has a value a rate."""

    rates: list[float]
    """Learning rates, rising by the same factor."""

    losses: list[float]
    """The loss of a batch, or of all that are accumulated, before the update."""

    smoothed: list[float]
    """Their moving average, without the bias of its first values."""

    diverged: bool
    """Whether it ended because the loss rose far above its lowest."""

    @property
    def suggestion(self) -> float | None:
        """The rate at which the smoothed loss falls fastest; None where it never falls.

        Its first values, means of few batches, are left out: they fall where these differ.
        """
        lowest = int(np.argmin(self.smoothed))
        slopes = {i: self._slope(i) for i in range(2 * _WINDOW, lowest + 1)}
        best = min(slopes, key=slopes.__getitem__, default=None)
        return None if best is None or slopes[best] >= 0 else self.rates[best]

    @property
    def lowest(self) -> float:
        """The rate at which the smoothed loss is lowest."""
        return self.rates[int(np.argmin(self.smoothed))]

    def _slope(self, i: int) -> float:
        """By least squares, of the smoothed loss by the logarithm of the rate."""
        near = slice(i - _WINDOW, i + _WINDOW + 1)
        values = self.smoothed[near]
        return float(np.polyfit(np.log(self.rates[near]), values, 1)[0])


def sweep(
    settings: Settings, data: train.Data, *, lowest: float, highest: float, steps: int
) -> Sweep:
    """Trains fresh weights for some steps at a learning rate that rises exponentially.

    Stops where the smoothed loss is no number, or four times its lowest value. Nothing is written.

    Args:
        settings: Of a training; its schedule and averaging are left out.
        data: What it would be trained on.
        lowest: The first rate.
        highest: The last rate.
        steps: How many rates; one update each.

    Raises:
        ValueError: If rates or steps do not fit, or model and data do not.

    Source: Smith, "Cyclical learning rates for training neural networks", WACV 2017, section 3.3;
        the exponential rise, the smoothing and the rule to stop are of Gugger, "How do you find a
        good learning rate", 2018.
    """
    for allowed, name, value, what in (
        (0 < lowest < highest, "lowest", lowest, f"above 0 and below highest, {highest}"),
        (highest < math.inf, "highest", highest, "a number"),
        (steps > 2 * _WINDOW, "steps", steps, f"more than {2 * _WINDOW}"),
    ):
        if not allowed:
            raise ValueError(f"--{name} {value}: it must be {what}.")
    train.prepare(settings)
    recipe = dataclasses.replace(
        settings.recipe, schedule="constant", warmup=0.0, ema_momentum=0.0, learning_rate=lowest
    )
    xla, devices = settings.choice.compile, settings.choice.devices
    with parallel.scope(devices):
        network = train.compiled(
            recipe, steps_per_epoch=data.steps_per_epoch, xla=xla, devices=devices
        )
        pretrained.load(network, settings)
        stream = iter(data.batches(0))
        train.require_fit(network, next(stream), data.validation, recipe)
        rates = np.geomspace(lowest, highest, steps).tolist()
        return _swept(network, data.batches(0), rates, batches=recipe.accumulation)


def write(path: pathlib.Path, found: Sweep, *, title: str) -> None:
    """Writes a range test as a page; a link, a pipe or a device is written to and stays.

    Raises:
        OSError: If it cannot be written.
    """
    picture = charts.rates(
        "Loss",
        found.rates,
        {"smoothed": found.smoothed, "of each batch": found.losses},
        marked=found.suggestion,
    )
    body = f'<div class="cards">{picture}</div>'
    files.write(path, page.document(title, lead=said(found), body=body).encode())


def said(found: Sweep) -> str:
    """What a range test found, in words."""
    if found.suggestion is None:
        return (
            f"The loss did not fall between {found.rates[0]:.1e} and {found.rates[-1]:.1e}: try "
            "other rates, or more steps."
        )
    if not found.diverged and found.rates.index(found.suggestion) >= len(found.rates) - _WINDOW:
        return (
            f"The loss still falls fastest at the last rates, up to {found.rates[-1]:.1e}: try a "
            f"--highest of {100 * found.rates[-1]:.1g}."
        )
    end = "diverges above" if found.diverged else "had not diverged by"
    return (
        f"The loss falls fastest at a learning rate of {found.suggestion:.1e}, is lowest at "
        f"{found.lowest:.1e} and {end} {found.rates[-1]:.1e}. Try --learning_rate "
        f"{found.suggestion:.1e}; with a warm-up and a cosine up to {found.lowest / 3:.1e}."
    )


def _swept(network: Any, stream: Iterable[Any], rates: list[float], *, batches: int) -> Sweep:
    given, losses, smoothed, total = iter(stream), list[float](), list[float](), 0.0
    for rate in rates:
        network.optimizer.learning_rate = rate
        each = (network.train_on_batch(*next(given), return_dict=True) for _ in range(batches))
        loss = float(np.mean([logs["loss"] for logs in each]))
        total = _KEPT * total + (1 - _KEPT) * loss
        mean = total / (1 - _KEPT ** (len(losses) + 1))
        if not (losses or math.isfinite(loss)):
            raise ValueError(
                f"the loss is {loss} at the first step, before anything was learned: the data or "
                "first weights hold what is no number."
            )
        if not math.isfinite(loss) or (smoothed and mean > _far(smoothed)):
            return Sweep(rates[: len(losses)], losses, smoothed, diverged=True)
        losses.append(loss)
        smoothed.append(mean)
    return Sweep(rates, losses, smoothed, diverged=False)


def _far(smoothed: list[float]) -> float:
    lowest = min(smoothed)
    return _DIVERGED * (lowest if lowest > 0 else abs(smoothed[0]))

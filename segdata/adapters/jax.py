"""Batches as arrays of JAX.

Two engines make equal bytes. "host" makes them on the host's cores and hands them over. "device"
keeps the records in the device's memory and makes each batch there, so that an epoch costs the host
next to nothing; only the plan is sent, many steps at a time.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from segdata.adapters import expressions
from segdata.core import plan
from segdata.core.stream import Stream

ENGINES = ("auto", "host", "device")
_SHARE = 0.5  # of a device's memory that records may take unasked
_AHEAD = 64  # steps whose plan is sent at once


def training(
    stream: Stream,
    *,
    start_step: int = 0,
    steps: int | None = None,
    engine: str = "auto",
    device: Any = None,
) -> Iterator[tuple[jax.Array, jax.Array]]:
    """The batches of a stream.

    Args:
        stream: What they hold.
        start_step: The first.
        steps: How many; without end where None.
        engine: "host", "device", or the one that suits: "device" on an accelerator whose memory
            has room for the records.
        device: Of JAX's; its first where None.

    Returns:
        (image uint8 [B, H, W, 3], mask uint8 [B, H, W, 1]) each, on the device.

    Raises:
        ValueError: If there is no such engine, or a number is out of range.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r}: there are {', '.join(map(repr, ENGINES))}.")
    numbers = stream.steps(start_step, steps)
    device = device or jax.devices()[0]
    if engine == "auto":
        engine = "device" if _has_room(stream, device) else "host"
    if engine == "host":
        batches = stream.batches(start_step, steps)
        # On a CPU this copies nothing: JAX refers to the memory for as long as it needs it.
        return (jax.device_put(batch, device) for batch in batches)
    return _on_device(stream, numbers, device)


def make(stream: Stream) -> Any:
    """The engine of a device, to be compiled into somebody's own train step.

    Returns:
        A function from the table of `table` and the plan of one step, `stream.plan.steps(k)`, to
        image uint8 [B, H, W, 3] and mask uint8 [B, H, W, 1].
    """
    planned = stream.plan

    def batch(records: jax.Array, step: plan.Step) -> tuple[jax.Array, jax.Array]:
        own, partner = step
        words = expressions.render(
            records[own.row],
            records[partner.row] if planned.augment.uses("cutmix") else None,
            own,
            partner,
            augment=planned.augment,
            record=planned.record,
            size=planned.size,
            xp=jnp,
        )
        return expressions.parts(words, jnp)

    return batch


def table(stream: Stream, device: Any = None) -> jax.Array:
    """The records in a device's memory: uint32 [count, h·w]."""
    pixels = stream.records.array()
    return jax.device_put(pixels.reshape(len(pixels), -1).view(np.uint32), device)


def _has_room(stream: Stream, device: Any) -> bool:
    if device.platform == "cpu":
        return False
    room = (device.memory_stats() or {}).get("bytes_limit", 0)
    return stream.records.count * stream.records.stride < _SHARE * room


def _on_device(stream: Stream, steps: range, device: Any) -> Iterator[tuple[jax.Array, jax.Array]]:
    rows, records = stream.plan.rows, table(stream, device)

    @jax.jit
    def batch(records: jax.Array, block: plan.Step, number: jax.Array) -> Any:
        def cut(array: jax.Array) -> jax.Array:
            if not array.shape[0]:  # of what never happens
                return array
            return jax.lax.dynamic_slice_in_dim(array, number * rows, rows)

        return make(stream)(records, jax.tree.map(cut, block))

    for first in range(0, len(steps), _AHEAD):
        numbers = steps[first : first + _AHEAD]
        planned = stream.plan.steps(numbers[0], len(numbers))
        narrow = plan.Step(*(part._replace(row=part.row.astype(np.int32)) for part in planned))
        block = jax.device_put(narrow, device)
        for number in range(len(numbers)):
            yield batch(records, block, number)

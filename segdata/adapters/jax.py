"""Batches as arrays of JAX.

Two engines make equal bytes. "host" makes them on the host's cores and hands them over. "device"
keeps the records in the device's memory and makes each batch there, so that an epoch costs the host
next to nothing; only the plan is sent, many steps at a time.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from segdata.adapters import expressions
from segdata.core import plan
from segdata.core.mixture import Mixture
from segdata.core.records import Records
from segdata.core.stream import Stream, Training, require_training

ENGINES = ("auto", "host", "device")
_SHARE = 0.5  # of a device's memory that records may take unasked
_AHEAD = 64  # steps whose plan is sent at once


def training(
    stream: Training,
    *,
    start_step: int = 0,
    steps: int | None = None,
    engine: str = "auto",
    device: Any = None,
) -> Iterator[tuple[jax.Array, jax.Array]]:
    """The batches of a stream or a mixture.

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
        ValueError: If there is no such engine or device, or a number is out of range.
    """
    require_training(stream)
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r}: there are {', '.join(map(repr, ENGINES))}.")
    numbers = stream.steps(start_step, steps)
    device = jax.devices()[0] if device is None else device
    if not isinstance(device, jax.Device):
        raise ValueError(f"device={device!r:.60} is none of JAX's; jax.devices() lists them.")
    if engine == "auto":
        engine = "device" if _has_room(stream, device) and not stream.then else "host"
    if engine == "host":
        batches = stream.batches(start_step, steps)
        # On a CPU this copies nothing: JAX refers to the memory for as long as it needs it.
        return (jax.device_put(batch, device) for batch in batches)
    if stream.then:
        raise ValueError(
            'then= is a function of NumPy arrays, and engine="device" makes none: call it after.'
        )
    if isinstance(stream, Mixture):
        return _mixed_on_device(stream, numbers, device)
    assert isinstance(stream, Stream)
    return _on_device(stream, numbers, device)


class Table(NamedTuple):
    """Records in a device's memory.

    Attributes:
        words: uint32 [total, h·w] where they are of one size; else uint32 [L].
        places: int32 [total, 3], where each begins, its height and width; of one size, [0, 3].
    """

    words: jax.Array
    places: jax.Array


def make(stream: Stream) -> Any:
    """The engine of a device, to be compiled into somebody's own train step.

    Returns:
        A function from what `table` gives and the plan of one step, `stream.plan.steps(k)`, to
        image uint8 [B, H, W, 3] and mask uint8 [B, H, W, 1].
    """
    planned = stream.plan

    def held(table: Table, part: plan.Parameters) -> expressions.Held:
        if planned.record:
            return expressions.Held(table.words[part.row], *planned.record)
        start, height, width = table.places[part.row].T
        return expressions.Held(table.words, height[:, None, None], width[:, None, None], start)

    def batch(table: Table, step: plan.Step) -> tuple[jax.Array, jax.Array]:
        own, partner = step
        words = expressions.render(
            held(table, own),
            held(table, partner) if planned.augment.uses("cutmix") else None,
            own,
            partner,
            augment=planned.augment,
            size=planned.size,
            xp=jnp,
        )
        return expressions.parts(words, jnp)

    return batch


def table(stream: Stream | Records, device: Any = None) -> Table:
    """The packed file of a stream in a device's memory.

    Raises:
        ValueError: If its records differ in size and are larger than 8 GB together.
    """
    records = stream.records if isinstance(stream, Stream) else stream
    if records.size:
        whole = dataclasses.replace(records, rows=range(records.total)).array()
        words, places = whole.reshape(len(whole), -1).view(np.uint32), np.zeros((0, 3), np.int32)
    else:
        words, index = records.words(), records.index()
        if len(words) >= 1 << 31:
            raise ValueError(
                f"{records.path} is larger than 8 GB, and its records differ in size: "
                'JAX counts in 32 bits. Use engine="host".'
            )
        names = ("start", "height", "width")
        places = np.stack([index[name].astype(np.int32) for name in names], axis=1)
    return Table(jax.device_put(words, device), jax.device_put(places, device))


def _has_room(stream: Training, device: Any) -> bool:
    if device.platform == "cpu":
        return False
    room = (device.memory_stats() or {}).get("bytes_limit", 0)
    return sum(records.path.stat().st_size for records in stream.files) < _SHARE * room


def _on_device(stream: Stream, steps: range, device: Any) -> Iterator[tuple[jax.Array, jax.Array]]:
    rows, records = stream.own, table(stream, device)

    @jax.jit
    def batch(records: Table, block: plan.Step, number: jax.Array) -> Any:
        return make(stream)(records, _cut(block, number, rows))

    for numbers in _blocks(steps):
        planned = stream.plan.steps(numbers[0], len(numbers))
        block = jax.device_put(_narrow(planned), device)
        for number in range(len(numbers)):
            yield batch(records, block, number)


def _mixed_on_device(
    mixture: Mixture, steps: range, device: Any
) -> Iterator[tuple[jax.Array, jax.Array]]:
    """Of each part as many examples as a batch may hold at most, then the rows of the batch."""
    files = {records.path: table(records, device) for records in mixture.files}
    held = [files[part.stream.records.path] for part in mixture.parts]
    tables = jax.device_put([part.table for part in mixture.parts], device)

    @jax.jit
    def batch(held: Any, tables: Any, blocks: Any, rows: jax.Array, number: jax.Array) -> Any:
        made = []
        for part, records, labels, block in zip(mixture.parts, held, tables, blocks, strict=True):
            image, mask = make(part.stream)(records, _cut(block, number, part.most))
            made.append((image, labels[mask]))
        image, mask = (jnp.concatenate(whole) for whole in zip(*made, strict=True))
        return image[rows[number]], mask[rows[number]]

    for numbers in _blocks(steps):
        made, rows = mixture.padded(numbers[0], len(numbers))
        blocks = [
            _narrow(part.stream.plan.of(*part.stream.plan.at(position.reshape(-1))))
            for part, position in zip(mixture.parts, made, strict=True)
        ]
        sent = jax.device_put((blocks, rows.astype(np.int32)), device)
        for number in range(len(numbers)):
            yield batch(held, tables, *sent, number)


def _blocks(steps: range) -> Iterator[range]:
    return (steps[first : first + _AHEAD] for first in range(0, len(steps), _AHEAD))


def _narrow(planned: plan.Step) -> plan.Step:
    """JAX counts in 32 bits."""
    return plan.Step(*(part._replace(row=part.row.astype(np.int32)) for part in planned))


def _cut(block: plan.Step, number: jax.Array, rows: int) -> plan.Step:
    """The plan of one step of a block, each of as many rows."""

    def cut(array: jax.Array) -> jax.Array:
        if not array.shape[0]:  # of what never happens
            return array
        return jax.lax.dynamic_slice_in_dim(array, number * rows, rows)

    return jax.tree.map(cut, block)

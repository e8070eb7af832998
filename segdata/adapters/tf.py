"""Batches as `tf.data.Dataset`s.

Two engines make equal bytes. "host" calls the compiled kernels of `core` and is the fast one on a
CPU. "xla" is a graph that plans and draws by itself and holds the file's name: tf.data service can
send it to workers, and a GPU can run it.
"""

import os
import pathlib
import threading
import types
from collections.abc import Callable
from concurrent import futures
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

from segdata.adapters import expressions
from segdata.core import plan, random
from segdata.core.records import Records
from segdata.core.stream import LARGEST_BATCH, Stream, in_order
from segdata.core.system import arguments, parallel

ENGINES = ("host", "xla")

_XP: Any = types.SimpleNamespace(  # NumPy's functions of tensors
    abs=tf.abs,
    astype=tf.cast,
    clip=tf.clip_by_value,
    concatenate=tf.concat,
    floor_divide=tf.math.floordiv,
    maximum=tf.maximum,
    minimum=tf.minimum,
    reshape=tf.reshape,
    right_shift=tf.bitwise.right_shift,
    stack=tf.stack,
    sum=tf.reduce_sum,
    take=lambda x, places, axis: tf.gather(x, places, axis=axis),
    take_along_axis=lambda x, places, axis: tf.gather(x, places, axis=axis, batch_dims=axis),
    where=tf.where,
    zeros=tf.zeros,
)


def training(stream: Stream, *, start_step: int = 0, engine: str = "host") -> tf.data.Dataset:
    """The endless batches of a stream.

    Args:
        stream: What they hold.
        start_step: The first.
        engine: "host", or "xla" for tf.data service.

    Returns:
        (image uint8 [B, H, W, 3], mask uint8 [B, H, W, 1]).

    Raises:
        ValueError: If there is no such engine, or no such step.
    """
    _require(engine)
    planned, numbers = stream.plan, stream.steps(start_step)
    with tf.device("CPU:0"):  # also where there is a GPU
        if engine == "host":
            return _called(numbers, stream.batch, (planned.rows, *planned.size))
        steps = tf.data.Dataset.range(numbers.start, numbers.stop)
        return _mapped(stream.records, steps, _graph(planned, stream.records))


def evaluation(records: Records, *, batch: int, engine: str = "host") -> tf.data.Dataset:
    """Every record once, in order, as it is; the last batch may be smaller.

    Takes and returns what `training` does.
    """
    _require(engine)
    batch = arguments.integer("batch", batch, least=1, most=LARGEST_BATCH)
    with tf.device("CPU:0"):
        firsts = range(0, records.count, batch)
        if engine == "host":
            return _called(firsts, in_order(records, batch=batch), (None, *records.size))

        def parts(first: tf.Tensor, table: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, ...]:
            pixels = table[first : first + batch, records.lead : -1]
            pixels = tf.bitcast(tf.reshape(pixels, [-1, *records.size]), tf.uint8)
            return pixels[..., :3], pixels[..., 3:]

        numbers = tf.data.Dataset.range(firsts.start, firsts.stop, firsts.step)
        return _mapped(records, numbers, parts)


def _require(engine: str) -> None:
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r}: there are {' and '.join(map(repr, ENGINES))}.")


def _called(
    numbers: range, make: Callable[[int], Any], shape: tuple[int | None, ...]
) -> tf.data.Dataset:
    """Batches of a Python function of a number.

    They are made ahead by threads of our own. TensorFlow asks for one at a time: where its own
    threads call Python, the end of an iterator waits for them, and has once waited for ever.
    """
    ready = _Ahead(make, numbers)

    def call(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # It is a function of its argument, and so iterators over it can be saved.
        image, mask = tf.numpy_function(ready, [number], (tf.uint8, tf.uint8), stateful=False)
        return tf.ensure_shape(image, (*shape, 3)), tf.ensure_shape(mask, (*shape, 1))

    data = tf.data.Dataset.range(numbers.start, numbers.stop, numbers.step)
    return data.map(call)


class _Ahead:
    """A function of the numbers of a range, whose results are made ahead on all cores."""

    def __init__(self, make: Callable[[int], Any], numbers: range):
        self._make, self._numbers = make, numbers
        self._pending: dict[int, futures.Future[Any]] = {}
        self._lock = threading.Lock()
        self._pool = futures.ThreadPoolExecutor(parallel.cores(), thread_name_prefix="segdata")

    def __call__(self, number: Any) -> Any:
        at = self._numbers.index(int(number))
        window = self._numbers[at : at + 1 + 2 * parallel.cores()]
        with self._lock:
            for other in self._pending.keys() - set(window):  # of an iterator that is no more
                self._pending.pop(other).cancel()
            for each in window:
                if each not in self._pending:
                    self._pending[each] = self._pool.submit(self._make, each)
            result = self._pending.pop(int(number))
        return result.result()


def _mapped(
    records: Records, numbers: tf.data.Dataset, make: Callable[..., tuple[tf.Tensor, ...]]
) -> tf.data.Dataset:
    """Batches of a graph over the file and its means, which an iterator maps once."""
    words, means = [records.count, records.stride // 4], [records.count, 3]
    tables = tf.data.Dataset.range(1).flat_map(
        lambda _: tf.data.Dataset.from_tensors(
            (
                _file(records.path, tf.uint32, words),
                _file(records.means_path, tf.int32, means),
            )
        ).repeat()
    )
    tables = tables.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    data = tf.data.Dataset.zip((numbers, tables)).map(
        lambda number, mapped: make(number, *mapped), num_parallel_calls=tf.data.AUTOTUNE
    )
    return data.prefetch(tf.data.AUTOTUNE)


def _file(path: pathlib.Path, dtype: tf.DType, shape: list[int]) -> tf.Tensor:
    """A file as a tensor, memory-mapped, which is the name of it in a graph."""
    tensor = tf.raw_ops.ImmutableConst(
        dtype=dtype, shape=shape, memory_region_name=os.fspath(path.absolute())
    )
    # Else TensorFlow 2.21 takes it for a constant and copies all of it to memory, once for each
    # iterator: it leaves alone what has this attribute, which by itself does nothing.
    leave = attr_value_pb2.AttrValue(list=attr_value_pb2.AttrValue.ListValue())
    tensor.op._set_attr("_scoped_allocator", leave)
    return tensor


def _graph(planned: plan.Plan, records: Records) -> Callable[..., tuple[tf.Tensor, ...]]:
    """From a step, the file and its means to a batch.

    Two compiled functions, not one: XLA would fuse what is drawn for an example into the loops over
    its pixels and draw it again for each of them.
    """
    augment, area = planned.augment, records.size[0] * records.size[1]

    @tf.function(jit_compile=True, autograph=False)
    def numbers(step: tf.Tensor, means: tf.Tensor) -> tuple[plan.Parameters, plan.Parameters]:
        row, epoch = _order(planned, step)
        seed = tf.constant(random.u64(planned.seed))

        def parameters(row: tf.Tensor) -> plan.Parameters:
            return plan.parameters(
                augment,
                seed=seed,
                epoch=epoch,
                row=row,
                record=planned.record,
                size=planned.size,
                means=tf.gather(means, row),
                xp=_XP,
            )

        own = partner = parameters(row)
        if augment.uses("cutmix"):
            others = plan.partners(seed=seed, epoch=epoch, row=row, count=planned.count, xp=_XP)
            partner = parameters(others)
        return own, partner

    @tf.function(jit_compile=True, autograph=False)
    def pixels(
        table: tf.Tensor, own: plan.Parameters, partner: plan.Parameters
    ) -> tuple[tf.Tensor, ...]:
        held, others = (
            tf.gather(table, part.row)[:, records.lead : records.lead + area]
            for part in (own, partner)
        )
        words = expressions.render(
            held,
            others,
            own,
            partner,
            augment=augment,
            record=planned.record,
            size=planned.size,
            xp=_XP,
        )
        return expressions.parts(words, _XP)

    def make(step: tf.Tensor, table: tf.Tensor, means: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return pixels(table, *numbers(step, means))

    return make


def _order(planned: plan.Plan, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`Plan.order` of one step, and `random.permute`, as a graph: int64 [rows] each."""
    index, _ = planned.shard
    place = tf.range(planned.rows, dtype=tf.int64) + index * planned.rows
    position = step * planned.batch + place
    epoch = position // planned.count
    keys = random.key(tf.constant(random.u64(planned.seed)), tf.cast(epoch, tf.uint64), xp=_XP)
    even, odd = random.masks(planned.count)
    count = tf.constant(planned.count, tf.uint64)

    def twice(turn: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        number ^= random.mix((keys + turn) ^ (number & odd), _XP) & even
        turn += random.u64(random.STEP)
        number ^= random.mix((keys + turn) ^ (number & even), _XP) & odd
        return turn + random.u64(random.STEP), number

    def once_more(number: tf.Tensor, outside: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        last = tf.constant(random.u64((random.ROUNDS + 1) * random.STEP))
        first = tf.constant(random.u64(random.STEP))
        _, moved = tf.while_loop(lambda turn, _: turn != last, twice, (first, number))
        number = tf.where(outside, moved, number)
        return number, number >= count

    start = tf.cast(position % planned.count, tf.uint64)
    number, _ = tf.while_loop(
        lambda _, outside: tf.reduce_any(outside),
        once_more,
        (start, tf.ones_like(start, tf.bool)),
    )
    return tf.cast(number, tf.int64), epoch

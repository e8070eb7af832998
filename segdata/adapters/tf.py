"""Batches as `tf.data.Dataset`s.

Two engines make equal bytes. "host" calls the compiled kernels of `core` and is the fast one on a
CPU. "xla" is a graph that plans and draws by itself and holds the file's name: tf.data service can
send it to workers, and a GPU can run it.
"""

import atexit
import os
import pathlib
import threading
import time
import types
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

from segdata.adapters import expressions
from segdata.core import plan, random
from segdata.core.mixture import Mixture, Shares
from segdata.core.records import PLACES, Records, index_type
from segdata.core.stream import (
    LARGEST_BATCH,
    Evaluation,
    Stream,
    Then,
    Training,
    require_then,
    require_training,
)
from segdata.core.system import arguments, parallel

ENGINES = ("host", "xla")

_LAST_CALLS = 0.05  # seconds in which iterators are told, at the end of Python, that they are too

R = TypeVar("R")

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


def training(
    stream: Training, *, start_step: int = 0, steps: int | None = None, engine: str = "host"
) -> tf.data.Dataset:
    """The batches of a stream or a mixture.

    Args:
        stream: What they hold.
        start_step: The first.
        steps: How many an iterator gives, and the length of the dataset; without end where None.
            Where one iterator of the host engine came to its end, the next goes on from there, as
            with `shuffle`; each of the graph begins at `start_step`.
        engine: "host", or "xla" for tf.data service.

    Returns:
        (image uint8 [B, H, W, 3], mask uint8 [B, H, W, 1]).

    Raises:
        ValueError: If there is no such engine, or no such step, or `then` of the stream would have
            to be part of a graph.
    """
    require_training(stream)
    require(engine, then=stream.then)
    numbers = stream.steps(start_step, steps)
    with tf.device("CPU:0"):  # also where there is a GPU
        if engine == "host":
            if steps is not None and not numbers:
                raise ValueError(f"steps={steps}: an iterator gives one batch at least.")
            specs = [
                tf.TensorSpec((stream.own, *stream.size, channels), tf.uint8) for channels in (3, 1)
            ]
            if stream.then:
                specs = [
                    tf.TensorSpec.from_tensor(tf.constant(part))
                    for part in stream.batch(numbers.start)
                ]
            endless = stream.steps(start_step)
            return _called(endless, stream.batch, specs, at_once=len(numbers))
        data = tf.data.Dataset.range(numbers.start, numbers.stop)
        if isinstance(stream, Mixture):
            return _mapped(stream.files, data, _mixed(stream))
        assert isinstance(stream, Stream)
        planned = stream.plan
        pixels = _graph(planned, stream.records)

        def make(step: tf.Tensor, file: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
            return pixels(_positions(stream, step), *file)

        return _mapped(stream.files, data, make)


def evaluation(
    records: Records,
    *,
    batch: int,
    size: tuple[int, int] | None = None,
    then: Then | None = None,
    engine: str = "host",
) -> tf.data.Dataset:
    """Every record once, in order, as it is; the last batch may be smaller.

    Args:
        records: An open packed file.
        batch: Examples a batch, B.
        size: Height and width of tiles, where the records are not of that size: `Evaluation`.
        then: A function of image and mask of a whole batch to what is given instead: NumPy arrays,
            whose first axis is the example's.
        engine: "host", or "xla" for tf.data service.

    Returns:
        (image uint8 [B, H, W, 3], mask uint8 [B, H, W, 1]).

    Raises:
        ValueError: If there is no such engine, `then` would have to be part of a graph, or the
            records differ in size.
    """
    if not isinstance(records, Records):
        raise ValueError(f"records={records!r:.60} is no open packed file; see segdata.pack.")
    require(engine, then=then)
    batch = arguments.integer("batch", batch, least=1, most=LARGEST_BATCH)
    if records.size is None and size is None:
        raise ValueError(
            f"the records of {records.path} differ in size, and no batch holds them as they are; "
            "give the size of tiles, or pack with a height and a width."
        )
    given = Evaluation(records, batch=batch, size=size, then=then)
    if engine == "xla" and given.size != records.size:
        raise ValueError(f'size={size}: engine="xla" cuts no tiles; choose engine="host".')
    size = given.size
    with tf.device("CPU:0"):
        if engine == "host":
            specs = [tf.TensorSpec((None, *size, channels), tf.uint8) for channels in (3, 1)]
            if then:
                specs = [
                    tf.TensorSpec((None, *part.shape[1:]), tf.as_dtype(part.dtype))
                    for part in given.batch(0)
                ]
            return _called(range(len(given)), given.batch, specs, at_once=len(given))

        def parts(first: tf.Tensor, file: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
            words, _ = file
            last = tf.minimum(first + batch, records.count)
            row = _row(records.rows, tf.range(first, last, dtype=tf.int64))
            pixels = tf.reshape(_table(words, records, row), [-1, *size])
            pixels = tf.bitcast(pixels, tf.uint8)
            return pixels[..., :3], pixels[..., 3:]

        numbers = tf.data.Dataset.range(0, records.count, batch)
        return _mapped((records,), numbers, parts)


def require(engine: Any, *, then: Any = None) -> None:
    """Raises ValueError where there is no such engine, or it cannot have `then`."""
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r}: there are {' and '.join(map(repr, ENGINES))}.")
    require_then(then)
    if then and engine == "xla":
        raise ValueError(
            'then= is a function of NumPy arrays, and engine="xla" a graph: map the dataset.'
        )


def _called(
    numbers: range, make: Callable[[int], Any], specs: Sequence[tf.TensorSpec], *, at_once: int
) -> tf.data.Dataset:
    """Batches of a Python function of a number, `at_once` of the numbers to an iterator.

    They are made ahead by threads of our own. TensorFlow asks for one at a time: where its own
    threads call Python, the end of an iterator waits for them, and has once waited for ever.
    """
    ready = _Ahead(make, numbers, at_once)
    first, each = _CALLS.counted(ready.next), _CALLS.counted(ready)

    def call(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        # It is a function of its argument, and so iterators over it can be saved.
        dtypes = [spec.dtype for spec in specs]
        parts = tf.numpy_function(each, [number], dtypes, stateful=False)
        return tuple(
            tf.ensure_shape(part, spec.shape) for part, spec in zip(parts, specs, strict=True)
        )

    options = tf.data.Options()
    options.experimental_optimization.map_parallelization = False  # it is by default
    if at_once == len(numbers):  # the same ones each time
        data = tf.data.Dataset.range(numbers.start, numbers.stop, numbers.step)
    else:
        data = tf.data.Dataset.range(1)
        data = data.map(lambda _: tf.ensure_shape(tf.numpy_function(first, [], tf.int64), []))
        data = data.flat_map(lambda first: tf.data.Dataset.range(first, first + at_once))
        data = data.apply(tf.data.experimental.assert_cardinality(at_once))
        # Else an iterator that is left early may have read to its end.
        options.experimental_optimization.inject_prefetch = False
    return data.map(call).with_options(options)


class _Calls:
    """The calls of Python by TensorFlow's threads, which have to end before Python does.

    A thread that takes the interpreter's lock later is stopped there, and TensorFlow waits for it
    for ever as soon as it frees the iterator: a process that has printed all never ends.
    """

    def __init__(self) -> None:
        self._begin()
        atexit.register(self.end)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin)  # it has none of the threads

    def _begin(self) -> None:
        self._running = self._begun = 0
        self._is_over = False
        self._lock = threading.Lock()

    def counted(self, function: Callable[..., R]) -> Callable[..., R]:
        """The same function; from the end of Python on the iterator that calls it is at its end."""

        def call(*arguments: Any) -> R:
            with self._lock:
                if self._is_over:
                    raise StopIteration
                self._running += 1
                self._begun += 1
            try:
                return function(*arguments)
            finally:
                with self._lock:
                    self._running -= 1

        return call

    def end(self) -> None:
        """Lets no call begin, and waits for those that have."""
        with self._lock:
            self._is_over = True
        while self._running:
            time.sleep(0.001)
        if self._begun:
            time.sleep(_LAST_CALLS)


_CALLS = _Calls()


class _Ahead:
    """A function of the numbers of a range, whose results are made ahead on all cores."""

    def __init__(self, make: Callable[[int], Any], numbers: range, at_once: int):
        self._make, self._numbers, self._at_once = make, numbers, at_once
        self._pending: dict[int, futures.Future[Any]] = {}
        self._next = 0
        self._lock = threading.Lock()
        self._pool = futures.ThreadPoolExecutor(parallel.cores(), thread_name_prefix="segdata")

    def next(self) -> np.int64:
        """The first number of the next iterator: the one after the last that came to its end."""
        return np.int64(self._numbers[self._next])

    def __call__(self, number: Any) -> Any:
        at = self._numbers.index(int(number))
        end = (at // self._at_once + 1) * self._at_once
        window = self._numbers[at : min(at + 1 + 2 * parallel.cores(), end)]
        with self._lock:
            for other in self._pending.keys() - set(window):  # of an iterator that is no more
                self._pending.pop(other).cancel()
            for each in window:
                if each not in self._pending:
                    self._pending[each] = self._submitted(each)
            result = self._pending.pop(int(number))
            if at + 1 == end < len(self._numbers):
                self._next = end
        return result.result()

    def _submitted(self, number: int) -> futures.Future[Any]:
        try:
            return self._pool.submit(self._make, number)
        except RuntimeError as error:  # at the end of Python no thread begins anything
            raise StopIteration from error


def _mapped(
    files: Sequence[Records],
    numbers: tf.data.Dataset,
    make: Callable[..., tuple[tf.Tensor, ...]],
) -> tf.data.Dataset:
    """Batches of a graph over files, each with its index, which an iterator maps once."""

    def held(records: Records) -> tuple[tf.Tensor, tf.Tensor]:
        words = [records.path.stat().st_size // 4]
        index = [records.total, index_type(records.classes).itemsize // 4]
        return (
            _file(records.path, tf.uint32, words),
            _file(records.index_path, tf.int32, index),
        )

    tables = tf.data.Dataset.range(1).flat_map(
        lambda _: tf.data.Dataset.from_tensors(tuple(map(held, files))).repeat()
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
    """From positions int64 [B], the file and its index to examples.

    Two compiled functions, not one: XLA would fuse what is drawn for an example into the loops over
    its pixels and draw it again for each of them.
    """
    augment = planned.augment

    @tf.function(jit_compile=True, autograph=False)
    def numbers(position: tf.Tensor, index: tf.Tensor) -> tuple[plan.Parameters, plan.Parameters]:
        row, epoch = _order(planned, position)
        seed = tf.constant(random.u64(planned.seed))

        def parameters(row: tf.Tensor) -> plan.Parameters:
            known = _Known(tf.gather(index, row), records.classes)
            return plan.parameters(
                augment,
                seed=seed,
                epoch=epoch,
                row=row,
                record=planned.record or [tf.cast(side, tf.int64) for side in known.size],
                size=planned.size,
                means=known.means,
                places=known.places if augment.foreground else None,
                xp=_XP,
            )

        own = partner = parameters(row)
        if augment.uses("cutmix"):
            others = plan.partners(seed=seed, epoch=epoch, row=row, count=planned.count, xp=_XP)
            partner = parameters(_row(planned.rows, others))
        return own, partner

    @tf.function(jit_compile=True, autograph=False)
    def pixels(
        words: tf.Tensor, index: tf.Tensor, own: plan.Parameters, partner: plan.Parameters
    ) -> tuple[tf.Tensor, ...]:
        def held(part: plan.Parameters) -> expressions.Held:
            if records.size:
                return expressions.Held(_table(words, records, part.row), *records.size)
            known = _Known(tf.gather(index, part.row), records.classes)
            height, width = (side[:, None, None] for side in known.size)
            return expressions.Held(words, height, width, known.start)

        drawn = expressions.render(
            held(own),
            held(partner) if augment.uses("cutmix") else None,
            own,
            partner,
            augment=augment,
            size=planned.size,
            xp=_XP,
        )
        return expressions.parts(drawn, _XP)

    def make(position: tf.Tensor, words: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return pixels(words, index, *numbers(position, index))

    return make


def _mixed(mixture: Mixture) -> Callable[..., tuple[tf.Tensor, ...]]:
    """From a step and the files to a batch: `Mixture.padded` as a graph.

    Of each part as many examples are made as a batch may hold at most.
    """
    place_of = [records.path for records in mixture.files]
    graphs = [_graph(part.stream.plan, part.stream.records) for part in mixture.parts]

    @tf.function(jit_compile=True, autograph=False)
    def order(step: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        source, place = _shared(mixture.shares, _positions(mixture, step))
        made, rows, before, number = [], tf.zeros_like(place), 0, 0
        for which, (_, strata) in enumerate(mixture.strata):
            inner, inner_place = _shared(strata, place)
            for stratum in range(len(strata.weights)):
                held = (source == which) & (inner == stratum)
                start = tf.reduce_min(tf.where(held, inner_place, tf.reduce_max(inner_place) + 1))
                most = mixture.parts[number].most
                made.append(start + tf.range(most, dtype=tf.int64))
                rows = tf.where(held, before + inner_place - start, rows)
                before, number = before + most, number + 1
        return made, rows

    @tf.function(jit_compile=True, autograph=False)
    def chosen(made: list[tuple[tf.Tensor, ...]], rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
        masks = [
            tf.gather(tf.constant(part.table), tf.cast(mask, tf.int32))
            for part, (_, mask) in zip(mixture.parts, made, strict=True)
        ]
        images = tf.concat([image for image, _ in made], axis=0)
        return tf.gather(images, rows), tf.gather(tf.concat(masks, axis=0), rows)

    def make(step: tf.Tensor, *files: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        positions, rows = order(step)
        made = [
            graph(position, *files[place_of.index(part.stream.records.path)])
            for part, graph, position in zip(mixture.parts, graphs, positions, strict=True)
        ]
        return chosen(made, rows)

    return make


def _shared(shares: Shares, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`Shares.of` as a graph."""
    turn, at = position // shares.period, position % shares.period
    whose = tf.gather(tf.constant(shares.pattern), at)
    place = tf.gather(tf.constant(shares.place), at)
    return whose, turn * tf.gather(tf.constant(shares.weights), whose) + place


def _positions(stream: Training, step: tf.Tensor) -> tf.Tensor:
    """`plan.positions` of one step as a graph: int64 [own]."""
    place = tf.range(stream.own, dtype=tf.int64) + stream.shard[0] * stream.own
    return step * stream.examples + place


class _Known:
    """Rows of the index, from int32 [B, N]: `core.records.index_type`."""

    def __init__(self, rows: tf.Tensor, classes: int):
        self.start = tf.bitcast(rows[:, :2], tf.int64)
        self.size = rows[:, 2], rows[:, 3]
        self.means = rows[:, 4:7]
        places = tf.bitcast(rows[:, 8:], tf.uint32)
        self.places = tf.reshape(places, [-1, classes, PLACES])


def _table(words: tf.Tensor, records: Records, row: tf.Tensor) -> tf.Tensor:
    """Records of one size, uint32 [B, h·w], of the words of the whole file."""
    assert records.size is not None
    area = records.size[0] * records.size[1]
    framed = tf.reshape(words, [records.total, area + 4])
    return tf.gather(framed, row)[:, 3:-1]


def _row(rows: range | np.ndarray, place: tf.Tensor) -> tf.Tensor:
    """`Plan.row` as a graph."""
    if isinstance(rows, range):
        return place * rows.step + rows.start
    return tf.gather(tf.constant(rows), place)


def _order(planned: plan.Plan, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`Plan.at`, and `random.permute`, as a graph: int64 [B] each."""
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
    return _row(planned.rows, tf.cast(number, tf.int64)), epoch

"""Batches on the host: a plan, records and kernels, on all cores, in order.

A batch is made by one thread, several at a time, into memory that is used again when nobody refers
to the batch any more: a fresh buffer costs its page faults, which take longer than the pixels.
"""

import abc
import dataclasses
import functools
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from segdata.core import IGNORE_LABEL, kernels, plan, random, tiles
from segdata.core.augment import Augment
from segdata.core.records import Records, means_of
from segdata.core.system import arguments, parallel

Batch = tuple[np.ndarray, ...]
"""Image uint8 [B, H, W, 3] and mask uint8 [B, H, W, 1]; 255 in a mask is the ignore label. Or what
`then` makes of them."""
Then = Callable[..., tuple[np.ndarray, ...]]
"""A function of a whole batch, image and mask, to arrays; called on several threads at once. Of a
mixture it is given the sources as well, int64 [B]."""

LARGEST_BATCH = 1 << 20
MOST_EXAMPLES = 1 << 62
"""That are counted since the start of a training."""
_AHEAD = 1024  # examples that are planned at once: less than a millisecond, in the second cache
_MOST_FREE = 64  # pieces of memory of a size that are kept for batches to come
_MOST_SIZES = 8  # of pieces that are kept
_ALIGNED = 64  # bytes; what TensorFlow takes without copying it


class Training(abc.ABC):
    """The batches of a training, which adapters take: batch k is a pure function of (seed, k).

    Attributes:
        examples: In a batch, over all shards.
        shard: (index, count), which part of each batch is made.
        own: Examples in that part.
        size: Height and width of an example.
        then: What becomes of each batch.
        files: The packed files that it reads, each once.
        count: How many records there are.
    """

    size: tuple[int, int]
    files: tuple[Records, ...]
    count: int

    def __init__(self, *, batch: int, shard: tuple[int, int], then: Then | None):
        self.examples = arguments.integer("batch", batch, least=1, most=LARGEST_BATCH)
        require_then(then)
        self.shard, self.then = _part("shard", shard), then
        plan.require_shard(self.shard, batch=self.examples)
        self.own = self.examples // self.shard[1]

    @property
    def steps_per_epoch(self) -> int:
        """The least number of batches that hold as many examples as there are records."""
        return math.ceil(self.count / self.examples)

    def batch(self, step: int) -> Batch:
        """The batch of a step; called from as many threads as wanted.

        Raises:
            ValueError: If it is no step.
        """
        (step,) = self.steps(step, 1)
        return applied(self.then, *self._made(step))

    def batches(
        self,
        start_step: int = 0,
        steps: int | None = None,
        *,
        threads: int | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """Batches in order, made ahead on threads.

        Args:
            start_step: The first.
            steps: How many; without end where None.
            threads: How many make them; by default one a core.
            part: (index, count): every count-th of them, beginning at the index; for workers.

        Raises:
            ValueError: If a number is out of range.
        """
        if threads is not None:
            threads = arguments.integer("threads", threads, least=1)
        index, count = _part("part", part)
        own = self.steps(start_step, steps)[index::count]
        return parallel.ordered_map(self.batch, own, threads=threads)

    def steps(self, start_step: int = 0, steps: int | None = None) -> range:
        """The numbers of some steps, all that can be counted where `steps` is None.

        Raises:
            ValueError: If they are out of range.
        """
        return steps_of(self.examples, start_step, steps)

    @abc.abstractmethod
    def _made(self, step: int) -> Batch:
        """What a batch holds, for `then`."""

    def _block(self, step: int) -> tuple[int, int, slice]:
        """The steps that are planned with one: the first, how many, and its rows among theirs."""
        count = max(1, _AHEAD // self.own)
        first = step // count * count
        return first, count, slice((step - first) * self.own, (step - first + 1) * self.own)


class Stream(Training):
    """The batches of a training on one packed file.

    Attributes:
        records: What they are made from.
        plan: What each holds.
    """

    def __init__(
        self,
        records: Records,
        *,
        batch: int,
        augment: Augment | None = None,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        shard: tuple[int, int] = (0, 1),
        then: Then | None = None,
    ):
        """Prepares the stream; reads nothing yet.

        Args:
            records: An open packed file.
            batch: Examples a batch, over all shards.
            augment: What may happen to each example; None leaves the pixels as they are.
            seed: Any integer; chooses the order of examples and what happens to them.
            size: Height and width of what is cut from each record; all of it where None.
            shard: (index, count): of each batch only this part, for hosts that share a training.
            then: A stage of one's own, from each batch to what is given instead. It may change the
                arrays that it gets. Without chance of its own a step stays a pure function.

        Raises:
            ValueError: If an argument is out of range, or they do not fit each other.
        """
        self._anew = functools.partial(
            Stream,
            records,
            batch=batch,
            augment=augment,
            seed=seed,
            size=size,
            shard=shard,
            then=then,
        )
        super().__init__(batch=batch, shard=shard, then=then)
        if not isinstance(records, Records):
            raise ValueError(f"records={records!r:.60} is no open packed file; see segdata.pack.")
        augment = _augment(augment)
        self.records, self.size = records, _size(records, size)
        self.files, self.count = (records,), records.count
        self.plan = plan.Plan(
            rows=records.rows,
            record=records.size,
            size=self.size,
            batch=self.examples,
            augment=augment,
            seed=arguments.integer("seed", seed),
            index=records.index(),
            shard=self.shard,
        )
        self._words = records.words()
        self._planned = functools.lru_cache(maxsize=16)(self.plan.steps)
        self._pool = Pool()

    def __reduce__(self) -> Any:
        """Other processes open the file anew."""
        return self._anew, ()

    def replay(self, row: Any, epoch: Any) -> Batch:
        """Makes again what training saw of some records in some epochs, in whichever step.

        Args:
            row: Which records, by their rows in the packed file; integers [B].
            epoch: The pass over the dataset of each; integers [B], or one for all.

        Raises:
            ValueError: If there is no such record or epoch.
        """
        row, epoch = _whole("row", row), _whole("epoch", epoch)
        if row.ndim != 1 or epoch.shape not in ((1,), row.shape):
            raise ValueError(f"epoch of shape {epoch.shape}: one, or one for each of {row.shape}.")
        if row.size and not (row.min() >= 0 and row.max() < self.records.total):
            raise ValueError(f"row={row.tolist()!s:.60}: there are {self.records.total:,} records.")
        if epoch.size and epoch.min() < 0:
            raise ValueError(f"epoch={epoch.tolist()!s:.60}: whole numbers from 0.")
        step = self.plan.of(row, np.broadcast_to(epoch, row.shape))
        return applied(self.then, *self.render(step))

    def render(self, step: plan.Step) -> Batch:
        """Makes the pixels of any part of a plan."""
        shape = (len(step.own.row), *self.plan.size)
        image, mask = (self._pool.take((*shape, channels)) for channels in (3, 1))
        self.render_to(image, mask, step)
        return image, mask

    def render_to(
        self, image: np.ndarray, mask: np.ndarray, step: plan.Step, rows: np.ndarray | None = None
    ) -> None:
        """The same, into some rows of a batch, int64 [N]; all of them where None."""
        kernels.render(
            self._words,
            self._places(step.own.row),
            step,
            is_constant=self.plan.augment.border == "constant",
            image=image,
            mask=mask,
            to=rows,
            partner_places=self._places(step.partner.row) if self.plan.augment.cutmix else None,
        )

    def _made(self, step: int) -> Batch:
        first, count, rows = self._block(step)
        return self.render(rows_of(self._planned(first, count), rows))

    def _places(self, row: np.ndarray) -> np.ndarray:
        """Where records lie, and their sizes: int64 [N, 3]."""
        places = np.empty((len(row), 3), np.int64)
        index = self.plan.index
        assert index is not None
        for column, name in enumerate(("start", "height", "width")):
            places[:, column] = index[name][row]
        return places


class Evaluation:
    """Every record once, in order, as it is; as often as it is iterated over.

    Of records that are not of the size wanted it gives tiles: every pixel has its class in one of
    them, and in others that hold it the ignore label. Records smaller than a tile lie in its
    middle, and what is around them is their mirror image, with the ignore label.

    Attributes:
        records: What it is made from.
        size: Height and width of what it gives.
        count: How many examples there are.
    """

    def __init__(
        self,
        records: Records,
        *,
        batch: int,
        size: tuple[int, int] | None = None,
        table: np.ndarray | None = None,
        then: Then | None = None,
    ):
        """Prepares it; reads nothing yet.

        Args:
            records: An open packed file.
            batch: Examples a batch; the last may be smaller.
            size: Height and width of tiles; the records' own where None.
            table: uint8 [256], the records' class ids to those given; the same where None.
            then: As for `Stream`.

        Raises:
            ValueError: If the records are smaller than the size, or differ and none is given.
        """
        self._stream = Stream(records, batch=batch, size=size)
        self._then, self._table = then, table
        self.records, self.size, self._batch = records, self._stream.size, self._stream.examples
        self._rows = self._stream.plan.row(np.arange(records.count))
        index = records.index()
        self._sides = [index[name][self._rows].astype(np.int64) for name in ("height", "width")]
        self._tiles = [
            tiles.count(sides, side) for sides, side in zip(self._sides, self.size, strict=True)
        ]
        self._ends = np.cumsum(self._tiles[0] * self._tiles[1])
        self.count = int(self._ends[-1])

    def __len__(self) -> int:
        return -(-self.count // self._batch)

    def __iter__(self) -> Iterator[Batch]:
        return parallel.ordered_map(self.batch, range(len(self)))

    def batch(self, number: int) -> Batch:
        """The batch of a number, from 0; called from as many threads as wanted."""
        first = number * self._batch
        tile = np.arange(first, min(first + self._batch, self.count), dtype=np.int64)
        place = np.searchsorted(self._ends, tile, side="right")
        own = plan.Parameters.none()._replace(row=self._rows[place])
        is_own: Any = None
        if self.size != self.records.size:
            window, is_own = self._tiled(tile, place)
            own = own._replace(window=window)
        image, mask = self._stream.render(plan.Step(own, own))
        if self._table is not None:
            mask = self._table[mask]
        if is_own is not None:
            mask[~is_own] = IGNORE_LABEL
        return applied(self._then, image, mask)

    def _tiled(self, tile: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where tiles of records begin, int32 [B, 2], and which pixels are a tile's own."""
        down, across = (each[place] for each in self._tiles)
        numbers = np.divmod(tile - self._ends[place] + down * across, across)
        starts, owns = [], []
        for number_of, of, sides, side in zip(
            numbers, (down, across), self._sides, self.size, strict=True
        ):
            starts.append(tiles.start(number_of, of, sides[place], side))
            first, last = tiles.own(number_of, of, sides[place], side)
            along = np.arange(side)
            owns.append((along >= first[:, None]) & (along < last[:, None]))
        is_own = owns[0][:, :, None] & owns[1][:, None, :]
        return np.stack(starts, axis=1).astype(np.int32), is_own


def steps_of(batch: int, start_step: Any = 0, steps: Any = None) -> range:
    """`Training.steps`, of batches of so many examples."""
    most = MOST_EXAMPLES // batch
    start_step = arguments.integer("start_step", start_step, least=0, most=most - 1)
    if steps is None:
        return range(start_step, most)
    steps = arguments.integer("steps", steps, least=0, most=most - start_step)
    return range(start_step, start_step + steps)


def applied(then: Then | None, *batch: np.ndarray) -> Batch:
    """A batch, or what `then` makes of it."""
    if not then:
        return batch
    given = then(*batch)
    if not isinstance(given, tuple) or not all(isinstance(x, np.ndarray) for x in given):
        parts = given if isinstance(given, tuple) else ()
        kinds = [type(part).__name__ for part in parts]
        raise ValueError(
            f"then= gave {type(given).__name__} {kinds or ''}, not a tuple of NumPy arrays."
        )
    return given


def require_batches(*, batch: Any, shard: Any, then: Any) -> None:
    """Raises ValueError where a `Training` would."""
    batch = arguments.integer("batch", batch, least=1, most=LARGEST_BATCH)
    plan.require_shard(_part("shard", shard), batch=batch)
    require_then(then)


def require_examples(
    *, augment: Any, seed: Any, size: Any, record: tuple[int, int] | None, classes: int
) -> None:
    """Refuses what a `Stream` would of records that are yet to be packed.

    Args:
        augment: As for a `Stream`.
        seed: Likewise.
        size: Height and width of the examples.
        record: The same of all records; None where they differ.
        classes: How many the records have.

    Raises:
        ValueError: If an argument is out of range, or they do not fit each other.
    """
    arguments.integer("seed", seed)
    settings, size = _augment(augment), arguments.size(size)
    plan.require_fit(settings, record=record, size=size, classes=classes)


def require_then(then: Any) -> None:
    """Raises ValueError where it is no function."""
    if not (then is None or callable(then)):
        raise ValueError(f"then={then!r:.60} is no function of an image and a mask.")


def require_training(stream: Any) -> None:
    """Raises ValueError where an adapter is given anything else."""
    if not isinstance(stream, Training):
        raise ValueError(f"stream={stream!r:.60} is no segdata.Stream, and no mixture.")


def _augment(value: Any) -> Augment:
    if not isinstance(value, Augment | None):
        raise ValueError(f"augment={value!r} is neither a segdata.Augment nor None.")
    return value or Augment()


def _part(name: str, value: Any) -> tuple[int, int]:
    try:
        index, count = (arguments.integer(name, number, least=0) for number in value)
        arguments.integer(name, index, most=count - 1)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}={value!r} is not (index, count): an index from 0 and a larger count."
        ) from error
    return index, count


def _whole(name: str, value: Any) -> np.ndarray:
    """Whole numbers as int64 [N]."""
    numbers = np.atleast_1d(np.asarray(value))
    if numbers.size and numbers.dtype.kind not in "iu":
        raise ValueError(f"{name}={value!r:.60}: whole numbers from 0.")
    return numbers.astype(np.int64)


def rows_of(step: plan.Step, rows: slice) -> plan.Step:
    """Some examples of a plan, by their places in it."""
    return plan.Step(*(plan.Parameters(*(array[rows] for array in part)) for part in step))


def apply(
    augment: Augment, pixels: np.ndarray, *, seed: int, epoch: np.ndarray, example: np.ndarray
) -> np.ndarray:
    """Augments examples in memory, as a stream does its records.

    CutMix takes the partners from the examples given.

    Args:
        augment: What may happen.
        pixels: uint8 [B, H, W, 4], RGB and class id.
        seed: Any integer.
        epoch: int64 [B], the pass over the dataset that each example belongs to.
        example: int64 [B], which example of the dataset each is.

    Returns:
        uint8 [B, H, W, 4].

    Raises:
        ValueError: If the settings do not fit the size.
    """
    count, height, width, _ = pixels.shape
    size = (height, width)
    augment = dataclasses.replace(augment, foreground=0.0)  # nothing is cropped
    plan.require_fit(augment, record=size, size=size)
    example, epoch = (np.asarray(x, np.int64) for x in (example, epoch))
    seeded, means = random.seeded(seed), means_of(pixels)

    def parameters(index: np.ndarray) -> plan.Parameters:
        drawn = plan.parameters(
            augment,
            seed=seeded,
            epoch=epoch,
            row=example[index],
            record=size,
            size=size,
            means=means[index],
        )
        return drawn._replace(row=index)

    own = partner = parameters(np.arange(count))
    if augment.uses("cutmix"):
        partner = parameters(plan.partners(seed=seeded, epoch=epoch, row=example, count=count))
    out = np.empty_like(pixels)
    image, mask = (np.empty((count, *size, n), np.uint8) for n in (3, 1))
    kernels.render(
        np.append(np.ascontiguousarray(pixels).view(np.uint32), np.uint32(0)),
        _packed(own.row, size),
        plan.Step(own, partner),
        is_constant=augment.border == "constant",
        image=image,
        mask=mask,
        partner_places=_packed(partner.row, size),
    )
    out[..., :3], out[..., 3:] = image, mask
    return out


def _packed(row: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Where records of one size lie, one after the other: int64 [N, 3]."""
    return np.stack([row * size[0] * size[1], *(np.full_like(row, side) for side in size)], axis=1)


def _size(records: Records, size: Any) -> tuple[int, int]:
    if size is not None:
        return arguments.size(size)
    if records.size is None:
        raise ValueError(
            f"size=None: the records of {records.path} differ in size; give a height and a width."
        )
    return records.size


class Pool:
    """Arrays whose memory is used again when nobody refers to them any more."""

    def __init__(self) -> None:
        self._free: dict[int, list[memoryview]] = {}
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """uint8, aligned, of any content."""
        size = math.prod(shape)
        with self._lock:
            free = self._free.pop(size, [])
            self._free[size] = free  # the last: sizes that have not been asked for go first
            if len(self._free) > _MOST_SIZES:
                del self._free[next(iter(self._free))]
            memory = free.pop() if free else None
        if memory is None:
            whole = np.empty(size + _ALIGNED, np.uint8)
            first = -whole.ctypes.data % _ALIGNED
            memory = memoryview(whole.data)[first : first + size]
        # NumPy makes this array the base of all views of it, and it ends with the last of them.
        array = np.frombuffer(memory, np.uint8)
        # At the end of the process nothing is given back, for it may still be looked at.
        weakref.finalize(array, self._give_back, memory).atexit = False
        return array.reshape(shape)

    def _give_back(self, memory: memoryview) -> None:
        free = self._free.get(memory.nbytes)  # without the lock: whoever holds it may be collecting
        if free is not None and len(free) < _MOST_FREE:
            free.append(memory)

"""Batches: from packed records to what a trainer eats.

A training batch is a pure function of (seed, step): no shuffle buffer, no iterator state. Step k
holds positions k·B to k·B+B-1 of an endless row of epochs, each a keyed permutation of all
examples. So resuming at step k is `start_step=k`, exactly, and nothing depends on parallelism.

Every batch is `(image uint8 [B, H, W, 3], mask uint8 [B, H, W, 1])`; a mask holds class ids, 255
where nobody knows. Nothing here knows of a model.
"""

import math
import os
from collections.abc import Callable

import tensorflow as tf

from segdata import arguments, hashing
from segdata import augment as augment_
from segdata import records as records_

PathLike = str | os.PathLike[str]

_LARGEST_BATCH = 1 << 20
_MOST = 1 << 62  # examples that are counted, since the start of a training


def train_batches(
    name: str,
    split: str,
    *,
    size: tuple[int, int],
    batch: int,
    augment: augment_.Augment | None,
    seed: int,
    start_step: int = 0,
    data_dir: PathLike | None = None,
) -> tf.data.Dataset:
    """An endless stream whose k-th batch depends on (seed, start_step + k) alone.

    Args:
        name: A built TFDS dataset, `dsb2018` or `dsb2018/instances`.
        split: A TFDS split, `train` or `train[:80%]`.
        size: Height and width in pixels; packed on first use, beside the dataset.
        batch: Examples a batch, B. Batches run across the ends of epochs; all are whole.
        augment: What may happen to each example; None leaves the pixels as they are.
        seed: Chooses the order of examples and what happens to them.
        start_step: The first batch.
        data_dir: Where the dataset was built; TFDS's default where None.

    Returns:
        A `tf.data.Dataset` of (image uint8 [B, H, W, 3], mask uint8 [B, H, W, 1]).

    Raises:
        ValueError: If the dataset is not built or an argument is out of range.
    """
    batch = arguments.integer("batch", batch, least=1, most=_LARGEST_BATCH)
    start_step = arguments.integer("start_step", start_step, least=0, most=_MOST // batch)
    seed = arguments.integer("seed", seed)
    if not isinstance(augment, augment_.Augment | None):
        raise ValueError(f"augment={augment!r} is neither a segdata.Augment nor None.")
    records = records_.pack(name, split, size=size, data_dir=data_dir)
    return stream(records, batch=batch, augment=augment, seed=seed, start_step=start_step)


def stream(
    records: records_.Records,
    *,
    batch: int,
    augment: augment_.Augment | None,
    seed: int,
    start_step: int = 0,
) -> tf.data.Dataset:
    """`train_batches` of an open packed file."""

    @tf.function(jit_compile=True, autograph=False)  # gathers and parts in one pass
    def untouched(table: tf.Tensor, example: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _parted(records.pixels(tf.gather(table, example)))

    def make(step: tf.Tensor, table: tf.Tensor, means: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example, epoch = _order(step, batch=batch, count=records.count, seed=seed)
        if augment in (None, augment_.Augment()):
            return untouched(table, example)
        pixels = augment_.apply_rows(
            augment,
            table,
            example,
            size=records.size,
            lead=records.lead,
            means=means if augment.changes_contrast else None,
            seed=seed,
            epoch=epoch,
            example=example,
        )
        return _parted(pixels)

    with tf.device("CPU:0"):  # also where there is a GPU
        return _over(records, tf.data.Dataset.range(start_step, tf.int64.max), make)


def eval_batches(
    name: str,
    split: str,
    *,
    size: tuple[int, int],
    batch: int,
    data_dir: PathLike | None = None,
) -> tf.data.Dataset:
    """Every example once, in the dataset's order; the last batch may be smaller.

    Takes and returns what `train_batches` does; pixels are as they are.
    """
    batch = arguments.integer("batch", batch, least=1, most=_LARGEST_BATCH)
    records = records_.pack(name, split, size=size, data_dir=data_dir)
    return in_order(records, batch=batch)


def in_order(records: records_.Records, *, batch: int) -> tf.data.Dataset:
    """`eval_batches` of an open packed file."""

    def make(first: tf.Tensor, table: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = records.pixels(table[first : first + batch])
        return pixels[..., :3], pixels[..., 3:]

    with tf.device("CPU:0"):  # also where there is a GPU
        return _over(records, tf.data.Dataset.range(0, records.count, batch), make)


def steps_per_epoch(name: str, split: str, *, batch: int, data_dir: PathLike | None = None) -> int:
    """The least number of batches that hold as many examples as the split."""
    batch = arguments.integer("batch", batch, least=1, most=_LARGEST_BATCH)
    return math.ceil(records_.examples(records_.built(name, data_dir=data_dir), split) / batch)


def _over(
    records: records_.Records, steps: tf.data.Dataset, make: Callable[..., tuple[tf.Tensor, ...]]
) -> tf.data.Dataset:
    """Makes a batch of each step, the records and their means, which an iterator maps once."""
    tables = tf.data.Dataset.range(1).flat_map(
        lambda _: tf.data.Dataset.from_tensors((records.table(), records.means())).repeat()
    )
    tables = tables.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    data = tf.data.Dataset.zip((steps, tables)).map(
        lambda step, mapped: make(step, *mapped), num_parallel_calls=tf.data.AUTOTUNE
    )
    return data.prefetch(tf.data.AUTOTUNE)


@tf.function(jit_compile=True, autograph=False)  # small operations as one call
def _order(step: tf.Tensor, *, batch: int, count: int, seed: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The examples of a step and their epochs, int64 [B] each; every epoch a new permutation."""
    position = step * batch + tf.range(batch, dtype=tf.int64)
    epoch = position // count
    keys = hashing.key(hashing.u64(seed), epoch)
    example = hashing.permute(keys, position % count, count=hashing.u64(count))
    return tf.cast(example, tf.int64), epoch


@tf.function(jit_compile=True, autograph=False)
def _parted(pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return pixels[..., :3], pixels[..., 3:]

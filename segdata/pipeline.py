"""Batches: from packed records to what a trainer eats.

A training batch is a pure function of (seed, step): no shuffle buffer, no iterator state. Step k
holds positions k·B to k·B+B-1 of an endless row of epochs, each a keyed permutation of all
examples. So resuming at step k is `start_step=k`, exactly, and nothing depends on parallelism.

Every batch is `(image uint8 [B, H, W, 3], mask uint8 [B, H, W, 1])`; a mask holds class ids, 255
where nobody knows. Nothing here knows of a model.
"""

import math
import os

import tensorflow as tf

from segdata import augment as augment_
from segdata import hashing
from segdata import records as records_

PathLike = str | os.PathLike[str]


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
    _check_batch(batch)
    if start_step < 0:
        raise ValueError(f"start_step={start_step} is negative; the first step is 0.")
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
    table = records.tensor()
    means = None
    if augment and augment.changes_contrast:  # once, not again in every epoch
        means = augment_.means(table, size=records.size, lead=records.lead)

    @tf.function(jit_compile=True, autograph=False)  # gathers and parts in one pass
    def untouched(example: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _parted(records.pixels(tf.gather(table, example)))

    def augmented(example: tf.Tensor, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if augment in (None, augment_.Augment()):
            return untouched(tf.ensure_shape(example, [batch]))
        pixels = augment_.apply_rows(
            augment,
            table,
            tf.ensure_shape(example, [batch]),
            size=records.size,
            lead=records.lead,
            means=means,
            seed=seed,
            epoch=epoch,
            example=example,
        )
        return _parted(pixels)

    data = tf.data.Dataset.range(start_step, tf.int64.max)
    data = data.map(  # a batch a call, from its number to its pixels
        lambda step: augmented(*_order(step, batch=batch, count=records.count, seed=seed)),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return data.prefetch(tf.data.AUTOTUNE)


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
    _check_batch(batch)
    records = records_.pack(name, split, size=size, data_dir=data_dir)
    table = records.tensor()

    def make(first: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = records.pixels(table[first : first + batch])
        return pixels[..., :3], pixels[..., 3:]

    data = tf.data.Dataset.range(0, records.count, batch)
    data = data.map(make, num_parallel_calls=tf.data.AUTOTUNE)
    return data.prefetch(tf.data.AUTOTUNE)


def steps_per_epoch(name: str, split: str, *, batch: int, data_dir: PathLike | None = None) -> int:
    """The least number of batches that hold as many examples as the split."""
    _check_batch(batch)
    return math.ceil(records_.examples(records_.built(name, data_dir=data_dir), split) / batch)


def _order(step: tf.Tensor, *, batch: int, count: int, seed: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The examples of a step and their epochs, int64 [B] each; every epoch a new permutation."""
    place, epoch, seeds = _places(hashing.u64(seed), step, batch=batch, count=count)
    # The public function pads a vector of seeds along the wrong axis.
    example = tf.raw_ops.RandomIndexShuffle(
        index=place, seed=seeds, max_index=tf.constant(count - 1, tf.int64), rounds=8
    )
    return example, epoch


@tf.function(jit_compile=True, autograph=False)  # 70 small operations as one
def _places(
    seed: tf.Tensor, step: tf.Tensor, *, batch: int, count: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Before they are shuffled: place in the epoch, epoch, and the seeds of its permutation."""
    position = step * batch + tf.range(batch, dtype=tf.int64)
    epoch = position // count
    keys = hashing.key(seed, epoch)
    # The cipher behind the shuffle needs seeds without pattern: with the bare epoch number in them,
    # some examples come first far more often than others, whatever the rounds (TensorFlow 2.21).
    seeds = tf.stack([hashing.bits(keys, slot) for slot in range(3)], axis=1)
    return position % count, epoch, tf.cast(seeds, tf.uint32)


@tf.function(jit_compile=True, autograph=False)
def _parted(pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return pixels[..., :3], pixels[..., 3:]


def _check_batch(batch: int) -> None:
    if batch < 1:
        raise ValueError(f"batch={batch} is not a number of examples, at least 1.")

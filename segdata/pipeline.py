"""Batches of built datasets: packed on first use, then streamed.

A training batch is a pure function of (seed, step): no shuffle buffer, no iterator state. So
resuming at step k is `start_step=k`, exactly, and nothing depends on parallelism.

Every batch is `(image uint8 [B, H, W, 3], mask uint8 [B, H, W, 1])`; a mask holds class ids, and
the ignore label 255. Nothing here knows of a model.
"""

import math
import os
from typing import Unpack

import tensorflow as tf

from segdata import packing
from segdata.adapters import tf as adapter
from segdata.building.features import Features, Named
from segdata.core import stream
from segdata.core.augment import Augment
from segdata.core.system import arguments

PathLike = str | os.PathLike[str]


def train_batches(
    name: str,
    split: str,
    *,
    size: tuple[int, int],
    batch: int,
    augment: Augment | None,
    seed: int,
    start_step: int = 0,
    steps: int | str = "epoch",
    record_size: packing.Size | None = None,
    fit: str = "stretch",
    shard: tuple[int, int] = (0, 1),
    then: stream.Then | None = None,
    engine: str = "host",
    fold: packing.Fold | None = None,
    data_dir: PathLike | None = None,
    **features: Unpack[Named],
) -> tf.data.Dataset:
    """Training batches; the one of step k depends on (seed, k) alone.

    Step k holds positions k·B to k·B+B-1 of an endless row of epochs, each a keyed permutation of
    all examples. An iteration has as many batches as hold all examples, and where one has ended the
    next goes on: `model.fit(train, epochs=10)` is ten such rounds, none like another. A `prefetch`
    after it reads ahead, to the end of a short iteration that is left early.

    Args:
        name: A built TFDS dataset, `dsb2018` or `dsb2018/instances`.
        split: A TFDS split, `train` or `train[:80%]`.
        size: Height and width in pixels; packed on first use, beside the dataset.
        batch: Examples a batch, B. Batches run across the ends of epochs; all are whole.
        augment: What may happen to each example; None leaves the pixels as they are.
        seed: Chooses the order of examples and what happens to them.
        start_step: The first batch.
        steps: How many batches an iteration has; "epoch", as many as hold all examples once; or
            "endless".
        record_size: What is packed, where that is not `size`, and examples are crops of it: a
            height and a width, a longest side, or "native".
        fit: How images of another shape reach the size of records: "stretch", "letterbox", "crop".
        shard: (index, count): of each batch only this part, for hosts that share a training.
        then: A function of NumPy arrays, image and mask of a whole batch, to what is given instead.
        engine: "host", the fast one; or "xla", a graph that tf.data service can send to workers,
            which has no state: each iteration is the same.
        fold: (k, n): of n folds of the split all but fold k, from 0; `eval_batches` gives fold k.
            No group is in two folds, and the names of groups alone decide.
        data_dir: Where the dataset was built; TFDS's default where None.
        **features: Which features are the image and the mask, and what the mask's values mean, such
            as `image="image", mask="segmentation_mask", labels={1: "pet", 2: "background"}`;
            `segdata.Named` lists them. Not needed where they are as in the built-in datasets.

    Returns:
        A `tf.data.Dataset` of (image uint8 [B, H, W, 3], mask uint8 [B, H, W, 1]).

    Raises:
        ValueError: If the dataset is not built or an argument is out of range.
    """
    if isinstance(steps, str) and steps not in ("epoch", "endless"):
        raise ValueError(f'steps={steps!r} is neither "epoch", nor "endless", nor a number.')
    if steps == "epoch" and engine == "xla":
        raise ValueError(
            'steps="epoch" needs an iteration to know of the one before, and engine="xla" is a '
            'graph without state. Give steps="endless", and `steps_per_epoch` to `fit`.'
        )
    # All that needs no pixels is checked before they are packed, which may take minutes.
    batch = arguments.integer("batch", batch, least=1, most=stream.LARGEST_BATCH)
    count = None if isinstance(steps, str) else arguments.integer("steps", steps, least=1)
    stream.steps_of(batch, start_step, count)
    adapter.require(engine, then=then)
    size = arguments.size(size)
    rule = packing.Rule.of_batches(size, record_size, fit=fit)
    stream.require_batches(batch=batch, shard=shard, then=then)
    classes = packing.class_names(name, data_dir=data_dir, **features)
    stream.require_examples(
        augment=augment, seed=seed, size=size, record=rule.size, classes=len(classes)
    )
    records = packing.pack_by(rule, name, split, fold=fold, data_dir=data_dir, **features)
    batches = stream.Stream(
        records, batch=batch, augment=augment, seed=seed, size=size, shard=shard, then=then
    )
    if steps == "epoch":
        count = batches.steps_per_epoch
    return adapter.training(batches, start_step=start_step, steps=count, engine=engine)


def eval_batches(
    name: str,
    split: str,
    *,
    size: tuple[int, int],
    batch: int,
    record_size: packing.Size | None = None,
    fit: str = "stretch",
    then: stream.Then | None = None,
    engine: str = "host",
    fold: packing.Fold | None = None,
    data_dir: PathLike | None = None,
    **features: Unpack[Named],
) -> tf.data.Dataset:
    """Every example once, in the dataset's order; the last batch may be smaller.

    Args:
        name: A built TFDS dataset, `dsb2018` or `dsb2018/instances`.
        split: A TFDS split, `validation` or `train[80%:]`.
        size: Height and width in pixels; packed on first use, beside the dataset.
        batch: Examples a batch, B.
        record_size: As in `train_batches`. Examples are then tiles, which cover each record: every
            pixel has its class in one tile, and in others that hold it the ignore label.
        fit: As in `train_batches`.
        then: As in `train_batches`; the first axis of each array is the example's.
        engine: As in `train_batches`.
        fold: (k, n): fold k alone, which `train_batches` with the same fold leaves out.
        data_dir: Where the dataset was built; TFDS's default where None.
        **features: As in `train_batches`.

    Returns:
        A `tf.data.Dataset` of (image uint8 [B, H, W, 3], mask uint8 [B, H, W, 1]).

    Raises:
        ValueError: If the dataset is not built or an argument is out of range.
    """
    batch = arguments.integer("batch", batch, least=1, most=stream.LARGEST_BATCH)
    adapter.require(engine, then=then)
    size = arguments.size(size)
    rule = packing.Rule.of_batches(size, record_size, fit=fit)
    records = packing.pack_by(
        rule, name, split, fold=fold, part="held-out", data_dir=data_dir, **features
    )
    return adapter.evaluation(records, batch=batch, size=size, then=then, engine=engine)


def steps_per_epoch(
    name: str,
    split: str,
    *,
    batch: int,
    size: tuple[int, int] | None = None,
    fit: str = "stretch",
    fold: packing.Fold | None = None,
    data_dir: PathLike | None = None,
    **features: Unpack[Named],
) -> int:
    """The least number of training batches that hold as many examples as the split.

    Args:
        name: A built TFDS dataset.
        split: A TFDS split.
        batch: Examples a batch.
        size: Changes nothing; it is taken so that the keywords of both kinds of batches may be.
        fit: Likewise.
        fold: (k, n): the examples are those of all folds but k.
        data_dir: Where the dataset was built; TFDS's default where None.
        **features: As in `train_batches`.

    Raises:
        ValueError: If the dataset is not built or an argument is out of range.
    """
    batch = arguments.integer("batch", batch, least=1, most=stream.LARGEST_BATCH)
    builder = packing.built(name, data_dir=data_dir)
    count, named = packing.examples(builder, split), Features(**features)
    if fold is not None:
        count = len(packing.in_fold(builder, split, fold, part="training", features=named))
    return math.ceil(count / batch)

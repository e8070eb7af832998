"""The rows of segdata, and the copy that limits them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jobs import CROP, KINDS, Job

from segdata.core.stream import Stream
from segdata.core.system import parallel


def _stream(job: Job) -> Stream:
    size = CROP if job.kind == "crops" else None
    return Stream(job.packed, batch=job.batch, augment=KINDS[job.kind], size=size)


def arrays(job: Job) -> Iterator[Any]:
    """Batches as NumPy arrays."""
    return _stream(job).batches()


def through_tf(job: Job) -> Iterator[Any]:
    """The same as `tf.data.Dataset`."""
    from segdata.adapters import tf as adapter

    return iter(adapter.training(_stream(job)))


def xla(job: Job) -> Iterator[Any]:
    """The engine of tf.data service and of GPUs, on the host."""
    from segdata.adapters import tf as adapter

    return iter(adapter.training(_stream(job), engine="xla"))


def through_torch(job: Job) -> Iterator[Any]:
    """The same as tensors of PyTorch."""
    from segdata.adapters import torch as adapter

    return iter(adapter.Batches(_stream(job)))


def through_jax(job: Job) -> Iterator[Any]:
    """The same as arrays of JAX, made on its default device."""
    from segdata.adapters import jax as adapter

    return adapter.training(_stream(job))


def gather(job: Job) -> Iterator[Any]:
    """Random rows, copied once, into as many recycled buffers as are in flight."""
    words = job.packed.words().reshape(job.packed.count, -1)
    buffers = [
        np.empty((job.batch, words.shape[1]), np.uint32) for _ in range(3 * parallel.cores() + 2)
    ]

    def copy(step: int) -> np.ndarray:
        rows = np.random.default_rng(step).integers(job.packed.count, size=job.batch)
        return np.take(words, rows, axis=0, out=buffers[step % len(buffers)], mode="clip")

    return parallel.ordered_map(copy, range(2**40))

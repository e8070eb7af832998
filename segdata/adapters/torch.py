"""Batches as tensors of PyTorch, which share the memory that the kernels wrote to."""

import copy
from collections.abc import Iterator

import torch
from torch.utils import data

from segdata.core.stream import Batch, Training, require_training


class Batches(data.IterableDataset):
    """The batches of a stream or mixture, for a `DataLoader` with `batch_size=None`, or alone.

    Alone it is the fastest: its threads need no copies between processes. In a loader the
    workers take the steps in turn, so the loader gives the batches in their order; whichever their
    number, it is the same. For several ranks give each its `shard` of the stream.

    Each iteration begins at `start_step`, so a second one over the same `Batches`, or over a loader
    of it, repeats the first. The next epoch is another `Batches`, with the `start_step` that comes
    after; or give all steps at once.
    """

    def __init__(self, stream: Training, *, start_step: int = 0, steps: int | None = None):
        """Prepares the batches.

        Args:
            stream: What they hold.
            start_step: The first.
            steps: How many; without end where None.

        Raises:
            ValueError: If a number is out of range.
        """
        require_training(stream)
        numbers = stream.steps(start_step, steps)
        self.stream, self.start_step = stream, numbers.start
        self.steps = None if steps is None else len(numbers)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """Image uint8 [B, 3, H, W], channels last in memory, and mask uint8 [B, H, W].

        What `then` of the stream gives becomes tensors as it is.
        """
        worker = data.get_worker_info()
        if worker is None:
            batches = self.stream.batches(self.start_step, self.steps)
        else:  # a copy: a lock of the stream may have been held when this process was forked
            batches = copy.copy(self.stream).batches(
                self.start_step, self.steps, threads=1, part=(worker.id, worker.num_workers)
            )
        return map(_as_they_are if self.stream.then else _tensors, batches)

    def __len__(self) -> int:
        """How many batches there are.

        Raises:
            TypeError: If they have no end.
        """
        if self.steps is None:
            raise TypeError("these batches have no end; give steps=stream.steps_per_epoch.")
        return self.steps


def _as_they_are(batch: Batch) -> tuple[torch.Tensor, ...]:
    """What is flipped is copied, for tensors have no negative strides."""
    return tuple(
        torch.from_numpy(part.copy() if min(part.strides, default=0) < 0 else part)
        for part in batch
    )


def _tensors(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    image, mask = (torch.from_numpy(part) for part in batch)
    return image.permute(0, 3, 1, 2), mask[..., 0]

"""Batches as tensors of PyTorch, which share the memory that the kernels wrote to."""

import copy
from collections.abc import Iterator

import torch
from torch.utils import data

from segdata.core.stream import Batch, Training


class Batches(data.IterableDataset):
    """The batches of a stream or mixture, for a `DataLoader` with `batch_size=None`, or alone.

    Alone it is the fastest: its threads need no copies between processes. In a loader the
    workers take the steps in turn, so the loader gives the batches in their order; whichever their
    number, it is the same. For several ranks give each its `shard` of the stream.
    """

    def __init__(self, stream: Training, *, start_step: int = 0, steps: int | None = None):
        """Prepares the batches.

        Args:
            stream: What they hold.
            start_step: The first.
            steps: How many; without end where None.
        """
        if not isinstance(stream, Training):
            raise ValueError(f"stream={stream!r:.60} is no segdata.Stream, and no mixture.")
        self.stream, self.start_step, self.steps = stream, start_step, steps

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
    return tuple(torch.from_numpy(part) for part in batch)


def _tensors(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    image, mask = (torch.from_numpy(part) for part in batch)
    return image.permute(0, 3, 1, 2), mask[..., 0]

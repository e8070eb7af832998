"""Examples of built datasets at their own size: what training saw beside what it was made from."""

import dataclasses
import os
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple, Unpack

import numpy as np

from segdata import packing
from segdata.archives import images
from segdata.building import slices, stored
from segdata.building.features import Features, Named
from segdata.building.reading import Reader
from segdata.core.system import parallel


class Native(NamedTuple):
    """An example.

    Attributes:
        id: Its name.
        group: Its group.
        image: uint8 [H, W, 3].
        mask: uint8 [H, W], class ids; 255 is the ignore label.
        record: uint8 [h, w, 4], image and mask as they are packed, or as `seen` says.
        instances: uint16 [H, W], 0 for background; None where they were not asked for.
    """

    id: str
    group: str
    image: np.ndarray
    mask: np.ndarray
    record: np.ndarray
    instances: np.ndarray | None = None

    def relabelled(self, table: np.ndarray) -> "Native":
        """The same with other class ids, by a table uint8 [256]."""
        record = self.record.copy()
        record[..., 3] = table[record[..., 3]]
        return self._replace(mask=table[self.mask], record=record)


def examples(
    name: str,
    split: str,
    *,
    rule: packing.Rule,
    seen: Callable[[int, int], tuple[int, int]] | None = None,
    fold: packing.Fold | None = None,
    part: str = "held-out",
    rows: Collection[int] | None = None,
    instances: bool = False,
    data_dir: str | os.PathLike[str] | None = None,
    **features: Unpack[Named],
) -> Iterator[Native]:
    """Examples in the dataset's order, a few at a time decoded ahead on threads.

    Args:
        name: A built TFDS dataset.
        split: A TFDS split.
        rule: What `record` is made by.
        seen: From the height and width of an image to those of its record, where these are not by
            the rule.
        fold: As in `segdata.pack`.
        part: As in `segdata.pack`.
        rows: Numbers of examples in the split, in place of a fold.
        instances: Whether to read the map of instances.
        data_dir: Where the dataset was built; TFDS's default where None.
        **features: As in `segdata.train_batches`.

    Raises:
        ValueError: If the dataset is not built, or an argument is out of range.
        OSError: If an example is damaged.
    """
    named = Features(**features)
    builder = packing.built(name, data_dir=data_dir)
    packing.examples(builder, split)
    reader = Reader(builder, named, instances=instances)
    frames: Any = stored.frames(builder, slices.absolute(builder.info.splits, split))
    if fold is not None and rows is None:
        rows = packing.in_fold(builder, split, fold, part=part, features=named).tolist()
    if rows is not None:
        chosen = frozenset(rows)
        frames = (frame for number, frame in enumerate(frames) if number in chosen)

    def make(frame: stored.Frame) -> Native:
        example = reader.read(frame)
        image = example.image
        if isinstance(image, bytes):
            with images.opened(image, name=f"the image of {example.id}") as opened:
                image = np.asarray(images.rgb(opened))
        own = rule
        if seen:
            own = dataclasses.replace(rule, size=seen(*example.mask.shape), longest=None)
        record: Any = packing.row(dataclasses.replace(example, instances=None), own)
        return Native(
            id=example.id,
            group=example.group,
            image=image,
            mask=example.mask,
            record=record,
            instances=example.instances,
        )

    return parallel.ordered_map(make, frames)

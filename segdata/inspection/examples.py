"""Collections of examples that are not read yet, split by split; the collection of a built dataset.

The audit and the contact sheet take a collection and know no format. A collection can be iterated
any number of times, and only the examples that are asked for are decoded.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Unpack

from segdata.archives import rle
from segdata.sources import Example

if TYPE_CHECKING:
    from segdata.building.features import Named
    from segdata.building.reading import Reader
    from segdata.building.stored import Frame

_NOTED = {
    "renewed": "images re-encoded, by the metadata",
    "skipped": "examples left out, by the metadata",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pending:
    """An example that has not been decoded.

    Attributes:
        split: Its split; of a raw archive, the part that it is in.
        id: Its name.
        read: Reads it; raises `OSError` or `ValueError` where it is damaged.
        original: Reads the original bytes of the image, where `read` re-encodes them.
    """

    split: str
    id: str
    read: Callable[[], Example]
    original: Callable[[], bytes] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collection:
    """Examples, split by split.

    Attributes:
        name: What it is, such as "dsb2018/default/1.0.0".
        place: The folder that it is in.
        classes: The name of each class id.
        count: How many examples there should be.
        stream: Iterates over all of them, from the start on each call, in a fixed order.
        faults: (split, id, message) of each example that cannot be listed.
        tables: Run lengths that should agree with the masks; each call reads from the start.
        notes: What its build recorded, a line each.
    """

    name: str
    place: str
    classes: tuple[str, ...]
    count: int
    stream: Callable[[], Iterator[Pending]]
    faults: tuple[tuple[str, str, str], ...] = ()
    tables: tuple[Callable[[], Iterator[rle.Encoded]], ...] = ()
    notes: tuple[str, ...] = ()


def built(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    split: str | None = None,
    **features: "Unpack[Named]",
) -> Collection:
    """The examples of a built dataset.

    Args:
        name: A TFDS name, optionally with a config.
        data_dir: Where it was built; TFDS's default where None.
        split: One TFDS split; all where None.
        **features: Which features are the image and the mask, where that is not as in the built-in
            datasets: `segdata.Named`.

    Raises:
        ValueError: If it is not built, or there is no such split or feature.
    """
    from segdata import packing
    from segdata.building import slices, stored
    from segdata.building.features import Features
    from segdata.building.reading import Reader

    builder = packing.built(name, data_dir=data_dir)
    splits = list(builder.info.splits) if split is None else [split]
    kept: Any = builder.info.features
    reader = Reader(builder, Features(**features), instances="instances" in kept)
    reader.require_settings()
    reader.names.log()
    metadata = dict(builder.info.metadata or {})
    overlaps = metadata.get("overlap", {})

    def stream() -> Iterator[Pending]:
        for part in splits:
            number = 0
            try:
                for frame in stored.frames(builder, slices.absolute(builder.info.splits, part)):
                    try:
                        yield _pending(part, reader, frame, overlaps)
                    except OSError as error:
                        yield _broken(part, f"example {number}", str(error))
                    number += 1
            except OSError as error:
                yield _broken(part, f"example {number} and those after it", str(error))

    return Collection(
        name=builder.info.full_name,
        place=str(builder.data_dir),
        classes=reader.classes,
        count=sum(packing.examples(builder, part) for part in splits),
        stream=stream,
        notes=tuple(
            f"{text}: {len(metadata[key]):,}" for key, text in _NOTED.items() if metadata.get(key)
        ),
    )


def _pending(split: str, reader: "Reader", frame: "Frame", overlaps: Mapping[str, int]) -> Pending:
    values, frame = reader.parsed(frame), frame._replace(data=b"")
    key, _, _ = reader.names.of(values, frame)

    def read() -> Example:
        made = reader.example(values, frame)
        return Example(
            id=made.id,
            group=made.group,
            image=made.file,
            mask=made.mask,
            instances=made.instances,
            overlap=overlaps.get(made.id, 0),
        )

    return Pending(split=split, id=key, read=read)


def _broken(split: str, name: str, message: str) -> Pending:
    def read() -> Example:
        raise OSError(message)

    return Pending(split=split, id=name, read=read)

"""Examples written to the files of a TFDS dataset: in order, on all cores, in bounded memory.

TFDS collects a split, a gigabyte in memory and the rest on disk, to shuffle it and to count the
files that it needs. Here both are known before the first example is read. So examples are written
as they are read, and a shard depends on its own examples alone: this process and a worker of Apache
Beam write the same bytes. The contents of an example are not known here.
"""

import collections
import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from segdata.building import internals
from segdata.core.system import parallel

Path = os.PathLike[str]

_SMALLEST = 8 << 20  # bytes of a file; TFDS makes one file, which cannot be shuffled, of 128 MiB
_OVERHEAD = 16  # bytes of an example in a TFRecord file
_MOST_FILES = 1024  # of a split, unless more are asked for


def number(examples: int, *, size: int, asked: int | None) -> int:
    """The number of files of a split.

    Args:
        examples: The number of its examples.
        size: The approximate bytes of one.
        asked: The number that the user asks for, or None.

    Raises:
        ValueError: If `asked` is less than 1 or more than the examples.
    """
    if not 1 <= (1 if asked is None else asked) <= examples:
        raise ValueError(
            f"num_shards={asked}: a split has {examples} examples, each file holds one at least."
        )
    if asked:
        return asked
    most = min(examples * (size + _OVERHEAD) // _SMALLEST, examples, _MOST_FILES)
    return 1 << max(0, most.bit_length() - 1)  # a power of two, as with TFDS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """A serialized example.

    Attributes:
        id: Unique in the dataset.
        group: The examples of a group are contiguous.
        data: The bytes to write; None if it is skipped, with notes only.
        notes: For the dataset's metadata: the name of a note to its value.
    """

    id: str
    group: str
    data: bytes | None
    notes: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Part:
    """A split to write.

    Attributes:
        entries: The entries of its examples, in the order of writing.
        record: Makes a record of one; called from several threads at once, or on another machine.
    """

    entries: Sequence[Any]
    record: Callable[[Any], Record]

    def shares(self, count: int) -> list["Part"]:
        """The same in so many parts, one after the other."""
        ends = (round(len(self.entries) * index / count) for index in range(count + 1))
        return [
            dataclasses.replace(self, entries=self.entries[first:last])
            for first, last in itertools.pairwise(ends)
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
    """Facts about a shard.

    Attributes:
        size: Bytes of its examples.
        groups: The group of each example, in order.
        notes: The name of a note to the examples that have it, with its value.
    """

    size: int
    groups: list[str]
    notes: dict[str, dict[str, Any]]


def write(
    parts: Mapping[str, Part],
    paths: Mapping[str, Sequence[Path]],
    *,
    to: tfds.core.ExampleWriter,
) -> dict[str, list[Written]]:
    """Writes splits on all cores of this process.

    Args:
        parts: Split to its part.
        paths: Split to its files.
        to: Writes a file.

    Returns:
        Split to the facts of each of its files.
    """
    return {split: list(_write(parts[split], paths[split], to)) for split in parts}


def write_on_beam(
    parts: Mapping[str, Part],
    paths: Mapping[str, Sequence[Path]],
    *,
    to: tfds.core.ExampleWriter,
    config: tfds.download.DownloadConfig,
) -> dict[str, list[Written]]:
    """The same on Apache Beam, a shard at a time on each of its workers.

    Args:
        parts: As for `write`.
        paths: As for `write`, in a folder that all workers share.
        to: As for `write`.
        config: For its `beam_runner` and `beam_options`.
    """
    import apache_beam as beam

    def shard(place: tuple[str, int]) -> None:
        split, index = place
        path = paths[split][index]
        share = parts[split].shares(len(paths[split]))[index]
        (written,) = _write(share, [path], to)
        _note(path).write_text(json.dumps(dataclasses.asdict(written)))

    places = [(split, index) for split in paths for index in range(len(paths[split]))]
    with beam.Pipeline(runner=config.beam_runner, options=config.beam_options) as pipeline:
        _ = pipeline | beam.Create(places) | beam.Reshuffle() | beam.Map(shard)
    return {split: [_taken(_note(path)) for path in paths[split]] for split in paths}


def _write(part: Part, paths: Sequence[Path], to: tfds.core.ExampleWriter) -> Iterator[Written]:
    parallel.tune_malloc()
    records = parallel.ordered_map(part.record, part.entries)
    name = os.path.basename(paths[0]).partition(".")[0]
    shown = internals.progress(
        records, desc=f"Writing {name}...", unit=" examples", total=len(part.entries), leave=False
    )
    with shown:  # ends the bar before an error is printed
        passing = iter(shown)  # one iterator for all files, as its end closes the bar
        for path, share in zip(paths, part.shares(len(paths)), strict=True):
            yield _shard(path, itertools.islice(passing, len(share.entries)), to)


def _shard(path: Path, records: Iterator[Record], to: tfds.core.ExampleWriter) -> Written:
    size = 0
    groups: list[str] = []
    notes = collections.defaultdict[str, dict[str, Any]](dict)

    def examples() -> Iterator[tuple[int, bytes]]:
        nonlocal size
        for record in records:
            for note, value in record.notes.items():
                notes[note][record.id] = value
            if record.data is not None:
                size += len(record.data)
                groups.append(record.group)
                yield len(groups), record.data

    to.write(path, examples())
    return Written(size=size, groups=groups, notes=dict(notes))


def _note(path: Path) -> pathlib.Path:
    return pathlib.Path(f"{os.fspath(path)}.json")


def _taken(note: pathlib.Path) -> Written:
    written = Written(**json.loads(note.read_text()))
    note.unlink()
    return written

"""Examples written to the files of a TFDS dataset: in order, on all cores, in bounded memory.

TFDS gathers a split, a gigabyte in memory and the rest on disk, to shuffle it and to see how many
files it needs. Here both are settled before the first example is read. So examples pass through,
and a shard depends on nothing but its own: it is the same whoever writes it, this process or a
worker of Apache Beam. Nothing is known here of what an example holds.
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
    """How many files a split has.

    Args:
        examples: How many it has of those.
        size: Bytes of one, about.
        asked: How many files the user wants, if it matters.

    Raises:
        ValueError: If there are fewer examples than files, or no files are asked for.
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
    """An example as it is written.

    Attributes:
        id: Unique in the dataset.
        group: Examples of one group lie side by side.
        data: What is written; None if it is left out, and only its notes count.
        notes: What goes to the dataset's metadata: the name of a note to its value.
    """

    id: str
    group: str
    data: bytes | None
    notes: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Part:
    """A split that is to be written.

    Attributes:
        entries: What it is read from, in the order in which it is written.
        record: Makes one; called from several threads at once, or on another machine.
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
    """What is to be known of a shard.

    Attributes:
        size: Bytes of its examples.
        groups: The group of each, in turn.
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
        paths: Split to the files that share it.
        to: Writes a file.

    Returns:
        Split to what each of its files holds.
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
        config: Whose `beam_runner` and `beam_options` are used.
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
    passing = iter(shown)  # once: it ends the bar when it is let go
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

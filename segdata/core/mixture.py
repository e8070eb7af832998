"""Several packed files as one training: exact shares, one label space.

Position p of the mixture belongs to one of its sources, and is position c of that source's own
stream, where c counts its earlier positions: a closed form, so batch k is a function of (seed, k),
and each source passes through its own epochs as if it were alone. Class ids become those of the
mixture by a table of 256.
"""

import dataclasses
import fractions
import functools
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from segdata.core import IGNORE_LABEL, plan
from segdata.core.augment import Augment
from segdata.core.records import NOWHERE, Records
from segdata.core.stream import Batch, Pool, Stream, Then, Training, rows_of
from segdata.core.system import arguments
from segdata.core.system.compiling import compiled

LONGEST_PERIOD = 1 << 20
"""Of the pattern that sources alternate in: the largest sum of their weights as integers."""
MOST_SOURCES = 255
"""Of a mixture, and weights that differ within a source."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """What a mixture takes from one packed file.

    Attributes:
        records: An open packed file.
        share: Its part of the examples, relative to the other shares; above 0.
        augment: What may happen to each of its examples.
        table: uint8 [256], the mixture's class id of each of its own; None where they are the same.
        weights: How often each record is taken, relative to the others, [count]; 0 is never. None
            takes all alike.
    """

    records: Records
    share: Any
    augment: Augment | None = None
    table: np.ndarray | None = None
    weights: Sequence[Any] | np.ndarray | None = None


class Part(NamedTuple):
    """Records of a source that have the same weight.

    Attributes:
        source: The number of the source.
        stream: The records alone, one example a batch; never a batch of it is made.
        table: uint8 [256], class ids to those of the mixture.
        most: The largest number of its examples in one batch of this shard.
    """

    source: int
    stream: Stream
    table: np.ndarray
    most: int

    @property
    def keeps(self) -> bool:
        """Whether class ids stay as they are."""
        return bool((self.table == np.arange(256)).all())


class Shares:
    """Whose each position of an endless row is, in exact shares.

    Among the first n positions, for any n, each source has n times its share of them, to within
    less than one; so in any n that follow each other, to within less than two. The pattern repeats.

    Source: Baruah, Cohen, Plaxton, Varvel, "Proportionate progress", 1996: of those that are not
    ahead of their share, the one whose deadline is next.

    Attributes:
        weights: int64 [K], whole numbers without a common divisor.
        period: Their sum, the length of the pattern.
        pattern: int64 [period], whose each position is.
        place: int64 [period], which of its own it is, from 0.
    """

    def __init__(self, weights: Sequence[int]):
        self.weights = np.array(weights, np.int64)
        self.period = int(self.weights.sum())
        self.pattern, self.place = _pattern(self.weights)

    def of(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whose positions int64 [N] are, and which of its own each is; int64 [N] each."""
        turn, at = np.divmod(position, self.period)
        whose = self.pattern[at]
        return whose, turn * self.weights[whose] + self.place[at]

    def before(self, position: int, whose: int) -> int:
        """How many positions before this one are of a source."""
        turn, at = divmod(position, self.period)
        held = int(np.count_nonzero(self.pattern[:at] == whose))
        return turn * int(self.weights[whose]) + held

    def most(self, count: int, whose: int) -> int:
        """More of a source there never are among `count` positions that follow each other."""
        return min(count, -(-count * int(self.weights[whose]) // self.period) + 1)


class Mixture(Training):
    """The batches of a training on several packed files.

    Attributes:
        names: Of the sources, in order.
        classes: The names of the classes, by their ids in the masks; empty where they have none.
        shares: Whose each position is.
        strata: Of each source the first of its parts, and which part each of its positions is of.
        parts: What batches are made from.
        taken: By source its records whose weight is above 0, in their order.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        *,
        batch: int,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        shard: tuple[int, int] = (0, 1),
        then: Then | None = None,
        classes: Sequence[str] = (),
    ):
        """Prepares the mixture; reads nothing yet.

        Args:
            sources: By name.
            batch: Examples a batch, over all shards.
            seed: As for a `Stream`; all sources have the same.
            size: Height and width of examples; that of the records where None.
            shard: As for a `Stream`.
            then: As for a `Stream`, of image, mask and sources int64 [B].
            classes: Names, by their ids in the mixture.

        Raises:
            ValueError: If an argument is out of range, or they do not fit each other.
        """
        self._anew = functools.partial(
            Mixture,
            sources,
            batch=batch,
            seed=seed,
            size=size,
            shard=shard,
            then=then,
            classes=classes,
        )
        super().__init__(batch=batch, shard=shard, then=then)
        _require(sources)
        self.names, self.classes = tuple(sources), tuple(classes)
        self.size = size = size or _common_size(sources)
        shares = {f"the share of {name}": source.share for name, source in sources.items()}
        self.shares = Shares(whole(shares))
        self.strata: list[tuple[int, Shares]] = []
        self.parts: list[Part] = []
        self.taken: dict[str, Records] = {}
        for number, (name, source) in enumerate(sources.items()):
            most = self.shares.most(self.own, number)
            chosen, strata = _strata(name, source)
            self.taken[name] = _taken(source)
            self.strata.append((len(self.parts), strata))
            for inner, records in enumerate(chosen):
                stream = _stream(name, records, augment=source.augment, seed=seed, size=size)
                table = _table(name, source.table, classes=len(self.classes))
                self.parts.append(Part(number, stream, table, strata.most(most, inner)))
        self.files = tuple({x.records.path: x.records for x in sources.values()}.values())
        self.count = sum(part.stream.count for part in self.parts)
        self._planned = functools.lru_cache(maxsize=16)(self._steps)
        self._pool = Pool()

    def __reduce__(self) -> Any:
        """Other processes open the files anew."""
        return self._anew, ()

    def order(self, first: int, steps: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Of the examples of some steps the parts, and their positions in them.

        Returns:
            int64 [steps, own] each.
        """
        position = plan.positions(first, steps, batch=self.examples, shard=self.shard)
        source, place = self.shares.of(position)
        part = np.empty_like(source)
        for number, (start, strata) in enumerate(self.strata):
            held = np.flatnonzero(source == number)
            inner, place[held] = strata.of(place[held])
            part[held] = start + inner
        return part.reshape(steps, self.own), place.reshape(steps, self.own)

    def sources(self, step: int) -> np.ndarray:
        """The number of the source of each row of a batch, int64 [B].

        Raises:
            ValueError: If it is no step.
        """
        part, _ = self.order(self.steps(step, 1)[0])
        return np.array([part.source for part in self.parts])[part[0]]

    def padded(self, first: int, steps: int) -> tuple[list[np.ndarray], np.ndarray]:
        """The order of some steps as arrays of fixed shapes, for compilers of graphs.

        Returns:
            Of each part the positions to make, int64 [steps, most]: those that a batch holds and
            some that follow. And which of what is made, part after part, each row is: int64
            [steps, own].
        """
        part, place = self.order(first, steps)
        made, row, before = [], np.zeros_like(part), 0
        for number, each in enumerate(self.parts):
            held = part == number
            start = np.where(held, place, place.max() + 1).min(axis=1, keepdims=True)
            made.append(start + np.arange(each.most))
            row = np.where(held, before + place - start, row)
            before += each.most
        return made, row

    def account(self, steps: range) -> dict[str, dict[str, Any]]:
        """What the batches of some steps hold of each source, over all shards.

        Args:
            steps: A range without gaps, such as `steps` gives.

        Returns:
            By the source's name `images`, how many examples. And of the records that these were
            taken from, whole, before any crop and augmentation: `pixels`, their number; `classes`,
            those of each class by its name (its id where it has none); and `ignored`, those of the
            ignore label. The two together are all pixels.

        Raises:
            ValueError: If it is no such range, or out of range.
        """
        if not isinstance(steps, range) or steps.step != 1:
            raise ValueError(f"steps={steps!r:.60} is no range without gaps, such as range(0, 10).")
        steps = self.steps(steps.start, steps.stop - steps.start)
        begin, end = (step * self.examples for step in (steps.start, steps.stop))
        counts = [np.zeros(257, np.int64) for _ in self.names]
        for number, (start, strata) in enumerate(self.strata):
            ends = [self.shares.before(at, number) for at in (begin, end)]
            for inner in range(len(strata.weights)):
                first, last = (strata.before(at, inner) for at in ends)
                counts[number] += self._counted(start + inner, first, last)
        return {
            name: {
                "images": int(count[256]),
                "pixels": int(count[:256].sum()),
                "classes": self._named(count),
                "ignored": int(count[IGNORE_LABEL]),
            }
            for name, count in zip(self.names, counts, strict=True)
        }

    def _made(self, step: int) -> Batch:
        first, count, own = self._block(step)
        image, mask = (self._pool.take((self.own, *self.size, channels)) for channels in (3, 1))
        for part, (row, planned) in zip(self.parts, self._planned(first, count), strict=True):
            held = slice(*np.searchsorted(row, (own.start, own.stop)))
            if held.start < held.stop:
                rows = row[held] - own.start
                part.stream.render_to(image, mask, rows_of(planned, held), rows)
                if not part.keeps:
                    _relabel(rows, part.table, mask.reshape(len(mask), -1))
        return (image, mask, self.sources(step)) if self.then else (image, mask)

    def _named(self, count: np.ndarray) -> dict[str, int]:
        ids = range(len(self.classes)) or np.flatnonzero(count[:IGNORE_LABEL])
        names = self.classes or [str(label) for label in ids]
        return {name: int(count[label]) for name, label in zip(names, ids, strict=True)}

    def _counted(self, number: int, first: int, last: int) -> np.ndarray:
        """Pixels of each class id at positions of a part, and last the images; int64 [257]."""
        stream, records = self.parts[number].stream, self.parts[number].stream.records
        count, known = records.count, self._histograms[number]
        begin, end = -(-first // count), last // count  # the whole epochs
        edges = [range(first, last)]
        sums = np.zeros(256, np.int64)
        if begin <= end:
            edges = [range(first, begin * count), range(end * count, last)]
            sums += (end - begin) * known[np.asarray(records.rows)].sum(axis=0)
        for edge in edges:
            row, _ = stream.plan.at(np.asarray(edge, np.int64))
            sums += known[row].sum(axis=0)
        out = np.zeros(257, np.int64)
        out[256] = last - first
        np.add.at(out, self.parts[number].table, sums)
        return out

    @functools.cached_property
    def _histograms(self) -> list[np.ndarray]:
        """Of each part the pixels of each class id in each record; int64 [total, 256]."""
        rows: dict[Any, list[np.ndarray]] = {}
        for part in self.parts:
            records = part.stream.records
            rows.setdefault(records.path, []).append(np.asarray(records.rows))
        known = {
            records.path: _histograms(records, np.unique(np.concatenate(rows[records.path])))
            for records in self.files
        }
        return [known[part.stream.records.path] for part in self.parts]

    def _steps(self, first: int, steps: int) -> list[tuple[np.ndarray, plan.Step]]:
        """Of each part the rows among those of some steps, and what happens to them."""
        part, place = (x.reshape(-1) for x in self.order(first, steps))
        planned = []
        for number, each in enumerate(self.parts):
            row = np.flatnonzero(part == number)
            own = each.stream.plan
            planned.append((row, own.of(*own.at(place[row]))))
        return planned


def whole(shares: Mapping[str, Any]) -> list[int]:
    """Whole numbers in the ratios of shares, without a common divisor.

    Args:
        shares: By what each is called in messages: integers, fractions, or floats, which stand
            for the simplest fraction that rounds to them: 0.1 for 1/10.

    Raises:
        ValueError: If one is not above 0, or the pattern would be longer than `LONGEST_PERIOD`.
    """
    given = {name: fraction(name, value) for name, value in shares.items()}
    common = math.lcm(*(value.denominator for value in given.values()))
    found = [int(value * common) for value in given.values()]
    divisor = math.gcd(*found)
    found = [value // divisor for value in found]
    if sum(found) > LONGEST_PERIOD:
        raise ValueError(
            f"{', '.join(f'{name}: {value}' for name, value in given.items()):.200}: shares repeat "
            f"after {LONGEST_PERIOD:,} examples at most, these after {sum(found):,}. Give simpler "
            "ones, such as small whole numbers."
        )
    return found


def fraction(name: str, value: Any) -> fractions.Fraction:
    """A share or a weight as a fraction, named in messages.

    Raises:
        ValueError: If it is no number above 0, or a float that stands for no simple fraction.
    """
    found = None if isinstance(value, bool) else arguments.floats([value])
    if found is None or not 0 < found[0] < math.inf:
        raise ValueError(f"{name} is {value!r}; it must be a number above 0.")
    if isinstance(value, numbers.Rational):
        return fractions.Fraction(int(value.numerator), int(value.denominator))
    simple = fractions.Fraction(found[0]).limit_denominator(LONGEST_PERIOD)
    if float(simple) != found[0]:
        raise ValueError(
            f"{name} is {value!r}, no fraction with a denominator up to {LONGEST_PERIOD:,}. Give a "
            "whole number, relative to the others."
        )
    return simple


def by_class(records: Records, factors: Mapping[int, Any]) -> np.ndarray:
    """Weights of records by the classes that they hold.

    Args:
        records: An open packed file.
        factors: Of classes, by their ids in the file.

    Returns:
        The largest factor of a class that the record has; 1 where it has none of them; [count].

    Raises:
        ValueError: If the index does not know of a class.
    """
    places = records.index()["places"][np.asarray(records.rows)]
    weights = np.ones(records.count, object)
    for label, factor in sorted(factors.items(), key=lambda item: item[1]):
        if not 0 <= label < places.shape[1]:
            raise ValueError(
                f"the weight of class {label}: {records.path} has classes below {places.shape[1]}."
            )
        weights[places[:, label, 0] != NOWHERE] = factor
    return weights


def _require(sources: Mapping[str, Source]) -> None:
    if not sources or len(sources) > MOST_SOURCES:
        raise ValueError(f"{len(sources)} sources: a mixture has 1 to {MOST_SOURCES}.")
    for name, source in sources.items():
        if not isinstance(source.records, Records):
            raise ValueError(f"{name}: {source.records!r:.60} is no open packed file.")


def _common_size(sources: Mapping[str, Source]) -> tuple[int, int]:
    sizes = {name: source.records.size for name, source in sources.items()}
    size = next(iter(sizes.values()))
    if size is None or len(set(sizes.values())) > 1:
        found = ", ".join(f"{name} {size or 'of several sizes'}" for name, size in sizes.items())
        raise ValueError(f"size=None: the records differ in size: {found}; give a size.")
    return size


def _stream(name: str, records: Records, **options: Any) -> Stream:
    try:
        return Stream(records, batch=1, **options)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _strata(name: str, source: Source) -> tuple[list[Records], Shares]:
    """The records of each weight, and in which pattern they alternate."""
    records = source.records
    if source.weights is None:
        return [records], Shares([1])
    weights = list(source.weights)
    if len(weights) != records.count:
        raise ValueError(f"{name} has {records.count:,} examples and {len(weights):,} weights.")
    held: dict[Any, list[int]] = {}
    for number, weight in enumerate(weights):
        held.setdefault(weight, []).append(number)
    held.pop(0, None)
    if not 1 <= len(held) <= MOST_SOURCES:
        raise ValueError(
            f"{name} has {len(held):,} weights above 0 that differ: 1 to {MOST_SOURCES}."
        )
    shares = {
        f"{name}, weight {weight}": fraction(f"a weight of {name}", weight) * len(rows)
        for weight, rows in held.items()
    }
    return [records.select(rows) for rows in held.values()], Shares(whole(shares))


def _taken(source: Source) -> Records:
    """The records whose weight is above 0."""
    if source.weights is None:
        return source.records
    return source.records.select([i for i, weight in enumerate(source.weights) if weight])


def _table(name: str, table: Any, *, classes: int) -> np.ndarray:
    """Checks a table of class ids."""
    if table is None:
        return np.arange(256, dtype=np.uint8)
    table = np.asarray(table)
    if table.shape != (256,) or table.dtype != np.uint8 or table[IGNORE_LABEL] != IGNORE_LABEL:
        raise ValueError(
            f"the table of {name} is {table.dtype} {table.shape}: uint8 (256,), and 255 stays 255."
        )
    known = table[table != IGNORE_LABEL]
    if classes and len(known) and known.max() >= classes:
        raise ValueError(f"the table of {name} has class {known.max()} of {classes}.")
    return table


@compiled
def _pattern(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whose each position of a period is, and which of its own it is; int64 [sum] each."""
    period = weights.sum()
    given = np.zeros(len(weights), np.int64)
    pattern, place = np.empty(period, np.int64), np.empty(period, np.int64)
    for at in range(period):
        chosen, soonest = 0, period + 1
        for k in range(len(weights)):
            deadline = ((given[k] + 1) * period + weights[k] - 1) // weights[k]
            is_ahead = given[k] * period >= (at + 1) * weights[k]
            if not is_ahead and deadline < soonest:
                chosen, soonest = k, deadline
        pattern[at], place[at] = chosen, given[chosen]
        given[chosen] += 1
    return pattern, place


@compiled
def _relabel(rows: np.ndarray, table: np.ndarray, mask: np.ndarray) -> None:
    """Class ids of some rows of a batch by a table; uint8 [B, N], changed in place."""
    for i in range(len(rows)):
        row = mask[rows[i]]
        for x in range(len(row)):
            row[x] = table[row[x]]


def _histograms(records: Records, rows: np.ndarray) -> np.ndarray:
    index = records.index()
    area = index["height"].astype(np.int64) * index["width"]
    return _histogram(records.words(), index["start"].astype(np.int64), area, rows)


@compiled
def _histogram(
    words: np.ndarray, start: np.ndarray, area: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Pixels of each class id in some records; int64 [total, 256]."""
    out = np.zeros((len(start), 256), np.int64)
    for row in rows:
        for x in range(start[row], start[row] + area[row]):
            out[row, words[x] >> np.uint32(24)] += 1
    return out

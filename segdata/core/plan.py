"""The plan of a training: for any step, which examples it holds and what happens to each.

A plan is numbers, drawn from a hash of (seed, epoch, example) and nothing else; an engine turns
records and these numbers into pixels, and draws nothing. All of it is integer arithmetic, so it is
the same on every machine: fixed point with 16 binary places where no other number is given.

`parameters` is an array expression over what `xp` holds: NumPy's for a plan that is kept in memory,
or a compiler's for a graph that plans itself.
"""

import dataclasses
import decimal
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from segdata.core import IGNORE_LABEL, random
from segdata.core.augment import Augment
from segdata.core.random import Array
from segdata.core.records import NOWHERE

ONE = 1 << 16
MAX_SIDE = 4096
"""Of an example that is warped, in pixels; of the record that it is cut from, twice as many.

Coordinates have 16 binary places in 32 bits: turned by 45° and at a quarter of the size, a corner
is 2·√2·4,096 pixels from the centre, and the centre up to 2·8,192 away."""
NOISE_DEVIATION = math.sqrt(4 * (256**2 - 1) / 12)
"""Of the sum of four random bytes, which is close to Gaussian (Irwin-Hall)."""
CUTOUT = 0x808080
"""What covers pixels: mid-grey, in a word of red, green and blue."""

_HALF_FRACTION = 1 << 30  # of what `random.fraction` gives
_QUARTER = 1 << 28  # of a full turn
_GREY = (19595, 38470, 7471)  # ITU-R BT.601; they sum to ONE
_SHUFFLES = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
_REACH = 13_200  # pixels of a centre beyond its record: with it all of the example is outside
_SUM_DEVIATION = round(math.sqrt(4 * (65536**2 - 1) / 12))  # of the sum of four 16-bit numbers
_LN2 = round(math.log(2) * (1 << 30))
# Each draw has its own place in the hash, so that switching one on leaves the others alone. New
# ones come last, and none is removed.
_SLOTS = {
    name: slot
    for slot, name in enumerate(
        (
            *("horizontal_flip", "vertical_flip", "quarter_turns", "rotation_range"),
            *("scale_range", "shift_x", "shift_y", "brightness_range", "contrast_range"),
            *("saturation_range", "noise_range", "noise", "hue_range", "channel_shuffle", "grey"),
            *("gamma_range", "blur_range", "elastic_range", "elastic", "window_y", "window_x"),
            *("cutout", "cutout_height", "cutout_width", "cutout_y", "cutout_x"),
            *("cutmix", "cutmix_height", "cutmix_width", "cutmix_y", "cutmix_x", "partner"),
            *("foreground", "foreground_class", "foreground_place", "foreground_y", "foreground_x"),
        )
    )
}


class Parameters(NamedTuple):
    """What happens to each of N examples. Of what never happens the first axis is 0.

    Attributes:
        row: int64 [N], the record.
        window: int32 [N, 2], the top and left pixel of the record's window, outside of the record
            where that is the smaller; where all is warped it is in the map.
        symmetry: int32 [N, 3], 1 to transpose, then to flip left-right, then up-down; likewise.
        map: int32 [N, 2, 3], output pixel to the record's pixel: the rows give x and y, the columns
            multiply twice the output's distance from its centre in x and in y, and 1.
        elastic: int32 [N, G+2, G+2, 2], displacements in x and y at the points of a grid and one
            beyond, in 256ths of a pixel.
        blur: int32 [N, R+1], the weights of a pixel and those up to R away, 15 binary places.
        matrix: int32 [N, 3, 3], colour to colour; where no channel depends on another, int32 [N, 1,
            1], which multiplies each.
        offset: int32 [N, 3], added to it.
        deviation: int32 [N], what multiplies the noise.
        noise_key: uint32 [N].
        gamma: uint8 [N, 256], the last look-up of each colour.
        cutout: int32 [N, 4], top, bottom, left, right of what is covered; empty where it is 0.
        paste: int32 [N, 4], the same of what comes from the partner.
    """

    row: Array
    window: Array
    symmetry: Array
    map: Array
    elastic: Array
    blur: Array
    matrix: Array
    offset: Array
    deviation: Array
    noise_key: Array
    gamma: Array
    cutout: Array
    paste: Array

    @classmethod
    def none(cls, xp: Any = np) -> "Parameters":
        """Of no example at all."""
        ends = {"row": (), "window": (2,), "symmetry": (3,), "map": (2, 3), "elastic": (2, 2, 2)}
        ends |= {"blur": (1,), "matrix": (1, 1), "offset": (3,), "deviation": (), "noise_key": ()}
        ends |= {"gamma": (256,), "cutout": (4,), "paste": (4,)}
        kinds = {"row": np.int64, "noise_key": np.uint32, "gamma": np.uint8}
        return cls(
            **{name: xp.zeros((0, *end), kinds.get(name, np.int32)) for name, end in ends.items()}
        )


class Step(NamedTuple):
    """Some steps of a plan: the examples in turn, and their partners in CutMix, if there is any."""

    own: Parameters
    partner: Parameters


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """What each step of a training holds: a pure function of the seed and the step.

    Step k holds positions k·B to k·B+B-1 of an endless row of epochs, each a keyed permutation of
    all records.

    Attributes:
        rows: The records, by their rows in the index.
        record: Their height and width in pixels; None where they differ.
        size: Height and width of the examples.
        batch: Examples a step, B, over all shards.
        augment: What may happen to an example.
        seed: Any integer.
        index: What is known of each record, `records.index_type`; needed where sizes differ,
            contrast changes or crops hold the foreground.
        shard: Which part of each batch is planned, and into how many parts it is cut.
    """

    rows: range | np.ndarray
    record: tuple[int, int] | None
    size: tuple[int, int]
    batch: int
    augment: Augment
    seed: int
    index: np.ndarray | None = None
    shard: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        """Checks that the settings fit the sizes.

        Raises:
            ValueError: If they do not.
        """
        if not self.count:
            raise ValueError("rows: there are no records to plan with.")
        index, largest = self.index, self.record
        if largest is None:
            assert index is not None
            largest = int(index["height"].max()), int(index["width"].max())
        require_fit(
            self.augment,
            record=self.record,
            size=self.size,
            classes=0 if index is None else index["places"].shape[1],
            largest=largest,
        )
        require_shard(self.shard, batch=self.batch)

    @property
    def count(self) -> int:
        """How many records there are."""
        return len(self.rows)

    @property
    def own(self) -> int:
        """Examples a step in this shard."""
        return self.batch // self.shard[1]

    def row(self, place: np.ndarray) -> np.ndarray:
        """The rows of records by their places among all of them, int64."""
        if isinstance(self.rows, range):
            return place * self.rows.step + self.rows.start
        return self.rows[place]

    def order(self, first: int, steps: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the records of some steps, and their epochs; int64 [steps·own] each."""
        return self.at(positions(first, steps, batch=self.batch, shard=self.shard))

    def at(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the records at positions int64 [N], and their epochs; int64 [N] each."""
        epoch, place = np.divmod(position, self.count)
        keys = random.key(random.seeded(self.seed), epoch.astype(np.uint64))
        return self.row(random.permute(keys, place, self.count)), epoch

    def steps(self, first: int, steps: int = 1) -> Step:
        """What happens in some steps.

        Args:
            first: The first of them.
            steps: How many, S.

        Returns:
            Parameters of S·own examples, step by step.
        """
        return self.of(*self.order(first, steps))

    def of(self, row: np.ndarray, epoch: np.ndarray) -> Step:
        """What happens to some records in some epochs, int64 [N] each, in whichever step."""
        seed = random.seeded(self.seed)
        own = partner = self._parameters(row, epoch)
        if self.augment.cutmix:
            others = partners(seed=seed, epoch=epoch, row=row, count=self.count)
            partner = self._parameters(self.row(others), epoch)
        return Step(own, partner)

    def _known(self, field: str, use: str, row: np.ndarray) -> np.ndarray | None:
        """What the index knows of some records, where the settings use it."""
        if self.index is None or not self.augment.uses(use):
            return None
        return self.index[field][row]

    def _parameters(self, row: np.ndarray, epoch: np.ndarray) -> Parameters:
        index = self.index
        record: Any = self.record
        if record is None:
            assert index is not None
            record = [index[side][row].astype(np.int64) for side in ("height", "width")]
        return parameters(
            self.augment,
            seed=random.seeded(self.seed),
            epoch=epoch,
            row=row,
            record=record,
            size=self.size,
            means=self._known("means", "contrast_range", row),
            places=self._known("places", "foreground", row),
        )


def positions(first: int, steps: int, *, batch: int, shard: tuple[int, int]) -> np.ndarray:
    """The positions that some steps hold in a shard, step by step; int64 [steps·own]."""
    index, shards = shard
    own = batch // shards
    place = np.arange(own, dtype=np.int64) + index * own
    return (np.arange(first, first + steps, dtype=np.int64)[:, None] * batch + place).reshape(-1)


def require_shard(shard: tuple[int, int], *, batch: int) -> None:
    """Raises ValueError if it is no part of a batch."""
    index, shards = shard
    if not 0 <= index < shards or batch % shards:
        raise ValueError(
            f"shard={shard} of batch={batch}: an index from 0 and a number of shards that is "
            "larger and divides the batch."
        )


def require_fit(
    settings: Augment,
    *,
    record: tuple[int, int] | None,
    size: tuple[int, int],
    classes: int = 0,
    largest: tuple[int, int] | None = None,
) -> None:
    """Refuses settings that do not fit the records.

    Args:
        settings: What may happen.
        record: Height and width of all records; None where they differ.
        size: Of the examples.
        classes: How many the records have; needed for the foreground.
        largest: Height and width that no record exceeds; None where that is not known yet.

    Raises:
        ValueError: If quarter turns meet examples that are not square, a warp meets sides over
            4,096 pixels, an example is larger than records of one size, or the records do not have
            the classes of the foreground.
    """
    height, width = size
    if record and (height > record[0] or width > record[1]):
        raise ValueError(
            f"size={height}×{width}: records of {record[0]}×{record[1]} hold no such window."
        )
    if settings.quarter_turns and height != width:
        raise ValueError(
            f"quarter_turns=True needs square examples, these are {height}×{width}. "
            "Choose a square size, or flips."
        )
    largest = largest or record or size
    if settings.warps and (max(size) > MAX_SIDE or max(largest) > 2 * MAX_SIDE):
        raise ValueError(
            f"rotation, scale, shift and elastic take sides up to {MAX_SIDE:,}, these are "
            f"{height}×{width}, of records of {largest[0]}×{largest[1]}."
        )
    if settings.foreground:
        wanted = foreground_classes(settings, classes)
        if size == record:
            raise ValueError(
                f"foreground={settings.foreground:g} is for crops, and the records are as large as "
                "the examples; pack larger ones (record_size=), or leave it out."
            )
        if not wanted or max(wanted) >= classes:
            raise ValueError(
                f"foreground={settings.foreground:g} of the classes {list(wanted)}: the records "
                f"have the classes below {classes}."
            )


def foreground_classes(settings: Augment, known: int) -> tuple[int, ...]:
    """The classes that crops are to hold, of those that the index knows; never the ignore label."""
    return settings.foreground_classes or tuple(range(1, min(known, IGNORE_LABEL)))


def partners(*, seed: Array, epoch: Array, row: Array, count: int, xp: Any = np) -> Array:
    """The place among `count` records of what each example is mixed with, int64 [N]."""
    keys = _keys(seed, epoch, row, xp)
    return xp.right_shift(random.fraction(keys, _SLOTS["partner"], xp) * count, 31)


def parameters(
    settings: Augment,
    *,
    seed: Array,
    epoch: Array,
    row: Array,
    record: Sequence[int | Array],
    size: tuple[int, int],
    means: Array | None,
    places: Array | None = None,
    xp: Any = np,
) -> Parameters:
    """Draws what happens to examples.

    Args:
        settings: What may.
        seed: uint64.
        epoch: int64 [N].
        row: int64 [N], which record each is.
        record: Height and width of the records; int64 [N] each where they differ.
        size: Height and width of an example.
        means: int32 [N, 3], of the records; needed where contrast changes.
        places: uint32 [N, classes, 32], of the records; needed for the foreground.
        xp: NumPy, or what gives its functions for tensors.
    """
    draw = _Draws(_keys(seed, epoch, row, xp), settings, xp)
    given = dict(Parameters.none(xp)._asdict(), row=row)
    # A crop of a record of its own size is the record.
    crops = not (isinstance(record[0], int) and tuple(record) == size)
    held = _foreground(draw, places) if crops and settings.foreground else None
    window = _window(draw, record, size, held)
    if settings.warps:
        given["map"] = _map(draw, window, record=record, size=size, held=held)
    else:
        if settings.uses("horizontal_flip", "vertical_flip", "quarter_turns"):
            given["symmetry"] = draw.int32(_symmetry(draw))
        if crops:
            given["window"] = draw.int32(window)
    if settings.uses("elastic_range"):
        given["elastic"] = _elastic(draw, size)
    if settings.uses("blur_range"):
        given["blur"] = _blur(draw)
    if settings.colours:
        given["matrix"], given["offset"] = _colour(draw, means)
    if settings.uses("noise_range"):
        given["deviation"] = xp.astype(_noise_deviation(draw), np.int32)
        given["noise_key"] = xp.astype(draw.bits("noise") & random.u64(0xFFFFFFFF), np.uint32)
    if settings.uses("gamma_range"):
        given["gamma"] = _gamma(draw)
    if settings.uses("cutout"):
        given["cutout"] = _rectangle(draw, "cutout", size)
    if settings.uses("cutmix"):
        given["paste"] = _rectangle(draw, "cutmix", size)
    return Parameters(**given)


def _keys(seed: Array, epoch: Array, row: Array, xp: Any) -> Array:
    epoch, row = xp.astype(epoch, np.uint64), xp.astype(row, np.uint64)
    return random.key(seed, epoch, row, xp=xp)


class _Draws:
    """The random numbers of each key."""

    def __init__(self, keys: Array, settings: Augment, xp: Any):
        self.keys, self.settings, self.xp = keys, settings, xp
        self.zero = xp.astype(keys & random.u64(0), np.int64)

    def bits(self, slot: str) -> Array:
        """uint64 [N]."""
        return random.bits(self.keys, _SLOTS[slot], self.xp)

    def below(self, slot: str, count: int | Array) -> Array:
        """A whole number from 0, below `count`, which is below 2³²; int64 [N]."""
        if isinstance(count, int) and count == 1:
            return self.zero
        return self.xp.right_shift(random.fraction(self.keys, _SLOTS[slot], self.xp) * count, 31)

    def chance(self, name: str) -> Array:
        """Whether what has this probability happens; bool [N]."""
        limit = round(getattr(self.settings, name) * (1 << 31))
        if not limit:
            return self.zero > 0
        return random.fraction(self.keys, _SLOTS[name], self.xp) < limit

    def between(self, name: str, unit: float, slot: str | None = None) -> Array:
        """A number of a range, ends included, in units of 1/`unit`; int64 [N]."""
        least, most = (round(end * unit) for end in getattr(self.settings, name))
        if least == most:
            return self.zero + least
        fraction = random.fraction(self.keys, _SLOTS[slot or name], self.xp)
        return least + self.xp.right_shift(fraction * (most - least) + _HALF_FRACTION, 31)

    def rounded(self, x: Array, places: int) -> Array:
        """Drops binary places, rounding to nearest."""
        return self.xp.right_shift(x + (1 << (places - 1)), places)

    def ratio(self, x: Array, y: Array | int) -> Array:
        """Divides, rounding to nearest."""
        return self.xp.floor_divide(2 * x + y, 2 * y)

    def int32(self, columns: Sequence[Array]) -> Array:
        """Columns beside each other, int32."""
        return self.xp.astype(self.xp.stack(columns, axis=1), np.int32)


class _Held(NamedTuple):
    """What a crop is to hold: whether it is, and the row and column of that pixel; int64 [N]."""

    happens: Array
    y: Array
    x: Array


def _foreground(draw: _Draws, places: Array) -> _Held:
    """A pixel of a class of the foreground, where the record has any."""
    xp, (_, known, kept) = draw.xp, places.shape
    flat = xp.reshape(xp.astype(places, np.int64), [-1, known * kept])
    wanted = foreground_classes(draw.settings, known)
    there = [xp.astype(flat[:, label * kept] != NOWHERE, np.int64) for label in wanted]
    total = sum(there)
    nth = draw.below("foreground_class", xp.maximum(total, 1))
    label, before = draw.zero, draw.zero
    for number, is_there in zip(wanted, there, strict=True):
        label = label + xp.where((is_there > 0) & (before == nth), number + draw.zero, draw.zero)
        before = before + is_there
    column = label * kept + draw.below("foreground_place", kept)
    place = xp.take_along_axis(flat, column[:, None], axis=1)[:, 0]
    return _Held(draw.chance("foreground") & (total > 0), xp.right_shift(place, 16), place & 0xFFFF)


def _window(
    draw: _Draws, record: Sequence[int | Array], size: tuple[int, int], held: _Held | None
) -> list[Array]:
    """Top and left of a part of the record; where the record is the smaller, of what holds it."""
    xp, window = draw.xp, []
    for axis, outer, inner in zip("yx", record, size, strict=True):
        room: Any = outer - inner
        low, high = (0, room) if isinstance(room, int) else (xp.minimum(room, 0), room)
        high = high if isinstance(high, int) else xp.maximum(high, 0)
        first = low + draw.below(f"window_{axis}", high - low + 1)
        if held:
            place = held.y if axis == "y" else held.x
            around = place - draw.below(f"foreground_{axis}", inner)
            around = xp.minimum(xp.maximum(around, low + draw.zero), high + draw.zero)
            first = xp.where(held.happens, around, first)
        window.append(first)
    return window


def _symmetry(draw: _Draws) -> tuple[Array, Array, Array]:
    """Whether to transpose, then to flip left-right, then up-down; int64 [N], 0 or 1."""
    flip_x, flip_y = (
        draw.xp.astype(draw.chance(name), np.int64) for name in ("horizontal_flip", "vertical_flip")
    )
    turns = draw.below("quarter_turns", 4 if draw.settings.quarter_turns else 1)
    # A quarter turn counter-clockwise is a transpose and then an up-down flip; two are both flips.
    two = draw.xp.right_shift(turns, 1)
    return turns & 1, flip_x ^ two, flip_y ^ (turns & 1) ^ two


def _map(
    draw: _Draws,
    window: Sequence[Array],
    *,
    record: Sequence[int | Array],
    size: tuple[int, int],
    held: _Held | None,
) -> Array:
    """`Parameters.map`."""
    xp, settings = draw.xp, draw.settings
    sin, cos = _sine_and_cosine(draw.between("rotation_range", _QUARTER / 90), xp)
    scale = draw.between("scale_range", 1 << 24)
    sin, cos = (draw.ratio(part * 512, scale) for part in (sin, cos))  # halves, 16 places
    (height, width), (top, left) = size, window
    shift_x = draw.rounded(draw.between("shift_range", 1 << 24, "shift_x") * width, 8)
    shift_y = draw.rounded(draw.between("shift_range", 1 << 24, "shift_y") * height, 8)
    transpose, flip_x, flip_y = _symmetry(draw)
    # The output undone from the last step back: shift, rotation and scale, flips, transpose.
    sign_x, sign_y = 1 - 2 * flip_x, 1 - 2 * flip_y
    x, y = (sign_x * cos, -sign_x * sin), (sign_y * sin, sign_y * cos)
    to_x, to_y = (  # where in the example the pixel that it holds comes to lie, from the centre
        2 * xp.clip(place + draw.rounded(shift, 8), 0, side - 1) - (side - 1) if held else 0
        for place, shift, side in (
            (held and held.x - left, shift_x, width),
            (held and held.y - top, shift_y, height),
        )
    )
    rows = []
    for straight, swapped, first, side, whole, axis in (
        (x, y, left, width, record[1], "x"),
        (y, x, top, height, record[0], "y"),
    ):
        by_x, by_y = (
            xp.where(transpose > 0, *pair) for pair in zip(swapped, straight, strict=True)
        )
        moved = draw.rounded(by_x * shift_x + by_y * shift_y, 15)
        constant = first * ONE + (side - 1) * (ONE // 2) - moved
        if held:
            own = getattr(held, axis) * ONE - by_x * to_x - by_y * to_y
            constant = xp.where(held.happens, own, constant)
        if settings.border == "mirror":
            period = 2 * whole * ONE  # the same place in the mirror images
            constant = constant - period * xp.floor_divide(constant, period)
        else:
            constant = xp.clip(constant, -_REACH * ONE, (whole + _REACH) * ONE)
        rows += [by_x, by_y, constant]
    return xp.reshape(draw.int32(rows), [-1, 2, 3])


def _sine_and_cosine(angle: Array, xp: Any) -> tuple[Array, Array]:
    """Of an angle in units of which `_QUARTER` are 90°; 30 binary places, within 2⁻²⁷."""
    quadrant = xp.right_shift(angle + _QUARTER // 2, 28)
    turn = (angle - quadrant * _QUARTER) * 4  # of a quarter, 30 places
    squared = xp.right_shift(turn * turn, 30)

    def series(powers: Sequence[int]) -> Array:
        result: Any = 0
        for power in reversed(powers):
            sign = -1 if power % 4 > 1 else 1
            term = sign * (math.pi / 2) ** power / math.factorial(power)
            result = xp.right_shift(result * squared, 30) + round(term * (1 << 30))
        return result

    sine = xp.right_shift(series((1, 3, 5, 7, 9, 11)) * turn, 30)
    cosine = series((0, 2, 4, 6, 8, 10, 12))
    odd, back = (quadrant & 1) > 0, 1 - (quadrant & 2)
    return (
        back * xp.where(odd, cosine, sine),
        back * xp.where(odd, -sine, cosine),
    )


def _elastic(draw: _Draws, size: tuple[int, int]) -> Array:
    """`Parameters.elastic`."""
    xp, side = draw.xp, draw.settings.elastic_grid + 2
    turn = np.arange(1, 2 * side * side + 1, dtype=np.uint64) * random.u64(random.STEP)
    hashed = random.mix(draw.bits("elastic")[:, None] + turn, xp)
    total = sum(
        xp.astype(xp.right_shift(hashed, random.u64(shift)) & random.u64(0xFFFF), np.int64)
        for shift in (0, 16, 32, 48)
    )
    centred = xp.reshape(total - 2 * 65535, [-1, side, side, 2])
    sides = np.array([size[1], size[0]], np.int64)
    deviation = draw.rounded(draw.between("elastic_range", 1 << 24)[:, None] * sides, 16)
    moved = draw.ratio(centred * deviation[:, None, None, :], _SUM_DEVIATION)
    return xp.astype(moved, np.int32)


def _blur(draw: _Draws) -> Array:
    """`Parameters.blur`."""
    xp, most = draw.xp, draw.settings.blur_range[1]
    radius = math.ceil(3 * most)
    deviation = draw.between("blur_range", 1 << 12)
    squares = np.arange(radius + 1, dtype=np.int64) ** 2
    log2e = round(math.log2(math.e) * (1 << 30))
    variance = 2 * deviation * deviation + 1  # 24 places, never 0
    exponent = xp.floor_divide(squares * (log2e << 10), variance[:, None])
    height = _power_of_half(exponent, xp)
    around = 2 * xp.sum(height, axis=1) - height[:, 0]
    weights = draw.ratio(height * (1 << 15), around[:, None])
    centre = (1 << 15) - 2 * xp.sum(weights[:, 1:], axis=1)
    return xp.astype(xp.concatenate([centre[:, None], weights[:, 1:]], axis=1), np.int32)


def _power_of_half(exponent: Array, xp: Any) -> Array:
    """2⁻ˣ with 30 binary places of x ≥ 0 with 16; int64."""
    whole = xp.minimum(xp.right_shift(exponent, 16), 31)
    power = xp.right_shift((exponent & 0xFFFF) * _LN2, 16)
    result: Any = 0
    for order in reversed(range(10)):
        factor = round((-1) ** order / math.factorial(order) * (1 << 30))
        result = xp.right_shift(result * power, 30) + factor
    return xp.right_shift(result, whole)


def _colour(draw: _Draws, means: Array | None) -> tuple[Array, Array]:
    """`Parameters.matrix` and `offset`."""
    xp, settings = draw.xp, draw.settings
    contrast = draw.between("contrast_range", ONE)
    added = draw.between("brightness_range", ONE) * 255
    if settings.uses("contrast_range") and means is None:
        raise ValueError("contrast_range needs the means of the records.")
    pivots = [0] * 3 if means is None else [xp.astype(means[:, i], np.int64) for i in range(3)]
    matrix = [contrast]
    if settings.mixes:
        rows = _mixing(draw)
        matrix = [draw.rounded(contrast * part, 16) for row in rows for part in row]
        pivots = [
            draw.rounded(sum(a * b for a, b in zip(row, pivots, strict=True)), 16) for row in rows
        ]
    offsets = [added] * 3
    if settings.uses("contrast_range"):
        offsets = [added + draw.rounded((ONE - contrast) * pivot, 16) for pivot in pivots]
    side = 3 if settings.mixes else 1
    return xp.reshape(draw.int32(matrix), [-1, side, side]), draw.int32(offsets)


def _mixing(draw: _Draws) -> list[list[Array]]:
    """What hue, saturation, grey and shuffling make of the channels: [3][3] of int64 [N]."""
    xp, settings = draw.xp, draw.settings
    turned: Any = [[draw.zero + ONE * (i == k) for k in range(3)] for i in range(3)]
    if settings.uses("hue_range"):
        sine, cosine = _sine_and_cosine(draw.between("hue_range", _QUARTER / 90), xp)
        third = draw.ratio((1 << 30) - cosine, 3)
        side = draw.rounded(sine * round((1 << 30) / math.sqrt(3)), 30)
        around = (cosine + third, third + side, third - side)
        turned = [[draw.rounded(around[(i - k) % 3], 14) for k in range(3)] for i in range(3)]
        turned = [[row[0], row[1], ONE - row[0] - row[1]] for row in turned]  # grey stays grey
    saturation = draw.between("saturation_range", ONE)
    if settings.uses("grey"):
        saturation = xp.where(draw.chance("grey"), draw.zero, saturation)
    grey = [
        draw.rounded(sum(weight * turned[j][k] for j, weight in enumerate(_GREY)), 16)
        for k in range(3)
    ]
    rows = [
        [draw.rounded(saturation * row[k] + (ONE - saturation) * grey[k], 16) for k in range(3)]
        for row in turned
    ]
    if settings.uses("channel_shuffle"):
        which = xp.where(draw.chance("channel_shuffle"), _shuffle(draw), draw.zero)
        rows = [
            [
                sum(
                    rows[order[i]][k] * xp.astype(which == n, np.int64)
                    for n, order in enumerate(_SHUFFLES)
                )
                for k in range(3)
            ]
            for i in range(3)
        ]
    return rows


def _shuffle(draw: _Draws) -> Array:
    """Which of the six orders: from the same bits as the chance, of which the low ones are left."""
    low = draw.xp.astype(draw.bits("channel_shuffle") & random.u64(0xFFFFFFFF), np.int64)
    return draw.xp.right_shift(low * 6, 32)


def _noise_deviation(draw: _Draws) -> Array:
    factor = round(255 / NOISE_DEVIATION * ONE)
    return draw.rounded(draw.between("noise_range", 1 << 24) * factor, 24)


def _gamma(draw: _Draws) -> Array:
    """`Parameters.gamma`."""
    xp = draw.xp
    exponent = draw.rounded(draw.between("gamma_range", ONE)[:, None] * _logarithms(), 24)
    bright = draw.rounded(255 * _power_of_half(exponent, xp), 30)
    black = np.arange(256) == 0
    return xp.astype(xp.where(black, 0 * bright, bright), np.uint8)


@functools.cache
def _logarithms() -> np.ndarray:
    """-log₂(v/255) for v from 1 to 255, 24 binary places; int64 [256], that of 0 is 0.

    By `decimal`, which rounds alike on every machine.
    """
    two = decimal.Decimal(2).ln()
    logs = (-(decimal.Decimal(v) / 255).ln() / two for v in range(1, 256))
    return np.array([0, *(round(log * (1 << 24)) for log in logs)], np.int64)


def _rectangle(draw: _Draws, name: str, size: tuple[int, int]) -> Array:
    """`Parameters.cutout`, or `paste`."""
    happens, ends = draw.chance(name), []
    for side, length, place in ((size[0], "height", "y"), (size[1], "width", "x")):
        part = draw.between(f"{name}_range", ONE, f"{name}_{length}")
        covered = draw.xp.where(happens, draw.rounded(part * side, 16), draw.zero)
        first = draw.below(f"{name}_{place}", side - covered + 1)
        ends += [first, first + covered]
    return draw.int32(ends)

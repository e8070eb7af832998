"""Masks as people store them: class numbers, 0 and 255, palettes, colours, maps of objects.

What a file says is a `Stored`; what is counted in it, a `Tally`. How masks are to be understood is
decided over the tallies of all of them, by `decide`, and never by one: a map of three objects
looks like a mask of four classes. NumPy only; no file is opened here.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from segdata.archives import masks
from segdata.core import IGNORE_LABEL
from segdata.core.system.compiling import compiled

Kind = Literal["ids", "binary", "colours", "instances", "objects"]
KINDS: tuple[Kind, ...] = ("ids", "binary", "colours", "instances", "objects")
MOST_COLOURS = 32
"""That are taken for classes where no palette is given."""

_MOST_COUNTED = 4096  # colours that are counted in all; a smeared mask has more in itself
_MOST_CLASSES = 20  # that numbers without names may be
_IN_PIECES = 1.1  # connected pieces for each number of a mask: fewer is one number an object
_SMOOTH = 0.9  # of all pixels near 0 or the highest level: smooth edges


class AmbiguousError(ValueError):
    """Masks that can be understood in several ways, or in none; it names the flag that decides."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """A mask as a file has it.

    Attributes:
        pixels: Whole numbers [H, W], uint8 to uint32; or colours, uint8 [H, W, 3].
        palette: The colour of each number, uint8 [N, 3]; None without a palette.
        is_lossy: Whether the kind of file changes colours, as JPEG does.
    """

    pixels: np.ndarray
    palette: np.ndarray | None = None
    is_lossy: bool = False

    @property
    def colours(self) -> np.ndarray:
        """The colour of each pixel as one number, int32 [H, W]: red · 65536 + green · 256 + blue.

        Raises:
            ValueError: If its numbers have no palette and more than 8 bits, or none of its colours.
        """
        if self.pixels.ndim == 3:
            return pack(self.pixels)
        if self.palette is not None:
            if (largest := int(self.pixels.max(initial=0))) >= len(self.palette):
                raise ValueError(
                    f"the number {largest} in it is none of the {len(self.palette)} of its "
                    "palette, so it has no colour; where numbers are classes, give --mask_kind ids"
                )
            return pack(self.palette)[self.pixels]
        if int(self.pixels.max(initial=0)) > 255:
            raise ValueError("its grey levels have more than 8 bits, and are no colours")
        return self.pixels.astype(np.int32) * 0x010101


@dataclasses.dataclass(frozen=True)
class Tally:
    """What is counted in a mask.

    Attributes:
        shape: (H, W).
        levels: Number to pixels; None where it has colours.
        colours: Colour to pixels; None where it has numbers without a palette.
        palette: The colour of each number, int32 [N]; None without a palette.
        pieces: How many connected pieces the numbers other than 0 have in all.
        is_lossy: As for `Stored`.
    """

    shape: tuple[int, int]
    levels: Mapping[int, int] | None
    colours: Mapping[int, int] | None
    palette: np.ndarray | None
    pieces: int
    is_lossy: bool

    @property
    def seen_colours(self) -> Mapping[int, int]:
        """Colour to pixels; numbers without a palette are grey, if they have 8 bits."""
        grey = {level * 0x010101: n for level, n in (self.levels or {}).items() if level < 256}
        return self.colours or grey


def tally(stored: Stored) -> Tally:
    """Counts a mask. Colours that are all grey are numbers."""
    pixels = stored.pixels
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    shape = pixels.shape[0], pixels.shape[1]
    if pixels.ndim == 3:
        return Tally(shape, None, _counted(pack(pixels)), None, 0, stored.is_lossy)
    levels = _counted(pixels)
    palette, by_colour = None, collections.Counter[int]()
    if stored.palette is not None:
        palette = pack(stored.palette)
        for level, count in levels.items():
            if level < len(palette):
                by_colour[int(palette[level])] += count
    few = len(levels) <= masks.MOST_OBJECTS
    pieces = _pieces(pixels) if few and not stored.is_lossy else pixels.size
    return Tally(shape, levels, dict(by_colour) or None, palette, pieces, stored.is_lossy)


class Counts:
    """The tallies of all masks, added up in bounded memory."""

    def __init__(self) -> None:
        self.masks = 0
        self.levels = collections.Counter[int]()
        self.colours = collections.Counter[int]()
        self.masks_of = collections.Counter[int]()  # of a colour
        self.has_colours = False
        self.lossy = 0  # of the masks
        self.has_one_palette = True
        self.numbered, self.pieces = 0, 0
        self.in_pieces = 0
        self.whites = 0  # masks of 0 and 255 alone
        self.has_255_beside = False  # whether one has 255 and another number that is not 0
        self.palette = np.zeros(0, np.int32)  # the longest

    def add(self, found: Tally) -> None:
        """Adds a mask's."""
        self.masks += 1
        self.lossy += found.is_lossy
        if found.levels is None:
            self.has_colours = True
        else:
            self.levels.update(found.levels)
            numbered = sum(1 for level in found.levels if level)
            self.numbered += numbered
            self.pieces += found.pieces
            self.in_pieces += found.pieces > numbered
            self.whites += set(found.levels) == {0, IGNORE_LABEL}
            self.has_255_beside |= IGNORE_LABEL in found.levels and numbered > 1
        if found.palette is not None:
            common = min(len(found.palette), len(self.palette))
            self.has_one_palette &= bool((found.palette[:common] == self.palette[:common]).all())
            self.palette = max(self.palette, found.palette, key=len)
        for colour, pixels in found.seen_colours.items():
            if colour in self.colours or len(self.colours) < _MOST_COUNTED:
                self.colours[colour] += pixels
                self.masks_of[colour] += 1

    @property
    def are_colours(self) -> bool:
        """Whether masks can be understood by their colours alone."""
        return self.has_colours or not self.has_one_palette


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How masks are understood: the same for all of a dataset.

    Attributes:
        kind: "ids": a number is a class; "binary": what is not 0, or from `threshold` on, is class
            1; "colours": a colour is a class; "instances": a number or colour is an object of class
            1, and 0 or black is background; "objects": a file an object, read as "binary".
        classes: The names of the classes, from 0.
        palette: Colour to class id, of kind "colours".
        threshold: The lowest level of class 1; None: all but 0.
        others: What a number or colour of no class becomes: "" an error, "ignore" the ignore label,
            "nearest" the class of the nearest colour.
        why: What the kind was decided by, for the user.
    """

    kind: Kind
    classes: tuple[str, ...]
    palette: Mapping[int, int] = dataclasses.field(default_factory=dict)
    threshold: int | None = None
    others: str = ""
    why: str = ""

    def apply(self, stored: Stored) -> tuple[np.ndarray, np.ndarray | None]:
        """Understands a mask.

        Returns:
            Class ids, uint8 [H, W]; and of kind "instances" the number of each pixel's object,
            uint16 [H, W].

        Raises:
            ValueError: If it has numbers or colours of no class, or over 65,535 objects.
        """
        match self.kind:
            case "colours":
                return self._by_colour(stored), None
            case "instances":
                objects = _numbered(stored)
                return (objects > 0).astype(np.uint8), objects
            case "ids":
                return self._by_number(_numbers(stored)), None
            case _:
                return (_numbers(stored) >= (self.threshold or 1)).astype(np.uint8), None

    def strangers(self, counts: "Counts") -> dict[int, int]:
        """The numbers or colours of all masks that are no class, with their pixels."""
        if self.kind == "ids":
            known = {*range(len(self.classes)), IGNORE_LABEL}
            return {level: n for level, n in counts.levels.items() if level not in known}
        if self.kind == "colours":
            return {colour: n for colour, n in counts.colours.items() if colour not in self.palette}
        return {}

    def _by_number(self, numbers: np.ndarray) -> np.ndarray:
        unknown = (numbers >= len(self.classes)) & (numbers != IGNORE_LABEL)
        if unknown.any() and self.others != "ignore":
            raise ValueError(f"the number {numbers[unknown].min()} in it is no class")
        return np.where(unknown, IGNORE_LABEL, numbers).astype(np.uint8)

    def _by_colour(self, stored: Stored) -> np.ndarray:
        colours = stored.colours
        known = np.array(sorted(self.palette), np.int32)
        ids = np.array([self.palette[int(colour)] for colour in known], np.uint8)
        if self.others == "nearest":
            pixels = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1)
            points = np.stack([known >> 16, known >> 8 & 255, known & 255], axis=-1)
            index, _ = masks.nearest_colour(pixels.astype(np.uint8), points.astype(np.uint8))
            return ids[index]
        index = np.minimum(np.searchsorted(known, colours), len(known) - 1)
        unknown = known[index] != colours
        if unknown.any() and self.others != "ignore":
            raise ValueError(f"the colour {hexadecimal(int(colours[unknown][0]))} is no class")
        return np.where(unknown, np.uint8(IGNORE_LABEL), ids[index])


def decide(
    counts: Counts,
    *,
    kind: str = "",
    classes: Sequence[str] = (),
    palette: Mapping[int, str] | None = None,
    threshold: int | None = None,
    others: str = "",
) -> Reading:
    """Decides how all masks of a dataset are to be understood.

    Args:
        counts: Of all masks.
        kind: One of `KINDS`, where the user says so.
        classes: The names of the classes, from 0, where the user says so.
        palette: Colour to class name, where the user says so.
        threshold: The lowest level of class 1, where the user says so.
        others: As for `Reading`.

    Raises:
        AmbiguousError: If it could be several, or none.
    """
    if palette:
        names = tuple(classes) or tuple(dict.fromkeys(palette.values()))
        if missing := [name for name in palette.values() if name not in (*names, "ignore")]:
            raise AmbiguousError(f"--palette: {missing[0]!r} is none of the classes {names}.")
        names = tuple(name for name in names if name != "ignore")
        ids = {
            colour: IGNORE_LABEL if name == "ignore" else names.index(name)
            for colour, name in palette.items()
        }
        why = "by the palette given"
        return Reading(kind="colours", classes=names, palette=ids, others=others, why=why)
    if counts.lossy:
        _require_two_levels(counts, kind, classes, threshold)
    if kind == "colours" or (not kind and threshold is None and counts.are_colours):
        return _found_colours(counts, classes, others, is_sure=kind == "colours")
    if kind in ("instances", "objects"):
        return Reading(
            kind=kind, classes=two_classes(classes), threshold=threshold, why="as you say"
        )
    if kind == "binary" or threshold is not None:
        return Reading(
            kind="binary", classes=two_classes(classes), threshold=threshold, why="as you say"
        )
    if counts.are_colours:
        raise AmbiguousError("the masks have colours, not numbers: --mask_kind colours.")
    if kind == "ids":
        return _ids(counts, classes, others, why="as you say")
    _require_dark_0(counts)
    return _found_numbers(counts, classes, others)


def two_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """The names of background and objects, as they are given or by default.

    Raises:
        AmbiguousError: If others are given.
    """
    if len(classes) not in (0, 2):
        raise AmbiguousError(
            f"--classes names {len(classes)}, and the masks tell objects from background alone: "
            "name these two."
        )
    return tuple(classes) or ("background", "object")


def pack(colours: np.ndarray) -> np.ndarray:
    """Colours as one number each: uint8 [..., 3] to int32 [...]."""
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue


def hexadecimal(colour: int) -> str:
    """A colour as "#ff0000"."""
    return f"#{colour:06x}"


def _found_numbers(counts: Counts, classes: Sequence[str], others: str) -> Reading:
    """What numbers without a further word are."""
    levels = set(counts.levels)
    objects = sorted(levels - {0})
    highest = max(levels, default=0)
    if not objects:
        raise AmbiguousError(
            f"all {counts.masks:,} masks are 0 everywhere. If that is right: --mask_kind ids."
        )
    is_whole = counts.pieces <= _IN_PIECES * counts.numbered
    if len(classes) in (0, 2) and len(objects) == 1:
        if objects == [1]:
            return _ids(counts, classes or two_classes(()), others, why="all numbers are 0 and 1")
        why = f"all numbers are 0 and {highest}"
        return Reading(kind="binary", classes=two_classes(classes), why=why)
    if counts.whites and not counts.has_255_beside and highest == IGNORE_LABEL:
        raise AmbiguousError(
            f"{counts.whites:,} of {counts.masks:,} masks have 255 and no other number "
            "than 0, and no mask has 255 beside a class: if 255 is the object there, --mask_kind "
            "binary; if it is the ignore label, --mask_kind ids."
        )
    if classes and max(levels - {IGNORE_LABEL}, default=0) < len(classes):
        return _ids(counts, classes, others, why=f"all numbers are below {len(classes)}, or 255")
    if is_whole and len(objects) > _MOST_CLASSES and len(classes) in (0, 2):
        split = f"; in {counts.in_pieces:,} masks one is in pieces" if counts.in_pieces else ""
        why = f"numbers up to {highest:,}, each a connected area{split}"
        return Reading(kind="instances", classes=two_classes(classes), why=why)
    shown = _shown(counts.levels, str)
    ids = sorted(levels - {IGNORE_LABEL})
    if not is_whole and ids == list(range(len(ids))) and len(ids) <= _MOST_CLASSES and not classes:
        return _ids(counts, (), others, why="numbers without gaps, each in several places")
    if not is_whole and len(classes) in (0, 2):
        _require_sharp(counts)
    if is_whole and len(classes) == 2 and not others:
        raise AmbiguousError(
            f"the masks have the numbers {shown}, each one connected area, and --classes names two "
            "classes: if each is an object, --mask_kind instances; else --mask_kind ids."
        )
    if classes:
        return _ids(counts, classes, others, why="you name the classes")
    raise AmbiguousError(
        f"the masks have the numbers {shown}: classes, or one number an object? "
        "Say --mask_kind instances; or --mask_kind ids --classes with a name for each number from "
        "0; or, where grey levels stand for classes, --palette with each, such as 128=road."
    )


def _require_dark_0(counts: Counts) -> None:
    """Raises AmbiguousError where palettes are grey and make 0 brighter than another number."""
    colour_of = {n: int(counts.palette[n]) for n in counts.levels if n < len(counts.palette)}
    darkest = min(colour_of, key=lambda level: colour_of[level], default=0)
    is_grey = all(colour % 0x010101 == 0 for colour in colour_of.values())
    if is_grey and 0 in colour_of and colour_of[0] > colour_of[darkest]:
        raise AmbiguousError(
            f"the number 0 is {hexadecimal(colour_of[0])} in the palettes, brighter than "
            f"{darkest}, {hexadecimal(colour_of[darkest])}: classes by number, --mask_kind ids or "
            "binary, or by grey level, --palette with each, such as "
            f"{colour_of[darkest] & 255}=background?"
        )


def _require_two_levels(
    counts: Counts, kind: str, classes: Sequence[str], threshold: int | None
) -> None:
    """Raises AmbiguousError where lossy masks may be more than one object on background."""
    if kind in ("", "binary", "objects") and len(classes) in (0, 2) and not counts.has_colours:
        levels = set(counts.levels) - {0}
        if threshold is not None or (len(levels) == 1 and max(levels) > 127):
            return
        _require_sharp(counts)
    raise AmbiguousError(
        f"{counts.lossy:,} of {counts.masks:,} masks are JPEG or lossy WebP, which changes numbers "
        "of classes and objects: export them as PNG. JPEG smears colours: give --palette with the "
        "true ones and --others nearest, which errs along edges."
    )


def _require_sharp(counts: Counts) -> None:
    """Raises AmbiguousError where nearly all pixels have the lowest or the highest level."""
    highest = max(counts.levels)
    between = len(set(counts.levels) - {0, highest})
    if highest <= _MOST_CLASSES or between < 2:
        return
    ends = sum(n for level, n in counts.levels.items() if not 1 <= 8 * level // highest <= 6)
    if ends > _SMOOTH * counts.levels.total():
        raise AmbiguousError(
            f"the masks are nearly all 0 or {highest}, with {between:,} levels between them: "
            "smooth edges, or JPEG. Say where the object begins: --threshold "
            f"{highest // 2 + 1}."
        )


def _found_colours(
    counts: Counts, classes: Sequence[str], others: str, *, is_sure: bool
) -> Reading:
    """The classes that colours without a further word are: black first, then by their pixels."""
    if len(counts.colours) > MOST_COLOURS:
        most = "or more" if len(counts.colours) == _MOST_COUNTED else "colours"
        raise AmbiguousError(
            f"the masks have {len(counts.colours):,} {most}, such as "
            f"{_shown(counts.colours, hexadecimal)}; up to {MOST_COLOURS} are taken for classes. "
            "If each is an object: --mask_kind instances. Else give --palette with those that are "
            "classes and --others ignore."
        )
    found = sorted(
        counts.colours, key=lambda colour: (colour != 0, -counts.colours[colour], colour)
    )
    again = [colour for colour in found if counts.masks_of[colour] > 1 and colour]
    if not is_sure and 2 * len(again) < len([colour for colour in found if colour]):
        raise AmbiguousError(
            f"most colours of the masks, {_shown(counts.colours, hexadecimal)}, are in one mask "
            "each: one colour an object, --mask_kind instances; or classes, --mask_kind colours?"
        )
    if classes and len(classes) != len(found):
        raise AmbiguousError(
            f"the masks have {len(found)} colours, {_shown(counts.colours, hexadecimal)}, and "
            f"--classes names {len(classes)}. Give --palette with each, such as "
            f"'{hexadecimal(found[-1])}={classes[-1]}'."
        )
    if classes:
        raise AmbiguousError(
            "which colour is which class? Give --palette "
            + " ".join(f"'{hexadecimal(c)}={name}'" for c, name in zip(found, classes, strict=True))
            + ", in the right order."
        )
    names = tuple("background" if not c else f"colour_{c:06x}" for c in found)
    palette = {colour: index for index, colour in enumerate(found)}
    why = f"found {len(found)} colours, {_shown(counts.colours, hexadecimal)}"
    return Reading(kind="colours", classes=names, palette=palette, others=others, why=why)


def _ids(counts: Counts, classes: Sequence[str], others: str, *, why: str) -> Reading:
    if others == "nearest":
        raise AmbiguousError(
            "--others nearest is for colours, and the masks have numbers of classes, of which none "
            "is near another: --others ignore."
        )
    ids = set(counts.levels) - {IGNORE_LABEL}
    highest = max(ids, default=0)
    if not classes and highest >= IGNORE_LABEL:
        raise AmbiguousError(
            f"--mask_kind ids: there is a number {highest:,}, and classes end at 254. Give "
            "--classes, and --others ignore for what is none; or --mask_kind instances."
        )
    names = tuple(classes) or ("background", *(f"class_{n}" for n in range(1, max(2, highest + 1))))
    return Reading(kind="ids", classes=names, others=others, why=why)


def _shown(counts: Mapping[int, int], text) -> str:
    """The most frequent of them, with their share of all pixels."""
    most = sorted(counts, key=lambda value: (-counts[value], value))[:6]
    total = sum(counts.values())
    parts = [f"{text(value)} ({100 * counts[value] / total:.1f} %)" for value in most]
    more = [f"{len(counts) - len(most):,} more"] if len(counts) > len(most) else []
    return ", ".join(parts + more)


def _numbers(stored: Stored) -> np.ndarray:
    """Its numbers; those of grey colours too."""
    if stored.pixels.ndim == 2:
        return stored.pixels
    if not (stored.pixels == stored.pixels[..., :1]).all():
        raise ValueError("it has colours, where numbers are meant")
    return stored.pixels[..., 0]


def _numbered(stored: Stored) -> np.ndarray:
    """The objects of a map of numbers or colours, uint16 [H, W]; numbers stay where they fit."""
    is_colour = stored.pixels.ndim == 3
    numbers = stored.colours if is_colour else stored.pixels
    if not is_colour and int(numbers.max(initial=0)) <= masks.MOST_OBJECTS:
        return numbers.astype(np.uint16)
    values, index = np.unique(numbers, return_inverse=True)
    if len(values) > masks.MOST_OBJECTS:
        raise ValueError(f"it has {len(values):,} numbers, more than objects can have")
    index = index.reshape(numbers.shape) + (values[0] != 0)
    return index.astype(np.uint16)


def _counted(values: np.ndarray) -> dict[int, int]:
    if values.dtype in (np.uint8, np.uint16):
        counts = np.bincount(values.ravel())
        found = np.flatnonzero(counts)
        return dict(zip(found.tolist(), counts[found].tolist(), strict=True))
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


@compiled
def _pieces(numbers: np.ndarray) -> int:
    """How many pieces, connected by edges or corners, the numbers other than 0 have."""
    height, width = numbers.shape
    parents = np.arange(height * width)
    count = 0
    for y in range(height):
        for x in range(width):
            here = numbers[y, x]
            if here == 0:
                continue
            count += 1
            at = y * width + x
            for dy, dx in ((0, -1), (-1, -1), (-1, 0), (-1, 1)):
                v, u = y + dy, x + dx
                if v < 0 or u < 0 or u == width or numbers[v, u] != here:
                    continue
                first, second = v * width + u, at
                while parents[first] != first:
                    parents[first] = parents[parents[first]]
                    first = parents[first]
                while parents[second] != second:
                    parents[second] = parents[parents[second]]
                    second = parents[second]
                if first != second:
                    parents[max(first, second)] = min(first, second)
                    count -= 1
    return count

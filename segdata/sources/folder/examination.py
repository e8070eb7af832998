"""Every file of a folder read once: how masks are understood and how brightness is scaled.

Both are decided over all files. What is not understood is named, all of it in one error, with the
command that continues without it.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from PIL import Image

from segdata import archives
from segdata.archives import intensity, mask_files, scientific
from segdata.console import counted
from segdata.core import IGNORE_LABEL
from segdata.core.system.parallel import ordered_map
from segdata.sources import SizeMismatchError
from segdata.sources.folder.pairing import Entry
from segdata.sources.folder.reading import (
    Examined,
    read_picture,
    read_stored,
    require_outlines,
    require_same_size,
)
from segdata.sources.folder.settings import Folder, FolderError, parse_palette
from segdata.sources.folder.survey import SHOWN, Problem, Survey, listed

_THUMBNAIL = 32  # pixels of a side
_MOST_NAMED = 1 << 16  # colours of which it is known which mask has them
Look = TypeVar("Look")


def examine(found: Survey, look: Callable[[Image.Image], Look]) -> Examined[Look]:
    """Reads every file once, on all cores, and decides how all are read.

    Args:
        found: What is there.
        look: What to keep of an image; given 8-bit RGB, of larger depths a thumbnail.

    Raises:
        FolderError: If anything is wrong that the settings do not leave out; it names all of it.
    """
    folder = found.folder
    facts = _Facts()
    for entry, seen in ordered_map(lambda entry: (entry, _seen(found, entry, look)), found.entries):
        facts.add(entry, seen)
    problems = [*found.problems, *facts.problems(folder)]
    skipped = {**found.skipped, **facts.damaged, **facts.sizes}
    reading, scaling = None, None
    kept = tuple(entry for entry in found.entries if entry.id not in skipped)
    bare = [] if found.outlines else [entry for entry in kept if not entry.masks]
    objects = [entry for entry in kept if entry.objects]
    lacking = [entry.image for entry in kept if objects and entry.masks and not entry.objects]
    if lacking:
        problems.append(
            Problem(
                f"{counted(len(lacking), 'image')} without a map of objects, which others have: "
                f"{listed(lacking)}. Give one for each image, or for none."
            )
        )
    if kept:
        try:
            reading = _reading(found, facts.counts)
            if strange := reading.strangers(facts.counts):
                problems += _strange(folder, reading, strange, facts)
            problems += _filled(reading, bare)
        except mask_files.AmbiguousError as error:
            problems.append(Problem(str(error)))
        try:
            scaling = facts.scaling(folder)
        except ValueError as error:
            problems.append(Problem(str(error)))
    elif not problems:
        raise FolderError(f"{folder.images}: every example is left out: {_first(skipped)}")
    if problems or reading is None:
        raise FolderError(_refusal(folder, problems))
    looks = {key: seen for key, seen in facts.looks.items() if key not in skipped}
    for key, thumbnail in facts.thumbnails.items():
        if scaling and key not in skipped:
            grey = scaling.apply(thumbnail[..., None])[..., 0] if len(scaling.low) == 1 else None
            grey = grey if grey is not None else _mean_scaled(scaling, thumbnail)
            looks[key] = look(Image.fromarray(grey).convert("RGB"))
    return Examined(
        survey=_numbered(found, tuple(reading.classes)),
        entries=kept,
        reading=reading,
        scaling=scaling,
        looks=looks,
        has_instances=reading.kind in ("instances", "objects") or bool(found.outlines or objects),
        skipped=skipped,
        notes=(*found.notes, *_notes(reading, scaling, facts, bare)),
    )


class _Seen(Generic[Look]):
    """What is kept of an example while all are examined."""

    def __init__(self) -> None:
        self.fault, self.size_fault, self.lost = "", "", ""
        self.is_choice = False  # whether the fault is that a page or channels are to be chosen
        self.look: Look | None = None
        self.thumbnail: np.ndarray | None = None
        self.histogram: np.ndarray | None = None
        self.dtype, self.lowest, self.highest = "", 0.0, 0.0
        self.tallies: list[tuple[str, mask_files.Tally]] = []


def _seen(found: Survey, entry: Entry, look: Callable[[Image.Image], Look]) -> _Seen[Look]:
    seen = _Seen[Look]()
    try:
        picture = read_picture(found, entry, found.photos.read(entry.image))
        seen.lost, seen.dtype = picture.lost, str(picture.pixels.dtype)
        seen.lowest, seen.highest = _ends(picture.pixels)
        if picture.pixels.dtype == np.uint8:
            seen.look = look(Image.fromarray(intensity.rgb(picture.pixels, None)))
        else:
            seen.thumbnail = _thumbnail(picture.pixels)
        if picture.pixels.dtype == np.uint16:
            counts = intensity.histogram(picture.pixels)
            seen.histogram = counts if found.folder.channels else counts.sum(axis=0)[None]
        shape = picture.pixels.shape[:2]
        if outlines := found.outlines.get(entry.id):
            require_outlines(found.folder, entry, outlines, shape)
        for name in (*entry.masks, *filter(None, [entry.objects])):
            stored = read_stored(found, name)
            require_same_size(found, name, stored.pixels, shape)
            if name == entry.objects and stored.is_lossy:
                raise archives.ArchiveError(f"{name} is lossy, which changes numbers: export PNG.")
            if name != entry.objects:
                seen.tallies.append((name, mask_files.tally(stored)))
    except SizeMismatchError as error:
        seen.size_fault = str(error)
    except (scientific.PagesError, scientific.ChannelsError) as error:
        seen.fault, seen.is_choice = str(error), True
    except archives.ArchiveError as error:
        seen.fault = str(error)
    return seen


class _Facts:
    """What all examples have in common, added up."""

    def __init__(self) -> None:
        self.counts = mask_files.Counts()
        self.damaged: dict[str, str] = {}
        self.choices: dict[str, str] = {}  # of the damaged
        self.sizes: dict[str, str] = {}
        self.looks: dict[str, Any] = {}
        self.thumbnails: dict[str, np.ndarray] = {}
        self.lost = collections.Counter[str]()
        self.dtypes = collections.Counter[str]()
        self.histogram: np.ndarray | None = None
        self.lowest, self.highest = 0.0, 0.0
        self.with_number: dict[int, str] = {}  # number to a mask that has it
        self.with_colour: dict[int, str] = {}

    def add(self, entry: Entry, seen: _Seen[Any]) -> None:
        if seen.fault or seen.size_fault:
            if seen.is_choice:
                self.choices[entry.id] = seen.fault
            (self.damaged if seen.fault else self.sizes)[entry.id] = seen.fault or seen.size_fault
            return
        self.lost[seen.lost] += 1
        self.dtypes[seen.dtype] += 1
        self.lowest = min(self.lowest, seen.lowest)
        self.highest = max(self.highest, seen.highest)
        if seen.thumbnail is not None:
            self.thumbnails[entry.id] = seen.thumbnail
        else:
            self.looks[entry.id] = seen.look
        if seen.histogram is not None:
            before = self.histogram
            self.histogram = seen.histogram if before is None else before + seen.histogram
        for name, found in seen.tallies:
            self.counts.add(found)
            for value in found.levels or ():
                self.with_number.setdefault(value, name)
            for value in found.seen_colours if len(self.with_colour) < _MOST_NAMED else ():
                self.with_colour.setdefault(value, name)

    def problems(self, folder: Folder) -> Iterator[Problem]:
        """Files that cannot be read, and those of other sizes."""
        damaged = {key: fault for key, fault in self.damaged.items() if key not in self.choices}
        if damaged and not folder.skip_damaged:
            yield Problem(
                f"{counted(len(damaged), 'example')} cannot be read: {_several(damaged)}",
                {"skip_damaged": True},
            )
        if self.choices and not folder.skip_damaged:
            yield Problem(
                f"{counted(len(self.choices), 'example')} of pages or channels that are not read: "
                f"{_several(self.choices)}"
            )
        if self.sizes and not folder.skip_sizes:
            yield Problem(
                f"{counted(len(self.sizes), 'mask')} of another size than the image: "
                f"{_several(self.sizes)}",
                {"skip_sizes": True},
            )

    def scaling(self, folder: Folder) -> intensity.Scaling | None:
        """How brightness becomes 8 bits; raises ValueError where one rule cannot be right."""
        how: dict[str, Any] = {"channels": tuple(folder.channels), "page": folder.page}
        how["types"] = tuple(sorted(self.dtypes))
        if folder.range:
            low, high = folder.range
            return intensity.Scaling(low=(low,), high=(high,), rule="the range given", **how)
        kinds = {*self.dtypes}
        if kinds == {"uint8"}:
            if not folder.channels and folder.page is None:
                return None
            return intensity.Scaling(low=(0,), high=(255,), rule="8 bits as they are", **how)
        if kinds == {"uint16"} and self.histogram is not None:
            try:
                how["bits"] = intensity.even_bits(self.highest)
                return intensity.by_percentiles(self.histogram, folder.percentiles, **how)
            except ValueError as error:
                raise ValueError(
                    f"the brightness of the images cannot be scaled: {error} Give --range with the "
                    "two levels that become black and white."
                ) from error
        kinds_shown = ", ".join(f"{n:,} of {kind}" for kind, n in sorted(self.dtypes.items()))
        raise ValueError(
            f"images of {kinds_shown}: which level is black and which is white cannot be found for "
            f"all alike. Give both by --range, such as --range {self.lowest:g} "
            f"{max(self.highest, self.lowest + 1):g}."
        )


def _reading(found: Survey, counts: mask_files.Counts) -> mask_files.Reading:
    folder = found.folder
    if found.outlines:
        classes, renamed = _of_outlines(tuple(folder.classes), found.classes)
        why = "outlines of objects" + (f", {renamed}" if renamed else "")
        return mask_files.Reading(kind="ids", classes=classes, why=why)
    if any(len(entry.masks) > 1 or entry.classes for entry in found.entries):
        return _of_objects(found, counts)
    return mask_files.decide(
        counts,
        kind=folder.mask_kind,
        classes=folder.classes or found.classes,
        palette=parse_palette(folder.palette) or found.palette,
        threshold=folder.threshold,
        others=folder.others,
    )


def _of_outlines(given: tuple[str, ...], own: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """The classes of outlines, and which names of the file's were changed.

    The file's own names in another order are another order of the class ids; new names are the
    file's in its order.
    """
    if not given or given == own:
        return own, ""
    if given[0] == own[0] and sorted(given) == sorted(own):
        return given, "by their names"
    known = [name.casefold() for name in own]
    moved = [
        name
        for place, name in enumerate(given)
        if name.casefold() in known and known.index(name.casefold()) != place
    ]
    if moved or len(given) != len(own):
        why = f"{moved[0]} has another place in both" if moved else f"{len(own)} are to be named"
        raise mask_files.AmbiguousError(
            f"--classes {' '.join(given)}: the file has {', '.join(own)}, and {why}. Give the "
            "file's own names in any order, background first, or a new name for each in its order."
        )
    changes = (f"{old} → {new}" for old, new in zip(own, given, strict=True) if old != new)
    return given, ", ".join(changes)


def _numbered(found: Survey, classes: tuple[str, ...]) -> Survey:
    """The same with outlines whose class ids are of `classes`, where these are in another order."""
    if not found.outlines or sorted(classes) != sorted(found.classes):
        return found
    ids = [classes.index(name) for name in found.classes]
    outlines = {
        key: dataclasses.replace(
            each,
            objects=tuple(dataclasses.replace(one, label=ids[one.label]) for one in each.objects),
        )
        for key, each in found.outlines.items()
    }
    return dataclasses.replace(found, outlines=outlines)


def _of_objects(found: Survey, counts: mask_files.Counts) -> mask_files.Reading:
    """Files of one object each: of two levels, or with a threshold."""
    folder = found.folder
    if folder.mask_kind not in ("", "objects"):
        raise mask_files.AmbiguousError(
            f"--mask_kind {folder.mask_kind}: some images have several masks, which is one file an "
            "object."
        )
    levels = sorted(set(counts.levels) - {0})
    if counts.has_colours or (len(levels) > 1 and folder.threshold is None):
        shown = ", ".join(map(str, levels[:6]))
        raise mask_files.AmbiguousError(
            f"some images have several masks, one file an object; but the files have the levels 0, "
            f"{shown}{' …' if len(levels) > 6 else ''}, where an object has one. If edges are "
            f"smooth, give --threshold {max(levels, default=1) // 2 + 1}; else leave one mask an "
            "image."
        )
    if not levels and not folder.mask_kind:
        raise mask_files.AmbiguousError(
            f"all {counts.masks:,} masks are 0 everywhere. If that is right: --mask_kind objects."
        )
    classes = tuple(folder.classes) or found.classes
    if not any(entry.classes for entry in found.entries):
        classes = mask_files.two_classes(classes)
    return mask_files.Reading(
        kind="objects", classes=classes, threshold=folder.threshold, why="one file an object"
    )


def _strange(
    folder: Folder, reading: mask_files.Reading, strange: Mapping[int, int], facts: _Facts
) -> Iterator[Problem]:
    """Numbers or colours that are no class."""
    if folder.others:
        return
    is_colour = reading.kind == "colours"
    text = mask_files.hexadecimal if is_colour else str
    mask_with = facts.with_colour if is_colour else facts.with_number
    most = sorted(strange, key=lambda value: -strange[value])[:SHOWN]
    shown = ", ".join(
        f"{text(value)} ({strange[value]:,} pixels, as in {mask_with.get(value, '…')})"
        for value in most
    )
    more = f" and {len(strange) - len(most):,} more" if len(strange) > len(most) else ""
    what = "colour" if is_colour else "number"
    near = " (--others nearest takes the nearest class)" if is_colour else ""
    yield Problem(
        f"{counted(len(strange), what)} in the masks that are none of the classes "
        f"{', '.join(reading.classes)}: {shown}{more}{near}.",
        {"others": "ignore"},
    )


def _filled(reading: mask_files.Reading, bare: Sequence[Entry]) -> Iterator[Problem]:
    """Images without masks, where class 0 is a colour that may be an object's."""
    first = reading.classes[0]
    is_background = reading.palette.get(0) == 0 or "background" in first.casefold()
    if bare and reading.kind == "colours" and not is_background:
        yield Problem(
            f"{counted(len(bare), 'image')} without masks would be {first}, class 0: call the "
            "background so, by --palette, and name it first, or say --unpaired skip.",
            {"unpaired": "skip"},
        )


def _refusal(folder: Folder, problems: Sequence[Problem]) -> str:
    text = f"{folder.images}: " + " ".join(problem.text for problem in problems)
    if any(problem.flags is None for problem in problems):
        return text
    flags = {key: value for problem in problems for key, value in (problem.flags or {}).items()}
    return f"{text} `{folder.command(**flags)}` continues without them."


def _notes(
    reading: mask_files.Reading,
    scaling: intensity.Scaling | None,
    facts: _Facts,
    bare: Sequence[Entry],
) -> Iterator[str]:
    yield f"Masks are read as {reading.kind}: {reading.why}."
    yield f"Classes: {', '.join(f'{n} {name}' for n, name in enumerate(reading.classes))}."
    if bare:
        are = "is" if len(bare) == 1 else "are"
        yield (
            f"{counted(len(bare), 'image')} without masks {are} class 0, {reading.classes[0]}, "
            "everywhere."
        )
    if reading.kind == "ids" and (ignored := facts.counts.levels[IGNORE_LABEL]):
        yield f"The number {IGNORE_LABEL} is the ignore label: {ignored:,} pixels of the masks."
    if scaling:
        ranges = " and ".join(
            f"{low:g} to {high:g}" for low, high in zip(scaling.low, scaling.high, strict=True)
        )
        bits = (
            f"{int(facts.highest).bit_length()} bits" if facts.histogram is not None else "levels"
        )
        yield (
            f"Brightness of {bits}: {ranges} becomes 0 to 255 in all images alike ({scaling.rule})."
        )
    for lost, count in facts.lost.items():
        if lost:
            yield f"{lost} of {counted(count, 'image')} is left out."


def _thumbnail(pixels: np.ndarray) -> np.ndarray:
    """float32 [32, 32] of an image of any depth: its mean over channels, by area."""
    grey = Image.fromarray(pixels.astype(np.float32).mean(axis=-1))
    return np.asarray(grey.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX))


def _mean_scaled(scaling: intensity.Scaling, thumbnail: np.ndarray) -> np.ndarray:
    low, high = float(np.mean(scaling.low)), float(np.mean(scaling.high))
    mean = dataclasses.replace(scaling, low=(low,), high=(high,))
    return mean.apply(thumbnail[..., None])[..., 0]


def _ends(pixels: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest value that is a number; 0 where none is."""
    if pixels.dtype.kind == "f":
        pixels = pixels[np.isfinite(pixels)]
    return float(pixels.min(initial=0)), float(pixels.max(initial=0))


def _several(faults: Mapping[str, str]) -> str:
    more = f" And {len(faults) - 3:,} more." if len(faults) > 3 else ""
    return " ".join(list(faults.values())[:3]) + more


def _first(faults: Mapping[str, str]) -> str:
    return next(iter(faults.values()))

"""Outlines of objects: COCO's JSON (polygons and run lengths), YOLO's polygons; drawn to masks.

Class ids begin with 1, as 0 is background. Outlines are checked before they are drawn: pycocotools
trusts what it is given. No image is opened here.
"""

import collections
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import yaml
from pycocotools import mask as coco

from segdata.archives import ArchiveError, masks
from segdata.core import IGNORE_LABEL

_MOST_CLASSES = 254
_MOST_POINTS = 1 << 18  # of an outline
_LONGEST = 1 << 22  # pixels along an outline; pycocotools takes 100 bytes a pixel, and aborts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outline:
    """One object.

    Attributes:
        label: Its class id, from 1; 0 of what a category called background outlines.
        polygons: Its parts, float64 [N, 2] each of x and y; in pixels, or in shares of the width
            and the height.
        runs: Instead, lengths of runs down the columns, first of what is outside.
        is_crowd: Whether it is a crowd that is not told apart: the ignore label is drawn.
    """

    label: int
    polygons: tuple[np.ndarray, ...] = ()
    runs: np.ndarray | None = None
    is_crowd: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outlines:
    """The objects of an image.

    Attributes:
        objects: In the order of the file. Of those that overlap the smallest has the pixels, of
            equally large ones the first.
        shape: (H, W) where the file says it.
        are_shares: Whether polygons are in shares of the width and the height.
        fault: Why they cannot be drawn; "" where they can.
    """

    objects: tuple[Outline, ...] = ()
    shape: tuple[int, int] | None = None
    are_shares: bool = False
    fault: str = ""


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Outlines as pixels.

    Attributes:
        mask: Class ids, uint8 [H, W].
        instances: uint16 [H, W], 0 for background and crowds, else the object's number from 1.
        overlap: How many pixels are in more than one object.
        hidden: The numbers of objects that have no pixel, as smaller ones cover them or they are
            too thin.
    """

    mask: np.ndarray
    instances: np.ndarray
    overlap: int
    hidden: tuple[int, ...] = ()


def read_coco(
    data: bytes, *, name: str
) -> tuple[tuple[str, ...], dict[str, Outlines], tuple[str, ...]]:
    """Reads COCO's JSON.

    Args:
        data: The file.
        name: Of the file, for messages.

    Returns:
        The names of the classes, "background" first, whether it is a category or not, then the
        other categories by their ids; the name of each image file to its objects, of images without
        any too; and the licences that it names.

    Raises:
        ArchiveError: If it is no such JSON; a fault of one object is its image's.
    """
    try:
        found = json.loads(data)
        categories = sorted((int(each["id"]), str(each["name"])) for each in found["categories"])
        photos = {each["id"]: each for each in found["images"]}
        files = {key: str(each["file_name"]) for key, each in photos.items()}
        by_image = collections.defaultdict[Any, list[Mapping[str, Any]]](list)
        for each in found["annotations"]:
            by_image[each["image_id"]].append(each)
    except (
        *(ValueError, KeyError, TypeError, AttributeError),
        *(OverflowError, RecursionError),
    ) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ArchiveError(
            f"{name} is no JSON of COCO, with images, annotations and categories: {what[:200]}. "
            "Export it as COCO again."
        ) from error
    for what, values in (
        ("id", [key for key, _ in categories]),
        ("name", [n for _, n in categories]),
    ):
        if several := [value for value, n in collections.Counter(values).items() if n > 1]:
            raise ArchiveError(
                f"{name} has several categories of the {what} {several[0]}. Make them one."
            )
    kinds = [(key, kind) for key, kind in categories if kind.lower() != "background"]
    if not 1 <= len(kinds) <= _MOST_CLASSES:
        raise ArchiveError(f"{name} has {len(kinds)} categories; 1 to {_MOST_CLASSES} are read.")
    if len({*files.values()}) < len(files):
        raise ArchiveError(f"{name} lists an image file twice. Remove one of both.")
    if strange := by_image.keys() - photos.keys():
        raise ArchiveError(
            f"{name}: {sum(len(by_image[key]) for key in strange):,} annotations are of images "
            f"that it does not list, such as {next(iter(strange))!r:.60}. Export it again."
        )
    labels = {key: 0 for key, _ in categories}
    labels |= {key: number for number, (key, _) in enumerate(kinds, start=1)}
    outlines = {}
    for key, file in files.items():
        shape = _shape(photos[key])
        try:
            shape = shape or _shape_of_runs(by_image[key])
            objects = tuple(_coco_outline(each, labels, shape) for each in by_image[key])
            outlines[file] = Outlines(objects=objects, shape=shape)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            fault = f"{name}: an annotation of {file}: {error!s:.200}."
            outlines[file] = Outlines(shape=shape, fault=fault)
    return ("background", *(each for _, each in kinds)), outlines, _licences(found)


def read_yolo(text: str, *, name: str, classes: int) -> Outlines:
    """Reads one file of YOLO's polygons: a line an object, "class x y x y x y …" in shares.

    Args:
        text: The file's.
        name: Of the file, for messages.
        classes: How many there are, without background.

    Returns:
        Its objects; of class ids from 1.
    """
    objects = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            _require_few(len(words))
            label, *values = map(float, words)
            if label != int(label) or not 0 <= label < classes:
                raise ValueError(f"class {words[0]} is none of the {classes}, counted from 0")
            if len(values) == 4:
                raise ValueError("5 numbers are a box and no outline")
            points = _points(values)
            if points.min() < -0.01 or points.max() > 1.01:
                raise ValueError("its coordinates are no shares of the width and height, 0 to 1")
        except (ValueError, OverflowError) as error:
            return Outlines(are_shares=True, fault=f"{name}, line {number}: {error!s:.200}.")
        objects.append(Outline(label=int(label) + 1, polygons=(points,)))
    return Outlines(objects=tuple(objects), are_shares=True)


def yolo_classes(text: str, *, name: str) -> tuple[str, ...]:
    """The names of the classes in a `data.yaml` or a `classes.txt`, without background.

    Returns:
        In the order of their numbers, from 0; () where a YAML file has no `names`.

    Raises:
        ArchiveError: If they cannot be read, or a number from 0 has none or several.
    """
    if name.lower().endswith(".txt"):
        names = [line.strip() for line in text.splitlines() if line.strip()]
    else:
        try:
            names = _yaml_names(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ArchiveError(
                f"{name}: its names of classes cannot be read: {' '.join(str(error).split())}. "
                "Mend it; or remove it and give them by --classes, background first."
            ) from error
        if names is None:
            return ()
    if not 1 <= len(names) <= _MOST_CLASSES or not all(names):
        raise ArchiveError(
            f"{name} has {len(names)} names of classes that can be read; 1 to {_MOST_CLASSES} are "
            "allowed. Mend it; or remove it and give them by --classes, background first."
        )
    return tuple(names)


def check(outlines: Outlines, *, shape: tuple[int, int]) -> None:
    """Checks that objects can be drawn.

    Args:
        outlines: Of an image.
        shape: The image's (H, W).

    Raises:
        ValueError: If one leads out of the image or is too long, or there are more than 65,535.
    """
    if len(outlines.objects) > masks.MOST_OBJECTS:
        raise ValueError(
            f"there are {len(outlines.objects):,} objects, of which {masks.MOST_OBJECTS:,} can be "
            "numbered"
        )
    scale = _scale(outlines, shape)
    for each in outlines.objects:
        _check(each, shape, scale)


def draw(outlines: Outlines, *, shape: tuple[int, int]) -> Drawn:
    """Draws objects.

    Args:
        outlines: Of an image.
        shape: The image's (H, W).

    Raises:
        ValueError: As of `check`.
    """
    check(outlines, shape=shape)
    scale = _scale(outlines, shape)
    objects = [each for each in outlines.objects if not each.is_crowd]
    runs = [_runs_of(each, shape, scale) for each in objects]
    labels, contested = np.zeros(shape, np.uint16), np.zeros(shape, bool)
    for at in np.argsort([each[1::2].sum() for each in runs], kind="stable").tolist():
        columns, inside = _decoded(runs[at], shape)
        taken = inside & (labels[:, columns] > 0)
        contested[:, columns] |= taken
        labels[:, columns][inside & ~taken] = at + 1
    mask = np.array([0, *(each.label for each in objects)], np.uint8)[labels]
    instances = np.where(mask > 0, labels, np.uint16(0))
    for each in outlines.objects:
        if each.is_crowd:
            columns, inside = _decoded(_runs_of(each, shape, scale), shape)
            mask[:, columns][inside & (labels[:, columns] == 0)] = IGNORE_LABEL
    visible = np.bincount(labels.ravel(), minlength=len(objects) + 1) > 0
    hidden = tuple(number for number in range(1, len(objects) + 1) if not visible[number])
    return Drawn(mask, instances, int(np.count_nonzero(contested)), hidden)


def _scale(outlines: Outlines, shape: tuple[int, int]) -> np.ndarray:
    return np.array(shape[::-1]) if outlines.are_shares else np.ones(2)


def _check(outline: Outline, shape: tuple[int, int], scale: np.ndarray) -> None:
    height, width = shape
    if outline.runs is not None and (total := int(outline.runs.sum())) != height * width:
        raise ValueError(
            f"its run lengths are of {total:,} pixels, the image has {height * width:,}"
        )
    length = 0.0
    for points in (points * scale for points in outline.polygons):
        low, high = points.min(axis=0), points.max(axis=0)
        if (low < (-width, -height)).any() or (high > (2 * width, 2 * height)).any():
            raise ValueError(
                f"an outline reaches from {low.round(1).tolist()} to {high.round(1).tolist()}, far "
                f"beyond the image of {width}×{height}: it is of another image, or of another size"
            )
        length += np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum()
    if length > _LONGEST:
        raise ValueError(f"an outline is {length:,.0f} pixels long; up to {_LONGEST:,} are drawn")


def _runs_of(outline: Outline, shape: tuple[int, int], scale: np.ndarray) -> np.ndarray:
    """Lengths of runs down the columns, first of what is outside."""
    if outline.runs is not None:
        return outline.runs
    polygons = [(points * scale).ravel().tolist() for points in outline.polygons]
    merged: Any = coco.merge(coco.frPyObjects(polygons, *shape))
    return np.array([*_lengths(merged["counts"].decode())], np.int64)


def _decoded(runs: np.ndarray, shape: tuple[int, int]) -> tuple[slice, np.ndarray]:
    """The columns that an object is in, and bool [H, W] of these."""
    height = shape[0]
    ends = runs.cumsum()
    inside = np.flatnonzero(runs[1::2]) * 2 + 1
    if not len(inside):
        return slice(0), np.zeros((height, 0), bool)
    first, last = ends[inside[0] - 1] // height, (ends[inside[-1]] - 1) // height + 1
    places = ends.clip(first * height, last * height)  # of the ends of runs, in these columns
    values = np.arange(len(runs)) % 2 == 1
    lengths = np.diff(places, prepend=first * height)
    return slice(first, last), np.repeat(values, lengths).reshape(last - first, height).T


def _licences(found: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of licences, or their addresses, each once."""
    listed = found.get("licenses")
    listed = listed if isinstance(listed, list) else []
    named = [each.get("name") or each.get("url") for each in listed if isinstance(each, Mapping)]
    return tuple(dict.fromkeys(str(each) for each in named if each))


def _shape(photo: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = photo.get("height"), photo.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _shape_of_runs(found: Sequence[Mapping[str, Any]]) -> tuple[int, int] | None:
    """(H, W) as the first run lengths of an image say it; all others are compared with it."""
    for each in found:
        if isinstance(shown := each.get("segmentation"), Mapping):
            height, width = map(int, shown["size"])
            return height, width
    return None


def _coco_outline(
    found: Mapping[str, Any], labels: Mapping[int, int], shape: tuple[int, int] | None
) -> Outline:
    label = labels.get(found["category_id"])
    if label is None:
        raise ValueError(f"category {found['category_id']!r} is not listed")
    is_crowd = bool(found.get("iscrowd"))
    shown = found.get("segmentation")
    if not shown:
        raise ValueError("it has a box and no outline")
    if isinstance(shown, Mapping):
        runs = _runs(shown["counts"])
        height, width = map(int, shown["size"])
        if shape not in (None, (height, width)) or int(runs.sum()) != height * width:
            raise ValueError(
                f"run lengths of {width}×{height} with {int(runs.sum()):,} pixels do not fit"
            )
        return Outline(label=label, runs=runs, is_crowd=is_crowd)
    polygons = tuple(_points(part) for part in shown)
    return Outline(label=label, polygons=polygons, is_crowd=is_crowd)


def _require_few(numbers: int) -> None:
    if numbers > 2 * _MOST_POINTS + 1:
        raise ValueError(
            f"an outline of {numbers:,} numbers; up to {_MOST_POINTS:,} points are read"
        )


def _points(values: Sequence[Any]) -> np.ndarray:
    _require_few(len(values))
    points = np.asarray(values, np.float64)
    if points.ndim != 1 or len(points) < 6 or len(points) % 2:
        raise ValueError(f"an outline of {points.size} numbers; it has at least 3 points, x and y")
    if not np.isfinite(points).all():
        raise ValueError("an outline with a number that is none")
    return points.reshape(-1, 2)


def _runs(counts: Any) -> np.ndarray:
    """Lengths of runs, of a list of them or of COCO's text."""
    if isinstance(counts, str):
        counts = list(_lengths(counts))
    runs = np.asarray(counts)
    if runs.ndim != 1 or runs.dtype.kind not in "iu" or (runs < 0).any() or runs.max() > 1 << 40:
        raise ValueError("its run lengths are no whole numbers from 0")
    return runs.astype(np.int64)


def _lengths(text: str) -> Iterator[int]:
    """COCO's text of run lengths: five bits a character, from the third on differences.

    Source: rleFrString of https://github.com/cocodataset/cocoapi, common/maskApi.c.
    """
    before: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise ValueError(f"{character!r} is no part of run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        value += before[-2] if len(before) > 2 else 0
        before.append(value)
        yield value
        value, shift = 0, 0
    if shift:
        raise ValueError("its run lengths are cut")


def _yaml_names(text: str) -> list[str] | None:
    """The `names` of a `data.yaml`, a list or number to name; None without."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)  # nodes: `no` and `1` stay words
    fields = root.value if isinstance(root, yaml.MappingNode) else []
    found = [value for key, value in fields if key.value == "names"]
    counts = [value.value for key, value in fields if key.value == "nc"]
    if not found:
        return None
    if len(found) > 1:
        raise ValueError("it has names twice")
    if isinstance(found[0], yaml.SequenceNode):
        values = list(found[0].value)
    elif isinstance(found[0], yaml.MappingNode):
        numbered = sorted((int(key.value), at) for at, (key, _) in enumerate(found[0].value))
        numbers = [number for number, _ in numbered]
        if numbers != list(range(len(numbers))):
            raise ValueError(f"it numbers them {', '.join(map(str, numbers))}, not 0, 1, 2 …")
        values = [found[0].value[at][1] for _, at in numbered]
    else:
        raise ValueError("they are neither a list nor numbered")
    if not all(isinstance(value, yaml.ScalarNode) for value in values):
        raise ValueError("one of them is no word")
    if counts and counts != [str(len(values))]:
        raise ValueError(f"it names {len(values)}, and its nc is {counts[0]!s:.20}")
    return [value.value for value in values]

"""One example of a folder of images and masks, read as all of them are."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import numpy as np
from PIL import Image

from segdata import archives
from segdata.archives import annotations, images, intensity, mask_files, masks, scientific
from segdata.core import IGNORE_LABEL
from segdata.sources import Example, SizeMismatchError
from segdata.sources.folder.pairing import Entry
from segdata.sources.folder.settings import Folder
from segdata.sources.folder.survey import Survey

Look = TypeVar("Look")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examined(Generic[Look]):
    """How all of it is read.

    Attributes:
        survey: What is there.
        entries: The examples that can be read.
        reading: How masks are understood.
        scaling: How brightness is scaled; None where images have 8 bits, one page, and all their
            channels are read.
        looks: Entry id to what `look` made of the image.
        has_instances: Whether examples have maps of their objects.
        skipped: What is left out, as asked for, and why.
        notes: What the user should know, a line each.
    """

    survey: Survey
    entries: tuple[Entry, ...]
    reading: mask_files.Reading
    scaling: intensity.Scaling | None
    looks: Mapping[str, Look]
    has_instances: bool
    skipped: Mapping[str, str]
    notes: tuple[str, ...]


def read_example(examined: Examined[Any], entry: Entry) -> Example:
    """Reads one example; its group is its id.

    An upright 8-bit RGB PNG or JPEG keeps its bytes, others become PNGs of 8-bit RGB.

    Raises:
        ArchiveError: If a file cannot be read, or a mask's size is not the image's.
    """
    found, folder, reading = examined.survey, examined.survey.folder, examined.reading
    data = found.photos.read(entry.image)
    picture = read_picture(found, entry, data)
    shape = picture.pixels.shape[:2]
    renewed = f"EXIF orientation {picture.turned}" if picture.turned > 1 else ""
    if not picture.is_plain or examined.scaling:
        data = images.png(Image.fromarray(intensity.rgb(picture.pixels, examined.scaling)))
    common: dict[str, Any] = {"id": entry.id, "group": entry.id, "image": data, "renewed": renewed}
    if outlines := found.outlines.get(entry.id):
        try:
            drawn = annotations.draw(outlines, shape=shape)
        except ValueError as error:
            raise archives.ArchiveError(
                f"{folder.coco or folder.yolo}: {entry.id}: {error}."
            ) from error
        common |= {"overlap": drawn.overlap, "hidden": len(drawn.hidden)}
        return Example(**common, mask=drawn.mask, instances=drawn.instances)
    if not entry.masks:
        mask = np.zeros(shape, np.uint8)
        return Example(**common, mask=mask, instances=mask.astype(np.uint16))
    if reading.kind == "objects":
        return Example(**common, **_merged(found, entry, reading, shape))
    mask, objects = _understood(found, entry.masks[0], reading, shape)
    if entry.objects:
        numbers = mask_files.Reading(kind="instances", classes=())
        _, objects = _understood(found, entry.objects, numbers, shape)
        if objects is not None:
            objects = np.where((mask == 0) | (mask == IGNORE_LABEL), np.uint16(0), objects)
    return Example(**common, mask=mask, instances=objects)


def read_picture(found: Survey, entry: Entry, data: bytes) -> scientific.Picture:
    """Decodes an example's image of its bytes."""
    name, folder = f"{found.photos.label}: {entry.image}", found.folder
    try:
        return scientific.read(data, name=name, page=folder.page, channels=folder.channels)
    except scientific.PagesError as error:
        raise scientific.PagesError(f"{error} Say which, from 0: --page.") from error
    except scientific.ChannelsError as error:
        raise scientific.ChannelsError(
            f"{error} Say which are read, one as grey or up to three as red, green and blue: "
            "--channels."
        ) from error


def read_stored(found: Survey, name: str) -> mask_files.Stored:
    """Decodes a mask as it is stored."""
    try:
        return scientific.read_mask(found.labels.read(name), name=f"{found.labels.label}: {name}")
    except scientific.PagesError as error:
        raise scientific.PagesError(f"{error} Save the page of its image alone.") from error


def require_same_size(found: Survey, name: str, mask: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raises SizeMismatchError if a mask has another height or width than its image."""
    if mask.shape[:2] != tuple(shape):
        raise SizeMismatchError(
            f"{name} is {mask.shape[1]}×{mask.shape[0]}, its image {shape[1]}×{shape[0]}."
        )


def require_outlines(
    folder: Folder, entry: Entry, outlines: annotations.Outlines, shape: tuple[int, ...]
) -> None:
    """Raises ArchiveError if outlines cannot be drawn, or are of another size."""
    if outlines.shape not in (None, tuple(shape)):
        height, width = outlines.shape or (0, 0)
        raise SizeMismatchError(
            f"{entry.image} is {shape[1]}×{shape[0]}, in {folder.coco} {width}×{height}."
        )
    if outlines.fault:
        raise archives.ArchiveError(outlines.fault)
    try:
        annotations.check(outlines, shape=(shape[0], shape[1]))
    except ValueError as error:
        raise archives.ArchiveError(f"{entry.image}: {error}.") from error


def _understood(
    found: Survey, name: str, reading: mask_files.Reading, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray | None]:
    stored = read_stored(found, name)
    require_same_size(found, name, stored.pixels, shape)
    try:
        return reading.apply(stored)
    except ValueError as error:
        raise archives.ArchiveError(f"{found.labels.label}: {name}: {error}.") from error


def _merged(
    found: Survey, entry: Entry, reading: mask_files.Reading, shape: tuple[int, int]
) -> dict[str, Any]:
    """Mask, instances, and what is to be noted, of one file an object."""
    parts = (_understood(found, name, reading, shape)[0] for name in entry.masks)
    if entry.classes:
        every = [part != 0 for part in parts]
        areas = [int(np.count_nonzero(part)) for part in every]
        merged = masks.merge_smallest_first(areas, every.__getitem__, shape=shape)
    else:
        merged = masks.merge_instances(parts, shape=shape)
    kinds = [reading.classes.index(kind) for kind in entry.classes] or [1] * len(entry.masks)
    mask = np.array([0, *kinds], np.uint8)[merged.labels]
    visible = np.unique(merged.labels[merged.labels > 0])
    hidden = len(entry.masks) - len(visible)
    said = {"overlap": merged.contested, "hidden": hidden}
    return {"mask": mask, "instances": merged.labels, **said}

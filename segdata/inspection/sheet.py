"""Contact sheets: examples with their masks drawn over them, unchanged and augmented.

One column an example. The first row is the image, the second the image with its mask; with
augmentation, each further row is the example in one more epoch. All are resized to one size, as in
packing.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segdata import console
from segdata.archives import images, resizing
from segdata.core import IGNORE_LABEL, stream
from segdata.core.augment import Augment
from segdata.core.system.parallel import ordered_map
from segdata.inspection import overlays
from segdata.inspection.examples import Collection
from segdata.sources import Example

MILD = Augment(
    horizontal_flip=0.5,
    rotation_range=(-15, 15),
    scale_range=(0.9, 1.2),
    shift_range=(-0.05, 0.05),
    brightness_range=(-0.1, 0.1),
    contrast_range=(0.8, 1.2),
    saturation_range=(0.8, 1.2),
)
"""Augmentation that suits photographs and microscope images; recipes often use more."""

_COLUMNS = 8  # examples in a row
_GAP, _MARGIN, _CAPTION = 6, 20, 18
_PAPER, _INK, _SOFT = (250, 250, 249), (29, 33, 39), (102, 112, 128)


def of(
    collection: Collection, *, count: int, augment: Augment | None = None, seed: int = 0
) -> Image.Image:
    """A contact sheet of a collection's first examples.

    Raises:
        ValueError: If there are none.
        OSError: If one of them is damaged.
    """
    first = itertools.islice(collection.stream(), min(count, _COLUMNS))
    size = common_size([_size(item.read()) for item in first])
    pending = itertools.islice(collection.stream(), count)
    drawn = list(ordered_map(lambda item: (item.id, item.split, _row(item.read(), size)), pending))
    ids, parts, rows = zip(*drawn, strict=True)
    return sheet(
        np.stack(rows),
        ids,
        classes=collection.classes,
        title=f"{collection.name}, {', '.join(dict.fromkeys(parts))}",
        augment=augment,
        seed=seed,
    )


def sheet(
    pixels: np.ndarray,
    ids: Sequence[str],
    *,
    classes: Sequence[str],
    title: str,
    augment: Augment | None = None,
    epochs: int = 3,
    seed: int = 0,
) -> Image.Image:
    """Draws a contact sheet.

    Args:
        pixels: uint8 [N, H, W, 4], RGB and class id, as packed records hold them.
        ids: The id of each.
        classes: Names, by class id.
        title: The heading.
        augment: The augmentation; None for no augmented rows.
        epochs: The number of augmented rows.
        seed: The seed of the augmentation.

    Returns:
        RGB.

    Raises:
        ValueError: If there is nothing to draw.
    """
    if not len(pixels):
        raise ValueError("there are no examples to draw.")
    rows = [("image", pixels[..., :3]), ("mask", _overlaid(pixels, classes))]
    if augment:
        for epoch in range(epochs):
            changed = _augmented(pixels, augment, seed, epoch)
            rows.append((f"epoch {epoch}", _overlaid(changed, classes)))
    cuts = [slice(first, first + _COLUMNS) for first in range(0, len(pixels), _COLUMNS)]
    bands = [(ids[cut], [(name, row[cut]) for name, row in rows]) for cut in cuts]
    return _laid_out(
        bands,
        classes=classes,
        present=np.unique(pixels[..., 3]),
        title=title,
        size=pixels.shape[1:3],
    )


def common_size(sizes: Sequence[tuple[int, int]], *, height: int = 192) -> tuple[int, int]:
    """A cell for images of these sizes: its height, and a width of their median proportion.

    Raises:
        ValueError: If there are no sizes.
    """
    if not sizes:
        raise ValueError("there are no examples to draw.")
    ratios = sorted(wide / high for high, wide in sizes)
    return height, min(4 * height, max(height // 4, round(height * ratios[len(ratios) // 2])))


def _size(example: Example) -> tuple[int, int]:
    with images.opened(example.image, name=example.id) as image:
        return image.height, image.width


def _row(example: Example, size: tuple[int, int]) -> np.ndarray:
    """Image and mask at a size, uint8 [H, W, 4]."""
    with images.opened(example.image, name=example.id) as opened:
        image = images.at_size(opened, size)
    return np.dstack([image, resizing.mask(example.mask, size)])


def _overlaid(pixels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    return np.stack([overlays.overlay(x[..., :3], x[..., 3], classes=classes) for x in pixels])


def _augmented(pixels: np.ndarray, settings: Augment, seed: int, epoch: int) -> np.ndarray:
    count = len(pixels)
    return stream.apply(
        settings, pixels, seed=seed, epoch=np.full(count, epoch), example=np.arange(count)
    )


def _laid_out(
    bands: Sequence[tuple[Sequence[str], Sequence[tuple[str, np.ndarray]]]],
    *,
    classes: Sequence[str],
    present: np.ndarray,
    title: str,
    size: tuple[int, int],
) -> Image.Image:
    height, width = size
    columns = max(len(ids) for ids, _ in bands)
    left = _MARGIN + 62
    whole_width = max(left + columns * (width + _GAP) - _GAP + _MARGIN, 640)
    key = _key(classes, present, width=whole_width - 2 * _MARGIN)
    top = _MARGIN + 38 + key.height
    band_height = len(bands[0][1]) * (height + _GAP) + _CAPTION + 2 * _GAP
    whole_height = top + len(bands) * band_height - 2 * _GAP + _MARGIN
    paper = Image.new("RGB", (whole_width, whole_height), _PAPER)
    paper.paste(key, (_MARGIN, _MARGIN + 28))
    pen = ImageDraw.Draw(paper)
    pen.text(
        (_MARGIN, _MARGIN - 4), console.printable(title), fill=_INK, font=ImageFont.load_default(20)
    )
    small = ImageFont.load_default(12)
    for number, (ids, rows) in enumerate(bands):
        y = top + number * band_height
        for row, (name, cells) in enumerate(rows):
            at = y + row * (height + _GAP)
            pen.text((_MARGIN, at + height / 2), name, fill=_SOFT, font=small, anchor="lm")
            for column, image in enumerate(cells):
                paper.paste(Image.fromarray(image), (left + column * (width + _GAP), at))
        at = y + len(rows) * (height + _GAP) - 1
        for column, key in enumerate(ids):
            pen.text(
                (left + column * (width + _GAP), at), _short(key, width), fill=_SOFT, font=small
            )
    return paper


def _short(key: str, width: int) -> str:
    key, room = console.printable(key), max(4, width // 8)
    return key if len(key) <= room else f"{key[: room - 1]}…"


def _key(classes: Sequence[str], present: np.ndarray, *, width: int) -> Image.Image:
    """The legend of the classes that occur."""
    shown: list[tuple[str, tuple[int, ...] | None]] = [
        (name, tuple(colour.tolist()))
        for number, (name, colour) in enumerate(
            zip(classes, overlays.palette(len(classes)), strict=True)
        )
        if number in present and overlays.tinted(classes)[number]
    ]
    shown += [("not labelled", None)] if IGNORE_LABEL in present else []
    font = ImageFont.load_default(13)
    places, x, y = [], 0, 0
    for name, _ in shown:
        room = 34 + math.ceil(font.getlength(name))
        if x and x + room > width:
            x, y = 0, y + 20
        places.append((x, y))
        x += room
    key = Image.new("RGB", (width, y + 20), _PAPER)
    pen = ImageDraw.Draw(key)
    for (name, colour), (x, y) in zip(shown, places, strict=True):
        pen.rectangle((x, y, x + 12, y + 12), fill=colour or overlays.GREY)
        if colour is None:
            for offset in (3, 7, 11):
                pen.line((x, y + offset, x + offset, y), fill=_PAPER)
        pen.text((x + 18, y + 6), name, fill=_SOFT, font=font, anchor="lm")
    return key

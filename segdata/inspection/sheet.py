"""Contact sheets: examples with their masks drawn over them, unchanged and augmented.

One column an example. The first row is the image, the second the image with its mask; with
augmentation, each further row is the example in one more epoch. Each image keeps its shape and is
resized to fill a cell, all cells being alike.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw

from segdata.archives import images, resizing
from segdata.core import IGNORE_LABEL, stream
from segdata.core.augment import Augment
from segdata.core.system.parallel import ordered_map
from segdata.inspection import lettering, overlays
from segdata.inspection.examples import Collection, Pending
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
_SMALL = 12  # letters
_PAPER, _INK, _SOFT = (250, 250, 249), (29, 33, 39), (102, 112, 128)


def of(
    collection: Collection,
    *,
    count: int,
    ids: Sequence[str] = (),
    augment: Augment | None = None,
    seed: int = 0,
) -> Image.Image:
    """A contact sheet of a collection's examples.

    Args:
        collection: The examples.
        count: How many at most, the first of them.
        ids: Which: an id, or the beginning of the ids of several; all where there is none.
        augment: The augmentation; None for no augmented rows. With quarter turns the examples are
            letterboxed to squares.
        seed: The seed of the augmentation.

    Raises:
        ValueError: If there are none, or none of an id.
        OSError: If one of them is damaged.
    """
    first = itertools.islice(_chosen(collection, ids), min(count, _COLUMNS))
    cell = common_size([_size(item.read()) for item in first])
    is_square = bool(augment and augment.quarter_turns)
    cell = (cell[0], cell[0]) if is_square else cell
    pending = itertools.islice(_chosen(collection, ids), count)

    def row(item: Pending) -> np.ndarray:
        pixels = _row(item.read(), cell)
        return _filled(pixels, cell) if is_square else pixels

    drawn = list(ordered_map(lambda item: (item.id, item.split, row(item)), pending))
    names, parts, rows = zip(*drawn, strict=True)
    return sheet(
        rows,
        names,
        classes=collection.classes,
        title=f"{collection.name}, {', '.join(dict.fromkeys(parts))}",
        augment=augment,
        seed=seed,
    )


def sheet(
    pixels: Sequence[np.ndarray],
    ids: Sequence[str],
    *,
    classes: Sequence[str],
    title: str,
    augment: Augment | None = None,
    epochs: int = 3,
    seed: int = 0,
    whole_ids: bool = False,
) -> Image.Image:
    """Draws a contact sheet.

    Args:
        pixels: uint8 [H, W, 4] each, RGB and class id, as packed records hold them; of any sizes.
        ids: The id of each.
        classes: Names, by class id.
        title: The heading.
        augment: The augmentation; None for no augmented rows. CutMix takes partners of one size.
        epochs: The number of augmented rows.
        seed: The seed of the augmentation.
        whole_ids: Whether cells are as wide as their ids; else these are shortened.

    Returns:
        RGB.

    Raises:
        ValueError: If there is nothing to draw.
    """
    if not len(pixels):
        raise ValueError("there are no examples to draw.")
    rows = [("image", [each[..., :3] for each in pixels]), ("mask", _overlaid(pixels, classes))]
    if augment:
        for epoch in range(epochs):
            changed = _augmented(pixels, augment, seed, epoch)
            rows.append((f"epoch {epoch}", _overlaid(changed, classes)))
    cuts = [slice(first, first + _COLUMNS) for first in range(0, len(pixels), _COLUMNS)]
    bands = [(ids[cut], [(name, row[cut]) for name, row in rows]) for cut in cuts]
    widths = [each.shape[1] for each in pixels]
    if whole_ids:
        widths += [math.ceil(lettering.length(key, size=_SMALL)) for key in ids]
    return _laid_out(
        bands,
        classes=classes,
        present=np.unique(np.concatenate([np.unique(each[..., 3]) for each in pixels])),
        title=title,
        cell=(max(len(each) for each in pixels), max(widths)),
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


def _chosen(collection: Collection, ids: Sequence[str]) -> Iterator[Pending]:
    """The examples of some ids; for each of them the one of that very id, or all that begin so."""
    if not ids:
        return collection.stream()
    names = {item.id for item in collection.stream()}
    wanted = set[str]()
    for key in ids:
        found = {key} & names or {name for name in names if name.startswith(key)}
        if not found:
            raise ValueError(f"{collection.name} has no example whose id is or begins with {key}.")
        wanted |= found
    return (item for item in collection.stream() if item.id in wanted)


def _row(example: Example, cell: tuple[int, int]) -> np.ndarray:
    """Image and mask, as large as they fit into a cell, uint8 [H, W, 4]."""
    with images.opened(example.image, name=example.id) as opened:
        scale = min(cell[0] / opened.height, cell[1] / opened.width)
        size = max(1, round(scale * opened.height)), max(1, round(scale * opened.width))
        image = images.at_size(opened, size)
    return np.dstack([image, resizing.mask(example.mask, size)])


def _filled(pixels: np.ndarray, cell: tuple[int, int]) -> np.ndarray:
    """The same in the middle of a cell, in black of the ignore label."""
    out = np.zeros((*cell, 4), np.uint8)
    out[..., 3] = IGNORE_LABEL
    top, left = ((outer - inner) // 2 for outer, inner in zip(cell, pixels.shape[:2], strict=True))
    out[top : top + len(pixels), left : left + pixels.shape[1]] = pixels
    return out


def _overlaid(pixels: Sequence[np.ndarray], classes: Sequence[str]) -> list[np.ndarray]:
    return [overlays.overlay(x[..., :3], x[..., 3], classes=classes) for x in pixels]


def _augmented(
    pixels: Sequence[np.ndarray], settings: Augment, seed: int, epoch: int
) -> list[np.ndarray]:
    changed = dict[int, np.ndarray]()
    for shape in {each.shape for each in pixels}:
        index = np.array([i for i, each in enumerate(pixels) if each.shape == shape])
        alike = np.stack([pixels[i] for i in index])
        epochs = np.full(len(index), epoch)
        made = stream.apply(settings, alike, seed=seed, epoch=epochs, example=index)
        changed |= dict(zip(index.tolist(), made, strict=True))
    return [changed[i] for i in range(len(pixels))]


def _laid_out(
    bands: Sequence[tuple[Sequence[str], Sequence[tuple[str, Sequence[np.ndarray]]]]],
    *,
    classes: Sequence[str],
    present: np.ndarray,
    title: str,
    cell: tuple[int, int],
) -> Image.Image:
    height, width = cell
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
    lettering.write(pen, (_MARGIN, _MARGIN + 8), title, size=20, fill=_INK)
    for number, (ids, rows) in enumerate(bands):
        y = top + number * band_height
        for row, (name, cells) in enumerate(rows):
            at = y + row * (height + _GAP)
            lettering.write(pen, (_MARGIN, at + height / 2), name, size=_SMALL, fill=_SOFT)
            for column, image in enumerate(cells):
                x = left + column * (width + _GAP) + (width - image.shape[1]) // 2
                paper.paste(Image.fromarray(image), (x, at + (height - len(image)) // 2))
        at = y + len(rows) * (height + _GAP) + 6
        for column, key in enumerate(ids):
            short = lettering.shortened(key, size=_SMALL, width=width)
            place = left + column * (width + _GAP), at
            lettering.write(pen, place, short, size=_SMALL, fill=_SOFT)
    return paper


def _key(classes: Sequence[str], present: np.ndarray, *, width: int) -> Image.Image:
    """The legend of the classes that occur."""
    shown: list[tuple[str, tuple[int, ...] | None]] = [
        (name, tuple(colour.tolist()))
        for number, (name, colour) in enumerate(
            zip(classes, overlays.palette(len(classes)), strict=True)
        )
        if number in present and overlays.tinted(classes)[number]
    ]
    shown += [("ignore label", None)] if IGNORE_LABEL in present else []
    places, x, y = [], 0, 0
    for name, _ in shown:
        room = 34 + math.ceil(lettering.length(name, size=13))
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
        lettering.write(pen, (x + 18, y + 6), name, size=13, fill=_SOFT)
    return key

"""Tables of run lengths, as competitions take them.

Rows are in the order of the images, written as these come, so memory holds one image; a table gets
its name when it was read back and holds each mask exactly.
"""

import hashlib
import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from segdata.archives import rle
from segdata.core.system import files
from unet.objects import Separation
from unet.recipes import Recipe


class Format(NamedTuple):
    """What a competition's table is like."""

    header: str
    """Its first line."""

    ending: str
    """What follows the name of an image."""

    order: rle.Order
    """The order in which pixels are counted, from 1."""

    is_of_objects: bool
    """Whether a row is an object, or an image."""


FORMATS = {
    # "ImageId,EncodedPixels", numbered from top to bottom, then left to right.
    "dsb2018": Format("ImageId,EncodedPixels", "", "columns", True),
    # As `train_masks.csv` has it: names with .jpg, numbered from left to right, then down.
    "carvana": Format("img,rle_mask", ".jpg", "rows", False),
}
"""By dataset. Sources: the evaluation pages of https://www.kaggle.com/c/data-science-bowl-2018 and
https://www.kaggle.com/c/carvana-image-masking-challenge."""


class Written(NamedTuple):
    """What a table holds, as it was read back."""

    images: int
    objects: int
    empty: int

    def __str__(self) -> str:
        return (
            f"{self.images:,} images, {self.objects:,} masks, {self.empty:,} images without any; "
            "read back: equal to the predicted masks, no pixel in two of an image"
        )


def format_of(recipe: Recipe) -> Format:
    """The format of the competition that a run's dataset is of.

    Raises:
        ValueError: If there is none, or the model does not find classes.
    """
    base = recipe.dataset.partition("/")[0]
    if recipe.mix or base not in FORMATS:
        raise ValueError(
            f"this run was trained on {recipe.dataset}, which no competition here takes tables of; "
            f"a run on {' or '.join(FORMATS)} is needed."
        )
    if recipe.is_regression:
        raise ValueError("this run gives numbers, and competitions take masks; train for classes.")
    return FORMATS[base]


def require_table(path: pathlib.Path) -> None:
    """Refuses a place for a table, before the work for it is done.

    Raises:
        ValueError: If it is no .csv.
        OSError: If it may not be written.
    """
    if path.suffix != ".csv":
        raise ValueError(f"--to {path}: name a table, such as {path.stem or 'submission'}.csv.")
    files.require_writable(path)


def write(
    path: pathlib.Path,
    images: Iterable[tuple[str, np.ndarray]],
    *,
    form: Format,
    separation: Separation,
    border: int | None = None,
) -> Written:
    """Writes a table, reads it back, and gives it its name.

    Args:
        path: The table.
        images: Names, and class maps uint8 [H, W] at the images' own size; 0 is background.
        form: The competition's.
        separation: How masks are split into objects, where a row is an object.
        border: As in `watershed.objects`.

    Raises:
        ValueError: If what is read back is not what was predicted; nothing is written then.
        OSError: If it cannot be written.
    """
    kept: list[tuple[str, tuple[int, int], bytes]] = []
    files.remove_unfinished(path.parent)  # of processes that were killed
    with files.replacing(path) as unfinished:
        with unfinished.open("w", encoding="utf-8", newline="\n") as table:
            table.write(form.header + "\n")
            for name, found in images:
                labels = _labels(found, form, separation, border)
                kept.append((name, labels.shape, _digest(labels)))
                for runs in rle.encode_objects(labels, order=form.order) or [""]:
                    table.write(f"{name}{form.ending},{runs}\n")
        return _verified(unfinished, kept, form)


def _labels(
    found: np.ndarray, form: Format, separation: Separation, border: int | None
) -> np.ndarray:
    """int32 [H, W]: the number of the object, or 1 in the mask."""
    if not form.is_of_objects:
        return (found > 0).astype(np.int32)
    from unet import watershed  # compiles loops

    return watershed.objects(found, separation, border=border)


def _verified(
    path: pathlib.Path, kept: list[tuple[str, tuple[int, int], bytes]], form: Format
) -> Written:
    """Counts what a table holds; raises ValueError if it is not what was kept of each image."""
    count = empty = 0
    for (name, shape, digest), read in zip(kept, _read(path, form), strict=True):
        if read.id != name or read.order != form.order:
            raise ValueError(f"{path}: {read.id} is read where {name} was written.")
        if _digest(read.labels(shape)) != digest:
            raise ValueError(f"{path}: what is read of {name} differs from its mask.")
        objects = sum(map(bool, read.runs))
        count, empty = count + objects, empty + (not objects)
    return Written(len(kept), count, empty)


def _read(path: pathlib.Path, form: Format) -> Iterator[rle.Encoded]:
    return rle.read_stage1(path) if form.is_of_objects else rle.read_train_masks(path)


def _digest(labels: np.ndarray) -> bytes:
    return hashlib.sha256(labels.astype(np.int32, copy=False).tobytes()).digest()

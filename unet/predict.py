"""From an image file of any size to a mask of that size.

The model sees the image at the size it was trained on. The probability, not the mask, is enlarged,
so that edges stay smooth; and tile by tile, so that memory does not grow with the classes.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from segdata.archives import images, intensity, resizing, scientific
from segdata.archives.intensity import Scaling
from segdata.core.system import files as atomic
from segdata.inspection import overlays
from unet import metrics

_BILINEAR = Image.Resampling.BILINEAR
_TILE = 1 << 16  # pixels that are enlarged at once


def read(
    path: pathlib.Path, *, size: tuple[int, int], scaling: Scaling | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Reads an image file as the dataset was built that the model was trained on.

    Args:
        path: A PNG, JPEG, GIF, BMP, TIFF or WebP of up to 33 megapixels. Transparency is dropped
            and an EXIF orientation undone.
        size: Height and width of the model's input, h and w.
        scaling: How brightness became 8 bits in the dataset, of which channels and page; None where
            its images had 8 bits.

    Returns:
        The image, uint8 [H, W, 3], and the model's input, uint8 [h, w, 3]: the same pixels as
        building and packing make of such a file.

    Raises:
        ValueError: If its numbers are of another type than those of the dataset's images, or it has
            other pages or channels.
        OSError: If it cannot be read, is of another kind, or is damaged.
    """
    data, name = images.data_of(path), str(path)
    page, channels = (scaling.page, scaling.channels) if scaling else (None, ())
    try:
        picture = scientific.read(data, name=name, page=page, channels=channels)
    except (scientific.PagesError, scientific.ChannelsError) as error:
        raise ValueError(f"{error} {_wanted(page, channels)}") from error
    kind, kinds = picture.pixels.dtype.name, scaling.types if scaling else ("uint8",)
    if kinds and kind not in kinds:
        raise ValueError(
            f"{path}: its pixels are {kind}, and those of the images that the model was trained on "
            f"{' or '.join(kinds)}, so what is black and what is white in it is not known. "
            f"{'Give the original file.' if scaling else 'Convert it to 8 bits first.'}"
        )
    pixels = intensity.rgb(picture.pixels, scaling)
    if picture.is_plain and not scaling:
        with images.opened(data, name=name) as image:
            return pixels, images.at_size(image, size)
    return pixels, resizing.image(pixels, size)


def mask(network: Any, seen: np.ndarray, *, shape: tuple[int, int], threshold: float) -> np.ndarray:
    """Predicts one image of any size, in memory that does not grow with the number of classes.

    Args:
        network: From uint8 [B, h, w, 3] to float32 [B, h, w, C].
        seen: The model's input, uint8 [h, w, 3].
        shape: Height and width of the image, H and W.
        threshold: With one channel, a pixel is foreground above this probability.

    Returns:
        The class of each pixel, uint8 [H, W].
    """
    probability = np.asarray(network.predict_on_batch(seen[None]))[0]
    found = np.empty(shape, np.uint8)
    for rows, columns, part in _enlarged(probability, shape):
        found[rows, columns] = metrics.decide(part, threshold=threshold)
    return found


def files(
    network: Any,
    paths: Sequence[pathlib.Path],
    *,
    size: tuple[int, int],
    threshold: float,
    classes: Sequence[str],
    to: pathlib.Path,
    overwrite: bool = False,
    scalings: Mapping[str, Scaling | None] | None = None,
) -> Iterable[tuple[pathlib.Path, str | None]]:
    """Predicts files one by one; an error in one does not stop the others.

    For `NAME.EXT` it writes `NAME.mask.png` at the image's own size, with 0 and 255 or, for several
    classes, their ids, and `NAME.overlay.png`; each is written atomically.

    Args:
        network: As for `mask`.
        paths: Image files.
        size: Height and width of the model's input.
        threshold: A pixel is foreground above this probability.
        classes: Names of the classes; empty for a model of one channel.
        to: The folder to write into; made if missing.
        overwrite: Whether existing files may be replaced; images of `paths` never are.
        scalings: By dataset that the model was trained on, what `read` takes; one that had 8 bits
            where None.

    Yields:
        Each path, and its error or None.
    """
    atomic.make_folder(to)
    given = set(map(_place, paths))
    written: dict[str, pathlib.Path] = {}
    for path in paths:
        try:
            if path.stem in written:
                raise ValueError(
                    f"{path}: its results would overwrite those of {written[path.stem]}; "
                    "predict it on its own, with another --to."
                )
            outputs = [to / f"{path.stem}.{kind}.png" for kind in ("mask", "overlay")]
            for output in outputs:
                _require_free(output, given, path=path, overwrite=overwrite)
            image, seen = _read_as_one_of(path, size=size, scalings=scalings or {"": None})
            found = mask(network, seen, shape=image.shape[:2], threshold=threshold)
            drawn = overlays.overlay(image, found, classes=classes or ("background", "foreground"))
            _write({outputs[0]: found if classes else 255 * found, outputs[1]: drawn})
            written[path.stem] = path
            yield path, None
        except (ValueError, OSError) as error:
            yield path, str(error)


def _read_as_one_of(
    path: pathlib.Path, *, size: tuple[int, int], scalings: Mapping[str, Scaling | None]
) -> tuple[np.ndarray, np.ndarray]:
    """`read`, by the only scaling that fits the file; raises ValueError where several do."""
    names = {scaling: name for name, scaling in scalings.items()}
    found, faults = dict[str, tuple[np.ndarray, np.ndarray]](), list[ValueError]()
    for scaling, name in names.items():
        try:
            found[name] = read(path, size=size, scaling=scaling)
        except ValueError as error:
            faults.append(error)
    if not found:
        raise faults[0]
    if len(found) > 1:
        raise ValueError(
            f"{path}: in {' and '.join(found)}, which the model was trained on, brightness was "
            f"scaled in different ways. Say which it is like: --like {next(iter(found))}."
        )
    return next(iter(found.values()))


def _wanted(page: int | None, channels: Sequence[str]) -> str:
    """What the images have that a model was trained on."""
    if page is None and not channels:
        return "The model was trained on images of one page, grey or RGB: save what is meant alone."
    parts = [f"the channels {', '.join(channels)}"] * bool(channels)
    parts += [f"page {page}"] * (page is not None)
    return f"The model was trained on {' of '.join(parts)}, of which its dataset was built."


def _enlarged(
    probability: np.ndarray, shape: Sequence[int]
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Resizes a probability, tile by tile: rows, columns and float32 [rows, columns, C]."""
    channels = [Image.fromarray(channel) for channel in np.moveaxis(probability, -1, 0).copy()]
    least, most = probability.min(), probability.max()
    height, width = probability.shape[:2]
    down, along = height / shape[0], width / shape[1]
    wide = min(shape[1], max(256, _TILE // shape[0]))  # square where the image allows
    high = _TILE // wide
    for top in range(0, shape[0], high):
        rows = slice(top, min(top + high, shape[0]))
        for left in range(0, shape[1], wide):
            columns = slice(left, min(left + wide, shape[1]))
            right, bottom = columns.stop * along, rows.stop * down
            box = (left * along, top * down, min(right, width), min(bottom, height))
            tile = (columns.stop - left, rows.stop - top)
            parts = [np.asarray(c.resize(tile, _BILINEAR, box=box)) for c in channels]
            yield rows, columns, np.clip(np.stack(parts, -1), least, most)  # against rounding


def _require_free(
    output: pathlib.Path, given: set[pathlib.Path], *, path: pathlib.Path, overwrite: bool
) -> None:
    """Raises ValueError if the output for an image may not be written."""
    if _place(output) in given:
        raise ValueError(
            f"{path}: its result would overwrite {output}, which is given as an image; "
            "choose another folder with --to."
        )
    if output.is_dir() and not output.is_symlink():
        raise ValueError(f"{path}: {output} is a folder; choose another folder with --to.")
    if os.path.lexists(output) and not overwrite:
        raise ValueError(
            f"{path}: {output} is there already; give --overwrite to replace it, or choose "
            "another folder with --to."
        )


def _place(path: pathlib.Path) -> pathlib.Path:
    """The absolute path; links in the last part are kept, as they are what would be replaced."""
    return path.parent.resolve() / path.name


def _write(pictures: Mapping[pathlib.Path, np.ndarray]) -> None:
    """Writes PNGs; none gets its name before all are written."""
    try:
        with contextlib.ExitStack() as stack:
            for path, pixels in pictures.items():
                unfinished = stack.enter_context(atomic.replacing(path))
                Image.fromarray(pixels).save(unfinished)
    except OSError as error:
        names = " and ".join(map(str, pictures))
        raise OSError(f"{names} cannot be written: {error.strerror}.") from error

"""From an image file of any size to a mask of that size.

The model sees the image as training did: of the recipe's size, in the dataset's brightness.
"""

import contextlib
import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from segdata.archives import images, intensity, resizing, scientific
from segdata.archives.intensity import Scaling
from segdata.core.system import files as atomic
from segdata.inspection import overlays
from unet import inference
from unet.recipes import Recipe

Seen = Callable[[int, int], tuple[int, int]]
"""From the height and width of an image to those that the model sees: `Recipe.seen`."""


def read(
    path: pathlib.Path, *, seen: Seen, scaling: Scaling | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Reads an image file as the dataset was built that the model was trained on.

    Args:
        path: A PNG, JPEG, GIF, BMP, TIFF or WebP of up to 33 megapixels. Transparency is dropped
            and an EXIF orientation undone.
        seen: The size at which the model sees an image, h and w.
        scaling: How brightness became 8 bits in the dataset, of which channels and page; None where
            its images had 8 bits.

    Returns:
        The image, uint8 [H, W, 3], and as the model sees it, uint8 [h, w, 3]: the same pixels as
        building and packing make of such a file.

    Raises:
        ValueError: If its numbers are of another type than those of the dataset's images, or of
            more bits, or it has other pages or channels.
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
    _require_bits(picture.pixels, scaling, path)
    pixels = intensity.rgb(picture.pixels, scaling)
    size = seen(*pixels.shape[:2])
    if size == pixels.shape[:2]:
        return pixels, pixels
    if picture.is_plain and not scaling:
        with images.opened(data, name=name) as image:
            return pixels, images.at_size(image, size)
    return pixels, resizing.image(pixels, size)


def files(
    network: Any,
    paths: Sequence[pathlib.Path],
    *,
    recipe: Recipe,
    classes: Sequence[str],
    to: pathlib.Path,
    overwrite: bool = False,
    scalings: Mapping[str, Scaling | None] | None = None,
) -> Iterable[tuple[pathlib.Path, str | None]]:
    """Predicts files one by one; an error in one does not stop the others.

    For `NAME.EXT` it writes `NAME.mask.png` at the image's own size, with 0 and 255 or, for several
    classes, their ids, and `NAME.overlay.png`; of a regression `NAME.values.tif`, float32. Each is
    written atomically.

    Args:
        network: From uint8 [B, h, w, 3] to probabilities float32 [B, h, w, C], or numbers.
        paths: Image files.
        recipe: What the model was trained by: whole or in tiles, and the activation.
        classes: Names of the classes; empty for a model of one channel.
        to: The folder to write into; made if missing.
        overwrite: Whether existing files may be replaced; images of `paths` never are.
        scalings: By dataset that the model was trained on, what `read` takes; one that had 8 bits
            where None.

    Yields:
        Each path, and its error or None.
    """
    is_number = recipe.is_regression
    kinds = ["values.tif"] if is_number else ["mask.png", "overlay.png"]
    atomic.make_folder(to)
    ask = functools.partial(inference.asked, network)
    given = set(map(_place, paths))
    written: dict[str, pathlib.Path] = {}
    for path in paths:
        try:
            if path.stem in written:
                raise ValueError(
                    f"{path}: its results would overwrite those of {written[path.stem]}; "
                    "predict it on its own, with another --to."
                )
            outputs = [to / f"{path.stem}.{kind}" for kind in kinds]
            for output in outputs:
                _require_free(output, given, path=path, overwrite=overwrite)
            image, seen = _read_as_one_of(path, seen=recipe.seen, scalings=scalings or {"": None})
            parts = inference.parts(ask, seen, image.shape, recipe)
            found, _ = inference.decided(parts, image.shape, recipe)
            pictures = [found if classes or is_number else 255 * found]
            if not is_number:
                names = classes or ("background", "foreground")
                pictures.append(overlays.overlay(image, found, classes=names))
            _write(dict(zip(outputs, pictures, strict=True)))
            written[path.stem] = path
            yield path, None
        except (ValueError, OSError) as error:
            yield path, str(error)


def _read_as_one_of(
    path: pathlib.Path, *, seen: Seen, scalings: Mapping[str, Scaling | None]
) -> tuple[np.ndarray, np.ndarray]:
    """`read`, by the only scaling that fits the file; raises ValueError where several do."""
    names = {scaling: name for name, scaling in scalings.items()}
    found, faults = dict[str, tuple[np.ndarray, np.ndarray]](), list[ValueError]()
    for scaling, name in names.items():
        try:
            found[name] = read(path, seen=seen, scaling=scaling)
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


def _require_bits(pixels: np.ndarray, scaling: Scaling | None, path: pathlib.Path) -> None:
    """Raises ValueError if an image is of a camera of more bits: most of it would be white."""
    if not scaling or not scaling.bits:
        return
    if (bits := intensity.even_bits(highest := pixels.max())) > scaling.bits:
        raise ValueError(
            f"{path}: its largest value is {highest:,}, of {bits} bits, and those of the images "
            f"that the model was trained on have {scaling.bits}. Give an image of that depth; or "
            "build the dataset with --range, which says what is black and white at any depth."
        )


def _wanted(page: int | None, channels: Sequence[str]) -> str:
    """What the images have that a model was trained on."""
    if page is None and not channels:
        return "The model was trained on images of one page, grey or RGB: save what is meant alone."
    parts = [f"the channels {', '.join(channels)}"] * bool(channels)
    parts += [f"page {page}"] * (page is not None)
    return f"The model was trained on {' of '.join(parts)}, of which its dataset was built."


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

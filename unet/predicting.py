"""From image files of any size to masks of that size, and what else `results` writes of them.

The model sees an image as training did: of the recipe's size or in tiles of it, in the dataset's
brightness. A TIFF that is too large for memory is read, answered and written by rows.
"""

import contextlib
import functools
import glob
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np

from segdata.archives import images, intensity, large, resizing, scientific, trees
from segdata.archives.intensity import Scaling
from segdata.core import tiles
from segdata.core.system import files as atomic
from segdata.inspection import overlays
from unet import inference, results
from unet.recipes import Larger, Recipe
from unet.results import Wanted
from unet.saved import require

Seen = Callable[[int, int], tuple[int, int]]
"""From the height and width of an image to those that the model sees; from `seen_by`."""

_READ_AHEAD = 1 << 24  # pixels; images are read ahead until they have as many


class Input(NamedTuple):
    """An image to answer."""

    path: pathlib.Path
    """The file; of one in a zip, the zip's path with its name inside."""

    stem: str
    """What its results are called: the name without its ending, with folders below the one that was
    given."""

    tree: trees.Tree | None = None
    """Of a zip: where it is read, under `member`."""

    member: str = ""

    @property
    def file(self) -> str:
        """Its name, with folders below the one that was given."""
        return self.stem + self.path.suffix

    def data(self) -> bytes:
        """The bytes of the file."""
        return self.tree.read(self.member) if self.tree else images.data_of(self.path)


def inputs(given: Iterable[pathlib.Path], *, to: pathlib.Path) -> list[Input]:
    """The images of files, folders, patterns and zips.

    Args:
        given: Folders are searched with all folders in them, and zips, for names that end as images
            do; what is in `to` is left out. Patterns are as `glob` has them, also with **; what
            they find keeps the folders below the last one that is named in full.
        to: Where results are written.

    Raises:
        ValueError: If a folder, zip or pattern has no images, or `to` is a folder that was given.
        OSError: If a zip is damaged.
    """
    found = []
    for path in given:
        several, folder = [path], path.parent
        if glob.has_magic(str(path)) and not path.exists():
            several = [*map(pathlib.Path, sorted(glob.glob(str(path), recursive=True)))]
            if not several:
                raise ValueError(f"{path}: no file has such a name.")
            folder = next(above for above in path.parents if not glob.has_magic(str(above)))
        for each in several:
            if not _has_several(each):
                found.append(Input(each, each.relative_to(folder).with_suffix("").as_posix()))
                continue
            within = each.relative_to(folder) if each.is_dir() and each != path else pathlib.Path()
            found += [x._replace(stem=str(within / x.stem)) for x in _inside(each, to)]
    return list({(each.path, each.stem): each for each in found}.values())


def seen_by(recipe: Recipe, trained_on: Mapping[str, int], larger: Larger) -> Seen:
    """At which size a model sees an image.

    Args:
        recipe: What it was trained by.
        trained_on: Sizes of the images of its training, as `Recipe.seen` takes them.
        larger: Whether images that are much larger than those are seen at their scale, in tiles, or
            shrunk with what they show.
    """
    require(larger in get_args(Larger), "larger", larger, "tiles or shrink")
    return functools.partial(recipe.seen, trained_on=trained_on if larger == "tiles" else None)


def read(
    path: pathlib.Path, *, seen: Seen, scaling: Scaling | None = None, data: bytes | None = None
) -> tuple[np.ndarray, inference.Pixels]:
    """Reads an image file as the dataset was built that the model was trained on.

    Args:
        path: A PNG, JPEG, GIF, BMP, TIFF or WebP of up to 33 megapixels. Transparency is dropped
            and an EXIF orientation undone.
        seen: The size at which the model sees an image, h and w.
        scaling: How brightness became 8 bits in the dataset, of which channels and page; None where
            its images had 8 bits.
        data: The file's bytes, where they were read already.

    Returns:
        The image, uint8 [H, W, 3], and as the model sees it, uint8 [h, w, 3]: the same pixels as
        building and packing make of such a file. Where that is too large for memory, its rows are
        made as they are asked for.

    Raises:
        ValueError: If its numbers are of another type than those of the dataset's images, or of
            more bits, or it has other pages or channels.
        OSError: If it cannot be read, is of another kind, or is damaged.
    """
    data, name = images.data_of(path) if data is None else data, str(path)
    page, channels = (scaling.page, scaling.channels) if scaling else (None, ())
    try:
        picture = scientific.read(data, name=name, page=page, channels=channels)
    except (scientific.PagesError, scientific.ChannelsError) as error:
        raise ValueError(f"{error} {_wanted(page, channels)}") from error
    own = picture.pixels.shape[:2]
    size = seen(*own)
    if picture.is_plain and not scaling and size != own and not _is_by_rows(size):
        pixels = _as_trained(picture.pixels, scaling, name)
        with images.opened(data, name=name) as image:
            return pixels, images.at_size(image, size)
    return of_array(picture.pixels, seen=seen, scaling=scaling, name=name)


def of_array(
    pixels: np.ndarray, *, seen: Seen, scaling: Scaling | None = None, name: str = "the image"
) -> tuple[np.ndarray, inference.Pixels]:
    """An image that is an array, as `read` gives one of a file.

    Args:
        pixels: [H, W] or [H, W, C], of one to three channels, of the type and depth of the images
            that the model was trained on.
        seen: As in `read`.
        scaling: As in `read`.
        name: What messages call it.

    Raises:
        ValueError: As in `read`; or if it has no such shape.
    """
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 3 or not pixels.size:
        raise ValueError(
            f"{name}: its shape is {pixels.shape}; give [H, W], or [H, W, C] with C from 1 to 3."
        )
    image = _as_trained(pixels, scaling, name)
    size = seen(*image.shape[:2])
    if _is_by_rows(size) and size != image.shape[:2]:
        return image, resizing.ByRows(image, size)
    return image, resizing.image(image, size)


def files(
    network: Any,
    given: Iterable[Input | pathlib.Path],
    *,
    recipe: Recipe,
    classes: Sequence[str],
    to: pathlib.Path,
    overwrite: bool = False,
    scalings: Mapping[str, Scaling | None] | None = None,
    wanted: Wanted | None = None,
    overlap: float | None = None,
    seen: Seen | None = None,
) -> Iterable["Done"]:
    """Predicts files one by one; an error in one does not stop the others.

    For `NAME.EXT` it writes `NAME.mask.png` at the image's own size, with 0 and 255 or, for several
    classes, their ids, and `NAME.overlay.png`, or what else is wanted; of a regression
    `NAME.values.tif`, float32. Each is written atomically.

    Args:
        network: From uint8 [B, h, w, 3] to probabilities float32 [B, h, w, C], or numbers.
        given: From `inputs`, or image files.
        recipe: What the model was trained by: whole or in tiles, and the activation.
        classes: Names of the classes; empty for a model of one channel.
        to: The folder to write into; made if missing.
        overwrite: Whether existing files may be replaced; images that are given never are.
        scalings: By dataset that the model was trained on, what `read` takes; one that had 8 bits
            where None.
        wanted: What to write; nothing but values of a regression.
        overlap: Share of a tile's side by which tiles overlap, from 0 to 0.75.
        seen: The size at which the model sees an image; `Recipe.seen` if not given.

    Yields:
        Each path, its error or None, and the files that were written of it.

    Raises:
        ValueError: If what is asked for does not fit the run.
    """
    if recipe.is_regression and wanted:
        raise ValueError("--write: of a regression its values are written, and nothing else.")
    require_overlap(overlap)
    atomic.make_folder(to)
    atomic.remove_unfinished(to)  # of processes that were killed
    ask: inference.Ask = functools.partial(inference.asked, network)
    job = _Job(
        ask=inference.flipped(ask, recipe),
        recipe=recipe,
        classes=tuple(classes),
        to=to,
        scalings=scalings or {"": None},
        wanted=wanted or Wanted(),
        overlap=inference.OVERLAP if overlap is None else overlap,
        seen=seen or recipe.seen,
    )
    listed = [Input(each, each.stem) if isinstance(each, pathlib.Path) else each for each in given]
    with results.together(to, job.wanted, job.names, overwrite=overwrite) as all_of_them:
        for batch in _read_ahead(job, listed, overwrite=overwrite):
            for read, ask in zip(batch, _asked_together(job, batch), strict=True):
                path, outputs = read.of.path, read.outputs
                try:
                    if read.error:
                        raise read.error
                    answered = _answer_rows if read.seen is None else _answer
                    shown = answered(job._replace(ask=ask), read)
                    if not recipe.is_regression:
                        all_of_them.add(str(path), read.of.file, *shown)
                    yield Done(path, None, tuple(outputs.values()), shown.shape)
                except (ValueError, OSError) as error:
                    all_of_them.fail(str(error))
                    yield Done(path, str(error))


def require_overlap(overlap: float | None) -> None:
    """Raises ValueError if tiles cannot overlap by this share of their sides."""
    if overlap is not None and not 0 <= overlap <= 0.75:
        raise ValueError(f"--overlap {overlap:g}: from 0 to 0.75.")


def like(scalings: Mapping[str, Scaling | None], name: str) -> Mapping[str, Scaling | None]:
    """All scalings, or the one of a dataset; raises ValueError if there is none of that name."""
    if name and name not in scalings:
        raise ValueError(f"--like {name}: the run was trained on {', '.join(scalings)}.")
    return {name: scalings[name]} if name else scalings


def only(
    name: object, scalings: Mapping[str, Scaling | None], how: Callable[[Scaling | None], Any]
) -> Any:
    """What the only reading gives that fits an image, of those that `how` makes by a scaling.

    Raises:
        ValueError: If several fit, or none.
    """
    names = {scaling: name for name, scaling in scalings.items()}
    found, faults = dict[str, Any](), list[ValueError]()
    for scaling, dataset in names.items():
        try:
            found[dataset] = how(scaling)
        except ValueError as error:
            faults.append(error)
    if len(faults) > 1 and not found:
        each = zip(names.values(), faults, strict=True)
        whys = (
            f"{dataset}: {str(fault).removeprefix(str(name)).lstrip(': ')}"
            for dataset, fault in each
        )
        raise ValueError(
            f"{name} is like the images of none of the datasets that the model was trained on. "
            f"{' '.join(whys)}"
        ) from faults[0]
    if not found:
        raise faults[0]
    if len(found) > 1:
        raise ValueError(
            f"{name}: in {' and '.join(found)}, which the model was trained on, brightness was "
            f"scaled in different ways. Say which it is like: --like {next(iter(found))}."
        )
    return next(iter(found.values()))


class Done(NamedTuple):
    """What became of an image."""

    path: pathlib.Path
    error: str | None
    written: tuple[pathlib.Path, ...] = ()
    shape: Sequence[int] = ()
    """H, W and C; empty after an error."""


class _Shown(NamedTuple):
    """What the table and the page take of an image."""

    overlay: np.ndarray | None
    objects: results.Objects | None
    shape: Sequence[int]


class _Job(NamedTuple):
    """What is the same for all images."""

    ask: inference.Ask
    recipe: Recipe
    classes: tuple[str, ...]
    to: pathlib.Path
    scalings: Mapping[str, Scaling | None]
    wanted: Wanted
    overlap: float
    seen: Seen

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes of a mask."""
        return self.classes or ("background", "foreground")

    def outputs(self, each: Input, *, is_large: bool) -> dict[str, pathlib.Path]:
        """What is written of an image, and where."""
        endings = results.LARGE_ENDINGS if is_large else results.ENDINGS
        kinds = [kind for kind in self.wanted.kinds if kind in results.ENDINGS]
        if self.recipe.is_regression:
            kinds, endings = ["values"], {"values": results.VALUES}
        elif is_large and (lacking := results.OF_OBJECTS & {*self.wanted.kinds}):
            raise ValueError(
                f"{each.path} has more than {large.MOST_AT_ONCE:,} pixels, of which no "
                f"{' or '.join(sorted(lacking))} can be written. Cut it into parts, or leave these "
                "out of --write."
            )
        return {kind: self.to / f"{each.stem}.{endings[kind]}" for kind in kinds}

    def parts(self, seen: inference.Pixels, shape: Sequence[int]) -> Iterator[inference.Part]:
        """What the model says of an image."""
        return inference.parts(self.ask, seen, shape, self.recipe, overlap=self.overlap)


class _Read(NamedTuple):
    """An image that waits for its answer."""

    of: Input
    outputs: Mapping[str, pathlib.Path]
    """What is written of it, and where."""

    error: ValueError | OSError | None = None
    image: np.ndarray | None = None
    """uint8 [H, W, 3]; None where it is read by rows, or an error was met."""

    seen: inference.Pixels | None = None
    """The same as the model sees it, uint8 [h, w, 3]."""

    @property
    def held(self) -> int:
        """Pixels of the larger of both."""
        both = [each for each in (self.image, self.seen) if each is not None]
        return max((math.prod(each.shape[:2]) for each in both), default=0)


def _read_ahead(job: _Job, listed: Sequence[Input], *, overwrite: bool) -> Iterator[list[_Read]]:
    """Reads as many images at once as fill a batch, or as memory holds of them."""
    places = {_place(each.path) for each in listed if not each.tree}
    taken: dict[str, pathlib.Path] = {}
    folders = {job.to}
    batch: list[_Read] = []
    for each in listed:
        outputs = dict[str, pathlib.Path]()
        try:
            if each.stem in taken:
                raise ValueError(
                    f"{each.path}: its results would overwrite those of {taken[each.stem]}; "
                    "predict it on its own, with another --to."
                )
            is_large = not each.tree and large.is_large(each.path)
            outputs = job.outputs(each, is_large=is_large)
            for output in outputs.values():
                _require_free(output, places, path=each.path, overwrite=overwrite)
                if output.parent not in folders:
                    atomic.make_folder(output.parent)
                    atomic.remove_unfinished(output.parent)
                    folders.add(output.parent)
            pixels = (None, None) if is_large else _read_as_one_of(each, job)
            batch.append(_Read(each, outputs, None, *pixels))
            taken[each.stem] = each.path
        except (ValueError, OSError) as error:
            batch.append(_Read(each, outputs, error))
        held = sum(read.held for read in batch)
        if len(batch) == job.recipe.batch or held >= _READ_AHEAD:
            yield batch
            batch = []
    if batch:
        yield batch


def _asked_together(job: _Job, batch: Sequence[_Read]) -> Iterator[inference.Ask]:
    """The model for each image; for those that are one tile it has been asked, in one batch."""
    tiles_of = [_only_tile(read, job.recipe) for read in batch]
    together = [tile for tile in tiles_of if tile is not None]
    said = iter(job.ask(np.stack(together)) if together else ())
    for tile in tiles_of:
        yield job.ask if tile is None else functools.partial(_said, next(said)[None])


def _only_tile(read: _Read, recipe: Recipe) -> np.ndarray | None:
    """What the model sees of an image, where that is one tile."""
    if read.seen is None or read.seen.shape[:2] != recipe.size:
        return None
    return read.seen[:]


def _said(answer: np.ndarray, _: np.ndarray) -> np.ndarray:
    return answer


def _answer(job: _Job, read: _Read) -> _Shown:
    """Answers an image and writes the results."""
    image, seen, outputs = read.image, read.seen, read.outputs
    assert image is not None
    assert seen is not None
    answer = inference.decided(job.parts(seen, image.shape), image.shape, job.recipe)
    if job.recipe.is_regression:
        results.write({outputs["values"]: answer.found})
        return _Shown(None, None, image.shape)
    made: dict[str, Any] = {
        "mask": answer.found if job.classes else 255 * answer.found,
        "probability": answer.probability,
    }
    objects = None
    if job.wanted.counts_objects:
        separation = job.wanted.separation
        objects = results.objects(answer.found, image, job.names, separation=separation)
        made["labels"] = results.label_map(objects.labels)
    if "contours" in outputs and objects:
        size = job.wanted.pixel_size
        made["contours"] = results.as_geojson(objects, job.names, pixel_size=size)
    if {"overlay", "page"} & {*job.wanted.kinds}:
        made["overlay"] = overlays.overlay(image, answer.found, classes=job.names)
    results.write({path: made[kind] for kind, path in outputs.items()})
    return _Shown(made.get("overlay"), objects, image.shape)


def _answer_rows(job: _Job, read: _Read) -> _Shown:
    """The same by rows, of an image that is too large for memory; its overlay is smaller."""
    is_number, outputs = job.recipe.is_regression, read.outputs
    with contextlib.ExitStack() as stack:
        image = stack.enter_context(_opened_as_one_of(read.of.path, job.scalings))
        shape = image.shape
        kind = np.float32 if is_number else np.uint8
        found = stack.enter_context(results.spooled(job.to, shape, kind))
        probability = stack.enter_context(results.spooled(job.to, shape, np.uint8))
        size = job.seen(*shape[:2])
        seen = image if size == shape[:2] else resizing.ByRows(image, size)
        for _, answer in inference.stretches(job.parts(seen, shape), shape, job.recipe):
            is_scaled = not (job.classes or is_number)
            found.append(255 * answer.found if is_scaled else answer.found)
            if "probability" in outputs:
                probability.append(answer.probability)
        made: dict[str, Any] = {"mask": found, "values": found, "probability": probability}
        if not is_number and {"overlay", "page"} & {*job.wanted.kinds}:
            small = tiles.reduced(*shape[:2], results.OVERLAY_SIDE)
            mask = found.nearest(small)
            mask = mask if job.classes else mask // 255
            drawn = resizing.ByRows(image, small)[:]
            made["overlay"] = overlays.overlay(drawn, mask, classes=job.names)
        results.write({path: made[kind] for kind, path in outputs.items()})
    return _Shown(made.get("overlay"), None, shape)


def _read_as_one_of(each: Input, job: _Job) -> tuple[np.ndarray, inference.Pixels]:
    """`read`, by the only scaling that fits the file; raises ValueError where several do."""
    data = each.data()
    return only(
        each.path,
        job.scalings,
        lambda scaling: read(each.path, data=data, seen=job.seen, scaling=scaling),
    )


class _Rows:
    """The rows of a large image as the model sees them: `inference.Pixels`."""

    def __init__(self, rows: large.Rows, scaling: Scaling | None, path: pathlib.Path):
        self._rows, self._scaling, self._path = rows, scaling, path
        self.shape = (*rows.shape[:2], 3)
        _require_type(rows.dtype, scaling, path)

    def __getitem__(self, rows: slice) -> np.ndarray:
        pixels = self._rows[rows]
        _require_bits(pixels, self._scaling, self._path)
        return intensity.rgb(pixels, self._scaling)


@contextlib.contextmanager
def _opened_as_one_of(
    path: pathlib.Path, scalings: Mapping[str, Scaling | None]
) -> Iterator[_Rows]:
    """Opens a large image, by the only scaling that fits the file."""
    with contextlib.ExitStack() as stack:

        def opened(scaling: Scaling | None) -> _Rows:
            page, channels = (scaling.page, scaling.channels) if scaling else (None, ())
            try:
                opening = large.opened(path, page=page, channels=channels)
                return _Rows(stack.enter_context(opening), scaling, path)
            except (scientific.PagesError, scientific.ChannelsError) as error:
                raise ValueError(f"{error} {_wanted(page, channels)}") from error

        yield only(path, scalings, opened)


def _has_several(path: pathlib.Path) -> bool:
    """Whether a path is a folder or a zip."""
    return path.is_dir() or (path.suffix.lower() == ".zip" and path.exists())


def _inside(path: pathlib.Path, to: pathlib.Path) -> list[Input]:
    """The images in a folder or a zip."""
    if path.is_dir() and atomic.resolved(path) == atomic.resolved(to):
        raise ValueError(f"--to {to} is the folder of the images; choose another.")
    tree = trees.open(path)
    names = [name for name in tree.names if name.lower().endswith(scientific.ENDINGS)]
    if path.is_dir():
        results_of = atomic.resolved(to)
        names = [name for name in names if results_of not in atomic.resolved(path / name).parents]
    if not names:
        raise ValueError(
            f"{path} has no images in it: no name ends in {', '.join(scientific.ENDINGS)}."
        )
    within = None if path.is_dir() else tree
    return [
        Input(path / name, str(pathlib.PurePosixPath(name).with_suffix("")), within, name)
        for name in names
    ]


def _is_by_rows(size: tuple[int, int]) -> bool:
    """Whether an image is too large for memory at a size that it is enlarged to."""
    return math.prod(size) > large.MOST_AT_ONCE


def _as_trained(pixels: np.ndarray, scaling: Scaling | None, name: str) -> np.ndarray:
    """An image in the brightness of the dataset, uint8 [H, W, 3]."""
    _require_type(pixels.dtype, scaling, name)
    _require_bits(pixels, scaling, name)
    return intensity.rgb(pixels, scaling)


def _require_type(dtype: np.dtype, scaling: Scaling | None, path: pathlib.Path | str) -> None:
    """Raises ValueError if an image's numbers are of another type than those of the dataset."""
    kinds = scaling.types if scaling else ("uint8",)
    if kinds and dtype.name not in kinds:
        raise ValueError(
            f"{path}: its pixels are {dtype.name}, and those of the images that the model was "
            f"trained on {' or '.join(kinds)}, so what is black and what is white in it is not "
            f"known. {'Give the original file.' if scaling else 'Convert it to 8 bits first.'}"
        )


def _require_bits(pixels: np.ndarray, scaling: Scaling | None, path: pathlib.Path | str) -> None:
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
    return atomic.resolved(path.parent) / path.name

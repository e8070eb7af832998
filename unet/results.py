"""What is written of an image that was answered, and of all of them together.

Of each image, as it is asked for: a mask, an overlay, probabilities, a label map of its objects,
their contours; of all together a table of objects and a page. Coordinates and contours have their
origin at the image's upper left corner, in pixels or in µm, as in `contours`. No network and no
reading of images is known here.
"""

import contextlib
import csv
import dataclasses
import json
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import tifffile
from PIL import Image

from segdata.archives import resizing
from segdata.core import tiles
from segdata.core.system import files
from segdata.inspection import overlays, page
from unet import contours, watershed
from unet.objects import Separation, border_of
from unet.saved import require

Kind = Literal["mask", "overlay", "probability", "labels", "contours", "objects", "page"]

ENDINGS: dict[str, str] = {
    "mask": "mask.png",
    "overlay": "overlay.png",
    "probability": "probability.png",
    "labels": "labels.tif",
    "contours": "contours.geojson",
}
"""Of what is written of each image."""
LARGE_ENDINGS = {"mask": "mask.tif", "overlay": "overlay.png", "probability": "probability.tif"}
"""Of an image that is read by rows."""
VALUES = "values.tif"
"""Of a regression."""
TABLE, PAGE = "objects.csv", "index.html"

OVERLAY_SIDE = 2048
"""Pixels of the longer side of the overlay of an image that is read by rows."""

_THUMBNAIL, _MOST_SHOWN = 320, 500  # pixels of the longer side; images on a page
_TILE, _CLASSIC = 512, 1 << 31  # pixels of a side; bytes that a TIFF of 32 bits surely holds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to write."""

    kinds: tuple[str, ...] = ("mask", "overlay")
    """Any of `Kind`."""

    pixel_size: float | None = None
    """Side of a pixel in µm, for the table and contours; None for pixels."""

    separation: Separation = dataclasses.field(default_factory=Separation)
    """How a mask is split into objects."""

    def __post_init__(self) -> None:
        kinds = get_args(Kind)
        require(
            bool(self.kinds) and set(self.kinds) <= {*kinds},
            "write",
            " ".join(self.kinds),
            f"some of {', '.join(kinds)}",
        )
        size = self.pixel_size
        require(size is None or 0 < size < float("inf"), "pixel_size", size, "more than 0, in µm")

    @property
    def counts_objects(self) -> bool:
        """Whether objects are told apart."""
        return bool({"labels", "contours", "objects", "page"} & {*self.kinds})


class Objects(NamedTuple):
    """The objects of an image; arrays [N] in the order of their numbers, from 1."""

    labels: np.ndarray
    """int32 [H, W], the number of each pixel's object; 0 for background."""

    kind: np.ndarray
    """uint8, the class."""

    area: np.ndarray
    """In pixels."""

    centroid: np.ndarray
    """float64 [N, 2], x and y, in pixels."""

    intensity: np.ndarray
    """The mean of the image's levels, 0 to 255, over pixels and colours."""

    @property
    def diameter(self) -> np.ndarray:
        """Of a circle of the same area, in pixels."""
        return np.sqrt(4 * self.area / np.pi)


def objects(
    found: np.ndarray,
    image: np.ndarray,
    classes: Sequence[str],
    *,
    separation: Separation | None = None,
) -> Objects:
    """Tells the objects of each class apart, by a watershed.

    Args:
        found: uint8 [H, W], the class of each pixel.
        image: uint8 [H, W, 3].
        classes: Names of the classes; those that are background have no objects. A class "border"
            is of what is between objects, and belongs to them.
        separation: How a mask is split; the defaults if not given.
    """
    border, tinted = border_of(classes), overlays.tinted(classes)
    labels, kinds = np.zeros(found.shape, np.int32), np.zeros(0, np.uint8)
    for number in [n for n, is_object in enumerate(tinted) if is_object and n != border]:
        inside = np.where(found == number, 1, 2 * (found == border)).astype(np.uint8)
        edge = None if border is None else 2
        parts = watershed.objects(inside, separation, border=edge)
        count = int(parts.max(initial=0))
        labels = np.where(parts > 0, parts + len(kinds), labels).astype(np.int32)
        kinds = np.append(kinds, np.full(count, number, np.uint8))
    at = np.flatnonzero(labels)
    own, count = labels.ravel()[at], len(kinds) + 1
    area = np.bincount(own, minlength=count)[1:]
    width = found.shape[1]
    x, y = at % width, at // width
    levels = image.reshape(-1, image.shape[-1])[at].mean(-1, dtype=np.float32)
    means = [np.bincount(own, values, count)[1:] / np.maximum(area, 1) for values in (x, y, levels)]
    return Objects(
        labels=labels,
        kind=kinds,
        area=area,
        centroid=np.stack(means[:2], -1) + 0.5,
        intensity=means[2],
    )


def label_map(labels: np.ndarray) -> np.ndarray:
    """As it is written: uint16, or uint32 where there are more than 65,535 objects."""
    return labels.astype(np.uint16 if labels.max(initial=0) < 1 << 16 else np.uint32)


def as_geojson(found: Objects, classes: Sequence[str], *, pixel_size: float | None) -> str:
    """A FeatureCollection with a polygon for each object; in µm where `pixel_size` is given."""
    features = []
    for outline in contours.outlines(found.labels):
        index = outline.number - 1
        geometry = contours.geojson(outline)
        if pixel_size is not None:
            geometry = {**geometry, "coordinates": _scaled(geometry["coordinates"], pixel_size)}
        about = {"label": outline.number, "class": classes[found.kind[index]]}
        about["area_px"] = int(found.area[index])
        features.append({"type": "Feature", "properties": about, "geometry": geometry})
    return json.dumps({"type": "FeatureCollection", "features": features}) + "\n"


class Together:
    """What is written of all images together: a table of their objects and a page."""

    def __init__(self, wanted: Wanted, classes: Sequence[str], *, table: Any, shown: Any):
        self._wanted, self._classes, self._page = wanted, classes, shown
        self._figures: list[str] = []
        self._faults: list[str] = []
        self._images = self._objects = 0
        self._table = table and csv.writer(table)
        if self._table:
            unit, square = ("px", "px") if wanted.pixel_size is None else ("um", "um2")
            lengths = [f"{name}_{unit}" for name in ("centroid_x", "centroid_y", "diameter")]
            self._table.writerow(
                ["image", "label", "class", f"area_{square}", *lengths, "mean_intensity"]
            )

    def add(
        self, name: str, overlay: np.ndarray | None, found: Objects | None, shape: Sequence[int]
    ) -> None:
        """Adds an image: its name, drawn mask for the page, objects if told apart, and size."""
        self._images += 1
        if found is not None:
            self._objects += len(found.area)
            self._write(name, found)
        is_shown = self._page is not None and len(self._figures) < _MOST_SHOWN
        if is_shown and overlay is not None:
            small = resizing.image(
                overlay, tiles.reduced(overlay.shape[0], overlay.shape[1], _THUMBNAIL)
            )
            size = f"{shape[1]:,}×{shape[0]:,} pixels"
            count = "" if found is None else f"<br>{_objects(len(found.area))}"
            picture = page.image(page.data_uri(small, "JPEG"), name)
            self._figures.append(
                f"<figure>{picture}<figcaption>{page.escaped(name)}<br>{size}{count}</figcaption>"
                "</figure>"
            )

    def fail(self, error: str) -> None:
        """Adds an image that could not be answered."""
        self._faults.append(error)

    def finish(self) -> None:
        """Writes the page."""
        if self._page is None:
            return
        names = page.escaped(", ".join(self._classes))
        parts = [f'<div class="strip">{"".join(self._figures)}</div>']
        if self._images > len(self._figures):
            parts.append(f"<p>The first {len(self._figures)} of {self._images:,} images.</p>")
        if self._faults:
            listed = "".join(f"<li>{page.escaped(fault)}</li>" for fault in self._faults)
            parts.append(f"<h2>Passed over</h2><ul>{listed}</ul>")
        lead = f"{self._images:,} images, {_objects(self._objects)}; classes: {names}"
        text = page.document("Predictions", lead=lead, body="\n".join(parts))
        self._page.write_text(text, encoding="utf-8")

    def _write(self, name: str, found: Objects) -> None:
        if not self._table:
            return
        side = self._wanted.pixel_size or 1
        for index, kind in enumerate(found.kind):
            x, y = found.centroid[index] * side
            row = [found.area[index] * side**2, x, y, found.diameter[index] * side]
            numbers = [f"{value:.6g}" for value in [*row, found.intensity[index]]]
            self._table.writerow([name, index + 1, self._classes[kind], *numbers])


@contextlib.contextmanager
def together(
    to: pathlib.Path, wanted: Wanted, classes: Sequence[str], *, overwrite: bool
) -> Iterator[Together]:
    """Opens what is written of all images; it gets its names at the end.

    Raises:
        ValueError: If a file of such a name is there and may not be replaced.
    """
    with contextlib.ExitStack() as stack:
        table = shown = None
        for kind, name in (("objects", TABLE), ("page", PAGE)):
            if kind in wanted.kinds and (to / name).exists() and not overwrite:
                raise ValueError(
                    f"{to / name} is there already; give --overwrite to replace it, or choose "
                    "another folder with --to."
                )
        if "objects" in wanted.kinds:
            path = stack.enter_context(files.replacing(to / TABLE))
            table = stack.enter_context(path.open("w", newline="", encoding="utf-8"))
        if "page" in wanted.kinds:
            shown = stack.enter_context(files.replacing(to / PAGE))
        made = Together(wanted, classes, table=table, shown=shown)
        yield made
        made.finish()


@contextlib.contextmanager
def spooled(folder: pathlib.Path, shape: Sequence[int], dtype: Any) -> Iterator["Spool"]:
    """A `Spool` of height and width `shape`, in a file without a name in `folder`."""
    with tempfile.TemporaryFile(dir=folder) as file:
        yield Spool(file, (int(shape[0]), int(shape[1])), np.dtype(dtype))


class Spool:
    """The rows of a result that is too large for memory, on disk until all are there."""

    def __init__(self, file: Any, shape: tuple[int, int], dtype: np.dtype):
        self._file, self.shape, self.dtype = file, shape, dtype

    def append(self, rows: np.ndarray) -> None:
        """Adds rows [n, W] at the end."""
        self._file.write(np.ascontiguousarray(rows, self.dtype))

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Rows from a first one to a last one, [n, W]."""
        first, last, _ = rows.indices(self.shape[0])
        size = self.shape[1] * self.dtype.itemsize
        self._file.seek(first * size)
        return np.frombuffer(self._file.read((last - first) * size), self.dtype).reshape(
            last - first, self.shape[1]
        )

    def nearest(self, size: Sequence[int]) -> np.ndarray:
        """The same at another height and width, by nearest neighbour."""
        rows, columns = (
            np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
            for new, old in zip(size, self.shape, strict=True)
        )
        return np.stack([self[row : row + 1][0, columns] for row in rows.tolist()])

    def save(self, path: pathlib.Path) -> None:
        """Writes a TIFF in tiles, BigTIFF where it may exceed 4 GB."""
        height, width = self.shape
        size = height * width * self.dtype.itemsize
        tifffile.imwrite(
            path,
            self._tiles(),
            shape=self.shape,
            dtype=self.dtype,
            tile=(_TILE, _TILE),
            compression="zlib",
            photometric="minisblack",
            bigtiff=size > _CLASSIC,
            metadata=None,
        )

    def _tiles(self) -> Iterator[np.ndarray]:
        for top in range(0, self.shape[0], _TILE):
            band = self[top : top + _TILE]
            for left in range(0, self.shape[1], _TILE):
                tile = np.zeros((_TILE, _TILE), self.dtype)
                part = band[:, left : left + _TILE]
                tile[: part.shape[0], : part.shape[1]] = part
                yield tile


def write(outputs: Mapping[pathlib.Path, Any]) -> None:
    """Writes arrays as images, spools as TIFFs, and text; no name is given before all is written.

    Raises:
        OSError: If they cannot be written; all are named.
    """
    try:
        with contextlib.ExitStack() as stack:
            for path, what in outputs.items():
                unfinished = stack.enter_context(files.replacing(path))
                if isinstance(what, str):
                    unfinished.write_text(what, encoding="utf-8")
                elif isinstance(what, Spool):
                    what.save(unfinished)
                else:
                    Image.fromarray(what).save(unfinished)
    except OSError as error:
        names = " and ".join(map(str, outputs))
        raise OSError(f"{names} cannot be written: {error.strerror}.") from error


def _objects(count: int) -> str:
    return f"{count:,} object{'s' * (count != 1)}"


def _scaled(coordinates: Any, side: float) -> Any:
    """Coordinates of any depth times the side of a pixel."""
    if isinstance(coordinates, list | tuple):
        return [_scaled(each, side) for each in coordinates]
    return coordinates * side

"""What is written of an image that was answered, and of all of them together.

Of each image, as it is asked for: a mask, an overlay, probabilities, a label map of its objects,
their contours; of all together a table of objects, COCO's JSON and a page. Coordinates and contours
have their origin at the image's upper left corner, in pixels or in µm, as in `contours`. No network
and no reading of images is known here.
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
from pycocotools import mask as coco

from segdata.archives import resizing, rle
from segdata.console import counted
from segdata.core import tiles
from segdata.core.system import files
from segdata.inspection import overlays, page
from unet import contours, watershed
from unet.objects import Separation, border_of
from unet.saved import require

Kind = Literal["mask", "overlay", "probability", "labels", "contours", "objects", "coco", "page"]

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
TABLE, COCO, PAGE = "objects.csv", "coco.json", "index.html"
OF_OBJECTS = {"labels", "contours", "objects", "coco"}
"""What is not written of an image that is read by rows."""

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
        require(size is None or 1e-9 <= size <= 1e9, "pixel_size", size, "from 1e-9 to 1e9, in µm")

    @property
    def counts_objects(self) -> bool:
        """Whether objects are told apart."""
        return bool({*OF_OBJECTS, "page"} & {*self.kinds})


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
            is of what is between objects, and belongs to those that it touches; to those of the
            first of several classes.
        separation: How a mask is split; the defaults if not given.
    """
    border = border_of(classes)
    labels, kinds = watershed.of_classes(found, kinds_of(classes), separation, border=border)
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


def kinds_of(classes: Sequence[str]) -> list[int]:
    """The classes that objects are of, by their names."""
    border = border_of(classes)
    tinted = enumerate(overlays.tinted(classes))
    return [number for number, is_object in tinted if is_object and number != border]


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


def as_coco(found: Objects, *, image: int, first: int) -> Iterator[dict[str, Any]]:
    """COCO's annotations of an image's objects, as compressed run lengths.

    Args:
        found: The objects; their classes are the ids of the categories.
        image: The image's id.
        first: The id of the first annotation.
    """
    shape = found.labels.shape
    rows = rle.encode_objects(found.labels, order="columns")
    for index, (kind, runs) in enumerate(zip(found.kind.tolist(), rows, strict=True)):
        starts, lengths = np.array(runs.split(), np.int64).reshape(-1, 2).T
        ends = starts - 1 + lengths
        outside = np.diff(np.stack([starts - 1, ends], axis=1).ravel(), prepend=0)
        plain: Any = {"counts": [*outside.tolist(), found.labels.size - int(ends[-1])]}
        encoded: Any = coco.frPyObjects(plain | {"size": shape}, *shape)
        yield {
            "id": first + index,
            "image_id": image,
            "category_id": kind,
            "segmentation": {"size": shape, "counts": encoded["counts"].decode()},
            "area": int(found.area[index]),
            "bbox": coco.toBbox(encoded).tolist(),
            "iscrowd": 0,
        }


class Together:
    """What is written of all images together: a table of their objects, COCO's JSON, a page."""

    def __init__(
        self, wanted: Wanted, classes: Sequence[str], *, table: Any, listed: Any, shown: Any
    ):
        self._wanted, self._classes, self._page = wanted, classes, shown
        self._coco, self._photos = listed, list[dict[str, Any]]()
        if listed:
            listed.write('{"annotations": [')
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
        self,
        name: str,
        file: str,
        overlay: np.ndarray | None,
        found: Objects | None,
        shape: Sequence[int],
    ) -> None:
        """Adds an image.

        Args:
            name: Its path.
            file: Its name below the folder that was given.
            overlay: The mask drawn over it, for the page.
            found: Its objects, if told apart.
            shape: Its height and width.
        """
        self._images += 1
        if found is not None:
            self._write(name, found)
            self._list(file, found)
            self._objects += len(found.area)
        is_shown = self._page is not None and len(self._figures) < _MOST_SHOWN
        if is_shown and overlay is not None:
            small = resizing.image(
                overlay, tiles.reduced(overlay.shape[0], overlay.shape[1], _THUMBNAIL)
            )
            size = f"{shape[1]:,}×{shape[0]:,} pixels"
            count = "" if found is None else f"<br>{counted(len(found.area), 'object')}"
            picture = page.image(page.data_uri(small, "JPEG"), name)
            self._figures.append(
                f"<figure>{picture}<figcaption>{page.escaped(name)}<br>{size}{count}</figcaption>"
                "</figure>"
            )

    def fail(self, error: str) -> None:
        """Adds an image that could not be answered."""
        self._faults.append(error)

    def finish(self) -> None:
        """Writes the page, and the end of COCO's JSON."""
        if self._coco:
            categories = [{"id": n, "name": self._classes[n]} for n in kinds_of(self._classes)]
            ends = {"images": self._photos, "categories": categories}
            self._coco.write(f"\n], {json.dumps(ends)[1:]}\n")
        if self._page is None:
            return
        names = page.escaped(", ".join(self._classes))
        parts = [f'<div class="strip">{"".join(self._figures)}</div>']
        if self._images > len(self._figures):
            parts.append(f"<p>The first {len(self._figures)} of {self._images:,} images.</p>")
        if self._faults:
            listed = "".join(f"<li>{page.escaped(fault)}</li>" for fault in self._faults)
            parts.append(f"<h2>Passed over</h2><ul>{listed}</ul>")
        images, objects = counted(self._images, "image"), counted(self._objects, "object")
        lead = f"{images}, {objects}; classes: {names}"
        text = page.document("Predictions", lead=lead, body="\n".join(parts))
        self._page.write_text(text, encoding="utf-8")

    def _list(self, file: str, found: Objects) -> None:
        if not self._coco:
            return
        height, width = found.labels.shape
        number = len(self._photos) + 1
        photo = {"id": number, "file_name": file, "height": height, "width": width}
        for each in as_coco(found, image=number, first=self._objects + 1):
            self._coco.write(",\n"[each["id"] == 1 :] + json.dumps(each))
        self._photos.append(photo)

    def _write(self, name: str, found: Objects) -> None:
        if not self._table:
            return
        side = self._wanted.pixel_size or 1
        for index, kind in enumerate(found.kind):
            x, y = found.centroid[index] * side
            row = [found.area[index] * side**2, x, y, found.diameter[index] * side]
            numbers = [f"{value:.10g}" for value in [*row, found.intensity[index]]]
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
        table = listed = shown = None
        for kind, name in (("objects", TABLE), ("coco", COCO), ("page", PAGE)):
            if kind in wanted.kinds and (to / name).exists() and not overwrite:
                raise ValueError(
                    f"{to / name} is there already; give --overwrite to replace it, or choose "
                    "another folder with --to."
                )
        if "objects" in wanted.kinds:
            path = stack.enter_context(files.replacing(to / TABLE))
            # A name may hold bytes that are not UTF-8.
            how: Any = {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"}
            table = stack.enter_context(path.open("w", **how))
        if "coco" in wanted.kinds:
            path = stack.enter_context(files.replacing(to / COCO))
            listed = stack.enter_context(path.open("w", encoding="utf-8"))
        if "page" in wanted.kinds:
            shown = stack.enter_context(files.replacing(to / PAGE))
        made = Together(wanted, classes, table=table, listed=listed, shown=shown)
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


def _scaled(coordinates: Any, side: float) -> Any:
    """Coordinates of any depth times the side of a pixel."""
    if isinstance(coordinates, list | tuple):
        return [_scaled(each, side) for each in coordinates]
    return coordinates * side

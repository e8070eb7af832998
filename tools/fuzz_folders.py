"""What `fuzz.py` feeds to the reader of a user's own images and masks.

Damaged TIFFs, COCO, YOLO, tables of pairs, and label maps. As in `fuzz_cases`, what a message must
name is called `given`.
"""

import functools
import io
import json
import pathlib
import random
from collections.abc import Mapping
from typing import Any

import fuzz_mutations as mutations
import numpy as np
import tifffile
from PIL import Image

from segdata.archives import large, scientific
from segdata.core import IGNORE_LABEL
from segdata.sources.folder.examination import examine
from segdata.sources.folder.reading import read_example
from segdata.sources.folder.settings import Folder
from segdata.sources.folder.survey import survey

_GIVEN = pathlib.Path("given")
_SIZE = (12, 16)  # height and width of images
_NAMES = ("a", "b", "c/a")
_PAIRS = (
    "image,mask,split,patient\na.png,a.png,train,p\nb.png,b.png,val,q\nc/a.png,c/a.png,test,p\n"
)
_YAML = "nc: 2\nnames:\n  0: cell\n  1: hole\n"
_LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncell:1,1,1::\nhole:2,2,2::\n"
_SQUARE = [2, 2, 9, 2, 9, 9, 2, 9]


def tiffs(rng: random.Random) -> None:
    """A TIFF of any kind, as an image and as a mask."""
    sound = [*_tiffs().values()]
    data = mutations.binary(rng, rng.choice(sound), other=rng.choice(sound))
    page: int | None = rng.choice((None, None, 0, 1))
    if rng.random() < 0.3:
        mask = scientific.read_mask(data, name=_GIVEN.name, page=page)
        _require(mask.pixels.dtype.kind in "bu", f"a mask of {mask.pixels.dtype}")
        return
    channels = rng.choice(((), (), ("0",), ("A",), ("1", "0")))
    picture = scientific.read(data, name=_GIVEN.name, page=page, channels=channels)
    _require(picture.pixels.ndim == 3 and picture.pixels.shape[-1] in (1, 2, 3), "other channels")
    _require(picture.pixels.dtype.kind in "uif", f"an image of {picture.pixels.dtype}")


def large_tiffs(rng: random.Random) -> None:
    """The same, read by rows."""
    sound = [*_tiffs().values()]
    data = mutations.binary(rng, rng.choice(sound), other=rng.choice(sound))
    _GIVEN.write_bytes(data)
    page: int | None = rng.choice((None, None, 0, 1))
    channels = rng.choice(((), (), ("0",), ("1", "0")))
    large.is_large(_GIVEN)
    with large.opened(_GIVEN, page=page, channels=channels) as rows:
        first = rng.randrange(max(rows.shape[0], 1))
        found = rows[first : first + 5]
        _require(found.shape[1:] == rows.shape[1:], f"rows of {found.shape}")
        _require(found.dtype == rows.dtype, f"rows of {found.dtype}")


def coco(rng: random.Random) -> None:
    """A JSON of COCO beside images."""
    _lay("images", _pngs(masks=False))
    text = mutations.document(rng, json.dumps(_coco()))
    (_GIVEN / "a.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    _read(rng, coco=_GIVEN / "a.json")


def yolo(rng: random.Random) -> None:
    """Text files of polygons, and the names of their classes."""
    _lay("images", _pngs(masks=False))
    line = "0 0.1 0.1 0.9 0.1 0.5 0.9\n"
    texts = {f"{name}.txt": line * (1 + len(name)) + "1" + line[1:] for name in _NAMES}
    texts["data.yaml"] = _YAML
    if rng.random() < 0.2:
        texts["classes.txt"] = "cell\nhole\n"
    _spoil(rng, texts)
    _lay("labels", {name: text.encode("utf-8", "surrogatepass") for name, text in texts.items()})
    _read(rng, yolo=_GIVEN / "labels")


def pairs(rng: random.Random) -> None:
    """A table of images and masks."""
    _lay("images", _pngs(masks=False))
    _lay("masks", _pngs(masks=True))
    text = mutations.text(rng, _PAIRS, separator=rng.choice(",\n"))
    data = text.encode("utf-8", "surrogatepass")
    (_GIVEN / "pairs.csv").write_bytes(mutations.binary(rng, data) if rng.random() < 0.2 else data)
    more = {"group_column": "patient"} if rng.random() < 0.3 else {}
    _read(rng, masks=_GIVEN / "masks", pairs=_GIVEN / "pairs.csv", **more)


def label_maps(rng: random.Random) -> None:
    """Maps of classes or objects, PNG or TIFF, one of them damaged; perhaps with CVAT's names."""
    kind = rng.choice(("classes", "objects", "tiffs"))
    found = _pngs(masks=True)
    if kind != "classes":
        found = {name: _tiffs()["objects"] for name in found}
        found = {f"{name[:-4]}.tif": data for name, data in found.items()}
    _lay("images", _pngs(masks=False))
    victim = rng.choice([*found])
    found[victim] = mutations.binary(rng, found[victim], other=_tiffs()["grey"])
    if kind == "classes" and rng.random() < 0.3:
        named = {"labelmap.txt": _LABELMAP}
        _spoil(rng, named)
        found["labelmap.txt"] = named["labelmap.txt"].encode("utf-8", "surrogatepass")
    _lay("masks", found)
    _read(rng, masks=_GIVEN / "masks")


def _read(rng: random.Random, **settings: Any) -> None:
    """Surveys, examines and reads the folder, with some flags that leave out what is wrong."""
    flags = {
        "unpaired": rng.choice(("", "skip", "background")),
        "others": rng.choice(("", "ignore")),
        "skip_sizes": rng.random() < 0.5,
        "skip_damaged": rng.random() < 0.5,
    }
    folder = Folder(images=_GIVEN / "images", name="given", **flags, **settings)
    examined = examine(survey(folder), lambda image: image.size)
    classes = {IGNORE_LABEL, *range(len(examined.reading.classes))}
    for entry in examined.entries:
        example = read_example(examined, entry)
        _require(example.mask.shape == _SIZE, f"a mask of {example.mask.shape}")
        values = {*np.unique(example.mask).tolist()} - classes
        _require(not values, f"a mask with {values}")


def _lay(folder: str, found: Mapping[str, bytes]) -> None:
    for name, content in found.items():
        path = _GIVEN / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _spoil(rng: random.Random, texts: dict[str, str]) -> None:
    """Damages one of some texts."""
    victim = rng.choice([*texts])
    texts[victim] = mutations.text(rng, texts[victim], separator=rng.choice(" \n:,"))


def _require(condition: bool, wrong: str) -> None:
    if not condition:
        raise AssertionError(wrong)


def _coco() -> dict[str, Any]:
    shape = {"height": _SIZE[0], "width": _SIZE[1]}
    images = [{"id": n, "file_name": f"{name}.png", **shape} for n, name in enumerate(_NAMES)]
    runs = {"counts": [5, 20, _SIZE[0] * _SIZE[1] - 25], "size": [*_SIZE]}
    packed = {"counts": "52d04", "size": [*_SIZE]}
    found = [
        {"image_id": 0, "category_id": 7, "segmentation": [_SQUARE, _SQUARE], "iscrowd": 0},
        {"image_id": 0, "category_id": 9, "segmentation": runs, "iscrowd": 1},
        {"image_id": 1, "category_id": 9, "segmentation": runs},
        {"image_id": 2, "category_id": 9, "segmentation": packed},
    ]
    kinds = [{"id": 7, "name": "cell"}, {"id": 9, "name": "hole"}]
    licences = [{"id": 1, "name": "CC0"}]
    return {"images": images, "annotations": found, "categories": kinds, "licenses": licences}


@functools.cache
def _pngs(*, masks: bool) -> dict[str, bytes]:
    """Images, or masks of three classes, by their names."""
    found = {}
    for seed, name in enumerate(_NAMES):
        chance = np.random.default_rng(seed)
        shape = _SIZE if masks else (*_SIZE, 3)
        pixels = chance.integers(0, 3 if masks else 256, shape, np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        found[f"{name}.png"] = buffer.getvalue()
    return found


@functools.cache
def _tiffs() -> dict[str, bytes]:
    """Sound TIFFs, of which `objects` has more than 20 objects of one pixel."""
    chance = np.random.default_rng(0)
    grey = chance.integers(0, 4096, _SIZE, np.uint16)
    rgb = chance.integers(0, 256, (*_SIZE, 3), np.uint8)
    stack = chance.integers(0, 4096, (2, *_SIZE), np.uint16)
    objects = np.zeros(_SIZE, np.uint16)
    objects[::2, ::2] = np.arange(1, 49).reshape(6, 8)
    kinds: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "grey": (grey, {}),
        "LZW": (grey, {"compression": "lzw", "predictor": True}),
        "deflate": (rgb, {"compression": "zlib", "photometric": "rgb"}),
        "PackBits": (rgb, {"compression": "packbits", "photometric": "rgb"}),
        "tiles": (grey, {"tile": (16, 16), "compression": "zstd"}),
        "planes": (rgb.transpose(2, 0, 1).copy(), {"photometric": "rgb", "planarconfig": 2}),
        "float": (grey.astype(np.float32), {}),
        "bits": (grey > 2000, {}),
        "white": (grey, {"photometric": "miniswhite"}),
        "pages": (stack, {"photometric": "minisblack"}),
        "channels": (
            stack,
            {"ome": True, "metadata": {"axes": "CYX", "Channel": {"Name": ["A", "B"]}}},
        ),
        "ImageJ": (grey, {"imagej": True}),
        "big": (grey, {"bigtiff": True, "byteorder": ">"}),
        "objects": (objects, {"compression": "zlib"}),
    }
    found = {}
    for name, (pixels, options) in kinds.items():
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, pixels, **{"photometric": "minisblack", **options})
        found[name] = buffer.getvalue()
    return found

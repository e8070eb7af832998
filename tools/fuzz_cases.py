"""What `fuzz.py` feeds: one function a parser, which makes a damaged input and has it read.

Each takes the case's random numbers and writes into the current folder, which is empty; what a
message must name is called `given`. Errors are let out, to be judged by `fuzz.py`; an input that is
read must mean something.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import math
import os
import pathlib
import random
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import fuzz_folders
import fuzz_mutations as mutations
import numpy as np
from PIL import Image

from segdata import console, sources
from segdata.archives import images, masks, rle, trees
from segdata.core import IGNORE_LABEL
from segdata.inspection import raw
from segdata.kaggle import api, downloads
from segdata.sources import cityscapes_pairs
from unet import checkpoints, hardware, recipes, runs

GIVEN = pathlib.Path("given")
_LONGEST = 3000  # characters of a message
_SIZE = (12, 16)  # height and width of images
_STAGE1 = "ImageId,EncodedPixels,Height,Width\na,1 3 9 2,12,16\na,20 4,12,16\nb,,12,16"
_MASKS = 'img,rle_mask\na.jpg,1 3 9 2\n"b.jpg","7 8"\n'
_PACKED = {"dataset": "d", "split": "train", "files": {"a": [1, 2]}}  # its source
_SCORES = ("loss", "dice", "iou", "dataset_dice", "dataset_iou")
_EPOCH = {f"{prefix}{score}": 0.5 for prefix in ("", "val_") for score in _SCORES} | {
    **dict.fromkeys(("epoch", "step"), 1),
    **dict.fromkeys(("learning_rate", "seconds", "images_per_second"), 0.5),
}
_HELD = {"model": np.arange(6.0).reshape(2, 3), "optimizer": np.array(3)}
_SOURCES = {
    "carvana": {
        "train_hq": {"train_hq/0123456789ab_01.jpg": "JPEG"},
        "train_masks": {"train_masks/0123456789ab_01_mask.gif": "GIF"},
    },
    "cityscapes_pairs": {"cityscapes-image-pairs": {"cityscapes_data/train/1.jpg": "pair"}},
    "dsb2018": {
        "stage1_train": {"a/images/a.png": "PNG", "a/masks/b.png": "mask", "a/masks/c.png": "mask"},
        "stage1_test": {"b/images/b.png": "PNG"},
    },
}


@dataclasses.dataclass(frozen=True)
class Parser:
    """What is fed.

    Attributes:
        feed: Makes one case and reads it.
        share: Its part of all cases.
        names_file: Whether its errors must name the file.
        imports: A module to load before the first case.
    """

    feed: Callable[[random.Random], None]
    share: int
    names_file: bool = True
    imports: str = ""


def archive(rng: random.Random) -> None:
    """A folder, a zip, or zips in zips; found or opened, listed, read, entered."""
    names = ["train/a.png", "train/b.txt", "val/c", "d", "set/e"]
    files = [(mutations.name(rng, name), rng.randbytes(rng.choice((0, 9, 300)))) for name in names]
    place = _put(rng, GIVEN / "set", rng.sample(files, rng.randrange(1, 5)), whole="all")
    tree = trees.find(GIVEN, "set", within=["all"], parts=["train", "val"])
    _explore(trees.open(place) if tree is None or rng.random() < 0.5 else tree)


def image(rng: random.Random) -> None:
    """An image file of any format."""
    GIVEN.write_bytes(_image(rng, rng.choice(images.KINDS)))
    with images.opened_file(GIVEN) as opened:
        images.orientation(opened)
        images.rgb(opened).load()


def source(rng: random.Random) -> None:
    """A raw archive of an example or two, listed and read."""
    name = rng.choice([*_SOURCES])
    for place, files in _SOURCES[name].items():
        made = [
            (mutations.name(rng, called), _image(rng, kind, 0.4)) for called, kind in files.items()
        ]
        _put(rng, GIVEN / place, made, whole=sources.named(name).wholes[0])
    variant = "/classes" if name == "cityscapes_pairs" and rng.random() < 0.5 else ""
    found = raw.collection(name + variant, manual_dir=GIVEN)
    for _, _, fault in found.faults:
        _require(is_clear(fault), f"the fault {fault!r}")
    for pending in found.stream():
        example = pending.read()
        with images.opened(example.image, name="given") as opened:
            _require(example.mask.shape == (opened.height, opened.width), "a mask of another size")
        values = {*np.unique(example.mask).tolist()} - {IGNORE_LABEL, *range(len(found.classes))}
        _require(not values, f"a mask with {values}")


def mask(rng: random.Random) -> None:
    """Objects merged and written as PNG, or colours named."""
    shape = (rng.randrange(1, 5), rng.randrange(1, 5))
    if rng.random() < 0.5:
        other = rng.choice((shape, shape, shape[::-1], (*shape, 1), shape[:1], (0, 0)))
        objects = [_array(rng, rng.choice((shape, other))) for _ in range(rng.randrange(4))]
        merged = masks.merge_instances(objects, shape=shape).mask
        with images.opened(images.mask_png(merged), name="given") as written:
            _require(np.array_equal(np.asarray(written), merged), "a PNG of another mask")
    else:
        colours = _array(rng, (*shape, 3))
        palette = _array(rng, (rng.choice((0, 1, 2, 29, 32, 33, 255, 256)), 3))
        index, distance = masks.nearest_colour(colours, palette)
        nearest = np.linalg.norm(colours.astype(float) - palette[index], axis=-1)
        _require(np.allclose(nearest, distance, atol=0.01), "distances of other colours")
        cityscapes_pairs.classes(colours)


def run_lengths(rng: random.Random) -> None:
    """Pairs of numbers, decoded."""
    shape = (rng.randrange(1, 9), rng.randrange(1, 9))
    order: rle.Order = rng.choice(("columns", "rows"))
    runs = mutations.text(rng, rle.encode(_array(rng, shape) > 128, order=order))
    GIVEN.write_bytes(runs.encode("utf-8", "surrogatepass"))
    inside = np.count_nonzero(rle.decode(runs, shape=shape, order=order))
    _require(inside == sum(map(int, runs.split()[1::2])), f"{inside} pixels")


def table(rng: random.Random) -> None:
    """A table of run lengths, as it is or in a zip, every mask decoded."""
    read, sound = rng.choice(((rle.read_stage1, _STAGE1), (rle.read_train_masks, _MASKS)))
    text = mutations.text(rng, sound, separator=rng.choice("\n, "))
    content = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.3:
        content = mutations.binary(rng, content)
    place = pathlib.Path(rng.choice(("given.csv", "given.csv", "given.zip")))
    zipped = place.suffix == ".zip"
    place.write_bytes(mutations.zipped(rng, [("given.csv", content)]) if zipped else content)
    for encoded in read(place, name="given.csv"):
        encoded.mask(_SIZE)


def fetched(rng: random.Random) -> None:
    """A folder of fetched files and the notes beside them, fetched into once more."""
    GIVEN.mkdir()
    content = mutations.zipped(rng, [("train_hq/a.jpg", b"a")])
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    names = [file.name for file in downloads.needed(sources.named("carvana"))]
    for name in names:
        (GIVEN / name).write_bytes(content)
    if rng.random() < 0.8:
        _write(rng, GIVEN / downloads.MANIFEST, json.dumps(dict.fromkeys(names, entry)))
    if rng.random() < 0.3:
        part = downloads.part_of(GIVEN / names[0])
        part.path.write_bytes(content[: rng.randrange(9)])
        _write(rng, part.note, '{"validator": "x", "size": 99}')
        part.identity()
    with contextlib.suppress(api.CredentialsError):  # what is missing is asked for
        downloads.fetch("carvana", GIVEN, log=lambda line: None)


def packed(rng: random.Random) -> None:
    """A packed file with its manifest: opened, it holds what was packed."""
    from segdata.core import records

    GIVEN.mkdir()
    for name, content in _packed().items():
        if name.endswith(".json"):
            _write(rng, GIVEN / name, content.decode())
        else:
            (GIVEN / name).write_bytes(
                mutations.binary(rng, content) if rng.random() < 0.2 else content
            )
    if opened := records.opened(GIVEN / "train.json", size=(1, 1), count=2, source=_PACKED):
        _require(np.array_equal(opened.array().ravel(), np.arange(8)), "other pixels")


def run(rng: random.Random) -> None:
    """The settings and the state of a training run."""
    GIVEN.mkdir()
    for name, content in _run().items():
        if name.endswith(".json"):
            _write(rng, GIVEN / name, content.decode())
    model = runs.settings(GIVEN).recipe.model
    best = runs.best_epoch(runs.state(GIVEN).history)
    _require(model.parameters > 0 and best in (None, 0), f"{model} and {best}")


def checkpoint(rng: random.Random) -> None:
    """The checkpoints of a run: the newest whole one holds what was saved."""
    GIVEN.mkdir()
    is_packed_again = rng.random() < 0.5
    for name, content in _run().items():
        if name.endswith(".npz"):
            content = (
                _packed_again(rng, content) if is_packed_again else mutations.binary(rng, content)
            )
        (GIVEN / name).write_bytes(content)
    _, held = checkpoints.newest(GIVEN)
    same = held.keys() == _HELD.keys() and all(
        np.array_equal(array, held[key][0]) for key, array in _HELD.items()
    )
    _require(same or is_packed_again, "other variables")


PARSERS = {
    "archives": Parser(archive, 4),
    "images": Parser(image, 4),
    "sources": Parser(source, 4),
    "masks": Parser(mask, 1, names_file=False),
    "run-lengths": Parser(run_lengths, 2, names_file=False),
    "tables": Parser(table, 3),
    "fetched": Parser(fetched, 1),
    "packed": Parser(packed, 2, imports="segdata.core.records"),
    "runs": Parser(run, 2),
    "checkpoints": Parser(checkpoint, 2),
    "tiffs": Parser(fuzz_folders.tiffs, 2),
    "large-tiffs": Parser(fuzz_folders.large_tiffs, 2),
    "coco": Parser(fuzz_folders.coco, 1),
    "yolo": Parser(fuzz_folders.yolo, 1),
    "pairs": Parser(fuzz_folders.pairs, 1),
    "label-maps": Parser(fuzz_folders.label_maps, 1),
}


def is_clear(message: str, *, names_file: bool = True) -> bool:
    """Whether a message names its file, if it must, and is not too long when it is printed."""
    return (GIVEN.name in message or not names_file) and len(console.printable(message)) < _LONGEST


def _require(condition: bool, wrong: str) -> None:
    if not condition:
        raise AssertionError(wrong)


def _put(
    rng: random.Random, folder: pathlib.Path, files: Sequence[mutations.File], *, whole: str
) -> pathlib.Path:
    """Writes files as a folder, as a zip, or as a zip in others, of which one is called `whole`."""
    folder.parent.mkdir(exist_ok=True)
    if rng.random() < 0.3:
        _unpack(rng, folder, files)
        return folder
    name, content = folder.name, mutations.zipped(rng, files)
    for outer in rng.choice(((), (), (), (name,), (whole,), (name, whole), (whole, whole))):
        content = mutations.zipped(rng, [(mutations.name(rng, f"{name}.zip"), content)])
        name = outer
    path = folder.with_name(f"{name}.zip")
    path.write_bytes(mutations.binary(rng, content) if rng.random() < 0.1 else content)
    return path


def _unpack(rng: random.Random, folder: pathlib.Path, files: Sequence[mutations.File]) -> None:
    """Writes files to a folder; now and then a link or a pipe with them."""
    folder.mkdir()
    for name, content in files:
        path = folder.joinpath(*(part for part in name.split("/") if part not in ("", "..")))
        with contextlib.suppress(OSError, ValueError):  # no name for a file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    if rng.random() < 0.1:
        (folder / "link").symlink_to(rng.choice((".", "..", "link", "d", "/dev/null")))
    if rng.random() < 0.02:
        os.mkfifo(folder / "pipe")
    if rng.random() < 0.01:  # folders with links to each other
        for place in range(8):
            (folder / f"see{place}").mkdir()
            (folder / f"see{place}" / "f").touch()
            for other in range(8):
                (folder / f"see{place}" / f"{other}").symlink_to(f"../see{other}")


def _explore(tree: trees.Tree, depth: int = 4) -> None:
    """Reads every file of a tree, and enters its folders and zips."""
    for name in tree.names:
        tree.read(name)
        inner = name if name.endswith(".zip") else name.rpartition("/")[0]
        if depth and inner:
            _explore(tree.sub(inner), depth - 1)


def _write(rng: random.Random, path: pathlib.Path, document: str) -> None:
    """Writes JSON, damaged or not, or leaves it out."""
    if rng.random() < 0.98:
        content = mutations.document(rng, document).encode("utf-8", "surrogatepass")
        path.write_bytes(mutations.binary(rng, content) if rng.random() < 0.1 else content)


def _packed_again(rng: random.Random, content: bytes) -> bytes:
    """A zip whose files are damaged, with their checksums right."""
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        files = [(mutations.name(rng, name), opened.read(name)) for name in opened.namelist()]
    place = rng.randrange(len(files))
    files[place] = (files[place][0], mutations.binary(rng, files[place][1]))
    return mutations.zipped(rng, files)


def _image(rng: random.Random, kind: str, damaged: float = 0.9) -> bytes:
    """An image of a kind, damaged as often as asked for."""
    sound = _images(kind)
    chosen = rng.choice(sound)
    if rng.random() > damaged:
        return chosen
    if kind in ("PNG", "mask") and rng.random() < 0.8:
        return mutations.png(rng, [*images.png_chunks(chosen)])
    return mutations.binary(rng, chosen, other=rng.choice(sound))


@functools.cache
def _images(kind: str) -> list[bytes]:
    """Sound images of a kind, in several modes; all of one size."""
    rng = random.Random(0)
    grey, colours = _array(rng, _SIZE), _array(rng, (*_SIZE, 3))
    flat, photo = Image.fromarray(grey), Image.fromarray(colours)
    indexed = photo.convert("P")
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "x"  # orientation, description
    road = np.full_like(colours, cityscapes_pairs.PALETTE["road"])
    variants: dict[str, list[tuple[Image.Image, dict[str, Any]]]] = {
        "mask": [(Image.fromarray((grey > 128).astype(np.uint8) * 255), {})],
        "pair": [(Image.fromarray(np.concatenate([colours, road], axis=1)), {})],
        "PNG": [
            *((photo.convert(mode), {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1")),
            (Image.fromarray(grey.astype(np.uint16) * 257), {}),
            *((indexed, option) for option in ({"exif": exif}, {"transparency": 0})),
        ],
        "JPEG": [
            *((photo.convert(mode), {}) for mode in ("RGB", "L", "CMYK")),
            *((photo, option) for option in ({"exif": exif}, {"progressive": True})),
        ],
        "GIF": [(flat, {}), (indexed, {}), (flat, {"save_all": True, "append_images": [photo]})],
        "BMP": [(photo.convert(mode), {}) for mode in ("RGB", "L", "P", "1")],
        "TIFF": [
            (photo, {"compression": how})
            for how in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
        ],
        "WebP": [(photo, {}), (photo, {"lossless": True, "exif": exif}), (flat, {})],
    }
    formats = {"mask": "PNG", "pair": "JPEG"}
    encoded = []
    for picture, options in variants[kind]:
        buffer = io.BytesIO()
        picture.save(buffer, formats.get(kind, kind), **options)
        encoded.append(buffer.getvalue())
    return encoded


def _array(rng: random.Random, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(rng.randbytes(math.prod(shape)), np.uint8).reshape(shape)


@functools.cache
def _packed() -> dict[str, bytes]:
    """The files that packing leaves."""
    from segdata.core import records

    with tempfile.TemporaryDirectory() as folder:
        rows = np.arange(8, dtype=np.uint8).reshape(2, 1, 1, 4)
        records.write(pathlib.Path(folder, "train.json"), rows, size=(1, 1), source=_PACKED)
        return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


@functools.cache
def _run() -> dict[str, bytes]:
    """The files that training leaves, of those that are read."""
    choice = hardware.Choice(hardware="CPU", precision="float32", compile=False)
    settings = runs.Settings(recipe=recipes.named("dsb2018"), choice=choice, classes=("a", "b"))
    with tempfile.TemporaryDirectory() as folder:
        place, reached = pathlib.Path(folder, "run"), runs.State()
        runs.create(place, settings)
        variables = {key: [array] for key, array in _HELD.items()}
        for step in (2, 4):
            then = runs.State(step=step, history=(_EPOCH,))
            reached = checkpoints.save(place, then, variables, known=reached)
        return {path.name: path.read_bytes() for path in place.iterdir()}

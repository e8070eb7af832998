"""What `fuzz.py` feeds: one function a parser, which makes a damaged input and has it read.

Each takes the case's random numbers, writes into the current folder, which is empty, and calls all
that input `given`. What it lets out is judged in `fuzz.py`.
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
from collections.abc import Callable, Sequence
from typing import Any, Literal

import fuzz_forms as forms
import numpy as np
from PIL import Image

from segdata import archives, images, kaggle, kaggle_client, masks, raw, rle
from segdata.sources import cityscapes_pairs
from unet import hardware, recipes, runs

GIVEN = pathlib.Path("given")
_SIZE = (12, 16)  # height and width of sound images
_KEY = "0123456789ab_01"
_SOURCES = {
    "carvana": {
        "train_hq": {f"train_hq/{_KEY}.jpg": "JPEG"},
        "train_masks": {f"train_masks/{_KEY}_mask.gif": "GIF"},
    },
    "cityscapes_pairs": {"cityscapes-image-pairs": {"cityscapes_data/train/1.jpg": "pair"}},
    "dsb2018": {
        "stage1_train": {"a/images/a.png": "PNG", "a/masks/b.png": "mask", "a/masks/c.png": "mask"},
        "stage1_test": {"b/images/b.png": "PNG"},
    },
}
_TABLES = (
    (
        rle.read_stage1,
        "ImageId,EncodedPixels,Height,Width\na,1 3 9 2,12,16\na,20 4,12,16\nb,,12,16",
    ),
    (rle.read_train_masks, 'img,rle_mask\na.jpg,1 3 9 2\n"b.jpg","7 8"\n'),
)


@dataclasses.dataclass(frozen=True)
class Parser:
    """What is fed.

    Attributes:
        feed: Makes and reads one case.
        share: Of all cases, in parts.
        names_file: Whether what it raises must name the file.
        imports: What must be loaded before the first case.
    """

    feed: Callable[[random.Random], None]
    share: int
    names_file: bool = True
    imports: str = ""


def archive(rng: random.Random) -> None:
    """A folder, a zip, zips in zips; opened or found, listed, read, entered."""
    names = ["train/a.png", "train/b.txt", "val/c", "d", "set/e"]
    files = [(forms.name(rng, name), rng.randbytes(rng.choice((0, 9, 300)))) for name in names]
    GIVEN.mkdir()
    place = _put(rng, GIVEN / "set", rng.sample(files, rng.randrange(1, 5)), whole="all")
    tree = archives.find(GIVEN, "set", within=["all"], parts=["train", "val"])
    _explore(archives.open(place) if tree is None or rng.random() < 0.5 else tree)


def image(rng: random.Random) -> None:
    """An encoded image, decoded."""
    kind: Literal["PNG", "JPEG", "GIF"] = rng.choice(("PNG", "JPEG", "GIF"))
    content = _image(rng, kind)
    GIVEN.write_bytes(content)
    with images.opened(content, kind=kind, name="given") as opened:
        opened.getexif()
        opened.convert("RGB")


def png_chunks(rng: random.Random) -> None:
    """The chunks of a PNG."""
    for _ in images.png_chunks(_image(rng, "PNG")):
        pass


def source(rng: random.Random) -> None:
    """A raw archive of one example or two, listed and read."""
    name = rng.choice([*_SOURCES])
    GIVEN.mkdir()
    for place, files in _SOURCES[name].items():
        made = [(forms.name(rng, called), _image(rng, kind, 0.4)) for called, kind in files.items()]
        _put(rng, GIVEN / place, made, whole=kaggle.SOURCES[name].wholes[0])
    variant = "/classes" if name == "cityscapes_pairs" and rng.random() < 0.5 else ""
    found = raw.collection(name + variant, manual_dir=GIVEN)
    for _, _, fault in found.faults:
        _require(is_told(fault), f"the fault {fault!r}")
    for pending in found.stream():
        example = pending.read()
        with Image.open(io.BytesIO(example.image)) as opened:
            fits = example.mask.shape == (opened.height, opened.width)
        values = {*np.unique(example.mask).tolist()} - {masks.UNKNOWN, *range(len(found.classes))}
        _require(fits and not values, f"a mask of {example.mask.shape} with {values}")


def mask(rng: random.Random) -> None:
    """Objects merged and written as PNG, or colours named."""
    shape = (rng.randrange(1, 5), rng.randrange(1, 5))
    if rng.random() < 0.5:
        other = rng.choice((shape, shape, shape[::-1], (*shape, 1), shape[:1], (0, 0)))
        objects = [_array(rng, rng.choice((shape, other))) for _ in range(rng.randrange(4))]
        merged = masks.merge_instances(objects, shape=shape).mask
        with Image.open(io.BytesIO(images.mask_png(merged))) as written:
            _require(np.array_equal(np.asarray(written), merged), "another mask as PNG")
        return
    colours = _array(rng, (*shape, 3))
    palette = _array(rng, (rng.choice((0, 1, 2, 29, 32, 33, 255, 256)), 3))
    index, distance = masks.nearest_colour(colours, palette)
    nearest = np.linalg.norm(colours.astype(float) - palette[index], axis=-1)
    _require(np.allclose(nearest, distance, atol=0.01), f"distances {distance} for {nearest}")
    cityscapes_pairs.classes(colours)


def run_lengths(rng: random.Random) -> None:
    """Pairs of numbers, decoded."""
    shape = (rng.randrange(1, 9), rng.randrange(1, 9))
    order: rle.Order = rng.choice(("columns", "rows"))
    sound = rle.encode(_array(rng, shape) > 128, order=order)
    runs = forms.text(rng, sound)
    GIVEN.write_text(runs, errors="surrogatepass")
    pixels = np.count_nonzero(rle.decode(runs, shape=shape, order=order))
    _require(pixels == sum(map(int, runs.split()[1::2])), f"{pixels} pixels of {runs!r}")


def table(rng: random.Random) -> None:
    """A table of run lengths, as it is or in a zip, every mask decoded."""
    read, sound = rng.choice(_TABLES)
    text = forms.text(rng, sound, separator=rng.choice("\n, "))
    content = text.encode("utf-8", "surrogatepass")
    place = pathlib.Path("given.csv")
    if rng.random() < 0.3:
        content = forms.data(rng, content)
    if rng.random() < 0.3:
        place, content = pathlib.Path("given.zip"), forms.zipped(rng, [("given.csv", content)])
    place.write_bytes(content)
    for encoded in read(place, name="given.csv"):
        encoded.mask(_SIZE)


def fetched(rng: random.Random) -> None:
    """A folder of fetched files with the notes beside them, fetched into once more."""
    GIVEN.mkdir()
    content = forms.zipped(rng, [("train_hq/a.jpg", b"a")])
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    names = [file.name for file in kaggle.needed("carvana")]
    for name in names:
        (GIVEN / name).write_bytes(content)
    if rng.random() < 0.8:
        _write(rng, GIVEN / kaggle.MANIFEST, json.dumps(dict.fromkeys(names, entry)))
    if rng.random() < 0.3:
        part = kaggle.part_of(GIVEN / names[0])
        part.path.write_bytes(content[: rng.randrange(9)])
        _write(rng, part.note, '{"validator": "x", "size": 99}')
        part.identity()
    with contextlib.suppress(kaggle_client.CredentialsError):
        kaggle.fetch(
            "carvana", GIVEN, say=lambda line: _require(is_told(line, names_file=False), line)
        )


def packed(rng: random.Random) -> None:
    """A packed file and its manifest."""
    from segdata import records

    source = {"dataset": "d", "split": "train", "files": {"a": [1, 2]}}
    path = GIVEN / "train.tfrecord"
    GIVEN.mkdir()
    content = bytes(12 + 4 + 4)
    manifest = {**source, "count": 1, "size": [1, 1], "crc32": 0}
    path.write_bytes(forms.data(rng, content))
    _write(rng, path.with_suffix(".json"), json.dumps(manifest))
    records._sound(records.Records(path=path, count=1, size=(1, 1)), source)


def run_folder(rng: random.Random) -> None:
    """The folder of a training run."""
    GIVEN.mkdir()
    for name, sound in _run().items():
        _write(rng, GIVEN / name, sound)
    settings, state = runs.settings(GIVEN), runs.state(GIVEN)
    best = runs.best_epoch(state.history)
    fine = isinstance(state.step, int) and isinstance(settings.checkpoint_minutes, (int, float))
    _require(fine and (best is None or best >= 0), f"a state {state}")


def recipe(rng: random.Random) -> None:
    """A recipe's JSON."""
    try:
        saved = json.loads(forms.document(rng, json.dumps(recipes.to_json(_RECIPE))))
    except (ValueError, RecursionError):
        return
    read = recipes.from_json(saved)
    _require(read.model.parameters > 0 and read.model.stride > 0, f"a recipe {read}")


PARSERS = {
    "archives": Parser(archive, 4),
    "images": Parser(image, 4),
    "chunks": Parser(png_chunks, 1, names_file=False),
    "sources": Parser(source, 3),
    "masks": Parser(mask, 1, names_file=False),
    "run-lengths": Parser(run_lengths, 3, names_file=False),
    "tables": Parser(table, 3),
    "fetched": Parser(fetched, 1),
    "packed": Parser(packed, 2, imports="segdata.records"),
    "runs": Parser(run_folder, 2),
    "recipes": Parser(recipe, 1, names_file=False),
}


def is_told(text: str, *, names_file: bool = True) -> bool:
    """Whether a message is one line of bearable length, that names the file where it must."""
    return (
        len(text.splitlines()) == 1 and len(text) < 2000 and (str(GIVEN) in text or not names_file)
    )


def _require(condition: bool, wrong: str) -> None:
    if not condition:
        raise AssertionError(wrong)


def _put(
    rng: random.Random, folder: pathlib.Path, files: Sequence[forms.File], *, whole: str
) -> pathlib.Path:
    """Writes files as a folder, as a zip, or as a zip in others, of which one is called `whole`."""
    if rng.random() < 0.3:
        _folder(rng, folder, files)
        return folder
    name, content = folder.name, forms.zipped(rng, files)
    for outer in rng.choice(((), (), (), (name,), (whole,), (name, whole), (whole, whole))):
        content = forms.zipped(rng, [(forms.name(rng, f"{name}.zip"), content)])
        name = outer
    path = folder.with_name(f"{name}.zip")
    path.write_bytes(forms.data(rng, content) if rng.random() < 0.1 else content)
    return path


def _folder(rng: random.Random, folder: pathlib.Path, files: Sequence[forms.File]) -> None:
    folder.mkdir(parents=True)
    for name, content in files:
        path = folder.joinpath(*(part for part in name.split("/") if part not in ("", "..")))
        with contextlib.suppress(OSError, ValueError):  # no name for a file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    if rng.random() < 0.1:
        (folder / "link").symlink_to(rng.choice((".", "..", "link", "d", "/dev/null")))
    if rng.random() < 0.02:
        os.mkfifo(folder / "pipe")


def _explore(tree: archives.Tree, depth: int = 4) -> None:
    for name in tree.names:
        tree.read(name)
        if depth and (name.endswith(".zip") or "/" in name):
            _explore(
                tree.sub(name if name.endswith(".zip") else name.rpartition("/")[0]), depth - 1
            )


def _write(rng: random.Random, path: pathlib.Path, document: str) -> None:
    """Writes JSON, damaged or not, or leaves it out."""
    if rng.random() < 0.95:
        written = forms.document(rng, document).encode("utf-8", "surrogatepass")
        path.write_bytes(forms.data(rng, written) if rng.random() < 0.2 else written)


def _array(rng: random.Random, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(rng.randbytes(math.prod(shape)), np.uint8).reshape(shape)


def _image(rng: random.Random, kind: str, damaged: float = 0.9) -> bytes:
    """An image of a kind; of the others' bytes some may come in."""
    sound = _sound(kind)
    seed = rng.choice(sound)
    if rng.random() > damaged:
        return seed
    if kind in ("PNG", "mask") and rng.random() < 0.8:
        return forms.png(rng, [*images.png_chunks(seed)])
    return forms.data(rng, seed, other=rng.choice(sound))


@functools.cache
def _sound(kind: str) -> list[bytes]:
    """Sound images of a kind, in several modes."""
    rng = random.Random(0)
    grey, colour = _array(rng, _SIZE), _array(rng, (*_SIZE, 3))
    photo, flat = Image.fromarray(colour), Image.fromarray(grey)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "x"
    match kind:
        case "mask":
            return [_encoded(Image.fromarray((grey > 128).astype(np.uint8) * 255), "PNG")]
        case "pair":
            road = np.full((*_SIZE, 3), cityscapes_pairs.PALETTE["road"], np.uint8)
            return [_encoded(Image.fromarray(np.concatenate([colour, road], axis=1)), "JPEG")]
        case "GIF":
            return [_encoded(flat, kind), _encoded(photo, kind)]
        case "JPEG":
            options: list[dict[str, Any]] = [{}, {"exif": exif}, {"progressive": True}]
            more = [flat, photo.convert("CMYK")]
            return [
                *(_encoded(photo, kind, **option) for option in options),
                *(_encoded(other, kind) for other in more),
            ]
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    found = [photo, flat, wide, *(photo.convert(mode) for mode in ("RGBA", "LA", "P", "1"))]
    options = [{"exif": exif}, {"transparency": 0}, {"dpi": (72, 72)}]
    return [
        *(_encoded(other, "PNG") for other in found),
        *(_encoded(photo.convert("P"), "PNG", **option) for option in options),
    ]


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


_RECIPE = recipes.named("dsb2018")


@functools.cache
def _run() -> dict[str, str]:
    """The JSON files of a sound run."""
    row = {"epoch": 1, "step": 2, "val_loss": 0.5, "loss": 0.5, "seconds": 1.0}
    choice = hardware.Choice(hardware="CPU", precision="float32", compile=False)
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder, "run")
        runs.create(run, runs.Settings(recipe=_RECIPE, choice=choice, classes=("a", "b")))
        runs.write_state(run, runs.State(step=2, checkpoint="checkpoint-2.npz", history=(row,)))
        return {path.name: path.read_text() for path in run.glob("*.json")}

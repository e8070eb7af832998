"""Cars on a turntable, in the layout of the Carvana Image Masking Challenge.

`<car>_<view>.jpg` is a photo, car being 12 hexadecimal digits and view 01 to 16, and
`<car>_<view>_mask.gif` in another folder or zip is its mask, white on black in one frame;
unlabelled photos have none. A JPEG keeps its bytes unless EXIF turns it or it is not RGB; then it
is re-encoded. Synthetic archives are read back exactly: the bytes of photos, the pixels of masks.

Source: https://www.kaggle.com/c/carvana-image-masking-challenge/data.
"""

import dataclasses
import functools
import hashlib
import io
import itertools
import os
import re
from collections.abc import Iterator
from typing import Literal

import numpy as np
from PIL import Image

from segdata import archives, sources
from segdata.archives import images, rle, trees
from segdata.core import IGNORE_LABEL
from segdata.core.system.parallel import ordered_map
from segdata.sources import Example, SizeMismatchError
from segdata.testing import layouts, turntable

COMPETITION = "carvana-image-masking-challenge"
SIZE = (1280, 1918)
"""(H, W) of every real image."""

_PHOTO = re.compile(r"([0-9a-f]{12}_[0-9]{2})\.jpe?g", re.IGNORECASE)
_MASK = re.compile(r"([0-9a-f]{12}_[0-9]{2})_mask\.gif", re.IGNORECASE)
_RENEWED = 95  # JPEG quality of re-encoded photos

# Folders of photos, with the JPEG quality at which synthetic ones are about as large as real ones.
_DRAWN = {"high": ("train_hq", "test_hq", 86), "low": ("train", "test", 76)}


@dataclasses.dataclass(frozen=True)
class Entry:
    """The files of one example.

    Attributes:
        id: Car and view, such as "0cdf5b5d0ce1_01".
        image: The name of the photo.
        mask: The name of the mask; empty for unlabelled examples.
    """

    id: str
    image: str
    mask: str = ""

    @property
    def group(self) -> str:
        """The car."""
        return self.id.partition("_")[0]


def survey(photos: trees.Tree, labels: trees.Tree) -> tuple[list[Entry], dict[str, str]]:
    """Lists the labelled examples that can be read, and the faults of the others.

    Returns:
        The entries, sorted by id, and example id or file name to fault.

    Raises:
        ArchiveError: If it is not this source at all.
    """
    found, faults = survey_unlabelled(photos)
    gifs, more = _matched(labels, ".gif", _MASK, "<car>_<view>_mask.gif")
    faults |= more
    faults |= {
        entry.id: f"{_label(photos, entry.image)} has no {entry.id}_mask.gif in {labels.label}. "
        "Give the zip itself if an unpacking was cut short; or remove the photo."
        for entry in found
        if entry.id not in gifs
    }
    faults |= {
        key: f"{_label(labels, gifs[key])} has no photo {key}.jpg in {photos.label}. "
        "Give the zip itself if an unpacking was cut short; or remove the mask."
        for key in sorted(gifs.keys() - {entry.id for entry in found})
    }
    both = [entry for entry in found if entry.id in gifs]
    return [dataclasses.replace(entry, mask=gifs[entry.id]) for entry in both], faults


def survey_unlabelled(photos: trees.Tree) -> tuple[list[Entry], dict[str, str]]:
    """The same without their masks."""
    found, faults = _matched(photos, (".jpg", ".jpeg"), _PHOTO, "<12 hex digits>_<view>.jpg")
    return [Entry(key, found[key]) for key in sorted(found)], faults


def read_example(entry: Entry, *, photos: trees.Tree, labels: trees.Tree | None = None) -> Example:
    """Reads and checks one example.

    Args:
        entry: From `survey` or `survey_unlabelled`.
        photos: The tree with its photo.
        labels: The tree with its mask, if it has one.

    Returns:
        The example; its group is the car. Without a mask file, the mask is 255 everywhere.

    Raises:
        ArchiveError: If the photo or the mask cannot be decoded, the mask has more than one frame,
            or their sizes differ.
    """
    jpeg, (width, height), renewed = _photo(photos.read(entry.image), _label(photos, entry.image))
    if labels is None or not entry.mask:
        mask = np.full((height, width), IGNORE_LABEL, np.uint8)
    else:
        mask = _mask(labels.read(entry.mask), _label(labels, entry.mask))
        if mask.shape != (height, width):
            raise SizeMismatchError(
                f"{_label(labels, entry.mask)} is {mask.shape[1]}×{mask.shape[0]}, its photo "
                f"{width}×{height}. One of them was replaced; download them again."
            )
    return Example(id=entry.id, group=entry.group, image=jpeg, mask=mask, renewed=renewed)


def parts(find: sources.Find, config: sources.Config) -> Iterator[sources.Part]:
    """Lists labelled and unlabelled photos, of high quality where both are there."""
    labels = find("train_masks")
    if labels is None:
        return
    for names, split in ((("train_hq", "train"), sources.DIVIDED), (("test_hq", "test"), "test")):
        # Both hold the same photos at two qualities.
        name, photos = next(((n, tree) for n in names if (tree := find(n))), ("", None))
        if photos is None:
            continue
        listing = survey_unlabelled(photos) if split == "test" else survey(photos, labels)
        read = functools.partial(read_example, photos=photos, labels=labels)
        yield sources.Part(name, split, photos, *listing, read)


def draw(
    folder: str | os.PathLike[str],
    *,
    examples: int,
    seed: int,
    unlabelled: int = 0,
    size: tuple[int, int] = SIZE,
    views: int = 16,
    quality: Literal["high", "low"] = "high",
    write: layouts.Writer = layouts.zips,
) -> None:
    """Synthesizes cars in a studio: `train_hq` and `train_masks`, and `test_hq` if asked for.

    A car has a body, a cabin with windows, wheels and a shadow, and is seen from all sides. The
    files depend on the arguments alone, byte for byte.

    Args:
        folder: Where to write; made if missing.
        examples: The number of photos with masks.
        seed: Determines all files.
        unlabelled: The number of photos without, of other cars.
        size: (H, W) of each photo.
        views: Of each car, from 1 to 16; the last car may have fewer.
        quality: "low" writes `train` and `test`, with half the bytes, instead of `train_hq` and
            `test_hq`.
        write: The layout of the files on disk, from `layouts`.

    Raises:
        FileExistsError: If there is a source already; it is not changed.
        ValueError: If `examples` is less than 1, or `views` not 1 to 16.
    """
    if examples < 1 or unlabelled < 0 or not 1 <= views <= turntable.VIEWS:
        raise ValueError(
            f"examples={examples}, unlabelled={unlabelled}, views={views}: draw at least one "
            f"example, of 1 to {turntable.VIEWS} views a car."
        )
    train, test, level = _DRAWN[quality]

    def drawn(place: tuple[int, int, bool]) -> list[layouts.File]:
        number, view, labelled = place
        key, photo, mask = _drawing(number, view, seed=seed, size=size, level=level)
        if not labelled:
            return [(test, f"{test}/{key}.jpg", photo)]
        return [
            (train, f"{train}/{key}.jpg", photo),
            ("train_masks", f"train_masks/{key}_mask.gif", mask),
        ]

    last = -(-examples // views)  # test cars come after training cars
    places = [
        *((index // views, index % views, True) for index in range(examples)),
        *((last + index // views, index % views, False) for index in range(unlabelled)),
    ]
    names = [train, "train_masks", *([test] if unlabelled else [])]
    write(folder, names, itertools.chain.from_iterable(ordered_map(drawn, places)))


def _matched(
    tree: trees.Tree, endings: str | tuple[str, ...], pattern: re.Pattern[str], form: str
) -> tuple[dict[str, str], dict[str, str]]:
    """The files of a tree by the id in their names, and faults by file name."""
    found: dict[str, str] = {}
    faults: dict[str, str] = {}
    for name in tree.names:
        if not name.lower().endswith(endings):
            continue
        matched = pattern.fullmatch(name.rpartition("/")[2])
        if not matched:
            faults[name] = (
                f"{_label(tree, name)} is not called {form}. Rename it, or remove it if it is no "
                "part of carvana."
            )
        elif (key := matched[1].lower()) in found:
            faults[name] = (
                f"{tree.label}: {found[key]} and {name} are the same example. Remove one of them."
            )
        else:
            found[key] = name
    if not found and not faults:
        raise archives.ArchiveError(
            f"{tree.label}: there is no {form} in it; it is no source of carvana. "
            "Download it again."
        )
    return found, faults


def _label(tree: trees.Tree, name: str) -> str:
    return f"{tree.label}: {name}"


def _photo(data: bytes, name: str) -> tuple[bytes, tuple[int, int], str]:
    """A photo's bytes, its (W, H), and why it was re-encoded, "" if it was not."""
    with images.opened(data, kinds=["JPEG"], name=name) as image:
        size, mode = image.size, image.mode
        if mode == "CMYK" and "adobe" not in image.info:
            raise archives.ArchiveError(
                f"{name} is CMYK and does not say whether inverted. Save it as RGB."
            )
        turn = images.orientation(image)
        if mode == "RGB" and turn == 1:
            # At an eighth of the size all bytes are still read, so cut and damaged files raise, in
            # a fifth of the time.
            image.draft("RGB", (max(1, size[0] // 8), max(1, size[1] // 8)))
            image.load()
            return data, size, ""
        turned = images.upright(image).convert("RGB")
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", quality=_RENEWED, subsampling=0)
    return (
        buffer.getvalue(),
        turned.size,
        f"EXIF orientation {turn}" if turn > 1 else f"mode {mode}",
    )


def _mask(data: bytes, name: str) -> np.ndarray:
    """uint8 [H, W], 1 where the colour is nearer to white than to black."""
    with images.opened(data, kinds=["GIF"], name=name) as image:
        return _white(image)


def _white(image: Image.Image) -> np.ndarray:
    image.load()
    if image.mode == "P":  # decided by the palette, not by each pixel: 6 times as fast
        pixels = np.asarray(image)
        palette = np.reshape(image.getpalette("RGB") or [], (-1, 3)).mean(axis=-1)
        levels = np.zeros(256)
        levels[: len(palette)] = palette
        highest = int(pixels.max())
        brightest = float(levels[highest])
        if brightest <= 1:  # above that, how bright does not matter
            brightest = float(levels[np.flatnonzero(image.histogram())].max())
        table = _is_white(levels, brightest)
        is_class = highest <= 1 and tuple(table[:2]) == (0, 1)
        return pixels if is_class else table[pixels]
    grey = np.asarray(image.convert("RGB").convert("L"))
    return _is_white(grey, grey.max())


def _is_white(levels: np.ndarray, brightest: float) -> np.ndarray:
    # An array of classes that is saved as grey levels has 0 and 1 instead of 0 and 255.
    return (levels > (127 if brightest > 1 else 0)).astype(np.uint8)


def _drawing(
    number: int, view: int, *, seed: int, size: tuple[int, int], level: int
) -> tuple[str, bytes, bytes]:
    """The id, the JPEG and the GIF of one view of a car."""
    subject = turntable.car(np.random.default_rng([seed, number]))
    rng = np.random.default_rng([seed, number, view])
    photo, mask = turntable.photograph(subject, view, size=size, rng=rng)
    jpeg, gif = io.BytesIO(), io.BytesIO()
    Image.fromarray(photo).save(jpeg, "JPEG", quality=level, subsampling="4:2:0")
    indexed = Image.fromarray(mask).convert("P")
    indexed.putpalette([0, 0, 0, 255, 255, 255])
    indexed.info["version"] = b"89a"
    indexed.save(gif, "GIF")
    key = hashlib.sha256(f"{seed}/{number}".encode()).hexdigest()[:12]
    return f"{key}_{view + 1:02}", jpeg.getvalue(), gif.getvalue()


_CLASSES = ("background", "car")
_FILES = (sources.File("train_masks.zip", 29_000_000), sources.File("train_hq.zip", 850_000_000))

SOURCE = sources.Source(
    name="carvana",
    builder="segdata.datasets.carvana.carvana_dataset_builder",
    homepage=f"https://www.kaggle.com/c/{COMPETITION}",
    license="Terms of the competition; not for redistribution.",
    group="The car, of which there are up to 16 views; no two splits share one.",
    configs=(
        sources.Config("default", "Photos of high quality with masks.", _CLASSES, _FILES),
        sources.Config(
            "lowres",
            "The photos in lower JPEG quality.",
            _CLASSES,
            (_FILES[0], sources.File("train.zip", 405_000_000)),
        ),
        sources.Config(
            "with_test",
            "With the unlabelled test photos.",
            _CLASSES,
            (*_FILES, sources.File("test_hq.zip", 16_300_000_000)),
        ),
    ),
    parts=parts,
    example_bytes=170_000,
    draw=draw,
    kaggle=COMPETITION,
    wholes=(COMPETITION,),
    tables={"train_masks.csv": rle.read_train_masks},
    notes=("renewed",),
    layout="photos",
    victims={"photo": ("train_hq", ""), "mask": ("train_masks", "")},
)

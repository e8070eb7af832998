"""Street scenes beside their masks, in the layout of the Cityscapes Image Pairs.

`train/<number>.jpg` and `val/<number>.jpg` are JPEGs of twice their height in width: on the left
the photo, on the right the mask in the colours of Cityscapes, smeared by the compression. They are
read as a PNG with the photo's exact pixels, and a mask with the class of each pixel that has one.

Source: https://www.kaggle.com/datasets/dansbecker/cityscapes-image-pairs; the classes and colours
are those of cityscapesScripts, `labels.py`.
"""

import dataclasses
import functools
import io
import os
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from PIL import Image, JpegImagePlugin

from segdata import archives, sources
from segdata.archives import images, masks, trees
from segdata.core.system.parallel import ordered_map
from segdata.sources import Example
from segdata.testing import layouts, streets

_SLUG = "dansbecker/cityscapes-image-pairs"

DOWNLOADS = ("cityscapes-image-pairs", "archive")
"""Names of the download by Kaggle's client and by a browser, without ".zip"."""

FOLDER = "cityscapes_data"
"""The folder in it."""

PALETTE = {
    # The 19 classes that are scored, by their training ids.
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
    # The others, by their ids. The camera's own car, the frame and static objects have the black
    # of "unlabeled"; groups of poles and licence plates have the colours of poles and cars.
    "unlabeled": (0, 0, 0),
    "dynamic": (111, 74, 0),
    "ground": (81, 0, 81),
    "parking": (250, 170, 160),
    "rail track": (230, 150, 140),
    "guard rail": (180, 165, 180),
    "bridge": (150, 100, 100),
    "tunnel": (150, 120, 90),
    "caravan": (0, 0, 90),
    "trailer": (0, 0, 110),
}
CLASSES = tuple(PALETTE)
"""The name of each class, by its number in the mask of `classes`."""

# Of the real files' road, 97.2 % lie within 30 of its colour, and of all else 0.01 %; at 40 it is
# 0.19 %, as bridge and wall are 50 away. Away from any border 99.9 % lie within 11.
_RADIUS, _CLEAN = 30, 10

# The share of a mask's pixels within _CLEAN of a class's colour: 0.67 in synthetic masks at
# quality 30 and 0.9 at 95, 0.02 to 0.27 in synthetic photos.
_LEAST = 0.4

_COLOURS = np.array(list(PALETTE.values()), np.uint8)
_PAIR = re.compile(r"(?:.*/)?(train|val)/([0-9]{1,9})\.jpe?g", re.IGNORECASE)
_SIDE = 256  # of synthetic photos and all real ones, pixels


@dataclasses.dataclass(frozen=True)
class Entry:
    """The file of one pair.

    Attributes:
        split: The folder that it is in.
        number: Its number there.
        image: The name of the file.
    """

    split: Literal["train", "val"]
    number: int
    image: str

    @property
    def id(self) -> str:
        """Such as "train/1"; both folders count from 1."""
        return f"{self.split}/{self.number}"

    @property
    def group(self) -> str:
        """The pair itself."""
        return self.id


def road(colours: np.ndarray) -> np.ndarray:
    """Labels road and everything else.

    Args:
        colours: uint8 [H, W, 3], a mask of Cityscapes.

    Returns:
        uint8 [H, W]: 1 on the road, 0 elsewhere, 255 where the colour is of no class or is smeared
        between road and another class.
    """
    index, distance = masks.nearest_colour(colours, _COLOURS)
    is_road = (index == CLASSES.index("road")).astype(np.uint8)
    return masks.without_smears(is_road, distance, radius=_RADIUS, clean=_CLEAN)


def classes(colours: np.ndarray) -> np.ndarray:
    """Labels all classes.

    Args:
        colours: uint8 [H, W, 3], a mask of Cityscapes.

    Returns:
        uint8 [H, W], numbers of `CLASSES`; 255 where the colour is of no class or is smeared
        between two.
    """
    index, distance = masks.nearest_colour(colours, _COLOURS)
    return masks.without_smears(index, distance, radius=_RADIUS, clean=_CLEAN)


def survey(tree: trees.Tree) -> tuple[list[Entry], dict[str, str]]:
    """Lists the pairs, those of `train` first, by number; and the faults of other files by name.

    Raises:
        ArchiveError: If it is not this source at all.
    """
    found: dict[str, Entry] = {}
    faults: dict[str, str] = {}
    for name in tree.names:
        if not name.lower().endswith((".jpg", ".jpeg")):
            continue
        matched = _PAIR.fullmatch(name)
        if not matched:
            faults[name] = (
                f"{tree.label}: {name} is not called train/<number>.jpg or val/<number>.jpg. "
                "Rename it, or remove it if it is no part of cityscapes_pairs."
            )
            continue
        split = "train" if matched[1].lower() == "train" else "val"
        entry = Entry(split, int(matched[2]), name)
        if entry.id in found:
            faults[name] = (
                f"{tree.label}: {found[entry.id].image} and {name} are the same pair. Remove one "
                "of them."
            )
        else:
            found[entry.id] = entry
    if not found and not faults:
        raise archives.ArchiveError(
            f"{tree.label}: there is no train/<number>.jpg or val/<number>.jpg in it; it is no "
            "source of cityscapes_pairs. Download it again."
        )
    return sorted(found.values(), key=lambda entry: (entry.split, entry.number)), faults


def read_example(
    tree: trees.Tree, entry: Entry, *, label: Callable[[np.ndarray], np.ndarray] = road
) -> Example:
    """Reads and checks one pair.

    The photo becomes a PNG of the pixels that a JPEG of the photo alone would decode to, with no
    colour of the mask in its last column. Cutting the JPEG without decoding works only where the
    seam is at a multiple of 16 pixels, and re-encoding it would lose detail.

    Args:
        tree: The tree with the pair.
        entry: From `survey`.
        label: From colours to classes: `road` or `classes`.

    Returns:
        The example; its group is its id.

    Raises:
        ArchiveError: If it cannot be decoded, is not RGB, its width is odd, EXIF turns it, or its
            right half is no mask.
    """
    name = f"{tree.label}: {entry.image}"
    photo, colours = _halves(tree.read(entry.image), name)
    if (share := _share_of_classes(colours)) < _LEAST:
        raise archives.ArchiveError(
            f"{name} is no photo beside its mask: {share:.0%} of its right half have a colour of "
            "Cityscapes. Download it again."
        )
    return Example(
        id=entry.id,
        group=entry.group,
        image=images.png(Image.fromarray(photo), strategy=zlib.Z_RLE),
        mask=label(colours),
    )


def parts(find: sources.Find, config: sources.Config) -> Iterator[sources.Part]:
    """Lists the pairs of each folder, then the faults of all other files."""
    tree = find(FOLDER)
    if tree is None:
        return
    found, faults = survey(tree)
    label = classes if config.classes == CLASSES else road
    read = functools.partial(read_example, tree, label=label)
    for folder, split in (("train", "train"), ("val", "validation")):
        if members := [entry for entry in found if entry.split == folder]:
            yield sources.Part(folder, split, tree, members, {}, read)
    yield sources.Part(FOLDER, "", tree, [], faults, read)


def scene(index: int, *, seed: int) -> streets.Scene:
    """The index-th synthetic pair, from 0: the photo and the true classes."""
    rng = np.random.default_rng([seed, index])
    numbers = {name: number for number, name in enumerate(CLASSES)}
    return streets.scene(numbers, side=_SIDE, rng=rng)


def draw(
    folder: str | os.PathLike[str],
    *,
    examples: int,
    seed: int,
    unlabelled: int = 0,
    quality_range: tuple[int, int] = (75, 95),
    write: layouts.Writer = layouts.zips,
) -> None:
    """Synthesizes streets beside their masks, as the client downloads them; a seventh in `val`.

    The files depend on the arguments alone, byte for byte.

    Args:
        folder: Where to write; made if missing.
        examples: The number of pairs in both folders together.
        seed: Determines all files.
        unlabelled: 0, as every real pair has its mask.
        quality_range: Lowest and highest JPEG quality.
        write: The layout of the files on disk, from `layouts`.

    Raises:
        FileExistsError: If there is a source already; it is not changed.
        ValueError: If `examples` is less than 1, `unlabelled` not 0, or a quality not 1 to 100.
    """
    if unlabelled:
        raise ValueError(f"unlabelled={unlabelled}: every pair of cityscapes_pairs has its mask.")
    low, high = quality_range
    if examples < 1 or not 1 <= low <= high <= 100:
        raise ValueError(
            f"examples={examples}, quality_range={quality_range}: draw at least one example, of "
            "qualities from 1 to 100."
        )
    train = examples - examples // 7

    def drawn(index: int) -> layouts.File:
        quality = int(np.random.default_rng([seed, index, 1]).integers(low, high + 1))
        place = f"train/{index + 1}" if index < train else f"val/{index - train + 1}"
        return DOWNLOADS[0], f"{FOLDER}/{place}.jpg", _pair(scene(index, seed=seed), quality)

    write(folder, DOWNLOADS[:1], ordered_map(drawn, range(examples)))


def _share_of_classes(colours: np.ndarray) -> float:
    """The share of pixels with the colour of a class, among every sixteenth."""
    _, distance = masks.nearest_colour(colours[::4, ::4], _COLOURS)
    return np.count_nonzero(distance <= _CLEAN) / distance.size


def _halves(data: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Photo and mask, uint8 [H, W/2, 3] each."""
    with images.opened(data, kinds=["JPEG"], name=name) as image:
        if image.mode != "RGB":
            raise archives.ArchiveError(
                f"{name} has the colours {image.mode}; a pair is RGB. Download it again."
            )
        if image.width % 2:
            raise archives.ArchiveError(
                f"{name} is {image.width} pixels wide; half of a pair is photo and half is mask, "
                "so the width is even. Download it again."
            )
        if images.orientation(image) != 1:
            raise archives.ArchiveError(
                f"{name} is turned by its EXIF orientation, so its halves are not certain. "
                "Save it upright, or download it again."
            )
        pixels = np.array(image)
        seam = image.width // 2
        halved = JpegImagePlugin.get_sampling(image) in (1, 2)  # 4:2:2 and 4:2:0
    if halved and seam % 2 == 0:
        with images.opened(data, kinds=["JPEG"], name=name) as image:
            image.draft("YCbCr", image.size)
            pixels[:, seam - 1 : seam + 1] = _unblended(np.array(image)[:, seam - 1 : seam + 1])
    return pixels[:, :seam], pixels[:, seam:]


def _unblended(columns: np.ndarray) -> np.ndarray:
    """The RGB of the two columns at the seam without each other's colour.

    Where colour has half the resolution, a decoder interpolates three quarters of the nearer and
    one quarter of the farther sample. From two such neighbours both samples follow.

    Args:
        columns: uint8 [H, 2, 3], YCbCr.

    Returns:
        uint8 [H, 2, 3].
    """
    colour = columns[..., 1:].astype(np.int16)
    apart = np.clip((3 * colour - colour[:, ::-1] + 1) // 2, 0, 255).astype(np.uint8)
    whole = np.concatenate([columns[..., :1], apart], axis=-1)
    return np.array(Image.fromarray(whole, "YCbCr").convert("RGB"))


def _pair(drawn: streets.Scene, quality: int) -> bytes:
    buffer = io.BytesIO()
    both = np.concatenate([drawn.photo, _COLOURS[drawn.labels]], axis=1)
    Image.fromarray(both).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


_FILES = (sources.File(f"{DOWNLOADS[0]}.zip", 106_000_000, holds=FOLDER),)
_ROAD = {"road": PALETTE["road"]}

SOURCE = sources.Source(
    name="cityscapes_pairs",
    builder="segdata.datasets.cityscapes_pairs.cityscapes_pairs_dataset_builder",
    homepage=f"https://www.kaggle.com/datasets/{_SLUG}",
    license="Terms of Cityscapes, https://www.cityscapes-dataset.com/license: for research "
    "and not for redistribution.",
    group="The pair itself.",
    configs=(
        sources.Config("road", "Road or not.", ("other", "road"), _FILES, _ROAD),
        sources.Config("classes", "All classes that have a colour.", CLASSES, _FILES, PALETTE),
    ),
    parts=parts,
    example_bytes=80_000,
    draw=draw,
    kaggle=_SLUG,
    wholes=DOWNLOADS[::-1],
    folders=("train", "val"),
    layout="pairs",
    victims={"photo": (DOWNLOADS[0], "")},
)

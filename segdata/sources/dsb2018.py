"""Nuclei under microscopes, in the layout of the Data Science Bowl 2018.

`<id>/images/<id>.png` is the image, `<id>/masks/*.png` are its nuclei, one file each, at any depth
of the tree; unlabelled images have no `masks`. Images are read as 8-bit RGB. Synthetic archives
are read back exactly.

Source: https://www.kaggle.com/c/data-science-bowl-2018/data; the images are the Broad Institute's
BBBC038.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import os
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from segdata import archives, sources
from segdata.archives import images, masks, rle, trees
from segdata.core import IGNORE_LABEL
from segdata.core.system.parallel import ordered_map
from segdata.sources import Example, SizeMismatchError
from segdata.testing import layouts

COMPETITION = "data-science-bowl-2018"
BORDER = 2
"""The class of pixels of a nucleus within two pixels of another, in the config `borders`."""

# (H, W) of nearly all real images, about as often as they occur.
_SIZES = (*4 * [(256, 256)], (256, 320), (360, 360), (520, 696))


@dataclasses.dataclass(frozen=True)
class Entry:
    """The files of one example.

    Attributes:
        id: The name of its folder.
        image: The name of the image file.
        masks: The names of the mask files, sorted; empty for unlabelled examples.
    """

    id: str
    image: str
    masks: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The example itself; near duplicates are found by their pixels."""
        return self.id


def survey(tree: trees.Tree) -> tuple[list[Entry], dict[str, str]]:
    """Lists the labelled examples that can be read, and the faults of the others.

    Returns:
        The entries, sorted by id, and example id to fault.

    Raises:
        ArchiveError: If it is not this source at all.
    """
    found, faults = _survey(tree)
    faults |= {
        entry.id: f"{tree.label}: {entry.id} has an image and no masks. Give the zip itself if an "
        "unpacking was cut short; or remove the folder."
        for entry in found
        if not entry.masks
    }
    faults |= {
        entry.id: f"{tree.label}: {entry.id} has {len(entry.masks):,} masks, more than the "
        f"{masks.MOST_OBJECTS:,} that can be numbered. Remove the folder."
        for entry in found
        if len(entry.masks) > masks.MOST_OBJECTS
    }
    return [entry for entry in found if entry.id not in faults], faults


def survey_unlabelled(tree: trees.Tree) -> tuple[list[Entry], dict[str, str]]:
    """The same without their masks."""
    found, faults = _survey(tree)
    return [dataclasses.replace(entry, masks=()) for entry in found], faults


def read_image(tree: trees.Tree, entry: Entry) -> Image.Image:
    """Reads the image alone, as 8-bit RGB.

    Raises:
        ArchiveError: If it cannot be decoded.
    """
    with _opened(tree.read(entry.image), tree, entry.image) as image:
        return _rgb(image)


def read_example(tree: trees.Tree, entry: Entry) -> Example:
    """Reads and checks one example.

    An 8-bit RGB PNG keeps its bytes; grey, palette, RGBA and 16-bit images, and those that EXIF
    turns, are re-encoded: alpha is dropped, and of 16 bits the upper 8 are kept. The pixels of a
    nucleus are those of its mask that are more than half as bright as the brightest, in their
    strongest channel, whatever the kind of PNG: edges may be smooth.

    Args:
        tree: The tree with its files.
        entry: From `survey` or `survey_unlabelled`.

    Returns:
        The example; its group is its id. Without masks, the mask is 255 everywhere and there are
        no instances.

    Raises:
        ArchiveError: If a PNG cannot be decoded or a mask's size is not the image's.
    """
    raw = tree.read(entry.image)
    with _opened(raw, tree, entry.image) as opened:
        plain = _is_plain(raw) and images.orientation(opened) == 1
        image = _rgb(opened)
    shape = (image.height, image.width)
    example = Example(
        id=entry.id,
        group=entry.group,
        image=raw if plain else images.png(image),
        mask=np.full(shape, IGNORE_LABEL, np.uint8),
    )
    if not entry.masks:
        return example
    nuclei = (_nucleus(tree, name, size=image.size) for name in entry.masks)
    merged = masks.merge_instances(nuclei, shape=shape)
    return dataclasses.replace(
        example, mask=merged.mask, instances=merged.labels, overlap=merged.contested
    )


def read_bordered(tree: trees.Tree, entry: Entry) -> Example:
    """As `read_example`, but where nuclei touch, their pixels are of a class of their own.

    What its width was measured by is in docs/objects.md.
    """
    example = read_example(tree, entry)
    if example.instances is None:
        return example
    touching = masks.borders(example.instances, reach=_REACH)
    mask = np.where(touching, np.uint8(BORDER), example.mask)
    return dataclasses.replace(example, mask=mask)


def parts(find: sources.Find, config: sources.Config) -> Iterator[sources.Part]:
    """Lists the labelled and the unlabelled images."""
    for name, split, listing in (
        ("stage1_train", sources.DIVIDED, survey),
        ("stage1_test", "test", survey_unlabelled),
    ):
        if tree := find(name):
            read = read_bordered if config.name == "borders" else read_example
            yield sources.Part(name, split, tree, *listing(tree), functools.partial(read, tree))


def draw(folder: str | os.PathLike[str], *, examples: int, seed: int, unlabelled: int = 0) -> None:
    """Synthesizes microscope images as folders: `stage1_train`, `stage1_test` if asked for.

    Four in five images are fluorescence, dim on near black; the others are purple tissue and, one
    in twenty, dark nuclei on a bright background. The files depend on the seed alone, byte for
    byte.

    Args:
        folder: Where to write; made if missing.
        examples: The number of labelled images.
        seed: Determines all files.
        unlabelled: The number of images without masks.

    Raises:
        FileExistsError: If there is a source already; it is not changed.
        ValueError: If `examples` is less than 1.
    """
    layouts.folders(folder, *_drawings(examples=examples, seed=seed, unlabelled=unlabelled))


def draw_zips(
    folder: str | os.PathLike[str], *, examples: int, seed: int, unlabelled: int = 0
) -> None:
    """As `draw`, but as `stage1_train.zip` and `stage1_test.zip`."""
    layouts.zips(folder, *_drawings(examples=examples, seed=seed, unlabelled=unlabelled))


def _survey(tree: trees.Tree) -> tuple[list[Entry], dict[str, str]]:
    """Examples with one image each, and the faults of the others by id."""
    photos, objects = _files(tree)
    faults = {
        key: f"{tree.label}: {_miscounted(key, photos[key])}"
        for key in sorted(photos.keys() | objects.keys())
        if len(photos[key]) != 1
    }
    good = sorted(photos.keys() - faults.keys())
    return [Entry(key, photos[key][0], tuple(objects[key])) for key in good], faults


def _files(tree: trees.Tree) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The names of images and of masks, by example."""
    photos = collections.defaultdict[str, list[str]](list)
    objects = collections.defaultdict[str, list[str]](list)
    for name in tree.names:
        folder, _, rest = name.rpartition("/images/")
        if folder and "/" not in rest and rest.lower().endswith(".png"):
            photos[folder.rpartition("/")[2]].append(name)
        folder, _, rest = name.rpartition("/masks/")
        if folder and "/" not in rest and rest.lower().endswith(".png"):
            objects[folder.rpartition("/")[2]].append(name)
    if not photos:
        raise archives.ArchiveError(
            f"{tree.label}: there is no <id>/images/<id>.png in it; it is no source of dsb2018. "
            "Download it again."
        )
    return photos, objects


def _miscounted(key: str, names: Sequence[str]) -> str:
    if not names:
        return f"{key} has masks and 0 images. Unpack it again, or give the zip itself."
    return f"{key} has {len(names)} images, {' and '.join(names)}. Remove all but one."


def _opened(
    data: bytes, tree: trees.Tree, name: str
) -> contextlib.AbstractContextManager[Image.Image]:
    return images.opened(data, kinds=["PNG"], name=f"{tree.label}: {name}")


def _is_plain(data: bytes) -> bool:
    """Whether a PNG's header has 8-bit RGB; Pillow's mode does not show 16 bits."""
    bits, colour_type = data[24:26]
    return (bits, colour_type) == (8, 2)


def _rgb(image: Image.Image) -> Image.Image:
    image = images.upright(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return images.rgb(image)


def _nucleus(tree: trees.Tree, name: str, *, size: tuple[int, int]) -> np.ndarray:
    """Bool [H, W] of one mask, of an image of (W, H)."""
    data = tree.read(name)
    if (levels := images.grey(data)) is not None and levels.shape == size[::-1]:
        return levels > levels.max() // 2
    with _opened(data, tree, name) as image:
        if image.size != size:
            raise SizeMismatchError(
                f"{tree.label}: {name} is {image.width}×{image.height}, its image "
                f"{size[0]}×{size[1]}. One of them was replaced; download them again."
            )
        alpha = image.mode in ("P", "PA", "LA", "RGBA")  # not a colour
        pixels = np.asarray(images.rgb(image) if alpha else image)
    if pixels.ndim == 3:
        pixels = pixels.max(axis=-1)
    return pixels if pixels.dtype == bool else pixels > pixels.max() // 2


def _drawings(
    *, examples: int, seed: int, unlabelled: int
) -> tuple[list[str], Iterator[layouts.File]]:
    """The names of the archives, and their files."""
    if examples < 1 or unlabelled < 0:
        raise ValueError(
            f"examples={examples}, unlabelled={unlabelled}: draw at least one example."
        )
    drawn = ordered_map(lambda index: _drawing(index, seed), range(examples + unlabelled))
    files = (
        ("stage1_train" if index < examples else "stage1_test", name, data)
        for index, drawing in enumerate(drawn)
        for name, data in drawing.items()
        if index < examples or "/images/" in name
    )
    return ["stage1_train", "stage1_test"][: 2 if unlabelled else 1], files


def _drawing(index: int, seed: int) -> dict[str, bytes]:
    """One example's files, by name; depends on its index and the seed alone."""
    rng = np.random.default_rng([seed, index])
    key = hashlib.sha256(f"{seed}/{index}".encode()).hexdigest()
    share = index * 0.618034 % 1  # even shares of any number
    nuclei = _nuclei(rng, sizes=_SIZES[:-1] if share >= 0.8 else _SIZES)
    paint = _fluorescence if share < 0.8 else _tissue if share < 0.95 else _bright_field
    colours = np.clip(paint(rng, nuclei), 0, 255).astype(np.uint8)
    image = Image.fromarray(colours).convert("RGBA")
    encode = functools.partial(images.png, strategy=zlib.Z_RLE)
    files = {f"{key}/images/{key}.png": encode(image)}
    for number in range(1, int(nuclei.labels.max()) + 1):
        mask = Image.fromarray((nuclei.labels == number).astype(np.uint8) * 255)
        name = hashlib.sha256(f"{key}/{number}".encode()).hexdigest()
        files[f"{key}/masks/{name}.png"] = encode(mask)
    return files


class _Nuclei(NamedTuple):
    labels: np.ndarray  # uint16 [H, W], 0 for background
    depth: np.ndarray  # float32 [H, W], 0 at an outline to 1 at a centre
    radius: float  # pixels, of the typical nucleus


def _nuclei(rng: np.random.Generator, *, sizes: Sequence[tuple[int, int]]) -> _Nuclei:
    """Places nuclei that may touch, never overlap, and may be cut by the border."""
    height, width = sizes[int(rng.integers(len(sizes)))]
    radius = rng.uniform(7, 17)
    most = 0.3 * height * width / (np.pi * radius**2)
    count = int(np.clip(rng.uniform(0.2, 1) * most, 5, 60))
    labels = np.zeros((height, width), np.uint16)
    depth = np.zeros((height, width), np.float32)
    centres: list[np.ndarray] = []
    for _ in range(20 * count):
        if len(centres) == count:
            break
        centre = rng.uniform(0, (height, width))
        if centres and rng.random() < 0.4:  # a cluster grows
            turn = rng.uniform(0, 2 * np.pi)
            centre = centres[int(rng.integers(len(centres)))] + 1.9 * radius * np.array(
                [np.sin(turn), np.cos(turn)]
            )
        if labels[tuple(np.clip(centre, 0, (height - 1, width - 1)).astype(int))]:
            continue
        inside, rows, columns = _blob(rng, centre, radius * rng.uniform(0.75, 1.25), labels.shape)
        free = (inside > 0) & (labels[rows, columns] == 0)
        if free.sum() < max(20, 0.8 * (inside > 0).sum()):
            continue
        centres.append(centre)
        labels[rows, columns][free] = len(centres)
        depth[rows, columns][free] = inside[free]
    return _Nuclei(labels, depth, radius)


def _blob(
    rng: np.random.Generator, centre: np.ndarray, radius: float, shape: tuple[int, ...]
) -> tuple[np.ndarray, slice, slice]:
    """An ellipse with a few smooth harmonics: its depth float [h, w], and its window."""
    reach = 1.7 * radius
    low = np.clip(centre - reach, 0, shape).astype(int)
    high = np.clip(centre + reach, 0, shape).astype(int)
    rows, columns = slice(low[0], high[0]), slice(low[1], high[1])
    y, x = np.ogrid[rows, columns]
    angle = np.arctan2(y - centre[0], x - centre[1])
    outline = 1 + rng.uniform(0, 0.3) * np.cos(2 * (angle - rng.uniform(0, np.pi)))
    for harmonic in (3, 4, 5):
        outline += rng.normal(0, 0.12 / harmonic) * np.cos(harmonic * angle + rng.uniform(0, 6.3))
    distance = np.hypot(y - centre[0], x - centre[1]) / (radius * outline)
    return np.clip(1 - distance**2, 0, 1), rows, columns


def _fluorescence(rng: np.random.Generator, nuclei: _Nuclei) -> np.ndarray:
    """Float [H, W]: blurred light from the nuclei, unevenly lit, with shot and camera noise."""
    shape = nuclei.labels.shape
    brightness = np.append(0, rng.lognormal(0, 0.35, nuclei.labels.max()))[nuclei.labels]
    grain = np.maximum(1 + 0.25 * _clouds(rng, shape, scale=nuclei.radius / 4), 0)
    light = brightness * (0.5 + 0.5 * np.sqrt(nuclei.depth)) * grain
    light = ndimage.gaussian_filter(light, rng.uniform(0.6, 1.5))
    halo = ndimage.uniform_filter(light, int(4 * nuclei.radius))
    uneven = 1 + 0.15 * _clouds(rng, shape, scale=max(shape) / 3)
    signal = rng.uniform(2, 12) + rng.choice([30, 60, 120]) * uneven * (light + 0.05 * halo)
    # Shot noise as a normal of the same variance: it differs from Poisson only below a few levels.
    return signal + np.sqrt(0.05 * signal + 0.4) * rng.standard_normal(shape, np.float32)


def _tissue(rng: np.random.Generator, nuclei: _Nuclei) -> np.ndarray:
    """Float [H, W, 3]: violet nuclei on lavender, as haematoxylin stains them."""
    shape = nuclei.labels.shape
    stroma = _clouds(rng, shape, scale=10) + 0.5 * _clouds(rng, shape, scale=2)
    ground = np.array([188, 164, 212]) + rng.normal(0, 6, 3) + 9 * stroma[..., None] * [1, 1.2, 0.6]
    chromatin = _clouds(rng, shape, scale=nuclei.radius / 8)
    violet = np.array([96, 52, 176]) + rng.normal(0, 8, 3) + 16 * chromatin[..., None]
    density = np.append(0, rng.uniform(0.55, 1, nuclei.labels.max()))[nuclei.labels]
    edge = 0.85 + 0.15 * (nuclei.depth < 0.25)  # the rim holds most stain
    stain = ndimage.gaussian_filter(density * edge, 0.8)[..., None]
    return ground + stain * (violet - ground) + rng.normal(0, 1.5, (*shape, 1))


def _bright_field(rng: np.random.Generator, nuclei: _Nuclei) -> np.ndarray:
    """Float [H, W]: dark nuclei on a bright, uneven ground."""
    shape = nuclei.labels.shape
    ground = 205 + 10 * _clouds(rng, shape, scale=max(shape) / 3)
    ground += 4 * _clouds(rng, shape, scale=3)
    darkness = np.append(0, rng.uniform(60, 130, nuclei.labels.max()))[nuclei.labels]
    grain = 1 + 0.2 * _clouds(rng, shape, scale=nuclei.radius / 4)
    shade = ndimage.gaussian_filter(darkness * (0.6 + 0.4 * nuclei.depth) * grain, 1)
    return ground - shade + rng.normal(0, 2.5, shape)


def _clouds(rng: np.random.Generator, shape: tuple[int, ...], *, scale: float) -> np.ndarray:
    """Float32 [H, W]: smooth noise of mean about 0 and variance about 1, `scale` pixels a lump."""
    coarse = [max(4, round(length / scale) + 3) for length in shape]
    noise = rng.standard_normal(coarse, np.float32)
    row = np.linspace(1, coarse[0] - 2, shape[0])
    column = np.linspace(1, coarse[1] - 2, shape[1])
    return 1.4 * _stretch(_stretch(noise, row).T, column).T


def _stretch(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Samples rows [N, M] at fractional positions [n], linearly: [n, M]."""
    below = np.minimum(at.astype(int), len(values) - 2)
    weight = (at - below).astype(np.float32)[:, None]
    return values[below] * (1 - weight) + values[below + 1] * weight


_REACH = 2  # pixels to another nucleus
_CLASSES = ("background", "nucleus")
_FILES = (
    sources.File("stage1_train.zip", 83_000_000),
    sources.File("stage1_test.zip", 10_000_000, is_optional=True),
    sources.File("stage1_solution.csv.zip", 400_000, is_optional=True),
)

SOURCE = sources.Source(
    name="dsb2018",
    builder="segdata.datasets.dsb2018.dsb2018_dataset_builder",
    homepage=f"https://www.kaggle.com/c/{COMPETITION}",
    license="CC0-1.0",
    group="Near duplicates share it; no two splits do.",
    configs=(
        sources.Config("default", "Image and class mask.", _CLASSES, _FILES),
        sources.Config(
            "instances", "With a map of single nuclei.", _CLASSES, _FILES, objects="nucleus"
        ),
        sources.Config(
            "borders",
            "The same, and a class for where nuclei touch.",
            (*_CLASSES, "border"),
            _FILES,
            objects="nucleus",
            is_extra=True,
        ),
    ),
    parts=parts,
    example_bytes=90_000,
    draw=draw_zips,
    read_image=read_image,
    kaggle=COMPETITION,
    wholes=(COMPETITION,),
    tables={"stage1_train_labels.csv": rle.read_stage1, "stage1_solution.csv": rle.read_stage1},
    notes=("overlap",),
    layout="objects",
    victims={"photo": ("stage1_train", "/images/"), "mask": ("stage1_train", "/masks/")},
)

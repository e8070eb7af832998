"""What a training should know of a built dataset, measured on a sample of its examples.

No model and no recipe is known here.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import numpy as np

from segdata import packing
from segdata.archives import images, resizing
from segdata.building import slices, stored
from segdata.building.features import Features, Named
from segdata.building.reading import Reader, Stored
from segdata.core import IGNORE_LABEL
from segdata.core.system import parallel

_SIDES = (128, 192, 256, 512, 1024)  # of square images as large as those of a training, in pixels
_SAMPLE = 64  # examples
_MEASURED = 1024  # examples of which sizes alone are read
_COMPARED = 1 << 19  # pixels of an image, at most
_COMMON = 0.01  # of the pixels: a class that counts
_GRID = 8  # cells of a side, in which classes and brightness are compared with their mirror images


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traits:
    """What a dataset's examples are like.

    Attributes:
        examples: How many the split has.
        splits: How many examples each split of the dataset has.
        classes: The name of each class.
        looked_at: How many examples were looked at; all that follows is of these.
        height: Of images, in pixels: the median.
        width: Likewise.
        shares: Of each class its share of all pixels but those with the ignore label.
        without: The share of the examples that hold nothing but class 0.
        best: Side of a square, in pixels, to the Dice score of perfect masks of as many pixels and
            of the images' shape, when they are enlarged to the images' size: of two classes that of
            the second, of more the mean over those of at least 1 % of the pixels.
        one_sided: How much left and right differ in the same way in all examples: of the squared
            difference between an example and its mirror image the share that all have in common,
            from 0 to 1.
        upright: The same of top and bottom.
        oriented: The same of an example and its quarter turn.
    """

    examples: int
    splits: dict[str, int]
    classes: tuple[str, ...]
    looked_at: int
    height: int
    width: int
    shares: tuple[float, ...]
    without: float
    best: dict[int, float]
    one_sided: float
    upright: float
    oriented: float


@dataclasses.dataclass
class _Seen:
    """What is kept of an example."""

    shape: tuple[int, int]
    counts: np.ndarray  # int64 [K], pixels of each class
    overlaps: np.ndarray  # int64 [S, K, 2], true positives; false positives and negatives
    grid: np.ndarray  # float64 [G, G, K + 1], shares of the classes, and the brightness


def measure(
    name: str,
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    **features: Unpack[Named],
) -> Traits:
    """Looks at up to 64 examples of a split, evenly spread over it.

    Args:
        name: A built TFDS dataset.
        split: A TFDS split.
        data_dir: Where it was built; TFDS's default where None.
        **features: As in `segdata.train_batches`.

    Raises:
        ValueError: If it is not built, there is no such split, or no pixel has a class.
        OSError: If an example is damaged.
    """
    builder = packing.built(name, data_dir=data_dir)
    count = packing.examples(builder, split)
    reader = Reader(builder, Features(**features))

    def look(frame: stored.Frame) -> _Seen:
        return _looked_at(reader.read(frame), classes=len(reader.classes))

    seen = _sampled(builder, split, look, most=_SAMPLE)
    counts = np.sum([each.counts for each in seen], axis=0)
    if not counts.any():
        raise ValueError(f"{builder.info.full_name}, {split}: no pixel of {len(seen)} has a class.")
    height, width = (int(side) for side in np.median([each.shape for each in seen], axis=0))
    shares = counts / counts.sum()
    grids = np.stack([each.grid for each in seen])
    return Traits(
        examples=count,
        splits={part: info.num_examples for part, info in builder.info.splits.items()},
        classes=tuple(reader.classes),
        looked_at=len(seen),
        height=height,
        width=width,
        shares=tuple(shares.tolist()),
        without=float(np.mean([not each.counts[1:].any() for each in seen])),
        best=_best(np.sum([each.overlaps for each in seen], axis=0), shares),
        one_sided=_in_common(grids - grids[:, :, ::-1]),
        upright=_in_common(grids - grids[:, ::-1]),
        oriented=_in_common(grids - grids.swapaxes(1, 2)[:, ::-1]),
    )


def sizes(
    name: str,
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    **features: Unpack[Named],
) -> list[tuple[int, int]]:
    """Height and width of up to 1,024 examples, evenly spread over a split; raises as `measure`."""
    builder = packing.built(name, data_dir=data_dir)
    return _sampled(builder, split, Reader(builder, Features(**features)).size, most=_MEASURED)


def _sampled(
    builder: Any, split: str, look: Callable[[stored.Frame], Any], *, most: int
) -> list[Any]:
    """What is seen of examples, evenly spread over a split."""
    count = packing.examples(builder, split)
    parts = slices.absolute(builder.info.splits, split)
    places = [(part, at) for part, first, last in parts for at in range(first, last)]
    taken = [places[i * count // min(count, most)] for i in range(min(count, most))]

    def at(place: tuple[str, int]) -> Any:
        part, number = place
        (frame,) = stored.frames(builder, [(part, number, number + 1)])
        return look(frame)

    return list(parallel.ordered_map(at, taken))


def joined(
    found: Mapping[str, Traits],
    *,
    shares: Mapping[str, float],
    classes: Sequence[str],
    tables: Mapping[str, np.ndarray],
) -> Traits:
    """What the examples of several datasets are like together.

    Args:
        found: By dataset.
        shares: Of each in the examples, relative to each other.
        classes: The names of the joint classes.
        tables: By dataset uint8 [256], its own class ids to the joint ones, or the ignore label.

    Returns:
        Sums and means by share, of heights and widths geometric ones; of `best`, `looked_at` and
        the differences from mirror images that of the dataset that needs most: the smallest of the
        former, the largest of the latter. `splits` are those that all have.
    """
    parts = np.array([float(shares[name]) for name in found])
    parts /= parts.sum()
    every = [*found.values()]
    counts = np.zeros(IGNORE_LABEL + 1)
    for (name, traits), part in zip(found.items(), parts, strict=True):
        np.add.at(counts, tables[name][: len(traits.shares)], part * np.array(traits.shares))
    known = counts[: len(classes)]
    sides = np.exp(parts @ np.log([(each.height, each.width) for each in every]))
    common = set.intersection(*({*each.splits} for each in every))
    return Traits(
        examples=sum(each.examples for each in every),
        splits={split: sum(each.splits[split] for each in every) for split in sorted(common)},
        classes=tuple(classes),
        looked_at=min(each.looked_at for each in every),
        height=round(sides[0]),
        width=round(sides[1]),
        shares=tuple((known / (known.sum() or 1)).tolist()),
        without=float(parts @ [each.without for each in every]),
        best={side: min(each.best[side] for each in every) for side in _SIDES},
        one_sided=max(each.one_sided for each in every),
        upright=max(each.upright for each in every),
        oriented=max(each.oriented for each in every),
    )


def _looked_at(example: Stored, *, classes: int) -> _Seen:
    mask = example.mask
    counts = np.bincount(mask.ravel(), minlength=256)[:classes]
    with images.opened(example.file, name=f"the image of {example.id}") as image:
        seen = images.at_size(image, (_GRID, _GRID)).mean(axis=-1)
    brightness = (seen - seen.mean()) / (seen.std() + 1)  # one grey level, against noise
    small = resizing.mask(mask, (8 * _GRID, 8 * _GRID))  # its cells are whole numbers of pixels
    one_hot = small[..., None] == np.arange(classes)
    shares = one_hot.reshape(_GRID, 8, _GRID, 8, classes).mean(axis=(1, 3))
    return _Seen(
        shape=(mask.shape[0], mask.shape[1]),
        counts=counts,
        overlaps=np.stack([_overlap(mask, side, classes) for side in _SIDES]),
        grid=np.concatenate([shares, brightness[..., None]], axis=-1),
    )


def _resized(height: int, width: int, side: int) -> tuple[float, float]:
    """Height and width of the images' shape, with as many pixels as a square."""
    scale = min(1.0, side / math.sqrt(height * width))
    return height * scale, width * scale


def _overlap(mask: np.ndarray, side: int, classes: int) -> np.ndarray:
    """Of a mask that was reduced and enlarged again, by class: hits, and what is in one only."""
    size = [max(1, round(x)) for x in _resized(mask.shape[0], mask.shape[1], side)]
    reduced = resizing.mask(mask, (size[0], size[1]))
    step = math.ceil(math.sqrt(mask.size / _COMPARED))
    rows, columns = (np.arange(step // 2, full, step) for full in mask.shape)
    from_rows, from_columns = (
        (2 * at + 1) * small // (2 * full)
        for at, small, full in zip((rows, columns), size, mask.shape, strict=True)
    )
    true = mask[rows[:, None], columns]
    found = reduced[from_rows[:, None], from_columns]
    known = true != IGNORE_LABEL
    hits, of_true, of_found = (
        np.bincount(values, minlength=256)[:classes]
        for values in (true[known & (found == true)], true[known], found[known])
    )
    return np.stack([hits, of_true + of_found - 2 * hits], axis=-1)


def _best(overlaps: np.ndarray, shares: np.ndarray) -> dict[int, float]:
    """The Dice score for each side; int64 [S, K, 2] and float64 [K]."""
    least = min(_COMMON, float(shares.max()))
    counted = np.arange(2) == 1 if len(shares) == 2 else shares >= least
    hits, wrong = overlaps[:, counted, 0], overlaps[:, counted, 1]
    dice = np.where(hits + wrong, 2 * hits / np.maximum(2 * hits + wrong, 1), 1.0)
    return dict(zip(_SIDES, dice.mean(axis=1).tolist(), strict=True))


def _in_common(differences: np.ndarray) -> float:
    """The share of squared differences, float64 [N, ...], that is in their mean."""
    every = np.square(differences).sum() / len(differences)
    return float(np.square(differences.mean(axis=0)).sum() / every) if every else 0.0

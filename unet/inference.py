"""From images of any size to answers at their own size.

A model that was trained on whole images sees an image as a whole, squashed; one that was trained on
crops sees it in tiles of the same size and at the same scale, as any does that is much larger than
those of the training. Tiles overlap, and what they say is blended. The probability, not the mask,
is enlarged, so that edges stay smooth; and part by part, so that memory does not grow with the
classes. An image that is too large for memory is read and answered in stretches of rows.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from segdata.core import tiles
from unet import metrics
from unet.recipes import Recipe

Ask = Callable[[np.ndarray], np.ndarray]
"""A model as a function: uint8 [B, h, w, C] to float32 [B, h, w, K]."""
Part = tuple[slice, slice, np.ndarray]
"""Rows and columns of an image, and what is said of them: float32 [rows, columns, K]."""


class Pixels(Protocol):
    """An image, uint8 [H, W, C]: an array, or what reads rows as they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """H, W and C."""
        ...

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Rows from a first one to a last one, uint8 [n, W, C]."""
        ...


_BILINEAR = Image.Resampling.BILINEAR
_RESIZED = 1 << 16  # pixels that are enlarged at once
_SQUARE = 256  # pixels of a row of these, at least
OVERLAP = 0.25
"""Tiles overlap by this share of their sides."""


class Answer(NamedTuple):
    """What a model says of an image."""

    found: np.ndarray
    """uint8 [H, W], the predicted class; float32 [H, W] of a regression."""

    probability: np.ndarray
    """uint8 [H, W]: of the foreground, or of the predicted class, in 255ths."""


def asked(network: Any, *inputs: np.ndarray) -> Any:
    """What a model says of a batch, as `predict_on_batch`.

    A compiled model is compiled anew for each size of batch, so it only sees powers of two.
    """
    count = len(inputs[0])
    if network.jit_compile:
        wanted = 1 << (count - 1).bit_length()
        inputs = tuple(np.concatenate([x, x[:1].repeat(wanted - count, 0)]) for x in inputs)
    answers = network.predict_on_batch(inputs[0] if len(inputs) == 1 else list(inputs))
    if isinstance(answers, list | tuple):
        return [np.asarray(answer)[:count] for answer in answers]
    return np.asarray(answers)[:count]


def flipped(ask: Ask, recipe: Recipe) -> Ask:
    """The model; with `Recipe.flips` the mean of what it says of all views of an image."""
    if not recipe.flips:
        return ask
    views = recipe.views

    def mean(images: np.ndarray) -> np.ndarray:
        total: Any = 0
        for turn, axes in views:
            given = np.rot90(np.flip(images, axes), turn, (1, 2))
            found = ask(np.ascontiguousarray(given))
            total = total + np.flip(np.rot90(found, -turn, (1, 2)), axes)
        return total / np.float32(len(views))

    return mean


def parts(
    ask: Ask, seen: Pixels, shape: Sequence[int], recipe: Recipe, *, overlap: float = OVERLAP
) -> Iterator[Part]:
    """What a model says of an image, at the image's own size.

    Args:
        ask: The model.
        seen: uint8 [h, w, C], the image at the size of `Recipe.seen`.
        shape: Height and width of the image itself, H and W.
        recipe: What the model was trained by.
        overlap: Tiles overlap by at least this share of their sides.

    Yields:
        Parts that cover the image without overlap, row by row of parts from the top down.
    """
    tiled = _tiled(ask, seen, recipe, overlap)
    is_native = seen.shape[:2] == tuple(shape[:2])
    yield from tiled if is_native else _resized(tiled, seen.shape, shape)


def decided(parts: Iterable[Part], shape: Sequence[int], recipe: Recipe) -> Answer:
    """Decides what `parts` gives.

    Args:
        parts: Of an image.
        shape: Its height and width, H and W.
        recipe: Its threshold and the activation of its model.
    """
    is_number = recipe.is_regression
    found = np.empty(shape[:2], np.float32 if is_number else np.uint8)
    probability = np.zeros(shape[:2], np.uint8)
    for rows, columns, part in parts:
        if is_number:
            found[rows, columns] = part[..., 0]
            continue
        found[rows, columns] = metrics.decide(part, threshold=recipe.threshold)
        probability[rows, columns] = np.round(255 * part.max(axis=-1))
    return Answer(found, probability)


def stretches(
    parts: Iterable[Part], shape: Sequence[int], recipe: Recipe
) -> Iterator[tuple[slice, Answer]]:
    """What `decided` gives, in stretches of whole rows from the top down."""
    for place, several in itertools.groupby(parts, lambda part: (part[0].start, part[0].stop)):
        height = place[1] - place[0]
        moved = ((slice(0, height), columns, part) for _, columns, part in several)
        yield slice(*place), decided(moved, (height, shape[1]), recipe)


def _tiled(ask: Ask, seen: Pixels, recipe: Recipe, overlap: float) -> Iterator[Part]:
    """Asks in tiles, and blends what is said where they overlap; whole rows, from the top down."""
    starts, weights = [], []
    for length, side in zip(seen.shape[:2], recipe.size, strict=False):
        of = tiles.count(length, side, int(side * overlap))
        starts.append(tiles.start(np.arange(of), of, length, side))
        weights.append(tiles.weights(of, length, side))
    tops, lefts = starts
    length, width = seen.shape[:2]
    waiting = _outputs(ask, _cut(seen, tops, lefts, recipe.size), recipe)
    blended, begun = None, 0
    for top, down, end in zip(tops, weights[0], [*tops[1:], length], strict=True):
        high = _inside(top, recipe.size[0], length)
        for left, along in zip(lefts, weights[1], strict=True):
            wide = _inside(left, recipe.size[1], width)
            output = next(waiting)[high.start - top : high.stop - top]
            output = output[:, wide.start - left : wide.stop - left]
            if blended is None:
                blended = np.zeros((recipe.size[0], width, output.shape[-1]), np.float32)
            share = np.outer(down[high.start - top :][: len(output)], along[wide.start - left :])
            target = blended[high.start - begun : high.stop - begun, wide]
            target += share[:, : output.shape[1], None] * output
        assert blended is not None
        end = int(end)
        yield slice(begun, end), slice(0, width), blended[: end - begun]
        rest = blended[end - begun :]
        blended = np.concatenate([rest, np.zeros_like(blended[: end - begun])])
        begun = end


def _inside(first: int, side: int, length: int) -> slice:
    """The part of a tile that is on the axis."""
    return slice(max(int(first), 0), min(int(first) + side, length))


def _cut(
    seen: Pixels, tops: np.ndarray, lefts: np.ndarray, size: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Tiles, row by row; of the image no more rows are read at once than they have."""
    for top in tops:
        rows = _inside(top, size[0], seen.shape[0])
        band = seen[rows]
        for left in lefts:
            yield tiles.cut(band, int(top) - rows.start, int(left), size)


def _outputs(ask: Ask, cut: Iterable[np.ndarray], recipe: Recipe) -> Iterator[np.ndarray]:
    """What is said of tiles, one by one, asked in batches."""
    cut = iter(cut)
    while batch := list(itertools.islice(cut, recipe.batch)):
        yield from ask(np.stack(batch))


def _resized(tiled: Iterator[Part], size: Sequence[int], shape: Sequence[int]) -> Iterator[Part]:
    """Resizes an answer of a height and a width, that comes in whole rows, part by part."""
    height, width = size[:2]
    down, along = height / shape[0], width / shape[1]
    reach = math.ceil(max(down, 1)) + 1  # rows above and below that count
    wide = min(shape[1], max(_SQUARE, _RESIZED // shape[0]))  # square where the image allows
    high = _RESIZED // wide
    held, begun = next(tiled)[2], 0  # the rows that are waited for, and the first of them
    for top in range(0, shape[0], high):
        rows = slice(top, min(top + high, shape[0]))
        first, last = max(int(top * down) - reach, 0), min(rows.stop * down + reach, height)
        held, begun = held[first - begun :], first
        while begun + len(held) < last:
            held = np.concatenate([held, next(tiled)[2]])
        channels = [Image.fromarray(channel) for channel in np.moveaxis(held, -1, 0).copy()]
        least, most = held.min(), held.max()
        for left in range(0, shape[1], wide):
            columns = slice(left, min(left + wide, shape[1]))
            right, bottom = columns.stop * along, rows.stop * down - begun
            box = (left * along, top * down - begun, min(right, width), min(bottom, len(held)))
            tile = (columns.stop - left, rows.stop - top)
            pieces = [np.asarray(c.resize(tile, _BILINEAR, box=box)) for c in channels]
            yield rows, columns, np.clip(np.stack(pieces, -1), least, most)  # against rounding

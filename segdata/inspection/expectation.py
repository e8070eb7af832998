"""How well a mask agrees with what the masks of similar images teach.

Each image is looked at as 32×32 cells. A linear model of place, colour and texture, seen through
random features, is fitted by least squares to the masks of three quarters of the examples and
judges the others. A mask that is inverted, of another image or half finished disagrees with it,
whatever its objects look like. Arrays in and out; no file and no dataset is known here.

Source: Rahimi and Recht, "Weighted Sums of Random Kitchen Sinks", 2008.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image

from segdata.core import IGNORE_LABEL
from segdata.inspection import fit

SHAPE = (32, 32, 5)
"""Cells, down and across an image: red, green, blue, edges, and which part is inside, uint8."""

_CELLS = SHAPE[0]
_UNKNOWN = 255  # for the part of a cell that is inside; else 0 to _WHOLE
_WHOLE = 250
_EDGES = 60  # of a slope of the square root of brightness
_FOLDS = 4
_LEARNED = 128  # examples that a model learns from at most, 2 ms each; judging takes 1 ms
_FEATURES = 256
_AT_ONCE = 16  # examples: 17 MB of features
_RIDGE = 1e-5
_WRONG = 0.6  # separation, below which an example teaches nothing


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How a mask agrees with what is expected.

    Attributes:
        separation: The probability that more is expected of a cell inside than of one outside: near
            0 for an inverted mask.
        overlap: IoU of the mask and the cells of which most is expected, as many as fit best.
    """

    separation: float
    overlap: float


def cells(image: Image.Image, mask: np.ndarray) -> np.ndarray:
    """What is kept of an example: uint8 [32, 32, 5].

    Args:
        image: 8-bit RGB, as `fit.reduced` makes it.
        mask: uint8 [H, W], 0 outside, 255 the ignore label, anything else inside.
    """
    slope = fit.slope(np.sqrt(np.asarray(image.convert("L")), dtype=np.float32))
    known = mask != IGNORE_LABEL
    edges, labelled, inside = (
        _resized(Image.fromarray(each.astype(np.uint8)))
        for each in (np.minimum(_EDGES * slope, 255), 255 * known, 255 * (known & (mask != 0)))
    )
    part = np.rint(inside / np.maximum(labelled, 1.0) * _WHOLE)
    part = np.where(labelled > 127, np.minimum(part, _WHOLE), _UNKNOWN)
    return np.dstack([_resized(image), edges, part.astype(np.uint8)])


def agreements(kept: np.ndarray, *, indices: Sequence[int]) -> list[Agreement]:
    """How the masks of similar examples agree with what the others teach.

    Args:
        kept: uint8 [N, 32, 32, 5]; read 16 at a time.
        indices: Which of them are similar: 4 or more, each with an inside and an outside.

    Returns:
        One of each index, in order.
    """
    index = np.asarray(indices)
    step = -(-len(index) // _LEARNED)
    fold = np.arange(len(index)) // step % _FOLDS
    taught = np.arange(0, len(index), step)
    sums = _sums(kept, index[taught], fold[taught])
    found = _judged(kept, index, fold, sums)
    wrong = taught[found[taught, 0] < _WRONG]
    if len(wrong):
        sums -= _sums(kept, index[wrong], fold[wrong])
        found = _judged(kept, index, fold, sums)
    return [Agreement(*each) for each in found.tolist()]


def _resized(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((_CELLS, _CELLS), Image.Resampling.BOX))


def _sums(kept: np.ndarray, index: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """The normal equations of each fold, float64 [folds, features, features + 1]."""
    sums = np.zeros((_FOLDS, _FEATURES, _FEATURES + 1))
    chosen = np.indices((_CELLS, _CELLS)).sum(axis=0) % 2 == 0  # every other: neighbours are alike
    for at in range(0, len(index), _AT_ONCE):
        some = kept[index[at : at + _AT_ONCE]]
        known = (some[..., 4] != _UNKNOWN) & chosen
        for features, part, mine, number in zip(
            _features(some), _part(some), known, fold[at : at + _AT_ONCE], strict=True
        ):
            mine = np.flatnonzero(mine)
            taken = features[mine]
            sums[number, :, :-1] += taken.T @ taken
            sums[number, :, -1] += taken.T @ part[mine]
    return sums


def _judged(kept: np.ndarray, index: np.ndarray, fold: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Separation and overlap of each, by the model of the other folds: float [N, 2]."""
    models = np.stack([_solved(sums.sum(axis=0) - each) for each in sums]).astype(np.float32)
    found = np.empty((len(index), 2))
    for at in range(0, len(index), _AT_ONCE):
        some = kept[index[at : at + _AT_ONCE]]
        known = some[..., 4].reshape(len(some), -1) != _UNKNOWN
        expected = _features(some) @ models[fold[at : at + _AT_ONCE]][..., None]
        order = np.argsort(-expected[..., 0], axis=1, kind="stable")
        inside, outside = (
            np.take_along_axis(each * known, order, axis=1)
            for each in (_part(some), 1 - _part(some))
        )
        hit, miss = inside.cumsum(axis=1), outside.cumsum(axis=1)
        whole, rest = hit[:, -1:], miss[:, -1:]
        below = (inside * (rest - miss + outside / 2)).sum(axis=1)
        found[at : at + _AT_ONCE, 0] = below / np.maximum(whole * rest, 1e-9)[:, 0]
        found[at : at + _AT_ONCE, 1] = (hit / np.maximum(whole + miss, 1e-9)).max(axis=1)
    return found


def _solved(equations: np.ndarray) -> np.ndarray:
    normal, target = equations[:, :-1], equations[:, -1]
    ridge = _RIDGE * max(np.trace(normal), 1e-9) / len(normal)
    return np.linalg.solve(normal + ridge * np.eye(len(normal)), target)


def _part(kept: np.ndarray) -> np.ndarray:
    """Which part of each cell is inside, float64 [N, cells]."""
    return kept[..., 4].reshape(len(kept), -1) / _WHOLE


def _features(kept: np.ndarray) -> np.ndarray:
    """Random functions of place, colour and texture, float32 [N, cells, features]."""
    colour, edges = kept[..., :3].astype(np.float32), kept[..., 3].astype(np.float32)
    around, edges_around = _blurred(colour), _blurred(edges[..., None])
    colour, around = _opponent(colour), _opponent(around)
    border = np.ones((_CELLS, _CELLS), bool)
    border[2:-2, 2:-2] = False
    unlike = colour - np.median(colour[:, border], axis=1)[:, None, None]
    distance = np.sqrt((unlike * unlike).sum(axis=-1, keepdims=True))
    place = np.linspace(-1, 1, _CELLS, dtype=np.float32)
    row, column = (
        np.broadcast_to(each, distance.shape) for each in (place[:, None, None], place[:, None])
    )
    values = [np.ones_like(distance), row, column, colour, unlike]
    values += [around[..., :1] - colour[..., :1], around[..., 1:]]
    values += [np.sqrt(each) / 8 - 1 for each in (edges[..., None], edges_around)]
    values += [distance, _blurred(distance)]
    seen = np.concatenate(values, axis=-1).clip(-2, 2).reshape(len(kept), _CELLS**2, -1)
    features = seen @ _directions(seen.shape[-1])
    return np.maximum(features, 0, out=features)


def _directions(values: int) -> np.ndarray:
    """Those of the random features, float32 [values, features]; the first is of the constant."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((values, _FEATURES))
    directions[0] = rng.uniform(-2, 2, _FEATURES)
    return directions.astype(np.float32)


def _opponent(colour: np.ndarray) -> np.ndarray:
    """Lightness, red less green and blue less green of RGB [..., 3], each from -1 to 1 or so."""
    root = np.sqrt(colour) / 8 - 1
    differences = 4 * (root[..., [0, 2]] - root[..., 1:2])
    return np.concatenate([root.mean(axis=-1, keepdims=True), differences], axis=-1)


def _blurred(values: np.ndarray) -> np.ndarray:
    """The mean of 5×5 cells, of those that there are: [N, 32, 32, K]."""
    near = np.abs(np.subtract.outer(np.arange(_CELLS), np.arange(_CELLS))) <= 2
    weights = (near / near.sum(axis=1, keepdims=True)).astype(np.float32)
    return np.einsum("ab,nbcv,dc->nadv", weights, values, weights, optimize=True)

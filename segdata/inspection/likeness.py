"""Near duplicates across splits: candidates by their hashes, then pixels.

A 63-bit hash says that different cars in one view are alike. So what it finds is compared pixel by
pixel: one thumbnail is laid on the other, cut and mirrored as it may have been, and what is left is
measured beside the local contrast. Where two groups of several examples are known, such as two
cars, one pair of photos that look alike does not make them one: half of the smaller group must.
Arrays in and out; no file and no dataset is known here.
"""

import collections
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

from segdata.building import splits

SIDE = 64
"""Pixels, of a thumbnail."""

SURE = 0.006
"""What is left between two thumbnails that are of one photo, whatever their groups.

The mean over 49 blocks of the squared difference, as a share of the block's contrast. Two synthetic
cars of one paint and build come down to 0.011; most photos that were encoded again, mirrored or
halved stay below.
"""

GROUPED = 0.0125
"""The same where half of the smaller of two known groups must agree. Of 318 synthetic cars of 16
views, two different ones agree in 2 views at most, and no pair of photos comes below 0.0103; a car
and its copy, encoded again, halved, mirrored or cut by 5 %, agree in 15 or 16."""

ALIKE = 0.026
"""The same of an example that is a group of its own. Of 261 real nuclei and 80 synthetic streets,
encoded again as JPEG 50, halved, mirrored or cut by 5 % on one side or on each, all but one JPEG of
a nearly black image stay below 0.0259."""

_COARSE = 0.055
"""What is left at half the size, above which a pair is not compared at the whole: that takes four
times as long. Of copies that are `ALIKE`, 0.051 at most is left; of a hundred pairs of different
cars in one view, 95 have more."""

_MOST = 64  # candidates of an example, the nearest; so that memory is bounded
_BLOCK = 256  # pairs compared at once: 30 MB
_CUTS = ((0.0, 1.0), (0.0, 0.95), (0.025, 0.975), (0.05, 1.0), (0.05, 0.95))
# Rows and columns of a window: nothing, 5 % cut off on one side, in nine places, on each side.
_WINDOWS = (
    (_CUTS[0], _CUTS[0]),
    *((_CUTS[0], columns) for columns in _CUTS[1:4:2]),
    *((rows, _CUTS[0]) for rows in _CUTS[1:4:2]),
    *((rows, columns) for rows in _CUTS[1:4] for columns in _CUTS[1:4]),
    (_CUTS[4], _CUTS[4]),
)
_TERMS, _BITS, _BANDS = 8, 63, splits.NEAR + 1
_MARGIN = 16  # the part of a side that is not compared along each border


def thumbnail(image: Image.Image) -> np.ndarray:
    """The thumbnail of an 8-bit RGB image, uint8 [64, 64]."""
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX).convert("L"))


def across(
    thumbnails: np.ndarray,
    *,
    groups: Sequence[Hashable],
    parts: Sequence[Hashable],
    shown: Sequence[int] | None = None,
) -> list[list[int]]:
    """Finds near duplicates in different splits, of different groups.

    Args:
        thumbnails: uint8 [N, 64, 64].
        groups: The group of each.
        parts: The split of each.
        shown: The indices of those to compare, such as all that are not blank; all where None.

    Returns:
        Sets of indices, the largest first; the members of a set are connected by pairs of near
        duplicates. Of an example, the 64 nearest candidates are compared.
    """
    group, part = (_numbered(names) for names in (groups, parts))
    if len(set(part.tolist())) < 2:
        return []
    first, second, window = _candidates(thumbnails, group=group, part=part)
    if shown is not None:
        both = np.isin(first, shown) & np.isin(second, shown)
        first, second, window = first[both], second[both], window[both]
    left = _compared(thumbnails, first, second, window)
    sizes = np.bincount(group)
    alone = np.minimum(sizes[group[first]], sizes[group[second]]) == 1
    alike = left <= np.where(alone, ALIKE, GROUPED)
    agreed = (left <= SURE) | (left <= ALIKE) & _agreeing(first, second, alike, group)
    return _connected(zip(first[agreed].tolist(), second[agreed].tolist(), strict=True))


def _agreeing(
    first: np.ndarray, second: np.ndarray, alike: np.ndarray, group: np.ndarray
) -> np.ndarray:
    """Of which pairs half of the smaller group is like one of the other group, bool [P]."""
    sizes = np.bincount(group)
    members = collections.defaultdict[tuple[int, int], set[int]](set)
    for a, b in zip(first[alike].tolist(), second[alike].tolist(), strict=True):
        one, other = int(group[a]), int(group[b])
        members[one, other].add(a)
        members[other, one].add(b)

    def enough(a: int, b: int) -> bool:
        smaller, other = sorted((int(group[a]), int(group[b])), key=lambda g: (sizes[g], g))
        return 2 * len(members[smaller, other]) >= sizes[smaller]

    return np.array(
        [enough(a, b) for a, b in zip(first.tolist(), second.tolist(), strict=True)], bool
    )


def _numbered(names: Sequence[Hashable]) -> np.ndarray:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def _candidates(
    thumbnails: np.ndarray, *, group: np.ndarray, part: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs whose hashes are near: first, second, and the window of the first, int64 [P] each.

    Two hashes that differ in at most 6 bits agree in one of 7 bands of 9 bits.
    """
    hashes = np.concatenate(
        [_hashes(thumbnails[at : at + 4096]) for at in range(0, len(thumbnails), 4096)]
    )
    count, windows = hashes.shape
    width = -(-_BITS // _BANDS)
    asked, plain = hashes.ravel(), hashes[:, 0]
    found = np.empty((0, 3), np.int64)  # bits apart, first · windows + window, second
    for band in range(_BANDS):
        shift, low = np.uint64(band * width), np.uint64((1 << width) - 1)
        questions, targets = asked >> shift & low, plain >> shift & low
        by_question, by_target = np.argsort(questions, kind="stable"), np.argsort(targets)
        values = np.unique(targets)
        for value in values:
            here = by_target[slice(*np.searchsorted(targets[by_target], [value, value + 1]))]
            ask = by_question[slice(*np.searchsorted(questions[by_question], [value, value + 1]))]
            step = max(1, (1 << 21) // len(here))
            for at in range(0, len(ask), step):
                some = ask[at : at + step]
                apart = np.bitwise_count(asked[some, None] ^ plain[here])
                one = some // windows
                near = (apart <= splits.NEAR) & (part[one, None] != part[here])
                rows, columns = np.nonzero(near & (group[one, None] != group[here]))
                more = [apart[rows, columns], some[rows], here[columns]]
                found = np.concatenate([found, np.stack(more, axis=1).astype(np.int64)])
            if len(found) > _MOST * count:
                found = _nearest(found, windows)
    found = _nearest(found, windows)
    return found[:, 1] // windows, found[:, 2], found[:, 1] % windows


def _nearest(found: np.ndarray, windows: int) -> np.ndarray:
    """Of each pair the window with the fewest bits apart, and of each first the nearest pairs."""
    found = found[np.lexsort((found[:, 1], found[:, 0]))]
    pairs = np.stack([found[:, 1] // windows, found[:, 2]], axis=1)
    found = found[np.sort(np.unique(pairs, axis=0, return_index=True)[1])]
    found = found[np.argsort(found[:, 1] // windows, kind="stable")]
    first = found[:, 1] // windows
    rank = np.arange(len(first)) - np.searchsorted(first, first)
    return found[rank < _MOST]


def _hashes(thumbnails: np.ndarray) -> np.ndarray:
    """The hash of each in each window and mirrored: uint64 [N, 30], that of the whole first.

    As `splits.look` hashes; a window is resampled in the thumbnail, and mirrored its odd columns of
    frequencies change their sign.
    """
    half = SIDE // 2
    small = thumbnails.reshape(-1, half, 2, half, 2).mean(axis=(2, 4), dtype=np.float32)
    basis = np.cos(np.pi / half * np.outer(np.arange(_TERMS), np.arange(half) + 0.5))
    rows, columns = (
        np.stack([basis @ _resampling(np.array([w[axis]]), half)[0] for w in _WINDOWS])
        for axis in (0, 1)
    )
    terms = rows @ np.sqrt(small)[:, None] @ columns.transpose(0, 2, 1)  # [N, windows, 8, 8]
    mirrored = terms * np.where(np.arange(_TERMS) % 2, -1, 1)
    values = np.concatenate([terms, mirrored], axis=1).reshape(len(small), -1, _TERMS**2)[..., 1:]
    bits = values > np.median(values, axis=-1, keepdims=True)
    packed = np.packbits(np.insert(bits, 0, False, axis=-1), axis=-1)
    return packed.view(">u8")[..., 0].astype(np.uint64)


def _compared(
    thumbnails: np.ndarray, first: np.ndarray, second: np.ndarray, window: np.ndarray
) -> np.ndarray:
    """What is left of each pair when one is laid on the other, float [P]."""
    left = np.full(len(first), np.inf)
    windows = np.array([[*rows, *columns] for rows, columns in _WINDOWS])
    for at in range(0, len(first), _BLOCK):
        here = np.arange(at, min(at + _BLOCK, len(first)))
        one, other = (thumbnails[index[here]].astype(np.float32) for index in (first, second))
        mirrored, number = np.divmod(window[here], len(_WINDOWS))
        flip, edges = mirrored == 1, windows[number]
        one = np.where(flip[:, None, None], one[:, :, ::-1], one)
        edges[flip, 2:] = 1 - edges[flip][:, [3, 2]]
        near = np.flatnonzero(_least(_halved(one), _halved(other), edges) <= _COARSE)
        if len(near):
            left[here[near]] = _least(one[near], other[near], edges[near])
    return left


def _least(one: np.ndarray, other: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """What is left between `other` and the window of `one` most like it, float [P].

    Both are blurred: objects of few pixels differ where they are sampled at other places.
    """
    one, other = (ndimage.gaussian_filter(each, (0, 0.8, 0.8)) for each in (one, other))
    return _left(one, other, _registered(one, other, edges))


def _halved(pixels: np.ndarray) -> np.ndarray:
    count, height, width = pixels.shape
    return pixels.reshape(count, height // 2, 2, width // 2, 2).mean(axis=(2, 4))


def _inner(pixels: np.ndarray) -> np.ndarray:
    """Pictures [P, S, S] without their border."""
    margin = pixels.shape[1] // _MARGIN
    return pixels[:, margin:-margin, margin:-margin]


def _registered(one: np.ndarray, other: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The window of each `one` that is most like `other`, near a given one, float [P, 4].

    Windows are lower and upper edge of rows and columns, as shares. Three steps of Gauss-Newton
    find edges and brightness together.
    """
    side = one.shape[1]
    u = (np.arange(side, dtype=np.float32) + 0.5) / side
    target = _inner(other).reshape(len(other), -1, 1)
    target = target - target.mean(axis=1, keepdims=True)
    for _ in range(3):
        now = _windowed(one, edges)
        down, right = (side * each for each in np.gradient(now, axis=(1, 2)))
        terms = [now, down * (1 - u)[:, None], down * u[:, None], right * (1 - u), right * u]
        terms = np.stack([_inner(each).reshape(len(one), -1) for each in terms], axis=-1)
        terms -= terms.mean(axis=1, keepdims=True)
        turned = terms.transpose(0, 2, 1)
        normal = turned @ terms + 1e-2 * np.eye(5, dtype=np.float32)
        solved = np.linalg.solve(normal, turned @ target)[..., 0]
        sides = np.repeat(edges[:, 1::2] - edges[:, ::2], 2, axis=1)
        steps = sides * solved[:, 1:] / np.maximum(solved[:, :1], 0.2)
        edges = np.clip(edges + np.clip(steps, -0.04, 0.04), -0.03, 1.03)
    return edges


def _left(one: np.ndarray, other: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The squared difference beside the contrast, in the mean of 49 blocks, float [P]."""
    now, other = _blocks(_windowed(one, edges)), _blocks(other)
    both = [each - each.mean(axis=(1, 2), keepdims=True) for each in (now, other)]
    gain = (both[0] * both[1]).sum(axis=(1, 2)) / ((both[0] ** 2).sum(axis=(1, 2)) + 1e-6)
    now, other = (each - each.mean(axis=2, keepdims=True) for each in (now, other))
    now *= gain[:, None, None]
    contrast = np.maximum((now**2).mean(axis=2), (other**2).mean(axis=2))
    share = ((other - now) ** 2).mean(axis=2) / (contrast + 4)  # 2 grey levels are noise
    weight = np.sqrt(contrast) / (np.sqrt(contrast) + 2)
    return (share * weight).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-6)


def _blocks(pixels: np.ndarray) -> np.ndarray:
    """Pictures [P, S, S] as blocks of S/8 × S/8 pixels, without the border: [P, 49, S²/64]."""
    side = pixels.shape[1] // 8
    cut = _inner(pixels).reshape(len(pixels), 7, side, 7, side)
    return cut.transpose(0, 1, 3, 2, 4).reshape(len(pixels), 49, side * side)


def _windowed(pixels: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Windows of pictures [P, S, S], as large as they: [P, S, S]."""
    side = pixels.shape[1]
    rows, columns = _resampling(edges[:, :2], side), _resampling(edges[:, 2:], side)
    return rows @ pixels @ columns.transpose(0, 2, 1)


def _resampling(edges: np.ndarray, side: int) -> np.ndarray:
    """Matrices that take a window [P, 2] of an axis: float32 [P, side, side], bicubic."""
    shares = (np.arange(side) + 0.5) / side
    centres = side * (edges[:, :1] + (edges[:, 1:] - edges[:, :1]) * shares) - 0.5
    far = np.abs(centres[..., None] - np.arange(side)).astype(np.float32)
    near = (1.5 * far - 2.5) * far**2 + 1
    beyond = ((-0.5 * far + 2.5) * far - 4) * far + 2
    weights = np.where(far < 1, near, np.where(far < 2, beyond, 0))
    return weights / weights.sum(axis=-1, keepdims=True)


def _connected(pairs: Iterator[tuple[int, int]]) -> list[list[int]]:
    """The sets that pairs connect, the largest first."""
    sets: dict[int, list[int]] = {}
    for pair in pairs:
        one, other = (sets.setdefault(index, [index]) for index in pair)
        if one is not other:
            one += other
            sets |= dict.fromkeys(other, one)
    unique = {id(found): sorted(found) for found in sets.values()}
    return sorted(unique.values(), key=lambda found: (-len(found), found))

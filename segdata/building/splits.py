"""Splits and folds by group, stratified.

Groups of near duplicates are found by a perceptual hash, strata by colour and brightness; whole
groups of each stratum are assigned to the splits by the hash of their names. Only two small values
of an image are kept. No file, no format and no dataset is known here.
"""

import collections
import dataclasses
import fractions
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np
from PIL import Image

Split = Literal["train", "validation"]
T = TypeVar("T")

# Of 261 real images of nuclei, two different ones are 14 bits apart or more (a difference hash puts
# sparse, nearly black ones within 3). Brightness, gamma, JPEG, half the size or two pixels' shift
# move an image by 6 bits or less in 99 % of all cases.
NEAR = 6

_SIDE, _TERMS, _BITS = 32, 8, 63
_BASIS = np.cos(np.pi / _SIDE * np.outer(np.arange(_TERMS), np.arange(_SIDE) + 0.5))


@dataclasses.dataclass(frozen=True)
class Look:
    """Hash and stratum of an image.

    Attributes:
        hash: 63 bits; near duplicates differ in few.
        stratum: "grey" or "colour", and "dark" or "bright" background, such as "grey dark".
    """

    hash: int
    stratum: str


def look(image: Image.Image) -> Look:
    """Computes the hash and the stratum of an image.

    A bit of the hash is set where one of the lowest 63 frequencies of a 32×32 thumbnail is above
    their median. Half of them always are, so nearly black images differ too; the square root
    brightens dim images.

    Args:
        image: 8-bit RGB, of any size.

    Source: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010.
    """
    thumbnail = image.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    grey = np.asarray(thumbnail.convert("L"), np.float64)
    colour = np.ptp(np.asarray(thumbnail, np.int16), axis=-1).mean() > 8
    bright = np.median(grey) > 96
    terms = (_BASIS @ np.sqrt(grey) @ _BASIS.T).ravel()[1:].round(6)  # without the mean
    bits = terms > np.median(terms)
    return Look(
        hash=int.from_bytes(np.packbits(bits).tobytes()) >> (64 - _BITS),
        stratum=f"{'colour' if colour else 'grey'} {'bright' if bright else 'dark'}",
    )


def near_duplicates(hashes: Mapping[str, int], *, distance: int = NEAR) -> dict[str, str]:
    """Groups examples whose hashes are near, and what is near to those.

    Two hashes that differ in at most d bits agree in one of d + 1 bands of bits, so only examples
    that share a band are compared: for the default, each with 1.4 % of all.

    Args:
        hashes: Example id to hash.
        distance: Bits by which near duplicates may differ at most.

    Returns:
        Example id to group, in the order given; a group is called by the first of its ids in the
        alphabet.
    """
    parents = {key: key for key in sorted(hashes)}

    def root(key: str) -> str:
        while parents[key] != key:
            parents[key] = key = parents[parents[key]]
        return key

    width = math.ceil(_BITS / (distance + 1))
    for band in range(distance + 1):
        buckets = collections.defaultdict[int, list[str]](list)
        for key in parents:
            buckets[hashes[key] >> band * width & ((1 << width) - 1)].append(key)
        for a, b in _near_pairs(buckets.values(), hashes, distance):
            first, second = sorted((root(a), root(b)))
            parents[second] = first
    return {key: root(key) for key in hashes}


def assign(
    groups: Mapping[str, str], *, strata: Mapping[str, str], share: float = 0.1
) -> dict[str, Split]:
    """Assigns whole groups to training and validation, with the same share in every stratum.

    Of each stratum, the validation examples are nearer to the share than those of any other choice
    of whole groups, or as near. So they miss it by half of the largest group at most, unless one
    group more or less would leave a split empty; groups of one example miss it by half an example.
    Which groups they are follows from the SHA-256 of their names: the first in that order that
    make up the number. A stratum of two groups or more is in both splits, one of a single group in
    training alone.

    Args:
        groups: Example id to group.
        strata: Example id to stratum; a group is of the stratum of its first id in the alphabet.
        share: Of each stratum's examples that go to validation, between 0 and 1.

    Returns:
        Example id to split, in the order given. It depends on no order and no chance.

    Raises:
        ValueError: If the share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share}: it must lie between 0 and 1, such as 0.1.")
    sizes = collections.Counter(groups.values())
    stratum_of = {groups[key]: strata[key] for key in sorted(groups, reverse=True)}
    by_stratum = collections.defaultdict[str, list[str]](list)
    for group in sorted(sizes, key=_digest):
        by_stratum[stratum_of[group]].append(group)
    chosen = set[str]()
    for members in by_stratum.values():
        picked = _nearest([sizes[group] for group in members], share)
        chosen.update(members[index] for index in picked)
    return {key: "validation" if group in chosen else "train" for key, group in groups.items()}


def folds(groups: Sequence[str], *, strata: Sequence[str], count: int) -> np.ndarray:
    """Deals whole groups out to folds of nearly the same size, stratum by stratum.

    Of each stratum, the first groups in the order of the SHA-256 of their names that make up its
    n-th part are of fold 0, those of the rest that make up the next part of fold 1, and so on.
    So folds of groups of one size differ by one group. One more group moves at most one other
    out of each fold where groups are single examples of one stratum; elsewhere up to three out
    of each fold of a stratum, in 12,000 random sets of equal groups in up to 8 strata. Of
    unequal groups each part is made up as nearly as those that are left allow, and no fold is
    empty.

    Args:
        groups: The group of each example.
        strata: The stratum of each; a group is of the first of its strata in the alphabet.
        count: How many folds, n.

    Returns:
        The fold of each example, int64 [N], from 0 to n-1. It depends on no order and no chance.

    Raises:
        ValueError: If there are fewer groups than folds, or fewer folds than two.
    """
    sizes = collections.Counter(groups)
    if not 2 <= count <= len(sizes):
        few = " This one group cannot be divided." if len(sizes) == 1 else ""
        raise ValueError(
            f"{count} folds of {len(sizes):,} groups: each fold has whole groups, so there are "
            f"from 2 to as many as groups.{few}"
        )
    stratum_of = dict(sorted(zip(groups, strata, strict=True), reverse=True))
    by_stratum = collections.defaultdict[str, list[str]](list)
    for group in sorted(sizes, key=_digest):
        by_stratum[stratum_of[group]].append(group)
    totals, fold_of = [0] * count, dict[str, int]()
    large_first = sorted(
        by_stratum.items(), key=lambda item: (-sum(map(sizes.__getitem__, item[1])), item[0])
    )
    for _, members in large_first:  # the small ones even out the rest
        for fold, part in enumerate(_parts([sizes[group] for group in members], totals)):
            fold_of |= {members[index]: fold for index in part}
            totals[fold] += sum(sizes[members[index]] for index in part)
    return np.array([fold_of[group] for group in groups], np.int64)


def sort_by_group(examples: Iterable[T], group: Callable[[T], str]) -> list[T]:
    """Sorts examples by the SHA-256 of their group's name.

    So a group is contiguous, and any contiguous part of the examples is a random sample of the
    groups. Within a group the given order stays.

    Args:
        examples: In any order.
        group: Names the group of one.
    """
    return sorted(examples, key=lambda example: _digest(group(example)))


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _near_pairs(
    buckets: Iterable[Sequence[str]], hashes: Mapping[str, int], distance: int
) -> Iterator[tuple[str, str]]:
    """Pairs that connect the near hashes of each bucket, one pair fewer than there are hashes.

    Views of one scene are all near to each other; naming every pair of 100,000 would take hours.
    """
    for keys in buckets:
        looks = np.array([hashes[key] for key in keys], np.uint64)
        rest = np.arange(len(keys))
        while len(rest) > 1:
            reached, rest = [int(rest[0])], rest[1:]
            while reached:
                here = reached.pop()
                near = np.bitwise_count(looks[rest] ^ looks[here]) <= distance
                found: list[int] = rest[near].tolist()
                yield from ((keys[here], keys[there]) for there in found)
                reached += found
                rest = rest[~near]


def _parts(sizes: Sequence[int], totals: Sequence[int]) -> list[list[int]]:
    """The indices of the groups of a stratum for each fold, given how large the folds are."""
    count = len(totals)
    emptiest = sorted(range(count), key=lambda fold: (totals[fold], fold))
    parts: list[list[int]] = [[] for _ in totals]
    if len(sizes) <= count:
        large_first = sorted(range(len(sizes)), key=lambda index: -sizes[index])
        for fold, index in zip(emptiest, large_first, strict=False):
            parts[fold] = [index]
        return parts
    unit = math.gcd(*sizes) if any(totals) else 1  # folds of one stratum are those of old runs
    base, more = divmod(sum(sizes) // unit, count)
    most = max(sizes) // unit // 2  # of what is uneven already; else it would add up over strata
    missing = [(sum(totals) // count - total) // unit for total in totals]
    wanted = [
        max(1, base + (fold in emptiest[:more]) + min(most, max(-most, missing[fold])))
        for fold in range(count)
    ]
    left = list(range(len(sizes)))
    for fold in range(count - 1):
        share = fractions.Fraction(wanted[fold], sum(wanted[fold:]))
        picked = sorted(_nearest([sizes[index] for index in left], share))
        picked = picked[: len(left) - (count - 1 - fold)]  # a group at least for each of the others
        parts[fold] = [left[place] for place in picked]
        gone = set(parts[fold])
        left = [index for index in left if index not in gone]
    parts[-1] = left
    return parts


def _nearest(sizes: Sequence[int], share: float | fractions.Fraction) -> list[int]:
    """The indices of groups, but not of all, whose sizes add up to the nearest to a share of all.

    For each sum it is remembered which group made it up first; the groups before that one make up
    the rest of it.
    """
    unit = math.gcd(*sizes)  # sums are multiples of it
    sizes = [size // unit for size in sizes]
    total = sum(sizes)
    exact = share * total
    wanted = min(max(round(exact), 1), total - 1)
    within = (2 << min(max(2 * wanted, *sizes), total - 1)) - 1  # what is above is never nearest
    sums, made_up_by = 1, {}  # a bit for each sum
    for index, size in enumerate(sizes):
        new = (sums << size) & within & ~sums
        sums |= new
        while new:
            largest = new.bit_length() - 1
            made_up_by[largest] = index
            new ^= 1 << largest
        if wanted in made_up_by:
            break
    left = min(
        made_up_by, key=lambda made: (abs(made - exact), abs(made - wanted), made), default=0
    )
    chosen = []
    while left:
        chosen.append(made_up_by[left])
        left -= sizes[chosen[-1]]
    return chosen

"""Counter-based random numbers: splitmix64 of what they are for, and the permutation of an epoch.

A number depends on its key and its slot and on nothing else, so no state is kept and any number can
be had first. The functions of keys are array expressions over `+ - * ^ &` and what `xp` holds, so
that NumPy and a compiler of graphs give the same bits; the permutation is compiled by Numba.

Source: Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014.
"""

from typing import Any

import numba
import numpy as np

from segdata.core.system.compiling import compiled

Array = Any
"""An array of NumPy's, or a tensor of the framework whose functions are passed as `xp`."""

STEP = 0x9E3779B97F4A7C15
_FACTORS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31
# With each round the orders of few examples come nearer to being equally likely, by half: with
# ideal hashes those of two, three and four differ by a millionth after 24.
ROUNDS = 24


def u64(value: int) -> np.uint64:
    """An integer modulo 2⁶⁴."""
    return np.uint64(value % 2**64)


def seeded(value: int) -> np.ndarray:
    """The same as an array, of which NumPy does not warn that it wraps; uint64 [1]."""
    return np.array([u64(value)])


def mix(x: Array, xp: Any = np) -> Array:
    """Permutes 64-bit numbers so that each bit of the result depends on all bits of `x`; uint64."""
    for shift, factor in _FACTORS:
        x = (x ^ xp.right_shift(x, u64(shift))) * u64(factor)
    return x ^ xp.right_shift(x, u64(_LAST_SHIFT))


def key(first: Array, *more: Array, xp: Any = np) -> Array:
    """One uint64 for a tuple of uint64, elementwise; `(1, 2)` and `(2, 1)` differ."""
    hashed = mix(first, xp)
    for value in more:
        hashed = mix(hashed ^ value, xp)
    return hashed


def bits(keys: Array, slot: int, xp: Any = np) -> Array:
    """The slot-th number of each key's own sequence, uint64."""
    return mix(keys + u64((slot + 1) * STEP), xp)


def fraction(keys: Array, slot: int, xp: Any = np) -> Array:
    """The same in [0, 1), as a multiple of 2⁻³¹: int64 in [0, 2³¹)."""
    return xp.astype(xp.right_shift(bits(keys, slot, xp), u64(33)), np.int64)


def permute(keys: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """Where each key's own permutation of the numbers below `count` takes a place.

    A Feistel network over the numbers of as many bits as `count` - 1 has: in turn the even bits are
    changed by a hash of the odd ones, and the odd by the even. What lands at `count` or above goes
    round again until it does not.

    Args:
        keys: uint64 [N].
        places: int64 [N], each in [0, count).
        count: 1 to 2⁶².

    Returns:
        int64 [N] in [0, count); for each key a permutation.

    Source: Black, Rogaway, "Ciphers with Arbitrary Finite Domains", 2002.
    """
    return _permute(keys, places, count, *masks(count))


def masks(count: int) -> tuple[np.uint64, np.uint64]:
    """The even and the odd bits of the numbers below `count`, at least one of each."""
    mask = (1 << max((count - 1).bit_length(), 2)) - 1
    return u64(mask & 0x5555555555555555), u64(mask & 0xAAAAAAAAAAAAAAAA)


@compiled
def _permute(
    keys: np.ndarray, places: np.ndarray, count: int, even: np.uint64, odd: np.uint64
) -> np.ndarray:
    """`permute`, with its masks."""
    out = np.empty(len(places), np.int64)
    numbers, own, left = places.astype(np.uint64), keys.copy(), np.arange(len(places))
    count_left = len(places)
    while count_left:
        turn = np.uint64(0)
        for _ in range(ROUNDS // 2):  # each over all numbers: so a core works on several at once
            turn += np.uint64(STEP)
            for i in range(count_left):
                numbers[i] ^= _mixed((own[i] + turn) ^ (numbers[i] & odd)) & even
            turn += np.uint64(STEP)
            for i in range(count_left):
                numbers[i] ^= _mixed((own[i] + turn) ^ (numbers[i] & even)) & odd
        outside = 0
        for i in range(count_left):
            if numbers[i] < np.uint64(count):
                out[left[i]] = np.int64(numbers[i])
            else:
                numbers[outside], own[outside], left[outside] = numbers[i], own[i], left[i]
                outside += 1
        count_left = outside
    return out


@numba.njit(nogil=True)
def _mixed(x: np.uint64) -> np.uint64:
    """`mix` of one number."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

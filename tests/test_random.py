import itertools
import math

import numpy as np
import pytest

from segdata.core import random


def test_draws_are_splitmix64():
    keys = [1, 2**63, 12345]
    expected = [mix((key + 5 * 0x9E3779B97F4A7C15) % 2**64) >> 33 for key in keys]
    np.testing.assert_array_equal(random.fraction(np.array(keys, np.uint64), 4), expected)
    assert keyed(7, 9) == mix(mix(7) ^ 9)


def keyed(seed, *more):
    """Keys uint64 [N] of a seed and numbers."""
    more = [np.atleast_1d(np.array(number, np.uint64)) for number in more]
    return random.key(random.seeded(seed), *more)


def test_draws_are_uniform_and_uncorrelated():
    keys = keyed(0, np.arange(20_000))
    drawn = np.stack([random.fraction(keys, slot) for slot in range(12)]) / 2**31
    assert drawn.min() >= 0
    assert drawn.max() < 1
    np.testing.assert_allclose(drawn.mean(axis=1), 0.5, atol=0.01)
    np.testing.assert_allclose(drawn.var(axis=1), 1 / 12, atol=0.003)
    assert np.abs(np.corrcoef(drawn) - np.eye(len(drawn))).max() < 0.03


def test_keys_tell_order_and_sign():
    keys = [int(keyed(a, b)[0]) for a, b in ((1, 2), (2, 1), (-1, 2), (2**64 + 1, 3), (0, 0))]
    assert len(set(keys)) == 5


STEP = 0x9E3779B97F4A7C15


def mix(x):
    """splitmix64's, with Python's integers."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ x >> shift) * factor % 2**64
    return x ^ x >> 31


def place_of(key, place, count):
    """A slow permutation, as documented."""
    bits = max(2, (count - 1).bit_length())
    even = sum(1 << bit for bit in range(0, bits, 2))
    odd = (1 << bits) - 1 - even
    while True:
        for turn in range(24):
            known, changed = (odd, even) if turn % 2 == 0 else (even, odd)
            place ^= mix((key + (turn + 1) * STEP) % 2**64 ^ (place & known)) & changed
        if place < count:
            return place


def permuted(keys, places, count):
    """Of the shape of `places`."""
    places = np.array(places, np.int64)
    keys = np.broadcast_to(np.array(keys, np.uint64), places.shape).copy()
    return random.permute(keys.reshape(-1), places.reshape(-1), count).reshape(places.shape)


def test_a_permutation_is_the_documented_one_and_stays_it():
    """The figures are for good: they are the order in which every run has seen its examples."""
    generator = np.random.default_rng(0)
    counts = [1, 2, 3, 4, 5, 7, 16, 17, 1000, 2**20, 2**20 + 1, 2**33 - 5, 2**62 + 1]
    keys = [int(key) for key in generator.integers(0, 2**64, len(counts), np.uint64)]
    places = [int(generator.integers(count)) for count in counts]
    expected = [place_of(k, p, n) for k, p, n in zip(keys, places, counts, strict=True)]
    found = [int(permuted(k, p, n)) for k, p, n in zip(keys, places, counts, strict=True)]
    assert found == expected
    assert permuted(7, np.arange(10), 10).tolist() == [8, 7, 5, 2, 0, 4, 6, 1, 3, 9]


def test_every_count_to_5000_is_permuted():
    for count in range(1, 5001):
        found = permuted(count * STEP % 2**64, np.arange(count), count)
        np.testing.assert_array_equal(np.sort(found), np.arange(count))


@pytest.mark.parametrize("bits", range(13, 21))
@pytest.mark.parametrize("beside", [-1, 0, 1])
def test_powers_of_two_and_their_neighbours_are_permuted(bits, beside):
    count = 2**bits + beside
    found = permuted(bits, np.arange(count), count)
    np.testing.assert_array_equal(np.sort(found), np.arange(count))


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_all_orders_of_few_are_equally_likely(count):
    keys = keyed(5, np.arange(200_000))
    found = permuted(keys[:, None], np.broadcast_to(np.arange(count), (len(keys), count)), count)
    order = (found.astype(int) * count ** np.arange(count)).sum(axis=1)
    kinds, often = np.unique(order, return_counts=True)
    assert len(kinds) == math.factorial(count)
    assert_uniform(often, freedom=len(kinds) - 1)


def assert_uniform(often, *, freedom):
    """By chi-square, within five standard deviations."""
    expected = often.mean()
    deviation = ((often - expected) ** 2 / expected).sum() - freedom
    assert abs(deviation) < 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("count", [6, 23, 64, 100])
def test_each_comes_at_each_place_equally_often(count):
    keys = keyed(0, np.arange(4000))
    found = permuted(keys[:, None], np.broadcast_to(np.arange(count), (len(keys), count)), count)
    table = np.stack([np.bincount(column.astype(int), minlength=count) for column in found.T])
    assert_uniform(table, freedom=(count - 1) ** 2)


@pytest.mark.parametrize("count", [64, 1000, 4097])
def test_neighbouring_places_epochs_and_seeds_are_uncorrelated(count):
    seeds = [keyed(seed, np.arange(8)) for seed in range(8)]
    keys = np.concatenate(seeds)
    found = permuted(keys[:, None], np.broadcast_to(np.arange(count), (len(keys), count)), count)
    found = found.astype(float)
    limit = 5 / np.sqrt(count)  # standard deviations of a correlation
    correlation = np.corrcoef(found) - np.eye(len(keys))
    assert np.abs(correlation).max() < limit
    for lag in (1, 2, 16):
        pairs = [np.corrcoef(row[:-lag], row[lag:])[0, 1] for row in found]
        assert np.abs(pairs).max() < limit
        assert abs(np.mean(pairs)) < limit / np.sqrt(len(keys))


def test_pairs_of_places_are_independent():
    """Where two places go, of 8 at 50,000 keys: each of the 56 pairs as often as any other."""
    keys = keyed(9, np.arange(50_000))
    found = permuted(keys[:, None], np.broadcast_to(np.arange(8), (len(keys), 8)), 8).astype(int)
    for one, other in itertools.combinations(range(8), 2):
        often = np.bincount(found[:, one] * 8 + found[:, other], minlength=64)
        assert_uniform(np.delete(often, np.arange(0, 64, 9)), freedom=55)

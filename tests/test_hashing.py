import numpy as np
import tensorflow as tf

from segdata import hashing


def test_draws_are_splitmix64():
    def mix(x):
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ x >> shift) * factor % 2**64
        return x ^ x >> 31

    keys = [1, 2**63, 12345]
    expected = [(mix((key + 5 * 0x9E3779B97F4A7C15) % 2**64) >> 11) / 2**53 for key in keys]
    np.testing.assert_array_equal(hashing.uniform(tf.constant(keys, tf.uint64), 4), expected)
    assert hashing.key(hashing.u64(7), tf.constant([9])) == mix(mix(7) ^ 9)


def test_draws_are_uniform_and_uncorrelated():
    keys = hashing.key(hashing.u64(0), tf.range(20_000))
    drawn = np.stack([hashing.uniform(keys, slot).numpy() for slot in range(12)])
    assert drawn.min() >= 0
    assert drawn.max() < 1
    np.testing.assert_allclose(drawn.mean(axis=1), 0.5, atol=0.01)
    np.testing.assert_allclose(drawn.var(axis=1), 1 / 12, atol=0.003)
    assert np.abs(np.corrcoef(drawn) - np.eye(len(drawn))).max() < 0.03


def test_keys_tell_order_and_sign():
    keys = [
        int(hashing.key(hashing.u64(a), hashing.u64(b)))
        for a, b in ((1, 2), (2, 1), (-1, 2), (2**64 + 1, 3), (0, 0))
    ]
    assert len(set(keys)) == 5

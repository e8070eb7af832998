"""Random numbers without state: hashed from what they are for.

Tensors in, tensors out; the same on every machine, eagerly and compiled. The hash is the finaliser
of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
"""

import tensorflow as tf

_STEP = 0x9E3779B97F4A7C15


def u64(value: int) -> tf.Tensor:
    """A uint64 scalar; negative and longer integers are taken modulo 2⁶⁴."""
    return tf.constant(value % 2**64, tf.uint64)


def mix(x: tf.Tensor) -> tf.Tensor:
    """Permutes 64-bit numbers so that each bit of the result depends on all bits of `x`; uint64."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ tf.bitwise.right_shift(x, u64(shift))) * u64(factor)
    return x ^ tf.bitwise.right_shift(x, u64(31))


def key(first: tf.Tensor, *more: tf.Tensor) -> tf.Tensor:
    """One uint64 for a tuple of integers, elementwise; `(1, 2)` and `(2, 1)` differ."""
    hashed = mix(tf.cast(first, tf.uint64))
    for value in more:
        hashed = mix(hashed ^ tf.cast(value, tf.uint64))
    return hashed


def bits(keys: tf.Tensor, slot: int) -> tf.Tensor:
    """The slot-th number of each key's own sequence, uint64."""
    return mix(keys + u64((slot + 1) * _STEP))


def uniform(keys: tf.Tensor, slot: int) -> tf.Tensor:
    """The same in [0, 1), float64."""
    return tf.cast(tf.bitwise.right_shift(bits(keys, slot), u64(11)), tf.float64) * 2.0**-53

"""Random numbers without state: hashed from what they are for.

Tensors in, tensors out; the same on every machine, eagerly and compiled. The hash is the finaliser
of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
"""

import tensorflow as tf

_STEP = 0x9E3779B97F4A7C15
# With each round the orders of few examples come nearer to being equally likely, by half: with
# ideal hashes those of two, three and four differ by a millionth after 24.
_ROUNDS = 24
_EVEN, _ODD = 0x5555555555555555, 0xAAAAAAAAAAAAAAAA


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


def permute(keys: tf.Tensor, places: tf.Tensor, *, count: tf.Tensor) -> tf.Tensor:
    """Where a key's own permutation of the numbers below `count` takes some of them.

    A Feistel network over the numbers of as many bits as `count` - 1 has: in turn the even bits are
    changed by a hash of the odd ones, and the odd by the even. What lands at `count` or above goes
    round again until it does not.

    Args:
        keys: uint64, of the shape of `places` or one for all.
        places: Integers in [0, count), of any shape.
        count: uint64, of the shape of `places` or one for all; 1 to 2⁶³.

    Returns:
        uint64 in [0, count), of the shape of `places`; for each key a permutation.

    Source: Black, Rogaway, "Ciphers with Arbitrary Finite Domains", 2002.
    """
    mask = (count - u64(1)) | u64(3)  # at least a bit of each kind
    for shift in (1, 2, 4, 8, 16, 32):  # every bit below the highest one
        mask |= tf.bitwise.right_shift(mask, u64(shift))
    even, odd = mask & u64(_EVEN), mask & u64(_ODD)

    def twice(turn: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        number ^= mix((keys + turn * u64(_STEP)) ^ (number & odd)) & even
        number ^= mix((keys + (turn + u64(1)) * u64(_STEP)) ^ (number & even)) & odd
        return turn + u64(2), number

    def once_more(number: tf.Tensor, outside: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        _, moved = tf.while_loop(lambda turn, _: turn < u64(_ROUNDS), twice, (u64(1), number))
        number = tf.where(outside, moved, number)
        return number, number >= count

    start = tf.cast(places, tf.uint64)
    number, _ = tf.while_loop(
        lambda _, outside: tf.reduce_any(outside),
        once_more,
        (start, tf.ones_like(start, tf.bool)),
    )
    return number

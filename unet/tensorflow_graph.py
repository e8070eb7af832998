"""A network as a function of TensorFlow, from its own layers, whatever Keras's backend is.

All is float32; a SavedModel and a LiteRT file are made of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def module(network: Any, *, shape: Sequence[int | None], threshold: float | None) -> Any:
    """A `tf.Module` whose `answer` is a network, traced for one signature.

    Args:
        network: A Keras model from uint8 [B, H, W, 3] to float32 [B, H, W, C].
        shape: Of the input, B, H, W and 3; None for any.
        threshold: A pixel of one channel is foreground above it; None where no mask is wanted.

    Raises:
        ValueError: If it has a layer or an activation that is not known here.
    """
    made: Any = tf.Module(name=network.name)
    made.weights = {}  # as variables, so that a graph refers to them and does not repeat them

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8, name="image")])
    def answer(image):
        written = functools.partial(_written, made.weights)
        found = network._run_through_graph(image, operation_fn=written)
        if threshold is None:
            return {"values": found}
        is_one = found.shape[-1] == 1
        mask = found[..., 0] > threshold if is_one else tf.argmax(found, axis=-1)
        return {"mask": tf.cast(mask, tf.uint8), "probability": found}

    for layer in network.layers:
        made.weights[layer.name] = [tf.Variable(_array(value)) for value in layer.weights]
    made.answer = answer
    answer.get_concrete_function()
    return made


def _written(weights: dict[str, list[Any]], layer: Any) -> Callable[..., Any]:
    kind = type(layer).__name__
    if kind not in _KINDS:
        raise ValueError(f"a layer {kind} cannot be exported yet.")
    return functools.partial(_KINDS[kind], layer, weights.get(layer.name, []))


def _cast(layer: Any, weights: Any, features):
    return tf.cast(features, tf.float32)


def _mean(layer: Any, weights: Any, features):
    if not layer.keepdims:
        raise ValueError("a mean that drops axes is not known.")
    # Axis by axis: in LiteRT a sum of all pixels at once loses digits, and dim images show it.
    for axis in sorted(layer.axis)[::-1]:
        features = tf.reduce_mean(features, axis, keepdims=True)
    return features


def _std(layer: Any, weights: Any, features):
    return tf.sqrt(_mean(layer, weights, tf.square(features - _mean(layer, weights, features))))


def _part(layer: Any, weights: Any, features, places):
    return features[places]


def _padded(layer: Any, weights: Any, features, **_):
    return tf.pad(features, layer.pad_width, layer.mode)


def _cropped(layer: Any, weights: Any, features):
    (top, bottom), (left, right) = layer.cropping
    return features[:, top : -bottom or None, left : -right or None]


def _concatenate(layer: Any, weights: Any, several):
    return tf.concat(several, layer.axis)


def _convolution(layer: Any, weights: Any, features):
    kernel, bias = weights
    found = tf.nn.conv2d(features, kernel, layer.strides, layer.padding.upper())
    return _activated(layer, weights, tf.nn.bias_add(found, bias))


def _transposed(layer: Any, weights: Any, features):
    if layer.padding != "same":
        raise ValueError(f"a transposed convolution with padding {layer.padding} is not known.")
    kernel, bias = weights
    count = features.shape[0] or tf.shape(features)[0]
    shape = [count, *_sides(features, layer.strides), kernel.shape[2]]
    found = tf.nn.conv2d_transpose(features, kernel, shape, layer.strides, "SAME")
    return _activated(layer, weights, tf.nn.bias_add(found, bias))


def _normalised(layer: Any, weights: Any, features, mask=None):
    gamma, beta, mean, variance = weights
    return tf.nn.batch_normalization(features, mean, variance, beta, gamma, layer.epsilon)


def _pooled(layer: Any, weights: Any, features):
    return tf.nn.max_pool2d(features, layer.pool_size, layer.strides, layer.padding.upper())


def _enlarged(layer: Any, weights: Any, features):
    if layer.interpolation != "nearest":
        raise ValueError(f"upsampling by {layer.interpolation} is not known.")
    return tf.image.resize(features, _sides(features, layer.size), "nearest")


def _sides(features, times: Sequence[int]) -> list[Any]:
    """Height and width, so many times; numbers where they are known."""
    known, traced = features.shape, tf.shape(features)
    return [(known[axis] or traced[axis]) * times[axis - 1] for axis in (1, 2)]


def _same(layer: Any, weights: Any, features, **_):
    return features


def _activated(layer: Any, weights: Any, features):
    name = layer.activation.__name__
    if name not in _ACTIVATIONS:
        raise ValueError(
            f"activation {name} cannot be exported; {', '.join(sorted(_ACTIVATIONS))} can."
        )
    return _ACTIVATIONS[name](features)


def _arithmetic(operation: Callable[..., Any]) -> Callable[..., Any]:
    return lambda layer, weights, first, second: operation(first, second)


def _array(variable: Any) -> np.ndarray:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(variable), np.float32)


_ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "elu": tf.nn.elu,
    "gelu": tf.nn.gelu,
    "leaky_relu": functools.partial(tf.nn.leaky_relu, alpha=0.2),  # as Keras has it
    "linear": tf.identity,
    "relu": tf.nn.relu,
    "selu": tf.nn.selu,
    "sigmoid": tf.nn.sigmoid,
    "silu": tf.nn.silu,
    "softmax": tf.nn.softmax,
    "softplus": tf.nn.softplus,
    "tanh": tf.nn.tanh,
}

_KINDS: dict[str, Callable[..., Any]] = {
    "Activation": _activated,
    "Add": _arithmetic(tf.add),
    "BatchNormalization": _normalised,
    "Cast": _cast,
    "Concatenate": _concatenate,
    "Conv2D": _convolution,
    "Conv2DTranspose": _transposed,
    "Cropping2D": _cropped,
    "Dropout": _same,
    "GetItem": _part,
    "MaxPooling2D": _pooled,
    "Mean": _mean,
    "Pad": _padded,
    "Std": _std,
    "Subtract": _arithmetic(tf.subtract),
    "TrueDivide": _arithmetic(tf.divide),
    "UpSampling2D": _enlarged,
}

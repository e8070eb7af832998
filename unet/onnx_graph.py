"""A network as an ONNX file, written from its own layers: exact, from any of Keras's backends.

In the file all is float32 and [B, C, H, W]; image, mask and probability are [B, H, W, ...]. Needs
the package onnx.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_OPSET = 20  # the first with Gelu
_IR = 9  # that of ONNX 1.15, which has this opset
_AXES = {0: 0, 1: 2, 2: 3, 3: 1}  # of [B, H, W, C] in [B, C, H, W]


def write(
    network: Any,
    *,
    size: tuple[int, int] | None,
    threshold: float | None,
    metadata: Mapping[str, str],
) -> bytes:
    """An ONNX file.

    Args:
        network: A Keras model from uint8 [B, H, W, 3] to float32 [B, H, W, C].
        size: Height and width of the input; None for any.
        threshold: A pixel of one channel is foreground above it; None where no mask is wanted.
        metadata: The file's `metadata_props`.

    Raises:
        ValueError: If it has a layer or an activation that is not known here.
    """
    graph = _Graph()
    (start,) = graph.node("Transpose", ["image"], perm=[0, 3, 1, 2])
    end = network._run_through_graph(start, operation_fn=functools.partial(_written, graph))
    probability = "values" if threshold is None else "probability"
    graph.node("Transpose", [end], outputs=[probability], perm=[0, 2, 3, 1])
    channels = network.outputs[0].shape[-1]
    shape = ["batch", *(size or ("height", "width"))]
    outputs = [_info(probability, TensorProto.FLOAT, [*shape, channels])]
    if threshold is not None:
        if channels == 1:
            (above,) = graph.node("Greater", [end, graph.number(threshold)])
            (found,) = graph.node("Squeeze", [above, graph.integers([1])])
        else:
            (found,) = graph.node("ArgMax", [end], axis=1, keepdims=0)
        graph.node("Cast", [found], outputs=["mask"], to=TensorProto.UINT8)
        outputs.insert(0, _info("mask", TensorProto.UINT8, shape))
    image = _info("image", TensorProto.UINT8, [*shape, 3])
    made = helper.make_graph(graph.nodes, network.name, [image], outputs, graph.weights)
    opset = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(made, opset_imports=opset, ir_version=_IR, producer_name="segdata")
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


class _Graph:
    """Nodes and weights as they come; a value is the name of a tensor."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def node(
        self, kind: str, inputs: Sequence[str], *, outputs: Sequence[str] = (), **attributes: Any
    ) -> Sequence[str]:
        """Adds a node; returns the names of its outputs."""
        outputs = outputs or [f"{kind}_{len(self.nodes)}"]
        self.nodes.append(helper.make_node(kind, inputs, outputs, **attributes))
        return outputs

    def weight(self, values: Any) -> str:
        """Adds an array; returns its name."""
        name = f"weight_{len(self.weights)}"
        array = np.ascontiguousarray(values)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def number(self, value: Any) -> str:
        """A number of a formula, or the name of a tensor as it is."""
        return value if isinstance(value, str) else self.weight(np.float32(value))

    def integers(self, values: Sequence[int]) -> str:
        """A list of axes or places."""
        return self.weight(np.array(values, np.int64))


def _written(graph: _Graph, layer: Any) -> Callable[..., str]:
    kind = type(layer).__name__
    if kind not in _KINDS:
        raise ValueError(f"a layer {kind} cannot be written as ONNX yet; export as a SavedModel.")
    return functools.partial(_KINDS[kind], graph, layer)


def _cast(graph: _Graph, layer: Any, features: str) -> str:
    return graph.node("Cast", [features], to=TensorProto.FLOAT)[0]


def _arithmetic(kind: str) -> Callable[..., str]:
    def write(graph: _Graph, layer: Any, first: Any, second: Any) -> str:
        return graph.node(kind, [graph.number(first), graph.number(second)])[0]

    return write


def _mean(graph: _Graph, layer: Any, features: str) -> str:
    if not layer.keepdims:
        raise ValueError("a mean that drops axes is not known.")
    # Axis by axis: a sum of all pixels at once loses digits, and dim images show it.
    for axis in sorted(_AXES[axis] for axis in layer.axis)[::-1]:
        (features,) = graph.node("ReduceMean", [features, graph.integers([axis])], keepdims=1)
    return features


def _std(graph: _Graph, layer: Any, features: str) -> str:
    # From the distances to the mean: the mean of squares would lose what differs little.
    (distance,) = graph.node("Sub", [features, _mean(graph, layer, features)])
    (square,) = graph.node("Mul", [distance, distance])
    return graph.node("Sqrt", [_mean(graph, layer, square)])[0]


def _part(graph: _Graph, layer: Any, features: str, places: Sequence[slice]) -> str:
    most = np.iinfo(np.int64).max
    taken = [each.indices(most) for each in places]
    starts, stops, steps = map(graph.integers, zip(*taken, strict=True))
    axes = graph.integers([_AXES[axis] for axis in range(len(places))])
    return graph.node("Slice", [features, starts, stops, axes, steps])[0]


def _padded(graph: _Graph, layer: Any, features: str, **_: Any) -> str:
    sides = sorted((_AXES[axis], pair) for axis, pair in enumerate(layer.pad_width))
    before, after = zip(*(pair for _, pair in sides), strict=True)
    return graph.node("Pad", [features, graph.integers([*before, *after])], mode=layer.mode)[0]


def _cropped(graph: _Graph, layer: Any, features: str) -> str:
    before, after = zip(*layer.cropping, strict=True)
    stops = graph.integers([-each or np.iinfo(np.int64).max for each in after])
    axes = graph.integers([_AXES[1], _AXES[2]])
    return graph.node("Slice", [features, graph.integers(before), stops, axes])[0]


def _concatenate(graph: _Graph, layer: Any, several: Sequence[str]) -> str:
    return graph.node("Concat", several, axis=_AXES[layer.axis % 4])[0]


def _convolution(graph: _Graph, layer: Any, features: str) -> str:
    kernel = graph.weight(np.transpose(_array(layer.kernel), (3, 2, 0, 1)))
    inputs = [features, kernel, graph.weight(_array(layer.bias))]
    padding = {"same": "SAME_UPPER", "valid": "VALID"}[layer.padding]
    (found,) = graph.node("Conv", inputs, auto_pad=padding, strides=list(layer.strides))
    return _activated(graph, layer, found)


def _transposed(graph: _Graph, layer: Any, features: str) -> str:
    kernel = graph.weight(np.transpose(_array(layer.kernel), (3, 2, 0, 1)))
    inputs = [features, kernel, graph.weight(_array(layer.bias))]
    if layer.padding != "same":
        raise ValueError(f"a transposed convolution with padding {layer.padding} is not known.")
    beyond = [side - stride for side, stride in zip(layer.kernel_size, layer.strides, strict=True)]
    pads = [each // 2 for each in beyond] + [each - each // 2 for each in beyond]
    (found,) = graph.node("ConvTranspose", inputs, pads=pads, strides=list(layer.strides))
    return _activated(graph, layer, found)


def _normalised(graph: _Graph, layer: Any, features: str, mask: None = None) -> str:
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    weights = [graph.weight(_array(getattr(layer, name))) for name in names]
    return graph.node("BatchNormalization", [features, *weights], epsilon=layer.epsilon)[0]


def _pooled(graph: _Graph, layer: Any, features: str) -> str:
    sides = {"kernel_shape": list(layer.pool_size), "strides": list(layer.strides)}
    return graph.node("MaxPool", [features], **sides)[0]


def _enlarged(graph: _Graph, layer: Any, features: str) -> str:
    if layer.interpolation != "nearest":
        raise ValueError(f"upsampling by {layer.interpolation} is not known.")
    scales = graph.weight(np.array([1, 1, *layer.size], np.float32))
    how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return graph.node("Resize", [features, "", scales], mode="nearest", **how)[0]


def _same(graph: _Graph, layer: Any, features: str, **_: Any) -> str:
    return features


def _activated(graph: _Graph, layer: Any, features: str) -> str:
    name = layer.activation.__name__
    if name == "linear":
        return features
    if name in ("silu", "swish"):
        return graph.node("Mul", [features, graph.node("Sigmoid", [features])[0]])[0]
    if name not in _ACTIVATIONS:
        raise ValueError(
            f"activation {name} cannot be exported; "
            f"{', '.join(sorted([*_ACTIVATIONS, 'linear', 'silu']))} can."
        )
    kind, attributes = _ACTIVATIONS[name]
    return graph.node(kind, [features], **attributes)[0]


def _array(variable: Any) -> np.ndarray:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(variable), np.float32)


def _info(name: str, kind: int, shape: Sequence[Any]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "elu": ("Elu", {}),
    "gelu": ("Gelu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.2}),  # as Keras has it
    "relu": ("Relu", {}),
    "selu": ("Selu", {}),
    "sigmoid": ("Sigmoid", {}),
    "softmax": ("Softmax", {"axis": 1}),
    "softplus": ("Softplus", {}),
    "tanh": ("Tanh", {}),
}

_KINDS: dict[str, Callable[..., str]] = {
    "Activation": _activated,
    "Add": _arithmetic("Add"),
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
    "Subtract": _arithmetic("Sub"),
    "TrueDivide": _arithmetic("Div"),
    "UpSampling2D": _enlarged,
}

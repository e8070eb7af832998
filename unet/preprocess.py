"""The first layer of every model: uint8 images to the input of a convolution.

It is part of the model, so training and serving cannot differ.
"""

# Keras ships no stubs: a checker takes what its ops return for None.
# pyright: reportOptionalOperand=false, reportOperatorIssue=false, reportOptionalSubscript=false

from collections.abc import Iterable

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="unet")
class Preprocess(layers.Layer):
    """Scales uint8 images, optionally standardises and folds them; computed in float32.

    Args:
        stride: Height and width must be divisible by it.
        patch: Side of the patches that are folded into channels; 1 folds nothing.
        standardise: Whether to subtract each image's mean and divide by its standard deviation.
    """

    def __init__(
        self, *, stride: int, patch: int = 1, standardise: bool = False, **options: object
    ):
        super().__init__(**{**options, "dtype": "float32"})
        self.stride = stride
        self.patch = patch
        self.standardise = standardise

    def call(self, images):
        """Returns float32 [B, H / patch, W / patch, 3 · patch²]; see the class."""
        self._check(images.shape)
        images = ops.cast(images, "float32") / 255
        if self.standardise:
            mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
            deviation = ops.std(images, axis=(1, 2, 3), keepdims=True)
            images = (images - mean) / (
                deviation + 1 / 255
            )  # one grey level, so that noise is not amplified
        if self.patch == 1:
            return images
        offsets = range(self.patch)
        corners = [images[:, y :: self.patch, x :: self.patch] for y in offsets for x in offsets]
        return ops.concatenate(corners, axis=-1)

    def compute_output_shape(self, shape):
        """Explicit, because tracing on JAX tries sizes that the stride does not divide."""
        self._check(shape)
        batch, height, width, channels = shape
        sides = (side and side // self.patch for side in (height, width))
        return (batch, *sides, channels * self.patch**2)

    def get_config(self):
        """Returns what `__init__` takes."""
        own = {"stride": self.stride, "patch": self.patch, "standardise": self.standardise}
        return {**super().get_config(), **own}

    def _check(self, shape: Iterable[int | None]) -> None:
        _, height, width, _ = shape
        if any(side and side % self.stride for side in (height, width)):
            raise ValueError(
                f"images of {height}×{width} pixels do not fit this model: height and width must "
                f"be divisible by its stride, {self.stride}."
            )

"""The U-Net.

One encoder, one decoder, a skip between them at each level. Images come in as uint8 [B, H, W, 3] of
any height and width that the stride divides, probabilities go out as float32 [B, H, W, C], whatever
the precision policy. The model scales its own input, so training and serving cannot differ.

Nothing here knows of data sets, losses or files. Keras is imported when a model is built, so that
settings can be read and refused at once.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNet:
    """What a U-Net is made of; `build` makes it."""

    filters: tuple[int, ...] = (16, 32, 64, 128, 256)
    """Filters of each level, full resolution first; the last one is the bottom."""

    convolutions: int = 2
    """3×3 convolutions in each level, on the way down and again on the way up."""

    dropout: tuple[float, ...] = ()
    """Rate of each level, or one for all; it comes after each convolution but a level's last."""

    batch_norm: bool = False
    """Normalise after each 3×3 convolution, before its activation."""

    activation: str = "relu"
    """Any activation Keras knows by name: relu, elu, leaky_relu, …"""

    initializer: str = "glorot_uniform"
    """How the 3×3 convolutions start: any initializer Keras knows by name."""

    upsampling: Literal["nearest", "transposed"] = "nearest"
    """Repeat each value, or learn a transposed convolution."""

    transposed_kernel: int = 2
    """Side of the transposed convolutions: 2 or 3."""

    skips: bool = True
    """Concatenate each level of the encoder to the same level of the decoder."""

    stem_stride: int = 1
    """2 folds each 2×2 patch of the input into channels and works at half the resolution."""

    standardise: bool = False
    """Subtract each image's mean and divide by its standard deviation; for dim images."""

    output_channels: int = 1
    """Channels of the output."""

    output_activation: Literal["sigmoid", "softmax", "linear"] = "sigmoid"
    """What turns the last convolution into probabilities."""

    def __post_init__(self) -> None:
        _require(bool(self.filters), "filters", self.filters, "at least one level")
        _require(all(n > 0 for n in self.filters), "filters", self.filters, "positive numbers")
        _require(self.convolutions > 0, "convolutions", self.convolutions, "1 or more")
        _require(
            len(self.dropout) in (0, 1, len(self.filters)),
            "dropout",
            self.dropout,
            f"one rate for each of the {len(self.filters)} levels, one for all, or none",
        )
        _require(all(0 <= p < 1 for p in self.dropout), "dropout", self.dropout, "rates in [0, 1)")
        _require(
            self.upsampling in ("nearest", "transposed"),
            "upsampling",
            self.upsampling,
            "nearest or transposed",
        )
        _require(
            self.transposed_kernel in (2, 3), "transposed_kernel", self.transposed_kernel, "2 or 3"
        )
        _require(self.stem_stride in (1, 2), "stem_stride", self.stem_stride, "1 or 2")
        _require(self.output_channels > 0, "output_channels", self.output_channels, "1 or more")
        _require(
            self.output_activation in ("sigmoid", "softmax", "linear"),
            "output_activation",
            self.output_activation,
            "sigmoid, softmax or linear",
        )

    @property
    def stride(self) -> int:
        """What height and width must be divisible by."""
        return self.stem_stride * 2 ** (len(self.filters) - 1)


def build(settings: UNet) -> keras.Model:
    """Builds a U-Net with fresh weights, under the current precision policy.

    Every convolution keeps its bias, also before batch normalisation where it does nothing:
    published parameter counts include it.

    Args:
        settings: What to build.

    Returns:
        A model from uint8 [B, H, W, 3] to float32 [B, H, W, C].

    Raises:
        ValueError: If Keras knows no such activation or initializer; and from the model itself
            when an image's height or width is not divisible by `settings.stride`.

    Source: Ronneberger, Fischer and Brox, "U-Net", MICCAI 2015; here with padded convolutions.
    """
    import keras
    from keras import layers

    from unet.preprocess import Preprocess

    image = layers.Input((None, None, 3), dtype="uint8", name="image")
    features = Preprocess(
        stride=settings.stride, patch=settings.stem_stride, standardise=settings.standardise
    )(image)
    *above, bottom = range(len(settings.filters))
    skips = []
    for level in above:
        features = _convolve(features, settings, level)
        skips.append(features)
        features = layers.MaxPooling2D()(features)
    features = _convolve(features, settings, bottom)
    for level in reversed(above):
        features = _upsample(features, settings, level)
        if settings.skips:
            features = layers.Concatenate()([features, skips[level]])
        features = _convolve(features, settings, level)
    if settings.stem_stride == 2:
        features = _upsample(features, settings, 0)
    logits = layers.Conv2D(settings.output_channels, 1, name="head")(features)
    output = layers.Activation(settings.output_activation, dtype="float32", name="output")(logits)
    return keras.Model(image, output, name="unet")


def _convolve(features, settings: UNet, level: int):
    from keras import layers

    for convolution in range(settings.convolutions):
        if convolution and any(settings.dropout):
            rates = settings.dropout * (len(settings.filters) if len(settings.dropout) == 1 else 1)
            features = layers.Dropout(rates[level])(features)
        features = layers.Conv2D(
            settings.filters[level], 3, padding="same", kernel_initializer=settings.initializer
        )(features)
        if settings.batch_norm:
            features = layers.BatchNormalization()(features)
        features = layers.Activation(settings.activation)(features)
    return features


def _upsample(features, settings: UNet, level: int):
    from keras import layers

    if settings.upsampling == "nearest":
        return layers.UpSampling2D()(features)
    return layers.Conv2DTranspose(
        settings.filters[level], settings.transposed_kernel, strides=2, padding="same"
    )(features)


def _require(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise ValueError(f"{name} is {value!r}; it must be {allowed}.")

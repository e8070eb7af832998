"""The models of the recipes in PyTorch, plainly."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from unet.model import FCN, UNet

_ACTIVATIONS: dict[str, Any] = {"relu": nn.ReLU, "elu": nn.ELU, "leaky_relu": nn.LeakyReLU}


class Network(nn.Module):
    """From float32 [B, 3, H, W] in 0 to 1 to logits float32 [B, C, H, W]."""

    def __init__(self, settings: UNet | FCN):
        super().__init__()
        self.settings = settings
        self.body = _Plain(settings) if isinstance(settings, FCN) else _UNet(settings)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The logits."""
        return self.body(image)


class _UNet(nn.Module):
    def __init__(self, settings: UNet):
        super().__init__()
        self.settings, widths = settings, settings.filters
        inputs = 3 * settings.stem_stride**2
        self.down, self.rise, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, filters in enumerate(widths):
            self.down.append(_block(inputs, filters, settings, settings.rates[level]))
            inputs = filters
        for level in range(len(widths) - 2, -1, -1):
            self.rise.append(_risen(inputs, widths[level], settings))
            inputs = widths[level] if settings.upsampling == "transposed" else inputs
            inputs += widths[level] if settings.skips else 0
            rate = settings.rates[2 * (len(widths) - 1) - level]
            self.up.append(_block(inputs, widths[level], settings, rate))
            inputs = widths[level]
        self.grow = _risen(inputs, inputs, settings) if settings.stem_stride == 2 else nn.Identity()
        inputs += 3 * settings.image_skip
        end: list[nn.Module] = []
        if settings.head_filters:
            end += [nn.Conv2d(inputs, settings.head_filters, 3, padding=1)]
            end += [_ACTIVATIONS[settings.activation]()]
            inputs = settings.head_filters
        self.end = nn.Sequential(*end, nn.Conv2d(inputs, settings.output_channels, 1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if self.settings.standardise:
            mean = features.mean((1, 2, 3), keepdim=True)
            deviation = features.std((1, 2, 3), keepdim=True, correction=0)
            features = (features - mean) / (deviation + 1 / 255)
        image = features
        margin, cut, end = self.settings.margins
        if margin:
            features = functional.pad(features, [margin] * 4, mode="reflect")
        if self.settings.stem_stride == 2:
            features = functional.pixel_unshuffle(features, 2)
        skips: list[torch.Tensor] = []
        for level, block in enumerate(self.down):
            features = block(features if not level else functional.max_pool2d(features, 2))
            skips.append(features)
        skips.pop()
        for rise, block, beyond in zip(self.rise, self.up, cut[::-1], strict=True):
            features = rise(features)
            if self.settings.skips:
                features = torch.cat([features, _cropped(skips.pop(), beyond)], 1)
            features = block(features)
        features = _cropped(features, end)
        features = self.grow(features)
        if self.settings.image_skip:
            features = torch.cat([features, image], 1)
        return self.end(features)


class _Plain(nn.Module):
    def __init__(self, settings: FCN):
        super().__init__()
        inputs, made = 3, list[nn.Module]()
        for filters in settings.filters:
            for stride in (2, 1):
                made += [nn.Conv2d(inputs, filters, 3, stride, 1)]
                made += [_ACTIVATIONS[settings.activation]()]
                inputs = filters
        for filters in settings.filters[::-1]:
            for stride in (1, 2):
                made += [nn.ConvTranspose2d(inputs, filters, 3, stride, 1, stride - 1)]
                made += [_ACTIVATIONS[settings.activation]()]
                inputs = filters
        self.layers = nn.Sequential(
            *made, nn.Conv2d(inputs, settings.output_channels, 3, padding=1)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image)


def _block(inputs: int, outputs: int, settings: UNet, rate: float) -> nn.Module:
    made = list[nn.Module]()
    for convolution in range(settings.convolutions):
        if convolution and rate:
            made.append(nn.Dropout(rate))
        made.append(nn.Conv2d(inputs, outputs, 3, padding=settings.padding))
        if settings.batch_norm:
            made.append(nn.BatchNorm2d(outputs))
        made.append(_ACTIVATIONS[settings.activation]())
        inputs = outputs
    return nn.Sequential(*made)


def _cropped(features: torch.Tensor, margin: int) -> torch.Tensor:
    return functional.pad(features, [-margin] * 4)


def _risen(inputs: int, outputs: int, settings: UNet) -> nn.Module:
    if settings.upsampling == "nearest":
        return nn.Upsample(scale_factor=2)
    if settings.transposed_kernel == 2:
        return nn.ConvTranspose2d(inputs, outputs, 2, 2)
    return nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, 1)

"""Brightness of images with more than 8 bits, brought to 8 bits in one way for a whole dataset.

A `Scaling` is kept in a dataset's metadata as JSON, so that prediction scales images as the build
did. NumPy only; no file is known here.
"""

import dataclasses
import fractions
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

LEVELS = 1 << 16
"""Of a channel of 16 bits."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaling:
    """What an image's channels are brought to 8 bits by: the same for all images.

    Attributes:
        low: The level of each channel that becomes 0, as do those below it.
        high: The level of each channel that becomes 255, as do those above it.
        rule: Where these are from, such as "percentiles 0.1 and 99.9 of all pixels".
        channels: Names or numbers of the channels that are read, as red, green and blue, or one as
            grey; empty where an image has no others.
        page: Which page of a file is read, from 0; None where a file has one.
        types: Of the numbers that the images hold, such as "uint16"; empty where that is not kept.
        bits: Of the largest number in the images, an even number as cameras have; None where it is
            not kept, or `low` and `high` were given.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    rule: str
    channels: tuple[str, ...] = ()
    page: int | None = None
    types: tuple[str, ...] = ()
    bits: int | None = None

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not self.low:
            raise ValueError(f"low={self.low}, high={self.high}: one of each for each channel.")
        for low, high in zip(self.low, self.high, strict=True):
            if not (np.isfinite(low) and np.isfinite(high) and low < high):
                raise ValueError(f"a range from {low:g} to {high:g}: the first must be less.")

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Scales an image.

        Args:
            pixels: Numbers [H, W, C], of as many channels as there are ranges, or of any number
                where there is one.

        Returns:
            uint8 [H, W, C], rounded to the nearest, halves up; 0 where there is no number (NaN).

        Raises:
            ValueError: If there are other channels.
        """
        count = pixels.shape[-1]
        if len(self.low) not in (1, count):
            raise ValueError(f"{count} channels, and ranges for {len(self.low)}.")
        out = np.empty(pixels.shape, np.uint8)
        ranges = list(zip(self.low, self.high, strict=True))
        for channel, (low, high) in enumerate(ranges * (count if len(ranges) == 1 else 1)):
            values = pixels[..., channel]
            if values.dtype == np.uint16:
                out[..., channel] = scaled(np.arange(LEVELS), low, high)[values]
            else:
                out[..., channel] = scaled(values, low, high)
        return out

    def to_json(self) -> dict[str, Any]:
        """The same for a dataset's metadata."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value != ()}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """What `to_json` gave.

        Raises:
            ValueError: If it is something else.
        """
        try:
            return cls(
                low=tuple(map(float, found["low"])),
                high=tuple(map(float, found["high"])),
                rule=str(found["rule"]),
                channels=tuple(map(str, found.get("channels", ()))),
                page=None if found.get("page") is None else int(found["page"]),
                types=tuple(map(str, found.get("types", ()))),
                bits=None if found.get("bits") is None else int(found["bits"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{found!r} is no scaling of brightness.") from error


def rgb(pixels: np.ndarray, scaling: Scaling | None) -> np.ndarray:
    """An image as models see it: grey in all three channels; of two channels, blue is 0.

    Args:
        pixels: [H, W, C], of one to three channels; uint8 without a scaling.
        scaling: Of the dataset; None where it has none.

    Returns:
        uint8 [H, W, 3].
    """
    levels = scaling.apply(pixels) if scaling else pixels
    if levels.shape[-1] == 2:
        levels = np.concatenate([levels, np.zeros_like(levels[..., :1])], axis=-1)
    return np.ascontiguousarray(np.broadcast_to(levels, (*levels.shape[:2], 3)))


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Numbers of any shape as uint8: `low` becomes 0 and `high` 255.

    Rounded to the nearest, halves up; what is outside is cut off, and 0 where there is no number.
    """
    levels = (values.astype(np.float64) - low) * 255 / (high - low)  # exact where they are halves
    return np.floor(np.nan_to_num(np.clip(levels, 0, 255)) + 0.5).astype(np.uint8)


def even_bits(highest: float) -> int:
    """The bits of a number from 0, an even number of them: 12 for 1,024 to 4,095."""
    bits = int(highest).bit_length()
    return bits + bits % 2


def histogram(pixels: np.ndarray) -> np.ndarray:
    """How often each level occurs in each channel: int64 [C, 65536] of uint16 [H, W, C]."""
    channels = [pixels[..., channel].ravel() for channel in range(pixels.shape[-1])]
    return np.stack([np.bincount(channel, minlength=LEVELS) for channel in channels])


def by_percentiles(counts: np.ndarray, percentiles: Sequence[float], **more: Any) -> Scaling:
    """The scaling from one percentile of all pixels of all images to another, for each channel.

    Args:
        counts: int64 [C, 65536], the sum of all images' `histogram`.
        percentiles: The lower and the upper one, from 0 to 100. A percentile is the lowest level
            that at least so many in a hundred pixels do not exceed.
        more: `channels`, `page`, `types` and `bits` of the scaling.

    Raises:
        ValueError: If both are the same level: all images are flat.
    """
    ends = []
    for percentile in percentiles:
        share = fractions.Fraction(str(percentile)) / 100  # as floats, 99.9 % of 82,000 are more
        wanted = [max(1, math.ceil(share * int(total))) for total in counts.sum(axis=1)]
        at_most = np.cumsum(counts, axis=1)
        ends.append([int(np.searchsorted(*each)) for each in zip(at_most, wanted, strict=True)])
    low, high = percentiles
    return Scaling(
        low=tuple(map(float, ends[0])),
        high=tuple(map(float, ends[1])),
        rule=f"percentiles {low:g} and {high:g} of all pixels of all images",
        **more,
    )

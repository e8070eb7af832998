"""Values of images and masks in any dataset: decoded without loss, images brought to 8-bit RGB.

NumPy arrays in and out. No dataset is known here, and no class.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from segdata import archives
from segdata.archives import images, intensity

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


def is_plain(data: bytes) -> bool:
    """Whether a file is a JPEG, or a PNG of 8 bits or fewer: read alike wherever it is opened."""
    return data.startswith(_JPEG) or (data.startswith(_PNG) and data[24:25] != b"\x10")


def decoded(data: bytes, *, name: str, colours: bool) -> np.ndarray:
    """The values of a file of any kind that images have: [H, W] or [H, W, C].

    Args:
        data: The file.
        name: Of the file, for messages.
        colours: Whether a palette stands for its colours; else its numbers are the values.

    Returns:
        uint8; of a PNG of 16 bits uint16.

    Raises:
        ArchiveError: If it is damaged, or of a kind that is not read.
    """
    if (found := images.grey(data)) is not None:
        return found
    with images.opened(data, name=name, kinds=images.KINDS) as image:
        if not data.startswith(_PNG) or data[24] != 16:
            if image.mode == "1":
                return np.asarray(image.convert("L"))
            if image.mode == "P" and colours:
                return np.asarray(images.rgb(image))
            return np.asarray(image)
    import tensorflow as tf  # Pillow drops half of the bits of colours

    try:
        values = tf.io.decode_png(data, dtype=tf.uint16).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise archives.ArchiveError(
            f"{name} is no readable PNG. Build the dataset again."
        ) from error
    return values[..., 0] if values.shape[-1] == 1 else values


def rgb(
    values: np.ndarray,
    *,
    name: str,
    bands: Sequence[int] | None = None,
    value_range: Sequence[float] | None = None,
) -> np.ndarray:
    """An image of any type and number of channels as 8-bit RGB.

    Args:
        values: [H, W] or [H, W, C].
        name: Of the image, for messages.
        bands: Which channels are red, green and blue, or which one is grey; needed where there are
            not one or three.
        value_range: The values that become 0 and 255; those between are rounded to nearest, halves
            up, those outside are cut off. Needed where values are not uint8.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: If one is needed and is None, or a band is not there.
    """
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or not values.size:
        raise ValueError(
            f"{name} has the shape {list(values.shape)}, not [height, width, channels]."
        )
    channels = values.shape[-1]
    if bands is not None:
        if max(bands) >= channels:
            raise ValueError(f"bands={list(bands)}: {name} has channels 0 to {channels - 1}.")
        values = values[..., list(bands)]
    elif channels not in (1, 3):
        raise ValueError(
            f"{name} has {channels} channels: say which are red, green and blue, such as "
            "bands=(0, 1, 2) or --bands 0 1 2, or which one is grey, bands=(0,)."
        )
    if value_range is not None:
        low, high = value_range
        if np.isnan(values).any():
            raise ValueError(f"{name} holds values that are no numbers.")
        values = intensity.scaled(values, low, high)
    elif values.dtype != np.uint8:
        raise ValueError(
            f"{name} is of {values.dtype}, from {values.min()} to {values.max()}: say with "
            "value_range=(low, high), or --value_range LOW HIGH, which values become 0 and 255, in "
            "all images alike."
        )
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))


def whole(values: np.ndarray, *, name: str) -> np.ndarray:
    """The values of a mask as integers, of one channel or of three: [H, W] or [H, W, 3].

    Raises:
        ValueError: If there are fractions, or it has another shape.
    """
    if values.ndim == 3 and values.shape[-1] in (1, 2):  # grey, with or without transparency
        values = values[..., 0]
    if values.ndim == 3 and values.shape[-1] == 4:
        values = values[..., :3]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[-1] != 3):
        raise ValueError(f"{name} has the shape {list(values.shape)}, not [height, width, 1 or 3].")
    if values.dtype == bool:
        return values.view(np.uint8)
    if not np.issubdtype(values.dtype, np.integer):
        rounded = _rounded(values)
        if (rounded != values).any():
            raise ValueError(f"{name} holds fractions, such as {values[rounded != values][0]}.")
        return rounded.astype(np.int64)
    return values


def _rounded(values: Any) -> np.ndarray:
    return np.rint(np.nan_to_num(values, nan=0.5, posinf=0.5, neginf=0.5))

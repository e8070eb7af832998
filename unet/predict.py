"""From an image file of any size to a mask of that size.

The model sees the image at the size it was trained on; the probability, not the mask, is brought
back, so that its edge stays smooth. Pillow reads, resizes and writes.
"""

import colorsys
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from unet import metrics

_TINT = (64, 255, 64)  # seen on black, on grey and on stained tissue
_BILINEAR = Image.Resampling.BILINEAR  # antialiased where it makes smaller


def read(path: pathlib.Path) -> np.ndarray:
    """Reads an image file.

    Args:
        path: Any 8-bit format Pillow knows; transparency is dropped.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: If the file is no image, is damaged, or has more than 8 bits a channel.
        OSError: If it cannot be opened.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(
                    f"{path}: its pixels are {image.mode}, more than 8 bits each; how bright is "
                    f"white? Convert it to 8 bits first."
                )
            return np.asarray(image.convert("RGB"))
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise OSError(f"{path}: {error.strerror}.") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def predict(network: Any, image: np.ndarray, *, size: tuple[int, int]) -> np.ndarray:
    """Predicts one image of any size.

    Args:
        network: From uint8 [B, h, w, 3] to float32 [B, h, w, C].
        image: uint8 [H, W, 3].
        size: Height and width the model sees, h and w.

    Returns:
        Probability of foreground, or of each class, float32 [H, W, C].
    """
    height, width = size
    seen = np.asarray(Image.fromarray(image).resize((width, height), _BILINEAR))
    probability = np.asarray(network.predict_on_batch(seen[None]))[0]
    whole = np.empty((*image.shape[:2], probability.shape[-1]), np.float32)
    for channel in range(probability.shape[-1]):
        part = Image.fromarray(probability[..., channel])
        whole[..., channel] = np.asarray(part.resize(image.shape[1::-1], _BILINEAR))
    return np.clip(whole, probability.min(), probability.max())  # rounding strays beyond


def colours(channels: int) -> np.ndarray:
    """A colour for each class that a model tells apart; uint8 [K, 3].

    Args:
        channels: Of the model: 1, which gives background and foreground, or the classes' number.
    """
    if channels == 1:
        return np.array([(0, 0, 0), _TINT], np.uint8)
    hues = [(1 / 3 + 0.618034 * number) % 1 for number in range(channels)]  # neighbours far apart
    bright = [colorsys.hsv_to_rgb(hue, 0.75, 1) for hue in hues]
    return (255 * np.array(bright)).round().astype(np.uint8)


def overlay(
    image: np.ndarray, mask: np.ndarray, *, colour: Sequence[int] | np.ndarray = _TINT
) -> np.ndarray:
    """Draws a mask over an image: tinted inside, and its outline.

    Args:
        image: uint8 [H, W, 3].
        mask: bool [H, W].
        colour: Of tint and outline.

    Returns:
        uint8 [H, W, 3].
    """
    drawn = image.astype(np.float32)
    drawn[mask] = 0.65 * drawn[mask] + 0.35 * np.asarray(colour, np.float32)
    drawn[outline(mask)] = colour
    return drawn.round().astype(np.uint8)


def outline(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask that touch, by a side, one outside it; bool [H, W] in and out."""
    around = np.pad(mask, 1, mode="edge")
    inside = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return mask & ~inside


def files(
    network: Any,
    paths: Sequence[pathlib.Path],
    *,
    size: tuple[int, int],
    threshold: float,
    to: pathlib.Path,
) -> Iterable[tuple[pathlib.Path, str | None]]:
    """Predicts files one by one; a bad one does not stop the others.

    For `NAME.EXT` it writes `NAME.mask.png`, 0 and 255 at the image's own size, or of several
    classes their numbers, and `NAME.overlay.png`.

    Args:
        network: As for `predict`.
        paths: Image files.
        size: As for `predict`.
        threshold: A pixel is foreground above this probability.
        to: The folder to write into; made if missing.

    Yields:
        Each path, and what was wrong with it or None.
    """
    to.mkdir(parents=True, exist_ok=True)
    written: dict[str, pathlib.Path] = {}
    for path in paths:
        try:
            if path.stem in written:
                raise ValueError(
                    f"{path}: its results would overwrite those of {written[path.stem]}; "
                    f"give files of the same name in runs of their own."
                )
            image = read(path)
            output = predict(network, image, size=size)
            mask = metrics.decide(output, threshold=threshold)[..., 0]
            foreground = output.shape[-1] == 1
            Image.fromarray(255 * mask if foreground else mask).save(to / f"{path.stem}.mask.png")
            Image.fromarray(_drawn(image, mask, output.shape[-1])).save(
                to / f"{path.stem}.overlay.png"
            )
            written[path.stem] = path
            yield path, None
        except (ValueError, OSError) as error:
            yield path, str(error)


def _drawn(image: np.ndarray, mask: np.ndarray, channels: int) -> np.ndarray:
    """`overlay` of the foreground, or of each class that was found."""
    palette = colours(channels)
    for number in np.unique(mask) if channels > 1 else (1,):
        image = overlay(image, mask == number, colour=palette[number])
    return image

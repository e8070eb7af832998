"""Pictures of scored images: truth, prediction, and where they differ.

For one channel, the truth is white on black and the prediction's brightness is its probability;
several classes have a colour each; of a regression, black and white are the least and the largest
target of the image.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from segdata.core import IGNORE_LABEL
from segdata.inspection import overlays, page
from unet.evaluate import Scored

_WRONG_EXTRA, _WRONG_MISSED, _RIGHT = (240, 82, 82), (64, 140, 255), (64, 220, 100)


def views(scored: Scored, *, channels: int = 1) -> dict[str, np.ndarray]:
    """Four pictures of one image.

    Args:
        scored: The image with its prediction.
        channels: Of the model.

    Returns:
        `image`, `truth`, `prediction` and `overlay`: uint8 [H, W] or [H, W, 3].
    """
    image, truth, found = scored.image, scored.mask, scored.found
    unlabelled = truth == IGNORE_LABEL
    if found.dtype == np.float32:
        known, seen, compared = _of_numbers(truth, found, unlabelled)
    elif channels == 1:
        known = np.select([truth == 1, unlabelled], [255, overlays.GREY[0]], 0).astype(np.uint8)
        seen, compared = scored.probability, _compared(image, truth, found == 1)
    else:
        palette = overlays.palette(channels)
        known = palette[np.where(unlabelled, 0, truth)]
        known[unlabelled] = overlays.GREY
        seen, compared = palette[found], _misnamed(image, truth, found)
    return {"image": image, "truth": known, "prediction": seen, "overlay": compared}


def strip(scored: Scored, *, channels: int = 1, most: int) -> np.ndarray:
    """The pictures of `views` beside each other.

    Args:
        scored: The image with its prediction.
        channels: Of the model.
        most: The longer side of each, in pixels; larger ones are shrunk by area.

    Returns:
        uint8 [H, 4·W, 3].
    """
    every = [resized(x, least=1, most=most) for x in views(scored, channels=channels).values()]
    return np.concatenate(
        [x if x.ndim == 3 else np.repeat(x[..., None], 3, axis=-1) for x in every], axis=1
    )


def resized(pixels: np.ndarray, *, least: int, most: int) -> np.ndarray:
    """A picture whose longer side is between two lengths, if a whole factor makes it so.

    Args:
        pixels: uint8 [H, W] or [H, W, 3].
        least: In pixels; of a smaller one each pixel becomes a square of several.
        most: In pixels, at least twice `least`; a larger one is shrunk by area.

    Returns:
        uint8, of the same shape but for height and width.
    """
    longest = max(pixels.shape[:2])
    if longest < least:
        times = -(-least // longest)
        return pixels.repeat(times, axis=0).repeat(times, axis=1)
    if longest <= most:
        return pixels
    height, width = (max(1, round(side * most / longest)) for side in pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))


def legend(classes: Sequence[str]) -> str:
    """The legend of the pictures, as HTML.

    Args:
        classes: Names of the classes; empty for a model of one channel.
    """
    if classes:
        meanings = [("another class than the truth", _WRONG_EXTRA)]
        meanings += zip(classes, overlays.palette(len(classes)), strict=True)
    else:
        meanings = [
            ("outline of the truth, found", _RIGHT),
            ("found, but not there", _WRONG_EXTRA),
            ("there, but not found", _WRONG_MISSED),
        ]
    return "".join(page.key(*meaning) for meaning in [*meanings, ("ignore label", overlays.GREY)])


def _compared(image: np.ndarray, truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The truth's outline, and each wrong pixel; uint8 [H, W, 3]."""
    drawn = image.copy()
    labelled = truth != IGNORE_LABEL
    drawn[labelled & found & (truth != 1)] = _WRONG_EXTRA
    drawn[(truth == 1) & ~found] = _WRONG_MISSED
    drawn[overlays.outline(truth) & (truth == 1) & found] = _RIGHT
    return drawn


def _of_numbers(
    truth: np.ndarray, found: np.ndarray, unlabelled: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, prediction and the size of the error, in the range of the truth; uint8 [H, W] each."""
    target = truth.astype(np.float32)
    labelled = target[~unlabelled]
    least, most = (labelled.min(), labelled.max()) if labelled.size else (0.0, 1.0)
    scale = 255 / max(most - least, 1e-9)

    def grey(values: np.ndarray) -> np.ndarray:
        shown = (values * scale).clip(0, 255).round().astype(np.uint8)
        return np.where(unlabelled, overlays.GREY[0], shown).astype(np.uint8)

    return grey(target - least), grey(found - least), grey(np.abs(found - target))


def _misnamed(image: np.ndarray, truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Each pixel whose predicted class is wrong; uint8 [H, W, 3]."""
    drawn = image.copy()
    drawn[(truth != IGNORE_LABEL) & (truth != found)] = _WRONG_EXTRA
    return drawn

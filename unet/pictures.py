"""Pictures of scored images: truth, prediction, and where they differ.

For one channel, the truth is white on black and the prediction's brightness is its probability;
several classes have a colour each.
"""

from collections.abc import Sequence

import numpy as np

from segdata.core import IGNORE_LABEL
from segdata.inspection import overlays, page
from unet import metrics
from unet.evaluate import Scored

_WRONG_EXTRA, _WRONG_MISSED, _RIGHT = (240, 82, 82), (64, 140, 255), (64, 220, 100)


def views(scored: Scored, *, threshold: float) -> dict[str, np.ndarray]:
    """Four pictures of one image.

    Args:
        scored: The image with its prediction.
        threshold: With one channel, a pixel is foreground above this probability.

    Returns:
        `image`, `truth`, `prediction` and `overlay`: uint8 [H, W] or [H, W, 3].
    """
    image, truth, output = scored.image, scored.mask[..., 0], scored.probability
    found = metrics.decide(output, threshold=threshold)[..., 0]
    unlabelled = truth == IGNORE_LABEL
    if output.shape[-1] == 1:
        known = np.select([truth == 1, unlabelled], [255, overlays.GREY[0]], 0).astype(np.uint8)
        seen = (255 * output[..., 0].clip(0, 1)).round().astype(np.uint8)
        compared = _compared(image, truth, found == 1)
    else:
        palette = overlays.palette(output.shape[-1])
        known = palette[np.where(unlabelled, 0, truth)]
        known[unlabelled] = overlays.GREY
        seen, compared = palette[found], _misnamed(image, truth, found)
    return {"image": image, "truth": known, "prediction": seen, "overlay": compared}


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
    return "".join(page.key(*meaning) for meaning in [*meanings, ("not labelled", overlays.GREY)])


def _compared(image: np.ndarray, truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The truth's outline, and each wrong pixel; uint8 [H, W, 3]."""
    drawn = image.copy()
    labelled = truth != IGNORE_LABEL
    drawn[labelled & found & (truth != 1)] = _WRONG_EXTRA
    drawn[(truth == 1) & ~found] = _WRONG_MISSED
    drawn[overlays.outline(truth) & (truth == 1) & found] = _RIGHT
    return drawn


def _misnamed(image: np.ndarray, truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Each pixel whose predicted class is wrong; uint8 [H, W, 3]."""
    drawn = image.copy()
    drawn[(truth != IGNORE_LABEL) & (truth != found)] = _WRONG_EXTRA
    return drawn

"""How well predicted contours follow the true ones: boundary F1.

The contour of a class is its pixels that touch, by a side, a labelled pixel of another; the edge of
the image and what has the ignore label make none. A pixel of a contour is matched if the other
contour of its class has one within the tolerance, from centre to centre.

Source: Csurka, Larlus and Perronnin, "What is a good evaluation measure for semantic
segmentation?", BMVC 2013, after Martin, Fowlkes and Malik's of contours, PAMI 2004.
"""

import math

import numpy as np
from scipy import spatial

from segdata.core import IGNORE_LABEL

SHARE = 0.0075
"""Of an image's diagonal: the tolerance where none is given, as in the source."""


def f1(
    mask: np.ndarray, found: np.ndarray, *, channels: int = 1, tolerance: float | None = None
) -> float:
    """Boundary F1 of an image: 2PR / (P + R), the mean over the classes that have a contour.

    P is the share of the predicted contour that is matched, R that of the true one; where a class
    has one of the two contours only, it scores 0.

    Args:
        mask: uint8 [H, W], the truth; 255 is the ignore label.
        found: uint8 [H, W], the predicted class.
        channels: The model's output channels; 1 for the foreground alone.
        tolerance: The largest distance of a match, in pixels; `SHARE` of the diagonal if not given.

    Returns:
        In [0, 1]; NaN where no class has a contour.
    """
    reach = SHARE * math.hypot(*mask.shape) if tolerance is None else tolerance
    labelled = mask != IGNORE_LABEL
    (true, of_true), (seen, of_seen) = (_contour(x, labelled) for x in (mask, found))
    scores = []
    for number in range(channels) if channels > 1 else (1,):
        pair = true[of_true == number], seen[of_seen == number]
        if any(map(len, pair)):
            scores.append(_matched(*pair, reach=reach) if all(map(len, pair)) else 0.0)
    return float(np.mean(scores)) if scores else math.nan


def _contour(labels: np.ndarray, labelled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of all contours, rows and columns int64 [N, 2], and the class of each."""
    edge = np.zeros(labels.shape, bool)
    for values, known, marked in ((labels, labelled, edge), (labels.T, labelled.T, edge.T)):
        differs = (values[1:] != values[:-1]) & known[1:] & known[:-1]
        marked[1:] |= differs
        marked[:-1] |= differs
    places = np.argwhere(edge)
    return places, labels[edge]


def _matched(true: np.ndarray, seen: np.ndarray, *, reach: float) -> float:
    """F1 of two contours, neither of them empty."""
    precision, recall = (_share(*pair, reach=reach) for pair in ((seen, true), (true, seen)))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _share(points: np.ndarray, others: np.ndarray, *, reach: float) -> float:
    """The share of points that have one of the others within reach."""
    tree = spatial.KDTree(others, compact_nodes=False, balanced_tree=False)
    # Squares of distances are whole: no other lies within a millionth of a pixel of the reach.
    distance, _ = tree.query(points, distance_upper_bound=reach + 1e-6, workers=-1)
    return float(np.isfinite(distance).mean())

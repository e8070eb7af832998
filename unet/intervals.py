"""Intervals of scores by the bootstrap over groups.

Images of a group, such as photos of one car, are alike, so whole groups are drawn, with
replacement, as many as there are; an interval holds the middle 95 % of the scores of 1,000 such
draws. What is drawn comes from a counter-based generator (Philox) and the number of groups alone.

Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13 (percentiles);
Davison and Hinkley, "Bootstrap methods and their application", 1997, section 3.8 (groups).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

DRAWS = 1000
COVERED = 0.95
_SEED = 0
_AT_ONCE = 1 << 20  # groups drawn at once: memory does not grow with the draws

Interval = tuple[float, float]

FEW = 20
"""Groups, below which percentiles of draws make too narrow an interval to rely on."""


def caution(groups: int) -> str:
    """What is to be said of intervals of so few groups; nothing of more."""
    few = f"Intervals of fewer than some {FEW} groups are too narrow to rely on."
    return few if 1 < groups < FEW else ""


def of(
    groups: Sequence[str],
    sums: np.ndarray,
    scores: Callable[[np.ndarray], Mapping[str, np.ndarray]],
) -> dict[str, Interval]:
    """The interval of each score.

    Args:
        groups: The group of each of N images.
        sums: float64 [N, S], what is added up of each image.
        scores: From sums over images, float64 [..., S], to scores [...] by name.

    Returns:
        Lower and upper end by name; nothing where there are fewer than two groups, and no score
        that is NaN in every draw.
    """
    names, number = np.unique(np.array(groups, str), return_inverse=True)
    count = len(names)
    if count < 2:
        return {}
    totals = np.zeros((count, sums.shape[1]))
    np.add.at(totals, number, sums)
    generator = np.random.Philox(key=_SEED)
    found: dict[str, list[np.ndarray]] = {}
    rows = max(1, _AT_ONCE // count)
    for start in range(0, DRAWS, rows):
        height = min(rows, DRAWS - start)
        drawn = (generator.random_raw(height * count) % np.uint64(count)).astype(np.int64)
        place = drawn + np.repeat(np.arange(height) * count, count)
        weights = np.bincount(place, minlength=height * count).reshape(height, count)
        for name, values in scores(weights @ totals).items():
            found.setdefault(name, []).append(values)
    ends = 50 * (1 - COVERED), 50 * (1 + COVERED)
    each = {name: np.concatenate(values) for name, values in found.items()}
    return {
        name: (float(low), float(high))
        for name, values in each.items()
        if not np.isnan(values).all()
        for low, high in [np.nanpercentile(values, ends)]
    }

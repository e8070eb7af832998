"""Which annotations do not fit their images, from what was measured of each.

An example is compared with those of its stratum, that is with images of like colour and brightness;
no image is known here. All figures below: 261 real images of nuclei, and each mistake planted in
them.
"""

import collections
from collections.abc import Iterable, Sequence

import numpy as np

from segdata.inspection.fit import Fit
from segdata.inspection.summaries import Summary

SHIFTED = 0.023
"""Share of the longer side. Right masks lie best within 0.019 of where they are; of masks shifted
by 3 %, 98 % lie best beyond 0.023."""

EDGES = 6.0
"""How well an outline lies on edges, in standard deviations, to say where it belongs. Masks of
other images come to 5.2 at their best shift; 98 % of right ones are above 6."""

NO_EDGES = 4.5
"""The same, below which an outline lies on no edges: masks of other images are below 3.9, the worst
right one, of touching dim nuclei, at 4.6."""

USUAL_EDGES = 9.0
"""The same, which three quarters of a stratum must reach before one without edges is doubted. In
real strata nine in ten do. Synthetic roads do not, as kerbs and shadows are edges too."""

TYPICAL = 0.15
"""Difference of the separation from the stratum's median. Right masks of fluorescence differ by
0.05 at most; a mask without edges that differs by less may still be right."""

CLEAR = 0.75
"""The separation that is clear: right ones are above 0.94 in fluorescence, below 0.21 in tissue."""

STEADY = 0.8
"""The share of a stratum that must be clear before one is called inverted or unfinished."""

ELSEWHERE = 0.35
"""The share of strong edges that are at no object. Right masks have 0.30 at most, masks without
half of their objects 0.48 at the median and 0.39 or more in nine of ten."""

USUAL = 0.15
"""How far above the median of its stratum that share must be: stained cytoplasm has edges too."""

FEW = 5
"""Examples; a stratum of fewer does not show what is usual."""


def found(examples: Iterable[Summary], *, two_classes: bool) -> list[tuple[Summary, str]]:
    """Finds annotations that do not seem to fit.

    Args:
        examples: With labels.
        two_classes: Whether there is an inside and an outside; else only shifts and masks of other
            images are looked for.

    Returns:
        Examples, each with what seems to be wrong.
    """
    strata = collections.defaultdict[str, list[tuple[Summary, Fit]]](list)
    for item in examples:
        if item.fit:
            strata[item.stratum].append((item, item.fit))
    cases = []
    for members in strata.values():
        stratum = _Stratum([fit for _, fit in members], two_classes=two_classes)
        cases += [(item, doubt) for item, fit in members if (doubt := stratum.doubt(fit))]
    return cases


class _Stratum:
    """What is usual among similar images."""

    def __init__(self, fits: Sequence[Fit], *, two_classes: bool):
        separations = np.array([fit.separation for fit in fits])
        self.on_edges = float(np.quantile([fit.here for fit in fits], 0.25)) >= USUAL_EDGES
        self.separation = float(np.median(separations))
        self.elsewhere = float(np.median([fit.elsewhere for fit in fits]))
        self.bright = self.separation > 0.5
        clear = separations > CLEAR if self.bright else separations < 1 - CLEAR
        self.enough = len(fits) >= FEW
        self.steady = two_classes and self.enough and float(clear.mean()) >= STEADY

    def doubt(self, fit: Fit) -> str:
        """What seems to be wrong with an annotation; "" where nothing does."""
        far = float(np.hypot(*fit.shift))
        if far >= SHIFTED and fit.best >= EDGES and fit.here < 0.85 * fit.best:
            down, right = fit.shift
            return (
                f"shifted: it fits better {abs(down):.1%} {'lower' if down > 0 else 'higher'} and "
                f"{abs(right):.1%} further {'right' if right > 0 else 'left'}"
            )
        if fit.here < NO_EDGES and self.enough and self.on_edges:
            unlike = abs(fit.separation - self.separation) > TYPICAL
            if unlike or not self.steady:
                return "of another image: its outlines lie on no edges"
        if not self.steady:
            return ""
        if (fit.separation < 1 - CLEAR) if self.bright else (fit.separation > CLEAR):
            kind = "brighter" if self.bright else "darker"
            return f"inverted: objects of similar images are {kind} than the rest, these are not"
        if fit.elsewhere >= max(ELSEWHERE, self.elsewhere + USUAL):
            return f"unfinished: {fit.elsewhere:.0%} of the strong edges are at no object"
        return ""

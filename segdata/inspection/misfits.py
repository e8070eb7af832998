"""Which annotations do not fit their images, from what was measured of each.

An example is compared with those of its stratum, that is with images of like colour and brightness;
no image is known here. Where brightness alone says in most of a stratum what is inside, as it does
of nuclei, that is what an example must agree with; elsewhere, and where objects are large, it is
what the other masks teach.
Figures of brightness and edges below: 261 real images of nuclei, and each mistake planted in them;
of what masks teach: synthetic cars and streets, 520 right ones of two seeds.
"""

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from segdata.inspection.expectation import Agreement
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

SAMPLE, LEARNED_OVERLAP = 32, 0.7
"""Examples that show whether masks can be learned, and the overlap that most of them must reach.
Nuclei reach 0.64, cars 0.87."""

TEACHING = 20
"""Examples; fewer teach no model what is usual."""

ALIKE = 0.8
"""The share of a stratum that must agree with what its masks teach before others are doubted."""

LEARNED, WELL_LEARNED = 0.9, 0.985
"""The separation by what masks teach which that share must reach before one is called inverted, or
of another image. Real nuclei reach 0.945, cars and streets 0.991."""

INVERTED = 0.25
"""The separation by what masks teach below which a mask is inverted: those are below 0.15, right
masks of nuclei above 0.7, of cars and streets above 0.975."""

DISAGREEING, TIMES = 0.03, 3
"""How much of that separation is missing in a mask of another image or an unfinished one, and how
many times what is missing in most of the stratum. Right masks miss up to 0.024."""

OVERLAP, MUCH_LESS = 0.27, 2
"""The same of the overlap with what masks teach, and how many times. Right masks miss up to 0.22,
most of them 0.13; unfinished ones 0.29 or more."""


class Similar(NamedTuple):
    """The examples of a stratum."""

    members: list[int]
    """Their indices."""
    steady: bool
    """Whether brightness says what is inside."""

    @property
    def sample(self) -> list[int]:
        """Some of them, spread evenly."""
        return self.members[:: -(-len(self.members) // SAMPLE)]


def strata(examples: Sequence[Summary]) -> list[Similar]:
    """The strata that are large enough to teach what a mask is like."""
    found = collections.defaultdict[str, list[tuple[int, Fit]]](list)
    for index, item in enumerate(examples):
        if item.fit:
            found[item.stratum].append((index, item.fit))
    return [
        Similar(
            members=[index for index, _ in members],
            steady=_Stratum([fit for _, fit in members], two_classes=True).steady,
        )
        for members in found.values()
        if len(members) >= TEACHING
    ]


def learned(agreements: Sequence[Agreement]) -> bool:
    """Whether most masks agree with what they teach."""
    overlap = float(np.quantile([each.overlap for each in agreements], 1 - ALIKE))
    return overlap >= LEARNED_OVERLAP


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
        taught = _Taught([item.agreement for item, _ in members if item.agreement])
        cases += [
            (item, doubt)
            for item, fit in members
            if (doubt := stratum.doubt(fit) or taught.doubt(item.agreement))
        ]
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


class _Taught:
    """How well most masks of similar images agree with what these masks teach."""

    def __init__(self, agreements: Sequence[Agreement]):
        self.enough = len(agreements) >= TEACHING
        if self.enough:
            self.separation, self.overlap = (
                float(np.quantile(each, 1 - ALIKE))
                for each in zip(*map(dataclasses.astuple, agreements), strict=True)
            )

    def doubt(self, agreement: Agreement | None) -> str:
        """What seems to be wrong with an annotation; "" where nothing does."""
        if not (agreement and self.enough and self.separation >= LEARNED):
            return ""
        if agreement.separation < INVERTED:
            return "inverted: what looks like the objects of similar images is outside"
        if self.separation < WELL_LEARNED or self.overlap < 1 - OVERLAP / MUCH_LESS:
            return ""
        missing, apart = 1 - agreement.separation, 1 - agreement.overlap
        if missing > max(DISAGREEING, TIMES * (1 - self.separation)) or apart > OVERLAP:
            return (
                f"of another image, or unfinished: it shares {agreement.overlap:.0%} with what "
                f"looks like the objects of similar images, most masks {self.overlap:.0%} or more"
            )
        return ""

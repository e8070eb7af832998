"""Damage as in real archives, applied to synthetic ones: one victim, chosen by the seed."""

import os
import pathlib
import zipfile
from typing import Any

import numpy as np

from segdata import sources
from segdata.testing.damage_kinds import KINDS, Kind, Outcome


def kinds(source: str) -> dict[str, Kind]:
    """The kinds of damage that can happen to a source, by name."""
    layout = sources.named(source).layout
    return {name: kind for name, kind in KINDS.items() if layout in kind.outcomes}


def kind_of(name: str, *, source: str) -> Kind:
    """One kind of damage.

    Raises:
        ValueError: If there is no such kind, or it cannot happen to this source.
    """
    known = kinds(source)
    if name not in known:
        raise ValueError(f"damage {name!r}: of {source} there are {', '.join(known) or 'none'}.")
    return known[name]


def outcome(name: str, *, source: str) -> Outcome:
    """What becomes of a source with a kind of damage; `ValueError` as from `kind_of`."""
    layout: Any = sources.named(source).layout
    return kind_of(name, source=source).outcomes[layout]


def inflict(name: str, folder: str | os.PathLike[str], *, source: str, seed: int) -> str:
    """Damages a synthetic source.

    Args:
        name: A key of `kinds(source)`.
        folder: Holds the source as undamaged zips.
        source: The name of the source.
        seed: Chooses the victim.

    Returns:
        The name of the damaged file, example or zip.

    Raises:
        ValueError: If there is no such damage, or it cannot happen to this source.
    """
    kind = kind_of(name, source=source)
    holds, contained = sources.named(source).victims[kind.part]
    archive = pathlib.Path(folder, f"{holds}.zip")
    with zipfile.ZipFile(archive) as packed:
        names = sorted(member for member in packed.namelist() if contained in member)
    victim = names[int(np.random.default_rng([seed, len(name)]).integers(len(names)))]
    return kind.change(archive, victim)

"""Damage as in real archives, applied to synthetic ones: one victim, chosen by the seed."""

import os
import pathlib
import zipfile

import numpy as np

from segdata.testing.damage_kinds import KINDS, Kind

_HOLDS = {  # the archive of photos and of masks of each source
    "carvana": {"photo": "train_hq", "mask": "train_masks"},
    "cityscapes_pairs": {"photo": "cityscapes-image-pairs"},
    "dsb2018": {"photo": "stage1_train", "mask": "stage1_train"},
}


def kinds(source: str) -> dict[str, Kind]:
    """The kinds of damage that can happen to a source, by name."""
    return {name: kind for name, kind in KINDS.items() if source in kind.outcomes}


def kind_of(name: str, *, source: str) -> Kind:
    """One kind of damage.

    Raises:
        ValueError: If there is no such kind, or it cannot happen to this source.
    """
    known = kinds(source)
    if name not in known:
        raise ValueError(f"damage {name!r}: of {source} there are {', '.join(known)}.")
    return known[name]


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
    archive = pathlib.Path(folder, f"{_HOLDS[source][kind.part]}.zip")
    with zipfile.ZipFile(archive) as packed:
        names = sorted(n for n in packed.namelist() if _is_victim(n, part=kind.part, source=source))
    victim = names[int(np.random.default_rng([seed, len(name)]).integers(len(names)))]
    return kind.change(archive, victim)


def _is_victim(name: str, *, part: str, source: str) -> bool:
    return source != "dsb2018" or f"/{part}s/".replace("photo", "image") in name

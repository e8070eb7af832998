"""TFDS builders, one folder each. Importing this registers those of segdata's sources with TFDS."""

import importlib
from typing import Any

from segdata import sources

__all__ = ["register", *sources.OURS]  # pyright: ignore[reportUnsupportedDunderAll]


def register(name: str) -> None:
    """Registers a source's builder with TFDS, which that of another package needs.

    Raises:
        ValueError: If there is no such source, or its package is broken.
    """
    place = sources.named(name).builder
    if "." not in place:
        raise ValueError(
            f"the builder of the source {name}, {place!r}, is in no package: TFDS reads README.md, "
            "CITATIONS.bib and TAGS.txt of its folder."
        )
    with sources.explained(f"the builder of the source {name}, {place}, cannot be imported"):
        module = importlib.import_module(place)
    held = [x.SOURCE.name for x in vars(module).values() if isinstance(x, type) and _is_builder(x)]
    if name not in held:
        raise ValueError(
            f"the builder of the source {name}: {place} has no class `Builder` whose SOURCE it is."
        )


def _is_builder(kind: Any) -> bool:
    return isinstance(getattr(kind, "SOURCE", None), sources.Source)


for _name in sources.OURS:
    register(_name)
    globals()[_name] = importlib.import_module(sources.named(_name).builder)

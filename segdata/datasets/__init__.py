"""TFDS builders, one folder each. Importing this registers those of segdata's sources with TFDS."""

import importlib

from segdata import sources

__all__ = ["register", *sources.OURS]  # pyright: ignore[reportUnsupportedDunderAll]


def register(name: str) -> None:
    """Registers a source's builder with TFDS, which that of another package needs.

    Raises:
        ValueError: If there is no such source, or its package is broken.
    """
    module = sources.named(name).builder
    with sources.explained(f"the builder of the source {name}, {module}, cannot be imported"):
        importlib.import_module(module)


for _name in sources.OURS:
    register(_name)
    globals()[_name] = importlib.import_module(sources.named(_name).builder)

"""TFDS builders, one folder each. Importing this registers those of all sources with TFDS."""

import importlib

from segdata import sources

__all__ = list(sources.names())  # pyright: ignore[reportUnsupportedDunderAll]

for _name in __all__:
    globals()[_name] = importlib.import_module(sources.named(_name).builder)

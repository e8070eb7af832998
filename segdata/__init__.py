"""Segmentation data from raw archives to training batches at the speed of memory.

The public names are loaded when first used, so that importing this is instant.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segdata.archives import ArchiveError
    from segdata.building.features import Named
    from segdata.building.folder import build_folder
    from segdata.core.augment import Augment
    from segdata.core.mixture import Mixture
    from segdata.core.records import Records
    from segdata.core.stream import Stream
    from segdata.mixing import mix, mix_eval_batches
    from segdata.packing import pack
    from segdata.pipeline import eval_batches, steps_per_epoch, train_batches

__version__ = "0.1.0"

__all__ = [
    "ArchiveError",
    "Augment",
    "Mixture",
    "Named",
    "Records",
    "Stream",
    "build_folder",
    "eval_batches",
    "mix",
    "mix_eval_batches",
    "pack",
    "steps_per_epoch",
    "train_batches",
]

_HOME = {
    "ArchiveError": "archives",
    "Augment": "core.augment",
    "Mixture": "core.mixture",
    "Named": "building.features",
    "Records": "core.records",
    "Stream": "core.stream",
    "build_folder": "building.folder",
    "eval_batches": "pipeline",
    "mix": "mixing",
    "mix_eval_batches": "mixing",
    "pack": "packing",
    "steps_per_epoch": "pipeline",
    "train_batches": "pipeline",
}


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'segdata' has no attribute {name!r}")
    return getattr(importlib.import_module(f"segdata.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

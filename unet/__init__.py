"""A small U-Net on Keras, trained on any iterable of images and masks.

Commands: `unet --help`. From Python: `build` a network, train it with `train_step` and `losses` in
a loop of one's own, `load` what `unet train` has trained, and `predict` images of any size
(docs/unet-from-python.md).

The public names are loaded when first used, so that importing this is instant; Keras is loaded with
those that need it.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unet import losses
    from unet.model import FCN, UNet
    from unet.recipes import RECIPES, Recipe
    from unet.steps import Variables, build, train_step
    from unet.trained import Prediction, Trained, load, predict

__all__ = [
    "FCN",
    "RECIPES",
    "Prediction",
    "Recipe",
    "Trained",
    "UNet",
    "Variables",
    "build",
    "load",
    "losses",
    "predict",
    "train_step",
]

_HOME = {
    "FCN": "model",
    "Prediction": "trained",
    "RECIPES": "recipes",
    "Recipe": "recipes",
    "Trained": "trained",
    "UNet": "model",
    "Variables": "steps",
    "build": "steps",
    "load": "trained",
    "predict": "trained",
    "train_step": "steps",
}


def __getattr__(name: str):
    if name == "losses":
        return importlib.import_module("unet.losses")
    if name not in _HOME:
        raise AttributeError(f"module 'unet' has no attribute {name!r}")
    return getattr(importlib.import_module(f"unet.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

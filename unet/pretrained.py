"""First weights from the best model of another run."""

import dataclasses
import hashlib
import pathlib
from typing import Any

from unet import runs
from unet.runs import Settings

_FREE = ("dropout", "initializer", "output_channels", "output_activation")  # change no other layer


def of(run: pathlib.Path) -> dict[str, str]:
    """What `Settings.init_from` holds of a run: its folder, and the checksum of its best model.

    Raises:
        ValueError: If the folder holds no run, or one that has not finished its first epoch.
    """
    runs.settings(run)
    return {"run": str(run.absolute()), "sha256": _checksum(run)}


def load(network: Any, settings: Settings) -> str:
    """Gives a fresh model the weights that its settings name; does nothing where they name none.

    The head keeps its fresh weights where channels, activation or classes differ.

    Args:
        network: From `train.compiled`.
        settings: Of the new run.

    Returns:
        A line that says what was loaded; empty where nothing was.

    Raises:
        ValueError: If the other run is not there, its best model is not as it was, or its model has
            other layers.
    """
    if not settings.init_from:
        return ""
    run = pathlib.Path(settings.init_from["run"])
    if _checksum(run) != settings.init_from["sha256"]:
        raise ValueError(
            f"{run / 'best.keras'} is not as it was when this run began, and is needed until its "
            "first checkpoint; bring it back from a copy, or train in another folder."
        )
    theirs = runs.settings(run)
    _require_alike(settings.recipe.model, theirs.recipe.model, run)
    heads = [
        (each.recipe.model.output_channels, each.recipe.model.output_activation, each.classes)
        for each in (settings, theirs)
    ]
    fresh = ["head"] if heads[0] != heads[1] else []
    loaded: Any = runs.load(run, settings.choice)
    layers = [[layer for layer in each.layers if layer.weights] for each in (network, loaded)]
    for layer, source in zip(*layers, strict=True):
        if layer.name not in fresh:
            layer.set_weights(source.get_weights())
    said = f"First weights are those of the best model of {run}"
    return f"{said}; the head starts afresh, as its classes are others." if fresh else f"{said}."


def _require_alike(own: Any, other: Any, run: pathlib.Path) -> None:
    """Raises ValueError if two models differ in more than head, dropout and first weights."""
    kinds = type(own).__name__, type(other).__name__
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"--init_from {run}: its model is a {kinds[1]}, and this one a {kinds[0]}."
        )
    differing = [
        f"{field.name} {getattr(other, field.name)} and not {getattr(own, field.name)}"
        for field in dataclasses.fields(own)
        if field.name not in _FREE and getattr(own, field.name) != getattr(other, field.name)
    ]
    if differing:
        raise ValueError(
            f"--init_from {run}: its model has {', '.join(differing)}; its weights do not fit. "
            "Give the same by flags, or train from the start."
        )


def _checksum(run: pathlib.Path) -> str:
    try:
        with (run / "best.keras").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(
            f"{run / 'best.keras'} cannot be read, and first weights are to come from it: "
            f"{runs.reason(error)}. Name a run that has finished an epoch."
        ) from error

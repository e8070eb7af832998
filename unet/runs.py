"""The folder of one training run: what it holds, and how it is written.

    settings.json         what was asked for; written once
    state.json            how far it came: step, history, and which checkpoint belongs to them
    checkpoint-STEP.npz   every variable of model, optimizer and metrics
    best.keras            the model of the epoch with the lowest validation loss
    metrics.jsonl         the history, a line an epoch
    tensorboard/          the same as event files
    report.html           the same to look at

Each file is written under another name and moved into place, so it is there whole or not at all.
`state.json` alone says what is true; a checkpoint it does not name is not read, and whatever else
it decides is written after it. So a run may be killed at any moment. Keras is imported only to load
a model.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from unet import hardware, model, recipes
from unet.hardware import Choice
from unet.recipes import Recipe

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All that was asked for when a run began."""

    recipe: Recipe

    choice: Choice
    """Precision and compilation."""

    name: str = ""
    """Which published recipe it started from."""

    classes: tuple[str, ...] = ()
    """The names of the classes where the model tells several apart."""

    data_dir: str | None = None
    """Where the data set is; None for where it is kept by default."""

    deterministic: bool = False
    """Whether the same run must give the same weights, bit for bit."""

    checkpoint_minutes: float = 10.0
    """How much work a kill may cost; 0 keeps every step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """How far a run came."""

    step: int = 0
    """Optimizer steps taken."""

    checkpoint: str | None = None
    """The file that holds every variable at this step; None for the first weights."""

    seconds: float = 0.0
    """Time spent in the epoch under way."""

    history: tuple[dict[str, Any], ...] = ()
    """What was measured at the end of each epoch."""


def require_new(run: pathlib.Path) -> None:
    """Refuses a folder that a new run would overwrite.

    Raises:
        ValueError: If the folder is there already and holds anything.
    """
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        known = f"`unet resume {run}` goes on with it" if (run / "settings.json").exists() else ""
        raise ValueError(
            f"{run} is there already and is never overwritten: {known or 'it holds other files'}; "
            f"for a new run name another folder."
        )


def create(run: pathlib.Path, settings: Settings) -> None:
    """Makes the folder of a new run.

    Args:
        run: Where; its parents are made too.
        settings: What was asked for.

    Raises:
        ValueError: If the folder is there already and holds anything.
    """
    require_new(run)
    run.mkdir(parents=True, exist_ok=True)
    saved = dataclasses.asdict(dataclasses.replace(settings, recipe=Recipe()))
    _write_json(run / "settings.json", saved | {"recipe": recipes.to_json(settings.recipe)})


def settings(run: pathlib.Path) -> Settings:
    """Returns what a run was asked for.

    Raises:
        ValueError: If the folder holds no run, or one of another version of unet.
    """
    saved = _read_json(run, "settings.json")
    try:
        choice = Choice(**saved.pop("choice"))
        recipe, classes = recipes.from_json(saved.pop("recipe")), tuple(saved.pop("classes", ()))
        return Settings(recipe=recipe, choice=choice, classes=classes, **saved)
    except (TypeError, KeyError) as error:
        raise ValueError(f"{run / 'settings.json'} is of another version: {error}") from error


def state(run: pathlib.Path) -> State:
    """Returns how far a run came; a fresh state where it was killed before its first checkpoint.

    Raises:
        ValueError: If the folder holds no run.
    """
    settings(run)
    if not (run / "state.json").exists():
        return State()
    saved = _read_json(run, "state.json")
    return State(history=tuple(saved.pop("history")), **saved)


def write_state(run: pathlib.Path, reached: State) -> None:
    """Makes it true that a run came this far, and drops the checkpoints before."""
    _write_json(run / "state.json", dataclasses.asdict(reached))
    for file in run.glob("checkpoint-*"):
        if file.name != reached.checkpoint:
            file.unlink()


def write_metrics(run: pathlib.Path, reached: State) -> None:
    """Writes the history as lines of JSON."""
    with replacing(run / "metrics.jsonl") as file:
        file.write_text("".join(json.dumps(row) + "\n" for row in reached.history))


def best_epoch(history: tuple[dict[str, Any], ...]) -> int | None:
    """Index of the epoch with the lowest validation loss, the first of equals; None before any."""
    return min(range(len(history)), key=lambda i: history[i]["val_loss"], default=None)


def load(run: pathlib.Path, choice: Choice | None = None) -> keras.Model:
    """Loads the best model of a run, in this machine's precision and not that of the training.

    Args:
        run: The run's folder.
        choice: Precision and compilation; the best for this machine if not given.

    Returns:
        A model from uint8 [B, H, W, 3] to float32 [B, H, W, C], for inference.

    Raises:
        ValueError: If the folder holds no run, or one that has not finished its first epoch.
    """
    recipe = settings(run).recipe
    if not (run / "best.keras").exists():
        raise ValueError(
            f"{run} has no best.keras: it was stopped in its first epoch; "
            f"`unet resume {run}` goes on with it."
        )
    choice = choice or hardware.choose()
    hardware.apply(choice)
    network = model.build(recipe.model)
    network.load_weights(run / "best.keras")
    network.jit_compile = choice.compile
    return network


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A name to write a file under, which becomes `path` at once and only if nothing went wrong."""
    unfinished = path.with_name(f"unfinished-{path.name}")
    yield unfinished
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.replace(path)


def _write_json(path: pathlib.Path, saved: dict[str, Any]) -> None:
    with replacing(path) as file:
        file.write_text(json.dumps(saved, indent=2) + "\n")


def _read_json(run: pathlib.Path, name: str) -> dict[str, Any]:
    try:
        return json.loads((run / name).read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"{run} holds no run: there is no {name} in it.") from error
    except ValueError as error:
        raise ValueError(f"{run / name} is damaged: {error}") from error

"""The folder of one training run: what it holds, and how it is written.

    settings.json         the settings; written once, and where more epochs are asked for
    checkpoint-STEP.npz   every variable of model, optimizer and metrics, and the state they belong
                          to; the last two
    state.json            the state of the newest: step, history
    best.keras            the model of the best epoch by `Recipe.best_by`
    metrics.jsonl         the history, a line an epoch
    sources.json          of a mixture: what the epochs that ended held of each dataset
    tensorboard/          the history as event files
    report.html           the history, scores and images as a page
    .lock                 held by the process that trains

Each file is written atomically, under another name that is then replaced. A checkpoint commits the
training state; the other files are written after it, and again on resuming where a kill came
between. So a run may be killed at any moment. One process trains a run at a time: it holds the
lock and, since not every file system has locks, stops where `state.json` is not as it left it.
Keras is imported only to load a model.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import shlex
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from segdata.archives.intensity import Scaling
from segdata.core.augment import Augment
from segdata.core.system import files
from unet import hardware, model, recipes, saved
from unet.hardware import Choice
from unet.recipes import Recipe

if TYPE_CHECKING:
    import keras

_LOCK = ".lock"
_SIZES = {"height", "width", "longest"}
_READ = {  # of each epoch, by `best_epoch` and the report; other scores are numbers too
    **dict.fromkeys(("epoch", "step"), int),
    **dict.fromkeys(("loss", "val_loss", "learning_rate", "seconds"), float),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run."""

    recipe: Recipe

    choice: Choice
    """Precision and compilation."""

    name: str = ""
    """The published recipe that it is based on."""

    classes: tuple[str, ...] = ()
    """The names of the classes; empty for a model of one channel."""

    scalings: Mapping[str, Mapping[str, Any] | None] = dataclasses.field(default_factory=dict)
    """By dataset how brightness became 8 bits when it was built, as JSON of
    `segdata.archives.intensity.Scaling`; None where images had 8 bits."""

    trained_on: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Sizes of a sample of the images of the training, from `Data.sizes`; empty where they were not
    kept."""

    made_with: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What its numbers depend on besides these settings, by name: data and libraries."""

    init_from: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The run whose best model gave the first weights, and the checksum of that; empty for none."""

    data_dir: str | None = None
    """Where the dataset is; None for TFDS's default."""

    deterministic: bool = False
    """Whether the same run must give the same weights, bit for bit."""

    checkpoint_minutes: float = 10.0
    """The most work that a kill may cost; 0 saves every step."""

    steps_per_execution: int = 1
    """The most steps in one call of the compiled training step, as Keras calls it."""

    def __post_init__(self) -> None:
        """Raises ValueError if a number is too small."""
        if self.checkpoint_minutes < 0:
            raise ValueError(f"checkpoint_minutes={self.checkpoint_minutes}: 0 or more.")
        if self.steps_per_execution < 1:
            raise ValueError(f"steps_per_execution={self.steps_per_execution}: 1 or more.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """The training state, apart from the variables."""

    step: int = 0
    """Batches trained on."""

    checkpoint: str | None = None
    """The file of every variable at this step, and of this state; None before the first."""

    seconds: float = 0.0
    """Time spent in the current epoch."""

    history: tuple[dict[str, float], ...] = ()
    """Losses and scores of each epoch."""


def require_new(run: pathlib.Path) -> None:
    """Requires a folder that a new run may be created in.

    Raises:
        ValueError: If the folder exists and holds more than a process leaves that was killed before
            it had written its settings.
    """
    if run.exists() and not (
        run.is_dir()
        and all(file.name == _LOCK or files.is_unfinished(file.name) for file in run.iterdir())
    ):
        known = f"{_resume(run)} resumes it" if (run / "settings.json").exists() else ""
        raise ValueError(
            f"{run} exists and is never overwritten: {known or 'it holds other files'}; "
            f"for a new run name another folder."
        )


def create(run: pathlib.Path, settings: Settings) -> None:
    """Makes the folder of a new run.

    Args:
        run: The folder; its parents are made too.
        settings: The settings.

    Raises:
        ValueError: If the folder exists and is not empty.
        OSError: If another process is making it, or it cannot be written.
    """
    saved.checked(settings)
    require_new(run)
    files.make_folder(run)
    with held(run):
        require_new(run)  # another process may have been faster
        _write_settings(run, settings)


def extend(run: pathlib.Path, *, epochs: int) -> Settings:
    """Changes how many epochs a run has, whether or not it has finished.

    From here on the learning rate is that of a run which had as many from the start: with a cosine
    it rises from what it has come down to, and falls to 0 at the new end; a constant one stays.

    Args:
        run: The run's folder.
        epochs: How many in all; as many as there are change nothing.

    Returns:
        The settings as they are now.

    Raises:
        ValueError: If the folder holds no run, `epochs` are fewer than before, or the run ended
            before its last epoch because of its patience.
        OSError: If another process trains the run; if the settings cannot be written.
    """
    with held(run):
        before, reached = settings(run), state(run)
        recipe = before.recipe
        if epochs == recipe.epochs:
            return before
        if epochs < recipe.epochs:
            raise ValueError(
                f"--epochs {epochs}: {run} has {recipe.epochs} epochs; give more, since what was "
                "trained cannot be taken back."
            )
        if is_out_of_patience(reached.history, recipe):
            raise ValueError(
                f"--epochs {epochs}: {run} stopped after epoch {len(reached.history)}, as "
                f"{recipe.patience} epochs brought no better one. Train anew with "
                "another patience; --init_from starts from its weights."
            )
        after = dataclasses.replace(before, recipe=dataclasses.replace(recipe, epochs=epochs))
        _write_settings(run, after)
        return after


def is_out_of_patience(history: tuple[dict[str, Any], ...], recipe: Recipe) -> bool:
    """Whether `patience` epochs brought no better one."""
    best = best_epoch(history, recipe.best_by)
    if recipe.patience is None or best is None:
        return False
    return len(history) - 1 - best >= recipe.patience


@contextlib.contextmanager
def held(run: pathlib.Path) -> Iterator[None]:
    """Locks a run's folder for training; removes unfinished files of killed processes.

    Raises:
        files.HeldError: If another process holds it; the message names it.
    """
    with files.locked(run / _LOCK):
        files.remove_unfinished(run)
        yield


def settings(run: pathlib.Path) -> Settings:
    """Returns the settings of a run.

    Raises:
        ValueError: If the folder holds no run, or its settings are damaged or of another version.
    """
    path = run / "settings.json"
    try:
        fields = saved.parsed(path.read_bytes())
        choice = Choice(**fields.pop("choice"))
        recipe, classes = recipes.from_json(fields.pop("recipe")), tuple(fields.pop("classes", ()))
        for shown in (recipe.augment, *recipe.mix.get("augment", {}).values()):
            Augment(**(shown or {}))  # of a dataset of a mixture it may be None
        found = saved.checked(Settings(recipe=recipe, choice=choice, classes=classes, **fields))
        sizes = found.trained_on
        if sizes and (sizes.keys() != _SIZES or min(sizes.values()) < 1):
            raise ValueError(f"trained_on is {sizes!r:.80}")
        return found
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"{run} holds no run: there is no settings.json in it.") from error
    except (
        *(ValueError, TypeError, KeyError, AttributeError, RecursionError, IsADirectoryError),
    ) as error:
        raise ValueError(
            f"{path} is damaged or of another version: {reason(error)}. Bring it back from a copy, "
            f"or train in another folder."
        ) from error


def scalings(settings: Settings) -> dict[str, Scaling | None]:
    """By dataset that a run was trained on, how brightness became 8 bits; None for 8 bits.

    Raises:
        ValueError: If that is damaged.
    """
    return {
        name: None if found is None else Scaling.from_json(found)
        for name, found in settings.scalings.items()
    }


def state(run: pathlib.Path) -> State:
    """Returns the state of a run; the initial one where it was killed before its first checkpoint.

    Raises:
        ValueError: If the folder holds no run, or its state is damaged.
    """
    settings(run)
    path = run / "state.json"
    try:
        return decoded(path.read_bytes())
    except FileNotFoundError:
        return State()
    except IsADirectoryError as error:
        raise ValueError(f"{path} is a folder; remove it, and {_resume(run)} writes it.") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged: {reason(error)}. {_resume(run)} writes it again."
        ) from error


def encoded(reached: State) -> bytes:
    """Returns a state as JSON."""
    return _json(dataclasses.asdict(reached))


def decoded(text: bytes) -> State:
    """Returns the state from the JSON of `encoded`.

    Raises:
        ValueError: If it is not such JSON.
        RecursionError: If it is nested too deeply.
    """
    fields = saved.parsed(text)
    odd = fields.keys() ^ {field.name for field in dataclasses.fields(State)}
    if odd:
        raise ValueError(f"it lacks {min(odd)!r:.40}, or should not have it")
    if not isinstance(fields["history"], list):
        raise ValueError("its history is no list")
    fields["history"] = tuple(fields["history"])
    reached = saved.checked(State(**fields))
    if reached.step < 0:
        raise ValueError(f"its step is {reached.step}")
    for row in reached.history:
        for name in row.keys() | _READ:
            if not saved.fits(row.get(name), _READ.get(name, float)):
                raise ValueError(f"{name} of an epoch is {row.get(name)!r:.40}")
    return reached


def changes(settings: Settings, found: Mapping[str, str]) -> list[str]:
    """What is not as it was when a run began, a phrase each; nothing of what was not kept.

    Args:
        settings: The run's.
        found: The same as `Settings.made_with`, now.
    """
    return [
        f"{name} was {kept} and is {found.get(name, 'not used')}"
        for name, kept in settings.made_with.items()
        if kept != found.get(name)
    ]


def write_state(run: pathlib.Path, reached: State, *, known: State | None = None) -> None:
    """Writes `state.json`; `known` as in `writing`."""
    with writing(run / "state.json", known=known) as file:
        file.write_bytes(encoded(reached))


def write_metrics(run: pathlib.Path, reached: State) -> None:
    """Writes the history as lines of JSON."""
    with files.replacing(run / "metrics.jsonl") as file:
        file.write_text("".join(json.dumps(row) + "\n" for row in reached.history))


def write_sources(run: pathlib.Path, account: Mapping[str, Any]) -> None:
    """Writes what a training on several datasets held of each."""
    with files.replacing(run / "sources.json") as file:
        file.write_bytes(_json(dict(account)))


@contextlib.contextmanager
def writing(path: pathlib.Path, *, known: State | None = None) -> Iterator[pathlib.Path]:
    """`files.replacing` for a file of a run.

    Args:
        path: Its final name.
        known: The state that this process read or wrote last. If `state.json` holds another, the
            file is discarded. None checks nothing.

    Yields:
        Where to write. Do only that inside: every exception becomes an error of writing.

    Raises:
        files.HeldError: If another process has written `state.json`.
        OSError: If the file cannot be written, as on a full disk; the old one is unchanged.
    """
    run = path.parent
    try:
        with files.replacing(path) as unfinished:
            yield unfinished
            if known is not None and run.is_dir() and not is_state(run, known):
                raise files.HeldError(
                    f"{run / 'state.json'} is not as this process left it: another process is "
                    f"training this run, or removed that file; this one stops."
                )
    except files.HeldError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # h5py raises any of them on a full disk
        kind = type(error) if isinstance(error, OSError) else OSError
        if not run.is_dir():
            raise kind(
                f"{path} cannot be written: the folder {run} was removed or renamed meanwhile. "
                "Where it is now, `unet resume` with its new name resumes the run."
            ) from error
        then = (
            f"{_resume(run)} resumes the run" if (run / "settings.json").exists() else "try again"
        )
        raise kind(f"{path} cannot be written: {reason(error)}. Fix that, then {then}.") from error


def is_state(run: pathlib.Path, reached: State) -> bool:
    """Whether `state.json` holds this state; the initial one has no file."""
    try:
        return (run / "state.json").read_bytes() == encoded(reached)
    except FileNotFoundError:
        return reached == State()


def best_epoch(history: tuple[dict[str, Any], ...], by: str = "loss") -> int | None:
    """Index of the first of the best epochs; None without epochs.

    Args:
        history: Of a state.
        by: A score on the validation images, as `Recipe.best_by` names it.

    Raises:
        ValueError: If an epoch lacks that score.
    """
    if any(f"val_{by}" not in row for row in history):
        raise ValueError(f"the history lacks val_{by}, by which the best epoch is chosen.")
    sign = 1 if by in ("loss", "mae", "rmse") else -1
    return min(range(len(history)), key=lambda i: sign * history[i][f"val_{by}"], default=None)


def load(run: pathlib.Path, choice: Choice | None = None) -> keras.Model:
    """Loads the best model of a run, by default in the precision that is best for this machine.

    Args:
        run: The run's folder.
        choice: Precision and compilation; the best for this machine if not given.

    Returns:
        A model from uint8 [B, H, W, 3] to logits float32 [B, H, W, C], for inference.

    Raises:
        ValueError: If the folder holds no run, one that has not finished its first epoch, or a
            damaged model.
    """
    recipe = settings(run).recipe
    path = run / "best.keras"
    if not path.exists():
        why = (
            f"it is lost. Bring it back from a copy, or train again; {_resume(run)} writes it "
            "where the last epoch was the best"
            if state(run).history
            else f"it was stopped in its first epoch; {_resume(run)} resumes it"
        )
        raise ValueError(f"{run} has no best.keras: {why}.")
    choice = choice or hardware.choose()
    hardware.apply(choice)
    network = model.build(recipe.model)
    try:
        with zipfile.ZipFile(path) as archive:
            if bad := archive.testzip():  # h5py seeks in it, which bypasses checksums
                raise ValueError(f"the checksum of {bad} is wrong")
        with warnings.catch_warnings(action="ignore"):  # what does not fit is an error as well
            network.load_weights(path)
    except Exception as error:  # zipfile, zlib, h5py and Keras raise a dozen kinds
        raise ValueError(
            f"{path} is damaged or of another model: {reason(error)}. Bring it back from a copy, "
            f"or train again; {_resume(run)} writes it only at a better epoch."
        ) from error
    network.jit_compile = choice.compile
    return network


def reason(error: Exception) -> str:
    """An error as one line; with its type, where the message alone does not say enough."""
    text = str(getattr(error, "strerror", None) or error).strip().partition("\n")[0]
    plain = text and isinstance(error, ValueError | OSError)
    return f"{text if plain else f'{type(error).__name__}: {text}':.200}".rstrip(".")


def _write_settings(run: pathlib.Path, settings: Settings) -> None:
    plain = dataclasses.asdict(dataclasses.replace(settings, recipe=Recipe()))
    with writing(run / "settings.json") as file:
        file.write_bytes(_json(plain | {"recipe": recipes.to_json(settings.recipe)}))


def _resume(run: pathlib.Path) -> str:
    return f"`unet resume {shlex.quote(str(run))}`"


def _json(fields: dict[str, Any]) -> bytes:
    return (json.dumps(fields, indent=2) + "\n").encode()

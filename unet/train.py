"""Training: one `fit` over one endless stream, and a callback that keeps the run's folder.

A run is a pure function of its settings and of `batches`, which gives the stream from any step on.
All other state is in variables: weights, optimizer, seeds of dropout, sums of the metrics. A
checkpoint holds them all, so a run that was killed and resumed ends with the same weights as one
that was not; bit for bit where the backend is deterministic.
"""

import collections
import contextlib
import dataclasses
import math
import pathlib
import signal
import sys
import threading
import time
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import keras
import numpy as np

from segdata import console
from segdata.core import IGNORE_LABEL
from unet import (
    checkpoints,
    evaluate,
    hardware,
    losses,
    model,
    optimizers,
    parallel,
    pictures,
    pretrained,
    runs,
)
from unet.background import Background
from unet.events import Events
from unet.metrics import Errors, Overlap
from unet.recipes import Recipe
from unet.runs import Settings, State
from unet.waiting import Waiting

_ENDING = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
_PICTURES, _PICTURE_SIDE = 3, 128  # of each dataset, for TensorBoard: some 100 KB an epoch

Validation = evaluate.Batches | Mapping[str, evaluate.Batches]


class Data(Protocol):
    """What a model is trained on and judged by; `unet.data` makes it from datasets."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        ...

    @property
    def validation(self) -> Validation:
        """Finite batches, iterated over after each epoch. Of several datasets those of each."""
        ...

    def batches(self, start_step: int) -> Iterable[Any]:
        """The endless stream from a step on: image uint8 [B, H, W, 3] and mask uint8 [B, H, W, 1].

        A batch must depend on its step alone.
        """
        ...

    def account(self, steps: int) -> Mapping[str, Any]:
        """What the first steps held, as JSON; written after each epoch. Empty for nothing."""
        ...


def run(settings: Settings, *, data: Data, out: pathlib.Path) -> State:
    """Trains a model from the start.

    Args:
        settings: What to train.
        data: What it is trained on.
        out: The folder to make for the run.

    Returns:
        The final state: after the last epoch, or where it stopped early.

    Raises:
        ValueError: If the folder is not empty, or model and data do not fit each other, before the
            folder is made; if the training diverges.
        KeyboardInterrupt: As in `resume`.
        SystemExit: As in `resume`.
        OSError: As in `resume`.
    """
    runs.require_new(out)
    steps = settings.recipe.epochs * data.steps_per_epoch
    if settings.recipe.accumulation > steps:
        raise ValueError(
            f"accumulation is {settings.recipe.accumulation:,}, and there are {steps:,} batches in "
            "all: the weights would never change. Give less, or more epochs."
        )
    with parallel.scope(settings.choice.devices):
        network = _made(settings, data)
        require_fit(network, next(iter(data.batches(0))), data.validation, settings.recipe)
        if said := pretrained.load(network, settings):
            print(console.printable(said))
        runs.create(out, settings)
        with runs.held(out):
            return _trained(network, _Keeper(out, settings, data))


def resume(out: pathlib.Path, *, data: Data, settings: Settings | None = None) -> State:
    """Resumes a run from its newest whole checkpoint; does nothing if it has finished.

    Args:
        out: The run's folder.
        data: As in `run`.
        settings: The run's, where precision, compilation or devices are chosen anew.

    Returns:
        The final state.

    Raises:
        ValueError: If the folder holds no run, its checkpoint is of another model, or none is
            whole; if the training diverges.
        KeyboardInterrupt: On SIGINT, in the main thread, after a checkpoint; the second at once.
        SystemExit: On SIGTERM, likewise, with 143; on SIGHUP, as of a terminal that is closed, 129.
        OSError: If another process trains the run; if a file cannot be written, as on a full disk.
    """
    settings = settings or runs.settings(out)
    with parallel.scope(settings.choice.devices), runs.held(out):
        return _trained(_made(settings, data), _Keeper(out, settings, data))


def prepare(settings: Settings) -> None:
    """Sets precision and seeds as a run has them, before its model is made."""
    hardware.apply(settings.choice)
    with console.quiet_start():  # on JAX too it loads TensorFlow, to seed that
        keras.utils.set_random_seed(settings.recipe.seed)


def _made(settings: Settings, data: Data) -> Any:
    """The model of a run before its first step."""
    prepare(settings)
    choice, steps = settings.choice, data.steps_per_epoch
    return compiled(
        settings.recipe, steps_per_epoch=steps, xla=choice.compile, devices=choice.devices
    )


def _trained(network: Any, keeper: "_Keeper") -> State:
    """Restores the newest checkpoint and trains to the end."""
    recipe, steps_per_epoch = keeper.settings.recipe, keeper.data.steps_per_epoch
    with (
        _Signals() as keeper.signals,
        contextlib.ExitStack() as closing,
        Background() as keeper.background,
    ):
        keeper.restore(network)
        closing.callback(keeper.events.close)
        while not finished(keeper.state, recipe, steps_per_epoch=steps_per_epoch):
            epoch, done = divmod(keeper.state.step, steps_per_epoch)
            most = keeper.settings.steps_per_execution
            _run_together(network, most, steps=steps_per_epoch - done)
            network.fit(
                keeper.waiting.of(keeper.data.batches(keeper.state.step)),
                initial_epoch=epoch,
                # One stream for all epochs, as making a stream costs seconds. But first the rest
                # of an epoch under way: epochs of one `fit` all have the same number of steps.
                epochs=epoch + 1 if done else recipe.epochs,
                steps_per_epoch=steps_per_epoch - done,
                callbacks=[keeper],
                shuffle=False,
                verbose=1 if sys.stdout.isatty() else 2,
            )
        return keeper.state


def _run_together(network: Any, most: int, *, steps: int) -> None:
    """Has up to so many steps run in one call, as many as divide those that are left of an epoch.

    Else Keras would run beyond its end.
    """
    together = max(n for n in range(1, min(most, steps) + 1) if steps % n == 0)
    if network.steps_per_execution != together:
        network.steps_per_execution = together
        network.train_function = None  # which was made for as many as before


class _Signals:
    """SIGINT, SIGTERM and SIGHUP, kept until a checkpoint is written; the second acts at once.

    Only the main thread gets signals; in others nothing changes. What is ignored, as with `nohup`
    or in the background of a script, stays so.
    """

    def __init__(self) -> None:
        self.got: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Signals":
        if threading.current_thread() is threading.main_thread():
            for number in _ENDING:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._keep)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _keep(self, number: int, frame: types.FrameType | None) -> None:
        if self.got is not None:
            self.stop()
        self.got = number

    def stop(self) -> None:
        """Raises what ends the process as the signal would."""
        if self.got in (None, signal.SIGINT):
            raise KeyboardInterrupt
        raise SystemExit(128 + self.got)


def require_fit(
    network: Any, batch: tuple[Any, Any], validation: Validation, recipe: Recipe
) -> None:
    """Checks a model and its data against each other; trains nothing.

    Args:
        network: From `compiled`.
        batch: The first of the training.
        validation: As `Data` has it; it is looked at up to the first image with labels.
        recipe: What the model was made from.

    Raises:
        ValueError: If shapes or types differ from the recipe's, masks hold classes that the model
            does not have, or the validation, or that of one of several datasets, has no images or
            no labels.
    """
    named = validation if isinstance(validation, Mapping) else {"": validation}
    firsts = {f"the validation{name and f' of {name}'}": iter(own) for name, own in named.items()}
    for what, batches in {"the training": iter([batch]), **firsts}.items():
        try:
            image, mask = (np.asarray(part) for part in next(batches))
        except StopIteration:
            raise ValueError(f"{what} has no images.") from None
        for name, part, channels in (("images", image, 3), ("masks", mask, 1)):
            wanted = (*recipe.size, channels)
            is_number = name == "masks" and recipe.is_regression
            if part.shape[1:] != wanted or (part.dtype != np.uint8 and not is_number):
                raise ValueError(
                    f"{name} of {what} are {part.dtype} {part.shape[1:]}; this recipe's are uint8 "
                    f"{wanted}."
                )
        if not recipe.is_regression:
            evaluate.require_classes(mask, recipe, of=what)
    for what, batches in named.items():
        if not any((np.asarray(mask) != IGNORE_LABEL).any() for _, mask in batches):
            raise ValueError(
                f"no image of the validation{what and f' of {what}'} has labels; give "
                "--validation_split, or --fold, with images that have some."
            )
    network.compute_output_spec(keras.KerasTensor((None, *recipe.size, 3), "uint8"))


def finished(state: State, recipe: Recipe, *, steps_per_epoch: int) -> bool:
    """Whether all epochs are done, or `patience` epochs brought no better one."""
    if state.step >= recipe.epochs * steps_per_epoch:
        return True
    return runs.is_out_of_patience(state.history, recipe)


def compiled(recipe: Recipe, *, steps_per_epoch: int, xla: bool, devices: int = 1) -> Any:
    """Builds and compiles a recipe's model: loss, optimizer, and the scores shown in training.

    Args:
        recipe: The recipe.
        steps_per_epoch: Batches in an epoch, the unit of the schedule.
        xla: Whether XLA compiles the training step.
        devices: How many share each batch; more than one inside `parallel.scope`.

    Returns:
        A model that is ready for `fit`.
    """
    network = parallel.shared(model.build(recipe.model), devices)
    variables = network.trainable_variables
    network.compile(
        optimizer=optimizers.build(recipe, variables, steps_per_epoch=steps_per_epoch),
        loss=losses.chosen(**recipe.loss_settings),
        metrics=[
            Errors()
            if recipe.is_regression
            else Overlap(threshold=recipe.threshold, channels=recipe.model.output_channels)
        ],
        jit_compile=xla,
    )
    network.optimizer.build(variables)  # float16 adds a scale of the loss
    return network


class _Keeper(keras.callbacks.Callback):
    """Writes a run's folder while `fit` trains: counts steps, validates, saves, stops."""

    model: Any

    def __init__(self, out: pathlib.Path, settings: Settings, data: Data):
        super().__init__()
        self.out, self.settings, self.data = out, settings, data
        self.steps_per_epoch = data.steps_per_epoch
        self.state = self.saved = State()
        self.metrics: list[np.ndarray] = []
        self.pictures: dict[str, np.ndarray] = {}
        self.reported: set[str] = set()
        self.signals, self.background, self.waiting = _Signals(), Background(), Waiting()
        self.judge: Any = None
        self.served: Any = None  # a model of its own, for another thread to write
        self.last: Any = None  # the loss of the step before, which the device has computed by now
        self.saved_at = self.begun_at = self.resumed_at = time.monotonic()
        self.waited = 0.0  # before this epoch, or what was resumed of it

    def restore(self, network: Any) -> None:
        """Restores a fresh model from the checkpoint, and writes the files that a kill left out."""
        self.state, held = checkpoints.newest(self.out)
        self.saved = self.state
        self.events = Events(self.out / "tensorboard", step=self.state.step)
        if not runs.is_state(self.out, self.state):
            runs.write_state(self.out, self.state)
        self._write_metrics(self.state)
        if self.state.checkpoint is None:
            pretrained.load(network, self.settings)
            return
        path = self.out / self.state.checkpoint
        for group in ("model", "optimizer"):
            _assign(_variables(network, group), held.get(group, []), path)
        self.metrics = held.get("metrics", [])
        if self.state.step % self.steps_per_epoch == 0:
            self._write_best(self._best(network), self.state)
        else:
            own = self.data.validation
            batch = next(iter(next(iter(own.values())) if isinstance(own, Mapping) else own))
            # One image for each device makes the variables of the metrics.
            alike = (np.repeat(x[:1], self.settings.choice.devices, 0) for x in batch)
            network.test_on_batch(*alike)

    def on_epoch_begin(self, epoch, logs=None):
        if self.metrics and self.state.step % self.steps_per_epoch:
            # `fit` has just reset the metrics of an epoch that was under way.
            _assign(_variables(self.model, "metrics"), self.metrics, self.out)
        self.metrics = []
        self.resumed_at, self.waited = time.monotonic(), self.waiting.seconds
        self.begun_at = self.resumed_at - self.state.seconds

    def on_train_batch_end(self, batch, logs=None):
        self.background.check()
        self._require_finite()
        step = self.state.step + self.model.steps_per_execution
        self._advance(step=step)
        self.last = (logs or {}).get("loss")
        overdue = time.monotonic() - self.saved_at >= 60 * self.settings.checkpoint_minutes
        is_whole = step % self.steps_per_epoch == 0  # on_epoch_end saves too
        if (overdue or self.signals.got) and not is_whole:
            self._advance(seconds=time.monotonic() - self.begun_at)
            self._save()
            self._stop_if_asked()

    def on_epoch_end(self, epoch, logs=None):
        if self.state.step != (epoch + 1) * self.steps_per_epoch:
            raise ValueError(
                f"the batches ended after step {self.state.step}; training needs an endless stream."
            )
        row = self._measure(epoch, logs if logs is not None else {})
        self._advance(seconds=0.0, history=(*self.state.history, row))
        self._save(best=self._best(self.model), ended=True)
        self.last = None
        self.model.stop_training = finished(
            self.state, self.settings.recipe, steps_per_epoch=self.steps_per_epoch
        )
        if not self.model.stop_training:
            self._stop_if_asked()

    def _measure(self, epoch: int, logs: dict[str, Any]) -> dict[str, Any]:
        """One row of the history; adds the validation scores to `logs`, for the progress bar."""
        now = time.monotonic()
        trained, waited = now - self.begun_at, self.waiting.seconds - self.waited
        rate: Any = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        self._require_finite()
        shown = ("loss", "dice", "dataset_dice", "dataset_iou", "mae", "rmse")
        train = {name: float(logs[name]) for name in shown if name in logs}
        left_out = ("images", "unlabelled", "threshold")
        scores = {
            f"val_{name}": value
            for name, value in self._validate().items()
            if name.partition("/")[0] not in left_out
        }
        logs.update(scores)
        if not math.isfinite(scores["val_loss"]):
            raise self._diverged(f"val_loss is {scores['val_loss']}")
        images = self.steps_per_epoch * self.settings.recipe.batch
        return {
            "epoch": epoch + 1,
            "step": self.state.step,
            **train,
            **scores,
            "learning_rate": float(rate),
            "seconds": round(time.monotonic() - self.begun_at, 3),
            "images_per_second": round(images / trained, 1),
            "input_share": round(min(waited / (now - self.resumed_at), 1.0), 4),
        }

    def _validate(self) -> dict[str, float]:
        recipe = self.settings.recipe
        self.judge = self.judge or evaluate.scorer(self.model, recipe)
        with optimizers.averaged(self.model):
            images = evaluate.scored(self.judge, self.data.validation, recipe)
            return evaluate.summary(self._pictured(images), recipe)

    def _pictured(self, images: Iterator[evaluate.Scored]) -> Iterator[evaluate.Scored]:
        """The same images; keeps pictures of the first ones, for TensorBoard."""
        channels = self.settings.recipe.model.output_channels
        self.pictures, shown = {}, collections.Counter[str]()
        for image in images:
            if image.scores and shown[image.dataset] < _PICTURES:
                shown[image.dataset] += 1
                parts = ("validation", image.dataset, str(shown[image.dataset]))
                own = pictures.strip(image, channels=channels, most=_PICTURE_SIDE)
                self.pictures["/".join(filter(None, parts))] = own
            yield image

    def _require_finite(self) -> None:
        """Raises ValueError if the loss of the steps that ended last is not finite."""
        if self.last is not None and not math.isfinite(value := float(self.last)):
            raise self._diverged(f"the loss is {value}")

    def _diverged(self, what: str) -> ValueError:
        last, recipe = self.state.step - 1, self.settings.recipe
        step = self.state.step - self.model.steps_per_execution
        where = f"at step {step}" if step == last else f"in one of the steps {step} to {last}"
        return ValueError(
            f"{what} {where}: the training diverged. What was saved before is kept. Try a "
            f"lower learning_rate than {recipe.learning_rate}, or some warmup; `segdata show "
            f"--replay {self.out} --step {step}` draws that batch."
        )

    def _stop_if_asked(self) -> None:
        """Ends the process after a signal, when all is written."""
        if self.signals.got:
            self.background.wait()
            self.signals.stop()

    def _save(self, *, best: list[np.ndarray] | None = None, ended: bool = False) -> None:
        """Takes the variables as they are, and has a thread write them while training goes on.

        The files are written in the order in which they depend on each other. An error is raised
        within a step, and the next checkpoint waits for this one.

        Args:
            best: The weights to keep as best model.
            ended: Whether an epoch has ended.
        """
        self._require_finite()
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()  # during `fit` JAX's variables are elsewhere
        variables = {
            group: [keras.ops.convert_to_numpy(v) for v in _variables(self.model, group)]
            for group in _GROUPS
        }
        if not all(np.isfinite(np.asarray(x)).all() for x in variables["model"]):
            raise self._diverged("a weight is not finite")
        known, reached = self.saved, checkpoints.named(self.state)
        shown = dict(self.pictures)

        def write() -> None:
            checkpoints.save(self.out, reached, variables, known=known)
            if ended:
                self._write_metrics(reached)
                with self._optional("tensorboard"):
                    self.events.add(reached.history[-1], step=reached.step, pictures=shown)
            self._write_best(best, reached)

        self.background.start(write)
        self.state = self.saved = reached
        self.saved_at = time.monotonic()

    def _best(self, network: Any) -> list[np.ndarray] | None:
        """The weights to keep, if the epoch that has just ended is the best so far."""
        recipe, history = self.settings.recipe, self.state.history
        if runs.best_epoch(history, recipe.best_by) != len(history) - 1:
            return None
        if self.served is None:
            # The same layers without the optimizer, and probabilities.
            self.served = model.serving(model.build(recipe.model), recipe.model.output_activation)
        with optimizers.averaged(network):
            weights: Any = [keras.ops.convert_to_numpy(variable) for variable in network.variables]
            return weights

    def _write_best(self, weights: list[np.ndarray] | None, reached: State) -> None:
        if weights is None:
            return
        path = self.out / "best.keras"
        _assign(self.served.variables, weights, path)
        with runs.writing(path, known=reached) as unfinished:
            self.served.save(unfinished)

    def _write_metrics(self, reached: State) -> None:
        with self._optional("metrics.jsonl"):
            runs.write_metrics(self.out, reached)
        steps = int(reached.history[-1]["step"]) if reached.history else 0
        if account := self.data.account(steps) if steps else {}:
            with self._optional("sources.json"):
                runs.write_sources(self.out, account)

    @contextlib.contextmanager
    def _optional(self, name: str) -> Iterator[None]:
        """Reports an error of a file that is not needed to resume once, and does not raise it."""
        try:
            yield
        except OSError as error:
            if name not in self.reported:
                print(
                    f"{self.out / name} cannot be written: {runs.reason(error)}. "
                    f"Training continues without it.",
                    file=sys.stderr,
                )
            self.reported.add(name)

    def _advance(self, **changes: Any) -> None:
        self.state = dataclasses.replace(self.state, **changes)


_GROUPS = ("model", "optimizer", "metrics")


def _variables(network: keras.Model, group: str) -> list[Any]:
    """`variables`, unlike `weights`, includes the seeds of dropout."""
    return {
        "model": network.variables,
        "optimizer": network.optimizer.variables,
        "metrics": network.metrics_variables,
    }[group]


def _assign(variables: list[Any], values: list[np.ndarray], source: pathlib.Path) -> None:
    wanted = [(tuple(v.shape), str(v.dtype)) for v in variables]
    # Seeds and steps are integers of 64 bits on TensorFlow, and of 32 on JAX.
    kinds = [np.dtype(name) if name.startswith(("int", "uint")) else None for _, name in wanted]
    if len(kinds) == len(values):
        values = [_as(kind, value) for kind, value in zip(kinds, values, strict=True)]
    if wanted != [(v.shape, str(v.dtype)) for v in values]:
        raise ValueError(f"{source} was written by another model than its settings describe.")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _as(kind: np.dtype | None, value: np.ndarray) -> np.ndarray:
    """An array as integers of this kind, if it holds such and all fit; else as it is."""
    if kind is None or value.dtype.kind not in "iu" or value.dtype == kind:
        return value
    same = value.astype(kind)
    return same if np.array_equal(same, value) else value

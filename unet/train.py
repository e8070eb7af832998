"""Training: one `fit` over one endless stream, and a callback that keeps the run's folder.

A run is a pure function of its settings and of `batches`, which gives the stream from any step on.
All other state is in variables: weights, optimizer, seeds of dropout, sums of the metrics. A
checkpoint holds them all, so a run that was killed and resumed ends with the same weights as one
that was not; bit for bit where the backend is deterministic.
"""

import contextlib
import dataclasses
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from unet import checkpoints, evaluate, hardware, losses, model, runs
from unet.events import Events
from unet.metrics import Overlap
from unet.recipes import Recipe
from unet.runs import Settings, State

Batches = Callable[[int], Iterable[tuple[Any, Any]]]
Validation = evaluate.Batches | Mapping[str, evaluate.Batches]
Account = Callable[[int], Mapping[str, Any]]


def run(
    settings: Settings,
    *,
    batches: Batches,
    validation: Validation,
    steps_per_epoch: int,
    out: pathlib.Path,
    account: Account | None = None,
) -> State:
    """Trains a model from the start.

    Args:
        settings: What to train.
        batches: The step to start from → an endless stream of image uint8 [B, H, W, 3] and mask
            uint8 [B, H, W, 1]. A batch must depend on its step alone.
        validation: Batches of the same kind, finite; iterated over after each epoch. Of several
            datasets those of each by name.
        steps_per_epoch: Batches in an epoch.
        out: The folder to make for the run.
        account: The number of steps made → what they held, as JSON; written after each epoch.

    Returns:
        The final state: after the last epoch, or where it stopped early.

    Raises:
        ValueError: If the folder is not empty; if the loss is not finite.
        OSError: As in `resume`.
    """
    runs.create(out, settings)
    return resume(
        out,
        batches=batches,
        validation=validation,
        steps_per_epoch=steps_per_epoch,
        account=account,
    )


def resume(
    out: pathlib.Path,
    *,
    batches: Batches,
    validation: Validation,
    steps_per_epoch: int,
    account: Account | None = None,
) -> State:
    """Resumes a run from its newest whole checkpoint; does nothing if it has finished.

    Args:
        out: The run's folder.
        batches: As in `run`.
        validation: As in `run`.
        steps_per_epoch: As in `run`.
        account: As in `run`.

    Returns:
        The final state.

    Raises:
        ValueError: If the folder holds no run, its checkpoint is of another model, or none is
            whole; if the loss is not finite.
        OSError: If another process trains the run; if a file cannot be written, as on a full disk.
    """
    settings = runs.settings(out)
    recipe = settings.recipe
    with runs.held(out), contextlib.ExitStack() as closing:
        hardware.apply(settings.choice)
        keras.utils.set_random_seed(recipe.seed)
        xla = settings.choice.compile
        network: Any = compiled(recipe, steps_per_epoch=steps_per_epoch, xla=xla)
        keeper = _Keeper(out, settings, validation, steps_per_epoch, account)
        keeper.restore(network)
        closing.callback(keeper.events.close)
        while not finished(keeper.state, recipe, steps_per_epoch=steps_per_epoch):
            epoch, done = divmod(keeper.state.step, steps_per_epoch)
            network.fit(
                _for_keras(batches(keeper.state.step)),
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


def finished(state: State, recipe: Recipe, *, steps_per_epoch: int) -> bool:
    """Whether all epochs are done, or `patience` epochs brought no lower validation loss."""
    if state.step >= recipe.epochs * steps_per_epoch:
        return True
    best = runs.best_epoch(state.history)
    if recipe.patience is None or best is None:
        return False
    return len(state.history) - 1 - best >= recipe.patience


def compiled(recipe: Recipe, *, steps_per_epoch: int, xla: bool) -> keras.Model:
    """Builds and compiles a recipe's model: loss, optimizer, and the scores shown in training.

    Args:
        recipe: The recipe.
        steps_per_epoch: Batches in an epoch, the unit of the schedule.
        xla: Whether XLA compiles the training step.

    Returns:
        A model that is ready for `fit`.
    """
    network: Any = model.build(recipe.model)
    make_optimizer: Any = type(keras.optimizers.get(recipe.optimizer))
    rate = learning_rate(recipe, steps_per_epoch=steps_per_epoch)
    stable = {"epsilon": recipe.epsilon}
    network.compile(
        optimizer=make_optimizer(rate, **({} if recipe.optimizer == "sgd" else stable)),
        loss=losses.BY_NAME[recipe.loss],
        metrics=[Overlap(threshold=recipe.threshold, channels=recipe.model.output_channels)],
        jit_compile=xla,
    )
    network.optimizer.build(network.trainable_variables)
    return network


def learning_rate(recipe: Recipe, *, steps_per_epoch: int) -> Any:
    """The learning rate of each step: a number, or a schedule that Keras can save.

    Args:
        recipe: Highest rate, schedule, epochs and epochs of warm-up.
        steps_per_epoch: Batches in an epoch.

    Returns:
        float, or a `keras.optimizers.schedules.LearningRateSchedule`.
    """
    highest, warmup = recipe.learning_rate, round(recipe.warmup * steps_per_epoch)
    if recipe.schedule == "constant" and not warmup:
        return highest
    return keras.optimizers.schedules.CosineDecay(
        highest / warmup if warmup else highest,
        max(recipe.epochs * steps_per_epoch - warmup, 1),
        alpha=1.0 if recipe.schedule == "constant" else 0.0,
        warmup_target=highest if warmup else None,
        warmup_steps=warmup,
    )


class _Keeper(keras.callbacks.Callback):
    """Writes a run's folder while `fit` trains: counts steps, validates, saves, stops."""

    model: Any

    def __init__(
        self,
        out: pathlib.Path,
        settings: Settings,
        validation: Validation,
        steps_per_epoch: int,
        account: Account | None,
    ):
        super().__init__()
        self.out, self.settings, self.validation = out, settings, validation
        self.steps_per_epoch, self.account = steps_per_epoch, account
        self.state = self.saved = State()
        self.metrics: list[np.ndarray] = []
        self.reported: set[str] = set()
        self.saved_at = self.begun_at = time.monotonic()

    def restore(self, network: Any) -> None:
        """Restores a fresh model from the checkpoint, and writes the files that a kill left out."""
        self.state, held = checkpoints.newest(self.out)
        self.saved = self.state
        self.events = Events(self.out / "tensorboard", step=self.state.step)
        if not runs.is_state(self.out, self.state):
            runs.write_state(self.out, self.state)
        self._write_metrics()
        if self.state.checkpoint is None:
            return
        path = self.out / self.state.checkpoint
        for group in ("model", "optimizer"):
            _assign(_variables(network, group), held.get(group, []), path)
        self.metrics = held.get("metrics", [])
        if self.state.step % self.steps_per_epoch == 0:
            self._keep_best(network)
        else:
            own = self.validation
            image, mask = next(iter(next(iter(own.values())) if isinstance(own, Mapping) else own))
            network.test_on_batch(image, mask)  # makes the variables of the metrics

    def on_epoch_begin(self, epoch, logs=None):
        if self.metrics and self.state.step % self.steps_per_epoch:
            # `fit` has just reset the metrics of an epoch that was under way.
            _assign(_variables(self.model, "metrics"), self.metrics, self.out)
        self.metrics = []
        self.begun_at = time.monotonic() - self.state.seconds

    def on_train_batch_end(self, batch, logs=None):
        step = self.state.step + 1
        self._advance(step=step)
        overdue = time.monotonic() - self.saved_at >= 60 * self.settings.checkpoint_minutes
        if overdue and step % self.steps_per_epoch:  # on_epoch_end saves too
            self._advance(seconds=time.monotonic() - self.begun_at)
            self._save()

    def on_epoch_end(self, epoch, logs=None):
        if self.state.step != (epoch + 1) * self.steps_per_epoch:
            raise ValueError(
                f"the batches ended after step {self.state.step}; training needs an endless stream."
            )
        row = self._measure(epoch, logs if logs is not None else {})
        self._advance(seconds=0.0, history=(*self.state.history, row))
        self._save()
        self._write_metrics()
        self._keep_best(self.model)
        with self._optional("tensorboard"):
            self.events.add(row, step=self.state.step)
        self.model.stop_training = finished(
            self.state, self.settings.recipe, steps_per_epoch=self.steps_per_epoch
        )

    def _measure(self, epoch: int, logs: dict[str, Any]) -> dict[str, Any]:
        """One row of the history; adds the validation scores to `logs`, for the progress bar."""
        trained = time.monotonic() - self.begun_at
        rate: Any = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        train = {name: float(logs[name]) for name in ("loss", "dice", "dataset_iou")}
        measured = self._validate()
        names = ("loss", "dice", "iou", "dataset_dice", "dataset_iou")
        scores = {
            f"val_{name}": value for name, value in measured.items() if name in names or "/" in name
        }
        logs.update(scores)
        for name, value in (("loss", train["loss"]), ("val_loss", scores["val_loss"])):
            if not math.isfinite(value):
                raise ValueError(
                    f"{name} is {value} in epoch {epoch + 1}: the training diverged. Try a lower "
                    f"learning_rate than {self.settings.recipe.learning_rate}, or some warmup."
                )
        images = self.steps_per_epoch * self.settings.recipe.batch
        return {
            "epoch": epoch + 1,
            "step": self.state.step,
            **train,
            **scores,
            "learning_rate": float(rate),
            "seconds": round(time.monotonic() - self.begun_at, 3),
            "images_per_second": round(images / trained, 1),
        }

    def _validate(self) -> dict[str, float]:
        recipe = self.settings.recipe
        return evaluate.evaluate(
            self.model,
            self.validation,
            threshold=recipe.threshold,
            loss=losses.BY_NAME[recipe.loss],
        )

    def _save(self) -> None:
        variables = {
            group: [keras.ops.convert_to_numpy(v) for v in _variables(self.model, group)]
            for group in _GROUPS
        }
        self.state = checkpoints.save(self.out, self.state, variables, known=self.saved)
        self.saved = self.state
        self.saved_at = time.monotonic()

    def _keep_best(self, network: keras.Model) -> None:
        """Writes the model if the epoch that has just ended is the best so far."""
        if runs.best_epoch(self.state.history) == len(self.state.history) - 1:
            # The same layers without the optimizer.
            plain: Any = keras.Model(network.inputs, network.outputs)
            with runs.writing(self.out / "best.keras", known=self.saved) as path:
                plain.save(path)

    def _write_metrics(self) -> None:
        with self._optional("metrics.jsonl"):
            runs.write_metrics(self.out, self.state)
        if self.account and self.state.history:
            with self._optional("sources.json"):
                step = self.state.history[-1]["step"]
                runs.write_sources(self.out, self.account(int(step)))

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
    if wanted != [(v.shape, str(v.dtype)) for v in values]:
        raise ValueError(f"{source} was written by another model than its settings describe.")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _for_keras(stream: Iterable[tuple[Any, Any]]) -> Any:
    """Keras takes tf.data streams as they are; all other iterables must be generators."""
    return stream if hasattr(stream, "element_spec") else (pair for pair in stream)

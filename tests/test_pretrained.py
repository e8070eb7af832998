import dataclasses
import pathlib

import keras
import numpy as np
import pytest
import test_train as case

from unet import pretrained, runs, train
from unet.model import FCN, UNet


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("runs") / "source"
    case.fit(out, case.with_recipe(epochs=1))
    return out


def fresh(source: pathlib.Path, classes: tuple[str, ...] = (), **model):
    """A model, its settings, which start from a run, and its weights by layer."""
    own = UNet(**{"filters": (2, 3), "dropout": (0.3,), "batch_norm": True, **model})
    settings = dataclasses.replace(
        case.with_recipe(model=own), init_from=pretrained.of(source), classes=classes
    )
    keras.utils.set_random_seed(7)
    return train.compiled(settings.recipe, steps_per_epoch=3, xla=False), settings


def weights(network) -> dict[str, list[np.ndarray]]:
    """By position, as names are counted up in a process."""
    layers = [layer for layer in network.layers if layer.weights]
    return {
        layer.name if layer.name == "head" else str(i): layer.get_weights()
        for i, layer in enumerate(layers)
    }


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(a.shape == b.shape and np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_all_weights_are_those_of_the_best_model(source):
    best = weights(runs.load(source, case.CHOICE))
    for dropout in ((0.3,), ()):  # which has no weights
        network, settings = fresh(source, dropout=dropout)
        kernels = {name: own[0] for name, own in weights(network).items() if own[0].ndim > 1}
        assert not any(np.array_equal(own, best[name][0]) for name, own in kernels.items())
        said = pretrained.load(network, settings)
        assert all(same(own, best[name]) for name, own in weights(network).items())
        assert str(source) in said
        assert "afresh" not in said


@pytest.mark.parametrize(
    ("model", "classes"),
    [
        ({"output_channels": 3, "output_activation": "softmax"}, ("a", "b", "c")),
        ({}, ("a", "b")),
    ],
)
def test_a_head_of_other_classes_starts_afresh_and_that_is_said(source, model, classes):
    best = weights(runs.load(source, case.CHOICE))
    network, settings = fresh(source, classes, **model)
    before = weights(network)
    assert "head starts afresh" in pretrained.load(network, settings)
    for name, own in weights(network).items():
        assert same(own, (before if name == "head" else best)[name])


def test_a_model_of_other_layers_is_refused_before_the_folder_is_made(source, tmp_path):
    for model, said in (
        (UNet(filters=(2, 4), batch_norm=True), r"its model has filters \(2, 3\) and not \(2, 4\)"),
        (UNet(filters=(2, 3)), "batch_norm True and not False"),
        (FCN(filters=(2,)), "its model is a UNet, and this one a FCN"),
    ):
        settings = case.with_recipe(model=model)
        settings = dataclasses.replace(settings, init_from=pretrained.of(source))
        with pytest.raises(ValueError, match=said):
            case.fit(tmp_path / "run", settings)
        assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="holds no run"):
        pretrained.of(tmp_path)
    runs.create(tmp_path / "new", case.SETTINGS)
    with pytest.raises(ValueError, match=r"best\.keras cannot be read.*finished an epoch"):
        pretrained.of(tmp_path / "new")


@pytest.mark.heavy
def test_a_run_that_is_stopped_before_its_first_checkpoint_starts_from_the_same(source, tmp_path):
    settings = dataclasses.replace(
        case.with_recipe(epochs=1), init_from=pretrained.of(source), checkpoint_minutes=600
    )
    whole = case.fit(tmp_path / "whole", settings)

    seen = []

    def batches(start: int):
        seen.append(start)
        if len(seen) == 1:
            yield from case.batches(start)
        yield case.batch(start)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        case.fit(tmp_path / "run", settings, batches=batches)
    assert runs.state(tmp_path / "run").checkpoint is None
    assert runs.settings(tmp_path / "run").init_from == settings.init_from
    state = case.go_on(tmp_path / "run")
    for row, expected in zip(case.measured(state), case.measured(whole), strict=True):
        assert row == pytest.approx(expected, rel=1e-4)


def test_another_best_model_than_the_run_began_with_is_refused(source, tmp_path):
    network, settings = fresh(source)
    before = weights(network)
    settings = dataclasses.replace(settings, init_from={**settings.init_from, "sha256": "0" * 64})
    with pytest.raises(ValueError, match="is not as it was when this run began"):
        pretrained.load(network, settings)
    assert all(same(own, before[name]) for name, own in weights(network).items())


@pytest.mark.heavy
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_run_that_is_extended_goes_on_as_one_that_always_had_as_many_epochs(tmp_path, schedule):
    settings = case.with_recipe(schedule=schedule, warmup=0, epochs=2)
    short = dataclasses.replace(settings, recipe=dataclasses.replace(settings.recipe, epochs=1))
    whole, run = case.fit(tmp_path / "whole", settings), tmp_path / "run"
    ended = case.fit(run, short)
    assert runs.extend(run, epochs=2).recipe == settings.recipe
    assert runs.settings(run).recipe == settings.recipe
    state = case.go_on(run)
    assert state.step == whole.step
    assert state.history[0] == ended.history[0]
    found, wanted = (case.measured(each)[1] for each in (state, whole))
    assert found["learning_rate"] == wanted["learning_rate"]
    if schedule == "constant":  # with a cosine the first epoch had other rates
        assert found == pytest.approx(wanted, rel=1e-4)
    assert runs.extend(run, epochs=2).recipe == settings.recipe
    with pytest.raises(ValueError, match=r"--epochs 1: .* has 2 epochs; give more"):
        runs.extend(run, epochs=1)


@pytest.mark.heavy
def test_a_run_that_its_patience_ended_is_not_extended(tmp_path):
    settings = case.with_recipe(
        epochs=8, patience=1, learning_rate=3.0, schedule="constant", warmup=0
    )
    state = case.fit(tmp_path / "run", settings)
    assert len(state.history) < 8
    before = (tmp_path / "run" / "settings.json").read_bytes()
    with pytest.raises(ValueError, match=rf"stopped after epoch {len(state.history)}, as 1 epochs"):
        runs.extend(tmp_path / "run", epochs=20)
    assert (tmp_path / "run" / "settings.json").read_bytes() == before

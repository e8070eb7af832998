import dataclasses
import json
import pathlib
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from unet import evaluate, recipes, train
from unet.model import FCN, UNet
from unet.recipes import RECIPES, Recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name):
    saved = json.loads(json.dumps(recipes.to_json(RECIPES[name])))
    assert recipes.from_json(saved) == RECIPES[name]


def test_a_field_of_another_version_is_named():
    saved = recipes.to_json(Recipe()) | {"sharpness": 3}
    with pytest.raises(ValueError, match="sharpness"):
        recipes.from_json(saved)
    with pytest.raises(ValueError, match="model"):
        recipes.from_json({})


def test_a_run_from_before_there_were_other_models_and_splits_is_read():
    saved = recipes.to_json(Recipe())
    del saved["model"]["kind"], saved["model"]["head_filters"]
    del saved["train_split"], saved["validation_split"], saved["epsilon"]
    assert recipes.from_json(saved) == Recipe()
    with pytest.raises(ValueError, match="GAN"):
        recipes.from_json(saved | {"model": {"kind": "GAN"}})


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_and_is_scored(name):
    side = max(RECIPES[name].model.least, 16)
    recipe = dataclasses.replace(RECIPES[name], size=(side, side), batch=2)
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 2, (2, side, side, 1), np.uint8)
    image = (mask * 150 + rng.integers(0, 90, (2, side, side, 3))).astype(np.uint8)
    network: Any = train.compiled(recipe, steps_per_epoch=2, xla=False)
    network.run_eagerly = True  # tracing takes longer than a few steps
    before = network.get_weights()
    logs = [network.train_on_batch(image, mask, return_dict=True) for _ in range(2)]
    assert all(np.isfinite(row["loss"]) for row in logs)
    after = network.get_weights()
    assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    scores = evaluate.evaluate(network, [(image, mask)], recipe)
    assert scores["images"] == 2
    assert all(np.isfinite(value) for value in scores.values())


def test_the_page_of_recipes_has_each_with_its_parameters():
    text = (pathlib.Path(__file__).parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
    table = text.partition("\n\nOurs")[0]
    rows = re.findall(r"^\| `([\w-]+)` \|[^|]*\|[^|]*\| ([\d,]+) \|", table, re.MULTILINE)
    assert rows == [(name, f"{recipe.model.parameters:,}") for name, recipe in RECIPES.items()]


def test_the_page_about_scores_names_the_recipes_that_average_over_flips():
    text = (pathlib.Path(__file__).parents[1] / "docs" / "evaluation.md").read_text("utf-8")
    (named,) = re.findall(r"as the recipes ([^.]+) do unasked", text)
    # `small` flips where the dataset allows it.
    flipping = {"small"} | {name for name, recipe in RECIPES.items() if recipe.flips}
    assert set(re.findall(r"`([\w-]+)`", named)) == flipping


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_says_where_it_is_from_and_augments_what_there_is(name):
    from segdata.core.augment import Augment

    assert RECIPES[name].source
    assert Augment(**RECIPES[name].augment) != Augment() or not RECIPES[name].augment


def test_the_published_settings_of_adam_reach_the_optimizer():
    recipe = dataclasses.replace(RECIPES["carvana-fcn"], model=FCN(filters=(2,)))
    for changed in (recipe, dataclasses.replace(recipe, optimizer="rmsprop")):
        optimizer: Any = train.compiled(changed, steps_per_epoch=1, xla=False).optimizer
        assert (float(optimizer.learning_rate), optimizer.epsilon) == pytest.approx((1e-4, 1e-6))
    plain = dataclasses.replace(recipe, optimizer="sgd", epsilon=1e-7)
    assert train.compiled(plain, steps_per_epoch=1, xla=False).optimizer is not None
    with pytest.raises(ValueError, match=r"epsilon is 1e-06.*sgd"):
        dataclasses.replace(recipe, optimizer="sgd")


@pytest.mark.parametrize(
    ("model", "loss", "fault"),
    [
        (
            UNet(output_channels=3, output_activation="softmax"),
            "squared_error",
            "cross_entropy or .* with softmax",
        ),
        (UNet(), "squared_error", "cross_entropy or .* with sigmoid"),
        (UNet(output_activation="linear"), "cross_entropy", "squared_error with linear"),
        (FCN(output_channels=2), "cross_entropy", "output_channels is 2; it must be 1"),
    ],
)
def test_a_loss_that_does_not_fit_the_head_is_refused(model, loss, fault):
    with pytest.raises(ValueError, match=fault):
        Recipe(model=model, loss=loss)


def test_the_best_epoch_is_chosen_by_a_score_that_the_model_has():
    linear = UNet(output_activation="linear")
    assert Recipe(model=linear, loss="squared_error", best_by="rmse").best_by == "rmse"
    with pytest.raises(ValueError, match="best_by is 'dice'; it must be loss or mae or rmse"):
        Recipe(model=linear, loss="squared_error", best_by="dice")
    saved = recipes.to_json(Recipe(best_by="iou"))
    assert recipes.from_json(saved).best_by == "iou"
    del saved["best_by"]  # as of runs from before
    assert recipes.from_json(saved).best_by == "loss"


def test_an_unknown_recipe_lists_those_there_are():
    with pytest.raises(ValueError, match="dsb2018, dsb2018-generator, dsb2018-dropout"):
        recipes.named("carvana-net")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", float("inf")),
        ("epsilon", float("inf")),
        ("weight_decay", float("inf")),
        ("clip_norm", float("inf")),
        ("boundary_weight", float("inf")),
        ("batch", 0),
        ("epochs", -1),
        ("steps_per_epoch", -1),
        ("learning_rate", 0.0),
        ("epsilon", 0.0),
        ("loss", "hinge"),
        ("size", (100, 128)),
        ("warmup", 26.0),
        ("patience", 0),
        ("threshold", 1.0),
        ("best_by", "accuracy"),
        ("best_by", "rmse"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        Recipe(**{field: value})


def test_the_size_must_fit_the_model_that_is_used():
    recipe = Recipe(size=(8, 8), model=UNet(filters=(2, 2)))
    with pytest.raises(ValueError, match="stride, 16"):
        dataclasses.replace(recipe, model=UNet())
    unpadded = UNet(padding="valid")
    assert (unpadded.margins[0], unpadded.least) == (94, 96)
    with pytest.raises(ValueError, match="stride, 16, from 96 on"):
        Recipe(size=(96, 80), model=unpadded)
    Recipe(size=(96, 112), model=unpadded)


def test_recipes_are_read_without_keras():
    code = "import sys, unet.recipes; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing is 1.0; it must be in \[0, 1\)"),
        ({"label_smoothing": 0.1, "loss": "dice"}, "only with cross_entropy or"),
        ({"class_weights": (1.0, 2.0, 3.0)}, "class_weights is .*; it must be 2 numbers"),
        ({"class_weights": (0.0, 0.0)}, "not all 0"),
        ({"class_weights": (1.0, 2.0), "loss": "dice"}, "with cross_entropy or .* or focal"),
        ({"boundary_weight": -1.0}, "boundary_weight is -1.0"),
        ({"boundary_weight": 0.1, "loss": "batch_dice"}, "0 with batch_dice"),
    ],
)
def test_settings_of_a_loss_that_it_does_not_have_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        Recipe(**changes)

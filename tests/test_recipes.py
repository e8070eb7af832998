import dataclasses
import json
import subprocess
import sys

import pytest

from unet import recipes
from unet.model import UNet
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


def test_an_unknown_recipe_lists_those_there_are():
    with pytest.raises(ValueError, match="dsb2018, dsb2018-generator, dsb2018-dropout"):
        recipes.named("carvana")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch", 0),
        ("epochs", -1),
        ("learning_rate", 0.0),
        ("size", (100, 128)),
        ("warmup", 26.0),
        ("patience", 0),
        ("threshold", 1.0),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        Recipe(**{field: value})


def test_the_size_must_fit_the_model_that_is_used():
    recipe = Recipe(size=(8, 8), model=UNet(filters=(2, 2)))
    with pytest.raises(ValueError, match="stride, 16"):
        dataclasses.replace(recipe, model=UNet())


def test_recipes_are_read_without_keras():
    code = "import sys, unet.recipes; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

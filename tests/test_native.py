"""Examples at their own size, against TFDS's own reading."""

import json
import shutil
from typing import Any

import building
import numpy as np
import pytest
import tensorflow_datasets as tfds

from segdata import native, packing
from segdata.inspection import replay
from segdata.sources import dsb2018
from unet import data, predicting, recipes
from unet.recipes import Recipe

RULE = packing.Rule.of((32, 48), fit="stretch")


def test_examples_are_those_of_the_dataset_in_order(built_dsb2018):
    builder: Any = tfds.builder("dsb2018/instances", data_dir=built_dsb2018)
    wanted = list(tfds.as_numpy(builder.as_dataset(split="train")))
    made = native.examples(
        "dsb2018/instances", "train", rule=RULE, instances=True, data_dir=built_dsb2018
    )
    packed = packing.pack("dsb2018/instances", "train", size=(32, 48), data_dir=built_dsb2018)
    for number, (own, other) in enumerate(zip(made, wanted, strict=True)):
        assert own.id == other["id"].decode()
        assert own.group == other["group"].decode()
        np.testing.assert_array_equal(own.image, other["image"])
        np.testing.assert_array_equal(own.mask, other["mask"][..., 0])
        np.testing.assert_array_equal(own.instances, other["instances"][..., 0])
        np.testing.assert_array_equal(own.record, packed[number])


def test_a_fold_holds_what_training_leaves_out(built_dsb2018):
    def names(part: str) -> set[str]:
        made = native.examples(
            "dsb2018", "train", rule=RULE, fold=(1, 3), part=part, data_dir=built_dsb2018
        )
        return {example.id for example in made}

    held_out, training = names("held-out"), names("training")
    assert held_out
    assert not held_out & training
    recipe = Recipe(size=(32, 48), fold=(1, 3))
    assert {x.id for x in data.Data(recipe, str(built_dsb2018)).native()} == held_out


@pytest.mark.parametrize("record_size", ["native", 40])
def test_where_training_is_on_crops_validation_is_on_tiles_of_the_same_scale(
    built_dsb2018, record_size
):
    recipe = Recipe(size=(32, 48), record_size=record_size, validation_split="train[:4]")
    made = data.Data(recipe, str(built_dsb2018))
    image, mask = next(iter(made.training.batches()))
    assert image.shape == (16, 32, 48, 3)
    natives = list(made.native())
    counted = np.zeros(256, int)
    for image, mask in made.validation:
        assert image.shape[1:] == (32, 48, 3)
        counted += np.bincount(mask.ravel(), minlength=256)
    wanted = np.zeros(256, int)
    for example in natives:
        assert example.record.shape[:2] == recipe.seen(*example.mask.shape)
        wanted += np.bincount(example.record[..., 3].ravel(), minlength=256)
    assert counted[:255].tolist() == wanted[:255].tolist()


def test_of_a_mixture_masks_have_the_joint_classes(built_dsb2018):
    mix: dict[str, Any] = {"shares": {"dsb2018": 1, "dsb2018/instances": 1}}
    recipe = Recipe(size=(32, 48), mix=mix, validation_split="train[:4]")
    found = data.Data(recipe, str(built_dsb2018)).native()
    assert list(found) == ["dsb2018", "dsb2018/instances"]
    for name, examples in found.items():
        plain = native.examples(name, "train[:4]", rule=RULE, data_dir=built_dsb2018)
        for own, other in zip(examples, plain, strict=True):
            np.testing.assert_array_equal(own.mask == 1, other.mask == 1)
            np.testing.assert_array_equal(own.record[..., 3] == 1, other.record[..., 3] == 1)
            np.testing.assert_array_equal(own.image, other.image)
    recipe = Recipe(size=(16, 32), mix=mix, record_size="native", validation_split="train[:4]")
    made = data.Data(recipe, str(built_dsb2018))
    assert next(iter(made.training.batches()))[0].shape == (16, 16, 32, 3)
    records = packing.pack("dsb2018", "train[:4]", size="native", data_dir=built_dsb2018)
    for tiles in made.validation.values():
        count = sum(int((mask == 1).sum()) for _, mask in tiles)
        assert count == sum(int((record[..., 3] == 1).sum()) for record in records)


@pytest.mark.parametrize("record_size", [None, 40, "native"])
def test_images_far_larger_than_those_of_the_training_are_seen_as_predicting_sees_them(
    built_dsb2018, record_size
):
    recipe = Recipe(size=(32, 48), record_size=record_size, validation_split="train[:4]")
    given: dict[str, Any] = {"recipe": recipe, "data_dir": str(built_dsb2018)}
    small = {"height": 60, "width": 100, "longest": 120}
    seen = predicting.seen_by(recipe, small, "tiles")
    found = [*data.Data(**given, trained_on=small).native()]
    for own, other in zip(found, data.Data(**given).native(), strict=True):
        np.testing.assert_array_equal(own.mask, other.mask)
        _, wanted = predicting.of_array(own.image, seen=seen)
        np.testing.assert_array_equal(own.record[..., :3], wanted)
        is_same = record_size == "native"
        assert (own.record.shape == other.record.shape) == is_same


def test_objects_come_from_the_config_that_has_them(built_dsb2018):
    recipe = Recipe(size=(32, 48))
    plain = list(data.Data(recipe, str(built_dsb2018)).native())
    found = list(data.Data(recipe, str(built_dsb2018)).native(objects=True))
    assert [each.id for each in found] == [each.id for each in plain]
    for own, other in zip(found, plain, strict=True):
        np.testing.assert_array_equal(own.image, other.image)
        np.testing.assert_array_equal(own.mask, other.mask)
        np.testing.assert_array_equal(own.record, other.record)
        np.testing.assert_array_equal(own.instances > 0, other.mask == 1)
    fold = Recipe(size=(32, 48), fold=(1, 3))
    held_out, with_objects = (
        [each.id for each in data.Data(fold, str(built_dsb2018)).native(objects=asked)]
        for asked in (False, True)
    )
    assert held_out == with_objects
    assert 0 < len(held_out) < 24


def test_borders_have_their_objects_themselves(built_borders):
    recipe = Recipe(dataset="dsb2018/borders", size=(32, 48))
    found = list(data.Data(recipe, str(built_borders)).native(objects=True))
    assert {2} <= {*np.unique(np.concatenate([each.mask.ravel() for each in found])).tolist()}
    for each in found:
        np.testing.assert_array_equal(each.instances > 0, each.mask > 0)


def test_objects_that_are_not_there_are_named(
    built_dsb2018, built_borders, built_datasets, tmp_path
):
    def ask(dataset: str, place, **changes):
        recipe = Recipe(dataset=dataset, size=(32, 48), **changes)
        data.Data(recipe, str(place)).native(objects=True)

    with pytest.raises(ValueError, match="segdata build dsb2018/instances --data_dir"):
        ask("dsb2018", built_datasets)
    with pytest.raises(ValueError, match="carvana has no map of objects"):
        ask("carvana", built_datasets)
    with pytest.raises(ValueError, match="this run has several"):
        ask("dsb2018+carvana", built_datasets, mix={"shares": {"dsb2018": 1, "carvana": 1}})
    # The same numbers of images, but others.
    dsb2018.draw_zips(tmp_path / "manual", examples=24, seed=9, unlabelled=2)
    building.build("dsb2018/instances", tmp_path / "manual", tmp_path / "data")
    shutil.copytree(
        built_dsb2018 / "dsb2018" / "default", tmp_path / "data" / "dsb2018" / "default"
    )
    with pytest.raises(ValueError, match="dsb2018/instances has other images than that of dsb2018"):
        ask("dsb2018", tmp_path / "data")


def test_images_without_labels_are_those_of_the_split_asked_for(built_dsb2018, built_datasets):
    recipe = Recipe(size=(32, 48), fold=(0, 2))
    found = list(data.Data(recipe, str(built_dsb2018)).unlabelled("test"))
    assert len(found) == 2
    assert all((each.mask == 255).all() for each in found)
    with pytest.raises(ValueError, match="no split 'tset'"):
        data.Data(recipe, str(built_dsb2018)).unlabelled("tset")
    cars = Recipe(dataset="carvana", size=(32, 48))
    with pytest.raises(ValueError, match="segdata build carvana/with_test"):
        data.Data(cars, str(built_datasets)).unlabelled("test")


@pytest.mark.parametrize("fit", ["letterbox", "crop"])
def test_a_mixture_is_not_trained_at_another_scale_than_it_is_scored_and_predicted(
    built_dsb2018, fit
):
    """Native records are made of the same pixels as the batches that are held out, or none are."""
    mix: dict[str, Any] = {"shares": {"dsb2018": 1}}
    options: dict[str, Any] = {"size": (32, 48), "batch": 1, "validation_split": "train[:4]"}
    made = data.Data(Recipe(mix=mix | {"fit": "stretch"}, **options), str(built_dsb2018))
    for (image, _), own in zip(made.validation["dsb2018"], made.native()["dsb2018"], strict=True):
        np.testing.assert_array_equal(image[0], own.record[..., :3])
    with pytest.raises(
        ValueError, match=f"fit, in what --mix says, is '{fit}'; it must be stretch"
    ):
        Recipe(mix=mix | {"fit": fit}, **options)


def test_each_dataset_of_a_mixture_has_its_own_class_ids_at_native_size(built_dsb2018):
    """Two datasets whose joint ids differ, against the tables of the label space."""
    mix: dict[str, Any] = {
        "shares": {"dsb2018": 1, "dsb2018/instances": 1},
        "labels": {
            "dsb2018": {"background": "background", "nucleus": "thing"},
            "dsb2018/instances": {"background": None, "nucleus": "nucleus"},
        },
    }
    recipe = Recipe(size=(32, 48), mix=mix, validation_split="train[:4]")
    found = data.Data(recipe, str(built_dsb2018)).native()
    tables = {"dsb2018": (0, 1), "dsb2018/instances": (255, 2)}
    for name, (outside, inside) in tables.items():
        plain = native.examples(name, "train[:4]", rule=RULE, data_dir=built_dsb2018)
        for own, other in zip(found[name], plain, strict=True):
            expected = np.where(other.mask == 1, inside, outside)
            np.testing.assert_array_equal(own.mask, expected)
            expected = np.where(other.record[..., 3] == 1, inside, outside)
            np.testing.assert_array_equal(own.record[..., 3], expected)


@pytest.mark.parametrize("mix", [{}, {"shares": {"dsb2018": 1, "dsb2018/instances": 2}}])
@pytest.mark.parametrize("record_size", ["native", 40])
def test_a_replayed_step_of_a_training_on_crops_is_what_it_was_trained_on(
    built_dsb2018, tmp_path, monkeypatch, record_size, mix
):
    recipe = Recipe(size=(16, 32), batch=3, mix=mix, record_size=record_size)
    settings = {"recipe": recipes.to_json(recipe), "data_dir": None}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(replay.sheet, "sheet", lambda pixels, ids, **_: drawn.update(of=pixels))
    replay.drawn(tmp_path, step=5, data_dir=built_dsb2018)
    batch = data.Data(recipe, str(built_dsb2018)).training.batch(5)
    np.testing.assert_array_equal(drawn["of"], np.concatenate(batch, axis=-1), strict=True)

"""Examples at their own size, against TFDS's own reading."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from segdata import native, packing
from unet import data
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


def test_of_a_mixture_masks_have_the_joint_classes(built_dsb2018):
    mix = {"shares": {"dsb2018": 1, "dsb2018/instances": 1}}
    recipe = Recipe(size=(32, 48), mix=mix, validation_split="train[:4]")
    found = data.Data(recipe, str(built_dsb2018)).native()
    assert list(found) == ["dsb2018", "dsb2018/instances"]
    for name, examples in found.items():
        plain = native.examples(name, "train[:4]", rule=RULE, data_dir=built_dsb2018)
        for own, other in zip(examples, plain, strict=True):
            np.testing.assert_array_equal(own.mask == 1, other.mask == 1)
            np.testing.assert_array_equal(own.record[..., 3] == 1, other.record[..., 3] == 1)
            np.testing.assert_array_equal(own.image, other.image)

"""The recipe `small`: what is measured of a dataset, and what is chosen from it."""

import dataclasses
import pathlib

import foreign
import numpy as np
import own_folders as own
import pytest

from segdata.core.augment import Augment
from segdata.inspection import traits
from unet import cli, planning, recipes, runs, small
from unet.model import UNet
from unet.recipes import SMALL

NUCLEI = traits.Traits(
    examples=600,
    splits={"train": 600, "validation": 64},
    classes=("background", "nucleus"),
    looked_at=64,
    height=256,
    width=256,
    shares=(0.86, 0.14),
    without=0.0,
    best={128: 0.95, 192: 0.97, 256: 0.98, 512: 1.0, 1024: 1.0},
    one_sided=0.02,
    upright=0.02,
    oriented=0.02,
)


def chosen(given=(), asked=None, **changed):
    found = dataclasses.replace(NUCLEI, **changed)
    asked = dataclasses.replace(asked or SMALL, dataset="mine")
    return small.choose(found, asked, given=given)


CHOICES = {
    "nuclei": ({}, {"loss": "cross_entropy_dice", "size": (192, 192), "batch": 8, "fold": None}),
    "balanced": ({"shares": (0.4, 0.6)}, {"loss": "cross_entropy"}),
    "mostly empty": ({"without": 0.6}, {"loss": "batch_dice"}),
    "small objects": (
        {"best": {128: 0.8, 192: 0.9, 256: 0.95, 512: 0.98}, "height": 600, "width": 700},
        {"size": (256, 256), "record_size": 553},  # 474×553 are as many pixels as 512×512
    ),
    "tiny objects": (
        {"best": {128: 0.5, 192: 0.6, 256: 0.7, 512: 0.8, 1024: 0.9}, "height": 250, "width": 4000},
        {"size": (240, 256), "record_size": 4096},  # 256×4096 are as many pixels as 1024×1024
    ),
    "small images": (
        {"best": dict.fromkeys(NUCLEI.best, 1.0), "height": 40, "width": 56},
        {"size": (48, 64), "record_size": None},
    ),
    "most images small": ({"height": 40, "width": 56}, {"size": (160, 224), "record_size": None}),
    "most images small, some of tiny objects": (
        {"best": {128: 0.8, 192: 0.9, 256: 0.95, 512: 0.98}, "height": 40, "width": 40},
        {"size": (32, 32), "record_size": 512},
    ),
    "nearly square": ({"height": 600, "width": 700}, {"size": (192, 192)}),
    "wide": ({"height": 1024, "width": 2048}, {"size": (128, 272)}),
    "few": ({"examples": 45}, {"batch": 4}),
    "val": ({"splits": {"train": 9, "val": 3}}, {"validation_split": "val"}),
    "no validation": ({"splits": {"train": 600, "test": 9}}, {"fold": (0, 10)}),
    "five examples": (
        {"splits": {"train": 5}, "examples": 5, "looked_at": 5},
        {"fold": (0, 5), "epochs": 100},
    ),
    "many": ({"examples": 90_000}, {"epochs": 2}),
}


@pytest.mark.parametrize("kind", CHOICES)
def test_what_is_chosen_follows_from_the_data(kind):
    changed, expected = CHOICES[kind]
    recipe, said = chosen(**changed)
    assert {name: getattr(recipe, name) for name in expected} == expected
    assert recipe.model.output_activation == "sigmoid"
    assert recipes.from_json(recipes.to_json(recipe)) == recipe
    assert all(line in recipe.source for line in said)
    Augment(**recipe.augment)
    assert ("cut from" in recipe.source) == bool(recipe.record_size) == kind.endswith(" objects")
    assert recipe.flips == bool(recipe.augment)


@pytest.mark.parametrize("epochs", [1, 2, 30, 100])
@pytest.mark.parametrize("examples", [1, 45, 600, 90_000])
def test_warmup_is_a_small_share_of_the_epochs(epochs, examples):
    asked = dataclasses.replace(SMALL, epochs=epochs, validation_split="val", warmup=0)
    recipe, _ = chosen(["epochs", "validation_split"], asked, examples=examples)
    assert 0 < recipe.warmup <= epochs / 10
    assert recipe.warmup <= 100 / -(-examples // recipe.batch) + 0.005
    asked = dataclasses.replace(asked, warmup=float(epochs))
    given = ["epochs", "warmup", "validation_split"]
    assert chosen(given, asked, examples=examples)[0].warmup == epochs


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("epochs", [1, 12, 200])
@pytest.mark.parametrize("examples", [1, 45, 90_000])
def test_the_average_of_the_weights_forgets_the_first_ones(examples, epochs, accumulation):
    asked = dataclasses.replace(
        SMALL, epochs=epochs, validation_split="val", accumulation=accumulation
    )
    given = ["epochs", "validation_split", "accumulation"]
    recipe, _ = chosen(given, asked, examples=examples)
    updates = epochs * -(-examples // recipe.batch) // accumulation
    assert recipe.ema_momentum**updates < 0.01 or not recipe.ema_momentum
    assert recipe.ema_momentum == 0.99 or recipe.ema_momentum**updates > 0.001 or updates < 10
    asked = dataclasses.replace(asked, ema_momentum=0.999)
    assert chosen([*given, "ema_momentum"], asked, examples=examples)[0].ema_momentum == 0.999


def test_an_average_that_a_training_is_too_short_for_is_said(capsys):
    recipe = recipes.Recipe(ema_momentum=0.99, accumulation=2)
    planning._say_if_average_lags(recipe, steps=1000)
    planning._say_if_average_lags(recipes.Recipe(), steps=1)
    assert capsys.readouterr().out == ""
    planning._say_if_average_lags(recipe, steps=100)
    said = capsys.readouterr().out
    assert "over some 100 updates, and there are 50 in all" in said
    assert "Give --ema_momentum 0.9, or more epochs." in said


def test_an_epoch_is_as_long_as_its_flag_says():
    asked = dataclasses.replace(SMALL, steps_per_epoch=10)
    recipe, said = chosen(["steps_per_epoch"], asked)
    whole, _ = chosen()
    assert (recipe.epochs, recipe.warmup) == (small._MOST_EPOCHS, 10)
    assert whole.epochs * 600 // whole.batch > recipe.epochs * 10
    assert "100 epochs of 10 batches of 8" in " ".join(said)


@pytest.mark.parametrize("steps", [10_000, 30_000, 1_000_000])
def test_the_warmup_of_long_epochs_is_100_batches(steps):
    asked = dataclasses.replace(SMALL, steps_per_epoch=steps)
    recipe, _ = chosen(["steps_per_epoch"], asked)
    assert round(recipe.warmup * steps) == pytest.approx(100, rel=0.01)


def test_classes_decide_the_head_and_one_class_is_refused():
    recipe, _ = chosen(classes=("road", "car", "sky"), shares=(0.5, 0.2, 0.3))
    assert (recipe.model.output_channels, recipe.model.output_activation) == (3, "softmax")
    assert recipe.loss == "cross_entropy"
    with pytest.raises(ValueError, match="two classes or more"):
        chosen(classes=("road",), shares=(1.0,))


def test_nothing_to_learn_or_to_validate_on_is_one_line():
    with pytest.raises(ValueError, match="mine: no pixel of its 9 examples is nucleus"):
        chosen(examples=9, looked_at=9, shares=(1.0, 0.0), without=1.0)
    recipe, _ = chosen(examples=99, shares=(1.0, 0.0), without=1.0)  # 64 were looked at
    assert recipe.loss == "batch_dice"
    alone = {"examples": 1, "looked_at": 1, "splits": {"train": 1}}
    with pytest.raises(ValueError, match=r"train has one image.* --validation_split train"):
        chosen(**alone)
    asked = dataclasses.replace(SMALL, validation_split="train")
    _, said = chosen(given=["validation_split"], asked=asked, **alone)
    assert "1 image to train on" in said[0]


STREETS = dataclasses.replace(
    NUCLEI,
    examples=100,
    splits={"train": 100, "val": 10},
    classes=("background", "road", "car"),
    looked_at=32,
    height=1024,
    width=1024,
    shares=(0.2, 0.5, 0.3),
    without=0.5,
    best={128: 0.9, 192: 0.95, 256: 0.99, 512: 1.0, 1024: 1.0},
    upright=0.9,
)


def mixed(given=(), asked=None, streets=STREETS, background=0):
    found = {"nuclei": NUCLEI, "streets": streets}
    tables = {name: np.full(256, 255, np.uint8) for name in found}
    tables["nuclei"][:2] = (background, 1)
    tables["streets"][:3] = (0, 2, 3)
    joint = traits.joined(
        found,
        shares={"nuclei": 3, "streets": 1},
        classes=("background", "nucleus", "road", "car"),
        tables=tables,
    )
    asked = asked or dataclasses.replace(
        SMALL, dataset="nuclei+streets", mix={"shares": {"nuclei": 3, "streets": 1}}
    )
    return joint, *small.choose_mixed(found, joint, asked, given=given)


def test_of_a_mixture_the_shares_decide_and_each_dataset_has_its_augmentation():
    joint, recipe, said = mixed()
    assert joint.examples == 700
    assert (joint.height, joint.width) == (362, 362)  # 256^0.75 · 1024^0.25
    expected = [0.75 * 0.86 + 0.25 * 0.2, 0.75 * 0.14, 0.25 * 0.5, 0.25 * 0.3]
    assert joint.shares == pytest.approx(expected)
    assert joint.without == pytest.approx(0.125)
    assert recipe.size == (256, 256)  # the first that is enough for streets too
    assert (recipe.model.output_channels, recipe.model.output_activation) == (4, "softmax")
    assert recipe.mix["validation_split"] == {"nuclei": "validation", "streets": "val"}
    assert "validated on validation, 74 images" in said[0]
    augments = {name: Augment(**each) for name, each in recipe.mix["augment"].items()}
    assert augments["nuclei"].vertical_flip == 0.5
    assert augments["streets"].vertical_flip == 0
    assert augments["nuclei"].horizontal_flip == augments["streets"].horizontal_flip == 0.5
    assert recipe.flips
    assert recipe.views == [(0, ()), (0, (2,))]
    assert augments["streets"].rotation_range == (-15, 15)  # of these there are few
    assert augments["nuclei"].rotation_range == Augment().rotation_range
    assert recipes.from_json(recipes.to_json(recipe)) == recipe
    joint = mixed(background=255)[0]
    assert joint.shares == pytest.approx(np.array([0.05, 0.105, 0.125, 0.075]) / 0.355)


def test_what_is_said_of_a_mixture_stays():
    augment = {"streets": {"horizontal_flip": 0.5}, "nuclei": None}
    mix = {"shares": {"nuclei": 3, "streets": 1}, "validation_split": "test", "augment": augment}
    asked = dataclasses.replace(SMALL, dataset="nuclei+streets", mix=mix, batch=5)
    _, recipe, said = mixed(given=["batch"], asked=asked)
    assert (dict(recipe.mix), recipe.batch, recipe.fold) == (mix, 5, None)
    assert "validated on test." in said[0]
    mix = {**mix, "validation_split": {"nuclei": "train[:9]", "streets": "val"}}
    _, recipe, said = mixed(asked=dataclasses.replace(asked, mix=mix))
    assert dict(recipe.mix) == mix
    assert "validated on train[:9] of nuclei, val of streets." in said[0]
    bare = dataclasses.replace(STREETS, splits={"train": 100})
    _, recipe, said = mixed(streets=bare)
    assert recipe.fold == (0, 10)
    assert "validation_split" not in recipe.mix
    assert "validated on fold 0 of 10 of train" in said[0]


def test_images_are_flipped_unless_all_differ_from_their_mirror_images_alike():
    flips = ("horizontal_flip", "vertical_flip", "quarter_turns")

    def flipped(**changed):
        augment = chosen(**changed)[0].augment
        return [name for name in flips if augment.get(name)]

    assert flipped() == [*flips]
    assert flipped(oriented=0.6) == [*flips[:2]]
    assert flipped(upright=0.6, oriented=0.6) == ["horizontal_flip"]
    assert flipped(given=["vertical_flip"]) == ["horizontal_flip"]
    assert flipped(one_sided=0.6, oriented=0.6) == ["vertical_flip"]
    assert flipped(height=512, width=1024) == [*flips[:2]]
    assert flipped(upright=0.4, oriented=0.4, looked_at=4) == [*flips]
    assert "rotation_range" not in chosen()[0].augment
    assert chosen(examples=50)[0].augment["rotation_range"] == (-15, 15)


GIVEN = [
    ({"size": (64, 96)}, "size"),
    ({"batch": 2}, "batch"),
    ({"epochs": 3}, "epochs"),
    ({"loss": "dice"}, "loss"),
    ({"validation_split": "test"}, "validation_split"),
    ({"fold": (1, 3)}, "fold"),
    ({"warmup": 0.5}, "warmup"),
]


@pytest.mark.parametrize(("changes", "name"), GIVEN)
def test_what_is_given_by_flag_stays_and_the_rest_follows(changes, name):
    asked = dataclasses.replace(SMALL, **changes)
    recipe, said = chosen(given=[name], asked=asked, height=300, width=320)
    assert getattr(recipe, name) == changes[name]
    usual = chosen(height=300, width=320)[0]
    if name == "size":  # the same time for smaller images
        assert recipe.epochs > 2 * usual.epochs
    if name == "batch":
        assert recipe.epochs == usual.epochs
    if name in ("size", "epochs", "loss"):
        assert "as you say" in " ".join(said)
    model = UNet(filters=(4, 8), output_activation="linear")
    asked = dataclasses.replace(SMALL, model=model, loss="squared_error")
    recipe, _ = chosen(given=["filters", "output_activation"], asked=asked)
    assert (recipe.model, recipe.loss) == (model, "squared_error")
    asked = dataclasses.replace(SMALL, augment={"vertical_flip": 0.1})
    recipe, _ = chosen(given=["vertical_flip", "quarter_turns"], asked=asked)
    assert recipe.augment == {"vertical_flip": 0.1, "horizontal_flip": 0.5}


def blank(seed: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A bright road at the bottom, with a few small dark cars on it."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    top = int(size[0] * rng.uniform(0.5, 0.65))
    mask[top:] = 1
    for _ in range(3):
        y, x = rng.integers(top, size[0] - 6), rng.integers(0, size[1] - 6)
        mask[y : y + 6, x : x + 6] = 2
    photo = np.array([60, 190, 20])[mask][..., None] + rng.integers(-15, 15, (*size, 3))
    return photo.clip(0, 255).astype(np.uint8), mask


@pytest.fixture(scope="module")
def roads(tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("roads")
    for seed in range(20):
        photo, mask = blank(seed, (64, 96))
        own.write(root / "images" / f"x{seed}.png", photo)
        own.write(root / "masks" / f"x{seed}.png", mask)
    names = ["--classes", "sky", "road", "car", "--group_regex", ".*"]
    code, _, fault = own.build(root, "--masks", root / "masks", "--validation", "0", *names)
    assert code == 0, fault
    return root


def test_a_dataset_is_measured_as_it_is(roads):
    found = traits.measure("folder:mine", "train", data_dir=roads / "data")
    masks = np.stack([blank(seed, (64, 96))[1] for seed in range(20)])
    assert (found.examples, found.looked_at, found.splits) == (20, 20, {"train": 20})
    assert (found.height, found.width, found.classes) == (64, 96, ("sky", "road", "car"))
    assert found.shares == pytest.approx(np.bincount(masks.ravel()) / masks.size)
    assert found.without == 0
    assert found.best == dict.fromkeys((128, 192, 256, 512, 1024), 1)  # the images are no larger
    assert found.upright > 0.8
    assert found.one_sided < 0.2
    with pytest.raises(ValueError, match="has no split 'nope'"):
        traits.measure("folder:mine", "nope", data_dir=roads / "data")


def test_a_dataset_of_somebody_else_is_measured_by_the_names_of_its_features(tmp_path, capsys):
    foreign.OxfordIiitPet(data_dir=tmp_path).download_and_prepare()
    train = ["train", "--recipe", "small", "--dataset", "oxford_iiit_pet", "--imports", "foreign"]
    train += ["--mask", "segmentation_mask", "--labels", "2=background", "1=pet", "3="]
    train += ["--filters", "4", "8", "--epochs", "1", "--data_dir", str(tmp_path)]
    assert cli.main([*train, "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "5 images to train on, 24×32 pixels at the median; validated on fold 0 of 6" in said
    assert "The classes: background " in said
    assert "Two classes: sigmoid; the loss cross_entropy_dice" in said
    assert runs.settings(tmp_path / "run").recipe.fold == (0, 6)


def test_a_perfect_mask_of_a_smaller_size_is_scored_as_by_a_slow_reference():
    mask = own.objects(1, 300, (256, 256)) > 0
    (hits, wrong) = traits._overlap(mask.astype(np.uint8), 128, 2)[1]
    cells = mask.reshape(128, 2, 128, 2).sum(axis=(1, 3)) > 2  # of equals the lower class
    enlarged = cells.repeat(2, 0).repeat(2, 1)
    assert (hits, wrong) == ((mask & enlarged).sum(), (mask ^ enlarged).sum())
    fine = (np.indices((1000, 1000)).sum(axis=0) // 3 % 2).astype(np.uint8)
    assert traits._overlap(fine, 128, 2)[1, 1] > traits._overlap(fine, 128, 2)[1, 0]


def test_a_run_is_made_of_what_was_chosen_and_needs_no_more(roads, tmp_path, capsys):
    run = tmp_path / "run"
    flags = ["--filters", "4", "8", "--epochs", "2", "--seed", "5"]
    train = ["train", "--recipe", "small", "--data_dir", str(roads / "data"), *flags]
    assert cli.main([*train, "--out", str(run)]) == 2
    assert "--recipe small chooses from a dataset, --dataset" in capsys.readouterr().err
    assert cli.main([*train, "--dataset", "folder:mine", "--out", str(run)]) == 0
    said = capsys.readouterr().out
    for line in (
        "18 images to train on, 64×96 pixels at the median; validated on fold 0 of 10 of train",
        "3 classes: softmax; the loss cross_entropy as softmax needs it.",
        "Training size 64×96, where a perfect mask, enlarged to the image, has Dice 1.000.",
        "2 epochs of 5 batches of 4 as you say.",
        "Flipped: left and right; top and bottom differ alike in all of 20 examples.",
    ):
        assert line in said
        assert line in (run / "report.html").read_text()
    settings = runs.settings(run)
    assert (settings.name, settings.classes) == ("small", ("sky", "road", "car"))
    recipe = settings.recipe
    assert (recipe.model.filters, recipe.epochs, recipe.seed) == ((4, 8), 2, 5)
    assert cli.main(["evaluate", str(run)]) == 0
    assert cli.main(["resume", str(run)]) == 0
    photo = str(roads / "images" / "x3.png")
    assert cli.main(["predict", str(run), photo, "--to", str(tmp_path / "to")]) == 0


@pytest.mark.heavy
def test_a_mixture_is_trained_scored_and_resumed_by_what_was_chosen(roads, tmp_path, capsys):
    for seed in range(9):
        own.write(tmp_path / "images" / f"x{seed}.png", own.photo(seed))
        own.write(tmp_path / "masks" / f"x{seed}.png", own.classes(seed) == 1)
    names = ["--classes", "background", "cell", "--data_dir", roads / "data"]
    assert own.build(tmp_path, "--masks", tmp_path / "masks", *names, name="cells")[0] == 0
    run = tmp_path / "run"
    flags = ["--mix", "folder:mine=1", "folder:cells=1", "--background", "negative"]
    flags += ["--data_dir", str(roads / "data"), "--filters", "4", "8", "--epochs", "2"]
    capsys.readouterr()
    assert cli.main(["train", "--recipe", "small", *flags, "--out", str(run)]) == 0
    said = capsys.readouterr().out
    assert "5 classes: softmax" in said
    assert "folder:mine: Flipped: left and right; top and bottom differ alike" in said
    assert "fold 0 of 8 of train" in said  # the one has no validation, the other 8 images
    assert runs.settings(run).classes == ("background", "sky", "road", "car", "cell")
    assert "dice/folder:cells" in str(runs.state(run).history[-1])
    assert cli.main(["resume", str(run)]) == 0
    assert cli.main(["evaluate", str(run)]) == 0


@pytest.mark.heavy
def test_it_does_well_on_drawn_nuclei(built_dsb2018, tmp_path):
    flags = ["--recipe", "small", "--dataset", "dsb2018", "--data_dir", str(built_dsb2018)]
    run = tmp_path / "run"
    assert cli.main(["train", *flags, "--out", str(run), "--epochs", "40"]) == 0
    assert max(row["val_dice"] for row in runs.state(run).history) > 0.85

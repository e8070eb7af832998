import dataclasses

import networks
import numpy as np
import pytest
from PIL import Image

from segdata.native import Native
from unet import evaluate, inference, judging, losses, metrics, objects, watershed
from unet.model import UNet
from unet.recipes import Recipe

RECIPE = Recipe(loss="cross_entropy_dice", threshold=0.6)
LABELLED = [0, 1, 2, 3, 5, 6]  # of seven; the fourth has no labels


def drawn(images: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mask = rng.choice(np.array([0, 1, 255], np.uint8), (images, 6, 4, 1), p=[0.5, 0.4, 0.1])
    mask[2], mask[4:5] = 0, 255
    return rng.integers(0, 256, (images, 6, 4, 3), np.uint8), mask


def scores(batch: int, **changes) -> dict[str, float]:
    images, masks = drawn()
    batches = [(images[i : i + batch], masks[i : i + batch]) for i in range(0, 7, batch)]
    recipe = dataclasses.replace(RECIPE, **changes)
    return evaluate.evaluate(networks.fixed(), batches, recipe)


@pytest.mark.parametrize("batch", [1, 3, 7])
@pytest.mark.parametrize("loss", [name for name in losses.BY_NAME if name != "squared_error"])
def test_scores_do_not_depend_on_the_batch_size(batch, loss):
    assert scores(batch, loss=loss) == pytest.approx(scores(2, loss=loss), rel=1e-6)


def test_the_batch_of_batch_dice_is_the_whole_data_set():
    images, masks = drawn()
    whole = np.asarray(losses.batch_dice(masks, networks.logits(images)))
    assert scores(2, loss="batch_dice")["loss"] == pytest.approx(whole[0], rel=1e-6)


def test_scores_are_what_their_names_say():
    images, masks = drawn()
    found = (networks.probability(images)[..., 0] > 0.6).astype(np.uint8)
    each = np.array([metrics.confusion(masks[i, ..., 0], found[i]) for i in LABELLED])
    whole = metrics.scores(each.sum(axis=0))
    loss = np.asarray(losses.cross_entropy_dice(masks, networks.logits(images)))[LABELLED]
    assert scores(3) == pytest.approx(
        {
            "images": 6,
            "unlabelled": 1,
            "dice": metrics.mean(metrics.scores(each)["dice"]).mean(),
            "iou": metrics.mean(metrics.scores(each)["iou"]).mean(),
            "dataset_dice": float(whole["dice"][0]),
            "dataset_iou": float(whole["iou"][0]),
            "loss": loss.mean(),
            "threshold": 0.6,
        },
        rel=1e-6,
    )


def test_the_threshold_counts():
    assert scores(7, threshold=0.0)["dice"] != scores(7, threshold=0.9)["dice"]


def test_each_image_comes_with_its_own_scores():
    images, masks = drawn()
    judge = evaluate.scorer(networks.fixed(), RECIPE)
    rows = list(evaluate.scored(judge, [(images, masks)], RECIPE))
    assert len(rows) == 7
    probability = networks.probability(images)[..., 0]
    loss = np.asarray(losses.cross_entropy_dice(masks, networks.logits(images)))
    for i, row in enumerate(rows):
        assert np.array_equal(row.image, images[i])
        assert np.array_equal(row.mask, masks[i, ..., 0])
        assert np.array_equal(row.found, probability[i] > 0.6)
        assert np.abs(row.probability - 255 * probability[i]).max() <= 0.51
        assert row.loss == pytest.approx(loss[i], rel=1e-5)
        assert bool(row.scores) == (i in LABELLED)
        if row.scores:
            matrix = metrics.confusion(row.mask, row.found)
            assert row.scores["dice"] == metrics.mean(metrics.scores(matrix)["dice"])


@pytest.mark.parametrize("name", ["", "a"])
def test_a_set_without_labels_is_refused(name):
    images, masks = drawn()
    empty = [(images, np.full_like(masks, 255))]
    batches = {name: empty, "b": [(images, masks)]} if name else empty
    wanted = "none of the 7 images of " + (name or "the set")
    with pytest.raises(ValueError, match=wanted):
        evaluate.evaluate(networks.fixed(), batches, RECIPE)
    with pytest.raises(ValueError, match="none of the 0 images"):
        evaluate.evaluate(networks.fixed(), [], RECIPE)


def test_several_datasets_are_scored_each_and_together():
    images, masks = drawn()
    network = networks.fixed()

    def part(*rows):
        return [(images[slice(*rows)], masks[slice(*rows)])]

    found = evaluate.evaluate(network, {"a": part(0, 3), "b": part(3, 7)}, RECIPE)
    whole = evaluate.evaluate(network, part(0, 7), RECIPE)
    assert {name: found[name] for name in whole} == pytest.approx(whole, rel=1e-6)
    for name, rows in (("a", (0, 3)), ("b", (3, 7))):
        alone = evaluate.evaluate(network, part(*rows), RECIPE)
        del alone["threshold"]
        own = {score: found.pop(f"{score}/{name}") for score in alone}
        assert own == pytest.approx(alone, rel=1e-6)
    assert found.keys() == whole.keys()


def test_classes_are_decided_by_the_largest_logit():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 6, 4, 3), np.uint8)
    masks = rng.choice(np.array([0, 1, 2, 255], np.uint8), (4, 6, 4, 1))
    model = UNet(output_activation="softmax", output_channels=3)
    recipe = Recipe(model=model, loss="dice")
    judge = evaluate.scorer(networks.fixed(3), recipe)
    for i, row in enumerate(evaluate.scored(judge, [(images, masks)], recipe)):
        probability = networks.probability(images, 3)[i]
        assert np.array_equal(row.found, images[i].argmax(-1))
        assert np.abs(row.probability - 255 * probability.max(-1)).max() <= 0.51
        assert row.sums.shape == (3, 3)


def natives(count: int = 5) -> list[Native]:
    """Examples whose records are half as high and a third as wide."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        small = rng.integers(0, 256, (4, 6, 4), np.uint8)
        small[..., 3] = rng.choice(np.array([0, 1, 255], np.uint8), (4, 6))
        large = small.repeat(2, 0).repeat(3, 1)
        made.append(Native(str(number), str(number), large[..., :3], large[..., 3], small))
    return made


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_at_native_size_probabilities_are_enlarged_and_decided_there(batch):
    small = UNet(filters=(2, 2))
    recipe = dataclasses.replace(RECIPE, batch=batch, size=(4, 6), model=small)
    each = []
    for example in natives():
        small = networks.probability(example.record[None, ..., :3])[0, ..., 0]
        size = example.mask.shape[::-1]
        large = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BILINEAR))
        found = (large > 0.6).astype(np.uint8)
        each.append(metrics.confusion(example.mask, found))
    found = evaluate.evaluate_native(networks.fixed(), natives(), recipe)
    wanted = metrics.scores(np.sum(each, axis=0))
    assert found["dataset_dice"] == pytest.approx(float(wanted["dice"][0]))
    assert found["dice"] == pytest.approx(
        np.mean([metrics.mean(metrics.scores(one)["dice"]) for one in each])
    )
    records = np.stack([example.record for example in natives()])
    at_training = evaluate.evaluate(
        networks.fixed(), [(records[..., :3], records[..., 3:])], recipe
    )
    assert found["loss"] == pytest.approx(at_training["loss"])
    assert found["dice"] != at_training["dice"]
    both = evaluate.evaluate_native(networks.fixed(), {"a": natives(), "b": natives(2)}, recipe)
    assert both["dice/a"] == pytest.approx(found["dice"])
    assert (both["images/a"], both["images/b"], both["images"]) == (5, 2, 7)


@pytest.mark.parametrize("loss", ["cross_entropy", "dice", "batch_dice"])
def test_at_native_size_tiles_without_labels_are_no_part_of_the_loss(loss):
    recipe = Recipe(size=(16, 16), record_size="native", loss=loss, batch=2)
    examples = []
    for number, (height, width) in enumerate([(16, 41), (37, 16), (20, 19)]):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        mask = rng.choice(np.array([0, 1, 255], np.uint8), (height, width))
        mask[11:, 9:] = 255
        mask[:, 18:] = 255
        record = np.dstack([pixels, mask])
        examples.append(Native(str(number), "g", pixels, mask, record))
    nothing = np.full(256, 255, np.uint8)
    examples.append(examples[0].relabelled(nothing)._replace(id="3"))
    left_out, each = 0, []
    for example in examples[:3]:
        own = []
        for top in _starts(example.mask.shape[0]):
            for left in _starts(example.mask.shape[1]):
                tile = example.record[top : top + 16, left : left + 16]
                if (tile[..., 3] == 255).all():
                    left_out += 1
                    continue
                image, mask = tile[None, ..., :3], tile[None, ..., 3:]
                part = losses.parts(losses.chosen(loss), mask, networks.logits(image))
                own.append(np.asarray(part)[0])
        each.append(np.mean(own, axis=0))
    assert left_out
    found = evaluate.evaluate_native(networks.fixed(), examples, recipe)
    wanted = losses.total(losses.chosen(loss), np.array(each, np.float64))
    assert found["loss"] == pytest.approx(wanted, rel=1e-5)
    assert (found["images"], found["unlabelled"]) == (3, 1)


def _starts(length: int) -> list[int]:
    """Where tiles of 16 pixels begin that overlap by 4 or more, as few as that takes."""
    count = 1
    while 12 * count + 4 < length:
        count += 1
    return [int(k * (length - 16) / max(count - 1, 1) + 0.5) for k in range(count)]


@pytest.mark.parametrize("batch", [1, 2, 8])
@pytest.mark.parametrize("border", [None, 2])
def test_objects_are_scored_at_native_size_image_by_image(batch, border):
    model = UNet(output_activation="softmax", output_channels=3) if border else UNet()
    recipe = dataclasses.replace(RECIPE, batch=batch, model=model, threshold=0.5)
    separation = objects.Separation(least_area=3)
    channels = 3 if border else 1
    rng = np.random.default_rng(1)
    examples = natives()
    for number, example in enumerate(examples):
        instances = rng.integers(0, 4, example.mask.shape, np.uint16)
        mask = np.full_like(example.mask, 255) if number == 2 else example.mask
        examples[number] = example._replace(mask=mask, instances=instances)
    matches = []
    for example in examples:
        image = example.record[..., :3]
        parts = inference.parts(
            lambda batch: networks.probability(batch[..., :3], channels),
            image,
            example.mask.shape,
            recipe,
        )
        found = inference.decided(parts, example.mask.shape, recipe).found
        labels = watershed.objects(found, separation, border=border)
        if not (example.mask == 255).all():
            matches.append(
                objects.match(np.asarray(example.instances), labels, example.mask == 255)
            )
    judge = evaluate.scorer(networks.fixed(channels), recipe, decides=False)
    scored = evaluate.scored_native(judge, iter(examples), recipe)
    classes = ("background", "nucleus", "border") if border else ()
    found = judging.judge(scored, recipe, classes=classes, separation=separation).scores
    wanted = objects.summary(matches)
    assert min(found["objects_true"], found["objects_found"]) > 0
    assert {name: found[name] for name in wanted} == wanted


def test_a_regression_is_scored_by_its_errors():
    images, masks = drawn()
    recipe = Recipe(model=UNet(output_activation="linear"), loss="squared_error")
    found = evaluate.evaluate(networks.fixed(), [(images, masks)], recipe)
    output, labelled = networks.logits(images), masks != 255
    wrong = (output - masks)[labelled]
    truth = masks[labelled].astype(float)
    assert found == pytest.approx(
        {
            "images": 6,
            "unlabelled": 1,
            "mae": np.abs(wrong).mean(),
            "rmse": np.sqrt((wrong**2).mean()),
            "r2": 1 - (wrong**2).sum() / ((truth - truth.mean()) ** 2).sum(),
            "loss": np.asarray(losses.squared_error(masks, output))[LABELLED].mean(),
        },
        rel=1e-5,
    )

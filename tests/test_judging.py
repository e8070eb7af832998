import dataclasses
import json
import math
import pathlib
import re

import networks
import numpy as np
import pytest

from segdata.native import Native
from unet import (
    boundaries,
    calibration,
    comparing,
    evaluate,
    intervals,
    judging,
    metrics,
    objects,
    watershed,
)
from unet.model import UNet
from unet.recipes import Recipe

SIGMOID = Recipe(batch=3, threshold=0.4)
SOFTMAX = Recipe(model=UNet(output_activation="softmax", output_channels=3), batch=2)
LINEAR = Recipe(model=UNet(output_activation="linear"), loss="squared_error", batch=4)
SHAPES = [(8, 18), (7, 5), (1, 9), (16, 11), (5, 5), (9, 30), (12, 12)]


def natives(classes=2, *, seed=0, groups=3):
    """Examples of odd sizes; one without objects, true or found, one without labels."""
    rng = np.random.default_rng(seed)
    for number, shape in enumerate(SHAPES):
        mask = rng.choice(np.array([*range(classes), 255], np.uint8), shape)
        mask = {2: np.zeros_like(mask), 4: np.full_like(mask, 255)}.get(number, mask)
        image = rng.integers(0, 256, (*shape, 3), np.uint8)
        small = rng.integers(0, 256, (4, 6, 4), np.uint8)
        small *= number != 2
        small[..., 3] = mask[:1, :1]
        yield Native(f"n{number}", f"g{number % groups}", image, mask, small)


def scored(recipe, images):
    judge = evaluate.scorer(networks.fixed(recipe.model.output_channels), recipe, decides=False)
    return list(evaluate.scored_native(judge, images, recipe))


def judged(recipe, images, **options):
    return judging.judge(iter(scored(recipe, images)), recipe, **options)


def counted(rows, classes):
    """The confusion matrix, pixel by pixel."""
    matrix = np.zeros((classes, classes), int)
    for row in rows:
        for truth, found in zip(row.mask.flat, row.found.flat, strict=True):
            if truth != 255:
                matrix[truth, found] += 1
    return matrix


@pytest.mark.parametrize(("recipe", "classes"), [(SIGMOID, 2), (SOFTMAX, 3)])
def test_scores_matrix_and_calibration_are_those_of_all_pixels(recipe, classes):
    rows = scored(recipe, natives(classes))
    channels = recipe.model.output_channels
    found = judging.judge(iter(rows), recipe, classes="abc"[:classes], boundary=True)
    assert found.scores["images"] == 6
    assert found.scores["unlabelled"] == 1
    plain = evaluate.summary(iter(rows), recipe)
    assert {name: found.scores[name] for name in plain} == plain
    matrix = counted(rows, classes)
    assert found.parts[""].confusion.tolist() == matrix.tolist()
    by_class = found.by_class()
    assert [*by_class] == [*("b" if channels == 1 else "abc")]
    for name, scores in by_class.items():
        i = "abc".index(name)
        right, seen, true = matrix[i, i], matrix[:, i].sum(), matrix[i].sum()
        assert scores == pytest.approx(
            {
                "dice": 2 * right / (seen + true),
                "iou": right / (seen + true - right),
                "precision": right / seen,
                "recall": right / true,
            }
        )
    whole = sum(
        calibration.histogram(row.mask, row.found, row.probability, channels=channels)
        for row in rows
    )
    assert np.array_equal(found.parts[""].histogram, whole)
    each = [boundaries.f1(row.mask, row.found, channels=channels) for row in rows if row.scores]
    assert any(map(math.isnan, each))  # the one without objects
    assert found.scores["boundary_f1"] == pytest.approx(np.nanmean(each))


@pytest.mark.parametrize("recipe", [SIGMOID, SOFTMAX, LINEAR])
def test_intervals_are_of_the_scores_that_are_given(recipe):
    channels = recipe.model.output_channels
    found = judged(recipe, natives(max(2, channels)), boundary=not recipe.is_regression)
    wanted = (
        {"mae", "rmse", "r2"}
        if recipe.is_regression
        else {*("dice", "iou", "dataset_dice", "dataset_iou", "boundary_f1")}
    )
    assert found.intervals.keys() == wanted
    assert found.groups == 3
    sums = np.array([row.sums for row in found.rows])
    together = judging.scores_of(sums.sum(axis=0), recipe)
    for name in wanted:
        assert together[name] == pytest.approx(found.scores[name])
        low, high = found.intervals[name]
        assert low <= found.scores[name] <= high or name == "r2"
    groups = [row.group for row in found.rows]
    by_hand = intervals.of(groups, sums, lambda s: judging.scores_of(s, recipe))
    assert found.intervals == by_hand


def test_intervals_of_objects_are_those_of_drawn_groups():
    separation = objects.Separation(least_area=2)
    rng, examples = np.random.default_rng(5), []
    for number, (example, row) in enumerate(
        zip(natives(), scored(SIGMOID, natives()), strict=True)
    ):
        found = watershed.objects(row.found, separation)
        wrong = rng.integers(0, 4, row.found.shape)
        instances = wrong if number % 2 else np.where(found > 1, found, 0)
        examples.append(example._replace(instances=instances.astype(np.uint16)))
    found = judged(SIGMOID, examples, separation=separation)
    plain = judged(SIGMOID, natives())
    assert {name: found.scores[name] for name in plain.scores} == plain.scores
    assert found.intervals.keys() - plain.intervals.keys() == {
        *("object_ap", "object_ap50", "object_f1")
    }
    by_group: dict[str, list[objects.Matches]] = {}
    for row in found.rows:
        assert row.objects
        by_group.setdefault(row.group, []).append(row.objects)
    generator, draws = np.random.Philox(key=0), []
    for _ in range(intervals.DRAWS):
        drawn = [sorted(by_group)[int(generator.random_raw() % np.uint64(3))] for _ in by_group]
        draws.append(objects.summary([x for name in drawn for x in by_group[name]]))
    for name in ("object_ap", "object_ap50", "object_f1"):
        wanted = np.percentile([draw[name] for draw in draws], [2.5, 97.5])
        assert wanted[0] < wanted[1]
        assert found.intervals[name] == pytest.approx(tuple(wanted))
    assert re.search(rf"object_ap +{found.scores['object_ap']:.4f}  0", judging.text(found))


@pytest.mark.parametrize(
    ("classes", "ids"),
    [
        (("background", "a", "b"), (0, 1, 2)),
        (("nothing", "a", "b"), (0, 1, 2)),
        (("a", "background", "b"), (1, 0, 2)),
    ],
)
def test_objects_of_two_classes_that_touch_are_two(classes, ids):
    none, first, second = ids
    instances = np.zeros((20, 31), np.uint16)
    instances[3:9, 2:15], instances[3:9, 15:29], instances[12:18, 4:20] = 1, 2, 3
    mask = np.choose(instances, [none, first, second, first]).astype(np.uint8)
    sums = metrics.confusion(mask, mask, channels=3)
    image = np.zeros((*mask.shape, 3), np.uint8)
    scores = {"dice": 1.0, "iou": 1.0}
    perfect = evaluate.Scored(image, mask, mask, mask, sums, np.zeros(1), scores)
    perfect = perfect._replace(instances=instances)
    found = judging.judge(iter([perfect]), SOFTMAX, classes=classes).scores
    assert found["object_ap"] == 1
    assert found["objects_found"] == 3


def test_several_datasets_have_each_their_own_and_all_together():
    first, second = [*natives(3)], [*natives(3, seed=1, groups=2)]
    found = judged(SOFTMAX, {"a": first, "b": second}, boundary=True)
    for name, own in (("a", first), ("b", second)):
        alone = judged(SOFTMAX, own, boundary=True)
        for score, value in alone.scores.items():
            if score != "threshold":
                assert found.scores[f"{score}/{name}"] == pytest.approx(value)
        for score, ends in alone.intervals.items():
            assert found.intervals[f"{score}/{name}"] == pytest.approx(ends)
        assert np.array_equal(found.parts[name].confusion, alone.parts[""].confusion)
        assert found.by_class(name) == alone.by_class()
    assert np.array_equal(
        found.parts[""].histogram, found.parts["a"].histogram + found.parts["b"].histogram
    )
    assert found.groups == 5
    # Groups of two datasets are two, also where they have the same name.
    others = [each._replace(group=f"h{each.group}") for each in second]
    apart = judged(SOFTMAX, {"a": first, "b": others}, boundary=True)
    assert apart.intervals["dice"] == pytest.approx(found.intervals["dice"])
    saved = judging.to_json(found)
    assert saved["classes/a"] == found.by_class("a")
    assert "b" in judging.text(found)


def test_what_is_printed_as_json_is_json_and_says_what_is_not_known():
    found = judged(SIGMOID, [example._replace(mask=example.mask * 0) for example in natives()])
    saved = json.loads(json.dumps(judging.to_json(found), allow_nan=False))
    assert saved["classes"]["foreground"]["recall"] is None
    assert saved["classes"]["foreground"]["precision"] == 0
    matrix = saved["confusion"]
    assert matrix["foreground"] == {"background": 0, "foreground": 0}
    assert sum(matrix["background"].values()) == sum(math.prod(shape) for shape in SHAPES)
    assert sum(x["pixels"] for x in saved["calibration"]) == sum(map(math.prod, SHAPES))
    assert (saved["groups"], len(saved["calibration"])) == (3, 15)


def test_where_groups_are_not_known_there_are_no_intervals():
    images = [example._replace(group="") for example in natives()]
    found = judged(SIGMOID, images)
    assert (found.intervals, found.groups) == ({}, 0)
    assert not {"groups", "intervals"} & judging.to_json(found).keys()


def test_a_regression_has_neither_classes_nor_calibration():
    found = judged(LINEAR, natives())
    saved = judging.to_json(found)
    assert not {"classes", "confusion", "calibration", "boundary_f1"} & saved.keys()
    assert "rmse" in judging.text(found)


def test_names_of_classes_must_be_as_many_as_the_model_has():
    with pytest.raises(ValueError, match="classes are a; the model has 2"):
        judged(SIGMOID, natives(), classes=["a"])


def test_for_people_a_matrix_is_printed_or_the_most_frequent_errors():
    lines = judging.text(judged(SIGMOID, natives())).splitlines()
    assert any(line.startswith("dice") and " to " in line for line in lines)
    assert any(line.startswith("truth") and line.endswith("(found)") for line in lines)
    model = dataclasses.replace(SOFTMAX.model, output_channels=9)
    recipe = dataclasses.replace(SOFTMAX, model=model)
    names = tuple(f"class {i}" for i in range(9))
    matrix = np.zeros((9, 9), np.int64)
    matrix[0, 0], matrix[1, 2], matrix[3, 0], matrix[3, 3] = 90, 7, 5, 15
    part = judging.Part(matrix, np.zeros((2, 256), np.int64))
    judgement = judging.Judgement(
        recipe=recipe, classes=names, scores={}, intervals={}, parts={"": part}, rows=()
    )
    last = judging.text(judgement).splitlines()[-2:]
    assert [line.split("class")[1:] for line in last] == [
        [" 1       ", " 2                   7 100.0%"],
        [" 3       ", " 0                   5  25.0%"],
    ]
    assert judging.confusions(names, matrix, most=1) == [("class 1", "class 2", 7, 1.0)]


@pytest.mark.parametrize(("groups", "few"), [(19, True), (20, False)])
def test_intervals_of_few_groups_are_said_to_be_too_narrow(groups, few):
    images = [next(natives())._replace(id=str(i), group=str(i)) for i in range(groups)]
    judgement = judged(SIGMOID, images)
    both = comparing.compare({"a": judgement, "b": judgement})
    for shown in (judging.text(judgement), comparing.text(both), comparing.document(both)):
        assert ("Intervals of fewer than some 20 groups are too narrow" in shown) == few


def test_counts_are_enough_for_the_scores_of_a_matrix():
    rng = np.random.default_rng(0)
    matrices = rng.integers(0, 9, (5, 4, 4))
    for channels in (1, 4):
        own = matrices[:, :2, :2] if channels == 1 else matrices
        both = metrics.of_counts(metrics.counts(own, channels=channels).sum(axis=0))
        wanted = metrics.scores(own.sum(axis=0), channels=channels)
        for name, values in wanted.items():
            assert both[name] == pytest.approx(values)


@pytest.mark.parametrize("by", ["loss", "dice", "iou", "dataset_dice", "dataset_iou"])
def test_the_best_threshold_scores_as_it_says_and_no_other_does_better(by):
    recipe = dataclasses.replace(SIGMOID, best_by=by)
    best = judging.best_threshold(iter(scored(recipe, natives())), recipe)
    name = "dice" if by == "loss" else by
    assert (best.score, best.images) == (name, 6)

    def score(threshold):
        own = dataclasses.replace(recipe, threshold=threshold)
        return evaluate.summary(iter(scored(own, natives())), own)[name]

    assert score(best.threshold) == pytest.approx(best.value, abs=1e-9)
    tried = [score(t) for t in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)]
    assert max(tried) <= best.value + 1e-9
    assert min(tried) < best.value


def test_a_model_of_several_classes_and_a_regression_have_no_threshold():
    for recipe in (SOFTMAX, LINEAR):
        with pytest.raises(ValueError, match="has no threshold"):
            judging.best_threshold(iter(()), recipe)


@pytest.mark.parametrize("recipe", [SIGMOID, SOFTMAX, LINEAR])
def test_the_page_about_scores_explains_every_key(recipe):
    images = [*natives(max(2, recipe.model.output_channels))]
    found = judged(recipe, {"a": images, "b": images}, boundary=not recipe.is_regression)
    saved = judging.to_json(found)
    page = pathlib.Path(__file__).parent.parent / "docs" / "evaluation.md"
    explained = set(re.findall("`(.+?)`", page.read_text(encoding="utf-8")))
    keys = {key.partition("/")[0] for key in saved}
    keys |= set(saved.get("calibration", [{}])[0]) | set(judging.Threshold._fields)
    assert keys <= explained | {"threshold"}
    assert {"images/a", "images/b"} <= saved.keys()

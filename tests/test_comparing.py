import dataclasses
import json
import re

import networks
import numpy as np
import pytest

from segdata.native import Native
from unet import comparing, evaluate, intervals, judging, objects
from unet.model import UNet
from unet.recipes import Recipe

SIGMOID = Recipe(batch=3)
SOFTMAX = Recipe(model=UNet(output_activation="softmax", output_channels=3), batch=2)
LINEAR = Recipe(model=UNet(output_activation="linear"), loss="squared_error", batch=4)


def natives(classes=2, *, groups=4, noise=0, count=9):
    """Examples whose image tells the class; noise makes it tell less."""
    rng, other = np.random.default_rng(0), np.random.default_rng(noise)
    for number in range(count):
        shape = (5 + number, 17 - number)
        mask = rng.choice(np.array([*range(classes), 255], np.uint8), shape)
        small = rng.integers(0, 256, (4, 6, 4), np.uint8)
        small[..., :3] += other.integers(0, 2 + 20 * noise, (4, 6, 3), np.uint8)
        yield Native(f"n{number}", f"g{number % groups}", np.dstack([mask] * 3), mask, small)


def judged(recipe, images, *, boundary=False):
    judge = evaluate.scorer(networks.fixed(recipe.model.output_channels), recipe, decides=False)
    return judging.judge(evaluate.scored_native(judge, images, recipe), recipe, boundary=boundary)


@pytest.mark.parametrize("recipe", [SIGMOID, SOFTMAX, LINEAR])
def test_differences_are_those_of_paired_draws_of_groups(recipe):
    channels = max(recipe.model.output_channels, 2)
    boundary = not recipe.is_regression
    first, second = (
        judged(recipe, natives(channels, noise=noise), boundary=boundary) for noise in (0, 3)
    )
    found = comparing.compare({"one": first, "two": second}).differences["two"]
    groups = sorted({row.group for row in first.rows})

    def total(judgement, drawn):
        rows = [row.sums for name in drawn for row in judgement.rows if row.group == name]
        return judging.scores_of(np.sum(rows, axis=0), recipe)

    generator, draws = np.random.Philox(key=0), []
    for _ in range(intervals.DRAWS):
        drawn = [groups[int(generator.random_raw() % np.uint64(4))] for _ in groups]
        ours, theirs = total(first, drawn), total(second, drawn)
        draws.append({name: theirs[name] - ours[name] for name in ours})
    assert found.keys() == (first.scores.keys() & draws[0].keys())
    for name, difference in found.items():
        assert difference.value == pytest.approx(second.scores[name] - first.scores[name])
        wanted = np.percentile([draw[name] for draw in draws], [2.5, 97.5])
        assert difference.interval == pytest.approx(tuple(wanted))


def test_a_run_does_not_differ_from_itself_whatever_the_order_of_its_images():
    images = [*natives()]
    pair = judged(SIGMOID, images), judged(SIGMOID, images[::-1])
    for difference in (
        comparing.compare(dict(zip("ab", pair, strict=True))).differences["b"].values()
    ):
        assert difference.value == pytest.approx(0)
        assert difference.interval == pytest.approx((0, 0))


def test_what_is_hard_for_both_widens_no_difference():
    images = [*natives(count=9, groups=9)]
    one = judged(SIGMOID, images)
    better = [
        row._replace(sums=row.sums + np.array([0, 0.01, 0.01, *[0] * (len(row.sums) - 3)]))
        for row in one.rows
    ]
    scores = {**one.scores, "dice": one.scores["dice"] + 0.01, "iou": one.scores["iou"] + 0.01}
    two = dataclasses.replace(one, rows=tuple(better), scores=scores)
    difference = comparing.compare({"one": one, "two": two}).differences["two"]["dice"]
    assert difference.interval == pytest.approx((0.01, 0.01))
    assert difference.is_clear
    low, high = one.intervals["dice"]
    assert high - low > 0.02


def test_a_score_that_one_of_three_runs_lacks_is_left_out():
    mask = np.zeros((16, 15), np.uint8)  # nothing to find: no contour where nothing is found

    def run(value):
        image = np.zeros((16, 15, 3), np.uint8)
        image[4:9, 3:9] = value
        record = np.dstack([image, mask])
        images = [Native(str(k), f"g{k}", image, mask, record) for k in range(2)]
        crops = Recipe(size=(16, 16), record_size="native")
        return judged(crops, images, boundary=True)

    found = comparing.compare({"x": run(255), "y": run(255), "z": run(0)})
    assert found.scores == ["dice", "iou", "dataset_dice", "dataset_iou"]
    for page in (comparing.text(found), comparing.document(found)):
        assert "z" in page
        assert "nan" not in page


def test_objects_are_compared_where_both_runs_have_them():
    def with_objects(noise):
        rng = np.random.default_rng(3)
        for example in natives(noise=noise):
            yield example._replace(instances=rng.integers(0, 3, example.mask.shape, np.uint16))

    separation = objects.Separation(least_area=2)
    judge = evaluate.scorer(networks.fixed(), SIGMOID, decides=False)
    one, two = (
        judging.judge(
            evaluate.scored_native(judge, with_objects(noise), SIGMOID),
            SIGMOID,
            separation=separation,
        )
        for noise in (0, 3)
    )
    found = comparing.compare({"one": one, "two": two})
    names = ["object_ap", "object_ap50", "object_f1"]
    assert found.scores[-3:] == names
    draws: dict[str, list[float]] = {name: [] for name in names}
    generator, groups = np.random.Philox(key=0), sorted({row.group for row in one.rows})
    for _ in range(intervals.DRAWS):
        drawn = [groups[int(generator.random_raw() % np.uint64(4))] for _ in groups]
        pair = [
            objects.summary(
                row.objects
                for name in drawn
                for row in judgement.rows
                if row.objects and row.group == name
            )
            for judgement in (one, two)
        ]
        for name in names:
            draws[name].append(pair[1][name] - pair[0][name])
    for name in names:
        difference = found.differences["two"][name]
        assert difference.value == pytest.approx(two.scores[name] - one.scores[name])
        assert difference.interval == pytest.approx(tuple(np.percentile(draws[name], [2.5, 97.5])))
        assert name in comparing.text(found)
    plain = judged(SIGMOID, natives())
    assert not {*comparing.compare({"one": one, "plain": plain}).scores} & {*names}
    assert not {*comparing.compare({"plain": plain, "one": one}).scores} & {*names}


def test_several_datasets_and_runs_are_compared():
    runs = {
        name: judged(SOFTMAX, {"a": natives(3, noise=noise), "b": natives(3, count=4)})
        for noise, name in enumerate(("x", "y", "z"))
    }
    found = comparing.compare(runs)
    assert [*found.differences] == ["y", "z"]
    saved = json.loads(json.dumps(comparing.to_json(found), allow_nan=False))
    assert (saved["images"], saved["groups"], saved["first"]) == (13, 8, "x")
    each = saved["differences"]["z"]["dice"]
    assert each["difference"] == pytest.approx(
        saved["runs"]["z"]["dice"] - saved["runs"]["x"]["dice"]
    )
    assert each["interval"][0] <= each["difference"] <= each["interval"][1]
    page = comparing.document(found)
    assert "<th>a: n0</th>" in page
    assert "<th>b: n0</th>" in page
    fewer = {"a": natives(3), "b": (x._replace(mask=x.mask % 2) for x in natives(3, count=4))}
    with pytest.raises(ValueError, match="the truth of b: n0 is not the same for x and y"):
        comparing.compare({"x": runs["x"], "y": judged(SOFTMAX, fewer)})


def test_tables_for_people_hold_each_score_of_each_run():
    runs = {name: judged(SIGMOID, natives(noise=i)) for i, name in enumerate(("x", "<y>"))}
    found = comparing.compare(runs)
    shown = comparing.text(found)
    page = comparing.document(found)
    assert "<y>" not in page
    assert page.count("<svg") == len(found.scores) == 4
    for name, judgement in runs.items():
        for score in found.scores:
            assert f"{judgement.scores[score]:.4f}" in shown
            assert f"{judgement.scores[score]:.4f}" in page
        assert name in shown
    assert f"{found.differences['<y>']['dice'].value:+.4f}" in shown


@pytest.mark.parametrize(("recipe", "shown"), [(SIGMOID, "0.5000"), (SOFTMAX, "–")])
def test_a_threshold_is_shown_where_a_model_has_one(recipe, shown):
    classes = max(2, recipe.model.output_channels)
    both = {name: judged(recipe, natives(classes)) for name in "ab"}
    rows = re.findall(r"<tr>(.*?)</tr>", comparing.document(comparing.compare(both)), re.DOTALL)
    (one, other) = (row for row in rows if ">Threshold<" in row)
    assert shown in one
    assert one == other


def test_without_groups_there_are_differences_and_no_intervals():
    images = [example._replace(group="") for example in natives()]
    found = comparing.compare({"a": judged(SIGMOID, images), "b": judged(SIGMOID, images)})
    assert found.differences["b"]["dice"] == comparing.Difference(0.0, None)
    assert "<svg" not in comparing.document(found)
    assert "–" in comparing.text(found)


def test_one_image_is_called_one():
    found = comparing.compare({name: judged(SIGMOID, natives(count=1)) for name in "ab"})
    for shown in (comparing.text(found), comparing.document(found)):
        assert "1 image of 1 group, at native size" in shown


def test_targets_that_differ_in_their_squares_alone_are_not_the_same():
    one = judged(LINEAR, natives(count=1))
    (row,) = one.rows
    other = dataclasses.replace(one, rows=(row._replace(sums=row.sums + np.eye(5)[4]),))
    with pytest.raises(ValueError, match="the truth of n0 is not the same"):
        comparing.compare({"a": one, "b": other})


def test_what_cannot_be_compared_is_said():
    one = judged(SIGMOID, natives())
    for other, said in (
        (judged(SIGMOID, natives(count=7)), "different images: 9 and 7, of which 7 are the same"),
        (judged(SOFTMAX, natives(3)), "different outputs, sigmoid and softmax"),
        (dataclasses.replace(one, classes=("sky", "cell")), "background, foreground and sky, cell"),
        (
            judged(SIGMOID, (x._replace(mask=x.mask - (x.mask == 1)) for x in natives())),
            "the truth of n0 is not the same for a and b",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            comparing.compare({"a": one, "b": other})
    alike = judged(SIGMOID, [*natives(count=2), *natives(count=1)])
    with pytest.raises(ValueError, match="images of a have the same names"):
        comparing.compare({"a": alike, "b": one})
    with pytest.raises(ValueError, match="one run only"):
        comparing.compare({"a": one})

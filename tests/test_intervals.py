import numpy as np
import pytest

from unet import intervals


def mean(sums):
    return {"mean": sums[..., 1] / sums[..., 0]}


def drawn(groups, seed=0, each=4):
    """Images of groups, alike within each: their names, and one and a value of each image."""
    rng = np.random.default_rng(seed)
    levels = rng.normal(0, 1, groups)
    names = [str(number) for number in range(groups) for _ in range(each)]
    values = np.repeat(levels, each) + rng.normal(0, 0.1, groups * each)
    return names, np.stack([np.ones(groups * each), values], axis=-1)


def test_they_are_the_percentiles_of_plain_draws_of_whole_groups():
    names, sums = drawn(7)
    by_group = {}
    for name, row in zip(names, sums, strict=True):
        by_group.setdefault(name, []).append(row)
    generator = np.random.Philox(key=0)
    order, means = sorted(by_group), []
    for _ in range(intervals.DRAWS):
        chosen = [by_group[order[int(generator.random_raw() % np.uint64(7))]] for _ in range(7)]
        rows = np.array([row for group in chosen for row in group])
        means.append(rows[:, 1].sum() / rows[:, 0].sum())
    low, high = intervals.of(names, sums, mean)["mean"]
    assert (low, high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))


def test_they_do_not_depend_on_the_order_or_on_how_many_are_drawn_at_once(monkeypatch):
    names, sums = drawn(11)
    whole = intervals.of(names, sums, mean)
    order = np.random.default_rng(1).permutation(len(names))
    shuffled = intervals.of([names[i] for i in order], sums[order], mean)
    assert shuffled["mean"] == pytest.approx(whole["mean"])
    monkeypatch.setattr(intervals, "_AT_ONCE", 37)
    assert intervals.of(names, sums, mean)["mean"] == pytest.approx(whole["mean"])


def test_groups_of_images_that_are_alike_make_them_wider():
    names, sums = drawn(20, each=10)
    low, high = intervals.of(names, sums, mean)["mean"]
    alone = intervals.of([str(i) for i in range(len(sums))], sums, mean)["mean"]
    assert high - low > 2 * (alone[1] - alone[0])


def test_nineteen_of_twenty_hold_the_truth():
    held = 0
    for seed in range(200):
        names, sums = drawn(40, seed=seed, each=2)
        low, high = intervals.of(names, sums, mean)["mean"]
        held += low <= 0 <= high
    assert 0.88 * 200 <= held <= 0.99 * 200


def test_one_group_has_none_nor_has_a_score_that_no_draw_has():
    names, sums = drawn(1)
    assert intervals.of(names, sums, mean) == {}
    names, sums = drawn(3)
    found = intervals.of(names, sums, lambda s: {**mean(s), "none": s[..., 0] * np.nan})
    assert found.keys() == {"mean"}

"""Cross-validation: whole groups, nearly equal folds, by names alone; against plain searches."""

import collections
import functools
import hashlib
import itertools
import json
import random

import numpy as np
import pytest

from segdata import packing, pipeline
from segdata.building import splits
from segdata.core.stream import Stream

SIZE = (16, 24)


def dealt(groups, strata=None, *, count):
    return splits.folds(groups, strata=strata or [""] * len(groups), count=count)


def some(chance, *, groups: int, sizes=(1, 2, 3, 5, 16)) -> list[str]:
    """The group of each example."""
    return [f"g{i} {chance.random()}" for i in range(groups) for _ in range(chance.choice(sizes))]


def repeated(names, sizes):
    return [name for name, size in zip(names, sizes, strict=True) for _ in range(size)]


@pytest.mark.parametrize("seed", range(10))
def test_each_example_is_in_one_fold_and_no_group_in_two(seed):
    chance = random.Random(seed)
    drawn = [f"g{i}" for i in range(40) for _ in range(chance.choice([1, 2, 5, 16]))]
    strata = [f"s{int(name[1:]) % 3}" for name in drawn]
    for count in (2, 3, 5, 10, 40):
        found = dealt(drawn, strata, count=count)
        assert {*found.tolist()} == {*range(count)}
        sides = collections.defaultdict(set)
        for name, fold in zip(drawn, found.tolist(), strict=True):
            sides[name].add(fold)
        assert {len(side) for side in sides.values()} == {1}


@pytest.mark.parametrize("count", [2, 3, 5, 7])
@pytest.mark.parametrize("size", [1, 2, 16])
def test_groups_of_one_size_are_cut_in_the_order_of_their_hash(count, size):
    """Plainly: sorted by SHA-256, in stretches that differ by one group."""
    for total in (count, count + 1, 3 * count - 1, 60):
        names = [f"g{i}" for i in range(total)]
        found = dealt(repeated(names, [size] * total), count=count)
        fold_of = dict(zip(repeated(names, [size] * total), found.tolist(), strict=True))
        ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
        if total > count:
            along = [fold_of[name] for name in ordered]
            assert along == sorted(along)
        sizes = collections.Counter(fold_of.values())
        assert len(sizes) == count
        assert max(sizes.values()) - min(sizes.values()) <= 1


@pytest.mark.parametrize("seed", range(6))
def test_strata_have_equal_shares_of_each_fold_and_all_folds_are_equal(seed):
    chance = random.Random(seed)
    names = [str(i) for i in range(chance.randint(30, 200))]
    strata = [chance.choice("aaaabbc") for _ in names]
    found = dealt(names, strata, count=5)
    for stratum in "abc":
        members = collections.Counter(
            fold for fold, s in zip(found.tolist(), strata, strict=True) if s == stratum
        )
        sizes = [members[fold] for fold in range(5)]
        assert max(sizes) - min(sizes) <= 1
    sizes = np.bincount(found, minlength=5)
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("size", [1, 2, 3, 16])
@pytest.mark.parametrize("count", [2, 3, 4, 5, 10])
def test_what_strata_of_groups_of_one_size_leave_over_does_not_add_up(count, size):
    for number, per in itertools.product((2, 5, 20), (5, 7, 11)):
        names = [f"{stratum} {i}" for stratum in range(number) for i in range(per)]
        drawn = repeated(names, [size] * len(names))
        found = dealt(drawn, [name.split()[0] for name in drawn], count=count)
        fold_of = dict(zip(drawn, found.tolist(), strict=True))
        groups = collections.Counter(fold_of.values())
        assert max(groups.values()) - min(groups.values()) <= 1
        held = collections.Counter((name.split()[0], fold) for name, fold in fold_of.items())
        for stratum in range(number):
            own = [held[str(stratum), fold] for fold in range(count)]
            assert max(own) - min(own) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_what_strata_of_unequal_groups_leave_over_does_not_add_up(seed):
    chance = random.Random(seed)
    for count, sizes in itertools.product((2, 3, 5), ((1, 2, 2, 2, 2), (2, 3), range(1, 21))):
        names = [f"{i % 20} {chance.random()}" for i in range(220)]
        drawn = repeated(names, [chance.choice(sizes) for _ in names])
        folds = np.bincount(dealt(drawn, [n.split()[0] for n in drawn], count=count))
        assert folds.max() - folds.min() <= max(sizes)


def best(sizes, count: int) -> int:
    """The least possible difference of the largest and the smallest fold, of all ways to deal."""
    totals = {(0,) * count}
    for size in sizes:
        totals = {
            tuple(sorted(t + size * (i == fold) for i, t in enumerate(total)))
            for total in totals
            for fold in range(count)
        }
    return min(total[-1] - total[0] for total in totals)


def test_unequal_groups_make_folds_nearly_as_equal_as_any_way_to_deal_them():
    lost = []
    for seed, count in itertools.product(range(60), (2, 3, 4)):
        chance = random.Random(seed)
        sizes = [chance.choice([1, 2, 3, 5, 8, 16]) for _ in range(chance.randint(count, 10))]
        names = [f"g{i} of {seed}" for i in range(len(sizes))]
        folds = np.bincount(dealt(repeated(names, sizes), count=count), minlength=count)
        assert folds.min() > 0
        lost.append(int(folds.max() - folds.min()) - best(sizes, count))
        assert folds.max() - folds.min() <= best(sizes, count) + max(sizes)
    assert min(lost) == 0
    assert sum(loss == 0 for loss in lost) > len(lost) / 2


@pytest.mark.parametrize("seed", range(5))
def test_many_unequal_groups_make_folds_that_differ_by_less_than_the_largest_group(seed):
    chance = random.Random(seed)
    sizes = [int(chance.paretovariate(1)) % 60 + 1 for _ in range(chance.randint(40, 200))]
    names = [f"g{i} of {seed}" for i in range(len(sizes))]
    folds = np.bincount(dealt(repeated(names, sizes), count=5), minlength=5)
    assert folds.max() - folds.min() <= max(sizes)


@pytest.mark.parametrize("seed", range(8))
def test_an_example_more_moves_one_other_out_of_each_fold_of_a_stratum_at_most(seed):
    chance = random.Random(seed)
    names = [f"{i} {chance.random()}" for i in range(120)]
    stratum_of = {name: chance.choice("aab") for name in names} | {"new": "a"}
    before = dict(
        zip(names, dealt(names, [stratum_of[n] for n in names], count=5).tolist(), strict=True)
    )
    more = [*names, "new"]
    after = dict(
        zip(more, dealt(more, [stratum_of[n] for n in more], count=5).tolist(), strict=True)
    )
    moved = [name for name in names if before[name] != after[name]]
    for stratum, fold in itertools.product("ab", range(5)):
        left = [n for n in moved if stratum_of[n] == stratum and before[n] == fold]
        assert len(left) <= 1


@pytest.mark.parametrize("seed", range(4))
def test_folds_depend_on_no_order(seed):
    chance = random.Random(seed)
    drawn = [(f"g{i}", chance.choice("ab")) for i in range(30) for _ in range(1 + i % 4)]
    strata_of = dict(drawn)
    found = dict(zip((n for n, _ in drawn), dealt(*zip(*drawn, strict=True), count=4), strict=True))
    shuffled = chance.sample(drawn, len(drawn))
    again = dealt(*zip(*shuffled, strict=True), count=4)
    assert found == dict(zip((n for n, _ in shuffled), again, strict=True))
    assert strata_of.keys() == found.keys()


@pytest.mark.parametrize(("groups", "count"), [("ab", 3), ("abc", 1), ("", 2)])
def test_fewer_groups_than_folds_are_refused(groups, count):
    with pytest.raises(ValueError, match=f"{count} folds of {len(groups)} groups"):
        dealt(list(groups), count=count)


def groups_of(data_dir, name, split="train"):
    from test_any_tfds import read

    return [example["group"].decode() for example in read(data_dir, name, split)]


def test_training_and_evaluation_are_the_two_parts_of_a_split(built_dsb2018):
    where = {"data_dir": built_dsb2018}
    whole = packing.pack("dsb2018", "train", size=SIZE, **where)
    groups = groups_of(built_dsb2018, "dsb2018")
    expected = dealt(groups, count=4)
    held: list[int] = []
    for number in range(4):
        pack = functools.partial(
            packing.pack, "dsb2018", "train", size=SIZE, fold=(number, 4), **where
        )
        train, out = pack(), pack(part="held-out")
        assert train.path == out.path == whole.path  # no other copy
        np.testing.assert_array_equal(train.rows, np.flatnonzero(expected != number))
        np.testing.assert_array_equal(out.rows, np.flatnonzero(expected == number))
        held += out.rows.tolist() if isinstance(out.rows, np.ndarray) else [*out.rows]
        batches = pipeline.eval_batches(
            "dsb2018", "train", size=SIZE, batch=3, fold=(number, 4), **where
        )
        images = np.concatenate([image for image, _ in batches.as_numpy_iterator()])
        np.testing.assert_array_equal(images, out.array()[..., :3])
        given = {"size": SIZE, "batch": 5, "augment": None, "seed": 7, "fold": (number, 4)}
        drawn = pipeline.train_batches("dsb2018", "train", **given, **where)
        stream = Stream(train, batch=5, augment=None, seed=7)
        for step, (image, mask) in enumerate(drawn.as_numpy_iterator()):
            for one, other in zip((image, mask), stream.batch(step), strict=True):
                np.testing.assert_array_equal(one, other)
        steps = pipeline.steps_per_epoch("dsb2018", "train", batch=5, fold=(number, 4), **where)
        assert steps == len(drawn) == -(-len(train) // 5)
    assert sorted(held) == list(range(len(whole)))


@pytest.mark.parametrize("split", ["train", "test+train", "train[:5]"])
def test_folds_of_any_dataset_go_by_its_groups_and_strata(built_foreign, split):
    from test_any_tfds import BCCD, read

    where = {"data_dir": built_foreign, "size": "native", **BCCD}
    names = read(built_foreign, "bccd_like", split)
    groups = [example["group"].decode() for example in names]
    strata = [str(example["stratum"]) for example in names]
    expected = dealt(groups, strata, count=2)
    for number in range(2):
        found = packing.pack("bccd_like", split, fold=(number, 2), part="held-out", **where)
        whole = packing.pack("bccd_like", split, **where)
        rows = np.asarray(whole.rows)[expected == number]
        np.testing.assert_array_equal(found.rows, rows)


def test_a_group_and_a_stratum_may_be_named(built_foreign):
    from test_any_tfds import PET, read

    pets = read(built_foreign, "oxford_iiit_pet")
    expected = dealt([str(pet["species"]) for pet in pets], count=2)
    where = {"data_dir": built_foreign, "size": "native", **PET}
    found = packing.pack("oxford_iiit_pet", "train", fold=(0, 2), group="species", **where)
    np.testing.assert_array_equal(found.rows, np.flatnonzero(expected != 0))
    files = [pet["file_name"].decode() for pet in pets]
    expected = dealt(files, [str(pet["species"]) for pet in pets], count=3)
    named = {"id": "file_name", "stratum": "species"}
    found = packing.pack("oxford_iiit_pet", "train", fold=(2, 3), **named, **where)
    np.testing.assert_array_equal(found.rows, np.flatnonzero(expected != 2))


def test_without_names_examples_are_groups_by_number(built_foreign, capsys):
    from test_any_tfds import PET

    where = {"data_dir": built_foreign, "size": "native", **PET}
    expected = dealt([f"train#{number}" for number in range(6)], count=3)
    for _ in range(2):
        found = packing.pack("oxford_iiit_pet", "train", fold=(1, 3), **where)
        np.testing.assert_array_equal(found.rows, np.flatnonzero(expected != 1))
    assert capsys.readouterr().err.count("each example is a group by itself") <= 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"fold": (4, 4)}, r"fold=\(4, 4\) is not \(k, n\)"),
        ({"fold": (0, 1)}, r"fold=\(0, 1\) is not"),
        ({"fold": (-1, 4)}, "is not"),
        ({"fold": 4}, "fold=4 is not"),
        ({"fold": (0, 2.5)}, "is not"),
        ({"fold": (0, 2, 3)}, "is not"),
        ({"fold": (0, 5000)}, "train: 5000 folds of 21 groups"),
        ({"fold": (0, 2), "part": "test"}, "part='test': there are 'training' and 'held-out'"),
    ],
)
def test_a_fold_that_is_none_is_named(built_dsb2018, more, message):
    with pytest.raises(ValueError, match=message):
        packing.pack("dsb2018", "train", size=SIZE, data_dir=built_dsb2018, **more)


def test_a_fold_of_what_is_packed_is_told_by_its_settings(built_dsb2018, tmp_path):
    """`show --replay` of a run that left a fold out."""
    from unet import recipes

    recipe = recipes.Recipe(fold=(1, 4))
    saved = json.loads(json.dumps(recipes.to_json(recipe)))
    assert recipes.from_json(saved) == recipe
    assert recipe.validated_on == "fold 1 of 4 of train"
    (tmp_path / "settings.json").write_text(json.dumps({"recipe": saved, "data_dir": None}))
    from segdata.inspection import replay

    given = {"step": 0, "data_dir": built_dsb2018}
    one = np.asarray(replay.drawn(tmp_path, **given))
    del saved["fold"]
    (tmp_path / "settings.json").write_text(json.dumps({"recipe": saved, "data_dir": None}))
    assert not np.array_equal(one, np.asarray(replay.drawn(tmp_path, **given)))


@pytest.mark.parametrize("fold", [(4, 4), (-1, 3), (0, 1)])
def test_a_recipe_refuses_what_is_no_fold(fold):
    from unet import recipes

    with pytest.raises(ValueError, match=r"fold is .* K N, fold K of N"):
        recipes.Recipe(fold=fold)

"""Mixtures: exact shares, one label space, and the same rows in every engine."""

import collections
import dataclasses
import fractions
import itertools
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from test_kernels import SETTINGS, records, varied

from segdata.adapters import jax as jax_adapter
from segdata.adapters import tf as tf_adapter
from segdata.adapters import torch as torch_adapter
from segdata.core import mixture
from segdata.core import records as records_
from segdata.core.augment import Augment
from segdata.core.mixture import Mixture, Shares, Source
from segdata.core.stream import Stream

WEIGHTS = [
    [1],
    [5, 3, 2],
    [1, 1],
    [7, 2, 1],
    [1, 1, 1, 1, 1, 1, 1, 1, 1, 81],
    [1] * 40 + [60],
    [997, 13, 1, 1, 210],
    [100_003, 3, 17],
]


def longest_way_off(weights, order):
    """How far any source was from its share after any number of positions, as a fraction."""
    total, counts, worst = sum(weights), [0] * len(weights), fractions.Fraction(0)
    for length, whose in enumerate(order, 1):
        counts[whose] += 1
        for weight, count in zip(weights, counts, strict=True):
            worst = max(worst, abs(count - fractions.Fraction(weight * length, total)))
    return worst


@pytest.mark.parametrize("weights", WEIGHTS[:6])
def test_shares_are_exact_to_within_less_than_one_at_any_position(weights):
    shares = Shares(weights)
    order, place = shares.of(np.arange(3 * shares.period))
    assert longest_way_off(weights, order.tolist()) < 1
    counts = [itertools.count() for _ in weights]
    assert [next(counts[whose]) for whose in order] == place.tolist()


def test_shares_of_a_random_mixture_never_stray():
    rng = np.random.default_rng(0)
    for _ in range(40):
        weights = (rng.integers(1, 1 + rng.integers(1, 60), rng.integers(1, 9))).tolist()
        order, _ = Shares(weights).of(np.arange(sum(weights)))
        assert longest_way_off(weights, order.tolist()) < 1


@pytest.mark.parametrize("weights", WEIGHTS)
def test_shares_do_not_drift_over_a_million_steps(weights):
    """Of batches of 32, in whole numbers: |count·total - weight·length| < total."""
    shares, last = Shares(weights), 32 * 10**6
    for first in (0, last - 200_000, 2**61):
        order, place = shares.of(np.arange(first, first + 200_000))
        for whose, weight in enumerate(weights):
            held = np.flatnonzero(order == whose)
            before = shares.before(first, whose)
            assert abs(before * shares.period - weight * first) < shares.period
            np.testing.assert_array_equal(place[held], before + np.arange(len(held)))
            for at in held[:: max(1, len(held) // 50)].tolist():
                off = (int(place[at]) + 1) * shares.period - weight * (first + at + 1)
                assert abs(off) < shares.period
            assert shares.before(first + 200_000, whose) == before + len(held)


@pytest.mark.parametrize("count", [1, 2, 5, 10, 32, 100])
def test_no_window_holds_more_of_a_source_than_is_said(count):
    for weights in WEIGHTS[:5]:
        shares = Shares(weights)
        order, _ = shares.of(np.arange(2 * shares.period + count))
        for whose, weight in enumerate(weights):
            held = np.convolve(order == whose, np.ones(count, int), "valid")
            assert held.max() <= shares.most(count, whose) <= count
            assert np.abs(held * shares.period - weight * count).max() < 2 * shares.period


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"a": 0.5, "b": 0.3, "c": 0.2}, [5, 3, 2]),
        ({"a": 2, "b": 4}, [1, 2]),
        ({"a": fractions.Fraction(1, 3), "b": 1 / 7}, [7, 3]),
        ({"a": np.float64(0.1), "b": np.int32(1)}, [1, 10]),
        ({"a": 1e-5, "b": 1}, [1, 100_000]),
    ],
)
def test_shares_become_whole_numbers(shares, expected):
    assert mixture.whole(shares) == expected


@pytest.mark.parametrize(
    ("share", "message"),
    [
        *((x, "it must be a number above 0") for x in (0, -1, "1", None, True, float("nan"))),
        (float("inf"), "above 0"),
        (0.5**0.5, "no fraction with a denominator"),
        (1_000_003, r"shares repeat after 1,048,576 .*, these after 15,000,052"),
    ],
)
def test_shares_that_are_none_are_named(share, message):
    with pytest.raises(ValueError, match=message):
        mixture.whole({"it": share, "other": fractions.Fraction(7, 15) if share else 1})


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Three packed files: of one size, of another number, and of several sizes."""
    folder = tmp_path_factory.mktemp("packed")

    def labelled(pixels, classes):
        pixels = pixels.copy()
        pixels[..., 3] %= classes
        pixels[..., ::5, 3] = 255
        return pixels

    one = labelled(records(7, 20, 24), 4)
    two = labelled(records(5, 20, 24, seed=3), 3)
    native = [labelled(pixels, 6) for pixels in varied()]
    return [
        records_.write(folder / f"{n}.json", rows, size=size, source={}, classes=classes)
        for n, (rows, size, classes) in enumerate(
            [(one, (20, 24), 4), (two, (20, 24), 3), (native, None, 8)]
        )
    ]


def table_of(*ids):
    table = np.full(256, 255, np.uint8)
    table[: len(ids)] = ids
    return table


TABLES = table_of(0, 1, 2, 3), table_of(255, 1, 4), table_of(0, 2, 2, 255, 1, 5)


def mixed(packed, **options):
    one, two, native = packed
    sources = {
        "one": Source(records=one, share=0.5, table=TABLES[0], augment=SETTINGS["everything"]),
        "two": Source(records=two, share=0.3, table=TABLES[1]),
        "native": Source(
            records=native,
            share=0.2,
            table=TABLES[2],
            augment=SETTINGS["foreground"],
            weights=[1, 2, 0, 2, 1],
        ),
    }
    return Mixture(sources, **{"batch": 6, "seed": 4, "size": (12, 10), **options})


def expected_batch(made, step):
    """Row by row, each from a stream of its own."""
    counts = {}
    rows = []
    order = []
    for position in range((step + 1) * made.examples):
        source, place = (int(x[0]) for x in made.shares.of(np.array([position])))
        first, strata = made.strata[source]
        inner, place = (int(x[0]) for x in strata.of(np.array([place])))
        number = first + inner
        assert counts.setdefault(number, 0) == place
        counts[number] += 1
        if position >= step * made.examples:
            part = made.parts[number]
            image, mask = part.stream.batch(place)
            labels = np.array([part.table[label] for label in mask.ravel()], np.uint8)
            rows.append((image[0], labels.reshape(mask[0].shape)))
            order.append(source)
    image, mask = (np.stack(x) for x in zip(*rows, strict=True))
    return image, mask, order


def assert_equal(batch, other):
    for one, two in zip(batch, other, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(two))


@pytest.mark.parametrize("step", [0, 1, 7, 300])
def test_each_row_is_the_next_of_its_sources_own_stream_with_mapped_labels(packed, step):
    made = mixed(packed)
    image, mask, order = expected_batch(made, step)
    assert_equal(made.batch(step), (image, mask))
    assert made.sources(step).tolist() == order
    assert set(np.unique(mask)) <= {0, 1, 2, 3, 4, 5, 255}


def test_a_batch_is_a_function_of_seed_and_step(packed):
    made = mixed(packed)
    forward = [tuple(x.copy() for x in made.batch(step)) for step in range(8)]
    again = mixed(packed)
    for step in (5, 0, 7, 3):
        assert_equal(again.batch(step), forward[step])
    for step, batch in enumerate(made.batches(2, 5), 2):
        assert_equal(batch, forward[step])
    assert_equal(pickle.loads(pickle.dumps(made)).batch(6), forward[6])
    assert any(
        (a != b).any() for a, b in zip(mixed(packed, seed=5).batch(0), forward[0], strict=True)
    )


@pytest.mark.parametrize("shards", [1, 2, 3, 6])
def test_shards_are_the_rows_of_the_same_batch(packed, shards):
    complete = mixed(packed)
    parts = [mixed(packed, shard=(k, shards)) for k in range(shards)]
    for step in (0, 3, 11):
        whole = zip(*(part.batch(step) for part in parts), strict=True)
        assert_equal(complete.batch(step), [np.concatenate(x) for x in whole])
        sources = [part.sources(step) for part in parts]
        assert np.concatenate(sources).tolist() == complete.sources(step).tolist()


@pytest.mark.parametrize("name", ["nothing", "everything"])
def test_one_source_alone_is_the_plain_stream(packed, name):
    augment = SETTINGS[name]
    alone = {"one": Source(records=packed[0], share=0.7, augment=augment)}
    options: Any = {"batch": 4, "seed": 9, "size": (16, 16)}
    made = Mixture(alone, **options)
    plain = Stream(packed[0], augment=augment, **options)
    for step in (0, 1, 50, 10**12):
        assert_equal(made.batch(step), plain.batch(step))
    assert made.steps_per_epoch == plain.steps_per_epoch
    assert (made.steps(3, 4), made.own) == (plain.steps(3, 4), plain.own)


@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
@pytest.mark.parametrize("engine", ["host", pytest.param("device", marks=pytest.mark.heavy)])
def test_jax_gives_the_batches_of_the_mixture(packed, engine, shard):
    made = mixed(packed, shard=shard)
    found = list(jax_adapter.training(made, start_step=5, steps=70, engine=engine))
    assert len(found) == 70
    for step, batch in enumerate(found, 5):
        assert_equal(batch, made.batch(step))


@pytest.mark.heavy
@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
@pytest.mark.parametrize("engine", ["host", "xla"])
def test_tf_data_gives_the_batches_of_the_mixture(packed, engine, shard):
    made = mixed(packed, shard=shard)
    for first in (0, 10**12):
        data = tf_adapter.training(made, start_step=first, steps=11, engine=engine)
        assert len(data) == 11
        for step, batch in enumerate(data.as_numpy_iterator(), first):
            assert_equal(batch, made.batch(step))


@pytest.mark.parametrize("workers", [0, 2])
def test_torch_gives_the_batches_of_the_mixture_whatever_the_workers(packed, workers):
    made = mixed(packed)
    loader = torch.utils.data.DataLoader(
        torch_adapter.Batches(made, start_step=3, steps=7),
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
    )
    for step, (image, mask) in enumerate(loader, 3):
        assert_equal((image.permute(0, 2, 3, 1), mask[..., None]), made.batch(step))


def with_sources(image, mask, sources):
    return image, mask, sources


def test_a_stage_of_ones_own_is_given_the_sources(packed):
    made, plain = mixed(packed, then=with_sources), mixed(packed)
    expected = (*plain.batch(3), plain.sources(3))
    assert_equal(made.batch(3), expected)
    data = tf_adapter.training(made, start_step=3, steps=1)
    assert_equal(next(data.as_numpy_iterator()), expected)
    assert_equal(next(iter(torch_adapter.Batches(made, start_step=3))), expected)
    assert_equal(next(jax_adapter.training(made, start_step=3)), expected)
    for call in (
        lambda: tf_adapter.training(made, engine="xla"),
        lambda: jax_adapter.training(made, engine="device"),
    ):
        with pytest.raises(ValueError, match=r"^then="):
            call()


def by_numpy(made):
    return made.batches(2, 7)


def by_tf(engine):
    def batches(made):
        return tf_adapter.training(made, start_step=2, steps=7, engine=engine).as_numpy_iterator()

    return batches


def by_jax(engine):
    return lambda made: jax_adapter.training(made, start_step=2, steps=7, engine=engine)


def by_torch(made):
    for image, mask in torch_adapter.Batches(made, start_step=2, steps=7):
        yield image.permute(0, 2, 3, 1), mask[..., None]


@pytest.mark.parametrize(
    "batches",
    [
        pytest.param(by_numpy, id="numpy"),
        pytest.param(by_torch, id="torch"),
        pytest.param(by_jax("host"), id="jax, host"),
        pytest.param(by_jax("device"), id="jax, device"),
        pytest.param(by_tf("host"), id="tf, host", marks=pytest.mark.heavy),
        pytest.param(by_tf("xla"), id="tf, xla", marks=pytest.mark.heavy),
    ],
)
def test_each_row_is_of_its_source_with_its_weights_and_augmentation(batches, tmp_path):
    """By the pixels alone: each record is of one grey level, which names it."""
    plain, weighted = (np.zeros((4, 8, 8, 4), np.uint8) for _ in range(2))
    plain[..., :3] = 10 * np.arange(4)[:, None, None, None]
    weighted[..., :3] = 100 + 10 * np.arange(4)[:, None, None, None]
    weighted[2:, 0, 0, 3] = 1  # two records of class 1
    one, two = (
        records_.write(tmp_path / f"{n}.json", pixels, size=(8, 8), source={}, classes=2)
        for n, pixels in enumerate((plain, weighted))
    )
    darker = Augment(brightness_range=(-0.02, -0.02))
    made = Mixture(
        {
            "plain": Source(records=one, share=1),
            "weighted": Source(
                records=two, share=2, augment=darker, weights=mixture.by_class(two, {1: 3})
            ),
        },
        batch=12,
        seed=5,
    )
    levels, sources = [], []
    for step, (image, mask) in enumerate(batches(made), 2):
        image, mask = np.asarray(image), np.asarray(mask)
        assert (image == image[:, :1, :1, :1]).all()
        levels += image[:, 0, 0, 0].tolist()
        sources += made.sources(step).tolist()
        is_of_class = np.isin(image[:, 0, 0, 0], (115, 125))
        np.testing.assert_array_equal(mask.any(axis=(1, 2, 3)), is_of_class)
    assert len(levels) == 7 * 12
    counts = collections.Counter(zip(sources, levels, strict=True))
    assert {level for source, level in counts if source == 0} == {0, 10, 20, 30}
    assert {level for source, level in counts if source == 1} == {95, 105, 115, 125}
    assert abs(sum(counts[0, level] for level in (0, 10, 20, 30)) - 28) < 2
    for level, share in ((95, 7), (105, 7), (115, 21), (125, 21)):
        assert abs(counts[1, level] - share) <= 2


def test_records_are_taken_by_their_weights(packed):
    """Exactly, in any row of examples; each in its own epochs, so never augmented alike."""
    weights = [3, 1, 0, fractions.Fraction(1, 2), 1, 3, 1.5]
    source = Source(records=packed[0], share=1, weights=weights)
    made = Mixture({"one": source}, batch=40, seed=2)
    part, place = (x.reshape(-1) for x in made.order(0, 30))
    seen = np.zeros(7, int)
    pairs = set()
    for number, each in enumerate(made.parts):
        row, epoch = each.stream.plan.at(place[part == number])
        np.add.at(seen, row, 1)
        pairs |= set(zip(row.tolist(), epoch.tolist(), strict=True))
    assert len(pairs) == 1200
    for count, weight in zip(seen, weights, strict=True):
        assert abs(count - 1200 * weight / 10) < 2


def test_weights_by_class_are_the_largest_of_the_classes_that_a_record_has(tmp_path):
    pixels = np.zeros((4, 3, 3, 4), np.uint8)
    pixels[1, 0, 0, 3], pixels[2, 1, 1, 3], pixels[3, :2, 0, 3] = 1, 2, (1, 2)
    made = records_.write(tmp_path / "x.json", pixels, size=(3, 3), source={}, classes=3)
    assert mixture.by_class(made, {1: 2, 2: 0.5}).tolist() == [1, 2, 0.5, 2]
    assert mixture.by_class(made.select([3, 0]), {2: 3}).tolist() == [3, 1]
    with pytest.raises(ValueError, match="class 3"):
        mixture.by_class(made, {3: 1})


def test_accounts_of_crops_are_of_whole_records(packed):
    """Each record of native size, taken once by each epoch, counted pixel by pixel."""
    _, _, native = packed
    made = Mixture({"it": Source(records=native, share=1, table=TABLES[0])}, batch=1, size=(8, 8))
    found = made.account(made.steps(0, 3 * native.count))["it"]
    counts = np.zeros(256, np.int64)
    for row in range(native.count):
        for label in native[row][..., 3].ravel():
            counts[TABLES[0][label]] += 3
    assert found["images"] == 3 * native.count
    assert found["pixels"] == counts.sum() == found["ignored"] + sum(found["classes"].values())
    assert found["ignored"] == counts[255]


@pytest.mark.parametrize(("first", "steps"), [(0, 0), (0, 1), (0, 3), (4, 9), (7, 100)])
def test_accounts_are_those_of_counting(packed, first, steps):
    """Without augmentation the pixels are those of the batches."""
    one, two, _ = packed
    sources = {
        "one": Source(records=one, share=3, table=TABLES[0], weights=[1, 1, 2, 1, 0, 1, 1]),
        "two": Source(records=two, share=2, table=TABLES[1]),
        "again": Source(records=one.select([4, 1]), share=1),
    }
    names = ("background", "a", "b", "c", "d")
    made = Mixture(sources, batch=4, seed=4, classes=names)
    found = made.account(made.steps(first, steps))
    counts = np.zeros((3, 256), np.int64)
    images = np.zeros(3, int)
    for step in range(first, first + steps):
        for source, mask in zip(made.sources(step), made.batch(step)[1], strict=True):
            images[source] += 1
            np.add.at(counts[source], mask.ravel(), 1)
    for number, name in enumerate(("one", "two", "again")):
        assert found[name] == {
            "images": images[number],
            "pixels": images[number] * 20 * 24,
            "classes": {name: counts[number, label] for label, name in enumerate(names)},
            "ignored": counts[number, 255],
        }
    parts = [mixed(packed, shard=(k, 2)).account(range(first, first + steps)) for k in range(2)]
    assert parts[0] == parts[1] == mixed(packed).account(range(first, first + steps))


def test_accounts_of_a_million_steps_take_no_time(packed):
    made = mixed(packed, batch=32)
    found = made.account(made.steps(0, 10**6))
    assert [found[name]["images"] for name in made.names] == [16 * 10**6, 9_600_000, 6_400_000]


def test_what_does_not_fit_is_named(packed):
    one, two, native = packed

    def made(batch: Any = 4, sources=None, **options: Any):
        given = {"records": one, "share": 1, **options}
        return Mixture(sources or {"it": Source(**given)}, batch=batch)

    wrong: list[tuple[dict[str, Any], str]] = [
        ({"batch": 0}, "^batch=0"),
        ({"share": 0}, "^the share of it is 0"),
        ({"records": "x"}, "^it: 'x' is no open packed file"),
        ({"weights": [1, 2]}, "^it has 7 examples and 2 weights"),
        ({"weights": [0] * 7}, "^it has 0 weights above 0"),
        ({"weights": [1] * 6 + [-1]}, "^a weight of it is -1"),
        ({"table": np.zeros(256, np.uint8)}, "^the table of it is uint8 .*255 stays 255"),
        ({"table": np.zeros(3, np.uint8)}, "^the table of it"),
        ({"augment": 3}, "^it: augment=3"),
        ({"augment": Augment(quarter_turns=True)}, "^it: quarter_turns"),
        ({"records": native}, "^size=None: the records differ in size: it of several sizes"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            made(**options)
    with pytest.raises(ValueError, match="0 sources"):
        Mixture({}, batch=1)
    with pytest.raises(ValueError, match=r"^two: size=21×24"):
        Mixture({"two": Source(records=two, share=1)}, batch=1, size=(21, 24))
    with pytest.raises(ValueError, match=r"^shard=\(0, 3\) of batch=4"):
        Mixture({"two": Source(records=two, share=1)}, batch=4, shard=(0, 3))
    with pytest.raises(ValueError, match="has class 5 of 5"):
        mixed(packed, classes="abcde")
    odd = dataclasses.replace(Source(records=one, share=1), table=np.zeros(256, np.int64))
    with pytest.raises(ValueError, match="int64"):
        Mixture({"odd": odd}, batch=1)


@pytest.mark.parametrize(
    "steps", [range(0, 10, 2), range(5, 2), range(-3, 0), range(9, 0, -1), 10, None, [0, 1]]
)
def test_accounts_are_of_steps_that_follow_each_other(packed, steps):
    with pytest.raises(ValueError, match=r"^(start_)?steps?="):
        mixed(packed).account(steps)

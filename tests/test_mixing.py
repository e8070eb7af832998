"""Built datasets mixed into one label space; what goes wrong is said before anything is packed."""

import inspect
import json
import pathlib
import re
from typing import Any

import numpy as np
import own_folders as own
import pytest

import segdata
from segdata import mixing, packing
from segdata.core.augment import Augment
from segdata.core.stream import Stream

NUCLEI, CARS = ("background", "nucleus"), ("background", "car")
ROADS = ("road", "car", "unlabeled")


def test_classes_are_joined_by_name_and_a_background_is_no_negative_of_other_classes():
    labels = mixing.joined({"mine": ("background", "cell", "car"), "cars": CARS})
    assert labels.classes == ("background", "cell", "car")
    assert labels.tables["mine"][:4].tolist() == [0, 1, 2, 255]
    assert labels.tables["cars"][:3].tolist() == [255, 2, 255]
    assert str(labels) == (
        "mine: background → background, cell → cell, car → car\ncars: background → 255, car → car"
    )
    alike = mixing.joined({"nuclei": NUCLEI, "more": ("nucleus", "background")})
    assert alike.classes == ("background", "nucleus")
    assert alike.tables["more"][:3].tolist() == [1, 0, 255]


@pytest.mark.parametrize("spelled", ["Background", "_background_", "void", "unlabelled"])
def test_a_background_is_known_however_it_is_spelled(spelled):
    labels = mixing.joined({"mine": (spelled, "cell", "car"), "cars": (spelled, "car")})
    assert labels.tables["cars"][:2].tolist() == [255, 2]
    labels = mixing.joined({"mine": ("background", "cell"), "more": (spelled, "cell")})
    assert labels.classes == ("background", "cell")
    assert labels.tables["more"][:2].tolist() == [0, 1]


def test_rests_of_one_dataset_stay_apart_unless_another_does_not_tell_them_apart():
    two = ("unlabeled", "other", "cell")
    assert mixing.joined({"a": two, "b": two}).classes == two
    labels = mixing.joined({"a": ("background", "cell"), "b": two})
    assert labels.classes == ("background", "cell")
    assert labels.tables["b"][:3].tolist() == [0, 0, 1]


def test_weights_of_examples_are_those_of_the_split_with_a_fold_too(tmp_path):
    for seed in range(9):
        own.write(tmp_path / "images" / f"x{seed}.png", own.photo(seed))
        own.write(tmp_path / "masks" / f"x{seed}.png", own.classes(seed))
    flags = ["--masks", tmp_path / "masks", "--validation", "0"]
    assert own.build(tmp_path, *flags)[0] == 0
    options: Any = {"size": own.SIZE, "data_dir": tmp_path / "data"}
    records = segdata.pack("folder:mine", "train", **options)
    rows = np.asarray(records.rows)
    weights = {"folder:mine": [0, 1, 2] * 3}
    for k in range(3):
        options["fold"] = (k, 3)
        held = segdata.pack("folder:mine", "train", **options)
        made = segdata.mix({"folder:mine": 1}, batch=3, seed=0, weights=weights, **options)
        found = {
            int(row): weight
            for part, weight in zip(made.parts, made.strata[0][1].weights, strict=True)
            for row in np.asarray(part.stream.records.rows)
        }
        expected = {int(row): number % 3 for number, row in enumerate(rows) if row in held.rows}
        assert {*found} == {row for row, weight in expected.items() if weight}
        with pytest.raises(ValueError, match="9 examples, of all folds, and 6 weights"):
            segdata.mix(
                {"folder:mine": 1}, batch=3, seed=0, weights={"folder:mine": [1] * 6}, **options
            )


def test_a_background_is_a_negative_where_the_user_says_so():
    labels = mixing.joined({"nuclei": NUCLEI, "cars": CARS}, background="negative")
    assert labels.classes == ("background", "nucleus", "car")
    assert labels.tables["nuclei"][:2].tolist() == [0, 1]
    assert labels.tables["cars"][:2].tolist() == [0, 2]
    told = {"background": "background", "car": "car"}
    labels = mixing.joined({"nuclei": NUCLEI, "cars": CARS}, labels={"cars": told})
    assert labels.tables["nuclei"][:2].tolist() == [255, 1]
    assert labels.tables["cars"][:2].tolist() == [0, 2]


def test_maps_join_split_and_leave_out_classes_pixel_by_pixel():
    maps = {
        "nuclei": {"nucleus": "thing", "background": "background"},
        "roads": {"road": "background", "car": "thing", "unlabeled": None},
    }
    labels = mixing.joined({"nuclei": NUCLEI, "roads": ROADS}, labels=maps)
    assert labels.classes == ("background", "thing")
    known = {"nuclei": NUCLEI, "roads": ROADS}
    for name, table in labels.tables.items():
        for label in range(256):
            own = known[name]
            new = maps[name][own[label]] if label < len(own) else None
            expected = 255 if new is None else labels.classes.index(new)
            assert table[label] == expected


@pytest.mark.parametrize(
    ("labels", "background", "message"),
    [
        ({"nuclei": {"nucleus": "cell"}}, "ignore", "labels of nuclei lose the class 'background'"),
        (
            {"nuclei": {"nucleus": "a", "background": "b", "cell": "c"}},
            *("ignore", "labels of nuclei: it has no class 'cell', but background, nucleus"),
        ),
        ({"mine": {}}, "ignore", "labels names 'mine', which is not mixed; there are nuclei, cars"),
        ({"nuclei": ["a", "b"]}, "ignore", "labels of nuclei: .* is no map"),
        ({"nuclei": dict.fromkeys(NUCLEI, 3)}, "ignore", "labels of nuclei: .* to 3, neither"),
        ({"nuclei": dict.fromkeys(NUCLEI, "")}, "ignore", "labels of nuclei: .* to '', neither"),
        ({}, "ignore", "the mixture loses the class 'background': .*background=\"negative\""),
        ({}, "none", "background='none': there are 'ignore' and 'negative'"),
        (
            {name: dict.fromkeys(own) for name, own in (("nuclei", NUCLEI), ("cars", CARS))},
            *("ignore", "the mixture has 0 classes"),
        ),
    ],
)
def test_labels_that_lose_a_class_or_name_none_are_named(labels, background, message):
    with pytest.raises(ValueError, match=message):
        mixing.joined({"nuclei": NUCLEI, "cars": CARS}, labels=labels, background=background)


def test_more_classes_than_a_mask_can_tell_apart_are_refused():
    known = {"a": [f"a{n}" for n in range(200)], "b": [f"b{n}" for n in range(56)]}
    with pytest.raises(ValueError, match="256 classes"):
        mixing.joined(known)


SHARES = {"dsb2018": 0.5, "carvana": 0.3, "cityscapes_pairs/classes": 0.2}
LABELS: Any = {"carvana": {"background": None, "car": "car"}}


@pytest.mark.heavy
def test_built_datasets_are_mixed(built_datasets):
    flips = Augment(horizontal_flip=0.5)
    augment = {"dsb2018": flips, "carvana": None, "cityscapes_pairs/classes": None}
    options: Any = {"size": (32, 48), "data_dir": built_datasets}
    made = segdata.mix(
        SHARES,
        batch=10,
        seed=3,
        augment=augment,
        labels=LABELS,
        background="negative",
        weights={"carvana": {"car": 2}},
        **options,
    )
    assert made.names == tuple(SHARES)
    assert made.classes[:3] == ("background", "nucleus", "car")
    known = mixing.class_names(tuple(SHARES), data_dir=built_datasets)
    plain = Stream(
        segdata.pack("dsb2018", "train", **options), batch=1, augment=flips, seed=3, size=(32, 48)
    )
    nuclei = 0
    for step in range(6):
        image, mask = made.batch(step)
        sources = made.sources(step)
        assert np.bincount(sources, minlength=3).tolist() == [5, 3, 2]
        for row in np.flatnonzero(sources == 0):
            one, labels = plain.batch(nuclei)
            np.testing.assert_array_equal(image[row], one[0])
            names = [made.classes[n] if n != 255 else "" for n in mask[row].ravel()]
            assert names == [known["dsb2018"][n] if n != 255 else "" for n in labels.ravel()]
            nuclei += 1
        cars = mask[sources == 1]
        assert set(np.unique(cars)) == {made.classes.index("car"), 255}
    found = made.account(range(6))
    assert {name: x["images"] for name, x in found.items()} == dict(
        zip(SHARES, (30, 18, 12), strict=True)
    )
    assert found["carvana"]["classes"]["background"] == 0
    sets = segdata.mix_eval_batches(
        SHARES, batch=4, labels=LABELS, background="negative", **options
    )
    for name, batches in sets.items():
        records = packing.pack(name, "validation", **options)
        assert len(batches) == -(-records.count // 4)
        for _ in range(2):
            image, mask = (np.concatenate(x) for x in zip(*batches, strict=True))
            np.testing.assert_array_equal(image, records.array()[..., :3])
            table = mixing.joined(known, labels=LABELS, background="negative").tables[name]
            np.testing.assert_array_equal(mask, table[records.array()[..., 3:]])


@pytest.mark.heavy
def test_folds_and_named_features_reach_each_dataset(built_datasets):
    shares: Any = {"dsb2018": 1, "carvana": 2}
    options: Any = {"size": (16, 16), "batch": 4, "data_dir": built_datasets, "fold": (1, 2)}
    options["background"] = "negative"
    options["features"] = {"carvana": {"labels": {"car": "vehicle", "background": "background"}}}
    made = segdata.mix(shares, seed=0, **options)
    assert made.classes == ("background", "nucleus", "vehicle")
    assert made.parts[1].table[:2].tolist() == [2, 0]
    held = segdata.mix_eval_batches(shares, split="train", **options)
    for part, batches in zip(made.parts, held.values(), strict=True):
        trained, left = (np.asarray(x.records.rows) for x in (part.stream, batches))
        assert not set(trained) & set(left)
        assert len(trained) + len(left) == part.stream.records.total


def test_a_mixture_is_told_by_json_as_by_arguments():
    given = {
        "shares": {"dsb2018": 3, "pets": 0.5},
        "validation_split": {"dsb2018": "validation", "pets": "test[:4]"},
        "augment": {"pets": {"rotation_range": [-5, 5]}},
        "labels": {"dsb2018": {"background": None, "nucleus": "thing"}},
        "background": "negative",
        "weights": {"dsb2018": {"nucleus": 2}, "pets": [1, 0, 2.5]},
        "record_size": "native",
        "features": {
            "pets": {"mask": "trimap", "labels": {"2": "background", "1": "pet", "3-9": None}}
        },
    }
    flips = Augment(horizontal_flip=0.5)
    read = json.loads(json.dumps(given))
    training, evaluation = mixing.from_json(read, split="train[:9]", augment=flips)
    features = {"mask": "trimap", "labels": {2: "background", 1: "pet", range(3, 10): None}}
    shared = {
        "labels": given["labels"],
        "features": {"dsb2018": {}, "pets": features},
        "background": "negative",
        "record_size": "native",
        "fold": None,
    }
    assert evaluation == {
        "names": ("dsb2018", "pets"),
        "split": given["validation_split"],
        **shared,
    }
    assert training == {
        "shares": given["shares"],
        "split": {"dsb2018": "train[:9]", "pets": "train[:9]"},
        "augment": {"dsb2018": flips, "pets": Augment(rotation_range=(-5, 5))},
        "weights": given["weights"],
        **shared,
    }
    assert [*training["features"]["pets"]["labels"]] == [2, 1, range(3, 10)]  # ids go by order
    for arguments, function in ((training, segdata.mix), (evaluation, segdata.mix_eval_batches)):
        assert {*arguments} <= {*inspect.signature(function).parameters}
    training, evaluation = mixing.from_json(read, split="train[:9]", fold=(1, 3))
    assert training["split"] == evaluation["split"] == dict.fromkeys(given["shares"], "train[:9]")
    assert training["fold"] == evaluation["fold"] == (1, 3)
    plain = mixing.from_json({"shares": {"dsb2018": 1}}).training
    assert plain["augment"] == {"dsb2018": None}
    assert "background" not in plain


def test_the_file_of_the_page_is_a_mixture_of_as_many_classes_as_its_command_has():
    page = (pathlib.Path(__file__).parent.parent / "docs" / "mixing.md").read_text()
    (block,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    (channels,) = re.findall(r"--mix mix.json .*--output_channels (\d)", page)
    evaluation = mixing.from_json(json.loads(block)).evaluation
    pets = evaluation["features"]["oxford_iiit_pet"]["labels"]
    known = {
        "dsb2018": NUCLEI,
        "carvana": CARS,
        "oxford_iiit_pet": tuple(filter(None, pets.values())),
    }
    told = {name: evaluation[name] for name in ("labels", "background")}
    assert len(mixing.joined(known, **told).classes) == int(channels)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shares": {}}, "shares={} gives no datasets"),
        ({"shares": ["a"]}, r"shares=\['a'\] is not given by dataset"),
        ({"shares": {"a": -1}}, "the share of a is -1"),
        ({"shares": {"a": "1"}}, "the share of a is '1'"),
        ({"sahres": {"a": 1}}, "a mixture has no setting 'sahres'; it has shares, augment"),
        ({"batch": 3}, "no setting 'batch'"),
        ({"split": 3}, "split=3 is neither a split nor one for each dataset"),
        ({"validation_split": {"a": "test"}}, "validation_split is given by dataset and lacks b"),
        ({"split": {"a": "test", "b": None}}, "split={.* is neither"),
        ({"augment": 3}, "augment=3 is not given by dataset"),
        ({"augment": {"a": 3}}, "augment of a: "),
        ({"augment": {"a": {"horizontal_flop": 1}}}, "augment of a: .*'horizontal_flop'"),
        ({"augment": {"a": {"horizontal_flip": 2}}}, "augment of a: horizontal_flip=2 is not"),
        ({"weights": {"a": 2}}, "weights of a: 2, no numbers"),
        ({"weights": {"a": {"x": "2"}}}, "weights of a: .*, no numbers"),
        ({"weights": {"a": [[1]]}}, "weights of a: .*, no numbers"),
        ({"labels": []}, r"labels=\[\] is not given by dataset"),
        ({"features": {"a": 3}}, "features of a: 3 names no feature; there are image, mask"),
        ({"features": {"a": {"maks": "x"}}}, "features of a: 'maks' names no feature"),
        ({"features": {"a": {"mask": 3}}}, "features of a: mask=3 is no name"),
        (
            {"features": {"a": {"labels": ["1=x"]}}},
            r"features of a: labels=\['1=x'\] is no mapping",
        ),
        ({"features": {"a": {"labels": {"1": "x", "01": "y"}}}}, "labels: 01 is named twice"),
    ],
)
def test_json_that_tells_no_mixture_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        mixing.from_json({"shares": {"a": 1, "b": 2}, **given} if "sahres" not in given else given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shares": {"dsb2018": 0, "carvana": 1}}, "^the share of dsb2018 is 0"),
        ({"shares": {"dsb2018": 1, "carvana": -2}}, "^the share of carvana is -2"),
        ({"shares": {}}, "^shares={} gives no datasets"),
        ({"shares": ["dsb2018", "carvana"]}, r"^shares=\['dsb2018', 'carvana'\] gives no datasets"),
        ({"shares": {"dsb2018": 1, "catvana": 1}}, "'catvana' is not a dataset known here"),
        ({"shares": {"dsb2018": 1, "cityscapes_pairs/road": 1}}, "is not built in"),
        ({"labels": {"dsb2018": {"nucleus": "x"}}}, "lose the class 'background'"),
        ({"labels": {"cars": {}}}, "labels names 'cars', which is not mixed"),
        ({"background": "ignore", "labels": {}}, "the mixture loses the class"),
        ({"weights": {"cars": {}}}, "weights names 'cars'"),
        ({"features": {"cars": {}}}, "features names 'cars'"),
        ({"fold": (3, 3)}, "fold"),
        ({"weights": {"carvana": {"truck": 2}}}, "weights of carvana: it has no class 'truck'"),
        ({"weights": {"carvana": {"car": -2}}}, "a weight of carvana is -2"),
        ({"weights": {"carvana": [1, 2]}}, "carvana has 8 examples and 2 weights"),
        ({"split": {"dsb2018": "train"}}, "split is given by dataset and lacks carvana"),
        ({"split": "trian"}, "has no split 'trian'"),
        ({"augment": {"dsb2018": None, "x": None}}, "augment names 'x'"),
        ({"augment": 3}, "dsb2018: augment=3 is neither"),
        ({"size": (32, 0)}, "^size="),
        ({"record_size": (16, 16)}, "size=32×48"),
        ({"batch": 0}, "^batch=0"),
        ({"shard": (0, 3)}, r"^shard=\(0, 3\) of batch=4"),
    ],
)
@pytest.mark.heavy
def test_what_goes_wrong_is_said_before_the_first_step(built_datasets, changes, message):
    given: Any = {
        "shares": {"dsb2018": 1, "carvana": 1},
        "background": "negative",
        "size": (32, 48),
        "batch": 4,
        "seed": 0,
        **changes,
    }
    with pytest.raises(ValueError, match=message):
        segdata.mix(given.pop("shares"), data_dir=built_datasets, **given)

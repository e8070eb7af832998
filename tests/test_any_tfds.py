"""Datasets of others, by the names of their features, against TFDS's reading and plain loops."""

import fractions
import itertools
import json
import math
import pathlib
import subprocess
import sys
from typing import Any, ClassVar

import foreign
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from segdata import cli, packing, pipeline
from segdata.archives import intensity
from segdata.building import labels, pixels, reading
from segdata.core import records
from segdata.inspection import audit, examples, traits

PET = {"mask": "segmentation_mask", "labels": {1: "pet", 2: "background", 3: "border"}}
CITY = {
    "image": "image_left",
    "mask": "segmentation_label",
    "labels": {7: "flat", 8: "flat", range(24, 34): "vehicle", 0: None},
}
PANOPTIC = {"mask": "panoptic_image", "segments": "panoptic_objects"}
BCCD = {"image": "smear/photo", "mask": "smear/cells/kind"}
COVER = {"mask": "cover", "labels": {10: "water", 1000: "forest"}}


def read(data_dir, name, split="train") -> list[Any]:
    """What TFDS itself reads, in the order of the files."""
    builder: Any = packing.built(name, data_dir=data_dir)
    config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    return list(tfds.as_numpy(builder.as_dataset(split=split, read_config=config)))


def packed(data_dir, name, split="train", **named) -> records.Records:
    return packing.pack(name, split, size="native", data_dir=data_dir, **named)


def plain(values: np.ndarray, class_of: dict[int, int]) -> np.ndarray:
    """Class ids pixel by pixel; what has none is 255."""
    out = np.full(values.shape, 255, np.uint8)
    for place in np.ndindex(*values.shape):
        out[place] = class_of.get(int(values[place]), 255)
    return out


def masks(found: records.Records) -> np.ndarray:
    return np.stack([row[..., 3] for row in found])


def pictures(found: records.Records) -> np.ndarray:
    return np.stack([row[..., :3] for row in found])


EXPECTED = {
    "oxford_iiit_pet": (PET, lambda e: plain(e["segmentation_mask"][..., 0], {1: 0, 2: 1, 3: 2})),
    "cityscapes_like": (
        CITY,
        lambda e: plain(e["segmentation_label"][..., 0], {7: 0, 8: 0, 26: 1, 33: 1}),
    ),
    "scene_parse150_like": (
        {"mask": "annotation", "labels": {1: "wall", 150: "flag"}},
        lambda e: plain(e["annotation"][..., 0], {1: 0, 150: 1}),
    ),
    "kvasir_like": (
        {"labels": {range(128): "background", range(128, 256): "polyp"}},
        lambda e: (e["mask"][..., 0] > 127).astype(np.uint8),
    ),
    "bccd_like": (BCCD, lambda e: e["smear"]["cells"]["kind"][..., 0]),
    "satellite_like": (
        {"image": "grey", **COVER},
        lambda e: plain(e["cover"][..., 0], {10: 0, 1000: 1}),
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_masks_are_what_a_loop_over_the_pixels_that_tfds_reads_gives(built_foreign, name):
    named, expected = EXPECTED[name]
    for split, count in foreign.COUNT.items():
        found = masks(packed(built_foreign, name, split, **named))
        assert len(found) == count
        np.testing.assert_array_equal(
            found, [expected(e) for e in read(built_foreign, name, split)]
        )


@pytest.mark.parametrize("name", EXPECTED)
def test_sizes_are_those_of_all_images(built_foreign, name):
    named, expected = EXPECTED[name]
    for split in foreign.COUNT:
        sizes = traits.sizes(name, split, data_dir=built_foreign, **named)
        assert sizes == [expected(e).shape for e in read(built_foreign, name, split)]


def test_segments_have_the_labels_that_their_example_lists(built_foreign):
    def expected(example) -> np.ndarray:
        red, green, blue = (example["panoptic_image"][..., c].astype(int) for c in range(3))
        listed = example["panoptic_objects"]
        return plain(
            red + 256 * green + 65_536 * blue, dict(zip(listed["id"], listed["label"], strict=True))
        )

    whole = [expected(example) for example in read(built_foreign, "coco_panoptic_like")]
    assert {*np.unique(whole)} == {0, 17, 132, 255}
    np.testing.assert_array_equal(
        masks(packed(built_foreign, "coco_panoptic_like", **PANOPTIC)), whole
    )
    few = packed(
        built_foreign, "coco_panoptic_like", **PANOPTIC, labels={132: "sky", 0: "person", 17: None}
    )
    np.testing.assert_array_equal(masks(few), [plain(mask, {132: 0, 0: 1}) for mask in whole])


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("cityscapes_like", CITY),
        ("bccd_like", BCCD),
        ("oxford_iiit_pet", PET),
    ],
)
def test_images_are_as_tfds_reads_them(built_foreign, name, named):
    found = pictures(packed(built_foreign, name, **named))
    for row, example in zip(found, read(built_foreign, name), strict=True):
        expected: Any = example
        for key in named.get("image", "image").split("/"):
            expected = expected[key]
        # TensorFlow's fast transform of JPEG is some levels away from the exact one.
        limit = 0 if name != "oxford_iiit_pet" else 8
        assert np.abs(row.astype(int) - expected).max() <= limit


def scaled(values: Any, low: float, high: float) -> np.ndarray:
    """One by one, in exact fractions; halves up."""
    begin, end = fractions.Fraction(low), fractions.Fraction(high)
    shares = [(fractions.Fraction(float(v)) - begin) / (end - begin) for v in values.flat]
    flat = [math.floor(255 * min(1, max(0, x)) + fractions.Fraction(1, 2)) for x in shares]
    return np.array(flat, np.uint8).reshape(values.shape)


@pytest.mark.parametrize(
    ("image", "more", "expected"),
    [
        ("grey", {}, lambda e: np.dstack([e["grey"]] * 3)),
        ("rgba", {}, lambda e: e["rgba"][..., :3]),
        ("rgba", {"bands": (3,)}, lambda e: np.dstack([e["rgba"][..., 3]] * 3)),
        (
            "bands",
            {"bands": (4, 0, 2), "value_range": (0, 4095)},
            lambda e: scaled(e["bands"][..., [4, 0, 2]], 0, 4095),
        ),
        (
            "grey16",
            {"value_range": (100, 3000)},
            lambda e: np.dstack([scaled(e["grey16"][..., 0], 100, 3000)] * 3),
        ),
        ("rgb16", {"value_range": (0, 65_535)}, lambda e: scaled(e["rgb16"], 0, 65_535)),
        (
            "height",
            {"value_range": (-30.0, 200.0)},
            lambda e: np.dstack([scaled(e["height"][..., 0], -30.0, 200.0)] * 3),
        ),
    ],
)
def test_grey_multi_band_and_deep_images_become_rgb_by_the_rule(
    built_foreign, image, more, expected
):
    found = packed(built_foreign, "satellite_like", image=image, **COVER, **more)
    for row, example in zip(found, read(built_foreign, "satellite_like"), strict=True):
        np.testing.assert_array_equal(row[..., :3], expected(example))


@pytest.mark.parametrize(
    ("mask", "given"),
    [
        ("cover", {10: "water", 1000: "forest"}),
        ("cover16", {10: "water", 1000: "forest", 65_535: None}),
        ("paint", {(128, 64, 128): "water", (0, 0, 142): "forest", (0, 0, 0): None}),
    ],
)
def test_one_mask_in_many_types_is_one_mask(built_foreign, mask, given):
    found = packed(built_foreign, "satellite_like", image="grey", mask=mask, labels=given)
    expected = packed(built_foreign, "satellite_like", image="grey", **COVER)
    np.testing.assert_array_equal(masks(found), masks(expected))
    assert {*np.unique(masks(found))} == {0, 1, 255}


def test_a_mask_of_true_and_false(built_foreign):
    found = packed(
        built_foreign,
        "bccd_like",
        image="smear/photo",
        mask="smear/is_cell",
        labels={0: "background", 1: "cell"},
    )
    kinds = masks(packed(built_foreign, "bccd_like", **BCCD))
    np.testing.assert_array_equal(masks(found), kinds > 0)


def test_batches_are_streamed_and_evaluated_by_the_same_names(built_foreign):
    given: Any = {"size": foreign.SIZE, "batch": 2, "data_dir": built_foreign, **PET}
    rows = packed(built_foreign, "oxford_iiit_pet", **PET)
    image, mask = map(
        np.concatenate,
        zip(
            *pipeline.eval_batches("oxford_iiit_pet", "train", **given).as_numpy_iterator(),
            strict=True,
        ),
    )
    np.testing.assert_array_equal(np.concatenate([image, mask], axis=-1), np.stack([*rows]))
    train = pipeline.train_batches("oxford_iiit_pet", "train", augment=None, seed=0, **given)
    drawn = np.concatenate([image for image, _ in train.as_numpy_iterator()])
    assert {row.tobytes() for row in drawn} == {row.tobytes() for row in image}
    del given["size"]
    assert pipeline.steps_per_epoch("oxford_iiit_pet", "train", **given) == 3


def test_two_mappings_of_a_dataset_lie_side_by_side(built_foreign):
    def made(**changes) -> records.Records:
        return packed(built_foreign, "oxford_iiit_pet", **PET | changes)

    named = {
        "one": made(),
        "other": made(labels={2: "background", 1: "pet", 3: "border"}),
        "fewer": made(labels={1: "pet", 2: "background", 3: "background"}),
        "scaled": made(value_range=(0, 127)),
    }
    assert len({found.path for found in named.values()}) == 4
    for found in named.values():
        found.verify()
        assert json.loads(found.manifest.read_text())["features"]["mask"] == "segmentation_mask"
    again = made()
    assert (again.path, again.classes) == (named["one"].path, 3)
    other = np.array([1, 0, 2])[masks(named["one"])]
    np.testing.assert_array_equal(masks(named["other"]), other)
    noted = json.loads(named["fewer"].manifest.read_text())
    assert noted["features"]["labels"] == [
        [1, 1, "pet"],
        [2, 2, "background"],
        [3, 3, "background"],
    ]


def test_what_labels_do_not_name_is_counted_and_said(built_foreign, tmp_path, capsys):
    foreign.OxfordIiitPet(data_dir=tmp_path).download_and_prepare()
    given = {"mask": "segmentation_mask", "labels": {1: "pet", 9: "tail"}}
    found = masks(packed(tmp_path, "oxford_iiit_pet", **given))
    said = [line for line in capsys.readouterr().err.splitlines() if "became the ignore" in line]
    values = np.stack([e["segmentation_mask"] for e in read(tmp_path, "oxford_iiit_pet")])
    count, share = int((values != 1).sum()), (values != 1).mean()
    listed = f"2 ({(values == 2).sum():,}), 3 ({(values == 3).sum():,})"
    (line,) = said
    assert line.endswith(
        f"{count:,} pixels ({share:.2%}) have values that labels does not name and became the "
        f"ignore label: {listed}; no pixel is of tail."
    )
    assert (found == 255).sum() == count
    packed(tmp_path, "oxford_iiit_pet", **given)
    named = {**given, "labels": {1: "pet", 2: None, 3: None}}
    packed(tmp_path, "oxford_iiit_pet", **named)
    assert "labels" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "named", "message"),
    [
        (
            "oxford_iiit_pet",
            {},
            r"mask='mask': oxford_iiit_pet/4.0.0 has no such feature; .*image, seg",
        ),
        (
            "oxford_iiit_pet",
            {"mask": "segmentation_mask"},
            r"does not name its classes: name up to 255, .*first examples there are 1, 2, 3\.",
        ),
        ("oxford_iiit_pet", {**PET, "mask": "label"}, "mask='label': .* has ClassLabel.* there"),
        ("oxford_iiit_pet", {**PET, "image": "label/x"}, "image='label/x': .* no such feature"),
        ("oxford_iiit_pet", {**PET, "group": "head_bbox"}, "group='head_bbox'.*file_name"),
        ("oxford_iiit_pet", {**PET, "segments": "label"}, "segments='label'.*it has none"),
        ("oxford_iiit_pet", {**PET, "bands": (3,)}, "channels 0 to 2"),
        ("oxford_iiit_pet", {**PET, "bands": (0, 1)}, "bands=.*: one channel, or three"),
        ("oxford_iiit_pet", {**PET, "bands": 3}, "bands=3 are no numbers"),
        ("oxford_iiit_pet", {**PET, "value_range": (9, 9)}, "value_range=.*two numbers"),
        ("oxford_iiit_pet", {**PET, "value_range": 9}, "value_range=9: two numbers"),
        ("oxford_iiit_pet", {**PET, "mask": ""}, "mask='' is no name"),
        ("oxford_iiit_pet", {**PET, "labels": {}}, "labels={} is no dictionary"),
        ("oxford_iiit_pet", {**PET, "labels": {1: ""}}, "1 is given ''"),
        ("oxford_iiit_pet", {**PET, "labels": {"pet": "pet"}}, "'pet' is no class.*names none"),
        ("oxford_iiit_pet", {**PET, "labels": {-1: "pet"}}, "labels: -1 is no value from 0"),
        ("oxford_iiit_pet", {**PET, "labels": {1.5: "pet"}}, "labels: 1.5 is no value"),
        ("oxford_iiit_pet", {**PET, "labels": {True: "pet"}}, "labels: True is no value"),
        ("oxford_iiit_pet", {**PET, "labels": {1: None}}, "labels names 0 classes"),
        ("oxford_iiit_pet", {**PET, "labels": {1: "a", range(3): "b"}}, "value 1 is named twice"),
        ("oxford_iiit_pet", {**PET, "labels": {1: "a", (0, 0, 0): "b"}}, "colours or numbers"),
        ("bccd_like", {**BCCD, "labels": {"blue": "x"}}, "'blue' is no class.*plasma, red, white"),
        ("satellite_like", {"image": "bands", **COVER}, "has 5 channels: .*bands"),
        ("satellite_like", {"image": "grey16", **COVER}, "of uint16, from .*value_range"),
        ("satellite_like", {"image": "caption", **COVER}, "image='caption': .*Text.*grey16"),
        ("satellite_like", {"image": "grey", **COVER, "mask": "share"}, "holds fractions, such as"),
        ("satellite_like", {"image": "grey", **COVER, "mask": "paint"}, "has colours. Name them"),
        (
            "satellite_like",
            {"image": "grey", "mask": "small", "labels": {0: "none"}},
            "an image of 24×32 and a mask of 12×16",
        ),
        (
            "cityscapes_like",
            {**CITY, "labels": {n: str(n) for n in range(256)}},
            "names 256 classes",
        ),
    ],
)
def test_a_mistake_is_named(built_foreign, name, named, message):
    with pytest.raises(ValueError, match=message):
        packed(built_foreign, name, **named)


def test_a_keyword_that_is_none_is_named(built_foreign):
    with pytest.raises(TypeError, match="label"):
        packed(built_foreign, "oxford_iiit_pet", label={1: "pet"})  # pyright: ignore


def test_classes_that_a_dataset_names_are_joined_by_name(built_foreign):
    named = {**BCCD, "labels": {"plasma": "rest", "white": "white", "red": "rest"}}
    found = masks(packed(built_foreign, "bccd_like", **named))
    kinds = masks(packed(built_foreign, "bccd_like", **BCCD))
    np.testing.assert_array_equal(found, np.array([0, 0, 1])[kinds])


def test_an_audit_reads_what_is_packed_and_names_by_number(built_foreign, capsys):
    reading._log.cache_clear()  # another test of this process may have caused the line
    collection = examples.built("oxford_iiit_pet", data_dir=built_foreign, **PET)
    report = audit.audit(collection)
    assert report.classes == ("pet", "background", "border")
    ids = [item.id for item in report.summaries]
    assert ids == [f"{s}#{n}" for s, count in foreign.COUNT.items() for n in range(count)]
    assert [item.group for item in report.summaries] == ids
    rows = packed(built_foreign, "oxford_iiit_pet", **PET)
    for item, row in zip(report.summaries, rows, strict=False):
        values, counts = np.unique(row[..., 3], return_counts=True)
        assert item.counts == dict(zip(values, counts, strict=True))
    said = capsys.readouterr().err
    examples.built("oxford_iiit_pet", data_dir=built_foreign, **PET)
    assert "oxford_iiit_pet/4.0.0 has no `id`" in said
    assert "no `id`" not in capsys.readouterr().err  # it is said once


@pytest.mark.parametrize(
    ("image", "needed"),
    [("grey16", "--value_range LOW HIGH"), ("height", "--value_range"), ("bands", "--bands 0 1 2")],
)
def test_a_setting_that_all_images_need_is_one_line_of_the_audit(
    built_foreign, capsys, image, needed
):
    flags = ["--mask", "cover", "--labels", "10=water", "--image", image]
    command = ["audit", "satellite_like", "--data_dir", str(built_foreign), *flags]
    assert cli.main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("segdata audit: error: the image of example 0 of satellite_like-")
    assert needed in line


@pytest.mark.parametrize("name", [*EXPECTED, "coco_panoptic_like"])
def test_the_commands_take_the_same_names(built_foreign, tmp_path, capsys, name):
    named = {**EXPECTED, "coco_panoptic_like": (PANOPTIC, None)}[name][0]
    flags = []
    for flag, value in named.items():
        if flag == "labels":
            flags += ["--labels", *map(written, value.items())]
        else:
            flags += [f"--{flag}", value]
    where = ["--data_dir", str(built_foreign)]
    report, sheet = tmp_path / "report.json", tmp_path / "sheet.png"
    assert cli.main(["audit", name, *where, *flags, "--json", str(report)]) in (0, 1)
    noted = json.loads(report.read_text())
    collection = examples.built(name, data_dir=built_foreign, **named)
    assert noted["classes"] == list(collection.classes)
    assert noted["splits"]["train"]["examples"] == foreign.COUNT["train"]
    assert cli.main(["show", name, *where, *flags, "--to", str(sheet), "--count", "2"]) == 0
    with Image.open(sheet) as image:
        assert image.width >= 640
    assert "KeyError" not in capsys.readouterr().err


def written(item) -> str:
    key, name = item
    key = f"{key.start}-{key.stop - 1}" if isinstance(key, range) else key
    return f"{key}={name or ''}"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1=pet", "2="], {1: "pet", 2: None}),
        (["0-127=a", "128-255=b c"], {range(128): "a", range(128, 256): "b c"}),
        (["#8040fF=road"], {(128, 64, 255): "road"}),
        (["car=vehicle", "a=b=c"], {"car": "vehicle", "a": "b=c"}),
    ],
)
def test_labels_are_written_as_in_python(texts, expected):
    assert labels.keyed(labels.parsed(texts)) == expected


@pytest.mark.parametrize("text", ["pet", "=pet", ""])
def test_labels_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match=f"--labels {text}: 1=pet"):
        labels.parsed([text])
    with pytest.raises(ValueError, match="named twice"):
        labels.parsed(["1=a", "1=b"])
    with pytest.raises(ValueError, match="named twice"):
        labels.keyed(labels.parsed(["1=a", "01=b"]))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_labels_of_all_values_against_a_loop(dtype):
    given = {
        0: "a",
        range(3, 6): "b",
        7: None,
        200: "a",
        **({300: "c"} if dtype != np.uint8 else {}),
    }
    values = np.arange(500).astype(dtype).reshape(20, 25)
    found, unnamed = labels.Labels.of(given).apply(values)
    class_of = {0: 0, 3: 1, 4: 1, 5: 1, 200: 0, **({300: 2} if dtype != np.uint8 else {})}
    np.testing.assert_array_equal(found, plain(values, class_of))
    expected = [int(v) for v in values.flat if int(v) not in class_of and int(v) != 7]
    assert unnamed == {value: expected.count(value) for value in expected}


def test_a_palette_is_numbers_where_there_is_one_channel_and_colours_where_there_are_three():
    image = Image.new("P", (3, 2), 1)
    image.putpalette([9, 9, 9, 10, 20, 30])
    data = foreign.encoded(np.zeros((1, 1), np.uint8))
    image.save(data, "PNG")
    file = data.getvalue()
    assert (pixels.decoded(file, name="a", colours=False) == 1).all()
    assert (pixels.decoded(file, name="a", colours=True) == (10, 20, 30)).all()


def test_images_of_16_bits_keep_them(built_foreign):
    values = foreign.noise(3, top=65_536, dtype=np.uint16)
    for channels in (1, 3):
        file = tf.io.encode_png(values[..., :channels]).numpy()
        assert not pixels.is_plain(file)
        found = pixels.decoded(file, name="a", colours=True)
        np.testing.assert_array_equal(
            found.reshape(*foreign.SIZE, channels), values[..., :channels]
        )


MODULE = """
import numpy as np
import tensorflow_datasets as tfds


class {name}(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {{
                    "image": tfds.features.Image(shape=(8, 8, 3)),
                    "mask": tfds.features.LabeledImage(labels=["no", "yes"], shape=(8, 8, 1)),
                }}
            ),
        )

    def _split_generators(self, dl_manager):
        return {{"train": self._generate_examples()}}

    def _generate_examples(self):
        for n in range(3):
            yield n, {{
                "image": np.full((8, 8, 3), n, np.uint8),
                "mask": np.eye(8, dtype=np.uint8)[..., None],
            }}
"""


@pytest.mark.parametrize(
    ("place", "path"),
    [
        ("shapes_one/shapes_one_dataset_builder.py", "shapes_one"),
        ("shapes_two/shapes_two_dataset_builder.py", "./shapes_two/"),
        ("shapes_three/shapes_three.py", "{here}/shapes_three"),
        ("shapes_four.py", "shapes_four.py"),
        ("shapes_five.py", "{here}/shapes_five"),
    ],
)
def test_build_takes_the_paths_that_tfds_build_takes(tmp_path, monkeypatch, place, path):
    script = tmp_path / place
    script.parent.mkdir(exist_ok=True)
    (script.parent / "__init__.py").write_text("")
    name = script.stem.removesuffix("_dataset_builder")
    code = MODULE.format(name="Builder" if "_dataset_builder" in script.stem else _camel(name))
    script.write_text(code)
    monkeypatch.chdir(tmp_path)
    command = [
        "build",
        path.format(here=tmp_path),
        "--data_dir",
        "data",
        "--max_shard_size_mb",
        "9",
    ]
    assert cli.main(command) == 0
    found = packing.pack(name, "train", size=(8, 8), data_dir=tmp_path / "data")
    assert [row[0, 0, 0] for row in found] == [row[5, 5, 2] for row in found]
    assert sorted(int(row[0, 0, 0]) for row in found) == [0, 1, 2]


def _camel(name: str) -> str:
    return "".join(part.title() for part in name.split("_"))


@pytest.mark.heavy
def test_a_builtin_is_built_by_its_path_and_by_name_beside_a_folder_of_its_name(
    tmp_path, drawn_dsb2018
):
    """In processes of their own, as TFDS registers a name once."""
    root = pathlib.Path(packing.__file__).parent
    (tmp_path / "dsb2018").mkdir()
    for number, name in enumerate([str(root / "datasets" / "dsb2018"), "dsb2018"]):
        data = tmp_path / f"data{number}"
        flags = ["--manual_dir", str(drawn_dsb2018), "--data_dir", str(data), "--config", "default"]
        code = (
            f"import sys; from segdata import cli; sys.exit(cli.main({['build', name, *flags]!r}))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert list(data.glob("dsb2018/default/*/dataset_info.json"))


def test_commands_import_what_registers_a_dataset(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_shapes.py").write_text(MODULE.format(name="MyShapes"))
    monkeypatch.syspath_prepend(tmp_path)
    where = ["--data_dir", str(tmp_path / "data"), "--imports", "my_shapes"]
    assert cli.main(["build", "my_shapes", *where]) == 0
    assert cli.main(["audit", "my_shapes", *where, "--json", str(tmp_path / "a.json")]) in (0, 1)
    assert cli.main(["show", "my_shapes", *where, "--to", str(tmp_path / "a.png")]) == 0
    for command in (["audit", "x"], ["show", "x", "--to", "x.png"], ["build", "x"]):
        assert cli.main([*command, "--imports", "no.such"]) == 2
        assert "--imports no.such: No module named 'no'" in capsys.readouterr().err


def test_what_does_not_go_with_a_path_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["build", "./none", "--skip_damaged"]) == 2
    assert "--skip_damaged is for carvana" in capsys.readouterr().err
    assert cli.main(["build", "./none/at/all"]) == 2
    assert "Could not find generation script" in capsys.readouterr().err
    (tmp_path / "bad.py").write_text("import no_such_module_anywhere")
    assert cli.main(["build", "bad.py"]) == 2
    assert "bad.py cannot be imported: No module named 'no_such" in capsys.readouterr().err
    assert cli.main(["audit", "dsb2018", "--manual_dir", ".", "--mask", "x"]) == 2
    assert "raw archives have no features" in capsys.readouterr().err


def test_all_flags_of_labels_reach_both_commands():
    for command, settings in (("audit", cli.Audit), ("show", cli.Show)):
        flags = ["x", "--labels", "1=a", "--bands", "2", "1", "0", "--value_range", "0", "9.5"]
        flags += ["--to", "x.png"] * (command == "show")
        named: Any = cli.console.parse(settings, flags, prog=command).features.keywords()
        assert named["labels"] == {1: "a"}
        assert (named["bands"], named["value_range"]) == ([2, 1, 0], [0.0, 9.5])


def test_every_value_of_a_small_rule_is_scaled_by_it():
    """Packing and prediction, where halves come of it too."""
    for low, high in [*itertools.pairwise([0, 7, 300, 1000]), (189, 2907), (166, 334), (21, 4691)]:
        values = np.arange(low - 3, high + 4).reshape(1, -1)
        found = pixels.rgb(values, name="a", value_range=(low, high))
        np.testing.assert_array_equal(found[..., 1], scaled(values, low, high))
        rule = intensity.Scaling(low=(low,), high=(high,), rule="given")
        for kind in (np.int32, np.uint16):
            whole = values[values >= 0].astype(kind)[None, :, None]
            np.testing.assert_array_equal(rule.apply(whole), scaled(whole, low, high))


class OfTwoClasses(foreign.Foreign, skip_registration=True):
    """Masks with a value beyond the classes that the dataset names."""

    FEATURES: ClassVar = {
        "image": tfds.features.Image(),
        "mask": tfds.features.LabeledImage(labels=["no", "cell"], shape=(None, None, 1)),
    }

    def example(self, seed):
        values = foreign.blobs(seed, values=[0, 1, 255, 7])
        return {"image": foreign.noise(seed), "mask": values.astype(np.uint8)[..., None]}


def test_a_value_beyond_the_classes_that_a_dataset_names_is_no_class(tmp_path):
    OfTwoClasses(data_dir=tmp_path).download_and_prepare()
    with pytest.raises(ValueError, match=r"mask of train#\d holds 7, and the dataset names 2"):
        packed(tmp_path, "of_two_classes")
    found = packed(tmp_path, "of_two_classes", labels={0: "no", 1: "cell", 255: None})
    class_of = {0: 0, 1: 1}
    for mask, example in zip(masks(found), read(tmp_path, "of_two_classes"), strict=True):
        np.testing.assert_array_equal(mask, plain(example["mask"][..., 0], class_of))

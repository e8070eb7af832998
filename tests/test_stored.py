"""Examples read as they lie in a dataset's files, against TFDS's own reading."""

import itertools
import shutil
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import segdata
from segdata import packing
from segdata.building import slices, stored
from segdata.core.system import tfrecord
from segdata.inspection import audit, examples


@pytest.mark.parametrize("name", ["dsb2018", "dsb2018/instances"])
@pytest.mark.parametrize("split", ["train", "train+validation", "train[10%:60%]+test[1:]"])
def test_it_reads_what_tfds_reads(built_dsb2018, name, split):
    builder: Any = packing.built(name, data_dir=built_dsb2018)
    data = builder.as_dataset(
        split=split,
        decoders={key: tfds.decode.SkipDecoding() for key in ("image", "mask")},
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    frames = stored.frames(builder, slices.absolute(builder.info.splits, split))
    found = [stored.parsed(builder, frame) for frame in frames]
    expected = list(tfds.as_numpy(data))
    assert len(found) == len(expected) > 1
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            np.testing.assert_array_equal(value, theirs[key])


def test_any_stretch_of_several_files(tmp_path):
    path = tmp_path / "x.tfrecord"
    written = [bytes([number]) * size for number, size in enumerate((0, 1, 7, 8, 9, 100_000))]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for data in written:
            writer.write(data)
    for first in range(8):
        found = [tfrecord.unframed(frame) for frame in tfrecord.frames(path, first=first)]
        assert found == written[first:]
    assert path.read_bytes() == b"".join(map(tfrecord.framed, written))


def test_no_changed_byte_is_passed_over(tmp_path):
    path = tmp_path / "x.tfrecord"
    whole = b"".join(map(tfrecord.framed, (b"one", b"three", b"")))
    for place, size in itertools.product(range(len(whole)), (0, 1)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged if size else whole[:place])
        if place in (0, 19, 40) and not size:  # ends of records
            continue
        with pytest.raises(ValueError, match=r"damaged|cut|wrong"):
            list(map(tfrecord.unframed, tfrecord.frames(path)))


def test_a_file_with_fewer_examples_than_its_dataset_says(built_dsb2018, tmp_path):
    shutil.copytree(built_dsb2018, tmp_path / "data")
    builder = packing.built("dsb2018", data_dir=tmp_path / "data")
    path = builder.info.splits["train"].filepaths[0]
    frames = [*tfrecord.frames(path)][:3]
    path.write_bytes(b"".join(tfrecord.framed(tfrecord.unframed(frame)) for frame in frames))
    with pytest.raises(OSError, match=r"ends after 3 of \d+ examples.*--overwrite"):
        list(stored.frames(builder, [("train", 1, 5)]))


def damaged(built_dsb2018, tmp_path, change):
    """A copy of the dataset whose shard of training examples has other records."""
    shutil.copytree(built_dsb2018, tmp_path / "data")
    builder = packing.built("dsb2018", data_dir=tmp_path / "data")
    path = builder.info.splits["train"].filepaths[0]
    found = [tfrecord.unframed(frame) for frame in tfrecord.frames(path)]
    path.write_bytes(change(found))
    return tmp_path / "data"


@pytest.mark.parametrize(
    "change",
    [
        lambda found: b"".join(map(tfrecord.framed, [*found, found[0]])),
        lambda found: b"".join(map(tfrecord.framed, found)) + b"trail",
    ],
)
def test_nothing_is_left_out_of_a_file_without_a_word(built_dsb2018, tmp_path, change):
    data_dir = damaged(built_dsb2018, tmp_path, change)
    with pytest.raises(OSError, match=r"is damaged: .*train.*--overwrite"):
        segdata.pack("dsb2018", "train", size=(8, 8), data_dir=data_dir)
    report = audit.audit(examples.built("dsb2018", data_dir=data_dir))
    assert not report.sound


@pytest.mark.parametrize("feature", ["id", "group", "image", "mask"])
@pytest.mark.parametrize("kind", ["missing", "number"])
def test_an_example_without_a_feature_is_named(built_dsb2018, tmp_path, feature, kind):
    def change(found):
        example = tf.train.Example.FromString(found[3])
        del example.features.feature[feature]
        if kind == "number":
            example.features.feature[feature].int64_list.value.append(7)
        found[3] = example.SerializeToString()
        return b"".join(map(tfrecord.framed, found))

    data_dir = damaged(built_dsb2018, tmp_path, change)
    if feature != "group":  # which packing does not read
        with pytest.raises(OSError, match=r"example 3 of dsb2018-train.*--overwrite"):
            segdata.pack("dsb2018", "train", size=(8, 8), data_dir=data_dir)
    report = audit.audit(examples.built("dsb2018", data_dir=data_dir))
    (case,) = report.findings[0].cases
    assert "example 3" in f"{case.members}{case.detail}"


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"groups": {"train": "abc"}}', '{"groups": {"train": [1, 1]}}']
)
def test_damaged_metadata_is_named(built_dsb2018, tmp_path, text):
    shutil.copytree(built_dsb2018, tmp_path / "data")
    (path,) = (tmp_path / "data").glob("dsb2018/default/*/metadata.json")
    path.write_text(text)
    with pytest.raises(ValueError, match=r"dsb2018.* --overwrite"):
        packing.built("dsb2018", data_dir=tmp_path / "data")


def test_a_config_that_is_none_is_named(built_dsb2018):
    with pytest.raises(ValueError, match="no config 'nope'; there are default, instances"):
        packing.built("dsb2018/nope", data_dir=built_dsb2018)

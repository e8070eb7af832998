"""Examples read as they lie in a dataset's files, against TFDS's own reading."""

import itertools
import os
import shutil
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import segdata
from segdata import packing
from segdata.building import internals, slices, stored
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


def test_a_pipe_is_not_waited_for(built_dsb2018, tmp_path):
    shutil.copytree(built_dsb2018, tmp_path / "data")
    builder: Any = packing.built("dsb2018", data_dir=tmp_path / "data")
    path = builder.info.splits["train"].filepaths[0]
    path.unlink()
    os.mkfifo(path)
    for fold in (None, (0, 2)):
        with pytest.raises(OSError, match=r"is damaged: .* no file but .* pipe.*--overwrite"):
            segdata.pack("dsb2018", "train", size=(8, 8), fold=fold, data_dir=tmp_path / "data")
    assert not audit.audit(examples.built("dsb2018", data_dir=tmp_path / "data")).sound


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


@pytest.mark.parametrize("encoding", ["bytes", "zlib"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 1), (2, 1, 1), (3, 5, 1), (2, 0, 1)])
def test_a_tensor_of_any_number_of_bytes_has_its_shape(encoding, shape):
    kind = tfds.features.Tensor(shape=(None, None, 1), dtype=np.uint8, encoding=encoding)
    features = tfds.features.FeaturesDict({"of": {"few": kind}})
    value = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    data = internals.serializer(features)({"of": {"few": value}})
    frame = stored.Frame("example 0", tfrecord.framed(data)[tfrecord.HEADER :], "train", 0)
    np.testing.assert_array_equal(stored.parsed(None, frame, features)["of"]["few"], value)


def test_too_little_memory_is_no_damage(built_dsb2018, monkeypatch):
    def without_memory(*_, **__):
        raise MemoryError("no room")

    builder: Any = packing.built("dsb2018", data_dir=built_dsb2018)
    frame = next(stored.frames(builder, [("train", 0, 1)]))
    monkeypatch.setattr(tfrecord, "unframed", without_memory)
    with pytest.raises(MemoryError, match="no room"):
        stored.parsed(builder, frame)
    monkeypatch.setattr(tfds, "builder", without_memory)
    with pytest.raises(MemoryError, match="no room"):
        packing.built("dsb2018", data_dir=built_dsb2018)
    monkeypatch.undo()
    monkeypatch.setattr(packing, "min", without_memory, raising=False)  # of sizes of shards
    with pytest.raises(MemoryError, match="no room"):
        packing.built("dsb2018", data_dir=built_dsb2018)


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[1]", "", "{}", "null"),
        *('{"skipped": {}, "groups": {"train": "abc"}}', '{"groups": {"train": [1, 1]}}'),
        '{"skipped": {}, "groups": {"train": [10.5, 10.5]}}',
    ],
)
def test_damaged_metadata_is_named(built_dsb2018, tmp_path, text):
    shutil.copytree(built_dsb2018, tmp_path / "data")
    (path,) = (tmp_path / "data").glob("dsb2018/default/*/metadata.json")
    path.write_text(text)
    with pytest.raises(ValueError, match=r"dsb2018.* --overwrite"):
        packing.built("dsb2018", data_dir=tmp_path / "data")


def test_lost_metadata_splits_no_group(built_datasets, tmp_path):
    """Nor in the readers of TFDS itself."""
    shutil.copytree(built_datasets / "carvana", tmp_path / "carvana")
    builder: Any = packing.built("carvana", data_dir=tmp_path)
    (tmp_path / "carvana/default" / str(builder.version) / "metadata.json").unlink()
    with pytest.raises(ValueError, match=r"metadata.json.* groups of carvana.*--overwrite"):
        packing.built("carvana", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"metadata.json.* groups of carvana.*--overwrite"):
        tfds.load("carvana", split="train[:50%]", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dsb2018:9.9.9", None, r"at version 9.9.9, only: \d.*Built there: dsb2018/default/\d"),
        ("dsb2018:x", None, r"dsb2018:x in .*cannot be opened.*Built there: dsb2018/default/\d"),
        ("dsb2018", "{}", r"cannot be opened.*version.*dataset_info.json.*--overwrite"),
        ("dsb2018", "[]", r"cannot be opened.*version.*dataset_info.json.*--overwrite"),
        ("dsb2018", '{"version": "1.0.9"}', r"cannot be opened.*1.0.9.*dataset_info.json.*--over"),
    ],
)
def test_a_version_or_a_description_that_is_another_is_named(
    built_dsb2018, tmp_path, name, text, message
):
    shutil.copytree(built_dsb2018, tmp_path / "data")
    (path,) = (tmp_path / "data").glob("dsb2018/default/*/dataset_info.json")
    path.write_text(text or path.read_text())
    with pytest.raises(ValueError, match=message):
        packing.built(name, data_dir=tmp_path / "data")


def test_a_config_that_is_none_is_named(built_dsb2018):
    with pytest.raises(ValueError, match="no config 'nope'; there are default, instances"):
        packing.built("dsb2018/nope", data_dir=built_dsb2018)

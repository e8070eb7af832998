"""Examples read as they lie in a dataset's files, against TFDS's own reading."""

import itertools
import shutil
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from segdata import packing
from segdata.building import slices, stored
from segdata.core.system import tfrecord


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

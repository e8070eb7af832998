import io
import json
import multiprocessing
import os
import pathlib
import shutil
import time

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from segdata import records

SIZE = (24, 40)


@pytest.fixture
def built(built_dsb2018, tmp_path):
    """A copy of the built dataset that a test may damage."""
    copy = tmp_path / "data"
    shutil.copytree(built_dsb2018, copy)
    return copy


def pack(data_dir, split="train", size=SIZE):
    return records.pack("dsb2018", split, size=size, data_dir=data_dir)


def seal(packed):
    return packed.path.stat().st_ino, packed.path.stat().st_mtime_ns


def test_any_tfrecord_reader_streams_what_the_array_holds(built_dsb2018):
    packed = pack(built_dsb2018)
    streamed = [
        np.frombuffer(record, np.uint8).reshape(*SIZE, 4)
        for record in tf.data.TFRecordDataset(str(packed.path)).as_numpy_iterator()
    ]
    np.testing.assert_array_equal(streamed, packed.array())
    assert packed.path.stat().st_size == packed.count * packed.stride


def test_tensor_rows_are_the_pixels(built_dsb2018):
    packed = pack(built_dsb2018)
    rows = tf.gather(packed.tensor(), [2, 0])
    np.testing.assert_array_equal(packed.pixels(rows), packed.array()[[2, 0]])


def test_records_are_the_dataset_resized(built_dsb2018):
    """Images by Pillow's bilinear, masks keeping to their classes."""
    builder = records.built("dsb2018", data_dir=built_dsb2018)
    examples = list(tfds.as_numpy(records._raw(builder, "train")))
    for example, row in zip(examples, pack(built_dsb2018).array(), strict=True):
        image = PIL.Image.open(io.BytesIO(example["image"])).convert("RGB")
        expected = image.resize((SIZE[1], SIZE[0]), PIL.Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(row[..., :3], expected)
        assert set(np.unique(row[..., 3])) <= {0, 1}


def test_a_second_run_reuses_the_file(built):
    before = seal(pack(built))
    assert seal(pack(built)) == before


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_flipped_bit_is_noticed_and_mended(built, where):
    packed = pack(built)
    good = packed.path.read_bytes()
    place = {"first": 0, "middle": len(good) // 2, "last": len(good) - 1}[where]
    with packed.path.open("r+b") as file:
        file.seek(place)
        file.write(bytes([good[place] ^ 1]))
    assert pack(built).path.read_bytes() == good


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "manifest gone", "manifest cut"])
def test_damage_is_noticed_and_mended(built, damage):
    packed = pack(built)
    good = packed.path.read_bytes()
    manifest = packed.path.with_suffix(".json")
    target = manifest if "manifest" in damage else packed.path
    if "gone" in damage:
        target.unlink()
    else:
        os.truncate(target, 0 if damage == "empty" else target.stat().st_size // 2)
    assert pack(built).path.read_bytes() == good
    assert json.loads(manifest.read_text())["count"] == packed.count


def test_a_dataset_built_again_is_packed_again(built):
    before = seal(pack(built))
    shard = next(pathlib.Path(built).glob("dsb2018/default/*/dsb2018-train*"))
    os.utime(shard, (1, 1))
    assert seal(pack(built)) != before


def test_sizes_and_splits_have_files_of_their_own(built):
    paths = {
        pack(built).path,
        pack(built, split="train[:50%]").path,
        pack(built, split="train[50%:]").path,
        pack(built, size=(40, 24)).path,
        pack(built, split="validation").path,
    }
    assert len(paths) == 5
    halves = [pack(built, split=s).array() for s in ("train[:50%]", "train[50%:]")]
    np.testing.assert_array_equal(np.concatenate(halves), pack(built).array())


def test_nothing_half_written_has_a_final_name(tmp_path):
    path = tmp_path / "x.tfrecord"

    def rows():
        yield np.zeros((2, 2, 4), np.uint8)
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        records.write(path, rows(), size=(2, 2), source={})
    assert list(tmp_path.iterdir()) == []


def test_abandoned_temporary_files_are_removed_and_fresh_ones_are_not(tmp_path):
    old, fresh = tmp_path / ".x.tfrecord.1", tmp_path / ".x.tfrecord.2"
    for file in (old, fresh):
        file.write_bytes(b"half")
    long_ago = time.time() - 2 * records._ABANDONED
    os.utime(old, (long_ago, long_ago))
    records.write(tmp_path / "x.tfrecord", [np.zeros((2, 2, 4), np.uint8)], size=(2, 2), source={})
    assert not old.exists()
    assert fresh.exists()


def _pack_in_process(data_dir, results):
    results.put(pack(data_dir).path.read_bytes())


@pytest.mark.heavy
def test_two_processes_at_once_do_no_harm(built):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_pack_in_process, args=(built, results)) for _ in range(2)]
    for process in processes:
        process.start()
    one, other = results.get(timeout=120), results.get(timeout=120)
    for process in processes:
        process.join()
    assert one == other == pack(built).path.read_bytes()

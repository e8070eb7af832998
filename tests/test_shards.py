"""Examples on their way to files; builds on Apache Beam, and builds that are killed."""

import json
import subprocess
import sys
from typing import Any

import apache_beam
import pytest
import tensorflow as tf
from building import build, files
from tensorflow_datasets.core import file_adapters, writer

from segdata import archives
from segdata.building import shards
from segdata.sources import carvana
from segdata.testing import layouts

TFRECORD = writer.ExampleWriter(file_adapters.FileFormat.TFRECORD)


def record(number: int) -> shards.Record:
    """Two of a group; every fifth has a note, every seventh is left out."""
    notes = {"odd": number} if number % 5 == 0 else {}
    data = None if number % 7 == 3 else b"%d" % number
    return shards.Record(id=str(number), group=f"g{number // 2}", data=data, notes=notes)


@pytest.mark.parametrize("count", [1, 3, 20])
def test_every_example_is_written_once_in_order_and_accounted_for(tmp_path, count):
    paths = [tmp_path / f"x-train.tfrecord-{index}" for index in range(count)]
    part = shards.Part(range(20), record)
    written = shards.write({"train": part}, {"train": paths}, to=TFRECORD)["train"]
    read = [
        [data.decode() for data in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
        for path in paths
    ]
    kept = [number for number in range(20) if record(number).data]
    assert [text for file in read for text in file] == [str(number) for number in kept]
    assert [shard.groups for shard in written] == [
        [record(int(text)).group for text in file] for file in read
    ]
    assert [shard.size for shard in written] == [sum(map(len, file)) for file in read]
    noted = {key: value for shard in written for key, value in shard.notes.get("odd", {}).items()}
    assert noted == {"0": 0, "5": 5, "10": 10, "15": 15}


def test_the_bar_ends_before_an_error_is_printed(tmp_path, monkeypatch):
    ended = []

    class Bar(list):
        def __enter__(self):
            return self

        def __exit__(self, *error):
            ended.append(True)

    monkeypatch.setattr(shards.internals, "progress", lambda records, **_: Bar(records))

    class Full:
        def write(self, path, examples):
            raise OSError(28, "No space left on device")

    full: Any = Full()
    with pytest.raises(OSError, match="No space"):
        shards.write({"train": shards.Part(range(3), record)}, {"train": [tmp_path / "x"]}, to=full)
    assert ended


def test_shares_are_even_and_in_order():
    part = shards.Part(list("abcdefghij"), record)
    assert ["".join(share.entries) for share in part.shares(3)] == ["abc", "defg", "hij"]


def test_more_files_than_examples_are_refused():
    assert shards.number(3, size=1, asked=3) == 3
    with pytest.raises(ValueError, match=r"num_shards=4: a split has 3 examples"):
        shards.number(3, size=1, asked=4)


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_a_fault_in_the_middle_of_a_shard_ends_the_build_and_leaves_no_dataset(
    tmp_path, file_format
):
    folder = tmp_path / "manual"
    carvana.draw(folder, examples=6, seed=1, size=(16, 24), views=2, write=layouts.folders)
    victim = sorted((folder / "train_masks").iterdir())[3]
    victim.write_bytes(b"no GIF")
    with pytest.raises(archives.ArchiveError, match=victim.name):
        build("carvana", folder, tmp_path / "data", file_format=file_format)
    assert not list((tmp_path / "data" / "carvana" / "default").iterdir())


@pytest.mark.parametrize("name", ["carvana", "cityscapes_pairs/classes", "dsb2018/instances"])
def test_apache_beam_makes_the_same_files(tmp_path, manual_dirs, name):
    folder = manual_dirs[name.partition("/")[0]]
    options = apache_beam.options.pipeline_options.PipelineOptions(["--runner=DirectRunner"])
    build(name, folder, tmp_path / "here", num_shards=2)
    build(name, folder, tmp_path / "beam", num_shards=2, beam_options=options)
    assert files(tmp_path / "beam") == files(tmp_path / "here")


# Starts builds and kills them: a process that has imported everything forks one after the other.
# A build that was faster than its killer is undone and does not count.
KILLER = """
import json, os, random, shutil, signal, sys, time
import tensorflow, apache_beam
import segdata.datasets
from segdata import cli
from tensorflow_datasets.scripts.cli import build

manual, data, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
folder = data + "/killed/carvana/default"
def begun(to):
    if child := os.fork():
        return child
    os._exit(cli.main(["build", "carvana", "--manual_dir", manual, "--data_dir", to,
                       "--num_shards", "4"]))
start = time.monotonic()
assert os.waitpid(begun(data + "/whole"), 0)[1] == 0
took = time.monotonic() - start
chance, left = random.Random(0), []
while len(left) < times:
    start, child = time.monotonic(), begun(data + "/killed")
    time.sleep(chance.uniform(0, took))
    os.kill(child, signal.SIGKILL)
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    names = os.listdir(folder) if os.path.isdir(folder) else []
    if killed and "1.0.0" not in names:
        left.append(names)
    else:
        shutil.rmtree(folder)
        took = min(took, time.monotonic() - start)
assert os.waitpid(begun(data + "/killed"), 0)[1] == 0
print(json.dumps(left))
"""


@pytest.mark.heavy
def test_a_build_that_was_killed_ten_times_ends_with_the_files_of_one_that_was_not(tmp_path):
    carvana.draw(tmp_path / "manual", examples=48, seed=1, size=(320, 480), views=4)
    command = [sys.executable, "-c", KILLER, str(tmp_path / "manual"), str(tmp_path), "10"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: Any = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 10
    left = [[name for name in names if name != ".1.0.0.lock"] for names in found]
    for names in left:
        assert len(names) <= 1  # of this run: what the one before left is gone
        assert all(name.startswith("incomplete.") for name in names)
    assert sum(map(len, left)) > 2
    whole = files(tmp_path / "whole")
    assert files(tmp_path / "killed") == whole
    assert sum(".tfrecord-" in name for name in whole) == 8

"""Packed files larger than memory should hold: sparse ones, so that the disk has room for them.

Each test has a process of its own, whose memory is only its own.
"""

import json
import subprocess
import sys

import pytest

START = """
import json, pathlib, sys
import numpy as np
import tensorflow as tf
from segdata.adapters import tf as adapter
from segdata.core import records
from segdata.core.augment import Augment
from segdata.core.stream import Stream

STRIDE = 128 * 128 * 4 + 16

def sparse(count):
    path = pathlib.Path(f"{count}.tfrecord")
    with path.open("wb") as file:
        file.truncate(count * STRIDE)
    index = np.zeros(count, records.index_type(2))
    index["start"] = 3 + np.arange(count) * STRIDE // 4
    index["height"], index["width"] = 128, 128
    index.tofile(path.with_suffix(".index"))
    return records.Records(
        path=path, total=count, size=(128, 128), classes=2, has_instances=False, checksum=0,
        rows=range(count),
    )

def write(packed, row, value):
    with packed.path.open("r+b") as file:
        file.seek(row * STRIDE + 12)
        file.write(np.full((128, 128, 4), value, np.uint8))

def anonymous():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1])

def stream(packed, augment=None):
    return Stream(packed, batch=64, augment=augment)

def batch_with(row, packed):
    example, _ = stream(packed).plan.order(0, -(-packed.count // 64))
    return int(np.flatnonzero(example == row)[0]) // 64
"""

MEMORY = """
augment = Augment(horizontal_flip=0.5, contrast_range=(0.5, 1.5))
packed = sparse(int(sys.argv[1]))
for engine in (sys.argv[2],):
    for data in (
        adapter.training(stream(packed, augment), engine=engine),
        adapter.evaluation(packed, batch=64, engine=engine),
    ):
        batches = iter(data)
        held = [anonymous() for _ in range(10) if next(batches)]
print(min(held))  # between batches that are made ahead
"""

LAST = """
packed = sparse(140_000)  # 2.3 thousand million words, more than 31 bits count
write(packed, 139_999, 77)
step = batch_with(139_999, packed)
for augment in (None, Augment(horizontal_flip=1), Augment(scale_range=(2, 2))):
    for engine in adapter.ENGINES:
        data = adapter.training(stream(packed, augment), start_step=step, engine=engine)
        image, mask = next(data.as_numpy_iterator())
        print(json.dumps([int((x == 77).all(axis=(1, 2, 3)).sum()) for x in (image, mask)]))
"""

SERVICE = """
service = tf.data.experimental.service
dispatcher = service.DispatchServer()
address = dispatcher.target.split("://")[1]
worker = service.WorkerServer(service.WorkerConfig(dispatcher_address=address))
packed = sparse(40_000)
assert packed.path.stat().st_size > 2**31
write(packed, 39_999, 77)
step = batch_with(39_999, packed)
augment = Augment(brightness_range=(0.1, 0.1), contrast_range=(0.5, 1.5))
data = adapter.training(stream(packed, augment), start_step=step, engine="xla")
spread = data.apply(service.distribute("parallel_epochs", dispatcher.target))
brightest = 0
for here, there in zip(data.take(2), spread.take(2)):
    for one, other in zip(here, there):
        np.testing.assert_array_equal(one, other)
    brightest = max(brightest, int(here[0].numpy().max()))
print(json.dumps([brightest, anonymous()]))
"""


def run(code, folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", START + code, *arguments], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.heavy
@pytest.mark.parametrize("engine", ["host", "xla"])
def test_memory_does_not_grow_with_the_file(tmp_path, engine):
    (few,), (many,) = (run(MEMORY, tmp_path, count, engine) for count in ("1000", "40000"))
    assert many < 1.05 * few


@pytest.mark.heavy
def test_the_last_record_is_found_where_words_are_not_counted_in_31_bits(tmp_path):
    assert run(LAST, tmp_path) == [[1, 1]] * 6


@pytest.mark.heavy
def test_workers_of_the_data_service_map_the_file_themselves(tmp_path):
    ((brightest, memory),) = run(SERVICE, tmp_path)
    assert brightest > 77
    assert memory < 1 << 20  # KiB; the file is 2.4 GiB

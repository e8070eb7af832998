"""tf.data service: a dispatcher and two workers in processes of their own, one of them killed."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf

import segdata

SIZE, BATCH, STEPS, SEED = (32, 32), 4, 300, 5
AUGMENT = segdata.Augment(horizontal_flip=0.5, rotation_range=(-30, 30), contrast_range=(0.5, 2))
# Each prints its address and ends when what it reads does: when the test closes it or dies.
DISPATCHER = """
import sys, tensorflow as tf
service = tf.data.experimental.service
server = service.DispatchServer(service.DispatcherConfig(worker_timeout_ms=1000))
print(server.target, flush=True)
sys.stdin.read()
"""
WORKER = """
import sys, tensorflow as tf
service = tf.data.experimental.service
server = service.WorkerServer(service.WorkerConfig(
    dispatcher_address=sys.argv[1], heartbeat_interval_ms=100, dispatcher_timeout_ms=2000))
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def running(code: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process and its first line."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def in_order(data: tf.data.Dataset) -> tf.data.Dataset:
    """Each step once, as in docs/tf.md."""

    def first_time(due, step, batch):
        return due + tf.cast(step == due, tf.int64), (step == due, batch)

    data = data.scan(tf.constant(0, tf.int64), lambda due, item: first_time(due, *item))
    return data.filter(lambda is_new, _: is_new).map(lambda _, batch: batch)


@pytest.mark.heavy
def test_a_killed_worker_of_two_neither_loses_nor_doubles_a_step(built_dsb2018):
    records = segdata.pack("dsb2018", "train", size=SIZE, data_dir=built_dsb2018)
    expected = segdata.Stream(records, batch=BATCH, augment=AUGMENT, seed=SEED)
    train = segdata.train_batches(
        "dsb2018",
        "train",
        size=SIZE,
        batch=BATCH,
        augment=AUGMENT,
        seed=SEED,
        steps="endless",
        engine="xla",
        data_dir=built_dsb2018,
    )
    # Without an end: at one, TensorFlow 2.21 waits for the killed worker's.
    numbered = tf.data.Dataset.zip(tf.data.Dataset.range(tf.int64.max), train)
    with contextlib.ExitStack() as stack:
        _, address = stack.enter_context(running(DISPATCHER))
        target = address.removeprefix("grpc://")
        workers = [stack.enter_context(running(WORKER, target))[0] for _ in range(2)]
        sent = numbered.apply(
            tf.data.experimental.service.distribute(
                "parallel_epochs", address, max_outstanding_requests=4
            )
        )
        found = []
        for step, (image, mask) in enumerate(in_order(sent).take(STEPS)):
            found.append(step)
            right = expected.batch(step)
            np.testing.assert_array_equal(image, right[0])
            np.testing.assert_array_equal(mask, right[1])
            if step == 10:
                workers[0].kill()
                workers[0].wait()
    assert found == list(range(STEPS))

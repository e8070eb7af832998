"""Bounds that hold on any machine: a sleep takes at least as long as it was asked to."""

import subprocess
import sys
import time

import numpy as np
import pytest

from unet.waiting import Waiting

COUNT, MADE_IN, USED_IN = 6, 0.02, 0.03


def batches():
    """Pairs whose numbers tell them apart, slowly made."""
    for number in range(COUNT):
        time.sleep(MADE_IN)
        yield np.full((2, 3), number, np.uint8), np.full((2, 1), number, np.uint8)


def piped():
    import tensorflow as tf

    specs = tuple(tf.TensorSpec((2, channels), tf.uint8) for channels in (3, 1))
    return tf.data.Dataset.from_generator(batches, output_signature=specs)


def numbers(stream, pause: float = 0.0) -> list[list[int]]:
    found = []
    for parts in stream:
        found.append([int(np.asarray(part)[0, 0]) for part in parts])
        time.sleep(pause)
    return found


@pytest.mark.parametrize("make", [batches, piped])
def test_batches_stay_as_they_are_and_waiting_is_added_up(make):
    waiting = Waiting()
    began = time.monotonic()
    assert numbers(waiting.of(make())) == [[k, k] for k in range(COUNT)]
    assert COUNT * MADE_IN <= waiting.seconds <= time.monotonic() - began
    first = waiting.seconds
    assert numbers(waiting.of(make())) == [[k, k] for k in range(COUNT)]
    assert waiting.seconds >= first + COUNT * MADE_IN


@pytest.mark.parametrize("make", [batches, piped])
def test_the_time_that_batches_are_used_is_none_of_it(make):
    waiting = Waiting()
    began = time.monotonic()
    numbers(waiting.of(make()), USED_IN)
    assert waiting.seconds <= time.monotonic() - began - COUNT * USED_IN


def test_batches_that_are_ready_before_they_are_asked_for_are_not_waited_for():
    waiting = Waiting()
    began = time.monotonic()
    for _ in waiting.of(piped()):
        time.sleep(5 * MADE_IN)
    whole = time.monotonic() - began
    assert waiting.seconds <= whole - COUNT * 5 * MADE_IN


@pytest.mark.heavy
def test_batches_are_timed_where_all_has_to_be_deterministic():
    program = (
        "import tensorflow as tf\n"
        "tf.config.experimental.enable_op_determinism()\n"
        "from unet.waiting import Waiting\n"
        "waiting = Waiting()\n"
        "found = [int(x) for x in waiting.of(tf.data.Dataset.range(7))]\n"
        "assert found == [*range(7)] and waiting.seconds > 0, (found, waiting.seconds)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)

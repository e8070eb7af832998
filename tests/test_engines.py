"""All engines make equal bytes: the kernels, and array expressions by NumPy, TensorFlow and JAX."""

import functools
import gc
import pickle
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
import torch
from test_kernels import SETTINGS, planned, records, rendered

from segdata.adapters import expressions
from segdata.adapters import jax as jax_adapter
from segdata.adapters import tf as tf_adapter
from segdata.adapters import torch as torch_adapter
from segdata.core import records as records_
from segdata.core.stream import Stream
from segdata.core.system import files


def expressed(pixels, step, *, augment, size, xp):
    count, *record = pixels.shape[:3]
    table = pixels.reshape(count, -1).view(np.uint32)
    words = expressions.render(
        xp.asarray(table[step.own.row]),
        xp.asarray(table[step.partner.row]),
        *step,
        augment=augment,
        record=tuple(record),
        size=size,
        xp=xp,
    )
    return expressions.parts(words, xp)


@pytest.mark.parametrize("framework", ["numpy", "jax"])
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    ("shape", "size"), [((12, 17), (12, 17)), ((1, 1), (1, 1)), ((33, 29), (25, 27))]
)
def test_expressions_make_the_bytes_of_the_kernels(framework, name, shape, size):
    xp = np if framework == "numpy" else jax.numpy
    pixels, augment = records(5, *shape), SETTINGS[name]
    step = planned(pixels, augment, size=size).steps(7)
    is_constant = augment.border == "constant"
    expected = rendered(pixels, step, size=size, is_constant=is_constant)
    found = expressed(pixels, step, augment=augment, size=size, xp=xp)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    manifest = tmp_path_factory.mktemp("packed") / "noise.json"
    return records_.write(manifest, records(7, 20, 24), size=(20, 24), source={})


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "seed"), [("nothing", 0), ("everything", -(2**70) - 5), ("everything, constant", 7)]
)
def test_the_graph_of_tensorflow_plans_and_draws_the_bytes_of_the_kernels(packed, name, seed):
    made = Stream(packed, batch=6, augment=SETTINGS[name], seed=seed, size=(16, 16), shard=(1, 2))
    for first in (0, 10**12):
        data = tf_adapter.training(made, start_step=first, engine="xla")
        for step, found in enumerate(data.take(2).as_numpy_iterator(), first):
            for one, other in zip(made.batch(step), found, strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["nothing", "everything"])
def test_tf_data_gives_the_batches_of_the_stream(packed, name):
    made = Stream(packed, batch=6, augment=SETTINGS[name], seed=3)
    data = tf_adapter.training(made, start_step=4)
    for step, found in enumerate(data.take(20).as_numpy_iterator(), 4):
        for one, other in zip(made.batch(step), found, strict=True):
            np.testing.assert_array_equal(one, other)


def test_evaluation_is_every_record_once_in_every_engine(packed):
    for engine in tf_adapter.ENGINES:
        data = tf_adapter.evaluation(packed, batch=3, engine=engine)
        assert len(data) == 3
        image, mask = (np.concatenate(part) for part in zip(*data.as_numpy_iterator(), strict=True))
        np.testing.assert_array_equal(np.concatenate([image, mask], axis=-1), packed.array())


def test_an_engine_that_there_is_not_is_refused(packed):
    with pytest.raises(ValueError, match="engine='cuda': there are 'host' and 'xla'"):
        tf_adapter.evaluation(packed, batch=3, engine="cuda")


def assert_batches(found, stream, *, first=0):
    """Batches of a framework are those of the stream from a step on."""
    count = 0
    for step, batch in enumerate(found, first):
        for one, other in zip(stream.batch(step), batch, strict=True):
            np.testing.assert_array_equal(one, np.asarray(other))
        count += 1
    return count


@pytest.mark.parametrize("engine", ["auto", "host", "device"])
@pytest.mark.parametrize("name", ["nothing", "everything"])
def test_jax_gives_the_batches_of_the_stream(packed, engine, name):
    made = Stream(packed, batch=4, augment=SETTINGS[name], seed=9, size=(16, 16))
    found = jax_adapter.training(made, start_step=5, steps=70, engine=engine)
    assert assert_batches(found, made, first=5) == 70
    kept = list(jax_adapter.training(made, steps=40, engine=engine))  # no memory is used again
    assert assert_batches(kept, made) == 40


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_torch_gives_the_batches_of_the_stream_whatever_the_workers(packed, workers):
    made = Stream(packed, batch=4, augment=SETTINGS["flips and crops and colours"], seed=9)
    batches = torch_adapter.Batches(made, start_step=5, steps=11)
    loader = torch.utils.data.DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,  # JAX warns of forks in this process
    )
    assert len(loader) == 11
    found = ((image.permute(0, 2, 3, 1), mask[..., None]) for image, mask in loader)
    assert assert_batches(found, made, first=5) == 11


def test_tensors_share_the_memory_of_the_kernels_and_keep_it(packed):
    made = Stream(packed, batch=4)
    kept = list(torch_adapter.Batches(made, steps=30))
    for step, (image, mask) in enumerate(kept):
        assert image.is_contiguous(memory_format=torch.channels_last)
        expected = made.batch(step)
        np.testing.assert_array_equal(image.permute(0, 2, 3, 1), expected[0])
        np.testing.assert_array_equal(mask, expected[1][..., 0])
    with pytest.raises(TypeError, match="have no end"):
        len(torch_adapter.Batches(made))


def test_memory_is_used_again_when_nobody_refers_to_it(packed):
    made = Stream(packed, batch=4)
    image, mask = made.batch(0)
    part = image[1:2, 3]
    expected, place = part.copy(), image.ctypes.data
    del image, mask
    others = [made.batch(step)[0].ctypes.data for step in range(5)]
    assert place not in others
    np.testing.assert_array_equal(part, expected)
    del part
    assert made.batch(0)[0].ctypes.data == place or made.batch(1)[0].ctypes.data == place


@pytest.mark.parametrize("shards", [1, 2, 3, 6])
def test_shards_are_the_rows_of_the_same_batch(packed, shards):
    whole = Stream(packed, batch=6, augment=SETTINGS["everything"], seed=1).batch(8)
    parts = [
        Stream(packed, batch=6, augment=SETTINGS["everything"], seed=1, shard=(k, shards)).batch(8)
        for k in range(shards)
    ]
    for one, others in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(one, np.concatenate(others))


ALONE_SCRIPT = """
import pathlib, sys
import numpy as np
from segdata.core import records, stream
from segdata.core.augment import Augment
rows = np.arange(6 * 4 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4, 4)
packed = records.write(pathlib.Path(sys.argv[1], "x.json"), rows, size=(4, 4), source={})
augment = Augment(rotation_range=(-9, 9), contrast_range=(0.5, 2))
made = stream.Stream(packed, batch=3, augment=augment)
assert len(list(made.batches(steps=5))) == 5
heavy = {"tensorflow", "tensorflow_datasets", "keras", "PIL", "jax", "torch"} & set(sys.modules)
assert not heavy, heavy
outside = [name for name in sys.modules if name.startswith("segdata.")]
assert all(name.startswith("segdata.core") for name in outside), outside
"""


def test_the_core_needs_numpy_and_numba_alone(tmp_path):
    subprocess.run([sys.executable, "-c", ALONE_SCRIPT, tmp_path], check=True)


def test_what_training_saw_is_made_again(packed):
    made = Stream(packed, batch=6, augment=SETTINGS["everything"], seed=2)
    rows, epochs = made.plan.order(11)
    for one, other in zip(made.batch(11), made.replay(rows, epochs), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(made.replay(rows[4], epochs[4])[0][0], made.batch(11)[0][4])
    for row, epoch in ((7, 0), (-1, 0), (0, -1)):
        with pytest.raises(ValueError, match=r"row=|epoch="):
            made.replay(row, epoch)


@pytest.mark.parametrize(
    "arguments",
    [{"start_step": -1}, {"start_step": 2**62}, {"start_step": 1.5}, {"steps": -3}, {"steps": "2"}],
)
def test_steps_that_are_none_are_named_by_every_engine(packed, arguments):
    made = Stream(packed, batch=4)
    (name,) = arguments
    calls = [
        made.batches,
        *(functools.partial(jax_adapter.training, made, engine=e) for e in ("host", "device")),
    ]
    if name == "start_step":
        calls += [
            functools.partial(tf_adapter.training, made, engine=e) for e in tf_adapter.ENGINES
        ]
    for call in calls:
        with pytest.raises(ValueError, match=f"^{name}="):
            call(**arguments)


@pytest.mark.parametrize("threads", [0, -1, "two"])
def test_threads_that_are_none_are_named(packed, threads):
    with pytest.raises(ValueError, match=r"^threads="):
        Stream(packed, batch=4).batches(threads=threads)


@pytest.mark.parametrize(
    "shard", [3, None, "ab", (0,), (0, 1, 2), (0.5, 2), (0, 1.0), (2, 2), (0, 4)]
)
def test_a_shard_that_is_none_is_named(packed, shard):
    with pytest.raises(ValueError, match=r"^shard="):
        Stream(packed, batch=6, shard=shard)
    numbers: Any = tuple(np.uint8(number) for number in (1, 2))
    step: Any = np.uint8(200)
    made = Stream(packed, batch=6, shard=numbers)
    np.testing.assert_array_equal(
        made.batch(step)[0], Stream(packed, batch=6, shard=(1, 2)).batch(200)[0]
    )


def test_a_batch_that_is_none_is_named(packed):
    wrong: list[Any] = [-1, 0, True, 1.5]
    for batch in wrong:
        with pytest.raises(ValueError, match=r"^batch="):
            tf_adapter.evaluation(packed, batch=batch)
    with pytest.raises(ValueError, match=r"^records='x' is no open packed file"):
        Stream("x", batch=1)  # pyright: ignore[reportArgumentType]


def test_a_copy_keeps_the_file_too(tmp_path):
    original = records_.write(tmp_path / "x.json", records(3, 4, 4), size=(4, 4), source={})
    copied = pickle.loads(pickle.dumps(Stream(original, batch=2)))
    del original
    gc.collect()
    assert files.in_use(copied.records.path)
    records_.write(tmp_path / "x.json", records(3, 4, 4, seed=1), size=(4, 4), source={})
    assert copied.records.path.exists()

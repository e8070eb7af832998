"""All engines make equal bytes: the kernels, and array expressions by NumPy, TensorFlow and JAX."""

import dataclasses
import functools
import gc
import pickle
import subprocess
import sys
import tracemalloc
from typing import Any

import jax
import numpy as np
import pytest
import torch
from test_kernels import SETTINGS, index_of, planned, records, rendered, varied, words_of

from segdata.adapters import expressions
from segdata.adapters import jax as jax_adapter
from segdata.adapters import tf as tf_adapter
from segdata.adapters import torch as torch_adapter
from segdata.core import records as records_
from segdata.core.augment import Augment
from segdata.core.stream import Stream
from segdata.core.system import files

# Half a minute of compiling.
COMPILED = pytest.param("device", marks=pytest.mark.heavy)


def whole(name):
    """Settings for examples as large as their records."""
    return dataclasses.replace(SETTINGS[name], foreground=0.0)


def expressed(pixels, step, *, augment, size, xp):
    def held(row):
        if isinstance(pixels, np.ndarray):
            table = pixels.reshape(len(pixels), -1).view(np.uint32)
            return expressions.Held(xp.asarray(table[row]), pixels.shape[1], pixels.shape[2])
        index = index_of(pixels)[row]
        start, height, width = (
            index[name].astype(np.int32) for name in ("start", "height", "width")
        )
        height, width = (xp.asarray(side)[:, None, None] for side in (height, width))
        return expressions.Held(xp.asarray(words_of(pixels)), height, width, xp.asarray(start))

    words = expressions.render(
        held(step.own.row),
        held(step.partner.row) if augment.cutmix else None,
        *step,
        augment=augment,
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


@pytest.mark.parametrize("framework", ["numpy", "jax"])
@pytest.mark.parametrize("name", SETTINGS)
def test_expressions_make_the_bytes_of_the_kernels_of_records_of_any_size(framework, name):
    xp = np if framework == "numpy" else jax.numpy
    pixels, augment = varied(), SETTINGS[name]
    step = planned(pixels, augment, size=(10, 13), batch=5).steps(2)
    is_constant = augment.border == "constant"
    expected = rendered(pixels, step, size=(10, 13), is_constant=is_constant)
    found = expressed(pixels, step, augment=augment, size=(10, 13), xp=xp)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """Records of several sizes, with all classes in the index, and only some of them."""
    manifest = tmp_path_factory.mktemp("packed") / "native.json"
    packed = records_.write(manifest, varied(), size=None, source={}, classes=8)
    return packed.select([4, 0, 3, 1])


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    manifest = tmp_path_factory.mktemp("packed") / "noise.json"
    return records_.write(manifest, records(7, 20, 24), size=(20, 24), source={}, classes=4)


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


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["foreground", "everything, constant"])
def test_the_graph_of_tensorflow_crops_records_of_any_size(native, name):
    made = Stream(native, batch=6, augment=SETTINGS[name], seed=5, size=(12, 10))
    data = tf_adapter.training(made, start_step=3, engine="xla")
    assert assert_batches(data.take(2).as_numpy_iterator(), made, first=3) == 2


@pytest.mark.parametrize("engine", ["host", COMPILED])
@pytest.mark.parametrize("name", ["foreground", "everything"])
def test_jax_crops_records_of_any_size(native, engine, name):
    made = Stream(native, batch=4, augment=SETTINGS[name], seed=9, size=(7, 16))
    found = jax_adapter.training(made, start_step=5, steps=9, engine=engine)
    assert assert_batches(found, made, first=5) == 9


def test_records_that_differ_in_size_need_a_size(native):
    with pytest.raises(ValueError, match=r"size=None: the records of .* differ in size"):
        Stream(native, batch=2)
    with pytest.raises(ValueError, match=r"differ in size, and no batch holds them"):
        tf_adapter.evaluation(native, batch=2)


def test_only_selected_records_are_seen(native, packed):
    """In training and in evaluation, in every engine."""
    some = packed.select([5, 2, 3])
    rows, _ = Stream(some, batch=6, seed=1).plan.order(0, 3)
    assert sorted(set(rows.tolist())) == [2, 3, 5]
    assert set(Stream(native, batch=9, size=(4, 4)).plan.order(0)[0].tolist()) == {4, 0, 3, 1}
    mixed = Augment(cutmix=1)
    partners = Stream(some, batch=60, seed=1, augment=mixed).plan.steps(0).partner.row
    assert set(partners.tolist()) == {2, 3, 5}
    for engine in tf_adapter.ENGINES:
        for chosen, expected in ((some, [5, 2, 3]), (packed.select(range(1, 6, 2)), [1, 3, 5])):
            data = tf_adapter.evaluation(chosen, batch=2, engine=engine)
            image, mask = (np.concatenate(x) for x in zip(*data.as_numpy_iterator(), strict=True))
            found = np.concatenate([image, mask], axis=-1)
            np.testing.assert_array_equal(found, packed.array()[expected])
            np.testing.assert_array_equal(found, chosen.array())


@pytest.mark.parametrize(
    "rows", [range(6, -1, -1), range(4, -1, -3), range(0, 7, 3), range(6, 1, -2)]
)
def test_rows_may_be_selected_from_the_last_to_the_first(packed, rows):
    some = packed.select(rows)
    np.testing.assert_array_equal(some.array(), packed.array()[list(rows)])
    again = some.select(range(len(rows) - 1, -1, -1))
    np.testing.assert_array_equal(again.array(), packed.array()[list(rows)[::-1]])
    order, _ = Stream(again, batch=len(rows)).plan.order(0)
    assert sorted(order) == sorted(rows)


@pytest.mark.parametrize(
    "rows", [[], range(0), [7], [-1], range(-1, 3), range(5, 8), ["a"], [1.5], 5, None, slice(3)]
)
def test_rows_that_are_none_are_named(packed, rows):
    with pytest.raises(ValueError, match=r"^rows="):
        packed.select(rows)


def test_one_iteration_goes_on_where_the_last_one_ended(packed):
    """And where it was left early, the same batches come again."""
    made = Stream(packed, batch=4, augment=Augment(horizontal_flip=0.5), seed=3)
    data = tf_adapter.training(made, start_step=2, steps=5)
    assert len(data) == 5
    piped = data.prefetch(2)
    for first in (2, 7, 12):
        next(iter(data))
        assert assert_batches(data.take(3).as_numpy_iterator(), made, first=first) == 3
        assert assert_batches(piped.as_numpy_iterator(), made, first=first) == 5
    again = tf_adapter.training(made, start_step=2, steps=5, engine="xla")
    for _ in range(2):
        assert assert_batches(again.as_numpy_iterator(), made, first=2) == 5
    with pytest.raises(ValueError, match="steps=0"):
        tf_adapter.training(made, steps=0)


def test_a_stage_of_ones_own_is_part_of_every_engine_of_the_host(packed):
    def halved(image, mask):
        return image[:, ::2].astype(np.float32) / 255, mask[:, ::2, :, 0] == 1

    made = Stream(packed, batch=4, seed=3, then=halved)
    plain = Stream(packed, batch=4, seed=3)
    for one, other in zip(made.batch(7), halved(*plain.batch(7)), strict=True):
        np.testing.assert_array_equal(one, other)
    largest: Any = np.maximum
    again = pickle.loads(pickle.dumps(Stream(packed, batch=4, seed=3, then=largest)))
    assert again.then is np.maximum
    data = tf_adapter.training(made, start_step=7, steps=3)
    assert data.element_spec[0].shape == (4, 10, 24, 3)
    assert assert_batches(data.as_numpy_iterator(), made, first=7) == 3
    assert assert_batches(jax_adapter.training(made, steps=3), made) == 3
    for one, other in zip(next(iter(torch_adapter.Batches(made))), made.batch(0), strict=True):
        np.testing.assert_array_equal(one, other)  # as they are
    weighted = Stream(packed, batch=4, then=lambda image, mask: (image, mask, mask[:, 0, 0, 0]))
    assert len(tf_adapter.training(weighted).element_spec) == 3
    wrong: list[Any] = [lambda i, m: i, lambda i, m: None, lambda i, m: (i, 3), lambda i, m: [i, m]]
    for then in wrong:
        other = Stream(packed, batch=4, then=then)
        for call in (lambda o=other: o.batch(0), lambda o=other: tf_adapter.training(o)):
            with pytest.raises(ValueError, match=r"^then= gave .*, not a tuple of NumPy arrays"):
                call()
    refused = (
        lambda: tf_adapter.training(made, engine="xla"),
        lambda: jax_adapter.training(made, engine="device"),
        lambda: Stream(packed, batch=4, then=3),  # pyright: ignore[reportArgumentType]
    )
    for call in refused:
        with pytest.raises(ValueError, match=r"^then="):
            call()


@pytest.mark.parametrize("name", ["nothing", "everything"])
def test_tf_data_gives_the_batches_of_the_stream(packed, name):
    made = Stream(packed, batch=6, augment=whole(name), seed=3)
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


@pytest.mark.parametrize("engine", ["auto", "host", COMPILED])
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


def test_memory_that_is_kept_does_not_grow_with_the_lengths_of_batches(packed):
    stream = Stream(packed, batch=4)
    largest = 3 * packed.size[0] * packed.size[1] * 400
    tracemalloc.start()
    try:
        for count in range(1, 400, 7):
            stream.replay(np.arange(count) % packed.count, 0)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 8 * largest


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
    complete = Stream(packed, batch=6, augment=whole("everything"), seed=1).batch(8)
    parts = [
        Stream(packed, batch=6, augment=whole("everything"), seed=1, shard=(k, shards)).batch(8)
        for k in range(shards)
    ]
    for one, others in zip(complete, zip(*parts, strict=True), strict=True):
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
    made = Stream(packed, batch=6, augment=whole("everything"), seed=2)
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


@pytest.mark.parametrize("part", [(-1, 2), (2, 2), (0, 0), None, (0.0, 2), 3, (0, 1, 2)])
def test_a_part_that_is_none_is_named(packed, part):
    with pytest.raises(ValueError, match=r"^part="):
        Stream(packed, batch=4).batches(part=part)


@pytest.mark.parametrize("options", [{"start_step": -1}, {"steps": -2}, {"steps": 3.0}])
def test_torch_names_steps_that_are_none_at_once(packed, options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))}="):
        torch_adapter.Batches(Stream(packed, batch=4), **options)


def test_tensors_are_made_of_what_then_flipped(packed):
    made = Stream(packed, batch=4, then=lambda image, mask: (image[:, :, ::-1], mask[::-1]))
    found = next(iter(torch_adapter.Batches(made, steps=1)))
    for one, other in zip(found, made.batch(0), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("adapter", [jax_adapter, tf_adapter])
def test_adapters_name_what_is_no_stream(packed, adapter):
    for wrong in (packed, None, "x"):
        with pytest.raises(ValueError, match=r"^stream=.* is no segdata.Stream, and no mixture"):
            adapter.training(wrong)


def test_a_device_that_is_none_is_named(packed):
    device: Any = "cpu"
    with pytest.raises(ValueError, match=r"^device='cpu' is none of JAX's"):
        jax_adapter.training(Stream(packed, batch=4), device=device)


@pytest.mark.parametrize("wrong", [1.7, True, "a", None, float("nan"), [0.0]])
def test_rows_and_epochs_that_are_no_whole_numbers_are_named(packed, wrong):
    made = Stream(packed, batch=4)
    with pytest.raises(ValueError, match=r"^row="):
        made.replay(wrong, 0)
    with pytest.raises(ValueError, match=r"^epoch="):
        made.replay(0, wrong)

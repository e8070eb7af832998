import os
import pathlib
import signal
import subprocess
import sys
import threading
import warnings
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from segdata import mixing, packing, pipeline
from segdata.adapters import tf as adapter
from segdata.core import plan, records
from segdata.core.augment import Augment
from segdata.core.stream import Stream

AUGMENT = Augment(horizontal_flip=0.5, brightness_range=(-0.2, 0.2), noise_range=(0, 0.05))


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """23 records of 8×12; the first two bytes of each are its number, the class its last digit."""
    rows = np.random.default_rng(0).integers(0, 256, (23, 8, 12, 4), np.uint8)
    rows[:, 0, 0, 0] = np.arange(23)
    rows[..., 3] = (np.arange(23) % 10)[:, None, None]
    manifest = tmp_path_factory.mktemp("packed") / "numbers.json"
    return records.write(manifest, rows, size=(8, 12), source={})


def streamed(packed, *, start_step=0, batch=5, augment=None, seed=0):
    stream = Stream(packed, batch=batch, augment=augment, seed=seed)
    return adapter.training(stream, start_step=start_step)


def take(packed, steps, **kwargs):
    data = streamed(packed, **kwargs).take(steps)
    images, masks = zip(*data.as_numpy_iterator(), strict=True)
    return np.stack(images), np.stack(masks)


def order(packed, steps, **kwargs):
    return take(packed, steps, **kwargs)[0][:, :, 0, 0, 0].ravel()


def test_batches_are_uint8_of_static_shape(packed):
    spec = streamed(packed, augment=AUGMENT).element_spec
    assert spec == (
        tf.TensorSpec((5, 8, 12, 3), tf.uint8),
        tf.TensorSpec((5, 8, 12, 1), tf.uint8),
    )


@pytest.mark.parametrize("batch", [1, 5, 23, 40])
def test_every_epoch_is_a_permutation_and_epochs_differ(packed, batch):
    drawn = order(packed, -(-4 * 23 // batch), batch=batch)
    epochs = [drawn[i * 23 : (i + 1) * 23] for i in range(4)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(23))
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_order_does_not_depend_on_batch_size_but_on_seed(packed):
    np.testing.assert_array_equal(order(packed, 20, batch=5), order(packed, 10, batch=10))
    assert not np.array_equal(order(packed, 20), order(packed, 20, seed=1))
    assert not np.array_equal(order(packed, 20), order(packed, 20, seed=1 << 32))
    assert not np.array_equal(order(packed, 20, seed=3), order(packed, 20, seed=-3))


def test_steps_are_counted_in_64_bits(packed):
    for step in (2**31, 2**32, 2**40):
        assert not np.array_equal(
            order(packed, 1, batch=23, start_step=step), order(packed, 1, batch=23)
        )


def test_each_epoch_is_augmented_anew(packed):
    images, _ = take(packed, 2, batch=23, augment=Augment(brightness_range=(-0.3, 0.3)))
    plain, _ = take(packed, 2, batch=23)
    added = []
    for epoch in range(2):
        shift = np.median(images[epoch].astype(int) - plain[epoch], axis=(1, 2, 3))
        added.append(shift[np.argsort(plain[epoch][:, 0, 0, 0])])
    assert (np.abs(added[0] - added[1]) > 1).sum() > 15


@pytest.mark.parametrize("count", [65_537, 262_145, 1_048_577])
def test_no_example_is_left_out_one_beyond_a_power_of_four(count):
    """TensorFlow's own shuffle never draws the last of 2²ᵏ + 1, and another one twice."""
    made = plan.Plan(
        rows=range(count), record=(1, 1), size=(1, 1), batch=count, augment=Augment(), seed=0
    )
    example, epoch = made.order(0)
    np.testing.assert_array_equal(np.sort(example), np.arange(count))
    assert not np.any(epoch)


@pytest.mark.parametrize("start", [1, 4, 5, 17])
def test_starting_at_step_k_is_skipping_k_batches_bit_for_bit(packed, start):
    images, masks = take(packed, 20, augment=AUGMENT)
    later_images, later_masks = take(packed, 20 - start, augment=AUGMENT, start_step=start)
    np.testing.assert_array_equal(later_images, images[start:])
    np.testing.assert_array_equal(later_masks, masks[start:])


def test_nothing_changes_with_parallelism(packed):
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False
    data = streamed(packed, augment=AUGMENT)
    one = [image for image, _ in data.with_options(options).take(10).as_numpy_iterator()]
    options = tf.data.Options()
    options.threading.private_threadpool_size = 8
    eight = [image for image, _ in data.with_options(options).take(10).as_numpy_iterator()]
    np.testing.assert_array_equal(one, eight)


def test_an_iterator_restored_from_a_checkpoint_goes_on_exactly(packed, tmp_path):
    images, _ = take(packed, 8, augment=AUGMENT)
    iterator = iter(streamed(packed, augment=AUGMENT))
    for _ in range(3):
        next(iterator)
    saved = tf.train.Checkpoint(iterator=iterator).save(str(tmp_path / "at"))
    fresh = iter(streamed(packed, augment=AUGMENT))
    tf.train.Checkpoint(iterator=fresh).restore(saved)
    np.testing.assert_array_equal([next(fresh)[0].numpy() for _ in range(5)], images[3:])


@pytest.mark.parametrize("augment", [None, Augment(horizontal_flip=0.5), AUGMENT])
def test_image_and_mask_never_part(packed, augment):
    """A flip moves a whole row, so the class must still be that of the number in the corner."""
    images, masks = take(packed, 30, augment=augment)
    raw = packed.array()
    for image, mask in zip(images.reshape(-1, 8, 12, 3), masks.reshape(-1, 8, 12, 1), strict=True):
        digit = mask[0, 0, 0]
        assert (mask == digit).all()
        candidates = raw[raw[:, 0, 0, 3] == digit][..., :3].astype(int)
        both = np.concatenate([candidates, candidates[:, :, ::-1]])
        limit = 0 if augment is None else 0.2 * 255 + 0.05 * 255 * 4
        assert np.abs(both - image).max(axis=(1, 2, 3)).min() <= limit


def test_without_augmentation_pixels_are_as_they_are(packed):
    images, masks = take(packed, 23)
    numbers = images[:, :, 0, 0, 0]
    np.testing.assert_array_equal(images, packed.array()[numbers][..., :3])
    np.testing.assert_array_equal(masks, packed.array()[numbers][..., 3:])


@pytest.mark.parametrize("batch", [1, 7, 23, 64])
def test_eval_batches_hold_every_example_once_in_order(built_dsb2018, batch):
    data = pipeline.eval_batches(
        "dsb2018", "train", size=(16, 16), batch=batch, data_dir=built_dsb2018
    )
    images, masks = zip(*data.as_numpy_iterator(), strict=True)
    rows = packing.pack("dsb2018", "train", size=(16, 16), data_dir=built_dsb2018).array()
    np.testing.assert_array_equal(np.concatenate(images), rows[..., :3])
    np.testing.assert_array_equal(np.concatenate(masks), rows[..., 3:])
    assert {len(image) for image in images[:-1]} <= {batch}


def test_train_batches_of_a_built_dataset(built_dsb2018):
    data = pipeline.train_batches(
        "dsb2018", "train", size=(32, 48), batch=4, augment=AUGMENT, seed=3, data_dir=built_dsb2018
    )
    image, mask = next(data.as_numpy_iterator())
    assert image.shape == (4, 32, 48, 3)
    assert set(np.unique(mask)) <= {0, 1}
    assert 0 < mask.mean() < 0.9


def test_steps_per_epoch_rounds_up(built_dsb2018):
    count = packing.pack("dsb2018", "train", size=(8, 8), data_dir=built_dsb2018).count
    steps = pipeline.steps_per_epoch("dsb2018", "train", batch=count - 1, data_dir=built_dsb2018)
    assert steps == 2


def test_numbers_of_numpy_are_numbers(built_dsb2018):
    def first(size, batch, seed, step):
        data = pipeline.train_batches(
            "dsb2018",
            "train",
            size=size,
            batch=batch,
            augment=AUGMENT,
            seed=seed,
            start_step=step,
            data_dir=built_dsb2018,
        )
        return next(data.as_numpy_iterator())

    plain = first((16, 24), 4, 3, 2)
    for kind in (np.int64, np.int32, np.uint8):
        for size in ((kind(16), kind(24)), np.array([16, 24], kind), [16, kind(24)]):
            for one, other in zip(plain, first(size, kind(4), kind(3), kind(2)), strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch=0"),
        ({"batch": 2.0}, "batch=2.0 is not a whole number from 1"),
        ({"batch": True}, "batch=True"),
        ({"batch": 2**70}, "batch=1180591620717411303424 is not a whole number from 1 to 1,048"),
        ({"start_step": 2**63}, "start_step=9223372036854775808 is not a whole number from 0 to"),
        ({"augment": "mild"}, "augment='mild' is neither a segdata.Augment nor None"),
        ({"augment": {}}, "augment={} is"),
        ({"augment": False}, "augment=False is"),
        ({"augment": Augment}, "augment=<class .*Augment'> is neither"),
        ({"seed": "3"}, "seed='3' is not a whole number"),
        ({"seed": None}, "seed=None"),
        ({"size": 8}, "size=8 is not a height and a width"),
        ({"size": (8, 8.5)}, r"size=\(8, 8.5\)"),
        ({"size": (8, 8, 3)}, r"size=\(8, 8, 3\)"),
        ({"start_step": -1}, "start_step=-1"),
        ({"size": (0, 8)}, "size="),
        ({"split": "holdout"}, "no split 'holdout'; it has"),
        ({"split": "train[:800]"}, r"no split 'train\[:800\]'; it has train of \d+.* examples"),
        ({"split": "train[5:5]"}, r"split 'train\[5:5\]' of .* holds no examples"),
        ({"split": "train[5:2]"}, r"no split 'train\[5:2\]'; it has"),
        ({"split": "train[:10]+train[5:2]"}, r"no split 'train\[:10\]\+train\[5:2\]'; it has"),
        ({"name": "dsb2019"}, "'dsb2019' is not a dataset"),
        ({"data_dir": "nowhere"}, "is not built in.*segdata build dsb2018"),
    ],
)
def test_a_mistake_is_named(built_dsb2018, change, message):
    arguments = {
        "name": "dsb2018",
        "split": "train",
        "size": (8, 8),
        "batch": 2,
        "augment": None,
        "seed": 0,
        "data_dir": built_dsb2018,
        **change,
    }
    name, split = arguments.pop("name"), arguments.pop("split")
    with pytest.raises(ValueError, match=message):
        pipeline.train_batches(name, split, **arguments)


ELSEWHERE = """
import json, pathlib
import subprocess
import sys

import numpy as np
import tensorflow as tf
tf.debugging.set_log_device_placement(True)
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from segdata.adapters import tf as adapter
from segdata.core import augment, records, stream
rows = np.zeros((9, 8, 8, 4), np.uint8)
packed = records.write(pathlib.Path("x.json"), rows, size=(8, 8), source={})
settings = augment.Augment(contrast_range=(0.5, 1.5), rotation_range=(0, 9))
made = stream.Stream(packed, batch=4, augment=settings)
with tf.device("CPU:0"):
    tf.constant(1) + tf.constant(2)  # which shows that it would be said
with tf.device("CPU:1"):  # stands for a GPU, where whatever is eager goes by itself
    for data in (
        make(engine)
        for engine in adapter.ENGINES
        for make in (
            lambda engine: adapter.training(made, engine=engine),
            lambda engine: adapter.evaluation(packed, batch=4, engine=engine),
        )
    ):
        next(data.as_numpy_iterator())
"""


@pytest.mark.heavy
def test_nothing_of_the_input_side_is_computed_on_another_device(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"},  # JAX turns it down
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "xecuting op" in line]
    assert any("CPU:0" in line for line in lines)
    assert not [line for line in lines if "CPU:1" in line]


LEFT = """
import pathlib, time
import numpy as np
from segdata.adapters import tf as adapter
from segdata.core import records, stream

class Slow(adapter._Ahead):
    def __call__(self, number):
        time.sleep(0.3)  # so that a call is under way when Python ends
        return super().__call__(number)

adapter._Ahead = Slow
rows = np.zeros((9, 8, 8, 4), np.uint8)
packed = records.write(pathlib.Path("x.json"), rows, size=(8, 8), source={})
kept = [
    iter(adapter.training(stream.Stream(packed, batch=2))),
    iter(adapter.training(stream.Stream(packed, batch=2), steps=3)),
    iter(adapter.evaluation(packed, batch=2)),
]
for batches in kept:
    next(batches)
print("done", flush=True)
"""


@pytest.mark.heavy
def test_a_process_ends_that_keeps_iterators_which_read_ahead(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LEFT], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_fork_waits_for_no_call_of_a_thread_that_it_does_not_have():
    calls, begun, go = adapter._Calls(), threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        go.wait()

    thread = threading.Thread(target=calls.counted(call))
    thread.start()
    begun.wait()
    if not (child := os.fork()):
        signal.alarm(5)  # ends it with an error
        calls.end()
        os._exit(0)
    go.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_datasets_know_their_length_and_keras_evaluates_them(packed):
    train = streamed(packed)
    data = adapter.evaluation(packed, batch=5)
    assert int(train.cardinality()) > 2**50  # as good as endless
    assert len(data) == len(list(data)) == 5
    network = keras.Sequential([keras.Input((8, 12, 3)), keras.layers.Conv2D(1, 1)])
    network.compile(loss="mse", jit_compile="auto")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "your input ran out of data"
        network.evaluate(data, verbose="0")


@pytest.fixture
def unpacked(monkeypatch):
    """Whatever would be packed fails."""
    monkeypatch.setattr(packing, "pack_by", lambda *_, **__: pytest.fail("it was packed"))


CROPS = {"record_size": "native", "size": (8, 8)}
TURNS = Augment(quarter_turns=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": "gpu"}, "^engine='gpu': there are"),
        ({"engine": "xla", "steps": "endless", "then": np.maximum}, "^then= is a function of"),
        ({"shard": (0, 3), "batch": 8}, r"^shard=\(0, 3\) of batch=8"),
        ({"shard": (2, 2), "batch": 8}, r"^shard=\(2, 2\) is not"),
        ({"then": "x"}, "^then='x' is no function"),
        ({"steps": -1}, "^steps=-1 is not a whole number from 1"),
        ({"steps": 0}, "^steps=0 is not a whole number from 1"),
        ({"steps": 2.5}, "^steps=2.5 is not"),
        ({"augment": Augment(foreground=0.7)}, "^foreground=0.7 is for crops"),
        ({"size": (9, 8), "record_size": (8, 8)}, "^size=9×8: records of 8×8"),
        ({"size": (8, 9), "augment": TURNS}, "^quarter_turns=True needs square"),
        (
            {**CROPS, "augment": Augment(foreground=1, foreground_classes=(7,))},
            r"^foreground=1 of the classes \[7\]: the records have the classes below 2",
        ),
        ({"name": None}, "^name=None is no name of a dataset"),
        ({"name": pathlib.Path("dsb2018")}, r"^name=PosixPath\('dsb2018'\) is no name"),
        ({"data_dir": 5}, "^data_dir=5 is no folder"),
    ],
)
def test_what_needs_no_pixels_is_checked_before_they_are_packed(
    built_dsb2018, unpacked, change, message
):
    given = {"size": (8, 8), "batch": 2, "augment": None, "seed": 0, "data_dir": built_dsb2018}
    given |= {"name": "dsb2018", "split": "train", **change}
    with pytest.raises(ValueError, match=message):
        pipeline.train_batches(**given)


def test_an_evaluation_is_checked_before_anything_is_packed(built_dsb2018, unpacked):
    given = {"size": (8, 8), "batch": 2, "data_dir": built_dsb2018}
    wrong = [({"engine": "gpu"}, "^engine="), ({"then": 3}, "^then=3"), ({"batch": 0}, "^batch=0")]
    for change, message in wrong:
        with pytest.raises(ValueError, match=message):
            pipeline.eval_batches("dsb2018", "train", **{**given, **change})


def test_a_mixture_is_checked_before_anything_is_packed(built_dsb2018, unpacked):
    given = {"size": (8, 9), "batch": 8, "seed": 0, "data_dir": built_dsb2018}
    wrong = [
        ({"shard": (0, 3)}, r"^shard=\(0, 3\) of batch=8"),
        ({"then": "x"}, "^then='x'"),
        ({"seed": "x"}, "^dsb2018: seed='x'"),
        ({"augment": TURNS}, "^dsb2018: quarter_turns=True"),
        ({"split": "holdout"}, "no split 'holdout'"),
        ({"weights": {"dsb2018": {"nucleus": -2}}}, "^a weight of dsb2018 is -2"),
    ]
    for change, message in wrong:
        with pytest.raises(ValueError, match=message):
            mixing.mix({"dsb2018": 1}, **{**given, **change})
    with pytest.raises(ValueError, match=r"^batch=0"):
        mixing.mix_eval_batches(["dsb2018"], size=(8, 8), batch=0, data_dir=built_dsb2018)


def test_an_unknown_keyword_is_named_with_those_that_there_are(built_dsb2018):
    wrong: Any = {"epochs": 3}
    with pytest.raises(TypeError, match=r"^'epochs' is no argument of .*: image, mask, labels"):
        packing.pack("dsb2018", "train", size=(8, 8), data_dir=built_dsb2018, **wrong)


def test_a_part_of_no_fold_is_refused(built_dsb2018):
    with pytest.raises(ValueError, match=r"^part='held-out' is of a fold; give fold="):
        packing.pack("dsb2018", "train", size=(8, 8), part="held-out", data_dir=built_dsb2018)


def one_hot(image, mask, *_):
    return image, np.equal(mask, np.arange(2)).astype(np.float32)


def test_an_evaluation_takes_then_as_a_training_does(built_dsb2018):
    what = {"size": (16, 16), "batch": 5, "data_dir": built_dsb2018}
    plain = list(pipeline.eval_batches("dsb2018", "train", **what).as_numpy_iterator())
    data = pipeline.eval_batches("dsb2018", "train", then=one_hot, **what)
    train = pipeline.train_batches("dsb2018", "train", augment=None, seed=0, then=one_hot, **what)
    assert data.element_spec[1] == tf.TensorSpec((None, 16, 16, 2), tf.float32)
    for made, expected in zip(data.as_numpy_iterator(), plain, strict=True):
        for one, other in zip(made, one_hot(*expected), strict=True):
            np.testing.assert_array_equal(one, other)
    assert pipeline.steps_per_epoch("dsb2018", "train", **what) == len(train)
    shares = {"dsb2018/instances": 1, "dsb2018": 1}
    held = mixing.mix_eval_batches(
        shares, split="train", then=lambda *batch: (*one_hot(*batch), batch[2]), **what
    )
    image, classes, source = next(iter(held["dsb2018"]))
    np.testing.assert_array_equal(image, plain[0][0])
    np.testing.assert_array_equal(classes, one_hot(*plain[0])[1])
    assert source.tolist() == [1] * 5

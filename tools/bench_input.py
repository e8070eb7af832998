"""How fast batches come, beside what the field is used to and what memory allows.

    python tools/bench_input.py --data_dir DIR [--json FILE]

All rows are measured in one run, on one dataset, at one size and batch, all cores. Each is the
median of several windows after a warm-up, in rounds over all rows, so that what else the machine
does, and what the allocator has learned, meets all alike. "Of the limit" is the ratio to a gather
of the same rows, which copies the bytes once and does nothing else.
"""

import argparse
import collections
import importlib.util
import itertools
import json
import os
import pathlib
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from segdata import parallel, pipeline, records
from segdata.augment import Augment

FLIP_COLOUR = Augment(horizontal_flip=0.5, brightness_range=(-0.1, 0.1), contrast_range=(0.8, 1.25))
WARP_COLOUR = Augment(
    horizontal_flip=0.5,
    rotation_range=(-15, 15),
    scale_range=(0.8, 1.25),
    brightness_range=(-0.1, 0.1),
    contrast_range=(0.8, 1.25),
)
AUTOTUNE = tf.data.AUTOTUNE


def main() -> None:
    """Measures, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description="How fast batches come.")
    parser.add_argument("--name", default="dsb2018", help="a built dataset")
    parser.add_argument("--data_dir", help="where it was built")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 128), help="height and width")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--examples", type=int, default=4096, help="rows of the packed file")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a window")
    parser.add_argument("--rounds", type=int, default=5, help="times three windows a row")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file")
    asked = parser.parse_args()
    size, batch = tuple(asked.size), asked.batch
    with tempfile.TemporaryDirectory() as folder:
        packed = _repeated(asked, pathlib.Path(folder) / "bench.json")
        rows: dict[str, Callable[[], Iterator]] = {
            "copy limit: gather by index, nothing else": lambda: _gather(packed, batch),
            "packed, from RAM, no augmentation": lambda: _stream(packed, batch, None),
            "packed, from RAM, flip + colour": lambda: _stream(packed, batch, FLIP_COLOUR),
            "packed, from RAM, warp + colour": lambda: _stream(packed, batch, WARP_COLOUR),
            "tf.data, one by one, from RAM, flip + colour": lambda: _one_by_one(packed, batch),
            "tf.data, one by one, from files, flip + colour": lambda: _tutorial(asked, batch),
            "albumentations on threads, from RAM, flip + colour": lambda: _albumented(
                packed, batch
            ),
        }
        if not importlib.util.find_spec("albumentations"):
            print("left out: albumentations is not installed; pip install -e '.[bench]'")
            del rows["albumentations on threads, from RAM, flip + colour"]
        windows: dict[str, list[float]] = collections.defaultdict(list)
        for _ in range(asked.rounds):
            windows["packed, from disk (cold), no augmentation"].append(_cold(packed, batch))
            for name, make in rows.items():
                windows[name] += _rates(make(), batch, seconds=asked.seconds)
    rates = {name: statistics.median(measured) for name, measured in windows.items()}
    limit = rates["copy limit: gather by index, nothing else"]
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{asked.name}, {size[0]}×{size[1]}, batch {batch}, {packed.count} examples, {machine}")
    print(f"\n| pipeline | images/s | of the limit |\n|{'-' * 52}|---:|---:|")
    for name, rate in sorted(rates.items(), key=lambda item: -item[1]):
        print(f"| {name:50} | {rate:8,.0f} | {rate / limit:5.3f} |")
    if asked.json:
        figures = {"machine": machine, "size": size, "batch": batch, "images_per_second": rates}
        asked.json.write_text(json.dumps(figures, indent=1) + "\n")


def _repeated(asked: argparse.Namespace, path: pathlib.Path) -> records.Records:
    """The dataset's own records, repeated until no cache of the processor holds them."""
    size = tuple(asked.size)
    array = records.pack(asked.name, "train", size=size, data_dir=asked.data_dir).array()
    rows = itertools.islice(itertools.cycle(array), asked.examples)
    return records.write(path, rows, size=size, source={})


def _rates(batches: Iterator, batch: int, *, seconds: float, windows: int = 3) -> list[float]:
    """Images a second in each window."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:  # autotuning settles, compilation is done
        next(batches)
    rates = []
    for _ in range(windows):
        count, begun = 0, time.perf_counter()
        while (now := time.perf_counter()) - begun < seconds:
            next(batches)
            count += batch
        rates.append(count / (now - begun))
    return rates


def _cold(packed: records.Records, batch: int) -> float:
    """One epoch after the page cache has let go of the file."""
    with packed.path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    batches = _stream(packed, batch, None)
    begun = time.perf_counter()
    for _ in range(packed.count // batch):
        next(batches)
    return packed.count / (time.perf_counter() - begun)


def _stream(packed: records.Records, batch: int, augment: Augment | None) -> Iterator:
    return iter(pipeline.stream(packed, batch=batch, augment=augment, seed=0))


def _gather(packed: records.Records, batch: int) -> Iterator:
    """Batches of random rows from an array in RAM, copied once."""
    table = tf.constant(packed.array().view(np.uint32).reshape(packed.count, -1))
    data = tf.data.Dataset.range(2**62).map(
        lambda step: tf.gather(
            table,
            tf.random.stateless_uniform(
                [batch], [0, tf.cast(step, tf.int32)], 0, packed.count, tf.int32
            ),
        ),
        num_parallel_calls=AUTOTUNE,
    )
    return iter(data.prefetch(AUTOTUNE))


def _flip_colour(image: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The usual `map` function, as tutorials write it, on one example; floats in [0, 1]."""
    image = tf.cast(image, tf.float32) / 255
    if tf.random.uniform(()) > 0.5:
        image, mask = tf.image.flip_left_right(image), tf.image.flip_left_right(mask)
    image = tf.image.random_brightness(image, 0.1)
    image = tf.image.random_contrast(image, 0.8, 1.25)
    return tf.clip_by_value(image, 0, 1), mask


def _one_by_one(packed: records.Records, batch: int) -> Iterator:
    """The best that can be done example by example: already resized, in RAM, parallel."""
    array = tf.constant(packed.array())
    data = tf.data.Dataset.from_tensor_slices((array[..., :3], array[..., 3:]))
    data = data.repeat().shuffle(packed.count)
    data = data.map(_flip_colour, num_parallel_calls=AUTOTUNE)
    return iter(data.batch(batch).prefetch(AUTOTUNE))


def _tutorial(asked: argparse.Namespace, batch: int) -> Iterator:
    """`tfds.load` and a `map` that resizes and augments: every image decoded every epoch."""
    size = tuple(asked.size)

    def prepare(example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.cast(tf.image.resize(example["image"], size, antialias=True), tf.uint8)
        mask = tf.image.resize(example["mask"], size, method="nearest")
        return _flip_colour(image, mask)

    data = tfds.load(
        asked.name,
        split="train",
        data_dir=asked.data_dir,
        shuffle_files=True,
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    data = data.repeat().shuffle(256)
    data = data.map(prepare, num_parallel_calls=AUTOTUNE)
    return iter(data.batch(batch).prefetch(AUTOTUNE))


def _albumented(packed: records.Records, batch: int) -> Iterator:
    """What a PyTorch user writes, on threads: OpenCV lets go of the interpreter's lock."""
    import albumentations  # pyright: ignore[reportMissingImports] - an extra

    compose = albumentations.Compose(
        [
            albumentations.HorizontalFlip(p=0.5),
            albumentations.RandomBrightnessContrast((-0.1, 0.1), (-0.2, 0.25), p=1),
        ]
    )
    array = packed.array()
    rng = np.random.default_rng(0)

    def one(index: int) -> dict[str, np.ndarray]:
        row = array[index]
        return compose(image=np.ascontiguousarray(row[..., :3]), mask=row[..., 3])

    examples = parallel.ordered_map(
        one, (int(rng.integers(packed.count)) for _ in itertools.count())
    )
    while True:
        drawn = list(itertools.islice(examples, batch))
        yield np.stack([e["image"] for e in drawn]), np.stack([e["mask"] for e in drawn])


if __name__ == "__main__":
    main()

"""How fast batches come, beside the peers that the field uses and what memory allows.

    python tools/bench_input.py --data_dir DIR [--size H W] [--json FILE]

All rows are measured in one run, on one dataset, at one size and batch, on all cores, each in a
process of its own, so that no library holds another back. Each figure is the median of windows
after a warm-up, in rounds over all rows, so that what else the machine does meets all alike. "Of
the limit" is the ratio to a gather of the same rows into memory that is used again, which copies
the bytes once and does nothing else. The peers need `pip install -e '.[bench]'`; what is missing
is named.
"""

import argparse
import collections
import importlib.util
import itertools
import json
import multiprocessing
import os
import pathlib
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from segdata.core import records
from segdata.core.augment import Augment
from segdata.core.stream import Stream
from segdata.core.system import parallel

COLOUR: dict[str, Any] = {"brightness_range": (-0.1, 0.1), "contrast_range": (0.8, 1.25)}
WARP: dict[str, Any] = {"rotation_range": (-15, 15), "scale_range": (0.8, 1.25)}
KINDS = {
    "none": Augment(),
    "flip + colour": Augment(horizontal_flip=0.5, **COLOUR),
    "warp + colour": Augment(horizontal_flip=0.5, **WARP, **COLOUR),
    "everything": Augment(
        horizontal_flip=0.5,
        shift_range=(-0.1, 0.1),
        elastic_range=(0, 0.02),
        blur_range=(0, 1),
        saturation_range=(0.8, 1.25),
        hue_range=(-10, 10),
        noise_range=(0, 0.02),
        gamma_range=(0.8, 1.25),
        cutout=0.5,
        **WARP,
        **COLOUR,
    ),
}
_LIMIT = "copy limit"
_NEEDS = {
    "albumentations": ["albumentations"],
    "PyTorch DataLoader": ["torch", "albumentations"],
}

Make = Callable[[records.Records, argparse.Namespace, str], Iterator[Any]]


def main() -> None:
    """Measures, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description="How fast batches come.")
    parser.add_argument("--name", default="dsb2018", help="a built dataset")
    parser.add_argument("--data_dir", help="where it was built")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 128), help="height and width")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--megabytes", type=int, default=256, help="of packed records")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a window")
    parser.add_argument("--rounds", type=int, default=3, help="times three windows a row")
    parser.add_argument("--rows", nargs="*", help="only rows whose names hold one of these")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file")
    asked = parser.parse_args()
    missing = {
        peer: [name for name in needs if not importlib.util.find_spec(name)]
        for peer, needs in _NEEDS.items()
    }
    for peer, names in missing.items():
        if names:
            print(f"left out: {peer}; {', '.join(names)} not installed: pip install -e '.[bench]'")
    rows = [
        (whose, kind)
        for whose, (_, kinds) in _ROWS.items()
        for kind in kinds
        if not missing.get(whose)
        and (not asked.rows or any(part in f"{whose}, {kind}" for part in [_LIMIT, *asked.rows]))
    ]
    windows: dict[str, list[float]] = collections.defaultdict(list)
    firsts: dict[str, list[float]] = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        packed = _repeated(asked, pathlib.Path(folder) / "bench.json")
        for _ in range(asked.rounds):
            for whose, kind in rows:
                name = f"{whose}, {kind}"
                first, rates = _measured(packed, asked, whose, kind)
                firsts[name].append(first)
                windows[name] += rates
    rates = {name: statistics.median(measured) for name, measured in windows.items()}
    limit = rates[f"{_LIMIT}, none"]
    machine = f"{platform.processor() or platform.machine()}, {parallel.cores()} cores"
    print(f"{asked.name}, {asked.size[0]}×{asked.size[1]}, batch {asked.batch}, {machine}")
    print(f"\n| pipeline | images/s | of the limit | first batch, s |\n|{'-' * 44}|---:|---:|---:|")
    for name, rate in sorted(rates.items(), key=lambda item: -item[1]):
        first = statistics.median(firsts[name])
        print(f"| {name:42} | {rate:8,.0f} | {rate / limit:5.3f} | {first:.2f} |")
    if asked.json:
        figures = {
            "machine": machine,
            "size": asked.size,
            "batch": asked.batch,
            "images_per_second": rates,
            "first_batch_seconds": {n: statistics.median(f) for n, f in firsts.items()},
        }
        asked.json.write_text(json.dumps(figures, indent=1) + "\n")


def _repeated(asked: argparse.Namespace, path: pathlib.Path) -> records.Records:
    """The dataset's own records, repeated until no cache of the processor holds them."""
    from segdata import packing

    size = tuple(asked.size)
    array = packing.pack(asked.name, "train", size=size, data_dir=asked.data_dir).array()
    count = max(asked.batch, asked.megabytes * 10**6 // array[0].size)
    return records.write(
        path, itertools.islice(itertools.cycle(array), count), size=size, source={}
    )


def _measured(
    packed: records.Records, asked: argparse.Namespace, whose: str, kind: str
) -> tuple[float, list[float]]:
    """Seconds to the first batch, imports aside, and images a second in each window."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_measure, args=(packed, asked, whose, kind, queue))
    process.start()
    found = queue.get()
    process.join()
    return found


def _measure(
    packed: records.Records, asked: argparse.Namespace, whose: str, kind: str, queue: Any
) -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    make, _ = _ROWS[whose]
    batches = make(packed, asked, kind)
    begun = time.perf_counter()
    next(batches)
    first = time.perf_counter() - begun
    end = time.perf_counter() + asked.seconds
    while time.perf_counter() < end:  # autotuning settles, compilation is done
        next(batches)
    rates = []
    for _ in range(3):
        count, begun = 0, time.perf_counter()
        while (now := time.perf_counter()) - begun < asked.seconds:
            next(batches)
            count += asked.batch
        rates.append(count / (now - begun))
    queue.put((first, rates))
    queue.close()
    queue.join_thread()
    os._exit(0)  # workers of loaders would be waited for


def _stream(packed: records.Records, asked: argparse.Namespace, kind: str) -> Stream:
    return Stream(packed, batch=asked.batch, augment=KINDS[kind])


def _numpy(packed: records.Records, asked: argparse.Namespace, kind: str) -> Iterator[Any]:
    return _stream(packed, asked, kind).batches()


def _tf(packed: records.Records, asked: argparse.Namespace, kind: str) -> Iterator[Any]:
    from segdata.adapters import tf as adapter

    return iter(adapter.training(_stream(packed, asked, kind)))


def _xla(packed: records.Records, asked: argparse.Namespace, kind: str) -> Iterator[Any]:
    from segdata.adapters import tf as adapter

    return iter(adapter.training(_stream(packed, asked, kind), engine="xla"))


def _torch(packed: records.Records, asked: argparse.Namespace, kind: str) -> Iterator[Any]:
    from segdata.adapters import torch as adapter

    return iter(adapter.Batches(_stream(packed, asked, kind)))


def _jax(packed: records.Records, asked: argparse.Namespace, kind: str) -> Iterator[Any]:
    from segdata.adapters import jax as adapter

    return adapter.training(_stream(packed, asked, kind))


def _gather(packed: records.Records, asked: argparse.Namespace, kind: str) -> Iterator[Any]:
    """Batches of random rows, copied once, into as many buffers as are in flight."""
    words = packed.words().reshape(packed.count, -1)
    buffers = [
        np.empty((asked.batch, words.shape[1]), np.uint32) for _ in range(3 * parallel.cores() + 2)
    ]

    def copy(step: int) -> np.ndarray:
        rows = np.random.default_rng(step).integers(packed.count, size=asked.batch)
        return np.take(words, rows, axis=0, out=buffers[step % len(buffers)], mode="clip")

    return parallel.ordered_map(copy, range(2**40))


def _composed(kind: str) -> Any:
    """What a user of albumentations writes for the same."""
    import albumentations  # pyright: ignore[reportMissingImports] - an extra
    import cv2  # pyright: ignore[reportMissingImports] - an extra

    cv2.setNumThreads(0)  # as its guide says for workers and threads
    mirror = cv2.BORDER_REFLECT
    flip = albumentations.HorizontalFlip(p=0.5)
    colour = albumentations.RandomBrightnessContrast((-0.1, 0.1), (-0.2, 0.25), p=1)
    warp = albumentations.Affine(scale=(0.8, 1.25), rotate=(-15, 15), border_mode=mirror, p=1)
    steps = {
        "none": [],
        "flip + colour": [flip, colour],
        "warp + colour": [flip, warp, colour],
        "everything": [
            flip,
            albumentations.Affine(
                scale=(0.8, 1.25),
                rotate=(-15, 15),
                translate_percent=(-0.1, 0.1),
                border_mode=mirror,
                p=1,
            ),
            albumentations.ElasticTransform(
                alpha=30, sigma=10, approximate=True, border_mode=mirror, p=1
            ),
            albumentations.GaussianBlur(blur_limit=(3, 7), sigma_limit=(0.1, 1), p=1),
            albumentations.ColorJitter(
                brightness=(0.9, 1.1), contrast=(0.8, 1.25), saturation=(0.8, 1.25), hue=0.03, p=1
            ),
            albumentations.GaussNoise(std_range=(0.0, 0.02), p=1),
            albumentations.RandomGamma((80, 125), p=1),
            albumentations.CoarseDropout(num_holes_range=(1, 1), p=0.5),
        ],
    }[kind]
    return albumentations.Compose(steps)


class _Examples:
    """A map-style dataset of PyTorch over the packed records."""

    def __init__(self, packed: records.Records, kind: str):
        self.packed, self.kind = packed, kind
        self.array = self.compose = None

    def __len__(self) -> int:
        return self.packed.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if self.array is None or self.compose is None:  # in the worker
            self.array, self.compose = self.packed.array(), _composed(self.kind)
        row = self.array[index]
        image = np.ascontiguousarray(row[..., :3])
        mask = np.ascontiguousarray(row[..., 3])
        done = self.compose(image=image, mask=mask)
        return done["image"], done["mask"]


def _loader(packed: records.Records, asked: argparse.Namespace, kind: str) -> Iterator[Any]:
    """PyTorch's loader with a worker a core, as its tutorials set it up."""
    import torch

    data: Any = _Examples(packed, kind)
    loader = torch.utils.data.DataLoader(
        data,
        batch_size=asked.batch,
        shuffle=True,
        num_workers=parallel.cores(),
        persistent_workers=True,
        prefetch_factor=4,
        drop_last=True,
    )
    return itertools.chain.from_iterable(itertools.repeat(loader))


def _on_threads(packed: records.Records, asked: argparse.Namespace, kind: str) -> Iterator[Any]:
    """The same on threads, a batch each: OpenCV lets go of the interpreter's lock."""
    examples = _Examples(packed, kind)
    examples[0]

    def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.random.default_rng(step).integers(packed.count, size=asked.batch)
        images, masks = zip(*(examples[int(row)] for row in rows), strict=True)
        return np.stack(images), np.stack(masks)

    return parallel.ordered_map(batch, range(2**40))


def _flip_colour(image: Any, mask: Any) -> tuple[Any, Any]:
    """The usual `map` function, as tutorials write it, on one example; floats in [0, 1]."""
    import tensorflow as tf

    image = tf.cast(image, tf.float32) / 255
    if tf.random.uniform(()) > 0.5:
        image, mask = tf.image.flip_left_right(image), tf.image.flip_left_right(mask)
    image = tf.image.random_brightness(image, 0.1)
    image = tf.image.random_contrast(image, 0.8, 1.25)
    return tf.clip_by_value(image, 0, 1), mask


def _one_by_one(packed: records.Records, asked: argparse.Namespace, kind: str) -> Iterator[Any]:
    """The best that can be done example by example: already resized, in RAM, parallel."""
    import tensorflow as tf

    array = tf.constant(packed.array())
    data = tf.data.Dataset.from_tensor_slices((array[..., :3], array[..., 3:]))
    data = data.repeat().shuffle(packed.count)
    data = data.map(_flip_colour, num_parallel_calls=tf.data.AUTOTUNE)
    return iter(data.batch(asked.batch).prefetch(tf.data.AUTOTUNE))


def _tutorial(packed: records.Records, asked: argparse.Namespace, kind: str) -> Iterator[Any]:
    """`tfds.load` and a `map` that resizes and augments: every image decoded every epoch."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    import segdata.datasets  # noqa: F401 - registers the builders

    def prepare(example: dict[str, Any]) -> tuple[Any, Any]:
        size = tuple(asked.size)
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
    data = data.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    return iter(data.batch(asked.batch).prefetch(tf.data.AUTOTUNE))


_ROWS: dict[str, tuple[Make, tuple[str, ...]]] = {
    _LIMIT: (_gather, ("none",)),
    "segdata": (_numpy, tuple(KINDS)),
    "segdata through tf.data": (_tf, tuple(KINDS)),
    "segdata through PyTorch": (_torch, ("none", "warp + colour")),
    "segdata through JAX": (_jax, ("none", "warp + colour")),
    "segdata, XLA engine": (_xla, ("none", "flip + colour", "warp + colour")),
    "PyTorch DataLoader": (_loader, tuple(KINDS)),
    "albumentations": (_on_threads, tuple(KINDS)),
    "tf.data one by one": (_one_by_one, ("flip + colour",)),
    "tf.data from files": (_tutorial, ("flip + colour",)),
}

if __name__ == "__main__":
    main()

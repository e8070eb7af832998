"""Peers over the same arrays, already resized and in memory, as their guides set them up.

Each has as many threads or workers as there are cores. Where a library takes whole batches, it
gets whole batches: that is faster for all of them. Images uint8 [B, H, W, 3]; tf.data's are floats,
as its tutorials have them.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from jobs import Job

from segdata.core import records
from segdata.core.system import parallel


def composed(kind: str) -> Any:
    """The transform that a user of albumentations writes for a kind; None for no change."""
    import albumentations  # pyright: ignore[reportMissingImports] - an extra
    import cv2  # pyright: ignore[reportMissingImports] - an extra

    cv2.setNumThreads(0)  # as its guide says for workers and threads
    mirror = cv2.BORDER_REFLECT
    flip = albumentations.HorizontalFlip(p=0.5)
    colour = albumentations.RandomBrightnessContrast((-0.1, 0.1), (-0.2, 0.25), p=1)
    warp = albumentations.Affine(scale=(0.8, 1.25), rotate=(-15, 15), border_mode=mirror, p=1)
    everything = [
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
    ]
    steps = {
        "none": None,
        "flip + colour": [flip, colour],
        "warp + colour": [flip, warp, colour],
        "everything": everything,
    }[kind]
    return None if steps is None else albumentations.Compose(steps)


class Examples:
    """A map-style dataset over the packed records; other processes open the file anew."""

    def __init__(self, packed: records.Records, kind: str):
        self.packed, self.kind = packed, kind
        self._images = self._masks = self._transform = None

    def __reduce__(self) -> Any:
        """Opened when first used."""
        return Examples, (self.packed, self.kind)

    def __len__(self) -> int:
        return self.packed.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        images, masks = self.arrays()
        image, mask = images[index], masks[index]
        if self._transform is None:
            return image, mask
        done = self._transform(image=image, mask=mask)
        return done["image"], done["mask"]

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Several at once: a gather where nothing else happens to them."""
        images, masks = self.arrays()
        if self._transform is None:
            return images[rows], masks[rows]
        image, mask = zip(*(self[row] for row in rows), strict=True)
        return np.stack(image), np.stack(mask)

    def __getitems__(self, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """What PyTorch calls for a batch."""
        return self.batch(np.asarray(rows))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """All images and masks."""
        if self._images is None or self._masks is None:
            self._transform = composed(self.kind)
            array = self.packed.array()
            self._images = np.ascontiguousarray(array[..., :3])
            self._masks = np.ascontiguousarray(array[..., 3])
        return self._images, self._masks


def rows(job: Job) -> Iterator[np.ndarray]:
    """The rows of each batch, without end."""
    rng = np.random.default_rng(0)
    whole = job.packed.count // job.batch * job.batch
    while True:
        yield from rng.permutation(job.packed.count)[:whole].reshape(-1, job.batch)


def on_threads(job: Job) -> Iterator[Any]:
    """The same on threads, a batch each: OpenCV releases the interpreter's lock."""
    examples = Examples(job.packed, job.kind)
    examples[0]
    return parallel.ordered_map(examples.batch, rows(job))


def torch_loader(job: Job) -> Iterator[Any]:
    """PyTorch's loader with albumentations; each worker makes whole batches."""
    import torch

    def tensors(batch: Any) -> Any:
        return tuple(torch.from_numpy(part) for part in batch)

    data: Any = Examples(job.packed, job.kind)
    loader = torch.utils.data.DataLoader(
        data,
        batch_size=job.batch,
        shuffle=True,
        num_workers=parallel.cores(),
        persistent_workers=True,
        prefetch_factor=2,
        drop_last=True,
        collate_fn=tensors,
        multiprocessing_context="fork",
    )
    return itertools.chain.from_iterable(itertools.repeat(loader))


def spdl(job: Job) -> Iterator[Any]:
    """SPDL's pipeline with albumentations; threads that make whole batches."""
    from spdl.pipeline import PipelineBuilder  # pyright: ignore[reportMissingImports] - an extra

    examples = Examples(job.packed, job.kind)
    examples[0]
    cores = parallel.cores()
    builder = PipelineBuilder().add_source(rows(job)).pipe(examples.batch, concurrency=cores)
    return running(builder.add_sink(2 * cores).build(num_threads=cores))


def running(pipeline: Any) -> Iterator[Any]:
    """What a pipeline of SPDL yields, until nobody wants more."""
    with pipeline.auto_stop():
        yield from pipeline


def grain(job: Job) -> Iterator[Any]:
    """Grain with albumentations, on threads."""
    return iter(_grain_examples(job))


def grain_workers(job: Job) -> Iterator[Any]:
    """Grain with albumentations, in processes."""
    from absl import flags
    from grain import multiprocessing  # pyright: ignore[reportMissingImports] - an extra

    flags.FLAGS(["grain"])  # its workers read flags that a program of absl has parsed
    workers = multiprocessing.MultiprocessingOptions(
        num_workers=parallel.cores(), per_worker_buffer_size=2
    )
    return iter(_grain_examples(job).mp_prefetch(workers))


def _grain_examples(job: Job) -> Any:
    import grain  # pyright: ignore[reportMissingImports] - an extra

    data: Any = grain.MapDataset.source(Examples(job.packed, job.kind))
    data = data.shuffle(seed=0).repeat().batch(job.batch)
    threads = parallel.cores()
    return data.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4))


def dali(job: Job) -> Iterator[Any]:
    """NVIDIA DALI on the CPU; needs no driver. Outside of a warp its edge pixels repeat."""
    from nvidia.dali import fn, pipeline_def, types  # pyright: ignore[reportMissingImports]

    images, masks = Examples(job.packed, "none").arrays()
    height, width = images.shape[1:3]

    def chosen() -> Iterator[Any]:
        for index in rows(job):
            yield [images[row] for row in index], [masks[row][..., None] for row in index]

    @pipeline_def(
        batch_size=job.batch, num_threads=parallel.cores(), device_id=None, prefetch_queue_depth=2
    )
    def made() -> Any:
        image, mask = fn.external_source(chosen(), num_outputs=2, layout="HWC", no_copy=True)
        if job.kind == "none":
            return image, mask
        if job.kind == "flip + colour":
            coin = fn.random.coin_flip(probability=0.5)
            image, mask = fn.flip(image, horizontal=coin), fn.flip(mask, horizontal=coin)
        else:
            sign = fn.random.uniform(values=[-1.0, 1.0])
            zoom = fn.random.uniform(range=(0.8, 1.25))
            centre = [width / 2, height / 2]
            place = fn.transforms.scale(scale=fn.stack(sign * zoom, zoom), center=centre)
            angle = fn.random.uniform(range=(-15, 15))
            place = fn.transforms.rotation(place, angle=angle, center=centre)
            image = fn.warp_affine(image, matrix=place, interp_type=types.INTERP_LINEAR)
            mask = fn.warp_affine(mask, matrix=place, interp_type=types.INTERP_NN)
        image = fn.brightness_contrast(
            image,
            brightness_shift=fn.random.uniform(range=(-0.1, 0.1)),
            contrast=fn.random.uniform(range=(0.8, 1.25)),
        )
        return image, mask

    pipeline = made()
    pipeline.build()
    return iter(pipeline.run, None)


def tf_one_by_one(job: Job) -> Iterator[Any]:
    """tf.data in memory, a `map` over examples, as its tutorials write it."""
    import tensorflow as tf

    array = tf.constant(job.packed.array())
    data = tf.data.Dataset.from_tensor_slices((array[..., :3], array[..., 3:]))
    data = data.repeat().shuffle(job.packed.count)
    data = data.map(flip_colour, num_parallel_calls=tf.data.AUTOTUNE)
    return iter(data.batch(job.batch).prefetch(tf.data.AUTOTUNE))


def flip_colour(image: Any, mask: Any) -> tuple[Any, Any]:
    """The usual `map` function on one example; floats in [0, 1]."""
    import tensorflow as tf

    image = tf.cast(image, tf.float32) / 255
    if tf.random.uniform(()) > 0.5:
        image, mask = tf.image.flip_left_right(image), tf.image.flip_left_right(mask)
    image = tf.image.random_brightness(image, 0.1)
    image = tf.image.random_contrast(image, 0.8, 1.25)
    return tf.clip_by_value(image, 0, 1), mask


def tf_batched(job: Job) -> Iterator[Any]:
    """tf.data in memory, a gather and augmentation of whole batches."""
    import tensorflow as tf

    array = job.packed.array()
    images, masks = tf.constant(array[..., :3]), tf.constant(array[..., 3:])
    data = tf.data.Dataset.range(job.packed.count).repeat().shuffle(job.packed.count)
    data = data.batch(job.batch, drop_remainder=True)

    def batch(index: Any) -> tuple[Any, Any]:
        image, mask = tf.gather(images, index), tf.gather(masks, index)
        if job.kind == "none":
            return image, mask
        if job.kind == "flip + colour":
            coin = tf.random.uniform((job.batch, 1, 1, 1)) < 0.5
            image = tf.where(coin, tf.reverse(image, [2]), image)
            mask = tf.where(coin, tf.reverse(mask, [2]), mask)
        else:
            place = _transforms(job.batch, *array.shape[1:3])
            image, mask = (
                tf.raw_ops.ImageProjectiveTransformV3(
                    images=part,
                    transforms=place,
                    output_shape=array.shape[1:3],
                    fill_value=0.0,
                    interpolation=how,
                    fill_mode="REFLECT",
                )
                for part, how in ((image, "BILINEAR"), (mask, "NEAREST"))
            )
        image = tf.cast(image, tf.float32) / 255
        mean = tf.reduce_mean(image, (1, 2), keepdims=True)
        gain = tf.random.uniform((job.batch, 1, 1, 1), 0.8, 1.25)
        shift = tf.random.uniform((job.batch, 1, 1, 1), -0.1, 0.1)
        return tf.clip_by_value((image - mean) * gain + (mean + shift), 0, 1), mask

    data = data.map(batch, num_parallel_calls=tf.data.AUTOTUNE)
    return iter(data.prefetch(tf.data.AUTOTUNE))


def _transforms(batch: int, height: int, width: int) -> Any:
    """Flips, rotations and scales about the centre: float32 [B, 8]."""
    import tensorflow as tf

    angle = tf.random.uniform((batch,), -np.pi / 12, np.pi / 12)
    zoom = 1 / tf.random.uniform((batch,), 0.8, 1.25)
    sign = tf.where(tf.random.uniform((batch,)) < 0.5, -1.0, 1.0)
    a, b = tf.cos(angle) * zoom, tf.sin(angle) * zoom
    x, y, zero = (width - 1) / 2, (height - 1) / 2, tf.zeros(batch)
    across = [sign * a, -b, x - sign * a * x + b * y]
    down = [sign * b, a, y - sign * b * x - a * y]
    return tf.stack([*across, *down, zero, zero], axis=1)

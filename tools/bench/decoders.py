"""Peers that decode files in every epoch.

Of "crops" each reads a JPEG photograph of 1918×1280 and its PNG mask, and cuts the same random
512×512 from both.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import peers
from jobs import CROP, NATIVE, Job

from segdata.core.system import parallel


def tf_from_files(job: Job) -> Iterator[Any]:
    """`tfds.load` and a `map` that resizes and augments: every image decoded in every epoch."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    import segdata.datasets  # noqa: F401 - registers the builders

    def prepare(example: dict[str, Any]) -> tuple[Any, Any]:
        size = job.packed.size
        image = tf.cast(tf.image.resize(example["image"], size, antialias=True), tf.uint8)
        mask = tf.image.resize(example["mask"], size, method="nearest")
        return peers.flip_colour(image, mask)

    name, data_dir = job.dataset
    data = tfds.load(
        name,
        split="train",
        data_dir=data_dir,
        shuffle_files=True,
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    data = data.repeat().shuffle(256)
    data = data.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    return iter(data.batch(job.batch).prefetch(tf.data.AUTOTUNE))


def tf_crops(job: Job) -> Iterator[Any]:
    """tf.data: only the wanted part of a JPEG is decoded."""
    import tensorflow as tf

    jpegs, pngs = _paths(job)
    data = tf.data.Dataset.from_tensor_slices((jpegs, pngs)).repeat().shuffle(len(jpegs))

    def read(jpeg: Any, png: Any) -> tuple[Any, Any]:
        top = tf.random.uniform((), 0, NATIVE[0] - CROP[0] + 1, tf.int32)
        left = tf.random.uniform((), 0, NATIVE[1] - CROP[1] + 1, tf.int32)
        window = [top, left, *CROP]
        image = tf.image.decode_and_crop_jpeg(tf.io.read_file(jpeg), window, channels=3)
        mask = tf.io.decode_png(tf.io.read_file(png), channels=1)
        return image, tf.image.crop_to_bounding_box(mask, *window)

    data = data.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    return iter(data.batch(job.batch).prefetch(tf.data.AUTOTUNE))


def cv2_crops(job: Job) -> Iterator[Any]:
    """OpenCV on threads, which release the interpreter's lock."""
    import cv2  # pyright: ignore[reportMissingImports] - an extra

    cv2.setNumThreads(0)
    paths = list(zip(*_paths(job), strict=True))
    rng = np.random.default_rng(0)

    def read(row: int) -> tuple[np.ndarray, np.ndarray]:
        image: Any = cv2.imread(paths[row][0], cv2.IMREAD_COLOR_RGB)
        mask: Any = cv2.imread(paths[row][1], cv2.IMREAD_GRAYSCALE)
        top, left = (int(rng.integers(n - c + 1)) for n, c in zip(NATIVE, CROP, strict=True))
        window = slice(top, top + CROP[0]), slice(left, left + CROP[1])
        return image[window], mask[window]

    def batch(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        image, mask = zip(*map(read, index), strict=True)
        return np.stack(image), np.stack(mask)

    return parallel.ordered_map(batch, peers.rows(job))


def spdl_crops(job: Job) -> Iterator[Any]:
    """SPDL: decoded and cut by FFmpeg, on threads."""
    import spdl.io  # pyright: ignore[reportMissingImports] - an extra
    from spdl.pipeline import PipelineBuilder  # pyright: ignore[reportMissingImports] - an extra

    paths = list(zip(*_paths(job), strict=True))
    rng = np.random.default_rng(0)

    def read(path: str, window: str, pixels: str) -> Any:
        cut = spdl.io.get_video_filter_desc(filter_desc=window, pix_fmt=pixels)
        return spdl.io.decode_packets(spdl.io.demux_image(path), filter_desc=cut)

    def batch(index: np.ndarray) -> tuple[Any, Any]:
        images, masks = [], []
        for row in index:
            top, left = (int(rng.integers(n - c + 1)) for n, c in zip(NATIVE, CROP, strict=True))
            window = f"crop={CROP[1]}:{CROP[0]}:{left}:{top}"
            images.append(read(paths[row][0], window, "rgb24"))
            masks.append(read(paths[row][1], window, "gray"))
        return tuple(spdl.io.to_numpy(spdl.io.convert_frames(x)) for x in (images, masks))

    cores = parallel.cores()
    builder = PipelineBuilder().add_source(peers.rows(job)).pipe(batch, concurrency=cores)
    return peers.running(builder.add_sink(2 * cores).build(num_threads=cores))


def dali_crops(job: Job) -> Iterator[Any]:
    """DALI on the CPU: only the wanted part is decoded."""
    from nvidia.dali import fn, pipeline_def, types  # pyright: ignore[reportMissingImports]

    jpegs, pngs = _paths(job)

    @pipeline_def(
        batch_size=job.batch, num_threads=parallel.cores(), device_id=None, prefetch_queue_depth=2
    )
    def made() -> Any:
        seeds = {"random_shuffle": True, "seed": 1, "initial_fill": len(jpegs)}
        jpeg, _ = fn.readers.file(files=jpegs, **seeds)
        png, _ = fn.readers.file(files=pngs, **seeds)
        anchor = fn.random.uniform(range=(0.0, 1.0), shape=2)
        room = [n - c for n, c in zip(NATIVE, CROP, strict=True)]
        anchor = fn.cast(anchor * types.Constant(room), dtype=types.INT32)
        window = {"axes": (0, 1), "shape": list(CROP)}
        image = fn.decoders.image_slice(jpeg, start=anchor, output_type=types.RGB, **window)
        mask = fn.decoders.image_slice(png, start=anchor, output_type=types.GRAY, **window)
        return image, mask

    pipeline = made()
    pipeline.build()
    return iter(pipeline.run, None)


def _paths(job: Job) -> tuple[list[str], list[str]]:
    jpegs = sorted(map(str, job.files.glob("*.jpg")))
    return jpegs, [path.removesuffix("jpg") + "png" for path in jpegs]

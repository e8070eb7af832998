"""Builds one dataset one way, for `bench_build.py`, and prints what it took as JSON.

    python tools/build_once.py limit|segdata|plain NAME DRAWN_DIR DATA_DIR

"limit" builds nothing: it makes the calls of decoders and encoders alone. DRAWN_DIR holds the
archives, and in `unpacked` their files.
"""

import argparse
import io
import json
import multiprocessing
import os
import pathlib
import resource
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
from PIL import Image

from segdata.archives import images, trees
from segdata.core.system import parallel
from segdata.sources import carvana, cityscapes_pairs

CONFIGS = {
    "carvana": "carvana/default",
    "cityscapes_pairs": "cityscapes_pairs/road",
    "dsb2018": "dsb2018/default",
}


def main() -> None:
    """Measures one, prints it."""
    kinds = {"limit": _limit, "segdata": _segdata, "plain": _plain}
    parser = argparse.ArgumentParser(description="Builds one dataset one way, and measures it.")
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("name", choices=CONFIGS)
    parser.add_argument("drawn", type=pathlib.Path, help="the archives, and `unpacked`")
    parser.add_argument("data_dir", type=pathlib.Path, help="where it is built")
    given = parser.parse_args()
    figures = kinds[given.kind](given.name, given.drawn, given.data_dir)
    print(json.dumps(figures | {"peak_mib": _peak()}))


def _limit(name: str, drawn: pathlib.Path, _: pathlib.Path) -> dict[str, float]:
    """The decoder's and the encoder's calls alone, a process on each core."""
    work, items = {"carvana": _cars, "cityscapes_pairs": _streets, "dsb2018": _nuclei}[name](
        drawn / "unpacked"
    )
    cores = parallel.cores()
    parallel.tune_malloc()
    _todo[:] = [(work, item) for item in items]  # the processes inherit it
    with multiprocessing.get_context("fork").Pool(cores) as pool:
        pool.map(_share, [slice(0, cores)] * cores)  # all have begun
        parts = [slice(first, None, cores) for first in range(cores)]
        return _timed(lambda: sum(pool.map(_share, parts, chunksize=1)))


def _timed(run: Callable[[], float]) -> dict[str, float]:
    """Seconds that a run takes, and the share of all cores that other processes have meanwhile.

    Args:
        run: Does it, and tells the seconds of processor that it took in processes of its own.
    """
    before, begun = _processor(), time.perf_counter()
    apart = run()
    seconds = time.perf_counter() - begun
    (busy, own), cores = _processor(), parallel.cores()
    others = busy - before[0] - (own - before[1]) - apart
    return {"seconds": seconds, "others": max(0.0, others / seconds / cores)}


def _processor() -> tuple[float, float]:
    """Seconds of processor that all have had, and that this process has had."""
    spent = psutil.cpu_times()
    idle = spent.idle + getattr(spent, "iowait", 0)
    return sum(spent) - idle, time.process_time()


def _share(part: slice) -> float:
    begun = time.process_time()
    for work, item in _todo[part]:
        work(item)
    return time.process_time() - begun


Work = tuple[Callable[[Any], None], list[Any]]
_todo: list[tuple[Callable[[Any], None], Any]] = []


def _cars(folder: pathlib.Path) -> Work:
    mask = carvana._mask(next(folder.glob("train_masks/*.gif")).read_bytes(), "a mask")

    def work(pair: tuple[bytes, bytes]) -> None:
        photo = Image.open(io.BytesIO(pair[0]))
        photo.draft("RGB", (photo.width // 8, photo.height // 8))
        photo.load()
        Image.open(io.BytesIO(pair[1])).load()
        images.mask_png(mask)

    photos = sorted(folder.glob("train_hq/*.jpg"))
    gifs = (folder / "train_masks" / f"{photo.stem}_mask.gif" for photo in photos)
    return work, [
        (photo.read_bytes(), gif.read_bytes()) for photo, gif in zip(photos, gifs, strict=True)
    ]


def _streets(folder: pathlib.Path) -> Work:
    tree = trees.open(folder / cityscapes_pairs.FOLDER)
    first = cityscapes_pairs.read_example(tree, cityscapes_pairs.survey(tree)[0][0])
    photo = Image.open(io.BytesIO(first.image))
    photo.load()

    def work(data: bytes) -> None:
        Image.open(io.BytesIO(data)).load()
        image = Image.open(io.BytesIO(data))
        image.draft("YCbCr", image.size)
        image.load()
        images.png(photo, strategy=zlib.Z_RLE)
        images.mask_png(first.mask)

    return work, [path.read_bytes() for path in sorted(folder.glob("*/*/*.jpg"))]


def _nuclei(folder: pathlib.Path) -> Work:
    def work(data: tuple[bytes, list[bytes]]) -> None:
        image = Image.open(io.BytesIO(data[0])).convert("RGB")
        for mask in data[1]:
            Image.open(io.BytesIO(mask)).load()
        images.png(image)
        images.mask_png(np.zeros((image.height, image.width), np.uint8))

    return work, [
        (
            next(example.glob("images/*.png")).read_bytes(),
            [mask.read_bytes() for mask in example.glob("masks/*.png")],
        )
        for example in sorted(folder.iterdir())
    ]


def _segdata(name: str, drawn: pathlib.Path, data_dir: pathlib.Path) -> dict[str, float]:
    """`segdata build`, from the moment at which everything is imported."""
    from segdata import cli, console

    with console.quiet_start():
        import apache_beam  # noqa: F401 - the command of TFDS imports it, late
        import tensorflow  # noqa: F401

        import segdata.datasets  # noqa: F401
        from segdata.building import internals

        internals.build_command()

    start = {"start": _age(), "start_mib": _peak()}
    command = ["build", CONFIGS[name], "--manual_dir", str(drawn), "--data_dir", str(data_dir)]
    timed = _timed(lambda: cli.main(command))
    if not data_dir.exists():
        sys.exit(1)
    return timed | start


def _plain(name: str, drawn: pathlib.Path, data_dir: pathlib.Path) -> dict[str, float]:
    """What one writes with TFDS's guide at hand."""
    import tensorflow  # noqa: F401
    import tensorflow_datasets as tfds

    read = {"carvana": _plain_cars, "cityscapes_pairs": _plain_streets, "dsb2018": _plain_nuclei}

    class Plain(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> tfds.core.DatasetInfo:
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "mask": tfds.features.LabeledImage(labels=2, shape=(None, None, 1)),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {"train": self._generate_examples(drawn / "unpacked")}

        def _generate_examples(self, path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
            return read[name](path)

    start = {"start": _age(), "start_mib": _peak()}
    return _timed(lambda: Plain(data_dir=data_dir).download_and_prepare() or 0) | start


def _plain_cars(folder: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for photo in folder.glob("train_hq/*.jpg"):
        mask = Image.open(folder / "train_masks" / f"{photo.stem}_mask.gif").convert("L")
        is_car = (np.array(mask) > 127).astype(np.uint8)
        yield photo.stem, {"image": photo, "mask": is_car[..., None]}


def _plain_streets(folder: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for index, path in enumerate(folder.glob("*/*/*.jpg")):
        pixels = np.array(Image.open(path))
        photo, colours = np.split(pixels, 2, axis=1)
        away = np.linalg.norm(colours.astype(np.float32) - (128, 64, 128), axis=-1)
        yield str(index), {"image": photo, "mask": (away < 30).astype(np.uint8)[..., None]}


def _plain_nuclei(folder: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for example in folder.iterdir():
        image = np.array(Image.open(next(example.glob("images/*.png"))).convert("RGB"))
        mask = np.zeros(image.shape[:2], np.uint8)
        for path in example.glob("masks/*.png"):
            mask = np.maximum(mask, np.array(Image.open(path)))
        yield example.name, {"image": image, "mask": (mask > 0).astype(np.uint8)[..., None]}


def _age() -> float:
    """Seconds since this process began."""
    return time.time() - psutil.Process(os.getpid()).create_time()


def _peak() -> float:
    """The most memory that this process had resident, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


if __name__ == "__main__":
    main()

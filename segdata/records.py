"""Packed records: a dataset at its training size, as raw bytes.

A packed file is a TFRecord of records of one size: H·W·4 bytes, red, green, blue and class id of
each pixel in turn. Any TFRecord reader can stream it; and since record i starts at byte
i·(H·W·4+16)+12, the same file is a memory-mapped array. Beside it lies a manifest, written last:
what the file was made from, how many records it holds and its checksum.

Nothing here knows of batches, augmentation or training.
"""

import dataclasses
import io
import json
import os
import pathlib
import time
import urllib.parse
import zlib
from collections.abc import Iterable, Mapping

import numpy as np
import PIL.Image
import tensorflow as tf
import tensorflow_datasets as tfds
import tqdm

import segdata.datasets  # registers the builders
from segdata import parallel

_HEADER, _FOOTER = 12, 4  # TFRecord: length and its CRC before each record, the record's CRC after
_ABANDONED = 3600  # seconds since the last write after which a temporary file is nobody's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records:
    """An open packed file.

    Attributes:
        path: The TFRecord file.
        count: How many records it holds.
        size: Height and width of each, in pixels.
    """

    path: pathlib.Path
    count: int
    size: tuple[int, int]

    @property
    def stride(self) -> int:
        """Bytes from one record to the next."""
        return _stride(self.size)

    def array(self) -> np.ndarray:
        """All records, memory-mapped: uint8 [count, H, W, 4], read-only."""
        rows = np.memmap(self.path, np.uint8, "r", shape=(self.count, self.stride))
        return rows[:, _HEADER:-_FOOTER].reshape(self.count, *self.size, 4)

    def tensor(self) -> tf.Tensor:
        """The whole file, memory-mapped: uint32 [count, H·W+4], for `gather`.

        The operating system's page cache holds as much of it in RAM as fits and is the only copy.
        """
        return tf.raw_ops.ImmutableConst(
            dtype=tf.uint32,
            shape=[self.count, self.stride // 4],
            memory_region_name=os.fspath(self.path),
        )

    @property
    def lead(self) -> int:
        """Words before the pixels in each row of `tensor`."""
        return _HEADER // 4

    def pixels(self, rows: tf.Tensor) -> tf.Tensor:
        """Cuts rows of `tensor` to their pixels: uint8 [B, H, W, 4]."""
        words = rows[:, self.lead : -_FOOTER // 4]
        return tf.bitcast(tf.reshape(words, [-1, *self.size]), tf.uint8)


def pack(
    name: str,
    split: str,
    *,
    size: tuple[int, int],
    data_dir: str | os.PathLike[str] | None = None,
) -> Records:
    """Packs a split of a built dataset, or opens what was packed before.

    Images are resized by area-weighted bilinear interpolation (JPEGs are decoded at the smallest
    scale that still holds twice the size), masks by nearest neighbour. The file lies in `packed/`
    beside the dataset's own and goes with it. It is checked each time, and written anew where it
    is damaged or the dataset changed.

    Args:
        name: A TFDS name, with a config where wanted: `dsb2018`, `dsb2018/instances`.
        split: A TFDS split: `train`, `train[:80%]`.
        size: Height and width in pixels.
        data_dir: Where the dataset was built; TFDS's default where None.

    Raises:
        ValueError: If the dataset or the split is not there, or the size is not positive.
    """
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size={size!r} is not a height and a width in pixels, both at least 1.")
    builder = built(name, data_dir=data_dir)
    count = examples(builder, split)
    folder = pathlib.Path(builder.data_dir) / "packed"
    stem = f"{urllib.parse.quote(split, safe='')}-{size[0]}x{size[1]}"
    path = folder / f"{stem}.tfrecord"
    records = Records(path=path, count=count, size=size)
    source = {"dataset": builder.info.full_name, "split": split, "files": _stamp(builder)}
    if not _sound(records, source):
        decoded = parallel.ordered_map(
            lambda example: _row(example, size), tfds.as_numpy(_raw(builder, split))
        )
        rows = tqdm.tqdm(decoded, f"Packing {name} {stem}", count, unit=" images", leave=False)
        write(path, rows, size=size, source=source)
    return records


def write(
    path: pathlib.Path, rows: Iterable[np.ndarray], *, size: tuple[int, int], source: Mapping
) -> None:
    """Writes a packed file and its manifest, under their names only when whole.

    Args:
        path: The file; its folder is made.
        rows: uint8 [H, W, 4] each.
        size: H and W.
        source: What the rows were made from, kept in the manifest.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for partial in path.parent.glob(f".{path.name}.*"):
        if time.time() - partial.stat().st_mtime > _ABANDONED:
            partial.unlink(missing_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        count = 0
        with tf.io.TFRecordWriter(os.fspath(partial)) as writer:
            for row in rows:
                writer.write(row.tobytes())
                count += 1
        manifest = {**source, "count": count, "size": list(size), "crc32": _checksum(partial)}
        os.replace(partial, path)
        partial.write_text(json.dumps(manifest, indent=1))
        os.replace(partial, _manifest(path))
    finally:
        partial.unlink(missing_ok=True)


def built(name: str, *, data_dir: str | os.PathLike[str] | None = None):
    """The TFDS builder of a dataset that has been built.

    Raises:
        ValueError: If it has not.
    """
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, KeyError) as error:
        known = ", ".join(segdata.datasets.__all__)
        raise ValueError(f"{name!r} is not a dataset known here; there are {known}.") from error
    if not (builder.data_path / "dataset_info.json").exists():  # `is_prepared` would warn as well
        raise ValueError(
            f"{name} {builder.version} is not built in {builder.data_dir}. "
            f"Run `segdata build {name} --data_dir {data_dir or '~/tensorflow_datasets'}`."
        )
    return builder


def examples(builder, split: str) -> int:
    """How many examples a split has.

    Raises:
        ValueError: If the dataset has no such split, or it is empty.
    """
    splits = builder.info.splits
    try:
        count = splits[split].num_examples
    except (KeyError, ValueError) as error:  # also where a slice reaches beyond the last example
        known = ", ".join(f"{name} of {info.num_examples:,}" for name, info in splits.items())
        raise ValueError(
            f"{builder.info.full_name} has no split {split!r}; it has {known} examples."
        ) from error
    if not count:
        raise ValueError(f"split {split!r} of {builder.info.full_name} holds no examples.")
    return count


def _stride(size: tuple[int, int]) -> int:
    return size[0] * size[1] * 4 + _HEADER + _FOOTER


def _raw(builder, split: str) -> tf.data.Dataset:
    """Encoded images and masks, in the order of the dataset's files."""
    return builder.as_dataset(
        split=split,
        decoders={key: tfds.decode.SkipDecoding() for key in ("image", "mask")},
        read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
    )


def _row(example: Mapping[str, bytes], size: tuple[int, int]) -> np.ndarray:
    height, width = size
    row = np.empty((height, width, 4), np.uint8)
    with PIL.Image.open(io.BytesIO(example["image"])) as image:
        image.draft("RGB", (2 * width, 2 * height))
        resized = image.convert("RGB").resize((width, height), PIL.Image.Resampling.BILINEAR)
        row[..., :3] = np.asarray(resized)
    with PIL.Image.open(io.BytesIO(example["mask"])) as mask:
        row[..., 3] = np.asarray(mask.resize((width, height), PIL.Image.Resampling.NEAREST))
    return row


def _stamp(builder) -> dict[str, list[int]]:
    """Size and time of each file of the dataset: what changes when it is built again."""
    files = sorted(path for path in pathlib.Path(builder.data_dir).iterdir() if path.is_file())
    return {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in files}


def _manifest(path: pathlib.Path) -> pathlib.Path:
    return path.with_suffix(".json")


def _sound(records: Records, source: Mapping) -> bool:
    """Whether the file is there, whole, and made from this source.

    It is read once, at 3.4 GB/s from RAM, which also brings it there.
    """
    try:
        manifest = json.loads(_manifest(records.path).read_text())
        return (
            manifest
            == {
                **source,
                "count": records.count,
                "size": list(records.size),
                "crc32": _checksum(records.path),
            }
            and records.path.stat().st_size == records.count * records.stride
        )
    except (OSError, ValueError):
        return False


def _checksum(path: pathlib.Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum

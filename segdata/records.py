"""Packed records: a dataset at its training size, as raw bytes.

A packed file is a TFRecord of records of one size: H·W·4 bytes, red, green, blue and class id of
each pixel in turn. Any TFRecord reader can stream it; and since record i starts at byte
i·(H·W·4+16)+12, the same file is a memory-mapped array. Beside it lie the means of its channels
and, written last, a manifest: what it was made from and by which rule, how many records it holds
and their checksum. A packed file is never written to again: what is packed anew has another name.

Nothing here knows of batches, augmentation or training.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import secrets
import shlex
import sys
import urllib.parse
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
import tqdm
from PIL import features
from tensorflow.core.framework import attr_value_pb2

import segdata.datasets  # registers the builders
from segdata import arguments, console, files, images, parallel, resizing

_HEADER, _FOOTER = 12, 4  # TFRecord: length and its CRC before each record, the record's CRC after
_LONGEST_SPLIT = 100  # characters in a file's name
_MEANS = 24  # bytes of an example's: three float64, little-endian
_RULE = {  # what pixels depend on besides their dataset; with another rule a file is packed anew
    "format": 1,
    "resizing": 2,  # 1 was bilinear, from a rounded box, and nearest for masks
    "jpeg": features.version("libjpeg_turbo")
    or features.version("jpg"),  # decoders have changed how they enlarge colours
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records:
    """An open packed file, which stays on disk for as long as this is kept.

    Attributes:
        path: The TFRecord file.
        count: How many records it holds.
        size: Height and width of each, in pixels.
        checksum: CRC-32 of all records, the pixels and then the means of each.
    """

    path: pathlib.Path
    count: int
    size: tuple[int, int]
    checksum: int

    @property
    def stride(self) -> int:
        """Bytes from one record to the next."""
        return self.size[0] * self.size[1] * 4 + _HEADER + _FOOTER

    @property
    def means_path(self) -> pathlib.Path:
        """The file of each channel's mean over each example: float64 [count, 3]."""
        return self.path.with_suffix(".means")

    def array(self) -> np.ndarray:
        """All records, memory-mapped: uint8 [count, H, W, 4], read-only."""
        rows = np.memmap(self.path, np.uint8, "r", shape=(self.count, self.stride))
        return rows[:, _HEADER:-_FOOTER].reshape(self.count, *self.size, 4)

    def table(self) -> tf.Tensor:
        """The whole file, memory-mapped: uint32 [count, H·W+4], for `gather` in a graph.

        The graph holds the file's name, not its bytes. The operating system's page cache holds as
        much of it in RAM as fits and is the only copy.
        """
        return _mapped(self.path, tf.uint32, [self.count, self.stride // 4])

    def means(self) -> tf.Tensor:
        """Each channel's mean over each example, memory-mapped: float64 [count, 3]."""
        return _mapped(self.means_path, tf.float64, [self.count, 3])

    @property
    def lead(self) -> int:
        """Words before the pixels in each row of `table`."""
        return _HEADER // 4

    def pixels(self, rows: tf.Tensor) -> tf.Tensor:
        """Cuts rows of `table` to their pixels: uint8 [B, H, W, 4]."""
        words = rows[:, self.lead : -_FOOTER // 4]
        return tf.bitcast(tf.reshape(words, [-1, *self.size]), tf.uint8)

    def verify(self) -> None:
        """Reads the file once and compares it with its checksum, at 3.4 GB/s from RAM.

        Raises:
            OSError: If they differ, or it cannot be read.
        """
        means = np.memmap(self.means_path, np.uint8, "r", shape=(self.count, _MEANS))
        checksum = 0
        for row, mean in zip(self.array(), means, strict=True):
            checksum = zlib.crc32(mean, zlib.crc32(row, checksum))
        if checksum != self.checksum:
            raise OSError(f"{self.path} is damaged: delete it, and it is packed again.")


def pack(
    name: str,
    split: str,
    *,
    size: tuple[int, int],
    data_dir: str | os.PathLike[str] | None = None,
) -> Records:
    """Packs a split of a built dataset, or opens what was packed before.

    Images are resized by area (JPEGs are decoded at the smallest scale that still holds twice the
    size), masks to the class that covers most of a pixel. The file lies in `packed/` beside the
    dataset's own and goes with it, where a copy keeps the times of files. It is checked where it is
    not known to have been, and written anew where it is damaged, or where the dataset or the rule
    of packing changed. Of two processes one packs and the other waits for it.

    Args:
        name: A TFDS name, with a config where wanted: `dsb2018`, `dsb2018/instances`.
        split: A TFDS split: `train`, `train[:80%]`.
        size: Height and width in pixels.
        data_dir: Where the dataset was built; TFDS's default where None.

    Raises:
        ValueError: If the dataset or the split is not there, or the size is not positive.
        OSError: If it cannot be written.
    """
    size = arguments.size(size)
    builder = built(name, data_dir=data_dir)
    files.require_utf8(builder.data_dir)
    count = examples(builder, split)
    stem = _stem(split, size)
    manifest = pathlib.Path(builder.data_dir, "packed", f"{stem}.json")
    what = f"{name} {split} at {size[0]}×{size[1]}"
    source = {"dataset": builder.info.full_name, "split": split, "files": _stamp(builder)}
    if records := opened(manifest, size=size, count=count, source=source):
        _remove_unused(manifest)
        return records
    place = manifest.parent if manifest.parent.exists() else manifest.parent.parent
    if not os.access(place, os.W_OK):
        raise PermissionError(
            f"{place} may not be written to, and {split} is not packed there at "
            f"{size[0]}×{size[1]} yet. Have its owner pack it, or copy the dataset."
        )
    files.make_folder(manifest.parent)
    with files.locked(
        manifest.with_suffix(".lock"),
        waiting=lambda holder: tqdm.tqdm.write(
            console.printable(f"Waiting for {holder}, which packs {what}."), file=sys.stderr
        ),
    ):
        if records := opened(manifest, size=size, count=count, source=source):
            return records
        decoded = parallel.ordered_map(
            lambda example: _row(example, size), tfds.as_numpy(_raw(builder, split))
        )
        rows = tqdm.tqdm(decoded, f"Packing {what}", count, unit=" images", leave=False)
        records = write(manifest, rows, size=size, source=source)
    if records.count != count:
        raise OSError(f"{builder.data_dir}: {split} holds {records.count:,} of {count:,} examples.")
    return records


def opened(
    manifest: pathlib.Path, *, size: tuple[int, int], count: int, source: Mapping[str, Any]
) -> Records | None:
    """Opens a packed file that is whole, has as many records, and was made from this by this rule.

    It is read only where its size, its time or its place on the disk are others than when it was
    written or last read.

    Returns:
        None where there is none.
    """
    try:
        noted = json.loads(manifest.read_text())
        token, checksum, seen = (noted.pop(key) for key in ("token", "crc32", "seen"))
        if noted != {**_RULE, **source, "count": count, "size": list(size)}:
            return None
        records = Records(path=_path(manifest, token), count=count, size=size, checksum=checksum)
        _use(records)
        now = _seen(records)
        if [now[0][0], now[1][0]] != [count * records.stride, count * _MEANS]:
            return None
        if now != seen:
            records.verify()
            with contextlib.suppress(OSError):  # where it may not be written, it is read each time
                _write_manifest(manifest, token, records, source)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None  # a manifest may hold anything
    return records


def write(
    manifest: pathlib.Path,
    rows: Iterable[np.ndarray],
    *,
    size: tuple[int, int],
    source: Mapping[str, Any],
) -> Records:
    """Writes a packed file and its manifest, under their names only when whole.

    Args:
        manifest: `NAME.json`, in a folder that is there. What was packed there before is removed
            when nobody uses it.
        rows: uint8 [H, W, 4] each.
        size: H and W.
        source: What the rows were made from, kept in the manifest.

    Returns:
        The file, open.

    Raises:
        OSError: If there is no room, or the folder may not be written to.
    """
    files.remove_unfinished(manifest.parent)
    _remove_unused(manifest)  # first: a full disk needs the room
    token = secrets.token_hex(4)
    records = Records(path=_path(manifest, token), count=0, size=size, checksum=0)
    try:
        with files.replacing(records.path) as path, files.replacing(records.means_path) as means:
            count, checksum = _write_rows(rows, path, means, size=size)
            records = dataclasses.replace(records, count=count, checksum=checksum)
            if path.stat().st_size != count * records.stride:
                raise OSError(f"{path} does not hold what was written to it; is there room?")
        _use(records)
        _write_manifest(manifest, token, records, source)
    except (tf.errors.OpError, OSError) as error:
        for path in (records.path, records.means_path):
            path.unlink(missing_ok=True)
        raise OSError(f"{manifest.parent}: {manifest.stem} cannot be packed: {error}") from error
    return records


def built(name: str, *, data_dir: str | os.PathLike[str] | None = None):
    """The TFDS builder of a dataset that has been built.

    Raises:
        ValueError: If it has not.
    """
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, KeyError, AssertionError) as error:
        known = ", ".join(segdata.datasets.__all__)
        raise ValueError(f"{name!r} is not a dataset known here; there are {known}.") from error
    except Exception as error:  # parsers of JSON and protocol buffers have many
        raise ValueError(
            f"{name} in {data_dir or 'the default data_dir'} cannot be opened: {error}. If its "
            "files are damaged, build it again with --overwrite."
        ) from error
    # It is not known where nothing is built yet.
    if (kept := builder.info.file_format) not in (None, tfds.core.FileFormat.TFRECORD):
        raise ValueError(
            f"{name} in {builder.data_dir} is kept as {kept.value}, which this reads from TFRecord "
            "only; build it with --file_format tfrecord."
        )
    if not (builder.data_path / "dataset_info.json").exists():  # `is_prepared` would warn as well
        raise ValueError(
            f"{name} {builder.version} is not built in {builder.data_dir}. "
            f"Run `segdata build {name} --data_dir {_quoted(data_dir)}`."
        )
    return builder


def _quoted(data_dir: str | os.PathLike[str] | None) -> str:
    return shlex.quote(os.fspath(data_dir)) if data_dir else "~/tensorflow_datasets"


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


def _raw(builder, split: str) -> tf.data.Dataset:
    """Encoded images and masks, in the order of the dataset's files."""
    return builder.as_dataset(
        split=split,
        decoders={key: tfds.decode.SkipDecoding() for key in ("image", "mask")},
        read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
    )


def _row(example: Mapping[str, bytes], size: tuple[int, int]) -> np.ndarray:
    name = example["id"].decode(errors="replace")
    row = np.empty((*size, 4), np.uint8)
    with images.opened(example["image"], name=f"the image of {name}") as image:
        row[..., :3] = images.at_size(image, size)
    with images.opened(example["mask"], name=f"the mask of {name}", kinds=["PNG"]) as mask:
        classes = images.classes(mask)
    row[..., 3] = resizing.mask(classes, size)
    return row


def _write_rows(
    rows: Iterable[np.ndarray], path: pathlib.Path, means: pathlib.Path, *, size: tuple[int, int]
) -> tuple[int, int]:
    """Writes records and their means; returns their number and checksum, of what was meant."""
    count, checksum = 0, 0
    with tf.io.TFRecordWriter(os.fspath(path)) as writer, means.open("wb") as means_file:
        for row in rows:
            data = row.tobytes()
            totals = row[..., :3].sum(axis=(0, 1), dtype=np.int64)
            mean = (totals / (size[0] * size[1])).astype("<f8").tobytes()
            writer.write(data)
            means_file.write(mean)
            checksum = zlib.crc32(mean, zlib.crc32(data, checksum))
            count += 1
    return count, checksum


def _mapped(path: pathlib.Path, dtype: tf.DType, shape: list[int]) -> tf.Tensor:
    """A file as a tensor, memory-mapped at each step that uses it."""
    tensor = tf.raw_ops.ImmutableConst(
        dtype=dtype, shape=shape, memory_region_name=os.fspath(path.absolute())
    )
    if not tf.executing_eagerly():
        # Else TensorFlow 2.21 takes it for a constant and copies all of it to memory, once for each
        # iterator: it leaves alone what has this attribute, which by itself does nothing.
        leave = attr_value_pb2.AttrValue(list=attr_value_pb2.AttrValue.ListValue())
        tensor.op._set_attr("_scoped_allocator", leave)
    return tensor


def _stamp(builder) -> dict[str, list[int]]:
    """Size and time of each of the dataset's own files: what changes when it is built again."""
    folder = pathlib.Path(builder.data_dir)
    paths = [folder / name for name in ("dataset_info.json", "features.json", "metadata.json")]
    for split in builder.info.splits.values():
        paths += map(pathlib.Path, split.filepaths)
    return {
        path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in paths if path.exists()
    }


def _stem(split: str, size: tuple[int, int]) -> str:
    """What files of a split and a size are called; a digest stands for the rest of a long split."""
    quoted = urllib.parse.quote(split, safe="")
    if len(quoted) > _LONGEST_SPLIT:
        digest = hashlib.sha256(split.encode()).hexdigest()[:16]
        quoted = f"{quoted[:_LONGEST_SPLIT]}-{digest}"
    return f"{quoted}-{size[0]}x{size[1]}"


def _path(manifest: pathlib.Path, token: str) -> pathlib.Path:
    if not re.fullmatch("[0-9a-f]{8}", token):
        raise ValueError(f"{manifest}: token={token!r} is not eight hexadecimal digits.")
    return manifest.with_name(f"{manifest.stem}-{token}.tfrecord")


def _use(records: Records) -> None:
    for path in (records.path, records.means_path):
        files.use(path, owner=records)


def _seen(records: Records) -> list[list[int]]:
    """What changes where somebody writes to the files: size, time and place on the disk of each."""
    found = [path.stat() for path in (records.path, records.means_path)]
    return [[stat.st_size, stat.st_mtime_ns, stat.st_ino] for stat in found]


def _write_manifest(
    manifest: pathlib.Path, token: str, records: Records, source: Mapping[str, Any]
) -> None:
    noted = {
        **_RULE,
        **source,
        "count": records.count,
        "size": list(records.size),
        "token": token,
        "crc32": records.checksum,
        "seen": _seen(records),
    }
    with files.replacing(manifest) as path:
        path.write_text(json.dumps(noted, indent=1))


def _remove_unused(manifest: pathlib.Path) -> None:
    """Removes what was packed under this name before, but for what a process uses."""
    own = re.compile(re.escape(manifest.stem) + r"(-[0-9a-f]{8})?[.](tfrecord|means)")
    for path in manifest.parent.iterdir():
        if own.fullmatch(path.name):
            files.remove_unused(path)

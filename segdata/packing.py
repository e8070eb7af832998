"""Packing: a split of a built dataset to records of one size, once.

What records are is known to `core.records`; the files lie beside the dataset's own.
"""

import hashlib
import os
import pathlib
import shlex
import sys
import urllib.parse
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
import tqdm
from PIL import features

import segdata.datasets  # registers the builders
from segdata import console
from segdata.archives import images, resizing
from segdata.core.records import Records, opened, remove_unused, write
from segdata.core.system import arguments, files, parallel

_LONGEST_SPLIT = 100  # characters in a file's name
_RULE = {  # what pixels depend on besides their dataset; with another rule a file is packed anew
    "resizing": 2,  # 1 was bilinear, from a rounded box, and nearest for masks
    "jpeg": features.version("libjpeg_turbo")
    or features.version("jpg"),  # decoders have changed how they enlarge colours
}


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
    source = {
        **_RULE,
        "dataset": builder.info.full_name,
        "split": split,
        "files": _stamp(builder),
    }
    if records := opened(manifest, size=size, count=count, source=source):
        remove_unused(manifest)
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

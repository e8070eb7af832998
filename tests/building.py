"""What the tests of builders share: a build, and the files that it left."""

import json
import os
import pathlib
from typing import Any

import tensorflow_datasets as tfds

import segdata.datasets  # noqa: F401 - registers the builders


def build(
    config: str,
    manual_dir: pathlib.Path,
    data_dir: pathlib.Path,
    *,
    file_format: str = "tfrecord",
    **options: Any,
) -> Any:
    """The builder of a dataset that it has built."""
    built = tfds.builder(config, data_dir=data_dir, file_format=file_format)
    built.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=manual_dir, **options)
    )
    return built


def files(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file's bytes by name, without the name that the builder's module was loaded under.

    What has been packed for batches is no part of the dataset.
    """
    found = {}
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "packed"]
        for name in names:
            path = pathlib.Path(parent, name)
            data = path.read_bytes()
            if name == "dataset_info.json":
                info = json.loads(data)
                assert info.pop("moduleName").endswith(f"{info['name']}_dataset_builder")
                data = json.dumps(info).encode()
            found[path.relative_to(folder).as_posix()] = data
    return found

import io
import pathlib
import shutil
import tempfile
import zipfile
from typing import Any

import numpy as np
import pytest
import reading
import tensorflow_datasets as tfds
from PIL import Image

import segdata.datasets  # noqa: F401 - registers the builder
from segdata.archives import trees
from segdata.datasets.cityscapes_pairs import cityscapes_pairs_dataset_builder
from segdata.kaggle import doctor
from segdata.sources import cityscapes_pairs
from segdata.testing import layouts


def build(config: str, manual_dir: pathlib.Path, data_dir: pathlib.Path) -> Any:
    built = tfds.builder(config, data_dir=data_dir)
    built.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual_dir))
    return built.info


class CityscapesPairsTest(tfds.testing.DatasetBuilderTestCase):
    """TFDS's own checks, on a drawn source."""

    DATASET_CLASS = cityscapes_pairs_dataset_builder.Builder
    SPLITS = {"train": 6, "validation": 1}  # noqa: RUF012

    @classmethod
    def setUpClass(cls):
        drawn = tempfile.TemporaryDirectory()
        cls.addClassCleanup(drawn.cleanup)
        cityscapes_pairs.draw(drawn.name, examples=7, seed=3, write=layouts.folders)
        cls.EXAMPLE_DIR = drawn.name
        super().setUpClass()


@pytest.mark.parametrize("config", ["road", "classes"])
def test_what_was_drawn_is_what_is_loaded(tmp_path, drawn_cityscapes_pairs, config):
    info = build(f"cityscapes_pairs/{config}", drawn_cityscapes_pairs, tmp_path)
    tree = trees.open(drawn_cityscapes_pairs / "cityscapes-image-pairs.zip")
    drawn = {example.id: example for example in reading.streets(tree, config)}
    sizes = {}
    for split, folder in (("train", "train"), ("validation", "val")):
        data = tfds.load(
            f"cityscapes_pairs/{config}",
            split=split,
            data_dir=tmp_path,
            download=False,
            read_config=tfds.ReadConfig(try_autocache=False),
        )
        for example in tfds.as_numpy(data):
            key = example["id"].decode()
            assert key.startswith(f"{folder}/")
            assert example["group"].decode() == key
            expected = drawn[key]
            np.testing.assert_array_equal(
                example["image"], np.asarray(Image.open(io.BytesIO(expected.image)))
            )
            np.testing.assert_array_equal(example["mask"][..., 0], expected.mask)
            sizes[split] = sizes.get(split, 0) + 1
    assert sizes == {"train": 12, "validation": 2}
    names = info.features["mask"].names
    assert list(info.metadata["palette"]) == [name for name in names if name != "other"]


def test_the_default_is_the_road():
    builder: Any = tfds.builder("cityscapes_pairs")
    assert builder.builder_config.name == "road"


@pytest.mark.parametrize("name", cityscapes_pairs.DOWNLOADS)
@pytest.mark.parametrize("doubled", ["", "cityscapes_data/"])
def test_either_name_and_a_doubled_folder_build_the_same(tmp_path, name, doubled):
    def write(folder, _, files):
        inner = ((name, f"{doubled}{path}", data) for _, path, data in files)
        layouts.zips(folder, [name], inner)

    cityscapes_pairs.draw(tmp_path / "plain", examples=2, seed=1)
    cityscapes_pairs.draw(tmp_path / "other", examples=2, seed=1, write=write)
    records = []
    for place in ("plain", "other"):
        build("cityscapes_pairs", tmp_path / place, tmp_path / f"{place} data")
        built = sorted((tmp_path / f"{place} data").rglob("*.tfrecord*"))
        records.append([path.read_bytes() for path in built])
    assert records[0] == records[1]


@pytest.mark.parametrize("place", [".", "cityscapes_pairs"])
def test_the_two_folders_build_the_same_without_one_around(tmp_path, drawn_cityscapes_pairs, place):
    bare = tmp_path / "bare" / place
    with zipfile.ZipFile(drawn_cityscapes_pairs / "cityscapes-image-pairs.zip") as archive:
        archive.extractall(tmp_path / "apart")
    shutil.copytree(tmp_path / "apart" / cityscapes_pairs.FOLDER, bare)
    build("cityscapes_pairs", drawn_cityscapes_pairs, tmp_path / "zip data")
    build("cityscapes_pairs", tmp_path / "bare", tmp_path / "bare data")
    records = [
        [path.read_bytes() for path in sorted((tmp_path / data).rglob("*.tfrecord*"))]
        for data in ("zip data", "bare data")
    ]
    assert records[0] == records[1]
    assert len(records[0]) == 2
    findings = doctor.examine("cityscapes_pairs", tmp_path / "bare")
    assert all(finding.is_well for finding in findings)

import functools
import io
import pathlib
import tempfile

import numpy as np
import pytest
import reading
import tensorflow_datasets as tfds
from PIL import Image

import segdata.datasets  # noqa: F401 - registers the builder
from segdata import cli
from segdata.archives import trees
from segdata.datasets.carvana import carvana_dataset_builder
from segdata.sources import carvana
from segdata.testing import layouts

SMALL = (64, 96)


def build(config: str, manual_dir: pathlib.Path, data_dir: pathlib.Path) -> tfds.core.DatasetInfo:
    built = tfds.builder(config, data_dir=data_dir)
    built.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual_dir))
    return built.info


def examples(config: str, data_dir: pathlib.Path, split: str) -> dict[str, dict]:
    data = tfds.load(
        config,
        split=split,
        data_dir=data_dir,
        download=False,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    return {example["id"].decode(): example for example in tfds.as_numpy(data)}


class CarvanaTest(tfds.testing.DatasetBuilderTestCase):
    """TFDS's own checks, on a drawn source with all archives."""

    DATASET_CLASS = carvana_dataset_builder.Builder
    SPLITS = {"train": 4, "validation": 2}  # noqa: RUF012
    BUILDER_CONFIG_NAMES_TO_TEST = ["default", "lowres"]  # noqa: RUF012

    @classmethod
    def setUpClass(cls):
        drawn = tempfile.TemporaryDirectory()
        cls.addClassCleanup(drawn.cleanup)
        draw = functools.partial(carvana.draw, examples=6, seed=3, size=SMALL, views=2)
        draw(drawn.name, write=layouts.folders)
        with tempfile.TemporaryDirectory() as other:
            draw(other, quality="low", write=layouts.folders)
            pathlib.Path(other, "train").rename(pathlib.Path(drawn.name, "train"))
        cls.EXAMPLE_DIR = drawn.name
        super().setUpClass()


class CarvanaWithTestTest(tfds.testing.DatasetBuilderTestCase):
    """The same of the configuration that has one split more."""

    DATASET_CLASS = carvana_dataset_builder.Builder
    SPLITS = {"train": 4, "validation": 2, "test": 1}  # noqa: RUF012
    BUILDER_CONFIG_NAMES_TO_TEST = ["with_test"]  # noqa: RUF012

    @classmethod
    def setUpClass(cls):
        drawn = tempfile.TemporaryDirectory()
        cls.addClassCleanup(drawn.cleanup)
        carvana.draw(drawn.name, examples=6, unlabelled=1, seed=3, size=SMALL, views=2)
        cls.EXAMPLE_DIR = drawn.name
        super().setUpClass()


def test_what_was_drawn_is_what_is_loaded(tmp_path, drawn_carvana):
    build("carvana/with_test", drawn_carvana, tmp_path)
    loaded = examples("carvana/with_test", tmp_path, "train+validation")
    photos, labels = (
        trees.open(drawn_carvana / f"{name}.zip") for name in ("train_hq", "train_masks")
    )
    source = list(reading.cars(photos, labels))
    assert sorted(loaded) == [drawn.id for drawn in source]
    for drawn in source:
        found = loaded[drawn.id]
        assert found["image"] == photos.read(f"train_hq/{drawn.id}.jpg")
        assert found["group"].decode() == drawn.id[:12]
        np.testing.assert_array_equal(found["mask"][..., 0], drawn.mask)
    test = examples("carvana/with_test", tmp_path, "test")
    assert len(test) == 2
    assert all((example["mask"] == 255).all() for example in test.values())


def test_the_views_of_a_car_are_in_one_split_in_every_configuration(tmp_path):
    draw = functools.partial(carvana.draw, tmp_path / "manual", examples=33, seed=4, size=SMALL)
    draw(views=3, unlabelled=1)
    with tempfile.TemporaryDirectory() as other:
        carvana.draw(other, examples=33, seed=4, size=SMALL, views=3, quality="low")
        pathlib.Path(other, "train.zip").rename(tmp_path / "manual" / "train.zip")
    found = []
    for config in ("default", "lowres", "with_test"):
        build(f"carvana/{config}", tmp_path / "manual", tmp_path / "data")
        train, validation = (
            sorted(examples(f"carvana/{config}", tmp_path / "data", split))
            for split in ("train", "validation")
        )
        assert not {key[:12] for key in train} & {key[:12] for key in validation}
        assert len(train) == 30
        assert len(validation) == 3
        found.append((train, validation))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("place", [".", "carvana"])
def test_zips_in_a_zip_and_folders_build_the_same(tmp_path, place):
    ways = {
        "zips": layouts.zips,
        "folders": layouts.folders,
        "whole": functools.partial(layouts.zip_of_zips, name=carvana.COMPETITION),
    }
    records = []
    for way, write in ways.items():
        folder = tmp_path / way / place
        carvana.draw(folder, examples=4, seed=4, size=SMALL, views=2, write=write)
        build("carvana", tmp_path / way, tmp_path / f"{way} data")
        built = sorted((tmp_path / f"{way} data").rglob("*.tfrecord*"))
        records.append([path.read_bytes() for path in built])
    assert records[0] == records[1] == records[2]
    assert len(records[0]) == 2


def test_only_what_a_configuration_needs_is_asked_for(tmp_path, drawn_carvana):
    with pytest.raises(FileNotFoundError, match=r", train\.zip"):
        build("carvana/lowres", drawn_carvana, tmp_path / "data")
    carvana.draw(tmp_path / "manual", examples=2, seed=4, size=SMALL, views=1)
    build("carvana", tmp_path / "manual", tmp_path / "data")
    with pytest.raises(FileNotFoundError, match=r", test_hq\.zip"):
        build("carvana/with_test", tmp_path / "manual", tmp_path / "data")


@pytest.mark.parametrize("asked", [["carvana/lowres"], ["carvana", "--config", "lowres"]])
def test_a_configuration_with_archives_of_its_own_is_built_when_asked_for(tmp_path, asked):
    draw = functools.partial(carvana.draw, examples=2, seed=4, size=SMALL, views=1)
    draw(tmp_path / "high")
    draw(tmp_path / "low", quality="low")
    paths = ["--data_dir", str(tmp_path / "data"), "--manual_dir"]
    assert cli.main(["build", "carvana", *paths, str(tmp_path / "high")]) == 0
    assert (tmp_path / "data" / "carvana" / "default").is_dir()
    assert not (tmp_path / "data" / "carvana" / "lowres").exists()
    assert cli.main(["build", *asked, *paths, str(tmp_path / "low")]) == 0
    assert (tmp_path / "data" / "carvana" / "lowres" / "1.0.0").is_dir()


def test_a_photo_that_was_turned_is_in_the_metadata(tmp_path):
    carvana.draw(
        tmp_path / "manual", examples=2, seed=4, size=SMALL, views=1, write=layouts.folders
    )
    photo, _ = sorted((tmp_path / "manual" / "train_hq").iterdir())
    image, exif = Image.open(io.BytesIO(photo.read_bytes())), Image.Exif()
    exif[0x0112] = 3
    image.save(photo, "JPEG", exif=exif.tobytes())
    info = build("carvana", tmp_path / "manual", tmp_path / "data")
    assert info.metadata == {"renewed": {photo.stem: "EXIF orientation 3"}, "skipped": {}}


def test_one_car_makes_a_dataset_without_validation(tmp_path):
    carvana.draw(tmp_path / "manual", examples=2, seed=4, size=SMALL)
    info = build("carvana", tmp_path / "manual", tmp_path / "data")
    assert list(info.splits) == ["train"]

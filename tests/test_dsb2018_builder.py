import io
import pathlib
import tempfile
import zipfile

import numpy as np
import pytest
import reading
import tensorflow_datasets as tfds
from building import files
from PIL import Image

import segdata.datasets  # noqa: F401 - registers the builder
from segdata import archives
from segdata.archives import masks, trees
from segdata.datasets.dsb2018 import dsb2018_dataset_builder
from segdata.sources import dsb2018

ROOT = pathlib.Path(__file__).parents[1]


def examples(data_dir: pathlib.Path, split: str, config: str = "default") -> dict[str, dict]:
    data = tfds.load(
        f"dsb2018/{config}",
        split=split,
        data_dir=data_dir,
        download=False,
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    return {example["id"].decode(): example for example in tfds.as_numpy(data)}


def build(manual_dir: pathlib.Path, data_dir: pathlib.Path, config: str = "default") -> None:
    tfds.builder(f"dsb2018/{config}", data_dir=data_dir).download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
    )


class Dsb2018Test(tfds.testing.DatasetBuilderTestCase):
    """TFDS's own checks, on a drawn source."""

    DATASET_CLASS = dsb2018_dataset_builder.Builder
    SPLITS = {"train": 10, "validation": 2, "test": 1}  # noqa: RUF012

    @classmethod
    def setUpClass(cls):
        drawn = tempfile.TemporaryDirectory()
        cls.addClassCleanup(drawn.cleanup)
        dsb2018.draw(drawn.name, examples=12, seed=3, unlabelled=1)
        cls.EXAMPLE_DIR = drawn.name
        super().setUpClass()


def test_what_was_drawn_is_what_is_loaded(built_dsb2018, drawn_dsb2018):
    loaded = examples(built_dsb2018, "train+validation", "instances")
    source = list(reading.nuclei(trees.open(drawn_dsb2018 / "stage1_train.zip")))
    assert sorted(loaded) == [drawn.id for drawn in source]
    for drawn in source:
        found = loaded[drawn.id]
        image = np.asarray(Image.open(io.BytesIO(drawn.image)))
        np.testing.assert_array_equal(found["image"], image)
        np.testing.assert_array_equal(found["mask"][..., 0], drawn.mask)
        assert found["instances"].dtype == np.uint16
        np.testing.assert_array_equal(found["instances"][..., 0], drawn.instances)


def test_the_default_has_the_same_images_and_masks_without_instances(built_dsb2018):
    plain = examples(built_dsb2018, "validation")
    full = examples(built_dsb2018, "validation", "instances")
    assert list(plain) == list(full)
    for key, example in plain.items():
        assert set(example) == {"image", "mask", "id", "group"}
        np.testing.assert_array_equal(example["mask"], full[key]["mask"])


def test_where_nuclei_touch_the_borders_have_a_class(built_borders, built_dsb2018):
    seen = 0
    for split in ("train", "validation", "test"):
        found = examples(built_borders, split, "borders")
        full = examples(built_dsb2018, split, "instances")
        assert list(found) == list(full)
        for key, example in found.items():
            mask, plain = example["mask"][..., 0], full[key]["mask"][..., 0]
            np.testing.assert_array_equal(example["image"], full[key]["image"])
            np.testing.assert_array_equal(example["instances"], full[key]["instances"])
            np.testing.assert_array_equal(np.where(mask == 2, 1, mask), plain)
            touching = masks.borders(full[key]["instances"][..., 0], reach=2)
            np.testing.assert_array_equal(mask == 2, touching)
            seen += np.count_nonzero(touching)
    assert seen > 100


def test_borders_are_built_when_they_are_asked_for():
    usual = [config.name for config in dsb2018_dataset_builder.Builder.BUILDER_CONFIGS]
    assert usual == ["default", "instances"]


def test_splits_share_no_group_and_validation_has_every_look(built_dsb2018):
    train, validation = (examples(built_dsb2018, split) for split in ("train", "validation"))
    groups = [{example["group"] for example in part.values()} for part in (train, validation)]
    assert not groups[0] & groups[1]
    assert len(train) > 4 * len(validation) > 0
    assert {example["image"].mean() > 100 for example in validation.values()} == {True, False}


def test_the_test_split_is_unknown_everywhere(built_dsb2018):
    test = examples(built_dsb2018, "test", "instances")
    assert len(test) == 2
    for example in test.values():
        assert (example["mask"] == 255).all()
        assert not example["instances"].any()


def test_near_duplicates_share_a_group_and_a_split(tmp_path):
    dsb2018.draw(tmp_path / "manual", examples=6, seed=2)
    train = tmp_path / "manual" / "stage1_train"
    original = sorted(path.name for path in train.iterdir())[0]
    copy = original[::-1]
    for path in sorted(train.glob(f"{original}/*/*.png")):
        target = train / copy / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    build(tmp_path / "manual", tmp_path / "data")
    parts = [examples(tmp_path / "data", split) for split in ("train", "validation")]
    (part,) = [part for part in parts if original in part]
    assert part[original]["group"] == part[copy]["group"]
    assert len({example["group"] for example in (parts[0] | parts[1]).values()}) == 6


def test_overlap_is_counted_in_the_metadata(tmp_path):
    dsb2018.draw(tmp_path / "manual", examples=3, seed=2)
    mask = sorted((tmp_path / "manual").glob("stage1_train/*/masks/*.png"))[0]
    (mask.parent / "again.png").write_bytes(mask.read_bytes())
    build(tmp_path / "manual", tmp_path / "data")
    metadata = tfds.builder("dsb2018", data_dir=tmp_path / "data").info.metadata
    pixels = np.count_nonzero(np.asarray(Image.open(mask)))
    assert metadata == {"overlap": {mask.parents[1].name: pixels}, "skipped": {}}


def test_one_example_makes_a_dataset_without_validation(tmp_path):
    dsb2018.draw(tmp_path / "manual", examples=1, seed=2)
    build(tmp_path / "manual", tmp_path / "data")
    assert list(tfds.builder("dsb2018", data_dir=tmp_path / "data").info.splits) == ["train"]


@pytest.mark.parametrize("place", [".", "dsb2018"])
def test_the_whole_competition_in_one_zip_builds_the_same(
    tmp_path, place, drawn_dsb2018, built_dsb2018
):
    (tmp_path / "manual" / place).mkdir(parents=True)
    whole = tmp_path / "manual" / place / "data-science-bowl-2018.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        for name in ("stage1_train.zip", "stage1_test.zip"):
            archive.write(drawn_dsb2018 / name, name)
    build(tmp_path / "manual", tmp_path / "data")
    assert files(tmp_path / "data" / "dsb2018" / "default") == files(
        built_dsb2018 / "dsb2018" / "default"
    )


def test_a_source_that_is_missing_is_explained(tmp_path):
    for content in ([], ["readme.txt"]):
        for name in content:
            (tmp_path / "manual").mkdir()
            (tmp_path / "manual" / name).write_text("nothing of use")
        with pytest.raises(FileNotFoundError, match=r"stage1_train\.zip(.|\n)*Accept the rules"):
            build(tmp_path / "manual", tmp_path / "data")
    assert not list((tmp_path / "data").glob("dsb2018/default/1.0.0"))


def test_a_fault_in_an_example_names_it_and_leaves_no_dataset(tmp_path):
    dsb2018.draw(tmp_path / "manual", examples=3, seed=2)
    mask = sorted((tmp_path / "manual").glob("stage1_train/*/masks/*.png"))[0]
    mask.write_bytes(b"no png")
    with pytest.raises(archives.ArchiveError, match=f"{mask.name} is no picture"):
        build(tmp_path / "manual", tmp_path / "data")
    assert not list((tmp_path / "data").glob("dsb2018/default/1.0.0"))

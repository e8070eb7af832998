"""Several classes from the built dataset to the written mask, through the commands."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from segdata.sources.cityscapes_pairs import CLASSES
from unet import cli, runs

FLAGS = [
    *("--recipe", "unet-batchnorm", "--dataset", "cityscapes_pairs/classes"),
    *("--output_activation", "softmax", "--filters", "4", "8"),
    *("--size", "16", "16", "--batch", "4", "--epochs", "1"),
]


@pytest.fixture(scope="module")
def data_dir(drawn_cityscapes_pairs, tmp_path_factory) -> pathlib.Path:
    import tensorflow_datasets as tfds

    import segdata.datasets  # noqa: F401 - registers the builder

    folder = tmp_path_factory.mktemp("built")
    tfds.builder("cityscapes_pairs/classes", data_dir=folder).download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=drawn_cityscapes_pairs)
    )
    return folder


@pytest.mark.heavy
def test_classes_are_trained_scored_predicted_and_shown(data_dir, tmp_path, capsys):
    run, flags = tmp_path / "run", [*FLAGS, "--data_dir", str(data_dir)]
    channels = ["--output_channels", str(len(CLASSES))]
    assert cli.main(["train", *flags, *channels, "--out", str(run)]) == 0
    assert runs.settings(run).classes == CLASSES
    assert all(name in (run / "report.html").read_text() for name in CLASSES)

    capsys.readouterr()
    assert cli.main(["evaluate", str(run), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {*scores["classes"]} == {*CLASSES}
    assert scores["images"] == 2
    assert 0 <= scores["dataset_iou"] <= scores["dataset_dice"] < 1

    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "street.png")
    assert cli.main(["predict", str(run), str(tmp_path / "street.png"), "--to", str(tmp_path)]) == 0
    with Image.open(tmp_path / "street.mask.png") as mask:
        assert (mask.size, mask.mode) == ((30, 20), "L")
        assert np.asarray(mask).max() < len(CLASSES)


def test_another_number_of_classes_than_the_dataset_has_is_refused(data_dir, tmp_path, capsys):
    flags = [*FLAGS, "--data_dir", str(data_dir), "--out", str(tmp_path / "run")]
    assert cli.main(["train", *flags, "--output_channels", "3"]) == 2
    assert f"has {len(CLASSES)} classes; give --output_channels" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

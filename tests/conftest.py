"""What several test modules share: a small drawn source, and a dataset built from it."""

import os
import pathlib

import pytest

from segdata.sources import carvana, cityscapes_pairs, dsb2018


@pytest.fixture(autouse=True)
def no_credentials(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """A home without Kaggle credentials: nobody's account is used by a test."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for variable in [*os.environ]:
        if variable.startswith("KAGGLE_") or variable == "XDG_CONFIG_HOME":
            monkeypatch.delenv(variable)
    return home


@pytest.fixture(scope="session")
def real_dsb2018() -> pathlib.Path:
    """The manual dir that holds part of the real stage1_train.zip."""
    folder = pathlib.Path(__file__).parents[2] / "shared" / "data" / "dsb2018"
    if not (folder / "stage1_train.zip").exists():
        pytest.skip(f"the real images are not here: {folder / 'stage1_train.zip'}")
    return folder


@pytest.fixture(scope="session")
def drawn_dsb2018(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A manual dir with 24 drawn examples in stage1_train.zip and two in stage1_test.zip."""
    folder = tmp_path_factory.mktemp("drawn") / "manual"
    dsb2018.draw_zips(folder, examples=24, seed=1, unlabelled=2)
    return folder


@pytest.fixture(scope="session")
def built_dsb2018(
    drawn_dsb2018: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    """A TFDS data dir with both configurations of dsb2018, built from the drawn examples."""
    data_dir = tmp_path_factory.mktemp("built")
    import tensorflow_datasets as tfds

    import segdata.datasets  # noqa: F401 - registers the builder

    for config in ("default", "instances"):
        builder = tfds.builder(f"dsb2018/{config}", data_dir=data_dir)
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=drawn_dsb2018)
        )
    return data_dir


@pytest.fixture(scope="session")
def built_borders(
    drawn_dsb2018: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    """A TFDS data dir with dsb2018/borders alone, built from the same drawn examples."""
    from building import build

    data_dir = tmp_path_factory.mktemp("borders")
    build("dsb2018/borders", drawn_dsb2018, data_dir)
    return data_dir


@pytest.fixture(scope="session")
def drawn_carvana(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A manual dir with 3 cars of 4 views in train_hq.zip and train_masks.zip; 2 in test_hq.zip."""
    folder = tmp_path_factory.mktemp("drawn") / "manual"
    carvana.draw(folder, examples=12, seed=1, unlabelled=2, size=(96, 144), views=4)
    return folder


@pytest.fixture(scope="session")
def drawn_cityscapes_pairs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A manual dir with 14 drawn pairs, two of them in `val`, in cityscapes-image-pairs.zip."""
    folder = tmp_path_factory.mktemp("drawn") / "manual"
    cityscapes_pairs.draw(folder, examples=14, seed=1)
    return folder


@pytest.fixture(scope="session")
def built_datasets(
    manual_dirs: dict[str, pathlib.Path], tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    """A TFDS data dir with nuclei, cars, and streets of all classes."""
    from building import build

    data_dir = tmp_path_factory.mktemp("mixed")
    for name in ("dsb2018", "carvana", "cityscapes_pairs/classes"):
        build(name, manual_dirs[name.partition("/")[0]], data_dir)
    return data_dir


@pytest.fixture(scope="session")
def manual_dirs(
    drawn_carvana: pathlib.Path, drawn_cityscapes_pairs: pathlib.Path, drawn_dsb2018: pathlib.Path
) -> dict[str, pathlib.Path]:
    """The drawn manual dir of each dataset."""
    return {
        "carvana": drawn_carvana,
        "cityscapes_pairs": drawn_cityscapes_pairs,
        "dsb2018": drawn_dsb2018,
    }


@pytest.fixture(scope="session")
def built_foreign(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A TFDS data dir with the datasets of `foreign`, which nothing of segdata builds."""
    import foreign

    data_dir = tmp_path_factory.mktemp("foreign")
    foreign.build(data_dir)
    return data_dir


@pytest.fixture
def loud_seeds(monkeypatch):
    """Setting seeds prints what TensorFlow prints when it is loaded, as on JAX."""
    import keras

    real = keras.utils.set_random_seed

    def loud(seed):
        os.write(2, b"I0000 00:00 cudart_stub.cc:31] Could not find cuda drivers\n")
        real(seed)

    monkeypatch.setattr(keras.utils, "set_random_seed", loud)

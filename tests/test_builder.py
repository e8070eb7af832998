"""What holds of every builder; what is particular to one is tested with it."""

import os
import pathlib
import pickle
import resource
import shutil
import subprocess
import sys
import threading
import zipfile
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from building import build, files

import segdata.datasets  # noqa: F401 - registers the builders
from segdata import cli
from segdata.archives import ArchiveError
from segdata.building import shards
from segdata.inspection import examples
from segdata.sources import carvana, dsb2018
from segdata.testing import damage

ROOT = pathlib.Path(__file__).parents[1]
NAMES = ["carvana", "cityscapes_pairs", "dsb2018"]
CONFIGS = [
    *("carvana", "carvana/lowres", "carvana/with_test"),
    *("cityscapes_pairs", "cityscapes_pairs/classes"),
    *("dsb2018", "dsb2018/instances"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_dataset_larger_than_a_few_shards_has_some_and_they_are_the_same_again(
    tmp_path, manual_dirs, name, monkeypatch
):
    monkeypatch.setattr(shards, "_SMALLEST", 8_000)
    for place in "ab":
        built = build(name, manual_dirs[name], tmp_path / place)
        assert built.info.splits["train"].num_shards > 1
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_number_of_shards_that_is_asked_for_is_kept(tmp_path, manual_dirs):
    built = build("carvana", manual_dirs["carvana"], tmp_path, num_shards=3)
    assert built.info.splits["train"].num_shards == 3


def test_shards_hold_8_mib_or_more_and_an_example_at_least():
    mib = 1 << 20
    assert shards.number(15, size=mib, asked=None) == 1
    assert shards.number(33, size=mib, asked=None) == 4
    assert shards.number(3, size=11 * mib, asked=None) == 2
    assert shards.number(33, size=mib, asked=7) == 7
    assert shards.number(1 << 20, size=mib, asked=None) == 1024


@pytest.mark.parametrize("name", NAMES)
def test_an_archive_that_is_missing_is_explained_in_three_lines(tmp_path, name):
    (tmp_path / "manual").mkdir()
    (tmp_path / "manual" / "readme.txt").write_text("nothing of use")
    with pytest.raises(FileNotFoundError) as caught:
        build(name, tmp_path / "manual", tmp_path / "data")
    what, how, then = str(caught.value).splitlines()
    assert what.startswith(f"{tmp_path / 'manual'}: {name} is built from ")
    assert ".zip" in what
    assert "kaggle.com/settings" in how
    assert f"segdata fetch {name}" in then
    assert not list((tmp_path / "data").glob(f"{name}/*/1.0.0"))


@pytest.fixture(scope="module")
def low_quality(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A manual dir with 3 cars of 2 views in train.zip and train_masks.zip."""
    folder = tmp_path_factory.mktemp("low")
    carvana.draw(folder, examples=6, seed=1, size=(96, 144), views=2, quality="low")
    return folder


@pytest.mark.parametrize("config", CONFIGS)
def test_python_readers_see_what_tensorflow_sees(tmp_path, manual_dirs, low_quality, config):
    """Every split, every feature, in the same order."""
    name, _, variant = config.partition("/")
    folder = low_quality if variant == "lowres" else manual_dirs[name]
    one = build(config, folder, tmp_path / "tf")
    other = build(config, folder, tmp_path / "python", file_format="array_record")
    read = tfds.ReadConfig(try_autocache=False)
    assert one.info.splits.keys() == other.info.splits.keys() >= {"train", "validation"}
    for split in one.info.splits:
        expected = list(tfds.as_numpy(one.as_dataset(split=split, read_config=read)))
        found = other.as_data_source(split=split)
        assert len(expected) == len(found) > 0
        for ours, theirs in zip(expected, found, strict=True):
            assert ours.keys() == theirs.keys()
            for feature, value in ours.items():
                np.testing.assert_array_equal(value, theirs[feature], feature)


@pytest.mark.parametrize("name", NAMES)
def test_a_dataset_says_what_it_is_where_it_is_from_and_how_to_cite_it(name):
    pages: Any = tfds.builder_cls(name).get_metadata()
    assert "https://" in pages.description
    assert pages.citation.count("@") >= 1
    assert pages.tags
    info: Any = tfds.builder(name).info
    assert info.description.startswith(pages.description[:40])
    assert info.citation.startswith("@")
    assert info.homepage.startswith("https://www.kaggle.com/")
    assert info.redistribution_info.license


@pytest.mark.parametrize("name", NAMES)
def test_a_built_dataset_is_read_without_this_package(tmp_path, manual_dirs, name):
    built: Any = build(name, manual_dirs[name], tmp_path)
    assert "segdata" not in (pathlib.Path(built.data_dir) / "features.json").read_text()
    plain: Any = tfds.builder_from_directory(built.data_dir)
    assert plain.info.splits["train"].num_examples == built.info.splits["train"].num_examples
    read = tfds.ReadConfig(try_autocache=False)
    for ours, theirs in zip(
        tfds.as_numpy(built.as_dataset(split="train", read_config=read)),
        tfds.as_numpy(plain.as_dataset(split="train", read_config=read)),
        strict=True,
    ):
        assert ours["image"].shape == theirs["image"].shape
        np.testing.assert_array_equal(ours["mask"], theirs["mask"])


@pytest.mark.heavy
@pytest.mark.parametrize("name", NAMES)
def test_every_way_to_build_makes_the_same_files_in_any_process(tmp_path, manual_dirs, name):
    tfds_command = [sys.executable, "-m", "tensorflow_datasets.scripts.cli.main", "build"]
    commands = {
        "folder": [*tfds_command, str(ROOT / "segdata" / "datasets" / name)],
        "imports": [*tfds_command, name, "--imports", "segdata.datasets"],
        "segdata": [sys.executable, "-c", "import segdata.cli as c; c.main()", "build", name],
    }
    for way, command in commands.items():
        paths = ["--manual_dir", str(manual_dirs[name]), "--data_dir", str(tmp_path / way)]
        subprocess.run([*command, *paths], check=True, capture_output=True, cwd=ROOT)
    first, *others = (files(tmp_path / way) for way in commands)
    assert any(".tfrecord-" in file for file in first)
    for other in others:
        assert other == first


def kept(data_dir: pathlib.Path, name: str) -> dict[str, tuple[bytes, bytes]]:
    """Image and mask of every example, encoded, by id."""
    decoders = {key: tfds.decode.SkipDecoding() for key in ("image", "mask")}
    built: Any = tfds.builder(name, data_dir=data_dir)
    read = tfds.ReadConfig(try_autocache=False)
    return {
        example["id"].decode(): (example["image"], example["mask"])
        for split in built.info.splits
        for example in tfds.as_numpy(
            built.as_dataset(split=split, decoders=decoders, read_config=read)
        )
    }


@pytest.fixture
def damaged(tmp_path, manual_dirs):
    """A copy of a drawn manual dir with two kinds of damage in it; its folder and what is lost."""

    def inflict(name: str, *kinds: str) -> tuple[pathlib.Path, list[str]]:
        folder = tmp_path / "damaged"
        shutil.copytree(manual_dirs[name], folder)
        return folder, [damage.inflict(kind, folder, source=name, seed=1) for kind in kinds]

    return inflict


@pytest.mark.parametrize("name", NAMES)
def test_the_first_damaged_example_ends_a_build_and_leaves_nothing(tmp_path, damaged, name):
    folder, (victim,) = damaged(name, "cut")
    with pytest.raises(ArchiveError, match=pathlib.PurePath(victim).stem):
        build(name, folder, tmp_path / "data")
    left = [path.name for path in (tmp_path / "data" / name).rglob("*") if path.is_file()]
    assert left == ["metadata.json"]  # of TFDS, about configurations


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A manual dir with 3 drawn examples."""
    folder = tmp_path_factory.mktemp("nuclei")
    dsb2018.draw_zips(folder, examples=3, seed=1)
    return folder


@pytest.mark.parametrize(("limit", "file_format"), [(20, "tfrecord"), (30_000, "array_record")])
def test_a_full_disk_is_one_line_and_leaves_nothing_and_with_room_it_is_built(
    tmp_path, nuclei, capsys, limit, file_format
):
    command = ["build", "dsb2018", "--manual_dir", str(nuclei)]
    command += ["--data_dir", str(tmp_path), "--file_format", file_format]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))  # Python ignores SIGXFSZ
    try:
        code = cli.main(command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    place = tmp_path / "dsb2018" / "default" / "1.0.0"
    assert f"segdata build: error: {place} cannot be built: File too large. Make room" in line
    left = [path.name for path in (tmp_path / "dsb2018").rglob("*") if path.is_file()]
    assert left == (["metadata.json"] if limit > 1000 else [])
    assert list((tmp_path / "dsb2018").glob("default/*")) == []
    assert cli.main(command) == 0
    assert (place / "dataset_info.json").exists()


BUILD = """
import os, sys
from segdata import cli
from segdata.building import builder
write = builder.SourceBuilder.write
def slow(*args):
    print("building", flush=True)
    sys.stdin.readline()
    return write(*args)
builder.SourceBuilder.write = slow
sys.exit(cli.main())
"""


@pytest.mark.heavy
def test_of_two_builds_of_a_dataset_at_once_the_second_waits_and_finds_it(tmp_path, nuclei, capsys):
    paths = ["--manual_dir", str(nuclei), "--data_dir", str(tmp_path)]
    command = [sys.executable, "-c", BUILD, "build", "dsb2018", *paths]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as first:
        assert first.stdout is not None
        while "building" not in first.stdout.readline():
            assert first.poll() is None
        assert cli.main(["build", "dsb2018", *paths, "--config", "instances"]) == 0  # another one
        (begun,) = (tmp_path / "dsb2018" / "default").glob("incomplete.*")
        second = tfds.builder("dsb2018", data_dir=tmp_path)
        config = tfds.download.DownloadConfig(manual_dir=nuclei)
        thread = threading.Thread(
            target=second.download_and_prepare, kwargs={"download_config": config}
        )
        capsys.readouterr()
        thread.start()
        said = ""
        while "waiting" not in said and thread.is_alive():
            said += capsys.readouterr().out
        assert f"is being built by process {first.pid} on " in said
        assert begun.exists()
        first.communicate("go on\n", timeout=60)
        assert first.returncode == 0
        thread.join(60)
    assert "Downloading" not in capsys.readouterr().out
    assert second.info.splits["train"].num_examples == 2
    names = [path.name for path in (tmp_path / "dsb2018" / "default").iterdir()]
    assert names == ["1.0.0"]


def test_files_and_links_called_incomplete_stop_no_build(tmp_path, nuclei):
    folder = tmp_path / "dsb2018" / "default"
    folder.mkdir(parents=True)
    (folder / "incomplete.AAAAAA_1.0.0").write_text("a file")
    (folder / "incomplete.BBBBBB_1.0.0").symlink_to("nowhere")
    build("dsb2018", nuclei, tmp_path)
    assert (folder / "incomplete.AAAAAA_1.0.0").read_text() == "a file"


@pytest.mark.parametrize("name", NAMES)
def test_damaged_examples_are_left_out_and_listed_when_asked_for(
    tmp_path, capsys, manual_dirs, damaged, name
):
    folder, (copy, cut) = damaged(name, "copy", "cut")
    build(name, manual_dirs[name], tmp_path / "sound")
    command = ["build", name, "--manual_dir", str(folder), "--data_dir", str(tmp_path / "data")]
    assert cli.main([*command, "--skip_damaged"]) == 0
    assert "2 examples were left out" in capsys.readouterr().out
    sound, found = kept(tmp_path / "sound", name), kept(tmp_path / "data", name)
    metadata: Any = tfds.builder(name, data_dir=tmp_path / "data").info.metadata
    skipped = metadata["skipped"]
    assert len(skipped) == 2
    for victim in (copy, cut):
        stem = pathlib.PurePath(victim).stem
        assert [reason for reason in skipped.values() if stem in reason]
    assert found == {key: sound[key] for key in found}
    assert sound.keys() - found.keys() == skipped.keys() & sound.keys()
    assert 1 <= len(sound) - len(found) <= 2
    (note,) = examples.built(name, data_dir=tmp_path / "data").notes
    assert note == "examples left out, by the metadata: 2"


@pytest.mark.parametrize("name", NAMES)
def test_a_sound_archive_is_built_the_same_whether_damage_may_be_skipped(
    tmp_path, manual_dirs, name
):
    build(name, manual_dirs[name], tmp_path / "plain")
    build(f"{name}/skip_damaged=True", manual_dirs[name], tmp_path / "skipping")
    assert files(tmp_path / "plain") == files(tmp_path / "skipping")


def test_a_name_that_is_not_utf_8_is_an_example_that_cannot_be_read(tmp_path, nuclei, capsys):
    with zipfile.ZipFile(nuclei / "stage1_train.zip") as archive:
        archive.extractall(tmp_path / "manual" / "stage1_train")
    old = min((tmp_path / "manual" / "stage1_train").iterdir())
    name = os.fsdecode(b"\xff")
    (old / "images" / f"{old.name}.png").rename(old / "images" / f"{name}.png")
    old.rename(old.with_name(name))
    command = ["build", "dsb2018", "--manual_dir", str(tmp_path / "manual")]
    command += ["--data_dir", str(tmp_path / "data")]
    assert cli.main(command) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.endswith(r"the name of \udcff is not UTF-8; rename its files.")
    assert cli.main([*command, "--skip_damaged"]) == 0
    metadata: Any = tfds.builder("dsb2018", data_dir=tmp_path / "data").info.metadata
    assert list(metadata["skipped"]) == [name]


@pytest.mark.parametrize("kind", ["no-end", "upwards"])
@pytest.mark.parametrize("name", NAMES)
def test_an_archive_that_cannot_be_read_is_an_error_even_so(tmp_path, capsys, damaged, name, kind):
    folder, (victim,) = damaged(name, kind)
    command = ["build", name, "--manual_dir", str(folder), "--data_dir", str(tmp_path / "data")]
    assert cli.main([*command, "--skip_damaged"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("segdata build: error: ")
    assert victim in line


def test_a_source_in_which_all_is_damaged_is_an_error(tmp_path):
    carvana.draw(tmp_path / "drawn", examples=1, seed=0, size=(64, 96))
    damage.inflict("cut", tmp_path / "drawn", source="carvana", seed=0)
    with pytest.raises(ArchiveError, match=r"Every example of .* is damaged.*truncated"):
        build("carvana/skip_damaged=True", tmp_path / "drawn", tmp_path / "data")
    shutil.rmtree(tmp_path / "drawn")
    carvana.draw(tmp_path / "drawn", examples=1, seed=0, size=(64, 96))
    damage.inflict("misnamed", tmp_path / "drawn", source="carvana", seed=0)
    with pytest.raises(ArchiveError, match=r"Every example of .* is damaged.*is not called"):
        build("carvana/skip_damaged=True", tmp_path / "drawn", tmp_path / "data")


def test_what_may_be_skipped_survives_a_copy_to_another_process(tmp_path):
    skipping = tfds.builder("carvana", data_dir=tmp_path, skip_damaged=True)
    assert pickle.loads(pickle.dumps(skipping)).skip_damaged
    assert not pickle.loads(pickle.dumps(tfds.builder("carvana", data_dir=tmp_path))).skip_damaged

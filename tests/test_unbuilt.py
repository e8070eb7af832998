"""What is said where a dataset of a user's own images is not built."""

import shlex
import shutil
from typing import Any

import own_folders as own
import pytest

import segdata
from segdata import cli, packing
from segdata.sources.folder.settings import Folder
from unet import cli as unet_cli

COMMANDS = {
    "audit": (cli.main, ["audit", "folder:cels"]),
    "show": (cli.main, ["show", "folder:cels", "--to", "x.png"]),
    "train": (unet_cli.main, ["train", "--dataset", "folder:cels", "--out", "run"]),
    "small": (
        unet_cli.main,
        ["train", "--recipe", "small", "--dataset", "folder:cels", "--out", "run"],
    ),
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("own data")
    for seed in range(3):
        own.write(root / "images" / f"x{seed}.png", own.photo(seed))
        own.write(root / "masks" / f"x{seed}.png", own.classes(seed))
    for name in ("cells", "plates"):
        assert own.build(root, "--masks", root / "masks", name=name)[0] == 0
    (root / "data" / "dsb2018" / "1.0.0").mkdir(parents=True)
    (root / "data" / "dsb2018" / "1.0.0" / "metadata.json").write_text('{"skipped": {}}')
    (root / "data" / "broken" / "1.0.0").mkdir(parents=True)
    (root / "data" / "broken" / "1.0.0" / "metadata.json").write_text("{")
    return root / "data"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_which_one_builds_it_and_what_is_there(
    data_dir, tmp_path, monkeypatch, capsys, name
):
    monkeypatch.chdir(tmp_path)
    main, argv = COMMANDS[name]
    assert main([*argv, "--data_dir", str(data_dir)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert f"folder:cels is not built in {data_dir}, where there is " in line
    assert "there is folder:cells, folder:plates. Run `" in line
    _, _, _, *flags = shlex.split(line.split("`")[1])
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    assert given.pop("--data_dir") == str(data_dir)
    settings: Any = {flag[2:]: value for flag, value in given.items()}
    assert Folder(**settings).name == "cels"
    assert list(tmp_path.iterdir()) == []


def test_batches_say_it_too_and_where_nothing_is_built(data_dir, tmp_path):
    what: Any = {"size": (16, 16), "batch": 1, "augment": None, "seed": 0}
    with pytest.raises(ValueError, match=r"folder:cels is not built in .*, where there is"):
        segdata.train_batches("folder:cels", "train", data_dir=data_dir, **what)
    with pytest.raises(ValueError, match=r"is not built in \S+\. Run `segdata build folder"):
        segdata.train_batches("folder:cels", "train", data_dir=tmp_path, **what)
    with pytest.raises(ValueError, match=r"'cels' is not a dataset known .* folder:cells, folder"):
        segdata.train_batches("cels", "train", data_dir=data_dir, **what)
    segdata.train_batches("folder:cells", "train", data_dir=data_dir, **what)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("metadata.json", None, r"metadata.json, where the groups of cells.*--overwrite"),
        ("metadata.json", "{}", r"metadata.json, where the groups of cells.*--overwrite"),
        ("metadata.json", "{", r"what is noted in .* is damaged.*--overwrite"),
        ("dataset_info.json", "{}", r"folder:cells in .* cannot be opened.*cells/1.0.0.*--overw"),
    ],
)
def test_one_that_is_damaged_is_not_called_unbuilt(data_dir, tmp_path, file, text, message):
    shutil.copytree(data_dir / "cells", tmp_path / "cells")
    (path,) = (tmp_path / "cells").glob(f"*/{file}")
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        packing.built("folder:cells", data_dir=tmp_path)

"""What goes wrong while a user's own images are built, or in files that hold unlikely things."""

import contextlib

import holding
import own_folders as own
import pytest

from segdata import packing
from segdata.building import folder, unfinished
from segdata.core.system import files

HOLD = """
import pathlib, sys
from segdata.building import unfinished
folder = pathlib.Path(sys.argv[1])
with unfinished.alone(folder, waiting=print), unfinished.replaced(folder):
    print("held", flush=True)
    sys.stdin.read()
"""


def lay(root, seeds=range(4)):
    for seed in seeds:
        own.write(root / "images" / f"x{seed}.png", own.photo(seed))
        own.write(root / "masks" / f"x{seed}.png", own.classes(seed))
    return ["--masks", root / "masks"]


def test_a_killed_overwrite_leaves_the_old_dataset(tmp_path):
    laid, place = lay(tmp_path), tmp_path / "data" / "mine" / "1.0.0"
    assert own.build(tmp_path, *laid)[0] == 0
    aside = place.with_name(".1.0.0.replaced")
    with holding.process(HOLD, place):
        assert aside.exists()
        code, _, err = own.build(tmp_path, *laid)
        assert code == 2
        assert f"{place} is being built anew by process" in err
        with pytest.raises(files.HeldError, match=r"1\.0\.0 is being built anew by process"):
            packing.built("folder:mine", data_dir=tmp_path / "data")
    assert aside.exists()  # it was killed
    assert packing.built("folder:mine", data_dir=tmp_path / "data").data_path == place
    assert not aside.exists()
    place.rename(aside)
    code, _, err = own.build(tmp_path, *laid)
    assert code == 2
    assert "is built already. Give --overwrite" in err
    assert len(own.examples(tmp_path)) == 4


@pytest.mark.parametrize("when", ["while it is examined", "while it waits"])
def test_two_builds_of_one_name_are_not_taken_for_one(tmp_path, monkeypatch, when):
    laid = lay(tmp_path)
    other = [*lay(tmp_path / "other", range(10, 16)), "--data_dir", tmp_path / "data"]

    def build_other():
        monkeypatch.undo()
        assert own.build(tmp_path / "other", *other)[0] == 0

    def examine(*given, _examine=folder.examine):
        build_other()
        return _examine(*given)

    @contextlib.contextmanager
    def alone(*given, _alone=unfinished.alone, **more):
        build_other()
        with _alone(*given, **more):
            yield

    if when == "while it is examined":
        monkeypatch.setattr(folder, "examine", examine)
    else:
        monkeypatch.setattr(unfinished, "alone", alone)
    code, _, err = own.build(tmp_path, *laid)
    assert code == 2
    assert f"{tmp_path / 'data' / 'mine'} is built already. Give --overwrite" in err
    assert sorted(own.examples(tmp_path)) == [f"x{seed}" for seed in range(10, 16)]

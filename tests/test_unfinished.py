import gc
import os
import subprocess
import sys

import pytest

from segdata import unfinished


class Owner:
    """Anything that can die."""


def test_a_folder_is_held_while_its_owner_lives_and_removed_by_the_next_build_after(tmp_path):
    one, other = tmp_path / "incomplete.AAAAAA_1.0.0", tmp_path / "incomplete.BBBBBB_1.0.0"
    owner, last = Owner(), Owner()
    one.mkdir()
    unfinished.claim(one, owner=owner)
    other.mkdir()
    unfinished.claim(other, owner=last)
    assert one.exists()
    del owner
    gc.collect()
    third = tmp_path / "incomplete.CCCCCC_1.0.0"
    third.mkdir()
    unfinished.claim(third, owner=last)
    assert not one.exists()
    assert other.exists()


def test_what_a_killed_process_leaves_is_removed_with_all_that_is_in_it(tmp_path):
    folder = tmp_path / "incomplete.AAAAAA_1.0.0"
    folder.mkdir()
    (folder / "half").write_bytes(b"half")
    hold = (
        "import os, sys\n"
        "from segdata import unfinished\n"
        "unfinished.claim(sys.argv[1], owner=unfinished)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(folder)]
    owner = Owner()
    mine = tmp_path / "incomplete.BBBBBB_1.0.0"
    mine.mkdir()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        unfinished.claim(mine, owner=owner)
        assert folder.exists()
        process.kill()
    unfinished.claim(tmp_path / "incomplete.CCCCCC_1.0.0", owner=owner)
    assert sorted(os.listdir(tmp_path)) == ["incomplete.BBBBBB_1.0.0", "incomplete.CCCCCC_1.0.0"]


@pytest.mark.parametrize("name", ["1.0.0", "incomplete.AAAAAA_2.0.0", "packed"])
def test_nothing_else_is_touched(tmp_path, name):
    (tmp_path / name).mkdir()
    unfinished.claim(tmp_path / "incomplete.BBBBBB_1.0.0", owner=(owner := Owner()))
    assert (tmp_path / name).exists()
    del owner


def test_without_locks_nothing_is_removed(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    leftover = tmp_path / "incomplete.AAAAAA_1.0.0"
    leftover.mkdir()
    unfinished.claim(tmp_path / "incomplete.BBBBBB_1.0.0", owner=(owner := Owner()))
    assert leftover.exists()
    del owner

import errno
import os
import threading

import holding
import pytest

from segdata.building import unfinished
from segdata.core.system import files

HOLD = """
import pathlib, sys
from segdata.building import unfinished
folder = pathlib.Path(sys.argv[1])
with unfinished.alone(folder, waiting=print):
    (folder.parent / f"incomplete.AAAAAA_{folder.name}").mkdir()
    (folder.parent / f"incomplete.AAAAAA_{folder.name}" / "half").write_bytes(b"half")
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that builds 1.0.0, until it is killed."""
    with holding.process(HOLD, tmp_path / "1.0.0") as process:
        yield process


def refuse(holder):
    raise AssertionError(f"waits for {holder}")


def test_a_build_waits_for_another_and_removes_what_it_left_when_it_was_killed(tmp_path, other):
    said, seen = [], threading.Event()

    def waiting(holder):
        said.append(holder)
        seen.set()

    def build():
        with unfinished.alone(tmp_path / "1.0.0", waiting=waiting):
            said.append(sorted(os.listdir(tmp_path)))

    thread = threading.Thread(target=build)
    thread.start()
    assert seen.wait(10)
    assert (tmp_path / "incomplete.AAAAAA_1.0.0" / "half").exists()
    other.kill()
    other.wait()
    thread.join(10)
    assert said[0].startswith(f"process {other.pid} on ")
    assert said[1] == [".1.0.0.lock"]
    assert os.listdir(tmp_path) == []


def test_datasets_beside_each_other_are_built_at_once(tmp_path, other):
    with unfinished.alone(tmp_path / "2.0.0", waiting=refuse):
        assert (tmp_path / "incomplete.AAAAAA_1.0.0" / "half").exists()


def stranger(path):
    path.mkdir()
    if os.geteuid():
        pytest.skip("only root can make a folder of another user")
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("1.0.0", os.mkdir),
        ("packed", os.mkdir),
        ("incomplete.AAAAAA_2.0.0", os.mkdir),
        ("incomplete.AAAAAA_1.0.0", lambda path: path.write_text("a file")),
        ("incomplete.AAAAAA_1.0.0", lambda path: path.symlink_to("nowhere")),
        ("incomplete.AAAAAA_1.0.0", lambda path: path.symlink_to("kept")),
        ("incomplete.AAAAAA_1.0.0", os.mkfifo),
        ("incomplete.AAAAAA_1.0.0", stranger),
    ],
)
def test_what_is_no_folder_of_a_build_of_ones_own_is_passed_over(tmp_path, name, make):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("")
    make(tmp_path / name)
    with unfinished.alone(tmp_path / "1.0.0", waiting=refuse):
        assert os.path.lexists(tmp_path / name)
        assert (tmp_path / "kept" / "file").exists()


def test_what_cannot_be_removed_is_passed_over(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    (tmp_path / "incomplete.AAAAAA_1.0.0").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("os.rmdir", fail)
        with unfinished.alone(tmp_path / "1.0.0", waiting=refuse):
            pass
    assert (tmp_path / "incomplete.AAAAAA_1.0.0").exists()


@pytest.mark.parametrize("how", ["file system", "platform"])
def test_without_locks_nothing_is_removed(tmp_path, monkeypatch, how):
    def fail(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    if how == "platform":
        monkeypatch.setattr(files, "fcntl", None)
    else:
        monkeypatch.setattr("fcntl.flock", fail)
    (tmp_path / "incomplete.AAAAAA_1.0.0").mkdir()
    with unfinished.alone(tmp_path / "1.0.0", waiting=refuse):
        assert (tmp_path / "incomplete.AAAAAA_1.0.0").exists()


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError(errno.ENOSPC, "x", "a/b"), "No space left on device"),
        (OSError(errno.EDQUOT, "x"), "Disk quota exceeded"),
        (RuntimeError("write() failed: No space left on device; writing x"), "No space left on"),
        (OSError(errno.EACCES, "Permission denied"), None),
        (ValueError("12 is too large"), None),
        (files.HeldError("the disk is full: No space left on device. Make room."), None),
    ],
)
def test_a_full_disk_is_told_from_other_errors(error, cause):
    expected = type(error) if cause is None else OSError
    with pytest.raises(expected) as caught, unfinished.explained("here"):
        raise error
    if cause is None:
        assert caught.value is error
    else:
        assert str(caught.value).startswith(f"here cannot be built: {cause}")
        assert "Make room" in str(caught.value)


@pytest.mark.parametrize("new", [True, False])
def test_what_a_killed_build_set_aside_comes_back_unless_it_was_done(tmp_path, new):
    (tmp_path / ".1.0.0.replaced").mkdir()
    (tmp_path / ".1.0.0.replaced" / "old").write_text("")
    if new:
        (tmp_path / "1.0.0").mkdir()
    with unfinished.alone(tmp_path / "1.0.0", waiting=refuse):
        assert (tmp_path / "1.0.0" / "old").exists() is not new
    assert os.listdir(tmp_path) == ["1.0.0"]

import errno
import fcntl
import gc
import os
import pathlib
import subprocess
import sys
import threading
import time

import holding
import pytest

from segdata.core.system import files

HOLD = """
import sys
from segdata.core.system import files
with files.replacing(sys.argv[1]) as path, files.locked(sys.argv[2]) as got:
    path.write_bytes(b"half")
    print("held" if got else "free", flush=True)
    sys.stdin.read()
"""
FORK = """
import os, sys
from segdata.core.system import files
with files.locked(sys.argv[1]):
    if child := os.fork():
        assert os.waitpid(child, 0)[1]
        assert os.path.exists(sys.argv[1])
    else:
        raise SystemExit(1)
assert not os.path.exists(sys.argv[1])
"""


@pytest.fixture
def other(tmp_path):
    """Another process that writes `final` and holds `lock`, until it is killed."""
    with holding.process(HOLD, tmp_path / "final", tmp_path / "lock") as process:
        yield process


def test_a_fork_that_ends_leaves_the_lock_to_who_holds_it(tmp_path):
    subprocess.run([sys.executable, "-c", FORK, tmp_path / "lock"], check=True)


def test_a_file_is_replaced_at_once_and_has_the_mode_that_any_new_file_has(tmp_path):
    path, plain = tmp_path / "a.json", tmp_path / "plain"
    plain.write_text("")
    path.write_text("before")
    with files.replacing(path) as unfinished:
        assert unfinished.suffix == ".json"
        unfinished.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert path.stat().st_mode == plain.stat().st_mode
    assert sorted(os.listdir(tmp_path)) == ["a.json", "plain"]


def test_after_an_error_nothing_has_changed(tmp_path):
    path = tmp_path / "a"
    path.write_text("before")

    def fail():
        with files.replacing(path) as unfinished:
            unfinished.write_text("after")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a"]


def test_a_link_is_replaced_and_not_written_through(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    with files.replacing(tmp_path / "link") as unfinished:
        unfinished.write_text("other")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "link").read_text() == "other"


def test_a_link_a_pipe_or_a_device_that_was_named_is_written_to(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    for path in (tmp_path / "link", tmp_path / "new", "/dev/null"):
        files.require_writable(path)
        files.write(path, b"data")
    assert (tmp_path / "mine").read_bytes() == (tmp_path / "new").read_bytes() == b"data"
    assert (tmp_path / "link").is_symlink()
    assert os.path.exists("/dev/null")
    assert not os.path.isfile("/dev/null")


def test_a_link_to_itself_is_replaced_as_one_that_leads_nowhere(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert files.resolved(loop) == tmp_path.resolve() / "loop"
    files.require_writable(loop)
    files.write(loop, b"data")
    assert loop.read_bytes() == b"data"


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="no names of open files")
def test_a_pipe_without_a_name_of_its_own_is_written_to():
    """As of `--json /dev/stdout | jq` and of `--html >(wc -c)`."""
    reading, writing = os.pipe()
    with open(reading, "rb") as read, open(writing, "wb"):
        files.require_writable(f"/dev/fd/{writing}")
        files.write(f"/dev/fd/{writing}", b"data")
        assert read.read(4) == b"data"


def test_what_a_link_leads_to_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    (tmp_path / "yesterday").write_text("yesterday")
    (tmp_path / "latest").symlink_to("yesterday")
    (tmp_path / "next").symlink_to("tomorrow")
    files.require_writable(tmp_path / "next")
    files.write(tmp_path / "next", b"tomorrow")
    assert (tmp_path / "tomorrow").read_bytes() == b"tomorrow"

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        files.write(tmp_path / "latest", b"half")
    assert (tmp_path / "yesterday").read_text() == "yesterday"
    assert len(list(tmp_path.iterdir())) == 4


def test_a_device_that_is_full_is_named():
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
        files.write("/dev/full", b"data")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "inner"):
        with pytest.raises(OSError, match=f"^{path}: there is a file of that name; name a folder"):
            files.make_folder(path)
    files.make_folder(tmp_path / "a" / "b")
    files.make_folder(tmp_path / "a" / "b")


@pytest.mark.parametrize(
    ("path", "message"),
    [("", "is a folder"), ("none/a", "there is no folder"), ("file/a", "there is no folder")],
)
def test_where_no_file_can_be_is_said_before_it_is_written(tmp_path, path, message):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=message):
        files.require_writable(tmp_path / path)


def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(PermissionError, match="may not be written to"):
        files.require_writable(tmp_path / "a")


def test_two_writers_of_one_file_never_share_a_temporary_one(tmp_path):
    with files.replacing(tmp_path / "a") as one, files.replacing(tmp_path / "a") as two:
        one.write_text("one")
        two.write_text("two")
    assert (tmp_path / "a").read_text() == "one"  # whose turn came last


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path, other):
    for age in (0, 1):  # whatever its age
        for path in tmp_path.glob("unfinished-*"):
            os.utime(path, (age, age))
        files.remove_unfinished(tmp_path)
        assert len(list(tmp_path.glob("unfinished-*"))) == 1
    other.kill()
    other.wait()
    files.remove_unfinished(tmp_path)
    assert not list(tmp_path.glob("unfinished-*"))


def test_no_writer_loses_its_file_to_one_that_removes_leftovers(tmp_path, monkeypatch):
    """Which comes between the making of the file and its lock."""
    hold, interrupted = files.hold, []

    def late(descriptor):
        if not interrupted:
            interrupted.append(1)
            files.remove_unfinished(tmp_path)
        return hold(descriptor)

    monkeypatch.setattr(files, "hold", late)
    with files.replacing(tmp_path / "a") as unfinished:
        unfinished.write_text("whole")
        files.remove_unfinished(tmp_path)
    assert (tmp_path / "a").read_text() == "whole"


def test_who_holds_a_file_for_ever_keeps_nobody_from_using_it(tmp_path):
    path = tmp_path / "packed"
    path.write_text("")
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    begun = time.monotonic()
    files.use(path, owner=test_what_a_user_calls_unfinished_stays)
    os.close(descriptor)
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_what_is_no_file_is_no_lock_and_is_named(tmp_path, kind):
    path = tmp_path / "lock"
    {"pipe": os.mkfifo, "folder": os.mkdir, "link": lambda p: os.symlink("elsewhere", p)}[kind](
        path
    )
    lock = files.locked(path)
    with pytest.raises(OSError, match=f"^{path} is no file, and a lock is wanted there. Remove it"):
        lock.__enter__()


def test_a_full_disk_is_said_of_the_file(tmp_path):
    def fill():
        with files.replacing(tmp_path / "a"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path / 'a'}'"):
        fill()


def test_no_home_is_named(monkeypatch):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(pathlib.Path, "home", fail)
    with pytest.raises(OSError, match="there is no home folder; set HOME"):
        files.home()


def test_what_a_user_calls_unfinished_stays(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "unfinished-thesis.png").write_text("mine too")
    (tmp_path / "unfinished-0123456789abcdef").mkdir()
    (tmp_path / "unfinished-0123456789abcdef.png").symlink_to(tmp_path / "mine")
    before = sorted(os.listdir(tmp_path))
    files.remove_unfinished(tmp_path)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_file_in_use_stays_until_its_owner_is_gone(tmp_path):
    class Owner:
        pass

    path = tmp_path / "packed"
    path.write_text("")
    one, other = Owner(), Owner()
    files.use(path, owner=one)
    files.use(path, owner=other)
    files.remove_unused(path)
    del one
    gc.collect()
    files.remove_unused(path)
    assert path.exists()
    del other
    gc.collect()
    files.remove_unused(path)
    assert not path.exists()


def test_an_owner_that_only_refers_to_itself_uses_a_file_no_longer(tmp_path):
    class Owner:
        def __init__(self):
            self.own = self

    path = tmp_path / "packed"
    path.write_text("")
    owner = Owner()
    files.use(path, owner=owner)
    gc.disable()
    try:
        assert files.in_use(path)
        del owner
        assert not files.in_use(path)
    finally:
        gc.enable()


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path, other):
    lock = files.locked(tmp_path / "lock")
    with pytest.raises(files.HeldError, match=rf"process {other.pid} on "), lock:
        pass
    other.kill()
    other.wait()
    with files.locked(tmp_path / "lock") as got:
        assert got
    assert not (tmp_path / "lock").exists()


def test_who_waits_is_told_for_whom_and_comes_next(tmp_path, other):
    said = []
    seen = threading.Event()

    def waiting(holder):
        said.append(holder)
        seen.set()

    def wait():
        with files.locked(tmp_path / "lock", waiting=waiting) as got:
            said.append(got)

    thread = threading.Thread(target=wait)
    thread.start()
    assert seen.wait(10)
    other.kill()
    other.wait()
    thread.join(10)
    assert [type(item) for item in said] == [str, bool]
    assert said[-1] is True


def test_many_threads_hold_one_lock_in_turn(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(20):
            with files.locked(tmp_path / "lock", waiting=lambda _: None) as got:
                inside.append(got)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] * 80


@pytest.mark.parametrize("exists", [True, False])
def test_a_lock_of_another_user_locks_and_a_folder_of_his_is_named(tmp_path, monkeypatch, exists):
    real = os.open

    def deny(path, flags, *mode):
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path, flags, *mode)

    if exists:
        (tmp_path / "lock").write_text("")
    monkeypatch.setattr(os, "open", deny)
    lock = files.locked(tmp_path / "lock")
    if exists:
        with lock as got:
            assert got
    else:
        with pytest.raises(PermissionError), lock:
            pass


@pytest.mark.parametrize("how", ["file system", "platform"])
def test_where_no_lock_can_be_had_work_goes_on_and_nothing_is_removed(tmp_path, monkeypatch, how):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    if how == "platform":
        monkeypatch.setattr(files, "fcntl", None)
    else:
        monkeypatch.setattr("fcntl.flock", refuse)
    (tmp_path / "unfinished-other").write_text("")
    with files.locked(tmp_path / "lock") as got, files.replacing(tmp_path / "a") as unfinished:
        assert not got
        files.remove_unfinished(tmp_path)
        unfinished.write_text("whole")
    assert sorted(os.listdir(tmp_path)) == ["a", "unfinished-other"]

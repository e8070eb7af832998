import ctypes
import os
import subprocess
import sys
import threading
import types

import pytest

from segdata.core.system import parallel


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    assert parallel.cores() == 3


@pytest.mark.parametrize(("known", "expected"), [(6, 6), (None, 1)])
def test_where_processes_are_bound_to_no_cores_all_of_them_count(monkeypatch, known, expected):
    """As on macOS."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: known)
    assert parallel.cores() == expected
    assert list(parallel.ordered_map(str, range(3))) == ["0", "1", "2"]


@pytest.mark.parametrize("platform", ["linux", "darwin"])
@pytest.mark.parametrize("can", [True, False])
def test_malloc_is_tuned_where_the_c_library_can(monkeypatch, platform, can):
    """glibc can; musl and macOS are left as they are."""
    asked = []
    abilities = {"mallopt": lambda *what: asked.append(what)} if can else {}
    library = types.SimpleNamespace(**abilities)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    parallel.tune_malloc()
    assert asked == ([(-3, 32 << 20), (-1, 256 << 20)] if can and platform == "linux" else [])


def test_whoever_ends_it_waits_for_nobody():
    """Garbage is collected on any thread, also on those that do the work."""
    begun, ended = threading.Event(), threading.Event()

    def work(number):
        if number == 3:
            begun.wait(timeout=60)
            results.close()
            ended.set()
        return number

    results = parallel.ordered_map(work, range(100), threads=2)
    assert next(results) == 0
    begun.set()
    assert ended.wait(timeout=60)
    with pytest.raises(StopIteration):
        next(results)


AT_EXIT = """
from segdata.core.system import parallel
numbers = parallel.ordered_map(str, range(1000), threads=2)
print(next(numbers))
"""


def test_a_process_may_end_in_the_middle_of_it():
    done = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")

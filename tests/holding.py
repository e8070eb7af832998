"""Processes that hold something until they are killed, for tests of who comes second."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def process(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Runs a script that prints "held" once it holds what it is to hold, and then reads stdin."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "held\n"
        yield started
        started.kill()

"""One task at a time in a thread of its own, whose error is raised where the next one begins."""

import concurrent.futures
from collections.abc import Callable
from typing import Any


class Background:
    """Runs tasks in their order beside the caller; leaving the `with` waits for the last."""

    def __init__(self) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="background")
        self._task: concurrent.futures.Future[Any] | None = None

    def start(self, task: Callable[[], Any]) -> None:
        """Waits for the task before, and starts this one.

        Raises:
            Exception: What the task before raised; this one is not started.
        """
        self.wait()
        self._task = self._pool.submit(task)

    def check(self) -> None:
        """Raises what the task raised, if it has ended; does not wait."""
        if self._task is not None and self._task.done():
            self.wait()

    def wait(self) -> None:
        """Waits for the task, and raises what it raised; once."""
        task, self._task = self._task, None
        if task is not None:
            task.result()

    def __enter__(self) -> "Background":
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        self._pool.shutdown()
        if kind is None:
            self.wait()

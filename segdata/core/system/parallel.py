"""Work on all cores, in bounded memory, in a fixed order."""

import collections
import ctypes
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], *, threads: int | None = None
) -> Iterator[R]:
    """Maps on threads and yields in the order of the items.

    Made for work that releases the interpreter's lock (Pillow, zlib, file reads). At most two
    results a thread wait to be taken, however many items there are. Stopping early cancels what
    has not begun, and waits for nothing.

    Args:
        function: What to do with an item; called from several threads at once.
        items: Taken one by one as there is room.
        threads: How many; by default one for each of `cores()`.

    Yields:
        `function(item)`, in order. An exception of the function's is raised in its item's turn.
    """
    threads = threads or cores()
    is_at_exit = sys.is_finalizing  # held here, for then names of modules may be gone
    pending: collections.deque[futures.Future[R]] = collections.deque()
    pool = futures.ThreadPoolExecutor(threads, thread_name_prefix="segdata")
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # Whoever collects garbage may be one of these threads, or hold a lock that they wait for.
        if not is_at_exit():
            pool.shutdown(wait=False, cancel_futures=True)


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS binds no process to a core


def tune_malloc() -> None:
    """Raises malloc's thresholds: up to 256 MiB of freed memory stay with this process for reuse.

    By default, the C library of Linux returns large blocks at once, and the kernel clears each new
    one: that is a third of the time of building synthetic cars of 1918×1280 on two cores.
    """
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):  # musl has none
            library.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # blocks up to the largest that may stay
            library.mallopt(_M_TRIM_THRESHOLD, 256 << 20)

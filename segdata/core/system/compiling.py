"""Loops compiled by Numba, kept on disk where they can be kept."""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Result = TypeVar("Result")


def compiled(function: Callable[..., Result]) -> Callable[..., Result]:
    """Compiles a function when it is first called; it runs without the interpreter's lock."""
    fresh: Any = numba.njit(nogil=True)(function)
    try:
        kept: Any = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder may be written to
        return fresh

    def call(*arguments: Any) -> Result:
        try:
            return kept(*arguments)
        except Exception:  # what is kept is damaged, or its disk is full; numba raises anything
            return fresh(*arguments)

    return call

"""Loops compiled by Numba, kept on disk where they can be kept."""

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import numba

Result = TypeVar("Result")


def compiled(function: Callable[..., Result]) -> Callable[..., Result]:
    """Compiles a function when it is first called; it runs without the interpreter's lock."""
    fresh: Any = numba.njit(nogil=True)(function)
    try:
        used: Any = _kept(function)
    except RuntimeError:  # no folder may be written to
        return fresh

    def call(*arguments: Any) -> Result:
        nonlocal used
        try:
            return used(*arguments)
        except Exception:  # what is kept is damaged, or its disk is full; numba raises anything
            result = fresh(*arguments)
            if used is not fresh:
                used = fresh  # each call would try to load it again
                with contextlib.suppress(Exception):
                    _kept(function).recompile()  # as nothing is compiled, this empties the cache
            return result

    return call


def _kept(function: Callable[..., Any]) -> Any:
    return numba.njit(nogil=True, cache=True)(function)

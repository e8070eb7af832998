"""Numbers that users pass, NumPy's among them, as Python's own; nothing else is known here."""

import numbers
import operator
from typing import Any


def integer(name: str, value: Any, *, least: int | None = None, most: int | None = None) -> int:
    """A whole number.

    Args:
        name: The argument's, for the message.
        value: An integer of Python's or NumPy's, or an array of one.
        least: The smallest that is allowed.
        most: The largest.

    Raises:
        ValueError: If it is none, smaller or larger.
    """
    allowed = "a whole number" if least is None else f"a whole number from {least}"
    allowed += "" if most is None else f" to {most:,}"
    try:
        number = operator.index(value)
    except TypeError as error:
        raise ValueError(f"{name}={value!r} is not {allowed}.") from error
    small, large = least is not None and number < least, most is not None and number > most
    if isinstance(value, bool) or small or large:
        raise ValueError(f"{name}={value!r} is not {allowed}.")
    return number


def size(value: Any) -> tuple[int, int]:
    """A height and a width in pixels, of any sequence of two whole numbers from 1.

    Raises:
        ValueError: If it is none.
    """
    try:
        height, width = (integer("size", side, least=1) for side in value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"size={value!r} is not a height and a width in pixels, both whole numbers from 1."
        ) from error
    return height, width


def floats(values: Any) -> tuple[float, ...] | None:
    """The real numbers of a sequence; None where it is none, or holds anything else."""
    try:
        given = tuple(values)
        return tuple(map(float, given)) if all(isinstance(x, numbers.Real) for x in given) else None
    except (TypeError, OverflowError):
        return None

"""Which values of a mask are which class, as a user says it. NumPy arrays in and out.

A class id is the place of a class among those named, from 0. What no class has is the ignore label,
255. Colours are numbers too: red + 256·green + 65,536·blue, as COCO numbers segments.
"""

import collections
import dataclasses
import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segdata.core import IGNORE_LABEL

LARGEST = 0xFFFFFF
"""The largest value of a mask that can be named, white."""
VOID, UNLISTED = -1, -2
"""In place of a value: of a pixel in no segment, and in one that its example does not list."""

Key = int | range | tuple[int, int, int] | str
"""A value; some values in a row; a colour; or a class that the dataset itself names."""

_KEY = re.compile(r"(?P<first>\d+)(?:-(?P<last>\d+))?|#(?P<colour>[0-9a-fA-F]{6})")


@dataclasses.dataclass(frozen=True)
class Labels:
    """Classes of values.

    Attributes:
        spans: First value, last value and class of each; None for the ignore label.
        are_colours: Whether the values are colours.
    """

    spans: tuple[tuple[int, int, str | None], ...]
    are_colours: bool = False

    @classmethod
    def of(cls, given: Mapping[Any, Any], *, names: Sequence[str] = ()) -> "Labels":
        """The classes of a mapping from keys to names; `None` is the ignore label.

        Args:
            given: Such as `{1: "pet", 2: "background", range(3, 6): None}`.
            names: The classes that the dataset itself names, by value.

        Raises:
            ValueError: If a key is none, a value is named twice, or there is no class.
        """
        if not isinstance(given, Mapping) or not given:
            raise ValueError(f"labels={given!r:.60} is no dictionary such as {{1: 'pet'}}.")
        spans, colours = [], set[bool]()
        for key, name in given.items():
            if not (name is None or (isinstance(name, str) and name)):
                raise ValueError(f"labels: {key!r} is given {name!r:.40}, no name and not None.")
            spans.append((*_span(key, names), name))
            colours.add(isinstance(key, tuple))
        if len(colours) > 1:
            raise ValueError("labels: its keys are colours or numbers, not both.")
        ordered = sorted(spans, key=lambda span: span[:2])
        for (_, last, _), (first, _, _) in itertools.pairwise(ordered):
            if first <= last:
                raise ValueError(f"labels: the value {first} is named twice.")
        made = cls(tuple(spans), colours == {True})
        if not 1 <= len(made.classes) <= IGNORE_LABEL:
            raise ValueError(f"labels names {len(made.classes)} classes; from 1 to {IGNORE_LABEL}.")
        return made

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order in which they are first named."""
        return tuple(dict.fromkeys(name for _, _, name in self.spans if name is not None))

    @functools.cached_property
    def _table(self) -> np.ndarray:
        """uint8: of each value the class id, of 256 values at least; the last of all beyond it."""
        largest = max(255, *(last for _, last, _ in self.spans))
        table = np.full(largest + 2, IGNORE_LABEL, np.uint8)
        for first, last, name in self.spans:
            table[first : last + 1] = IGNORE_LABEL if name is None else self.classes.index(name)
        return table

    def apply(self, values: np.ndarray) -> tuple[np.ndarray, collections.Counter[int]]:
        """The class ids of values.

        Args:
            values: Integers [H, W].

        Returns:
            uint8 [H, W]; and of each value that is not named, but `VOID`, how many pixels have it.
        """
        places = values
        if values.dtype != np.uint8:
            beyond = len(self._table) - 1
            places = values.astype(np.int64)
            places[(places < 0) | (places > beyond)] = beyond
        found = self._table[places]
        rest = values[found == IGNORE_LABEL]
        if not rest.size:
            return found, collections.Counter()
        kinds, counts = np.unique(rest, return_counts=True)
        unnamed = {
            int(value): int(count)
            for value, count in zip(kinds, counts, strict=True)
            if value != VOID and not any(first <= value <= last for first, last, _ in self.spans)
        }
        return found, collections.Counter(unnamed)

    def shown(self, value: int) -> str:
        """A value as a key."""
        if value == UNLISTED:
            return "segments that are not listed"
        if not self.are_colours:
            return str(value)
        return str((value & 255, value >> 8 & 255, value >> 16))


def numbers(colours: np.ndarray) -> np.ndarray:
    """The numbers of colours: integers [H, W, 3] to int32 [H, W].

    Raises:
        ValueError: If one is below 0 or above 255.
    """
    if colours.min() < 0 or colours.max() > 255:
        raise ValueError(
            f"a mask's colours go from {colours.min()} to {colours.max()}, not 0 to 255."
        )
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    return red | green << 8 | blue << 16


def parsed(texts: Sequence[str]) -> dict[str, str | None]:
    """What is said on a command line: `1=pet`, `0-127=background`, `#804080=road`, `car=vehicle`.

    Nothing after `=` is the ignore label.

    Returns:
        What stands before `=` to what stands after it, as `keyed` takes it.

    Raises:
        ValueError: If one is none of these.
    """
    found: dict[str, str | None] = {}
    for text in texts:
        before, equals, name = text.partition("=")
        if not equals or not before:
            raise ValueError(
                f"--labels {text}: 1=pet, 0-127=background, #804080=road or car=vehicle."
            )
        if before in found:
            raise ValueError(f"--labels {text}: {before} is named twice.")
        found[before] = name or None
    return found


def keyed(given: Any) -> dict[Key, Any]:
    """A mapping for `Labels.of`, of one whose keys are texts: "1", "0-127", "#804080" or "car".

    Raises:
        ValueError: If it is no mapping, or two texts are the same key.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f'labels={given!r:.60} is no mapping such as {{"1": "pet"}}.')
    found: dict[Key, Any] = {}
    for text, name in given.items():
        key: Key = text
        if match := _KEY.fullmatch(text):
            if colour := match["colour"]:
                red, green, blue = bytes.fromhex(colour)
                key = red, green, blue
            elif match["last"]:
                key = range(int(match["first"]), int(match["last"]) + 1)
            else:
                key = int(match["first"])
        if key in found:
            raise ValueError(f"labels: {text} is named twice.")
        found[key] = name
    return found


def _span(key: Any, names: Sequence[str]) -> tuple[int, int]:
    """The first and the last value that a key stands for."""
    if isinstance(key, str):
        if key not in names:
            known = ", ".join(names) or "none"
            raise ValueError(f"labels: {key!r} is no class of the dataset, which names {known}.")
        return names.index(key), names.index(key)
    if isinstance(key, tuple) and len(key) == 3:
        if all(_is_number(part) and 0 <= part <= 255 for part in key):
            number = int(key[0]) | int(key[1]) << 8 | int(key[2]) << 16
            return number, number
    elif isinstance(key, range):
        if key and key.step == 1 and key.start >= 0 and key[-1] <= LARGEST:
            return key.start, key[-1]
    elif not isinstance(key, tuple) and _is_number(key) and 0 <= key <= LARGEST:
        return int(key), int(key)
    raise ValueError(
        f"labels: {key!r:.40} is no value from 0 to {LARGEST:,}, no range of such, no colour of "
        "three from 0 to 255 and no class of the dataset."
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)

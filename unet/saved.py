"""Settings checked: values by their conditions; read back from JSON, types by their annotations.

The settings' classes are known to the callers. Standard library only.
"""

import dataclasses
import json
import types
import typing
from typing import Any, TypeVar

Settings = TypeVar("Settings")


def parsed(text: bytes) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        ValueError: If it is not a JSON object in UTF-8, or names something twice.
        RecursionError: If it is nested too deeply.
    """
    found = json.loads(text, object_pairs_hook=_object)
    if not isinstance(found, dict):
        raise ValueError(f"it holds {found!r:.40} and not an object")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it names {twice!r:.40} twice")
    return found


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Raises ValueError with the name of a setting, its value and what is allowed, if it is not."""
    if not condition:
        raise ValueError(f"{name} is {value!r}; it must be {allowed}.")


def checked(settings: Settings) -> Settings:
    """Checks every field of a dataclass, also of nested ones, against its annotation; returns it.

    Raises:
        ValueError: If a value is not of its field's type; it names the field.
    """
    owners: list[Any] = [settings]
    while owners:
        owner = owners.pop()
        for name, kind in typing.get_type_hints(type(owner)).items():
            value = getattr(owner, name)
            if dataclasses.is_dataclass(value):
                owners.append(value)
            elif not fits(value, kind):
                raise ValueError(f"{name} is {value!r:.40}")
    return settings


def fits(value: Any, kind: Any) -> bool:
    """Whether a value fits an annotation; numbers so large that sums overflow do not.

    Args:
        value: Any.
        kind: A class, or a union, `Literal`, tuple or mapping of such.
    """
    origin, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, each) for each in inner)
    if origin is typing.Literal:
        return value in inner
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = inner[:1] * len(value) if inner[-1] is ... else inner
        return len(value) == len(kinds) and all(map(fits, value, kinds))
    if kind is Any:
        return True
    if inner:
        key, item = inner  # of a mapping
        return isinstance(value, origin) and all(
            fits(k, key) and fits(v, item) for k, v in value.items()
        )
    if origin not in (int, float):
        return isinstance(value, origin)
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return origin is float and isinstance(value, float) and abs(value) < 1e300  # and no NaN

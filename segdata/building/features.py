"""Which features of a dataset are the image and its mask, by their names.

The features may be anybody's. What the values mean is not known here, and no example is read.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import tensorflow_datasets as tfds

from segdata.building.labels import Labels, keyed
from segdata.core.system import arguments


class Named(TypedDict, total=False):
    """Keywords that name the features of a dataset, where they are not as in the built-in ones.

    Attributes:
        image: The feature that is the image, "image" by default; "a/b" is b in a dictionary a.
            Grey becomes RGB; of a file's four channels the fourth is dropped.
        mask: The feature that is the mask, "mask" by default.
        labels: The class of each value of the mask, such as `{1: "pet", 2: "background"}`; class
            ids are counted from 0 in the order in which classes are first named. A key is a value,
            a `range` of values, a colour such as `(128, 64, 128)`, or a class that the dataset
            names. Several keys may have one class; None is the ignore label. A value without a key
            becomes the ignore label too, and packing says how many pixels have it. By default the
            classes that the dataset names.
        segments: The feature that lists `id` and `label` of each segment, where the colours of a
            mask number segments, as in COCO's panoptic images; `labels` is of these labels then.
        bands: Which channels of the image are red, green and blue, or the one that is grey.
        value_range: Which values of the image become 0 and 255, in all images alike; needed where
            they are not of 8 bits.
        id: The feature that is an example's name; "id" by default, or else its split and number.
        group: The feature that is its group; "group" by default, or else each is one by itself.
        stratum: The feature that is its stratum, for folds; "stratum" by default, or else all are
            of one.
    """

    image: str
    mask: str
    labels: Mapping[Any, str | None] | None
    segments: str | None
    bands: Sequence[int] | None
    value_range: Sequence[float] | None
    id: str | None
    group: str | None
    stratum: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """`Named`, with its defaults.

    Raises:
        ValueError: If a value is of another kind.
    """

    image: str = "image"
    mask: str = "mask"
    labels: Mapping[Any, str | None] | None = None
    segments: str | None = None
    bands: Sequence[int] | None = None
    value_range: Sequence[float] | None = None
    id: str | None = None
    group: str | None = None
    stratum: str | None = None

    def __new__(cls, **given: Any):
        """Refuses unknown names: what a function does not know itself, it takes for one of these.

        Raises:
            TypeError: Naming it.
        """
        if odd := [name for name in given if name not in Named.__annotations__]:
            raise TypeError(
                f"{odd[0]!r} is no argument of the function that was called, nor one that names "
                f"features: {', '.join(Named.__annotations__)}."
            )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for name in ("image", "mask", "segments", "id", "group", "stratum"):
            value = getattr(self, name)
            is_optional = name not in ("image", "mask")
            if not ((isinstance(value, str) and value) or (value is None and is_optional)):
                raise ValueError(f"{name}={value!r:.40} is no name of a feature.")
        if self.bands is not None:
            try:
                bands = [arguments.integer("bands", band, least=0) for band in self.bands]
            except TypeError as error:
                raise ValueError(f"bands={self.bands!r:.40} are no numbers of channels.") from error
            if len(bands) not in (1, 3):
                raise ValueError(f"bands={self.bands!r:.40}: one channel, or three.")
        if self.value_range is not None:
            ends = arguments.floats(self.value_range) or ()
            if len(ends) != 2 or not all(map(math.isfinite, ends)) or ends[0] >= ends[1]:
                raise ValueError(
                    f"value_range={self.value_range!r:.60}: two numbers, the lower one first."
                )

    def source(self, labels: Labels | None) -> dict[str, Any]:
        """What records depend on, as JSON has it; empty where all is as in built-in datasets.

        Args:
            labels: What was made of `labels`.
        """
        if (self.image, self.mask) == ("image", "mask") and not any(
            (labels, self.segments, self.bands is not None, self.value_range is not None)
        ):
            return {}
        return {
            "image": self.image,
            "mask": self.mask,
            "labels": labels and [list(span) for span in labels.spans],
            "colours": bool(labels and labels.are_colours),
            "segments": self.segments,
            "bands": None if self.bands is None else [int(band) for band in self.bands],
            "value_range": None
            if self.value_range is None
            else [float(x) for x in self.value_range],
        }


def from_json(given: Any) -> Named:
    """The keywords of `Named` as JSON has them: the keys of `labels` are texts, as for `keyed`.

    Raises:
        ValueError: If there is no such keyword, or a value is of another kind.
    """
    known = [field.name for field in dataclasses.fields(Features)]
    odd = [name for name in given if name not in known] if isinstance(given, Mapping) else [given]
    if odd:
        raise ValueError(f"{odd[0]!r:.60} names no feature; there are {', '.join(known)}.")
    named: Any = dict(given)
    if named.get("labels") is not None:
        named["labels"] = keyed(named["labels"])
    Features(**named)
    return named


@dataclasses.dataclass(frozen=True)
class Feature:
    """A feature of a dataset.

    Attributes:
        path: The keys that lead to it through dictionaries.
        kind: The feature itself, of TFDS.
    """

    path: tuple[str, ...]
    kind: Any

    def of(self, example: Any) -> Any:
        """Its value in an example."""
        for key in self.path:
            example = example[key]
        return example


def found(builder: Any, role: str, name: str) -> Feature:
    """A feature by its name, in which "/" leads into dictionaries.

    Args:
        builder: Of a dataset.
        role: The argument that names it, which decides what it may be.
        name: Its name.

    Raises:
        ValueError: If there is none of that name, or it is of another kind.
    """
    tests = {"image": _is_picture, "mask": _is_picture, "instances": _is_picture}
    tests["segments"] = _is_list_of_segments
    fits = tests.get(role, _is_scalar)
    of_kind = ", ".join(
        "/".join(path) for path, kind in _leaves(builder.info.features) if fits(kind)
    )
    feature = _at(builder.info.features, name)
    if feature is None or not fits(feature.kind):
        is_there = "has no such feature" if feature is None else f"has {feature.kind} there"
        raise ValueError(
            f"{role}={name!r}: {builder.info.full_name} {is_there}; of the right kind it has "
            f"{of_kind or 'none'}."
        )
    return feature


def optional(builder: Any, role: str, name: str | None) -> Feature | None:
    """A text or a number by its name; where that is None, the one of the role's name, if any."""
    if name is not None:
        return found(builder, role, name)
    feature = _at(builder.info.features, role)
    return feature if feature and _is_scalar(feature.kind) else None


def subset(builder: Any, features: Sequence[Feature]) -> Any:
    """The dataset's features without all others, nested as they are; for `stored.parsed`."""
    wanted: dict[str, Any] = {}
    for feature in features:
        inner = wanted
        for key in feature.path[:-1]:
            inner = inner.setdefault(key, {})
        inner[feature.path[-1]] = feature.kind
    return tfds.features.FeaturesDict(wanted)


def _at(features: Any, name: str) -> Feature | None:
    if name in features:
        return Feature((name,), features[name])
    for key, kind in features.items():
        if name.startswith(f"{key}/") and isinstance(kind, tfds.features.FeaturesDict):
            inner = _at(kind, name.removeprefix(f"{key}/"))
            if inner:
                return Feature((key, *inner.path), inner.kind)
    return None


def _leaves(features: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, kind in features.items():
        if isinstance(kind, tfds.features.FeaturesDict):
            yield from (((key, *path), inner) for path, inner in _leaves(kind))
        else:
            yield (key,), kind


def _is_picture(kind: Any) -> bool:
    is_file, is_array = (
        isinstance(kind, each) for each in (tfds.features.Image, tfds.features.Tensor)
    )
    if is_file:
        return len(kind.shape) == 3
    return is_array and len(kind.shape) in (2, 3) and np.dtype(kind.np_dtype).kind in "biuf"


def _is_scalar(kind: Any) -> bool:
    is_text, is_array = (
        isinstance(kind, each) for each in (tfds.features.Text, tfds.features.Tensor)
    )
    return is_text or (is_array and kind.shape == () and np.dtype(kind.np_dtype).kind in "biu")


def _is_list_of_segments(kind: Any) -> bool:
    inner = getattr(kind, "feature", None)
    return (
        isinstance(kind, tfds.features.Sequence)
        and isinstance(inner, tfds.features.FeaturesDict)
        and {"id", "label"} <= {*inner.keys()}
        and isinstance(inner["label"], tfds.features.ClassLabel)
        and _is_scalar(inner["id"])
    )

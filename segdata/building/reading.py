"""Examples of any built dataset, read by the names of its features: a picture and class ids.

No size and no batch is known here.
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from segdata import console
from segdata.archives import images
from segdata.building import features as naming
from segdata.building import labels, pixels, slices, stored
from segdata.building.features import Features
from segdata.core import IGNORE_LABEL

_LOOKED_AT = 20  # examples, for the values of a mask whose classes have no names
_SHOWN = 8  # of values, in a message


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
    """An example of a dataset.

    Attributes:
        id: Its name.
        group: Its group.
        image: A PNG or a JPEG, to be decoded as RGB; or uint8 [H, W, 3].
        mask: uint8 [H, W], class ids; 255 is the ignore label.
        instances: uint16 [H, W], 0 for background, else the number of an object; None where they
            were not asked for.
    """

    id: str
    group: str
    image: bytes | np.ndarray
    mask: np.ndarray
    instances: np.ndarray | None = None

    @property
    def file(self) -> bytes:
        """The image as a PNG or a JPEG."""
        return (
            self.image if isinstance(self.image, bytes) else images.png(Image.fromarray(self.image))
        )


class Reader:
    """Reads examples of a built dataset; threads may share it.

    Attributes:
        classes: The names of the classes, by class id.
        names: Reads what examples are called alone.
        source: What records depend on besides the dataset, as JSON has it.

    Raises:
        ValueError: If the dataset has no such features, or they are of another kind.
    """

    def __init__(self, builder: Any, features: Features, *, instances: bool = False):
        self._built, self._features = builder, features
        self._image = naming.found(builder, "image", features.image)
        self._mask = naming.found(builder, "mask", features.mask)
        self._segments = features.segments and naming.found(builder, "segments", features.segments)
        self.names = Names(builder, features)
        wanted = [self._image, self._mask, *[self._segments] * bool(self._segments)]
        self._instances = None
        if instances:
            if "instances" not in builder.info.features:
                raise ValueError(
                    f"instances=True: {builder.info.full_name} has no feature `instances`."
                )
            self._instances = naming.found(builder, "instances", "instances")
            wanted.append(self._instances)
        self._subset = naming.subset(builder, [*wanted, *self.names.features])
        own, self._labels = self._own_names(), None
        if features.labels is not None:
            self._labels = labels.Labels.of(features.labels, names=own or ())
        elif self._segments and own:
            self._labels = labels.Labels.of(dict(enumerate(own)))
        elif own is None or len(own) > IGNORE_LABEL:
            has = f"has {len(own):,} classes" if own else "does not name its classes"
            raise ValueError(
                f"mask={features.mask!r} of {builder.info.full_name} {has}: name up to "
                f'{IGNORE_LABEL}, such as labels={{0: "background", 1: "object"}}. In its first '
                f"examples there are {self._seen()}."
            )
        self.classes = self._labels.classes if self._labels else tuple(own or ())
        self.source = features.source(self._labels)
        self._lock = threading.Lock()
        self._classes, self._unnamed = collections.Counter[int](), collections.Counter[int]()

    def read(self, frame: stored.Frame) -> Stored:
        """An example.

        Raises:
            OSError: If it is damaged.
            ValueError: If image or mask hold what they may not.
        """
        return self.example(self.parsed(frame), frame)

    def parsed(self, frame: stored.Frame) -> Any:
        """The features of an example that `example` and `names.of` need; images as files.

        Raises:
            OSError: If it is damaged.
        """
        return stored.parsed(self._built, frame, self._subset)

    def example(self, values: Any, frame: stored.Frame) -> Stored:
        """An example of `parsed`; raises as `read` does. Of the frame its place alone is used."""
        name, group, _ = self.names.of(values, frame)
        instances = self._instances and self._instances.of(values)
        return Stored(
            id=name,
            group=group,
            image=self._picture(self._image.of(values), f"the image of {name}"),
            mask=self._class_ids(values, f"the mask of {name}"),
            instances=None if instances is None else np.ascontiguousarray(instances[..., 0]),
        )

    def size(self, frame: stored.Frame) -> tuple[int, int]:
        """Height and width of an example, whose pixels are not decoded; raises as `read` does."""
        value = self._image.of(self.parsed(frame))
        if not isinstance(value, bytes):
            return value.shape[:2]
        with images.opened(value, name=f"the image of {frame.name}") as image:
            return image.height, image.width

    def require_settings(self) -> None:
        """Raises ValueError if the type of the images needs a setting that is not given.

        The first example says it; where that is damaged, nothing is known.
        """
        kind = self._image.kind
        if kind.np_dtype == np.uint8 and kind.shape[-1] in (None, 1, 3):
            return
        with contextlib.suppress(OSError):
            for frame in self._first(1):
                values = stored.parsed(self._built, frame, self._subset)
                self._picture(self._image.of(values), f"the image of {frame.name}")

    def unnamed(self) -> str:
        """What `labels` did not fit in the masks that were read; empty where it did."""
        if not self._labels:
            return ""
        said = []
        if count := self._unnamed.total():
            every = count + self._classes.total()
            listed = [
                f"{self._labels.shown(value)} ({pixels:,})"
                for value, pixels in self._unnamed.most_common(_SHOWN)
            ]
            more = len(self._unnamed) - len(listed)
            listed += [f"{more:,} more"] if more else []
            said.append(
                f"{count:,} pixels ({count / every:.2%}) have values that labels does not name and "
                f"became the ignore label: {', '.join(listed)}"
            )
        if missing := [x for i, x in enumerate(self.classes) if i not in self._classes]:
            said.append(f"no pixel is of {', '.join(missing)}")
        return "; ".join(said)

    def _own_names(self) -> Sequence[str] | None:
        """The names that the dataset itself has for values; None where it has none."""
        if self._segments:
            return self._segments.kind.feature["label"].names
        kind = self._mask.kind
        if not isinstance(kind, tfds.features.LabeledImage) or not kind.num_classes:
            return None
        return kind.names or [str(number) for number in range(kind.num_classes)]

    def _picture(self, value: Any, name: str) -> bytes | np.ndarray:
        features = self._features
        if isinstance(value, bytes):
            is_as_it_is = features.bands is None and features.value_range is None
            if is_as_it_is and self._image.kind.np_dtype == np.uint8 and pixels.is_plain(value):
                return value
            value = pixels.decoded(value, name=name, colours=True)
            if self._image.kind.np_dtype == np.float32:
                value = _floats(value)
            elif value.ndim == 3 and value.shape[-1] in (2, 4) and features.bands is None:
                value = value[..., :-1]  # transparency
        return pixels.rgb(value, name=name, bands=features.bands, value_range=features.value_range)

    def _class_ids(self, example: Any, name: str) -> np.ndarray:
        value = self._mask.of(example)
        values = self._values(example, value, name)
        if self._labels is None:
            if values.dtype != np.uint8 and not 0 <= values.min() <= values.max() <= IGNORE_LABEL:
                raise ValueError(
                    f"{name} holds {values.min()} to {values.max()}, not 0 to {IGNORE_LABEL}."
                )
            return values.astype(np.uint8, copy=False)
        found, unnamed = self._labels.apply(values)
        counts = np.bincount(found.ravel(), minlength=256)
        with self._lock:
            self._unnamed.update(unnamed)
            self._classes.update({int(i): int(counts[i]) for i in np.flatnonzero(counts)})
            self._classes[IGNORE_LABEL] -= unnamed.total()
        return found

    def _values(self, example: Any, value: Any, name: str) -> np.ndarray:
        """The values of a mask that have classes: integers [H, W]."""
        if isinstance(value, bytes):
            has_colours = self._mask.kind.shape[-1] != 1
            value = pixels.decoded(value, name=name, colours=has_colours)
            if self._mask.kind.np_dtype == np.float32:
                value = _floats(value)
        value = pixels.whole(value, name=name)
        if self._segments:
            if value.ndim == 3:
                value = labels.numbers(value)
            return _of_segments(value, self._segments.of(example))
        if self._labels and self._labels.are_colours:
            if value.ndim == 2:
                value = np.broadcast_to(value[..., None], (*value.shape, 3))
            return labels.numbers(value)
        if value.ndim == 3:
            if (value != value[..., :1]).any():
                raise ValueError(
                    f"{name} has colours. Name them, such as labels={{(128, 64, 128): 'road'}}; "
                    "or, where they number segments, the feature that lists these, segments='…'."
                )
            value = value[..., 0]
        return value

    def _seen(self) -> str:
        """The values in some masks, for a message."""
        counts = collections.Counter[int]()
        for frame in self._first(_LOOKED_AT):
            example = stored.parsed(self._built, frame, self._subset)
            values = self._values(example, self._mask.of(example), f"the mask of {frame.name}")
            counts.update(np.unique(values).tolist())
        listed = sorted(value for value, _ in counts.most_common(4 * _SHOWN))
        return f"{', '.join(map(str, listed))}{' and more' if len(counts) > len(listed) else ''}"

    def _first(self, count: int) -> Iterator[stored.Frame]:
        """The first examples of the first split that has any."""
        splits = self._built.info.splits
        split = [name for name, info in splits.items() if info.num_examples][:1]
        parts = slices.absolute(splits, split[0]) if split else ()
        return itertools.islice(stored.frames(self._built, parts), count)


class Names:
    """Reads id, group and stratum of examples, and nothing else of them.

    Attributes:
        features: Those that are read.
    """

    def __init__(self, builder: Any, features: Features):
        self._built = builder
        self._id, self._group, self._stratum = (
            naming.optional(builder, role, getattr(features, role))
            for role in ("id", "group", "stratum")
        )
        self.features = [x for x in (self._id, self._group, self._stratum) if x]
        self._subset = naming.subset(builder, self.features)

    def read(self, frame: stored.Frame) -> tuple[str, str, str]:
        """Id, group and stratum of an example.

        Raises:
            OSError: If it is damaged.
        """
        example = stored.parsed(self._built, frame, self._subset) if self.features else {}
        return self.of(example, frame)

    def of(self, example: Any, frame: stored.Frame) -> tuple[str, str, str]:
        """The same of an example that has been parsed."""
        name = _text(self._id.of(example)) if self._id else f"{frame.split}#{frame.number}"
        group = _text(self._group.of(example)) if self._group else name
        return name, group, _text(self._stratum.of(example)) if self._stratum else ""

    def log(self) -> None:
        """Prints once a process what the dataset does not name."""
        if lacks := [
            text
            for feature, text in (
                (self._id, "no `id`, so examples go by split and number"),
                (self._group, "no `group`, so each example is a group by itself"),
            )
            if not feature
        ]:
            _log(f"{self._built.info.full_name} has {' and '.join(lacks)}.")


@functools.cache
def _log(text: str) -> None:
    print(console.printable(text), file=sys.stderr)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _floats(values: np.ndarray) -> np.ndarray:
    """The numbers that TFDS keeps as the four bytes of colours."""
    return np.ascontiguousarray(values).view("<f4")


def _of_segments(values: np.ndarray, listed: Any) -> np.ndarray:
    """The labels of numbered segments, int64 [H, W]; `VOID` for number 0; `UNLISTED`."""
    numbers = np.asarray(listed["id"], np.int64)
    order = np.argsort(numbers)
    numbers = np.concatenate([[0], numbers[order]])
    kinds = np.concatenate([[labels.VOID], np.asarray(listed["label"], np.int64)[order]])
    places = np.searchsorted(numbers, values, "right") - 1
    return np.where(numbers[places] == values, kinds[places], labels.UNLISTED)

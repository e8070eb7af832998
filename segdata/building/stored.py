"""Examples as they lie in the TFRecord files of a built dataset: read without TensorFlow.

TensorFlow's reading holds Python's lock for a millisecond of each example, while threads that
decode wait. What the features mean is not known here, and images are not decoded.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from segdata.building import internals
from segdata.core.system import tfrecord


class Frame(NamedTuple):
    """An example that is not parsed yet.

    Attributes:
        name: Of the file, and which example of it this is, for messages.
        data: Its bytes, with their checksum.
        split: The split that it is in.
        number: Which example of that split it is, from 0.
    """

    name: str
    data: bytes
    split: str
    number: int


def frames(builder: Any, parts: Iterable[tuple[str, int, int]]) -> Iterator[Frame]:
    """Some examples in the order of the files, for `parsed`.

    Args:
        builder: Of a built dataset.
        parts: As `slices.absolute` gives them: a split's name, and the first and one beyond the
            last example.

    Raises:
        OSError: If a file is missing, cut, damaged in the length of an example, or holds another
            number of them than the dataset says.
    """
    for name, first, last in parts:
        info, before = builder.info.splits[name], 0
        for path, count in zip(info.filepaths, info.shard_lengths, strict=True):
            start, stop, offset = max(first - before, 0), min(last - before, count), before
            before += count
            if start >= stop:
                continue
            number = start
            try:
                for data in tfrecord.frames(path, first=start):
                    if number == count:
                        raise ValueError(f"{path} holds more than {count:,} examples.")
                    if number == stop:
                        break
                    yield Frame(f"example {number} of {path.name}", data, name, offset + number)
                    number += 1
                if number < stop:
                    raise ValueError(f"{path} ends after {number:,} of {count:,} examples.")
            except FileNotFoundError as error:
                raise _damaged(builder, f"there is no {path}.") from error
            except ValueError as error:
                raise _damaged(builder, str(error)) from error


def parsed(builder: Any, frame: Frame, features: Any = None) -> Mapping[str, Any]:
    """The features of an example as NumPy values; images as the files that they were.

    Args:
        builder: Of a built dataset.
        frame: One of its examples.
        features: Those that are read, nested as the dataset's; all where None.

    Raises:
        OSError: If it is damaged.
    """
    features = builder.info.features if features is None else features
    try:
        found = features.deserialize_example_np(
            tfrecord.unframed(frame.data), decoders=_decoders(features)
        )
        _require_kinds(features, found)
        return found
    except MemoryError:
        raise
    except Exception as error:  # protocol buffers, arrays and zlib have kinds of their own
        raise _damaged(builder, f"{frame.name}: {error}") from error


def _decoders(features: Any) -> dict[str, Any]:
    """Those that leave images as they are, and keep shapes, at any depth of dictionaries."""
    decoders: dict[str, Any] = {}
    for key, feature in features.items():
        if isinstance(feature, tfds.features.Image):
            decoders[key] = tfds.decode.SkipDecoding()
        elif isinstance(feature, tfds.features.FeaturesDict):
            decoders[key] = _decoders(feature)
        elif isinstance(feature, tfds.features.Tensor) and feature.shape.count(None) > 1:
            decoders[key] = internals.Shaped()
    return decoders


def _require_kinds(features: Any, found: Mapping[str, Any]) -> None:
    """TFDS gives None, or a number, where bytes are missing."""
    for key, feature in features.items():
        if isinstance(feature, tfds.features.FeaturesDict):
            _require_kinds(feature, found[key])
            continue
        holds_bytes = isinstance(feature, tfds.features.Image | tfds.features.Text)
        if holds_bytes and not isinstance(found[key], bytes):
            raise ValueError(f"its {key} is missing, or of another kind.")


def _damaged(builder: Any, what: str) -> OSError:
    return OSError(
        f"{builder.info.full_name} in {builder.data_dir} is damaged: {what} Build it again with "
        "--overwrite."
    )

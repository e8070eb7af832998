"""All that is used of TFDS beyond its public API; no other module touches a private part of it.

TFDS promises nothing of what is here. `tests/test_internals.py` states each thing and runs it, so
that a release of TFDS that changes one fails there, by name; `pyproject.toml` admits the releases
that were tried. Nothing of archives, groups or pixels is known here.
"""

import abc
import dataclasses
import functools
import operator
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import tensorflow_datasets as tfds
from tensorflow_datasets.core import constants, dataset_metadata, splits, utils

INCOMPLETE = constants.INCOMPLETE_PREFIX
"""A dataset is built in a folder of this prefix, six characters, "_" and its own name."""

progress = utils.tqdm
"""A progress bar, off after `tfds.disable_progress_bar`."""

Pages = dataset_metadata.DatasetMetadata
"""What TFDS reads of the pages beside a builder: description, citation, tags."""

DATA_DIR = constants.DATA_DIR
"""Where datasets are kept if nothing else is said."""


class File(NamedTuple):
    """What TFDS records of a file of a split.

    Attributes:
        examples: How many it holds.
        size: Their bytes.
    """

    examples: int
    size: int


class Image(tfds.features.Image):
    """An image that a dataset's files record as TFDS's own, so that they are read without this."""

    @property
    def _fully_qualified_class_name(self) -> str:
        parent = tfds.features.Image
        return f"{parent.__module__}.{parent.__name__}"


class BaseBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder that writes its files by itself, and chooses what is read for a split.

    Attributes:
        MORE_CONFIGS: Configurations built when asked for by name; `tfds build` without one builds
            all of `BUILDER_CONFIGS`.
    """

    MORE_CONFIGS: ClassVar[Sequence[tfds.core.BuilderConfig]] = ()

    @utils.classproperty
    @classmethod
    def builder_configs(  # pyright: ignore[reportIncompatibleVariableOverride]
        cls,
    ) -> dict[str, tfds.core.BuilderConfig]:
        """All configurations by name, as `tfds.load` looks them up."""
        return {config.name: config for config in [*cls.BUILDER_CONFIGS, *cls.MORE_CONFIGS]}

    @abc.abstractmethod
    def write(
        self, parts: Mapping[str, Any], config: tfds.download.DownloadConfig
    ) -> Mapping[str, Iterable[File]]:
        """Writes all splits.

        Args:
            parts: What `_split_generators` returned.
            config: Of the build.

        Returns:
            Split to its files, which are those of `paths`.
        """

    @abc.abstractmethod
    def whole(self, split: Any) -> Any:
        """What to read for one split: a string, or another `AbstractSplit`."""

    @property
    @abc.abstractmethod
    def keywords(self) -> dict[str, Any]:
        """Arguments of the constructor that TFDS does not know, for a copy in another process."""

    def paths(self, split: str, *, count: int) -> Sequence[os.PathLike[str]]:
        """Where the files of a split belong, while the dataset is being built."""
        return self._get_filename_template(split).sharded_filepaths(count)

    def writer(self) -> tfds.core.ExampleWriter:
        """Writes a file in the format that was asked for."""
        return self._example_writer()

    def fresh(self) -> Self:
        """A builder made like this one, which has not seen what was built since."""
        made = self.__getstate__()["_original_state"]
        return type(self)(**made, file_format=self.info.file_format)  # which TFDS leaves out

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()["_original_state"]
        return {"_original_state": state | self.keywords}

    def _generate_splits(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig,
    ) -> list[tfds.core.SplitInfo]:
        written = self.write(self._split_generators(dl_manager), download_config)
        return [
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[file.examples for file in files],
                num_bytes=sum(file.size for file in files),
                filename_template=self._get_filename_template(split),
            )
            for split, files in written.items()
        ]

    def _as_dataset(
        self, split: Any, decoders: Any = None, read_config: Any = None, shuffle_files: bool = False
    ) -> Any:
        return super()._as_dataset(self.whole(split), decoders, read_config, shuffle_files)


@dataclasses.dataclass(frozen=True)
class Moved(splits.AbstractSplit):
    """A split whose parts begin and end elsewhere.

    Attributes:
        split: A string, a `ReadInstruction`, or one of `even_splits`.
        move: Given the name of a split, how many examples it has, and the first example of a part
            and that after its last: where the part is to begin and end.
    """

    split: Any
    move: Callable[[str, int, int, int], tuple[int, int]]

    def __str__(self) -> str:
        return str(self.split)

    def to_absolute(self, split_infos: Mapping[str, Any]) -> list[Any]:
        """The parts as TFDS wants them."""

        def moved(part: Any) -> splits.AbstractSplit:
            count = split_infos[part.splitname].num_examples
            end = count if part.to is None else part.to
            first, last = self.move(part.splitname, count, part.from_ or 0, end)
            return tfds.core.ReadInstruction(part.splitname, from_=first, to=last, unit="abs")

        parts = splits.AbstractSplit.from_spec(self.split).to_absolute(split_infos)
        return functools.reduce(operator.add, map(moved, parts)).to_absolute(split_infos)


def absolute(split: Any, known: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """The parts of a split: a split's name, and the first and one beyond the last example.

    Args:
        split: A string, a `ReadInstruction`, a `Moved`, or one of `even_splits`.
        known: `DatasetInfo.splits`.
    """
    return [
        (
            part.splitname,
            part.from_ or 0,
            known[part.splitname].num_examples if part.to is None else part.to,
        )
        for part in splits.AbstractSplit.from_spec(split).to_absolute(known)
    ]


def serializer(features: Any) -> Callable[[Mapping[str, Any]], bytes]:
    """What makes the bytes of an example, the same in every process, of the values of features.

    Args:
        features: A `tfds.features.FeaturesDict`.
    """
    made = tfds.core.ExampleSerializer(features.get_serialized_info())

    def serialize(example: Mapping[str, Any]) -> bytes:
        encoded = made.get_tf_example(features.encode_example(example))
        # A protocol buffer writes its map in an order that changes from process to process.
        return encoded.SerializeToString(deterministic=True)

    return serialize


class Shaped(tfds.decode.Decoder):
    """Reads a tensor of several unknown sides with NumPy, in the shape that is stored beside it.

    TFDS itself cuts that shape to as many sides as the tensor has bytes.
    """

    def decode_example(self, serialized_example: Any) -> Any:
        """The array of a shape and a value."""
        kind = self.feature
        shape = zip(kind.shape, serialized_example["shape"], strict=True)
        known = tfds.features.Tensor(
            shape=[int(stored) if side is None else side for side, stored in shape],
            dtype=kind.np_dtype,
            encoding=kind.to_json_content().encoding,
        )
        return known.decode_example_np(serialized_example["value"])


def manual_folder(dl_manager: Any) -> pathlib.Path:
    """The manual folder of a build, also where it is missing or empty, which TFDS refuses."""
    try:
        return pathlib.Path(dl_manager.manual_dir)
    except AssertionError:
        return pathlib.Path(dl_manager._manual_dir)


def build_command() -> Any:
    """The flags of `tfds build`: a frozen dataclass whose `execute` builds."""
    from tensorflow_datasets.scripts.cli import build

    return build.Args

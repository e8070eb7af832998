"""What the TFDS builders share: where archives lie, what an example holds, how it is written.

Equal archives make equal files, byte for byte. Nothing of a single data set is known here.
"""

import contextlib
import dataclasses
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.utils import shard_utils

from segdata import archives, images, kaggle, sources
from segdata.parallel import ordered_map
from segdata.sources import Example

Entry = TypeVar("Entry", bound="HasId")
Result = TypeVar("Result")


class HasId(Protocol):
    """What tells of an example where it lies."""

    @property
    def id(self) -> str:
        """Of the example."""
        ...


@dataclasses.dataclass(frozen=True)
class Shards(shard_utils.ShardConfig):
    """Shards of 8 MiB or more, where TFDS makes one of all that is under 128 MiB.

    One shard cannot be shuffled, read in parallel or dealt to hosts. TFDS computes their number
    from the class's own smallest size and passes over that of a `DownloadConfig`.
    """

    min_shard_size: int = 8 << 20


class Photo(tfds.features.Image):
    """An image that `as_dataset` decodes to the pixels that `data_source` does.

    By itself TensorFlow decodes JPEG with the fast integer transform, up to 6 levels away from
    Pillow on 57 % of the pixels of drawn cars. The dataset's files know it as TFDS's own image, so
    that they can be read without this package.
    """

    @property
    def _fully_qualified_class_name(self) -> str:
        parent = tfds.features.Image
        return f"{parent.__module__}.{parent.__name__}"

    def decode_example(self, example: Any) -> Any:
        """uint8 [H, W, 3] of the bytes of a JPEG or a PNG."""
        import tensorflow as tf

        return tf.io.decode_jpeg(example, channels=3, dct_method="INTEGER_ACCURATE")  # PNG too


class SourceBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder whose examples come from archives in the manual dir, fetched if they must be.

    What it is built from is in `kaggle.SOURCES`, under its name.

    Attributes:
        skip_damaged: Whether examples that cannot be read are left out and listed in the metadata
            under `skipped`, id to reason; else the first of them ends the build.
    """

    def __init__(self, *, skip_damaged: bool = False, **kwargs: Any):
        self.skip_damaged = skip_damaged
        super().__init__(**kwargs)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()["_original_state"]
        return {"_original_state": state | {"skip_damaged": self.skip_damaged}}

    def describe(
        self,
        *,
        labels: Sequence[str],
        group: str,
        homepage: str,
        license: str,  # noqa: A002 - as TFDS calls it
        more: Mapping[str, tfds.features.FeatureConnector] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> tfds.core.DatasetInfo:
        """The dataset's description.

        Args:
            labels: The names of the classes, from 0.
            group: What examples of one group have in common.
            homepage: Where the data are from.
            license: The data's.
            more: Features besides image, mask, id and group.
            metadata: What is saved with the dataset.
        """
        features = {
            "image": Photo(shape=(None, None, 3)),
            "mask": tfds.features.LabeledImage(
                labels=list(labels),
                shape=(None, None, 1),
                doc="Class of each pixel; 255 where nobody knows.",
            ),
            "id": tfds.features.Text(),
            "group": tfds.features.Text(doc=group),
            **(more or {}),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "mask"),
            homepage=homepage,
            license=license,
            metadata=tfds.core.MetadataDict({"skipped": {}, **(metadata or {})}),
        )

    def find(self, dl_manager: tfds.download.DownloadManager, name: str) -> archives.Tree | None:
        """The archive or folder `name` in the builder's own folder of the manual dir, or in that.

        Raises:
            ArchiveError: If what was found is broken.
        """
        return kaggle.find(self.name, name, folder=kaggle.manual_folder(dl_manager))

    def need(self, dl_manager: tfds.download.DownloadManager, name: str) -> archives.Tree:
        """The same as `find`, of what the dataset cannot do without; fetched if it is nowhere.

        Raises:
            FileNotFoundError: If it is nowhere and there are no credentials to fetch it with; three
                lines say what to do.
            FetchError: If it cannot be fetched.
            ArchiveError: If what was found is broken.
        """
        if tree := self.find(dl_manager, name):
            return tree
        folder = kaggle.manual_folder(dl_manager)
        config = self.builder_config.name if self.builder_config else "default"
        kaggle.supply(self.name, folder, config=config)
        if tree := self.find(dl_manager, name):
            return tree
        raise archives.ArchiveError(
            f"{folder}: what was fetched for {self.name} holds no {name}. Give the archive itself."
        )

    def kept(self, entries: list[Entry], faults: Mapping[str, str]) -> list[Entry]:
        """The entries of a source's survey; without `skip_damaged` there must be no faults.

        Raises:
            ArchiveError: The first fault.
        """
        if not self.skip_damaged:
            return sources.whole(entries, faults)
        self._skipped.update({key: _line(fault) for key, fault in faults.items()})
        if not entries:
            raise archives.ArchiveError(
                f"Every example of {self.name} is damaged; the first: {next(iter(faults.values()))}"
            )
        return entries

    def readable(
        self, entries: Iterable[Entry], read: Callable[[Entry], Result]
    ) -> Iterator[tuple[Entry, Result]]:
        """Reads entries on all cores, in their order; passes over the damaged with `skip_damaged`.

        Args:
            entries: Of any source.
            read: Reads one, or a part of it.

        Yields:
            The entries that could be read, with what was read.

        Raises:
            ArchiveError: If one is damaged and may not be skipped, or all are.
        """

        def attempt(entry: Entry) -> tuple[Entry, Result | archives.ArchiveError]:
            try:
                return entry, read(entry)
            except archives.ArchiveError as error:
                return entry, error

        found, last = 0, None
        for entry, result in ordered_map(attempt, entries):
            if not isinstance(result, archives.ArchiveError):
                found += 1
                yield entry, result
            elif self.skip_damaged:
                last = result
                self._skipped[entry.id] = _line(result)
            else:
                raise result
        if last and not found:
            raise archives.ArchiveError(
                f"Every example of a split of {self.name} is damaged; the last: {last}"
            ) from last

    @property
    def _skipped(self) -> dict[str, str]:
        metadata: Any = self.info.metadata
        return metadata["skipped"]

    def encoded(
        self, entries: Iterable[Entry], read: Callable[[Entry], tuple[Example, dict[str, Any]]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Reads and encodes examples on all cores, in the order of the entries.

        Args:
            entries: What to read.
            read: Reads one, and gives the features that it has besides or in place of image, mask,
                id and group.

        Yields:
            Key and features of each. An example's `overlap` or `renewed`, where there is any, goes
            to the metadata of that name, if the dataset has them.
        """

        def features(entry: Entry) -> tuple[Example, dict[str, Any]]:
            example, more = read(entry)
            mask = images.png(Image.fromarray(example.mask), strategy=zlib.Z_RLE)
            common = {"id": example.id, "group": example.group}
            return example, common | {"image": example.image, "mask": mask} | more

        metadata = self.info.metadata or {}  # TFDS saves it after the last example
        for _, (example, found) in self.readable(entries, features):
            for note in ("overlap", "renewed"):
                if note in metadata and (value := getattr(example, note)):
                    metadata[note][example.id] = value
            yield example.id, found

    def _download_and_prepare(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig,
    ) -> None:
        settings = dataclasses.fields(download_config)
        same = {field.name: getattr(download_config, field.name) for field in settings}
        with _sorted_maps():
            super()._download_and_prepare(dl_manager, _Download(**same))
        if self._skipped:
            print(
                f"{len(self._skipped):,} damaged examples were left out; the dataset's metadata "
                "lists them under `skipped`."
            )


class _Download(tfds.download.DownloadConfig):
    def get_shard_config(self) -> shard_utils.ShardConfig:
        return Shards(num_shards=self.num_shards)


@contextlib.contextmanager
def _sorted_maps() -> Iterator[None]:
    # A protocol buffer writes its map in an order that changes from process to process, and TFDS
    # has no setting for it; sorted, two builds are the same files.
    original = tfds.core.ExampleSerializer.serialize_example
    tfds.core.ExampleSerializer.serialize_example = _serialized
    try:
        yield
    finally:
        tfds.core.ExampleSerializer.serialize_example = original


def _serialized(serializer: tfds.core.ExampleSerializer, example: Any) -> bytes:
    return serializer.get_tf_example(example).SerializeToString(deterministic=True)


def _line(fault: object) -> str:
    return " ".join(str(fault).split())

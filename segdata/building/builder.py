"""What builds the TFDS dataset of a source: finding archives, features, splits, the order.

Equal archives make equal files, byte for byte. No single dataset is known here.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from segdata import archives, console
from segdata.archives import images, trees
from segdata.building import internals, shards, slices, splits, unfinished
from segdata.core.system import files
from segdata.core.system.parallel import ordered_map
from segdata.kaggle import downloads
from segdata.sources import DIVIDED, Config, Entry, Example, Part, Source


class Photo(internals.Image):
    """An image that `as_dataset` decodes to the pixels that `data_source` does.

    By itself TensorFlow decodes JPEG with the fast integer transform, up to 6 levels away from
    Pillow on 57 % of the pixels of synthetic cars.
    """

    def decode_example(self, example: Any) -> Any:
        """uint8 [H, W, 3] of the bytes of a JPEG or a PNG."""
        import tensorflow as tf

        return tf.io.decode_jpeg(example, channels=3, dct_method="INTEGER_ACCURATE")  # PNG too


class _Listed(NamedTuple):
    """An example to be written."""

    entry: Entry
    group: str
    read: Callable[[Any], Example]


class SourceBuilder(internals.BaseBuilder, skip_registration=True):
    """A builder of a source's examples from archives in the manual dir, downloaded if missing.

    Groups are contiguous in its files, and no slice of a split ever splits one.

    Attributes:
        SOURCE: What is built.
        skip_damaged: Whether examples that cannot be read are skipped and listed in the metadata
            under `skipped`, id to reason; else the first of them ends the build.
        renew: Whether an existing dataset is rebuilt; it stays until the new one is complete.
    """

    SOURCE: ClassVar[Source]
    VERSION = tfds.core.Version("1.0.0")

    def __init_subclass__(cls, **kwargs: Any):
        configs = cls.SOURCE.configs
        usual = [x for x in configs if x.files == configs[0].files and not x.is_extra]
        cls.BUILDER_CONFIGS = [_described(config) for config in usual]
        # They need archives that the first does not, or are extra.
        cls.MORE_CONFIGS = [_described(config) for config in configs if config not in usual]
        cls.MANUAL_DOWNLOAD_INSTRUCTIONS = downloads.instructions(cls.SOURCE, "MANUAL_DIR")
        super().__init_subclass__(**kwargs)

    def __init__(self, *, skip_damaged: bool = False, renew: bool = False, **kwargs: Any):
        self.skip_damaged, self.renew = skip_damaged, renew
        super().__init__(**kwargs)

    @property
    def keywords(self) -> dict[str, Any]:
        """`skip_damaged`; what is built anew is not built anew again."""
        return {"skip_damaged": self.skip_damaged}

    @property
    def config(self) -> Config:
        """What is built of the source."""
        name = self.builder_config.name if self.builder_config else ""
        return self.SOURCE.config(name)

    def _info(self) -> tfds.core.DatasetInfo:
        source, config = self.SOURCE, self.config
        features = {
            "image": Photo(shape=(None, None, 3)),
            "mask": tfds.features.LabeledImage(
                labels=list(config.classes),
                shape=(None, None, 1),
                doc="Class of each pixel; 255 is the ignore label.",
            ),
            "id": tfds.features.Text(),
            "group": tfds.features.Text(doc=source.group),
        }
        if config.objects:
            features["instances"] = tfds.features.Tensor(
                shape=(None, None, 1),
                dtype=np.uint16,
                # Not a 16-bit PNG: `data_source` could not decode that without OpenCV.
                encoding=tfds.features.Encoding.ZLIB,
                doc=f"0 for background, else the number of the {config.objects}.",
            )
        metadata: dict[str, Any] = {"skipped": {}, **{note: {} for note in source.notes}}
        if config.colours:
            metadata["palette"] = {name: list(colour) for name, colour in config.colours.items()}
        pages = self.get_metadata()
        return slices.Info(
            builder=self,
            description=pages.description,
            citation=pages.citation,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "mask"),
            homepage=source.homepage,
            license=source.license,
            metadata=tfds.core.MetadataDict(metadata),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, shards.Part]:
        listed = collections.defaultdict[str, list[_Listed]](list)
        for part in self.SOURCE.list(functools.partial(self._find, dl_manager), self.config):
            entries = self.kept(part.entries, part.faults)
            if not entries and (part.split or not listed):
                first = next(iter(self._skipped.values()), "nothing is listed")
                raise archives.ArchiveError(
                    f"Every example of {self.name} is damaged; the first: {first}"
                )
            split_of, groups = self.divided(part, entries)
            for split in part.split.split("+"):
                for entry in entries:
                    if split_of.get(entry.id) == split:
                        listed[split].append(_Listed(entry, groups[entry.id], part.read))
        return {split: self._generate_examples(members) for split, members in listed.items()}

    def kept(self, entries: Sequence[Entry], faults: Mapping[str, str]) -> list[Entry]:
        """The entries of a source's survey; without `skip_damaged`, faults raise.

        An example whose name is not UTF-8 is a fault as well, as datasets hold it as text.

        Raises:
            ArchiveError: With the first fault.
        """
        misnamed = {
            entry.id: f"the name of {entry.id} is not UTF-8; rename its files."
            for entry in entries
            if not _is_utf8(entry.id)
        }
        faults = {**faults, **misnamed}
        entries = [entry for entry in entries if entry.id not in misnamed]
        for key, fault in faults.items():
            if not self.skip_damaged:
                raise archives.ArchiveError(fault)
            self._skipped[key] = _line(fault)
        return entries

    def divided(
        self, part: Part, entries: Sequence[Entry]
    ) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """The split and the group of each example that can be read, by id.

        Args:
            part: What they are of.
            entries: Its examples.
        """
        groups = {entry.id: entry.group for entry in entries}
        if part.split != DIVIDED:
            return dict.fromkeys(groups, part.split), groups
        strata = dict.fromkeys(groups, "")
        if read_image := self.SOURCE.read_image:
            looks = self._looks(part, entries, read_image)
            groups = splits.near_duplicates({key: look.hash for key, look in looks.items()})
            strata = {key: look.stratum for key, look in looks.items()}
        return splits.assign(groups, strata=strata), groups

    def _looks(
        self, part: Part, entries: Sequence[Entry], read_image: Callable[..., Image.Image]
    ) -> dict[str, splits.Look]:
        """A hash and a stratum of each image by id: a first pass over all of them."""

        def attempt(entry: Entry) -> splits.Look | archives.ArchiveError:
            try:
                return splits.look(read_image(part.tree, entry))
            except archives.ArchiveError as error:
                return error

        found, last = {}, None
        for entry, look in zip(entries, ordered_map(attempt, entries), strict=True):
            if isinstance(look, splits.Look):
                found[entry.id] = look
            elif self.skip_damaged:
                last = look
                self._skipped[entry.id] = _line(look)
            else:
                raise look
        if last and not found:
            raise archives.ArchiveError(
                f"Every example of a split of {self.name} is damaged; the last: {last}"
            ) from last
        return found

    def _find(self, dl_manager: tfds.download.DownloadManager, name: str) -> trees.Tree | None:
        """An archive or folder that the config has; it is downloaded if missing and required.

        Raises:
            FileNotFoundError: If it is missing and there are no credentials; the message has
                instructions.
            FetchError: If it cannot be downloaded.
            ArchiveError: If what was found is broken.
        """
        file = next((file for file in self.config.files if file.stem == name), None)
        if file is None:
            return None
        folder = internals.manual_folder(dl_manager)
        tree = self.SOURCE.find(name, folder=folder)
        if tree or file.is_optional:
            return tree
        downloads.supply(self.SOURCE, folder, config=self.config.name)
        if tree := self.SOURCE.find(name, folder=folder):
            return tree
        raise archives.ArchiveError(
            f"{folder}: what was fetched for {self.name} holds no {name}. Give the archive itself."
        )

    @property
    def _skipped(self) -> dict[str, str]:
        metadata: Any = self.info.metadata
        return metadata["skipped"]

    def _generate_examples(self, listed: Iterable[_Listed]) -> shards.Part:
        """A split, group by group: its examples, and how they are read and encoded.

        What the source notes of an example, where there is any, goes to the metadata of that name.
        """
        serialize = internals.serializer(self.info.features)
        has_objects = bool(self.config.objects)

        def record(listed: _Listed) -> shards.Record:
            common = {"id": listed.entry.id, "group": listed.group}
            try:
                example = listed.read(listed.entry)
            except archives.ArchiveError as error:
                if not self.skip_damaged:
                    raise
                return shards.Record(**common, data=None, notes={"skipped": _line(error)})
            features: dict[str, Any] = common | {
                "image": example.image,
                "mask": images.mask_png(example.mask),
            }
            if has_objects:
                objects = example.instances
                if objects is None:
                    objects = np.zeros(example.mask.shape, np.uint16)
                features["instances"] = objects[..., None]
            return shards.Record(
                **common,
                data=serialize(features),
                notes={
                    note: value for note in self.SOURCE.notes if (value := getattr(example, note))
                },
            )

        return shards.Part(splits.sort_by_group(listed, lambda each: each.group), record)

    def whole(self, split: Any) -> Any:
        """What to read for a split: of each group all or nothing."""
        require_groups(self)
        return self.info.splits.whole(split)

    def as_data_source(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, split: Any = None, **options: Any
    ) -> Any:
        """As TFDS's, but slices never split a group."""
        whole = slices.each(self.whole, split)
        return super().as_data_source(**{"split": whole, **options})

    def download_and_prepare(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, **options: Any
    ) -> None:
        """As TFDS's, but of several builds at once one builds and the others wait.

        Raises:
            ValueError: If `max_examples_per_split` is less than 1, or the folder's name not UTF-8.
            OSError: If the disk is full.
        """
        config = options.get("download_config")
        most = config.max_examples_per_split if config else None
        if most is not None and most < 1:  # TFDS would make an empty dataset
            raise ValueError(f"max_examples_per_split={most}: a whole number from 1.")
        files.require_utf8(self.data_dir)
        overwrites = self.renew or (config and config.download_mode.overwrite_dataset)
        is_reused = self.is_prepared() and not overwrites
        if is_reused:
            self.require_reusable()
        if is_reused or "://" in self.data_dir:  # a bucket has no locks
            super().download_and_prepare(**options)
            return
        with (
            unfinished.explained(self.data_dir),
            unfinished.alone(
                self.data_dir,
                waiting=lambda other: console.log(
                    f"{self.data_dir} is being built by {other}; waiting."
                ),
            ),
        ):
            if not self.is_prepared():
                super().download_and_prepare(**options)
            elif overwrites:
                with unfinished.replaced(self.data_dir):
                    super(SourceBuilder, self.fresh()).download_and_prepare(**options)
                self.info.read_from_directory(self.data_dir)
            else:  # built meanwhile
                self.require_reusable()
                self.info.read_from_directory(self.data_dir)

    def require_reusable(self) -> None:
        """Called where the dataset is built already: of a source it is the same every time."""

    def write(
        self, parts: Mapping[str, shards.Part], config: tfds.download.DownloadConfig
    ) -> dict[str, list[internals.File]]:
        """Writes all splits, on Apache Beam where the build is told so."""
        most = config.max_examples_per_split
        parts = {
            split: dataclasses.replace(part, entries=part.entries[:most])
            for split, part in parts.items()
        }
        paths = {
            split: self.paths(
                split,
                count=shards.number(
                    len(part.entries), size=self.SOURCE.example_bytes, asked=config.num_shards
                ),
            )
            for split, part in parts.items()
        }
        if config.beam_runner or config.beam_options:
            written = shards.write_on_beam(parts, paths, to=self.writer(), config=config)
        else:
            written = shards.write(parts, paths, to=self.writer())
        self._note(written)
        return {
            split: [internals.File(len(shard.groups), shard.size) for shard in files]
            for split, files in written.items()
        }

    def _note(self, written: Mapping[str, Sequence[shards.Written]]) -> None:
        """Adds groups and notes of the written shards to the metadata, which TFDS saves last."""
        metadata: Any = self.info.metadata
        for split, parts in written.items():
            sizes = slices.sizes(group for shard in parts for group in shard.groups)
            if max(sizes, default=1) > 1:
                metadata.setdefault("groups", {})[split] = sizes
            for shard in parts:
                for note in shard.notes.keys() & metadata.keys():
                    metadata[note] |= shard.notes[note]
            if not sizes:
                raise archives.ArchiveError(
                    f"Every example of {split} of {self.name} is damaged; one of them: "
                    f"{next(iter(self._skipped.values()))}"
                )
        if self._skipped:
            console.log(
                f"{len(self._skipped):,} examples were left out; the dataset's metadata lists them "
                "under `skipped`, each with its reason."
            )


def require_groups(builder: Any) -> None:
    """Refuses a dataset built here that does not note its groups: slices would split them.

    Args:
        builder: Of any built dataset; those of others need not note any.

    Raises:
        ValueError: If its `metadata.json` is missing, or says nothing.
    """
    info, path = builder.info, builder.data_path / "metadata.json"
    is_ours = isinstance(builder, SourceBuilder) or info.module_name.startswith("segdata.")
    if is_ours and not (path.exists() and "skipped" in (info.metadata or {})):
        raise ValueError(
            f"{path}, where the groups of {info.full_name} are noted, is missing or empty. Build "
            "the dataset again with --overwrite."
        )


def _described(config: Config) -> tfds.core.BuilderConfig:
    return tfds.core.BuilderConfig(name=config.name, description=config.description)


def _is_utf8(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _line(fault: object) -> str:
    return " ".join(str(fault).split())

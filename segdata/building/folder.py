"""A user's own images and masks as a TFDS dataset, which is read without this code.

What the folder holds is known to `sources.folder`.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

import segdata.datasets  # noqa: F401 - registers the builders, whose names are taken
from segdata import console, sources
from segdata.building import builder, internals, splits, unfinished
from segdata.console import counted
from segdata.core.system import files
from segdata.sources.folder.examination import examine
from segdata.sources.folder.pairing import Entry
from segdata.sources.folder.reading import Examined, read_example
from segdata.sources.folder.settings import Folder
from segdata.sources.folder.survey import group_of, listed, survey

_SPLITS = ("train", "validation", "test")


def build_folder(
    images: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> Any:
    """Builds a dataset of a folder of images and their masks.

    It can be loaded by `tfds.load(NAME, data_dir=...)`, also without segdata, and is called
    `folder:NAME` where segdata and unet take a dataset's name.

    Args:
        images: The folder or zip of the images.
        data_dir: Where datasets are kept; TFDS's default where None.
        overwrite: Whether a dataset of that name is built anew.
        settings: The fields of `segdata.sources.folder.settings.Folder`, which are the flags of
            `segdata build folder`: `masks`, `coco`, `yolo`, `pairs`, `name`, `classes` and others.

    Returns:
        The TFDS builder of the built dataset.

    Raises:
        ValueError: If a setting is wrong, the name is taken, or there is such a dataset already.
        FolderError: If anything in the folder is not understood; it names all of it, and the
            command that continues without it.
    """
    return build(
        Folder(images=pathlib.Path(images), **settings), data_dir=data_dir, overwrite=overwrite
    )


def build(
    source: Folder, *, data_dir: str | os.PathLike[str] | None = None, overwrite: bool = False
) -> Any:
    """`build_folder`, of settings."""
    if source.name in {*sources.names(), *tfds.list_builders(with_community_datasets=False)}:
        raise ValueError(f"--name {source.name}: TFDS has a dataset of that name; choose another.")
    place = pathlib.Path(data_dir or internals.DATA_DIR).expanduser()
    if not overwrite:
        unfinished.recover(place / source.name)
        if any((place / source.name).glob("[!.]*/dataset_info.json")):
            raise _built_already(place / source.name)
    files.require_utf8(place)
    examined = examine(survey(source), splits.look)
    for note in examined.notes:
        console.log(note)
    divided = _divided(examined)
    counts = (f"{len(entries):,} {split}" for split, entries in divided.items())
    console.log(f"Examples: {', '.join(counts)}.")
    kind = _builder_of(examined, divided)
    made = kind(skip_damaged=source.skip_damaged, renew=overwrite, data_dir=place)
    made.download_and_prepare()
    metadata: Any = made.info.metadata
    for note in _covered(examined, metadata):
        console.log(note)
    return made


def _built_already(dataset: os.PathLike[str]) -> ValueError:
    return ValueError(
        f"{os.fspath(dataset)} is built already. Give --overwrite to build it anew, or another "
        "--name."
    )


def _covered(examined: Examined[Any], metadata: Mapping[str, Any]) -> Iterator[str]:
    """What became of objects that lie over each other, by the notes of a build."""
    overlap, hidden = metadata["overlap"], metadata["hidden"]
    is_by_size = any(entry.classes or not entry.masks for entry in examined.entries)
    rule = "the smallest has them, of equally large ones the first"
    if overlap:
        yield (
            f"{sum(overlap.values()):,} pixels of {counted(len(overlap), 'image')} are in several "
            f"objects: {rule if is_by_size else 'the first file has them'}."
        )
    if hidden:
        most = sorted(hidden, key=lambda key: -hidden[key])
        yield (
            f"{counted(sum(hidden.values()), 'object')} without a pixel, as others cover them or "
            f"they are too thin: {listed(f'{key} ({hidden[key]:,})' for key in most)}."
        )


def _builder_of(
    examined: Examined[splits.Look], divided: Mapping[str, Sequence[Entry]]
) -> type[builder.SourceBuilder]:
    """A builder of the dataset, which has no configurations and is not registered."""
    given, scaling = examined.survey.folder, examined.scaling

    class Builder(builder.SourceBuilder, skip_registration=True):
        """Builds a dataset of a folder that was examined."""

        name = given.name
        SOURCE = _source(examined, divided)

        @property
        def config(self) -> sources.Config:
            return self.SOURCE.configs[0]

        def get_metadata(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            return internals.Pages(description=given.description, citation=given.citation, tags=[])

        def require_reusable(self) -> None:
            raise _built_already(self.data_path.parent)  # by another process, of other files

        def _info(self) -> tfds.core.DatasetInfo:
            info = super()._info()
            metadata: Any = info.metadata
            metadata["skipped"] |= examined.skipped
            metadata["masks"] = {"kind": examined.reading.kind, "why": examined.reading.why}
            metadata["intensity"] = scaling.to_json() if scaling else None
            return info

    Builder.BUILDER_CONFIGS, Builder.MANUAL_DOWNLOAD_INSTRUCTIONS = [], None
    return Builder


def _source(
    examined: Examined[splits.Look], divided: Mapping[str, Sequence[Entry]]
) -> sources.Source:
    """What is built: a part for each split."""
    given, photos = examined.survey.folder, examined.survey.photos

    def parts(_: sources.Find, config: sources.Config) -> Iterator[sources.Part]:
        for split, entries in divided.items():
            yield sources.Part(
                split, split, photos, entries, {}, lambda entry: read_example(examined, entry)
            )

    classes = tuple(examined.reading.classes)
    objects = "object" if examined.has_instances else ""
    return sources.Source(
        name=given.name,
        builder=__name__,
        homepage=given.homepage,
        license=given.license,
        group="What no two splits share: as asked for, else near duplicates.",
        configs=(sources.Config("default", "", classes, (), objects=objects),),
        parts=parts,
        example_bytes=_mean_size(examined),
        notes=("overlap", "hidden", "renewed"),
    )


def _divided(examined: Examined[splits.Look]) -> dict[str, list[Entry]]:
    """Split to its examples, each with its group."""
    groups = _groups(examined, examined.entries)
    split_of = _split(examined, examined.entries, groups)
    entries = [dataclasses.replace(each, group=groups[each.id]) for each in examined.entries]
    divided = {split: [e for e in entries if split_of[e.id] == split] for split in _SPLITS}
    return {split: members for split, members in divided.items() if members}


def _groups(examined: Examined[splits.Look], entries: Sequence[Entry]) -> dict[str, str]:
    """Entry id to group: as asked for, else near duplicates."""
    given = examined.survey.folder
    if given.group_regex or given.group_column:
        return {entry.id: group_of(given, entry) or entry.id for entry in entries}
    return splits.near_duplicates({entry.id: examined.looks[entry.id].hash for entry in entries})


def _split(
    examined: Examined[splits.Look], entries: Sequence[Entry], groups: Mapping[str, str]
) -> dict[str, str]:
    """Entry id to split: by folders where all lie in such, else by shares."""
    given = examined.survey.folder
    split_of = dict.fromkeys((entry.id for entry in entries), "train")
    if given.split_by != "share":
        split_of |= {entry.id: entry.split for entry in entries if entry.split}
        _name_leaks(split_of, groups)
    has = {*split_of.values()}
    if "test" not in has:
        _move(split_of, "test", given.test, examined, groups)
    if "validation" not in has:
        _move(split_of, "validation", given.validation / (1 - given.test), examined, groups)
    return split_of


def _move(
    split_of: dict[str, str],
    to: str,
    share: float,
    examined: Examined[splits.Look],
    groups: Mapping[str, str],
) -> None:
    """Moves a share of the training examples to another split, in whole groups."""
    train = {key: groups[key] for key, split in split_of.items() if split == "train"}
    if not share or not train:
        return
    strata = {key: examined.looks[key].stratum for key in train}
    assigned = splits.assign(train, strata=strata, share=share)
    split_of |= {key: to for key, split in assigned.items() if split == "validation"}


def _name_leaks(split_of: Mapping[str, str], groups: Mapping[str, str]) -> None:
    """Says which groups are in several splits."""
    splits_of: dict[str, set[str]] = {}
    for key, split in split_of.items():
        splits_of.setdefault(groups[key], set()).add(split)
    if leaks := sorted(group for group, found in splits_of.items() if len(found) > 1):
        console.log(
            f"{len(leaks):,} groups of near duplicates, or of your own, are in several of the "
            f"folders train, val and test, such as that of {leaks[0]}; --split_by share divides "
            "anew."
        )


def _mean_size(examined: Examined[splits.Look]) -> int:
    """The bytes of an image's file."""
    places = [examined.survey.photos.files[entry.image] for entry in examined.entries]
    sizes = [
        place.stat().st_size if isinstance(place, pathlib.Path) else place.info.file_size
        for place in places
    ]
    return sum(sizes) // len(sizes)

"""What a raw dataset is, and which there are: one module a source.

A module reads and synthesizes one raw format; all else there is to know of the dataset is in its
`Source`. Other packages add sources by entry points. No TensorFlow and no TFDS here.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from segdata import archives
from segdata.core import IGNORE_LABEL

if TYPE_CHECKING:
    import importlib.metadata

    from PIL import Image

    from segdata.archives import rle, trees

GROUP = "segdata.sources"
"""The group of entry points by which a package adds sources, each `NAME = "MODULE:SOURCE"`."""

DIVIDED = "train+validation"
"""The split of a part of which whole groups go to either."""

OURS = ("carvana", "cityscapes_pairs", "dsb2018")
"""The sources of this package; each is `SOURCE` of the module of its name."""

Find = Callable[[str], "trees.Tree | None"]
"""Finds one of a source's archives or folders by its name; None if there is none."""

Layout = Literal["photos", "pairs", "objects"]
"""How files lie, for damage: JPEGs and a GIF each in another archive; JPEGs of a photo beside its
mask; a folder an example, with a PNG and one more for each object."""


class SizeMismatchError(archives.ArchiveError):
    """An image and a mask of different sizes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One image and its labels.

    Attributes:
        id: Unique within the source.
        group: No split may divide the examples of a group.
        image: An encoded RGB image, 8 bits a channel, PNG or JPEG; untouched where the raw file
            already is one.
        mask: uint8 [H, W] of class ids, 255 the ignore label.
        instances: uint16 [H, W], 0 for background, else the number of the object; None where the
            source has no objects.
        overlap: The number of pixels in more than one object.
        hidden: The number of objects that no pixel is left of.
        renewed: Why a JPEG was re-encoded, such as "EXIF orientation 6"; empty where its bytes are
            untouched.
    """

    id: str
    group: str
    image: bytes
    mask: np.ndarray
    instances: np.ndarray | None = None
    overlap: int = 0
    hidden: int = 0
    renewed: str = ""

    def __post_init__(self) -> None:
        kinds = {"mask": (self.mask, np.uint8), "instances": (self.instances, np.uint16)}
        for name, (pixels, kind) in kinds.items():
            if pixels is not None and (pixels.dtype != kind or pixels.ndim != 2):
                raise ValueError(
                    f"{name} of {self.id}: {pixels.dtype} {list(pixels.shape)}, where it is "
                    f"{kind.__name__} [H, W]."
                )


@dataclasses.dataclass(frozen=True)
class Entry:
    """The files of an example; a source may have a class of its own with these attributes.

    Attributes:
        id: Unique within the source.
        group: No split may divide the examples of a group.
        image: The name of the image in the tree of its part.
    """

    id: str
    group: str
    image: str


@dataclasses.dataclass(frozen=True)
class Part:
    """Examples of a source that lie together, listed and not yet read.

    Attributes:
        name: Such as the name of their archive.
        split: The dataset's split that they are; `DIVIDED`; or "" for faults alone.
        tree: Holds their images.
        entries: Their files, each an `Entry` or alike; none only where there are faults.
        faults: Example id or file name to what is wrong with it.
        read: Reads an entry; raises `ArchiveError` where it is damaged.
    """

    name: str
    split: str
    tree: "trees.Tree"
    entries: Sequence[Any]
    faults: Mapping[str, str]
    read: Callable[[Any], Example]

    def __post_init__(self) -> None:
        if self.split and not re.fullmatch(r"\w[\w-]*(\+\w[\w-]*)*", self.split):
            raise ValueError(f"split={self.split!r} is no name of a split, such as 'train'.")
        for entry in self.entries:
            for name in ("id", "group", "image"):
                if not isinstance(getattr(entry, name, None), str):
                    raise ValueError(f"entries of {self.name}: {entry!r:.60} has no text {name!r}.")
        if not isinstance(self.faults, Mapping):
            raise ValueError(f"faults of {self.name}: {self.faults!r:.60} is no mapping.")


@dataclasses.dataclass(frozen=True)
class File:
    """An archive of a source.

    Attributes:
        name: Its name on disk, and on Kaggle if it is there.
        about: Its approximate size in bytes, for estimates.
        holds: What it unpacks to, where that is not its name without ".zip".
        is_optional: Whether a dataset can be built without it.
    """

    name: str
    about: int = 0
    holds: str = ""
    is_optional: bool = False

    @property
    def stem(self) -> str:
        """Its name when it is unpacked."""
        return self.holds or self.name.removesuffix(".zip")


@dataclasses.dataclass(frozen=True)
class Config:
    """A dataset that is built from a source.

    Attributes:
        name: Such as "default".
        description: In a line.
        classes: The names of the classes, from 0.
        files: The archives that it is built from.
        colours: Class to its RGB in the raw masks, where they are coloured.
        objects: What an object is called, if the dataset has a map of objects, `instances`.
        is_extra: Whether it is built only when it is asked for by name.
    """

    name: str
    description: str
    classes: tuple[str, ...]
    files: tuple[File, ...]
    colours: Mapping[str, tuple[int, int, int]] = dataclasses.field(default_factory=dict)
    objects: str = ""
    is_extra: bool = False

    def __post_init__(self) -> None:
        # TFDS keeps a name a line, drops empty lines and the spaces around names.
        kept = {name.strip() for name in self.classes if not name.splitlines()[1:]} - {""}
        if not 1 <= len(self.classes) <= IGNORE_LABEL or len(kept) < len(self.classes):
            raise ValueError(
                f"classes={self.classes}: 1 to {IGNORE_LABEL} names, each once and on one line, "
                f"for the pixels 0 to {IGNORE_LABEL - 1}."
            )
        if odd := [file for file in self.files if not isinstance(file, File)]:
            raise ValueError(f"files of the config {self.name}: {odd[0]!r:.60} is no File.")
        if unknown := self.colours.keys() - {*self.classes}:
            raise ValueError(f"colours of {', '.join(sorted(unknown))}: there is no such class.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """All there is to know of a raw dataset.

    Attributes:
        name: As its commands and its TFDS dataset are called.
        builder: The module of its TFDS builder.
        homepage: Where the data are from.
        license: The data's.
        group: What examples of one group have in common, in words.
        configs: The datasets that can be built; those that are extra or need files which the first
            does not are built when they are asked for by name.
        parts: Given what finds archives, and a config: lists what is there, part by part. It asks
            for all archives that it can read; those that the config has no files of are not found.
        example_bytes: About how many an example takes in a dataset's files.
        draw: Synthesizes a small source in the real layout, called as `draw(folder, examples=…,
            seed=…, unlabelled=…)`; None where nothing does.
        read_image: Reads the image of an entry alone. Where given, groups are those of near
            duplicates, and splits have the same share of grey, colour, dark and bright images.
        kaggle: The competition, or `owner/name` of a dataset on Kaggle; "" if it is not there.
        wholes: Names of zips, without ".zip", that may hold all files.
        folders: Folders that together hold everything, if unpacked without a folder around them.
        tables: Tables of run lengths that should agree with the masks: name to what reads one.
        notes: What of an example is kept in a dataset's metadata: `overlap`, `hidden`, `renewed`.
        layout: Which kinds of damage can happen to it; None if none is known.
        victims: Which synthesized files can be damaged: the archive of photos and of masks, without
            ".zip", and what their names contain.
    """

    name: str
    builder: str
    homepage: str
    license: str
    group: str
    configs: tuple[Config, ...]
    parts: Callable[[Find, Config], Iterator[Part]]
    example_bytes: int = 100_000
    draw: Callable[..., None] | None = None
    read_image: "Callable[[trees.Tree, Any], Image.Image] | None" = None
    kaggle: str = ""
    wholes: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    tables: Mapping[str, "Callable[..., Iterator[rle.Encoded]]"] = dataclasses.field(
        default_factory=dict
    )
    notes: tuple[Literal["overlap", "hidden", "renewed"], ...] = ()
    layout: Layout | None = None
    victims: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.configs:
            raise ValueError(f"configs of {self.name}: there is none; give one Config at least.")
        if odd := [config for config in self.configs if not isinstance(config, Config)]:
            raise ValueError(f"configs of {self.name}: {odd[0]!r:.60} is no Config.")
        if not isinstance(self.builder, str):
            raise ValueError(f"builder={self.builder!r:.60} of {self.name} is no name of a module.")

    def list(self, find: Find, config: Config) -> Iterator[Part]:
        """What `parts` lists, whose `read` raises what `explained` does.

        Raises:
            ArchiveError: If an archive is missing or broken.
            ValueError: If the source itself fails; it names it.
        """
        with explained(f"the source {self.name} cannot list its archives"):
            for part in self.parts(find, config):
                if not isinstance(part, Part):
                    raise TypeError(f"{part!r:.60} is no Part")
                yield dataclasses.replace(part, read=functools.partial(_read, self.name, part.read))

    def config(self, name: str) -> Config:
        """A config by its name.

        Raises:
            ValueError: If there is none.
        """
        known = {config.name: config for config in self.configs}
        if name not in known:
            raise ValueError(f"{self.name} has no config {name!r}; there are {', '.join(known)}.")
        return known[name]

    def find(self, part: str, *, folder: str | os.PathLike[str]) -> "trees.Tree | None":
        """The tree of one of the archives or folders, wherever in a folder it is.

        Args:
            part: The name of the archive or folder, without ".zip".
            folder: Holds it, or the dataset's own folder with it.

        Returns:
            The tree; None if there is none.

        Raises:
            ArchiveError: If what was found is broken.
        """
        from segdata.archives import trees

        for place in (pathlib.Path(folder, self.name), folder):
            if tree := trees.find(place, part, within=self.wholes, parts=self.folders):
                return tree
        return None


def names() -> tuple[str, ...]:
    """The names of all sources.

    Raises:
        ValueError: If two have the same name.
    """
    return tuple(_registered())


def named(name: str, *, offer: str = "there are") -> Source:
    """A source by its name.

    Args:
        name: One of `names`.
        offer: What an error says before it lists them.

    Raises:
        ValueError: If there is no such source, or its package is broken.
    """
    known = _registered()
    if name not in known:
        raise ValueError(f"there is no source {name!r}; {offer} {', '.join(known)}.")
    place = known[name].value
    try:
        what = f"the source {name}, {place}, cannot be imported"
        with explained(what, but=(ImportError, AttributeError, MemoryError)):
            found = known[name].load()
    except (ImportError, AttributeError) as error:
        lacks = isinstance(error, ModuleNotFoundError) and error.name
        if lacks and not place.startswith(lacks):
            raise ValueError(
                f"the source {name} needs the Python package {lacks}, which is not installed."
            ) from error
        raise ValueError(f"the source {name} should be {place}: {error}.") from error
    if not isinstance(found, Source) or found.name != name:
        raise ValueError(f"{place} is registered as the source {name} and is none of that name.")
    return found


@contextlib.contextmanager
def explained(
    what: str, *, but: tuple[type[Exception], ...] = (OSError, MemoryError)
) -> Iterator[None]:
    """Explains errors of a source's own code, which another package may have.

    Args:
        what: What fails, such as "the source disks cannot be imported".
        but: What is raised as it is.

    Raises:
        ValueError: Instead of all other errors, and where it would end the process.
    """
    try:
        yield
    except but:
        raise
    except (Exception, SystemExit) as error:
        raise ValueError(f"{what}: {type(error).__name__}: {error}") from error


def _read(name: str, read: Callable[[Any], Example], entry: Any) -> Example:
    with explained(f"the source {name} cannot read {entry.id}"):
        example = read(entry)
        if not isinstance(example, Example):
            raise TypeError(f"{example!r:.60} is no Example")
        return example


def _registered() -> "dict[str, importlib.metadata.EntryPoint]":
    from importlib import metadata  # takes longer than all else that is imported here

    ours = [metadata.EntryPoint(name, f"{__name__}.{name}:SOURCE", GROUP) for name in OURS]
    found: dict[str, metadata.EntryPoint] = {}
    for point in (*ours, *sorted(metadata.entry_points(group=GROUP))):
        if point.name in found:
            raise ValueError(
                f"{found[point.name].value} and {point.value} are both registered as the source "
                f"{point.name}. Uninstall the package of one."
            )
        found[point.name] = point
    return found

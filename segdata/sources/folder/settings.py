"""What a user says of a folder of images and masks: a frozen dataclass, also its flags.

No licence, class or text of another dataset is known here, and no file is opened.
"""

import dataclasses
import pathlib
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from segdata import archives
from segdata.archives import mask_files
from segdata.sources.folder import pairing

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_COLOUR = re.compile(r"#([0-9a-fA-F]{6})|(\d{1,3}),(\d{1,3}),(\d{1,3})|(\d{1,3})")


class FolderError(archives.ArchiveError):
    """What is wrong with a folder: everything that was found."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder:
    """Where images and masks are, and how they are understood; all else is found out.

    Attributes:
        images: The folder or zip of the images; without --masks, --coco or --yolo their masks are
            there.
        masks: The folder or zip of the masks, which are called like their images.
        coco: Instead of masks: a JSON file of COCO, with polygons or run lengths.
        yolo: Instead of masks: the folder of YOLO's text files of polygons, with data.yaml or
            classes.txt.
        pairs: A CSV file with the columns image and mask, and split and others where wanted.
        tasks: The JSON export of Label Studio, where --masks has its brush labels as PNG.
        name: The dataset's name, such as my_cells; made of the folder's if not given.
        classes: The names of the classes from 0, background first.
        mask_kind: What a mask's numbers are: ids (of classes), binary, colours, instances (one
            number an object) or objects (one file an object); found out over all masks if not
            given.
        palette: Colours and their classes: '#ff0000=road', 255,0,0=road, or 128=road for grey; a
            class named ignore becomes the ignore label.
        threshold: The level from which on a pixel is the object, for masks with smooth edges.
        others: What becomes of numbers and colours that are no class: ignore or nearest; an error
            if not given.
        channels: Which channels are read: one as grey, up to three as red, green and blue; by name
            or number from 0.
        page: Which page of files with several, from 0.
        percentiles: Images of more than 8 bits: which percentiles of all their pixels become 0 and
            255.
        range: Instead: the two levels that become 0 and 255.
        validation: The share of the examples that goes to validation; 0 for none.
        test: The share that goes to test.
        split_by: folders (train, val, test) or share; folders where all images lie in such, if not
            given.
        group_regex: Examples for which this finds the same in their names stay in one split: the
            first of its groups that found anything, or all of it; near duplicates do if not given.
        group_column: The column of --pairs whose value keeps examples in one split.
        unpaired: Images without masks: skip, or background for nothing in them; an error if not
            given.
        skip_sizes: Leave out examples whose mask has another size than the image.
        skip_damaged: Leave out files that cannot be read, and list them in the metadata under
            `skipped`.
        license: The data's licence.
        citation: How to cite the data.
        description: What the data are.
        homepage: Where the data are from.
    """

    images: pathlib.Path
    masks: pathlib.Path | None = None
    coco: pathlib.Path | None = None
    yolo: pathlib.Path | None = None
    pairs: pathlib.Path | None = None
    tasks: pathlib.Path | None = None
    name: str = ""
    classes: list[str] = dataclasses.field(default_factory=list)
    mask_kind: str = ""
    palette: list[str] = dataclasses.field(default_factory=list)
    threshold: int | None = None
    others: str = ""
    channels: list[str] = dataclasses.field(default_factory=list)
    page: int | None = None
    percentiles: tuple[float, float] = (0.1, 99.9)
    range: list[float] = dataclasses.field(default_factory=list)
    validation: float = 0.1
    test: float = 0.0
    split_by: str = ""
    group_regex: str = ""
    group_column: str = ""
    unpaired: str = ""
    skip_sizes: bool = False
    skip_damaged: bool = False
    license: str = ""
    citation: str = ""
    description: str = ""
    homepage: str = ""

    def __post_init__(self) -> None:
        for field in ("images", "masks", "coco", "yolo", "pairs", "tasks"):
            if (path := getattr(self, field)) is not None:
                object.__setattr__(self, field, pathlib.Path(path))
        for field in ("classes", "palette", "channels", "range"):
            object.__setattr__(self, field, list(getattr(self, field)))
        given = [field for field in ("masks", "coco", "yolo") if getattr(self, field)]
        if len(given) > 1:
            raise ValueError(f"--{' and --'.join(given)}: give one of them.")
        if self.pairs and (self.coco or self.yolo):
            raise ValueError("--pairs is for masks; leave out --coco and --yolo.")
        _require(self, "mask_kind", ("", *mask_files.KINDS))
        _require(self, "others", ("", "ignore", "nearest"))
        _require(self, "unpaired", ("", "skip", "background"))
        _require(self, "split_by", ("", "folders", "share"))
        object.__setattr__(self, "name", self.name or _name_of(self.images))
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"--name {self.name}: small letters, digits and _ after a letter, such as my_cells."
            )
        if len({*self.classes}) < len(self.classes) or not all(self.classes):
            raise ValueError(f"--classes {' '.join(self.classes)}: each a name of its own.")
        if len(self.classes) == 1:
            raise ValueError(
                f"--classes {self.classes[0]}: name background too, first: --classes background "
                f"{self.classes[0]}."
            )
        if len(self.classes) > 255:
            raise ValueError(f"--classes: {len(self.classes)} names; 255 is the ignore label.")
        if not (
            0 <= self.validation < 1 and 0 <= self.test < 1 and self.validation + self.test < 1
        ):
            raise ValueError(
                f"--validation {self.validation:g} --test {self.test:g}: shares from 0, less than "
                "1 together."
            )
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"--percentiles {low:g} {high:g}: the lower first, from 0 to 100.")
        if self.range and (len(self.range) != 2 or not self.range[0] < self.range[1]):
            raise ValueError(f"--range {self.range}: two levels, the lower first.")
        if len(self.channels) > 3:
            raise ValueError(f"--channels {' '.join(self.channels)}: one, two or three.")
        if self.page is not None and self.page < 0:
            raise ValueError(f"--page {self.page}: a whole number from 0.")
        if self.threshold is not None and not 1 <= self.threshold < 1 << 16:
            raise ValueError(f"--threshold {self.threshold}: a whole number from 1 to 65,535.")
        if self.group_column and not self.pairs:
            raise ValueError("--group_column names a column of --pairs; give both.")
        if self.group_column and self.group_regex:
            raise ValueError("--group_column and --group_regex: give one of them.")
        try:
            re.compile(self.group_regex)
        except re.error as error:
            raise ValueError(f"--group_regex {self.group_regex}: {error}.") from error
        parse_palette(self.palette)

    def command(self, **changed: Any) -> str:
        """The command that builds it, with some settings changed."""
        words = ["segdata", "build", "folder"]
        for field in dataclasses.fields(self):
            value = changed.get(field.name, getattr(self, field.name))
            default = None if field.default_factory is dataclasses.MISSING else []
            default = field.default if default is None else default
            if value == default or (field.name == "name" and value == _name_of(self.images)):
                continue
            words.append(f"--{field.name}")
            if isinstance(value, (list, tuple)):
                words += map(str, value)
            elif value is not True:
                words.append(str(value))
        return shlex.join(words)


def parse_palette(words: Iterable[str]) -> dict[int, str]:
    """Colour to class name."""
    found: dict[int, str] = {}
    for word in words:
        colour, equals, name = word.partition("=")
        matched = _COLOUR.fullmatch(colour.strip())
        if not matched or not equals or not name.strip():
            raise ValueError(f"--palette {word}: '#ff0000=road', 255,0,0=road or 128=road.")
        levels = [int(level) for level in matched.groups()[1:4] if level]
        levels = levels or [int(matched[5])] * 3 if matched[5] or levels else []
        if any(level > 255 for level in levels):
            raise ValueError(f"--palette {word}: levels go from 0 to 255.")
        value = levels[0] << 16 | levels[1] << 8 | levels[2] if levels else int(matched[1], 16)
        if value in found:
            raise ValueError(f"--palette {word}: that colour is {found[value]} already.")
        found[value] = name.strip()
    return found


def _require(folder: Folder, field: str, allowed: Sequence[str]) -> None:
    if (value := getattr(folder, field)) not in allowed:
        raise ValueError(f"--{field} {value}: {', '.join(filter(None, allowed))}.")


def _name_of(path: pathlib.Path) -> str:
    """A name for a dataset, of the first folder that is not called "images" or alike."""
    path = pathlib.Path(path).absolute()
    for part in (path.stem if path.suffix else path.name, *(p.name for p in path.parents)):
        name = re.sub(r"[^a-z0-9]+", "_", part.lower()).strip("_")
        if name and not pairing.is_plain_word(part):
            return name if name[0].isalpha() else f"data_{name}"
    return "my_data"

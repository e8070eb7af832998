"""Images and their masks, paired by the names of their files, in the layouts that people have.

| layout | image | its mask |
|---|---|---|
| two folders | `images/a/x.jpg` | `masks/a/x.png`, `masks/a/x_mask.png` |
| parts first | `train/images/x.png` | `train/masks/x.png` |
| parts first | `train_images/x.png` | `train_masks/x.png` |
| side by side | `x.png`, `x_image.png`, `image_x.png` | `x_mask.png`, `x_label.png`, `mask_x.png` |
| a folder an image | `x/image.png`, `x/images/any.png` | `x/mask.png`, `x/masks/any.png` |
| a file an object | `x.png`, `x/images/any.png` | `masks/x/1.png` …, `x/masks/1.png` … |
| CVAT, Pascal VOC | `JPEGImages/x.jpg` | `SegmentationClass/x.png`, `SegmentationObject/x.png` |

Only names are looked at here; é as one character and as e with an accent are the same name.
"""

import collections
import dataclasses
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from segdata.archives import scientific

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_SPLIT = "|".join(sorted(_SPLITS, key=len, reverse=True))
_IMAGE = "images?|imgs?|photos?|pictures?|raws?|jpegimages|inputs?"
_MASK = (
    "masks?|labels?|labelmaps?|labelids?|segmentations?|segmentationclass|segs?|gts?|"
    "ground[_-]?truths?|annotations?|targets?"
)
_FOLDER = re.compile(
    rf"(?:(?P<before>{_SPLIT})(?:[_-]|$))?(?:(?P<image>{_IMAGE})|(?P<mask>{_MASK})|"
    rf"(?P<objects>segmentationobject|instances?))?(?:(?:^|[_-])?(?P<after>{_SPLIT}))?",
    re.IGNORECASE,
)
_ENDS_AS_MASK = re.compile(rf"(.+?)[_.-](?:{_MASK})|(?:{_MASK})[_.-](.+)", re.IGNORECASE)
_ENDS_AS_IMAGE = re.compile(rf"(.+?)[_.-](?:{_IMAGE})|(?:{_IMAGE})[_.-](.+)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """The files of an example.

    Attributes:
        id: The image's name without folders such as `images`, and without its ending.
        image: The name of the image file.
        masks: The names of its mask files; several are an object each.
        classes: The class of each mask file, where their names say it.
        objects: The name of a second map, of its single objects; "" without.
        split: The folder or the value of a column that names its split: "train", "validation",
            "test" or "".
        group: What the column of groups has; "" without.
    """

    id: str
    image: str
    masks: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    objects: str = ""
    split: str = ""
    group: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairing:
    """What was found.

    Attributes:
        entries: Those with masks, sorted by id.
        bare: Those without.
        lonely: The names of masks without an image.
        twice: Names of images, or of masks, that are the same example, such as a PNG and a JPEG, or
            several annotations of a task. No example is made of them.
        foreign: The names of files that may be images and are of no kind that is read.
    """

    entries: tuple[Entry, ...]
    bare: tuple[Entry, ...] = ()
    lonely: tuple[str, ...] = ()
    twice: tuple[tuple[str, ...], ...] = ()
    foreign: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Named:
    """What a name says.

    Attributes:
        name: The name.
        key: Its parts but for those that say what kind of file it is; the last without its ending.
        short: The same without "_mask" and the like at its end.
        folder: The key without the file's own name.
        is_own: Whether the file lies in an example's own `images` or `masks`: `x/images/any.png`.
        role: "image", "mask", "objects", or "" where it does not say.
        split: As for `Entry`.
    """

    name: str
    key: tuple[str, ...]
    short: tuple[str, ...]
    folder: tuple[str, ...]
    is_own: bool
    role: str
    split: str


def split_of(name: str) -> str:
    """The split that a folder or a cell of a table names; "" where it names none."""
    return _SPLITS.get(name.strip().lower(), "")


def in_one_tree(names: Iterable[str]) -> Pairing:
    """Pairs the files of one tree, whose names say which are masks."""
    found = [_named(name) for name in names if _is_read(name)]
    photos = [each for each in found if each.role in ("", "image")]
    return _paired(photos, [each for each in found if each.role in ("mask", "objects")], names)


def in_two_trees(
    photos: Iterable[str], masks: Iterable[str], *, endings: tuple[str, ...] = scientific.ENDINGS
) -> Pairing:
    """Pairs the files of a tree of images with those of a tree of masks, which have `endings`."""
    images = [_named(name) for name in photos if _is_read(name)]
    labels = [_named(name) for name in masks if name.lower().endswith(endings)]
    if any(_has_folder(each.name, "segmentationclass") for each in labels):
        labels = [
            each
            for each in labels
            if each.role == "objects" or _has_folder(each.name, "segmentationclass")
        ]
    return _paired(images, labels, photos)


def images_alone(names: Iterable[str]) -> Pairing:
    """The images of a tree, where masks are described by another file."""
    return _paired([_named(name) for name in names if _is_read(name)], [], names)


def composed(name: str) -> str:
    """The name with one character for each accented letter (NFC); some systems write two (NFD)."""
    return unicodedata.normalize("NFC", name)


def by_path(
    entries: Iterable[Entry], paths: Iterable[str], *, form: Callable[[str], str] = composed
) -> dict[str, Entry]:
    """Which image each path of an annotation file means.

    It is the image of that very path; else the only one that shares the longest end of it, if no
    other path means that image, and the two do not name different splits.

    Args:
        entries: Of the images.
        paths: As the file has them, from any folder.
        form: What is compared of a path.
    """
    whole = collections.defaultdict[str, list[Entry]](list)
    ending = collections.defaultdict[str, list[Entry]](list)
    for entry in entries:
        whole[form(entry.image)].append(entry)
        for end in _ends(form(entry.image)):
            ending[end].append(entry)
    claims = collections.defaultdict[str, list[str]](list)
    meant = dict[str, Entry]()
    for path in dict.fromkeys(paths):
        alike = whole.get(form(path)) or next(
            (ending[end] for end in _ends(form(path)) if end in ending), []
        )
        if len(alike) == 1 and len({alike[0].split, _named(path).split, ""}) < 3:
            meant[path] = alike[0]
            claims[alike[0].id].append(path)
    return {
        path: entry
        for path, entry in meant.items()
        if len(claims[entry.id]) == 1
        or [each for each in claims[entry.id] if form(each) == form(entry.image)] == [path]
    }


def stem(name: str) -> str:
    """A file's name without its folders and its ending; of "x.ome.tif" both endings go."""
    last = name.rpartition("/")[2]
    bare = last.rpartition(".")[0] or last
    return bare[:-4] if bare.lower().endswith(".ome") else bare


def _ends(path: str) -> Iterator[str]:
    """The path, and what is left of it without its first folders; the longest first."""
    parts = path.split("/")
    return ("/".join(parts[start:]) for start in range(len(parts)))


def _is_read(name: str) -> bool:
    return name.lower().endswith(scientific.ENDINGS)


def _has_folder(name: str, folder: str) -> bool:
    return folder in name.lower().split("/")[:-1]


def _named(name: str) -> _Named:
    *folders, _ = composed(name).split("/")
    kept, role, split, is_own = [], "", "", False
    for folder in folders:
        found = _FOLDER.fullmatch(folder)
        if not found or not folder:
            kept.append(folder)
            is_own = False
            continue
        is_own = bool(kept) and kept[-1] not in _SPLITS.values()
        for kind in ("image", "mask", "objects"):
            role = kind if found[kind] else role
        if word := found["before"] or found["after"]:
            split = split or _SPLITS[word.lower()]
            kept.append(_SPLITS[word.lower()])
    last = stem(composed(name))
    for kind, words in (("image", _IMAGE), ("mask", _MASK)):
        if kept and re.fullmatch(words, last, re.IGNORECASE):  # x/image.png, x/mask.png
            return _Named(name, (*kept,), (*kept,), (*kept,), is_own, role or kind, split)
    as_mask, as_image = _ENDS_AS_MASK.fullmatch(last), _ENDS_AS_IMAGE.fullmatch(last)
    short = last
    if as_mask and role != "image":
        role, short = role or "mask", as_mask[1] or as_mask[2]
    elif as_image and role not in ("mask", "objects"):
        short = as_image[1] or as_image[2]
    return _Named(name, (*kept, last), (*kept, short), (*kept,), is_own, role, split)


def _paired(photos: Sequence[_Named], labels: Sequence[_Named], names: Iterable[str]) -> Pairing:
    photos, twice = _single(photos)
    by_key = {each.key: each for each in photos}
    by_short = collections.defaultdict[tuple[str, ...], list[_Named]](list)
    in_folder = collections.defaultdict[tuple[str, ...], list[_Named]](list)
    for each in photos:
        by_short[each.short].append(each)
        in_folder[each.folder].append(each)

    def named_by(label: _Named) -> _Named | None:
        for key in (label.key, label.short):
            if key in by_key:
                return by_key[key]
        alike = by_short[label.short]
        return alike[0] if len(alike) == 1 else None

    def holding(label: _Named) -> _Named | None:
        if label.folder in by_key:  # masks/x/1.png
            return by_key[label.folder]
        alone = in_folder[label.folder]  # x/images/any.png and x/masks/any.png
        return alone[0] if len(alone) == 1 and label.is_own and alone[0].is_own else None

    masks = collections.defaultdict[str, list[str]](list)
    objects = collections.defaultdict[str, list[str]](list)
    apart = any(each.role == "mask" for each in labels)
    others = []
    for label in labels:
        if photo := named_by(label):
            (objects if label.role == "objects" and apart else masks)[photo.name].append(label.name)
        else:
            others.append(label)
    doubled = {
        name: tuple(sorted(same))
        for found in (masks, objects)
        for name, same in found.items()
        if len(same) > 1
    }
    lonely = []
    own = collections.defaultdict[str, list[str]](list)
    for label in sorted(others, key=lambda each: each.name):
        photo = holding(label)
        if photo is None or photo.name in masks:
            lonely.append(label.name)
        else:
            own[photo.name].append(label.name)
    masks |= own
    photos = [each for each in photos if each.name not in doubled]
    entries = [
        Entry(
            id="/".join(each.key),
            image=each.name,
            masks=tuple(masks[each.name]),
            objects=next(iter(objects[each.name]), ""),
            split=each.split,
        )
        for each in sorted(photos, key=lambda each: each.key)
    ]
    return Pairing(
        entries=tuple(entry for entry in entries if entry.masks),
        bare=tuple(entry for entry in entries if not entry.masks),
        lonely=tuple(lonely),
        twice=(*twice, *doubled.values()),
        foreign=tuple(name for name in names if name.lower().endswith(scientific.FOREIGN)),
    )


def _single(photos: Sequence[_Named]) -> tuple[list[_Named], tuple[tuple[str, ...], ...]]:
    """The images whose key no other has, and the names of the others."""
    by_key = collections.defaultdict[tuple[str, ...], list[_Named]](list)
    for each in photos:
        by_key[each.key].append(each)
    twice = [tuple(each.name for each in same) for same in by_key.values() if len(same) > 1]
    return [same[0] for same in by_key.values() if len(same) == 1], tuple(twice)


def label_studio(
    pairing: Pairing, masks: Iterable[str], *, photos: Mapping[int, str], classes: Sequence[str]
) -> Pairing:
    """Pairs the PNGs of Label Studio's brush export, whose names hold the number of a task.

    Args:
        pairing: Of the images alone.
        masks: The names of the masks, `task-3-annotation-5-by-1-tag-nucleus-0.png`.
        photos: Task to the path of the image, as the JSON export has it.
        classes: All names of classes, as the JSON export has them.
    """
    paths = {*photos.values()}
    entry_of = by_path(pairing.bare, paths, form=_without_ending)
    taken = {entry.id for entry in entry_of.values()}
    for path, entry in by_path(pairing.bare, paths - entry_of.keys(), form=_without_upload).items():
        if entry.id not in taken:
            entry_of[path] = entry
    found = collections.defaultdict[str, list[tuple[str, str]]](list)
    lonely, annotations = [], collections.defaultdict[str, set[str]](set)
    for name in sorted(filter(_is_read, masks), key=_by_numbers):
        matched = TASK.match(name.rpartition("/")[2])
        entry = entry_of.get(photos.get(int(matched[1]), "")) if matched else None
        named = [each for each in classes if re.search(rf"-{re.escape(each)}-\d+$", stem(name))]
        if not matched or not entry or not named:
            lonely.append(name)
        else:
            found[entry.id].append((name, max(named, key=len)))
            annotations[entry.id].add(matched[2])
    several = {key for key, numbers in annotations.items() if len(numbers) > 1}
    entries = [
        dataclasses.replace(
            entry,
            masks=tuple(name for name, _ in found[entry.id]),
            classes=tuple(kind for _, kind in found[entry.id]),
        )
        for entry in pairing.bare
        if entry.id not in several
    ]
    return dataclasses.replace(
        pairing,
        entries=tuple(entry for entry in entries if entry.masks),
        bare=tuple(entry for entry in entries if not entry.masks),
        lonely=tuple(lonely),
        twice=(*pairing.twice, *(tuple(name for name, _ in found[key]) for key in sorted(several))),
    )


TASK = re.compile(r"task-(\d+)-annotation-(\d+)-", re.IGNORECASE)


def _without_ending(path: str) -> str:
    path = composed(path)
    return "/".join((*path.split("/")[:-1], stem(path)))


def _without_upload(path: str) -> str:
    """Also without the eight hexadecimal digits that Label Studio puts before a file's name."""
    return re.sub(r"(^|/)[0-9a-f]{8}-([^/]*)$", r"\1\2", _without_ending(path))


def _by_numbers(name: str) -> list[int | str]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def is_plain_word(folder: str) -> bool:
    """Whether a folder's name says what kind of files it has, or which split, and no more."""
    return _FOLDER.fullmatch(folder) is not None

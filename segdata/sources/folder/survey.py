"""What is in a folder of images and masks, by the names of files, and what pairs with nothing.

Tables of pairs, COCO, YOLO and the exports of CVAT and Label Studio are read here; no image is.
"""

import collections
import csv
import dataclasses
import io
import json
import pathlib
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from segdata.archives import annotations, scientific, trees
from segdata.console import counted
from segdata.sources.folder import pairing
from segdata.sources.folder.pairing import Entry
from segdata.sources.folder.settings import Folder, FolderError, parse_palette

SHOWN = 5
"""Of many names in a message."""

_LABEL_MAP = "labelmap.txt"


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something that is wrong.

    Attributes:
        text: Sentences that name it.
        flags: The settings that continue without it; None where there are none.
    """

    text: str
    flags: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Survey:
    """What is there, by names.

    Attributes:
        folder: Its settings.
        photos: The tree of the images.
        labels: That of the masks.
        entries: The examples, sorted by id.
        outlines: Entry id to its objects, of COCO and YOLO.
        classes: The names of the classes, where a file has them.
        palette: Colour to class name, where a file has them.
        problems: What is wrong.
        skipped: What is left out, as asked for, and why.
        notes: What the user should know.
    """

    folder: Folder
    photos: trees.Tree
    labels: trees.Tree
    entries: tuple[Entry, ...]
    outlines: Mapping[str, annotations.Outlines]
    classes: tuple[str, ...]
    palette: Mapping[int, str]
    problems: tuple[Problem, ...]
    skipped: Mapping[str, str]
    notes: tuple[str, ...]


def survey(folder: Folder) -> Survey:
    """Pairs images and masks by their names; opens no image.

    Raises:
        ArchiveError: If a folder or a table cannot be read, or nothing is paired.
    """
    photos = _without(_tree(folder.images, "images"), folder.images, (folder.masks,))
    labels = photos
    if folder.masks:
        labels = _without(_tree(folder.masks, "masks"), folder.masks, (folder.images,))
    found, more = _pairing(folder, photos, labels)
    problems = [*more.get("problems", ()), *_unpaired(folder, found)]
    skipped = dict[str, str]()
    entries = list(found.entries)
    if folder.unpaired == "background":
        entries += found.bare
    elif folder.unpaired == "skip":
        skipped |= {entry.id: "it has no mask." for entry in found.bare}
        skipped |= dict.fromkeys(found.lonely, "nothing pairs with it.")
        for same in found.twice:
            skipped |= dict.fromkeys(same, f"it is there more than once: {' and '.join(same)}.")
        skipped |= dict.fromkeys(found.foreign, "it is of a kind that is not read.")
    if not entries:
        raise FolderError(_nothing(folder, found, photos))
    if problem := _split_problem(folder, entries):
        problems.append(problem)
    if alone := [entry.image for entry in entries if folder.group_column and not entry.group]:
        problems.append(
            Problem(
                f"{folder.pairs}: {counted(len(alone), 'image')} with nothing in the column "
                f"{folder.group_column}: {listed(alone)}. Fill it in; for an image that is in no "
                "group by its own name."
            )
        )
    outlines = more.get("outlines", {})
    return Survey(
        folder=folder,
        photos=photos,
        labels=labels,
        entries=tuple(sorted(entries, key=lambda entry: entry.id)),
        outlines={entry.id: outlines.get(entry.id, annotations.Outlines()) for entry in entries}
        if folder.coco or folder.yolo
        else {},
        classes=more.get("classes", ()),
        palette=more.get("palette", {}),
        problems=tuple(problems),
        skipped=skipped,
        notes=(
            f"{counted(len(entries), 'image')} with masks, paired by name.",
            *filter(None, [more.get("note")]),
        ),
    )


def group_of(folder: Folder, entry: Entry) -> str:
    """The group of an example by the settings; "" where they name none.

    Raises:
        FolderError: If the pattern finds nothing in its name.
    """
    if folder.group_column:
        return entry.group
    if not folder.group_regex:
        return ""
    matched = re.search(folder.group_regex, entry.image)
    parts = (matched.groups() or (matched.group(),)) if matched else ()
    found = next((part for part in parts if part), "")
    if not found:
        what = "finds an empty text in" if matched else "is not found in"
        raise FolderError(
            f"--group_regex {folder.group_regex} {what} {entry.image}. Give one that is in every "
            "name, such as '^[^_]+'; '^(.*)/' makes each subfolder a group."
        )
    return found


def listed(names: Iterable[str]) -> str:
    """The first of them, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - SHOWN:,} more" if len(every) > SHOWN else ""
    return ", ".join(f"{name:.200}" for name in every[:SHOWN]) + more


def _pairing(
    folder: Folder, photos: trees.Tree, labels: trees.Tree
) -> tuple[pairing.Pairing, dict[str, Any]]:
    """Images with their masks; and `outlines`, `classes`, `palette`, `problems`, `note`."""
    if folder.coco:
        return _by_coco(folder, folder.coco, photos)
    if folder.yolo:
        return _by_yolo(folder, folder.yolo, photos)
    if folder.pairs:
        return _by_table(folder, folder.pairs, photos, labels)
    if not folder.masks:
        return pairing.in_one_tree(photos.names), _label_map(photos)
    brushes = [name for name in labels.names if pairing.TASK.match(name.rpartition("/")[2])]
    if brushes:
        return _by_tasks(folder, photos, labels)
    return pairing.in_two_trees(photos.names, labels.names), _label_map(labels)


def _by_coco(
    folder: Folder, path: pathlib.Path, photos: trees.Tree
) -> tuple[pairing.Pairing, dict[str, Any]]:
    classes, outlined, licences = annotations.read_coco(_file(path), name=str(path))
    alone = pairing.images_alone(photos.names)
    entry_of = pairing.by_path(alone.bare, outlined)
    outlines = {entry.id: outlined[name] for name, entry in entry_of.items()}
    found = dataclasses.replace(
        alone,
        entries=tuple(entry for entry in alone.bare if entry.id in outlines),
        bare=tuple(entry for entry in alone.bare if entry.id not in outlines),
        lonely=tuple(name for name in outlined if name not in entry_of),
    )
    more: dict[str, Any] = {"outlines": outlines, "classes": classes}
    if licences and not folder.license:
        more["note"] = (
            f"The file names the licence {listed(licences)}, which is not kept; give --license."
        )
    return found, more


def _by_yolo(
    folder: Folder, path: pathlib.Path, photos: trees.Tree
) -> tuple[pairing.Pairing, dict[str, Any]]:
    tree = _tree(path, "yolo")
    naming = [
        name
        for name in tree.names
        if name.lower().endswith((".yaml", ".yml")) or name.rpartition("/")[2] == "classes.txt"
    ]
    named = {
        name: names
        for name in naming
        if (
            names := annotations.yolo_classes(
                tree.read(name).decode("utf-8-sig", errors="replace"), name=f"{tree.label}: {name}"
            )
        )
    }
    classes = tuple(folder.classes)
    if len({*named.values()}) == 1:
        classes = ("background", *next(iter(named.values())))
    elif named and not classes:
        raise FolderError(
            f"{path}: {' and '.join(named)} name different classes. Remove all but one, or "
            "give --classes, background first."
        )
    elif not classes:
        raise FolderError(
            f"{path}: there is no data.yaml and no classes.txt, which name the classes. Give "
            "--classes, background first."
        )
    texts = [name for name in tree.names if name not in naming]
    found = pairing.in_two_trees(photos.names, texts, endings=(".txt",))
    outlines = {
        entry.id: annotations.read_yolo(
            tree.read(entry.masks[0]).decode("utf-8-sig", errors="replace"),
            name=f"{tree.label}: {entry.masks[0]}",
            classes=len(classes) - 1,
        )
        for entry in found.entries
    }
    entries = tuple(dataclasses.replace(entry, masks=()) for entry in found.entries)
    return dataclasses.replace(found, entries=entries), {"outlines": outlines, "classes": classes}


def _by_table(
    folder: Folder, path: pathlib.Path, photos: trees.Tree, labels: trees.Tree
) -> tuple[pairing.Pairing, dict[str, Any]]:
    """Pairs by a table; an image with an empty cell, or in no row, has no mask."""
    columns, table = _table(path)
    wanted = ["image", "mask", *filter(None, [folder.group_column])]
    if lacking := [column for column in wanted if column not in columns]:
        raise FolderError(
            f"{path} has no column {' and no column '.join(lacking)}; it has {', '.join(columns)}."
        )
    alone = pairing.images_alone(photos.names)
    named = {entry.image: entry for entry in alone.bare}
    images, masks = _named_files(photos), _named_files(labels)
    rows = collections.defaultdict[str, list[dict[str, str]]](list)
    lonely, faulty = [], set[str]()
    for number, row in table:
        cells = {column: (row[column] or "").strip() for column in columns}
        image = _in_tree(cells["image"], path, folder.images, images)
        mask = _in_tree(cells["mask"], path, folder.masks or folder.images, masks)
        if image not in named or (cells["mask"] and not mask):
            lonely.append(f"line {number} of {path.name}")
            faulty.add(image)
        else:
            rows[image].append({**cells, "mask": mask})
    entries = {
        image: dataclasses.replace(
            entry,
            masks=tuple(row["mask"] for row in rows[image] if row["mask"]),
            split=_first(rows[image], "split", pairing.split_of) or entry.split,
            group=_first(rows[image], folder.group_column),
        )
        for image, entry in named.items()
        if image not in faulty
    }
    found = dataclasses.replace(
        alone,
        entries=tuple(entry for entry in entries.values() if entry.masks),
        bare=tuple(entry for entry in entries.values() if not entry.masks),
        lonely=tuple(lonely),
    )
    return found, {"problems": tuple(_table_problems(folder, path, rows))}


def _table(path: pathlib.Path) -> tuple[list[str], list[tuple[int, dict[str, Any]]]]:
    """The columns of a CSV file, and its rows, each with the number of its last line.

    Raises:
        FolderError: If it is none.
    """
    text = _file(path).decode("utf-8-sig", errors="replace")
    lines = io.StringIO(text, newline=None)  # ends of lines of any kind
    reader = csv.DictReader(lines, delimiter=_separator(text), skipinitialspace=True)
    try:
        columns = list(reader.fieldnames or [])
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise FolderError(f"{path}, line {reader.line_num + 1}: {error}.") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise FolderError(f"{path}, line {line}: a character of no text, NUL; save it as UTF-8.")
    if twice := [column for column in columns if column and columns.count(column) > 1]:
        raise FolderError(f"{path} has the column {twice[0]} twice. Remove or rename one of both.")
    return columns, rows


def _separator(text: str) -> str:
    """What separates the cells of a table: a comma, but for one whose first line says otherwise."""
    first = text.partition("\n")[0].partition("\r")[0]
    return next((each for each in ";\t" if each in first and "," not in first), ",")


def _first(rows: Sequence[Mapping[str, str]], column: str, read: Callable[[str], str] = str) -> str:
    return read(rows[0].get(column, "")) if rows else ""


def _table_problems(
    folder: Folder, path: pathlib.Path, rows: Mapping[str, Sequence[Mapping[str, str]]]
) -> Iterator[Problem]:
    """Rows that contradict each other, and splits of other names."""
    several = {image: found for image, found in rows.items() if len(found) > 1}
    for column in filter(None, ("split", folder.group_column)):
        if differing := [
            image for image, found in several.items() if len({r.get(column) for r in found}) > 1
        ]:
            yield Problem(
                f"{path}: rows of an image have several values of {column}: {listed(differing)}."
            )
    if repeated := [
        image for image, found in several.items() if len({r["mask"] for r in found}) < len(found)
    ]:
        yield Problem(f"{path}: rows with the same image and mask: {listed(repeated)}.")
    elif several and folder.mask_kind != "objects":
        yield Problem(
            f"{path}: {counted(len(several), 'image')} with several rows: {listed(several)}; "
            "--mask_kind objects takes each mask as an object.",
            {"mask_kind": "objects"},
        )
    unknown = collections.Counter(
        value
        for found in rows.values()
        for row in found
        if (value := row.get("split")) and not pairing.split_of(value)
    )
    if unknown and folder.split_by != "share":
        shown = listed(f"{value} ({counted(n, 'row')})" for value, n in unknown.most_common())
        yield Problem(
            f"{path}: the column split has {shown}, which is none of train, val and test.",
            {"split_by": "share"},
        )


def _by_tasks(
    folder: Folder, photos: trees.Tree, labels: trees.Tree
) -> tuple[pairing.Pairing, dict[str, Any]]:
    if not folder.tasks:
        raise FolderError(
            f"{folder.masks}: these are Label Studio's brush labels, whose names hold numbers of "
            "tasks and no names of images. Export the same project as JSON too, and give it as "
            "--tasks."
        )
    try:
        tasks = json.loads(_file(folder.tasks))
        images_of = {int(task["id"]): _task_image(task) for task in tasks}
    except (
        *(ValueError, KeyError, TypeError, AttributeError),
        *(OverflowError, RecursionError),
    ) as error:
        raise FolderError(
            f"{folder.tasks} is no JSON export of Label Studio, a list of tasks: {error!r}."
        ) from error
    kinds = sorted({*_brushes(tasks)})
    alone = pairing.images_alone(photos.names)
    found = pairing.label_studio(alone, labels.names, photos=images_of, classes=kinds)
    classes = tuple(folder.classes) or ("background", *kinds)
    brushed = {kind for entry in found.entries for kind in entry.classes}
    if unnamed := sorted(brushed - {*classes}):
        raise FolderError(
            f"{folder.masks}: {counted(len(unnamed), 'brush label')} not among --classes "
            f"{' '.join(classes)}: {listed(unnamed)}. Name them as Label Studio does, or leave out "
            "--classes."
        )
    return found, {"classes": classes}


def _task_image(task: Mapping[str, Any]) -> str:
    """The path of the image that a task names."""
    data = task.get("data", task)
    for value in data.values():
        if isinstance(value, str) and value.lower().endswith(scientific.ENDINGS):
            return urllib.parse.unquote(value).replace("?d=", "/")
    raise ValueError(f"task {task.get('id')} names no image")


def _brushes(found: Any) -> Iterator[str]:
    """All names of classes in an export."""
    if isinstance(found, dict):
        for key, value in found.items():
            if key.lower() in ("brushlabels", "labels") and isinstance(value, list):
                yield from (each for each in value if isinstance(each, str))
            else:
                yield from _brushes(value)
    elif isinstance(found, list):
        for each in found:
            yield from _brushes(each)


def _label_map(labels: trees.Tree) -> dict[str, Any]:
    """Classes and colours of CVAT's `labelmap.txt`, where there is one: "name:red,green,blue::"."""
    name = next((name for name in labels.names if name.rpartition("/")[2] == _LABEL_MAP), None)
    if name is None:
        return {}
    words = []
    for line in labels.read(name).decode("utf-8-sig", errors="replace").splitlines():
        kind, _, rest = line.strip().partition(":")
        if kind and not kind.startswith("#"):
            words.append(f"{rest.partition(':')[0]}={kind}")
    try:
        palette = parse_palette(words)
    except ValueError as error:
        wrong = str(error).removeprefix("--palette ")
        raise FolderError(
            f"{labels.label}: {name} is no list of CVAT's classes, such as cell:250,50,83:: on a "
            f"line: {wrong:.200}"
        ) from error
    names = sorted(
        {*palette.values()},
        key=lambda kind: (kind != "background", [*palette.values()].index(kind)),
    )
    return {"palette": palette, "classes": tuple(names)}


def _unpaired(folder: Folder, found: pairing.Pairing) -> Iterator[Problem]:
    """What pairs with nothing."""
    flags = {"unpaired": "skip"}
    where = "masks" if not (folder.coco or folder.yolo) else "annotations"
    if found.bare and not folder.unpaired:
        names = listed(entry.image for entry in found.bare)
        background = " (--unpaired background keeps them, with nothing in them)"
        yield Problem(
            f"{counted(len(found.bare), 'image')} without {where}: {names}{background}.", flags
        )
    if found.twice and folder.unpaired != "skip":
        names = listed(" and ".join(same) for same in found.twice)
        yield Problem(
            f"{counted(len(found.twice), 'example')} there more than once: {names}.", flags
        )
    if folder.unpaired:
        return
    if found.lonely:
        names = listed(found.lonely)
        what = "mask" if not (folder.coco or folder.yolo) else "annotation"
        yield Problem(f"{counted(len(found.lonely), what)} without an image: {names}.", flags)
    if found.foreign:
        names = listed(found.foreign)
        yield Problem(
            f"{counted(len(found.foreign), 'file')} of kinds that are not read: {names}; export "
            "them as TIFF or PNG.",
            flags,
        )


def _nothing(folder: Folder, found: pairing.Pairing, photos: trees.Tree) -> str:
    """Why no image has a mask."""
    if not found.bare and not found.lonely:
        endings = collections.Counter(
            pathlib.PurePath(name).suffix.lower() or "no ending" for name in photos.names
        )
        shown = ", ".join(f"{n:,} {ending}" for ending, n in endings.most_common(SHOWN))
        return (
            f"{folder.images}: there are no images in it: {shown or 'it is empty'}. Read are "
            f"{', '.join(scientific.ENDINGS)}."
        )
    bare = listed(entry.image for entry in found.bare) or "none"
    return (
        f"{folder.images}: no image has a mask of its name. {counted(len(found.bare), 'image')}: "
        f"{bare}. {counted(len(found.lonely), 'mask')}: {listed(found.lonely) or 'none'}. Give the "
        "folder of the masks by --masks, call them like their images, such as x_mask.png, or give "
        "--pairs, a CSV file with the columns image and mask."
    )


def _split_problem(folder: Folder, entries: Sequence[Entry]) -> Problem | None:
    outside = [entry for entry in entries if not entry.split]
    if folder.split_by == "share" or not outside:
        return None
    if folder.split_by != "folders" and len(outside) == len(entries):
        return None
    return Problem(
        f"{counted(len(outside), 'image')} outside of folders such as train, val and test: "
        f"{listed(entry.image for entry in outside)}.",
        {"split_by": "share"},
    )


def _without(
    tree: trees.Tree, at: pathlib.Path, others: Sequence[pathlib.Path | None]
) -> trees.Tree:
    """A tree without what belongs to another that lies in it."""
    files = dict(tree.files)
    for other in filter(None, others):
        inner = other.resolve()
        if at.resolve() in inner.parents:
            start = inner.relative_to(at.resolve()).as_posix()
            files = {n: f for n, f in files.items() if n != start and not n.startswith(f"{start}/")}
    return trees.Tree(tree.label, files)


def _named_files(tree: trees.Tree) -> dict[str, str]:
    """The files of a tree by their names, and by these composed where only one is called so."""
    alike = collections.Counter(map(pairing.composed, tree.names))
    found = {name: each for each in tree.names if alike[name := pairing.composed(each)] == 1}
    return found | {name: name for name in tree.names}


def _in_tree(cell: str, table: pathlib.Path, folder: pathlib.Path, named: Mapping[str, str]) -> str:
    """The file of a tree that a table names: in the tree, or from where the table is."""
    name = cell.strip().replace("\\", "/").removeprefix("./")
    place = (table.parent / name).resolve()
    inner = (
        place.relative_to(folder.resolve()).as_posix() if folder.resolve() in place.parents else ""
    )
    every = (name, pairing.composed(name), inner, pairing.composed(inner))
    return next((named[each] for each in every if each in named), "")


def _tree(path: pathlib.Path, flag: str) -> trees.Tree:
    if path.is_file() and path.suffix.lower() != ".zip":
        raise FolderError(f"--{flag} {path} is a file; give the folder that it is in, or a zip.")
    return trees.open(path)


def _file(path: pathlib.Path) -> bytes:
    if path.is_dir():
        raise FolderError(f"{path} is a folder; give the file in it.")
    if not path.is_file():
        raise FolderError(f"{path}: there is no such file.")
    return path.read_bytes()

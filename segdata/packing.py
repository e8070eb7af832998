"""Packing: splits of a built dataset to records, once for each size.

What records are is known to `core.records`; the files lie beside the dataset's own.
"""

import dataclasses
import fractions
import functools
import hashlib
import itertools
import json
import math
import os
import pathlib
import re
import shlex
import sys
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import tensorflow_datasets as tfds
import tqdm
from PIL import features

import segdata.datasets  # registers the builders
from segdata import console, packed, sources
from segdata.archives import images, resizing
from segdata.building import internals, slices, splits, stored, unfinished
from segdata.building.builder import require_groups
from segdata.building.features import Features, Named
from segdata.building.reading import Names, Reader, Stored
from segdata.core import IGNORE_LABEL, tiles
from segdata.core.records import Records, Row, opened, remove_unused, write
from segdata.core.system import arguments, files, parallel

_LONGEST_SPLIT = 100  # characters in a file's name
_RULE = {  # what pixels depend on besides their dataset; with another rule a file is packed anew
    "resizing": 2,  # 1 was bilinear, from a rounded box, and nearest for masks
    "jpeg": features.version("libjpeg_turbo")
    or features.version("jpg"),  # decoders have changed how they enlarge colours
}


Size = tuple[int, int] | int | str
"""Of records: a height and a width; the longest side at most; or "native", as the images are."""
FITS = ("stretch", "letterbox", "crop")
Fold = tuple[int, int]
"""Which fold, from 0, of how many."""
PARTS = ("training", "held-out")


def pack(
    name: str,
    split: str,
    *,
    size: Size,
    fit: str = "stretch",
    instances: bool = False,
    fold: Fold | None = None,
    part: str = "training",
    data_dir: str | os.PathLike[str] | None = None,
    **features: Unpack[Named],
) -> Records:
    """Packs splits of a built dataset, or opens what was packed before.

    Images are resized by area (JPEGs are decoded at the smallest scale that still holds twice the
    size), masks to the class that covers most of a pixel. A slice is a view of its whole split: so
    folds cost nothing. The files lie in `packed/` beside the dataset's own and go with it, where a
    copy keeps the times of files. They are checked where they are not known to have been, and
    written anew where they are damaged, or where the dataset or the rule of packing changed. Of two
    processes one packs and the other waits for it; where one is killed, the next resumes.

    Args:
        name: A TFDS name, with a config where wanted: `dsb2018`, `dsb2018/instances`.
        split: A TFDS split: `train`, `train[:80%]`, `train+validation`.
        size: Height and width in pixels; or a longest side, which larger images are reduced to; or
            "native", as they are. Of the latter two records differ in size and streams take crops.
        fit: How an image of another shape reaches a height and a width: "stretch"; "letterbox",
            whole, with black and the ignore label around it; "crop", its middle.
        instances: Whether to keep the dataset's `instances` beside the records, uint16.
        fold: (k, n): of n folds of the split, k counted from 0; see `part`. No group is in two, and
            which fold a group is in follows from the names of groups alone: `splits.folds`.
        part: With `fold`, "training", all folds but k; or "held-out", fold k.
        data_dir: Where the dataset was built; TFDS's default where None.
        **features: Which features are the image and the mask, and what the mask's values mean,
            where that is not as in the built-in datasets: `segdata.Named`.

    Raises:
        ValueError: If the dataset or the split is not there, or the size is not positive.
        OSError: If it cannot be written.
    """
    if fold is None and part != "training":
        raise ValueError(f"part={part!r} is of a fold; give fold=(k, n), fold k of n.")
    if not isinstance(instances, bool):
        raise ValueError(f"instances={instances!r} is neither True nor False.")
    rule = Rule.of(size, fit=fit, has_instances=instances)
    return pack_by(rule, name, split, fold=fold, part=part, data_dir=data_dir, **features)


def pack_by(
    rule: "Rule",
    name: str,
    split: str,
    *,
    fold: Fold | None = None,
    part: str = "training",
    data_dir: str | os.PathLike[str] | None = None,
    **features: Unpack[Named],
) -> Records:
    """`pack`, by a rule."""
    named = Features(**features)
    builder = built(name, data_dir=data_dir)
    files.require_utf8(builder.data_dir)
    examples(builder, split)
    chosen = None if fold is None else in_fold(builder, split, fold, part=part, features=named)
    records = _packed(rule, name, split, builder, named)
    return records if chosen is None else records.select(chosen)


def _packed(rule: "Rule", name: str, split: str, builder: Any, named: Features) -> Records:
    reader = Reader(builder, named, instances=rule.has_instances)
    whole, rows = _rows(builder, split)
    count = sum(builder.info.splits[part].num_examples for part in whole)
    stem = _stem("+".join(whole), rule, reader.source)
    manifest = pathlib.Path(builder.data_dir, "packed", f"{stem}.json")
    what = f"{name} {'+'.join(whole)} {rule}"
    source = {
        **_RULE,
        "dataset": builder.info.full_name,
        "split": "+".join(whole),
        "longest": rule.longest,
        "fit": rule.fit,
        **({"features": reader.source} if reader.source else {}),
        "files": _stamp(builder),
    }
    given: Any = {
        "size": rule.size,
        "source": source,
        "classes": len(reader.classes),
        "has_instances": rule.has_instances,
    }
    if records := opened(manifest, count=count, **given):
        remove_unused(manifest)
        return records.select(rows)
    place = manifest.parent if manifest.parent.exists() else manifest.parent.parent
    if not os.access(place, os.W_OK):
        raise PermissionError(
            f"{place} may not be written to, and {split} is not packed there {rule} yet. Have its "
            "owner pack it, or copy the dataset."
        )
    files.make_folder(manifest.parent)
    with files.locked(
        manifest.with_suffix(".lock"),
        waiting=lambda holder: tqdm.tqdm.write(
            console.printable(f"Waiting for {holder}, which packs {what}."), file=sys.stderr
        ),
    ) as is_locked:
        if records := opened(manifest, count=count, **given):
            return records.select(rows)

        def read(first: int) -> Iterator[stored.Frame]:
            progress = {"desc": f"Packing {what}", "total": count, "initial": first}
            return iter(
                tqdm.tqdm(_read(builder, whole, first), unit=" images", leave=False, **progress)
            )

        parallel.tune_malloc()
        # Where nothing can be locked, somebody else may write there too, and nothing is resumed.
        made = write(
            manifest,
            read if is_locked else read(0),
            make=lambda frame: row(_of_classes(reader.read(frame), reader.classes), rule),
            **given,
        )
    if unnamed := reader.unnamed():
        tqdm.tqdm.write(console.printable(f"{what}: {unnamed}."), file=sys.stderr)
    if made.count != count:
        raise OSError(f"{builder.data_dir}: {what} holds {made.count:,} of {count:,} examples.")
    return made.select(rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """How large records are, and what shape images have in them.

    Attributes:
        size: Height and width of all; None where they differ.
        longest: The longest side at most; None where there is no such limit.
        fit: How images of other shapes reach the size.
        has_instances: Whether there are maps of instances.
    """

    size: tuple[int, int] | None
    longest: int | None
    fit: str
    has_instances: bool

    @classmethod
    def of(
        cls, size: Any, *, fit: str = "stretch", has_instances: bool = False, name: str = "size"
    ) -> "Rule":
        """The rule of `pack`'s arguments, of which `size` is called `name` in messages.

        Raises:
            ValueError: If they are of another kind.
        """
        if fit not in FITS:
            raise ValueError(f"fit={fit!r}: there are {', '.join(map(repr, FITS))}.")
        both, longest = None, None
        try:
            if isinstance(size, str) and size == "native":
                pass
            elif np.ndim(size) == 0:
                longest = arguments.integer(name, size, least=1, most=65_535)
            else:
                both = arguments.size(size)
        except ValueError as error:
            raise ValueError(
                f"{name}={size!r} is neither a height and a width in pixels, nor a longest side, "
                'nor "native".'
            ) from error
        if both and math.prod(both) > images.MOST_PIXELS:
            raise ValueError(f"{name}={size!r}: records have up to {images.MOST_PIXELS:,} pixels.")
        if fit != "stretch" and both is None:
            raise ValueError(f"fit={fit!r} is for a height and a width, not {name}={size!r}.")
        return cls(size=both, longest=longest, fit=fit, has_instances=has_instances)

    @classmethod
    def of_batches(cls, size: tuple[int, int], record_size: Any, *, fit: str = "stretch") -> "Rule":
        """The rule of `train_batches`: of the size of records, or where None of that of examples.

        Raises:
            ValueError: If they are of another kind.
        """
        rule = cls.of(size, fit=fit)
        return rule if record_size is None else cls.of(record_size, fit=fit, name="record_size")

    def __str__(self) -> str:
        """As `at 96×128, letterbox`."""
        if self.size is None:
            return f"up to {self.longest}" if self.longest else "at native size"
        shape = f"at {self.size[0]}×{self.size[1]}"
        return shape if self.fit == "stretch" else f"{shape}, {self.fit}"

    @property
    def stem(self) -> str:
        """The same in the name of a file."""
        size = f"{self.size[0]}x{self.size[1]}" if self.size else f"longest{self.longest}"
        parts = [size if self.size or self.longest else "native"]
        parts += [self.fit] * (self.fit != "stretch") + ["instances"] * self.has_instances
        return "-".join(parts)

    def inner(self, height: int, width: int) -> tuple[int, int]:
        """The size that an image of a height and a width is resized to."""
        if self.size is None:
            return tiles.reduced(height, width, self.longest or max(height, width))
        if self.fit == "stretch":
            return self.size
        ratios = [
            fractions.Fraction(new, old)
            for new, old in zip(self.size, (height, width), strict=True)
        ]
        scale = min(ratios) if self.fit == "letterbox" else max(ratios)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def placed(self, inner: np.ndarray, *, empty: int) -> np.ndarray:
        """What was resized to `inner`, [h, w, ...], in the middle of the size, [H, W, ...]."""
        if self.size is None or self.size == inner.shape[:2]:
            return inner
        out = np.full((*self.size, *inner.shape[2:]), empty, inner.dtype)
        cuts = []
        for outer, side in zip(self.size, inner.shape[:2], strict=True):
            common = min(outer, side)
            cuts.append([(x - common) // 2 for x in (outer, side)] + [common])
        (to_y, from_y, height), (to_x, from_x, width) = cuts
        out[to_y : to_y + height, to_x : to_x + width] = inner[
            from_y : from_y + height, from_x : from_x + width
        ]
        return out


def built(name: str, *, data_dir: str | os.PathLike[str] | None = None):
    """The TFDS builder of a dataset that has been built.

    Raises:
        ValueError: If it has not.
        OSError: If it is being built anew.
    """
    if not isinstance(name, str) or not re.split("[:/,]", name.removeprefix("folder:"))[0]:
        raise ValueError(f"name={name!r:.60} is no name of a dataset, such as 'dsb2018'.")
    if not isinstance(data_dir, str | os.PathLike | None):
        raise ValueError(f"data_dir={data_dir!r:.60} is no folder.")
    _require_config(name)
    if re.split("[:/,]", name)[0] in sources.names():
        segdata.datasets.register(re.split("[:/,]", name)[0])
    unfinished.recover(_place(data_dir) / re.split("[:/,]", name.removeprefix("folder:"))[0])
    if name.startswith("folder:"):
        _require_folder(name, data_dir)
    try:
        builder = tfds.builder(name.removeprefix("folder:"), data_dir=data_dir)
        slices.keep_groups(builder.info)
    except MemoryError:
        raise
    except Exception as error:  # parsers of JSON and protocol buffers have many
        base = re.split("[:/]", name.removeprefix("folder:"))[0]
        is_unknown = isinstance(error, tfds.core.DatasetNotFoundError | KeyError)
        if is_unknown and base not in sources.names():
            known = ", ".join([*sources.names(), *_folders(data_dir)])
            raise ValueError(f"{name!r} is not a dataset known here; there are {known}.") from error
        place = _place(data_dir)
        there = sorted(place.glob(f"{base}/**/dataset_info.json"))
        listed = ", ".join(str(path.parent.relative_to(place)) for path in there) or "nothing"
        why = " ".join(str(error).split()).rstrip(".")
        why = re.sub('^Failed to construct dataset .*?}": ', "", why)
        raise ValueError(
            f"{name} in {place} cannot be opened: {why}. Built there: {listed}. If its "
            "dataset_info.json or another file is damaged, build it again with --overwrite."
        ) from error
    # It is not known where nothing is built yet.
    if (kept := builder.info.file_format) not in (None, tfds.core.FileFormat.TFRECORD):
        raise ValueError(
            f"{name} in {builder.data_dir} is kept as {kept.value}, which this reads from TFRecord "
            "only; build it with --file_format tfrecord."
        )
    if not (builder.data_path / "dataset_info.json").exists():  # `is_prepared` would warn as well
        raise ValueError(
            f"{name} {builder.version} is not built in {builder.data_dir}. "
            f"Run `segdata build {name} --data_dir {_quoted(data_dir)}`."
        )
    _require_whole(builder)
    return builder


def class_names(
    name: str, *, data_dir: str | os.PathLike[str] | None = None, **features: Unpack[Named]
) -> tuple[str, ...]:
    """The class names of a built dataset, by their ids.

    Raises:
        ValueError: If it is not built, has no such features, or the classes have no names.
    """
    return Reader(built(name, data_dir=data_dir), Features(**features)).classes


def _require_config(name: str) -> None:
    """Raises ValueError for a config that a dataset does not have; TFDS's message names none."""
    base, _, config = name.partition("/")
    config = re.split("[:/,]", config)[0]
    if base in sources.names() and config and not config[0].isdigit() and "=" not in config:
        sources.named(base).config(config)


def _require_folder(name: str, data_dir: str | os.PathLike[str] | None) -> None:
    """Raises ValueError where no dataset of a user's own images has that name."""
    base = re.split("[:/,]", name.removeprefix("folder:"))[0]
    if any(_place(data_dir).glob(f"{base}/[!.]*/dataset_info.json")):
        return
    known = _folders(data_dir)
    others = f", where there is {', '.join(known)}" if known else ""
    raise ValueError(
        f"{name} is not built in {_place(data_dir)}{others}. Run `segdata build folder --images "
        f"IMAGES --masks MASKS --name {base} --data_dir {_quoted(data_dir)}`."
    )


def _folders(data_dir: str | os.PathLike[str] | None) -> list[str]:
    """The datasets of users' own images that are built."""
    kept = _place(data_dir).glob("*/[!.]*/metadata.json")
    return sorted({f"folder:{path.parent.parent.name}" for path in kept if _is_folder(path)})


def _is_folder(metadata: pathlib.Path) -> bool:
    try:
        found = json.loads(metadata.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"masks", "intensity"} <= found.keys()


def _place(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    return pathlib.Path(data_dir or packed.default_data_dir()).expanduser()


def _require_whole(builder) -> None:
    """Raises ValueError where what is noted of a dataset is damaged."""
    try:
        groups = (builder.info.metadata or {}).get("groups", {})
        for split, info in builder.info.splits.items():
            sizes = groups.get(split)
            if min(info.shard_lengths, default=0) < 0:
                raise ValueError(f"{split} has {info.shard_lengths} examples")
            if sizes is not None and not _adds_up(sizes, info.num_examples):
                raise ValueError(
                    f"the groups of {split} are not its {info.num_examples:,} examples"
                )
    except MemoryError:
        raise
    except Exception as error:  # JSON may hold anything
        raise ValueError(
            f"what is noted in {builder.data_dir} of {builder.info.full_name} is damaged: {error}. "
            "Build it again with --overwrite."
        ) from error
    require_groups(builder)


def _adds_up(sizes: Sequence[Any], count: int) -> bool:
    """Whether these are sizes of groups of so many examples in all."""
    return all(type(size) is int and size > 0 for size in sizes) and sum(sizes) == count


def _quoted(data_dir: str | os.PathLike[str] | None) -> str:
    return shlex.quote(os.fspath(data_dir)) if data_dir else "~/tensorflow_datasets"


def examples(builder, split: str) -> int:
    """How many examples a split has.

    Raises:
        ValueError: If the dataset has no such split, or it is empty.
    """
    splits = builder.info.splits
    try:
        count = splits[split].num_examples
    except (KeyError, ValueError) as error:  # also where a slice reaches beyond the last example
        known = ", ".join(f"{name} of {info.num_examples:,}" for name, info in splits.items())
        raise ValueError(
            f"{builder.info.full_name} has no split {split!r}; it has {known} examples."
        ) from error
    if not count:
        asked = any(first < last for _, first, last in internals.absolute(split, splits))
        why = ": slices keep groups whole, and both its ends moved to one end of a group"
        raise ValueError(
            f"split {split!r} of {builder.info.full_name} holds no examples{why if asked else ''}."
        )
    return count


def in_fold(builder, split: str, fold: Any, *, part: str, features: Features) -> np.ndarray:
    """The examples of a split that are in one part of a fold: their numbers in it, ascending.

    Raises:
        ValueError: If there is no such fold or part, or there are fewer groups than folds.
        OSError: If an example is damaged.
    """
    if part not in PARTS:
        raise ValueError(f"part={part!r}: there are {' and '.join(map(repr, PARTS))}.")
    try:
        number, count = fold
        count = arguments.integer("n", count, least=2)
        number = arguments.integer("k", number, least=0, most=count - 1)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"fold={fold!r:.60} is not (k, n): fold k of n, from 0 to n-1, of two or more."
        ) from error
    names = (features.id, features.group, features.stratum)
    place = (builder.info.full_name, str(builder.data_dir), json.dumps(_stamp(builder)))
    is_held_out = _folds(_Dataset(builder, place), split, names, count) == number
    return np.flatnonzero(is_held_out == (part == "held-out"))


@dataclasses.dataclass(frozen=True)
class _Dataset:
    """A builder, equal to another of the same files."""

    builder: Any = dataclasses.field(compare=False)
    place: tuple[str, ...]


@functools.lru_cache(maxsize=8)  # training, validation and the number of steps ask in turn
def _folds(
    dataset: _Dataset, split: str, names: tuple[str | None, str | None, str | None], count: int
) -> np.ndarray:
    """The fold of each example of a split."""
    builder = dataset.builder
    reader = Names(builder, Features(id=names[0], group=names[1], stratum=names[2]))
    reader.log()
    read = stored.frames(builder, slices.absolute(builder.info.splits, split))
    _, groups, strata = zip(*map(reader.read, read), strict=True)
    try:
        return splits.folds(groups, strata=strata, count=count)
    except ValueError as error:
        raise ValueError(f"{builder.info.full_name}, {split}: {error}") from error


def _rows(builder, split: str) -> tuple[list[str], range | np.ndarray]:
    """The splits that a split is made of, whole, and which of their examples it holds."""
    infos = builder.info.splits
    parts = slices.absolute(infos, split)
    whole = [name for name in infos if name in {part for part, _, _ in parts}]
    ends = np.cumsum([0, *(infos[name].num_examples for name in whole)])
    spans: list[range] = []
    for part, first, last in parts:
        before = int(ends[whole.index(part)])
        if spans and spans[-1].stop == before + first:
            spans[-1] = range(spans[-1].start, before + last)
        else:
            spans.append(range(before + first, before + last))
    spans = [span for span in spans if span]
    return whole, spans[0] if len(spans) == 1 else np.concatenate(spans)


def _read(builder, whole: Sequence[str], first: int) -> Iterator[stored.Frame]:
    """The examples of some splits, whole, from one on."""
    ends = list(itertools.accumulate(builder.info.splits[name].num_examples for name in whole))
    sizes = zip(whole, [0, *ends], ends, strict=False)
    return stored.frames(
        builder, [(name, max(first - start, 0), end - start) for name, start, end in sizes]
    )


def _of_classes(example: Stored, classes: Sequence[str]) -> Stored:
    """The same example; raises ValueError if its mask has values that are no class."""
    beyond = (example.mask >= len(classes)) & (example.mask != IGNORE_LABEL)
    if beyond.any():
        raise ValueError(
            f"the mask of {example.id} holds {example.mask[beyond].min()}, and the dataset names "
            f"{len(classes)} classes from 0: {', '.join(classes[:8])}. Say by labels= or --labels "
            "which class each value is; values that it leaves out become the ignore label."
        )
    return example


def row(example: Stored, rule: Rule) -> Row:
    """A record of an example."""
    if isinstance(example.image, bytes):
        with images.opened(example.image, name=f"the image of {example.id}") as image:
            shape = image.height, image.width
            inner = rule.inner(*shape)
            pixels = images.at_size(image, inner)
    else:
        shape = example.image.shape[:2]
        inner = rule.inner(*shape)
        pixels = resizing.image(example.image, inner)
    if shape != example.mask.shape:
        height, width = example.mask.shape
        raise ValueError(
            f"{example.id} has an image of {shape[0]}×{shape[1]} and a mask of {height}×{width}; "
            "build the dataset with masks of the images' sizes."
        )
    made = np.empty((*(rule.size or inner), 4), np.uint8)
    made[..., :3] = rule.placed(pixels, empty=0)
    made[..., 3] = rule.placed(resizing.mask(example.mask, inner), empty=IGNORE_LABEL)
    if example.instances is None:
        return made
    if example.instances.shape != shape:
        height, width = example.instances.shape
        raise ValueError(
            f"{example.id} has an image of {shape[0]}×{shape[1]} and a map of instances of "
            f"{height}×{width}; build the dataset again."
        )
    return made, rule.placed(resizing.mask(example.instances, inner), empty=0)


def _stamp(builder) -> dict[str, list[int] | None]:
    """Size and time of each of the dataset's own files: what changes when it is built again."""
    folder = pathlib.Path(builder.data_dir)
    paths = [folder / name for name in ("dataset_info.json", "features.json", "metadata.json")]
    for split in builder.info.splits.values():
        paths += map(pathlib.Path, split.filepaths)
    return {path.name: packed.stamp(path) for path in paths if path.exists()}


def _stem(split: str, rule: Rule, features: Mapping[str, Any]) -> str:
    """What files of splits and a rule are called; a digest stands for the rest of a long name.

    Another stands for the features, where these are named: twelve digits, as eight are a token.
    """
    quoted = urllib.parse.quote(split, safe="+")
    if len(quoted) > _LONGEST_SPLIT:
        digest = hashlib.sha256(split.encode()).hexdigest()[:16]
        quoted = f"{quoted[:_LONGEST_SPLIT]}-{digest}"
    if not features:
        return f"{quoted}-{rule.stem}"
    digest = hashlib.sha256(json.dumps(features, sort_keys=True).encode()).hexdigest()[:12]
    return f"{quoted}-{rule.stem}-{digest}"

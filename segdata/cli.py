"""The command `segdata`: fetches and draws sources, builds datasets."""

import dataclasses
import io
import json
import logging
import os
import pathlib
import re
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import simple_parsing

from segdata import console, sources
from segdata.core.augment import Augment
from segdata.core.system import files

if TYPE_CHECKING:
    from PIL import Image

    from segdata.building.features import Named

_NAMES = f"Which: {', '.join(sources.OURS)}; or one that another package adds."
_COUNT = 16  # examples on a sheet, if not given
_WITHOUT = {  # flags of `tfds build` that do nothing here, what they are by default, what does it
    "num_processes": (1, "one process builds on all cores"),
    "max_shard_size_mb": (None, "--num_shards says how many files there are"),
    "download_only": (False, "`segdata fetch NAME` downloads"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draw:
    """Draws a small synthetic source, in the very layout that Kaggle ships."""

    source: str = simple_parsing.field(positional=True, metavar="SOURCE", help=_NAMES)
    to: pathlib.Path | None = None
    """The folder to draw into; made if missing."""
    examples: int = 64
    """How many labelled examples."""
    unlabelled: int = 0
    """How many examples without masks, where the source has some."""
    seed: int = 0
    """The same seed draws the same files."""
    damage: str = ""
    """What is to go wrong with one of them; `--damage list` lists what can."""

    def __post_init__(self) -> None:
        sources.named(self.source, offer="draw")
        if self.seed < 0:
            raise ValueError(f"--seed {self.seed}: a whole number from 0.")
        if self.examples < 1:
            raise ValueError(f"--examples {self.examples}: a whole number from 1.")
        if not self.to and self.damage != "list":
            raise ValueError("--to: name the folder to draw into.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fetch:
    """Fetches from Kaggle what a dataset is built from, only what is missing or bad."""

    source: str = simple_parsing.field(positional=True, metavar="NAME", help=_NAMES)
    to: pathlib.Path | None = None
    """The folder to fetch into; by default TFDS's manual folder, where `tfds build` looks."""
    config: str = "default"
    """The builder's config that it is for, where it has files of its own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Doctor:
    """Says what is missing before a dataset can be built, and what mends it; changes nothing."""

    source: str = simple_parsing.field(positional=True, metavar="NAME", help=_NAMES)
    to: pathlib.Path | None = None
    """The folder to look into; by default TFDS's manual folder."""
    config: str = "default"
    """The builder's config that it is for, as with fetch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """Features of a dataset, where they are not called as those of the built-in ones."""

    imports: str = ""
    """Modules to import first, which register datasets; separated by commas."""
    image: str = "image"
    """The feature that is the image; a/b for b in a dictionary a."""
    mask: str = "mask"
    """The feature that is the mask."""
    labels: list[str] = dataclasses.field(default_factory=list)
    """The classes of its values, in the order of their ids: 1=pet 0-127=background #804080=road
    car=vehicle; nothing after = is the ignore label."""
    segments: str | None = None
    """The feature that lists the segments whose numbers the mask's colours are."""
    bands: list[int] = dataclasses.field(default_factory=list)
    """The channels of the image that are red, green and blue, or the one that is grey."""
    value_range: list[float] = dataclasses.field(default_factory=list)
    """The values of the image that become 0 and 255."""
    id: str | None = None
    """The feature that names an example; id if not given."""
    group: str | None = None
    """The feature that names its group; group if not given."""

    @property
    def are_usual(self) -> bool:
        """Whether they are those of the built-in datasets."""
        return dataclasses.replace(self, imports="") == type(self)()

    def keywords(self) -> "Named":
        """The same as `segdata.Named`."""
        from segdata.building import features

        return features.from_json(self.as_json())

    def as_json(self) -> dict[str, Any]:
        """Those that are given, as `features.from_json` takes them."""
        from segdata.building import labels

        given = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != getattr(type(self)(), field.name)
        }
        given.pop("imports", None)
        return given | ({"labels": labels.parsed(self.labels)} if self.labels else {})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Audit:
    """Says what is wrong with a dataset; exits with 1 where training would suffer from it."""

    name: str = simple_parsing.field(positional=True, metavar="NAME")
    """A built dataset, with a config where wanted; with --manual_dir, a raw source."""
    data_dir: pathlib.Path | None = None
    """Where the dataset was built; TFDS's default if not given."""
    features: Features = dataclasses.field(default_factory=Features)
    manual_dir: pathlib.Path | None = None
    """Look at the raw archives in this folder instead."""
    json: str = ""
    """A file for the report as JSON; - for the standard output, and no table."""
    html: str = ""
    """A file for the report as one page, with the worst examples as pictures."""

    def __post_init__(self) -> None:
        if self.html == "-":
            raise ValueError("--html -: the page goes to a file; name it.")
        if self.json and self.html and os.path.realpath(self.json) == os.path.realpath(self.html):
            raise ValueError(
                f"--json {self.json} and --html {self.html} are one file; name one for each."
            )
        if self.data_dir and self.manual_dir:
            raise ValueError(
                "--data_dir is for what was built, --manual_dir for raw archives; give one of them."
            )
        if self.manual_dir and self.features != Features():
            raise ValueError("--manual_dir: raw archives have no features to name.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Show:
    """Draws a contact sheet of examples with their masks over them."""

    name: str = simple_parsing.field(default="", positional=True, metavar="NAME")
    """A built dataset, with a config where wanted; not with --replay."""
    to: pathlib.Path
    """The PNG to write."""
    split: str = ""
    """A TFDS split; train if not given, with --ids all of them."""
    ids: list[str] = dataclasses.field(default_factory=list)
    """Which examples: their ids, or how their ids begin."""
    augment: bool = False
    """Below each example, what augmentation makes of it in three epochs: a mild one, or the one
    that these flags say."""
    settings: Augment = dataclasses.field(default_factory=Augment)
    count: int = _COUNT
    """How many examples at most, the first of the split or of --ids."""
    seed: int = 0
    """Of the augmentation."""
    replay: pathlib.Path | None = None
    """Instead, the batch that a training saw: the folder of a run of `unet train`."""
    step: int = 0
    """Which step of it, from 0."""
    data_dir: pathlib.Path | None = None
    """Where the dataset was built; TFDS's default, or the run's, if not given."""
    features: Features = dataclasses.field(default_factory=Features)

    def __post_init__(self) -> None:
        if bool(self.name) == bool(self.replay):
            raise ValueError(
                "name a built dataset, or give --replay with the folder of a run: one of them."
            )
        if self.step < 0 or (self.step and not self.replay):
            raise ValueError(f"--step {self.step}: a whole number from 0, with --replay.")
        asked = self.settings != Augment()
        others = self.split, self.ids, self.count - _COUNT, self.seed, self.augment, asked
        if self.replay and any((*others, not self.features.are_usual)):
            raise ValueError("--replay draws what the run did; leave out all other flags.")
        if self.settings.foreground:
            raise ValueError("--foreground is for crops, and a sheet shows whole images.")
        if asked and self.settings.is_neutral:
            raise ValueError(
                "these settings of augmentation do nothing alone: give a range or a probability of "
                "what they are for."
            )
        if not 1 <= self.count <= 1000:
            raise ValueError(f"--count {self.count}: a sheet holds 1 to 1,000 examples.")
        if self.to.suffix.lower() != ".png":
            raise ValueError(f"--to {self.to}: a sheet is a PNG; end the name in .png.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packed:
    """Lists what is packed of built datasets, and how large it is."""

    name: str = simple_parsing.field(default="", positional=True, metavar="NAME")
    """A built dataset, with a config where wanted; all if not given."""
    data_dir: pathlib.Path | None = None
    """Where the datasets were built; TFDS's default if not given."""
    prune: str = ""
    """What to remove, unless a process uses it: `stale`, which is what another build, format or
    killed process left; or `all`."""

    def __post_init__(self) -> None:
        if self.prune not in ("", "stale", "all"):
            raise ValueError(f"--prune {self.prune}: stale or all.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verify:
    """Reads what is packed of built datasets and compares it with its checksums."""

    name: str = simple_parsing.field(default="", positional=True, metavar="NAME")
    """A built dataset, with a config where wanted; all if not given."""
    data_dir: pathlib.Path | None = None
    """Where the datasets were built; TFDS's default if not given."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    return console.run(
        "segdata",
        "Raw archives to segmentation datasets.",
        {
            "fetch": _fetch,
            "doctor": _doctor,
            "draw": _draw,
            "build": _build,
            "audit": _audit,
            "show": _show,
            "packed": _packed,
            "verify": _verify,
        },
        sys.argv[1:] if argv is None else argv,
    )


def _draw(argv: Sequence[str]) -> None:
    """Draw a small synthetic source; needs no account and no download."""
    settings = console.parse(Draw, argv, prog="segdata draw")
    from segdata.testing import damage

    if settings.damage == "list" or settings.to is None:
        for name, kind in damage.kinds(settings.source).items():
            print(f"{name:16}  {kind.what}")
        return
    kind = settings.damage and damage.kind_of(settings.damage, source=settings.source)
    draw = sources.named(settings.source).draw
    if draw is None:
        raise ValueError(f"nothing draws {settings.source}.")
    what = f"the source {settings.source} cannot draw"
    with sources.explained(what, but=(ValueError, OSError, MemoryError)):
        draw(
            settings.to,
            examples=settings.examples,
            seed=settings.seed,
            unlabelled=settings.unlabelled,
        )
    if kind:
        name, seed = settings.damage, settings.seed
        victim = damage.inflict(name, settings.to, source=settings.source, seed=seed)
        console.log(f"{victim} is damaged: {kind.what}.")
    console.log(
        f"{settings.examples} examples drawn: `segdata build {settings.source} "
        f"--manual_dir {shlex.quote(str(settings.to))}` makes a dataset of them."
    )


def _fetch(argv: Sequence[str]) -> None:
    """Fetch from Kaggle what a dataset is built from; resumes, checks, never fetches twice."""
    settings = console.parse(Fetch, argv, prog="segdata fetch")
    from segdata.kaggle import downloads

    folder = settings.to or downloads.default_folder()
    downloads.fetch(settings.source, folder, config=settings.config)
    manual = f" --manual_dir {shlex.quote(str(folder))}" if settings.to else ""
    console.log(f"`segdata build {settings.source}{manual}` makes a dataset of it.")


def _doctor(argv: Sequence[str]) -> int:
    """Say what is missing before a dataset can be built, and what mends it; changes nothing."""
    settings = console.parse(Doctor, argv, prog="segdata doctor")
    from segdata.kaggle import doctor, downloads

    folder = settings.to or downloads.default_folder()
    findings = doctor.examine(settings.source, folder, config=settings.config)
    print("\n".join(map(str, findings)))
    return 0 if all(finding.is_well for finding in findings) else 1


def _build(argv: Sequence[str]) -> None:
    """Build a dataset with TFDS; `build folder` one of your own images and masks."""
    if argv[:1] == ["folder"]:
        _build_folder(argv[1:])
        return
    with console.quiet_start():
        import tensorflow  # noqa: F401 - TFDS imports it late, and loudly
        import tensorflow_datasets as tfds

        from segdata import datasets
        from segdata.building import internals

        command = internals.build_command()

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Build(command):
        """Builds datasets; the flags are those of `tfds build`, and this one."""

        skip_damaged: bool = False
        """Leave out damaged examples, and list them in the metadata under `skipped`."""

    settings = console.parse(Build, argv, prog="segdata build")
    names = settings.positional_datasets + settings.datasets
    if not names:
        raise ValueError(
            f"name a dataset to build: {', '.join(sources.names())}; or the path of one, such as "
            "`.`."
        )
    ours = [name for name in names if re.split("[/:]", name)[0] in sources.names()]
    others = [name for name in names if name not in ours]
    for flag, (default, instead) in _WITHOUT.items() if ours else ():
        if getattr(settings.generation, flag) != default:
            raise ValueError(f"--{flag} is not for {', '.join(ours)}: {instead}.")
    if settings.generation.num_shards == 0:  # TFDS takes it for none given
        raise ValueError("--num_shards 0: a whole number from 1.")
    if settings.skip_damaged and others:
        known = ", ".join(sources.names())
        raise ValueError(f"--skip_damaged is for {known}, not {', '.join(others)}.")
    imports, debug, keywords = settings.generation.imports or "", settings.debug, []
    if settings.skip_damaged:
        keywords.append("skip_damaged=True")
    if debug.overwrite and ours:
        # TFDS removes the old dataset before it looks for what the new one is made from.
        debug = dataclasses.replace(debug, overwrite=False)
        keywords.append("renew=True")
    suffix = "/" + ",".join(keywords) if keywords else ""  # TFDS reads them from the end of a name
    ours = [f"{name}{suffix}" for name in ours]
    logging.disable(logging.WARNING)  # such as "apitools not found": nothing a user can act on
    try:
        console.import_modules(imports)
        for name in ours:
            datasets.register(re.split("[/:]", name)[0])
        # With modules to import TFDS takes no path, without them it takes our names for paths.
        for some, modules, how in (
            (ours, "segdata.datasets", debug),
            (others, imports, settings.debug),
        ):
            if some:
                dataclasses.replace(
                    settings,
                    debug=how,
                    generation=dataclasses.replace(settings.generation, imports=modules),
                    positional_datasets=some,
                    datasets=[],
                ).execute()
    except tfds.core.DatasetNotFoundError as error:  # its own message lists a thousand names
        raise ValueError(
            f"there is no dataset {' or '.join(names)}; segdata has {', '.join(sources.names())}."
        ) from error
    except ImportError as error:  # of a path
        raise ValueError(f"{' or '.join(others)} cannot be imported: {error}.") from error
    except (RuntimeError, AssertionError) as error:  # TFDS raises these for a user's mistakes too
        raise ValueError(str(error)) from error
    finally:
        logging.disable(logging.NOTSET)


def _build_folder(argv: Sequence[str]) -> None:
    """Build a dataset of a user's own images and masks."""
    from segdata.sources.folder.settings import Folder

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Build(Folder):
        """Builds a dataset of your own images and masks."""

        data_dir: pathlib.Path | None = None
        """Where to build; TFDS's default if not given."""
        overwrite: bool = False
        """Build it anew where it is built already."""

    settings = console.parse(Build, argv, prog="segdata build folder")
    with console.quiet_start():
        import tensorflow  # noqa: F401 - TFDS imports it late, and loudly

        from segdata.building import folder
    logging.disable(logging.WARNING)
    try:
        built = folder.build(settings, data_dir=settings.data_dir, overwrite=settings.overwrite)
    finally:
        logging.disable(logging.NOTSET)
    console.log(f"folder:{settings.name} is built in {built.data_dir}.")


def _audit(argv: Sequence[str]) -> int:
    """Check a built dataset or a raw archive, example by example."""
    settings = console.parse(Audit, argv, prog="segdata audit")
    to_stdout = settings.json == "-"
    as_file = "" if to_stdout else settings.json
    for path in filter(None, (as_file, settings.html)):
        files.require_writable(path)
    from segdata.inspection import audit, audit_page, examples, raw

    if settings.manual_dir:
        collection = raw.collection(settings.name, manual_dir=settings.manual_dir)
    else:
        with console.quiet_start():
            console.import_modules(settings.features.imports)
            collection = examples.built(
                settings.name, data_dir=settings.data_dir, **settings.features.keywords()
            )
            next(collection.stream(), None)  # reading is loud the first time
    import tqdm

    report = audit.audit(
        collection,
        progress=lambda items: tqdm.tqdm(
            items,
            "Reading",
            collection.count,
            unit=" examples",
            leave=False,
            disable=None,  # where nobody watches
        ),
    )
    as_json = json.dumps(audit.to_json(report), indent=1)
    try:
        if as_file:
            files.write(as_file, as_json.encode())
        if settings.html:
            files.write(settings.html, audit_page.document(report, collection).encode())
    finally:  # a full disk does not cost the report
        print(as_json if to_stdout else audit.table(report))
    return 0 if report.sound else 1


def _show(argv: Sequence[str]) -> None:
    """Draw a contact sheet of a built dataset, masks over images."""
    settings = console.parse(Show, argv, prog="segdata show")
    files.require_writable(settings.to)
    with console.quiet_start():
        from segdata.inspection import examples, replay, sheet

        console.import_modules(settings.features.imports)
    if settings.replay:
        with console.quiet_start():
            drawn = replay.drawn(settings.replay, step=settings.step, data_dir=settings.data_dir)
        _write_png(settings.to, drawn)
        console.log(f"{settings.to}: what step {settings.step:,} of {settings.replay} saw.")
        return
    augment = sheet.MILD if settings.augment else None
    if settings.settings != Augment():
        augment = settings.settings
    split = settings.split or (None if settings.ids else "train")
    with console.quiet_start():  # the first compilation is loud too
        collection = examples.built(
            settings.name,
            data_dir=settings.data_dir,
            split=split,
            **settings.features.keywords(),
        )
        drawn = sheet.of(
            collection,
            count=settings.count,
            ids=settings.ids,
            augment=augment,
            seed=settings.seed,
        )
    _write_png(settings.to, drawn)
    if settings.ids:
        console.log(f"{settings.to}: {', '.join(settings.ids)} of {collection.name}.")
    else:
        count = min(settings.count, collection.count)
        console.log(f"{settings.to}: the first {count:,} examples of {split}.")


def _write_png(path: pathlib.Path, image: "Image.Image") -> None:
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    files.write(path, encoded.getvalue())


def _packed(argv: Sequence[str]) -> None:
    """List what is packed of built datasets; remove it on request."""
    settings = console.parse(Packed, argv, prog="segdata packed")
    from segdata import packed

    place = settings.data_dir or packed.default_data_dir()
    lines, total = [], 0
    for each in packed.found(place, name=settings.name):
        state = each.state
        is_unwanted = settings.prune == "all" or (settings.prune and state != "current")
        if is_unwanted and state != "unreadable":
            was_in_use = each.is_in_use or each.state == "being packed"
            state = "removed" if packed.remove(each) else "in use" if was_in_use else "not removed"
        total += each.bytes if state != "removed" else 0
        count = f"{each.count:,}" if each.count else "–"
        lines.append((each.name, count, _megabytes(each.bytes), state))
    lines = [("packed", "records", "MB", "state"), *lines, ("in all", "", _megabytes(total), "")]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    for name, count, size, state in lines:
        line = f"{name:{widths[0]}}  {count:>{widths[1]}}  {size:>{widths[2]}}  {state}"
        print(console.printable(line.rstrip()))


def _verify(argv: Sequence[str]) -> int:
    """Read what is packed, and compare it with its checksums; remembers what was whole."""
    settings = console.parse(Verify, argv, prog="segdata verify")
    from segdata import packed
    from segdata.core import records

    place = settings.data_dir or packed.default_data_dir()
    damaged, read = 0, 0
    for each in packed.found(place, name=settings.name):
        if each.state in ("unfinished", "being packed"):
            continue
        try:
            if each.state == "unreadable":
                raise PermissionError(f"{each.manifest} cannot be read.")
            records.load(each.manifest).verify()
            found = "whole"
        except (OSError, ValueError) as error:
            found, damaged = str(error), damaged + 1
        read += 1
        print(console.printable(f"{each.name}: {found}"))
    if not read:
        print("nothing is packed there.")
    return 1 if damaged else 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}"

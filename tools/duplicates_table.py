"""Near duplicates across splits: copies planted in synthetic and real examples, found or not.

    python tools/duplicates_table.py [--cars 318] [--examples 200] [--real DIR]

Of each source a tenth of the groups is validation. Copies of training examples, changed in each
way, are put into validation, each as a group of its own; and the copy of a car with all its views
as a car of its own. What the audit warns of is then compared with what was planted: a warning
without a copy and its original is false. `--real` names a manual dir of dsb2018.
"""

import argparse
import dataclasses
import functools
import io
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageOps

from segdata.archives import images
from segdata.building import splits
from segdata.inspection import audit, raw
from segdata.inspection.examples import Collection, Pending
from segdata.sources import Example, cityscapes_pairs, dsb2018
from segdata.testing import turntable

SIZE = (192, 288)
"""(H, W) of the synthetic cars."""


def reencoded(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The same photo as a JPEG of quality 50."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=50)
    return Image.open(buffer)


def resized(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Half as high and wide."""
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)


def cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Without 5 % of its rows and columns, on any side."""
    width, height = (round(0.95 * side) for side in image.size)
    x = int(rng.integers(image.width - width + 1))
    y = int(rng.integers(image.height - height + 1))
    return image.crop((x, y, x + width, y + height))


def mirrored(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Left and right exchanged."""
    return ImageOps.mirror(image)


CHANGES: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "re-encoded, JPEG 50": reencoded,
    "half the size": resized,
    "cropped by 5 %": cropped,
    "mirrored": mirrored,
}
Row = tuple[str, str, int, int]
"""Source, change, how many copies were planted, and found."""


def turntables(cars: int) -> Collection:
    """Cars in all their views, drawn when they are read."""

    def read(number: int, view: int) -> Example:
        subject = turntable.car(np.random.default_rng([0, number]))
        rng = np.random.default_rng([0, number, view])
        photo, mask = turntable.photograph(subject, view, size=SIZE, rng=rng)
        buffer = io.BytesIO()
        Image.fromarray(photo).save(buffer, "JPEG", quality=86)
        key = f"{number:03}_{view:02}"
        return Example(id=key, group=f"{number:03}", image=buffer.getvalue(), mask=mask)

    def stream() -> Iterator[Pending]:
        for number in range(cars):
            for view in range(turntable.VIEWS):
                reading = functools.partial(read, number, view)
                yield Pending(split="", id=f"{number:03}_{view:02}", read=reading)

    count = cars * turntable.VIEWS
    classes = ("background", "car")
    return Collection(name="cars", place="memory", classes=classes, count=count, stream=stream)


def rows(collection: Collection, name: str, *, copies: int = 20) -> tuple[list[Row], int]:
    """The rows of the table for one source, and the number of false warnings."""
    items = list(collection.stream())
    groups = {item.id: item.id.partition("_")[0] for item in items}
    split_of = splits.assign(groups, strata=dict.fromkeys(groups, ""))
    items = [dataclasses.replace(item, split=split_of[item.id]) for item in items]
    training = [item for item in items if item.split == "train"]
    planted = dict[str, tuple[str, str]]()  # the id of a copy: its original's and the change
    copied = list[Pending]()

    def plant(original: Pending, group: str, change: str) -> None:
        key = f"copy {len(planted)}"
        planted[key] = (original.id, change)
        read = functools.partial(_changed, original, key, group or key, change)
        copied.append(Pending(split="validation", id=key, read=read))

    spread = np.linspace(0, len(training) - 1, copies * len(CHANGES)).astype(int).tolist()
    for number, index in enumerate(spread):
        plant(training[index], "", [*CHANGES][number % len(CHANGES)])
    cars = [*dict.fromkeys(groups[item.id] for item in training)]
    whole = f"{turntable.VIEWS} views of a car, "
    for car, change in zip(cars if len(cars) < len(training) else (), CHANGES, strict=False):
        for item in training:
            if groups[item.id] == car:
                plant(item, f"copy of {car}", change)
    all_items = [*items, *copied]
    report = audit.audit(dataclasses.replace(collection, stream=lambda: iter(all_items), tables=()))
    found, false = set[str](), 0
    for finding in report.findings:
        if finding.check in ("near duplicates across splits", "exact duplicates across splits"):
            for case in finding.cases:
                ids = {key for _, key in case.members}
                true = {key for key in ids & planted.keys() if planted[key][0] in ids}
                found |= true
                false += not true
    counted = dict[str, list[int]]()
    for key, (_, change) in planted.items():
        together = int(key[5:]) >= len(spread)
        row = counted.setdefault(f"{whole if together else ''}{change}", [0, 0])
        row[0] += 1
        row[1] += key in found
    return [
        (f"{name}, {len(items):,}", change, row[0], row[1]) for change, row in counted.items()
    ], false


def _changed(original: Pending, key: str, group: str, change: str) -> Example:
    rng = np.random.default_rng(int(key[5:]))
    with images.opened(original.read().image, name=key) as opened:
        image = CHANGES[change](opened.convert("RGB"), rng)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if image.format == "JPEG" else "PNG", quality="keep")
    mask = np.zeros((image.height, image.width), np.uint8)
    return Example(id=key, group=group, image=buffer.getvalue(), mask=mask)


def table(found: list[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| source | copies | planted | found |", "|---|---|---|---|"]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in found)])


def main() -> int:
    """Prints the table; returns how many copies were missed, and how many warnings were false."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    flags.add_argument("--cars", type=int, default=318, help="of 16 views each")
    flags.add_argument("--examples", type=int, default=200, help="of nuclei and of streets")
    flags.add_argument("--real", type=pathlib.Path, help="a manual dir with stage1_train.zip")
    settings = flags.parse_args()
    found, false = rows(turntables(settings.cars), "cars")
    wrong = {"cars": false}
    with tempfile.TemporaryDirectory() as folder:
        for name, draw in (
            ("dsb2018", dsb2018.draw_zips),
            ("cityscapes_pairs", cityscapes_pairs.draw),
        ):
            draw(pathlib.Path(folder, name), examples=settings.examples, seed=0)
            more, wrong[name] = rows(
                raw.collection(name, manual_dir=pathlib.Path(folder, name)), name
            )
            found += more
    if settings.real:
        more, wrong["real nuclei"] = rows(
            raw.collection("dsb2018", manual_dir=settings.real), "real nuclei"
        )
        found += more
    print(table(found))
    print("\nFalse warnings: " + ", ".join(f"{name} {count}" for name, count in wrong.items()))
    return sum(row[2] - row[3] for row in found) + sum(wrong.values())


if __name__ == "__main__":
    sys.exit(main())

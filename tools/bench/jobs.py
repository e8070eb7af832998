"""What a row of the benchmark measures: one way to make batches, of one kind, at one size."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from segdata.core import records
from segdata.core.augment import Augment

COLOUR: dict[str, Any] = {"brightness_range": (-0.1, 0.1), "contrast_range": (0.8, 1.25)}
WARP: dict[str, Any] = {"rotation_range": (-15, 15), "scale_range": (0.8, 1.25)}
KINDS = {
    "none": Augment(),
    "flip + colour": Augment(horizontal_flip=0.5, **COLOUR),
    "warp + colour": Augment(horizontal_flip=0.5, **WARP, **COLOUR),
    "everything": Augment(
        horizontal_flip=0.5,
        shift_range=(-0.1, 0.1),
        elastic_range=(0, 0.02),
        blur_range=(0, 1),
        saturation_range=(0.8, 1.25),
        hue_range=(-10, 10),
        noise_range=(0, 0.02),
        gamma_range=(0.8, 1.25),
        cutout=0.5,
        **WARP,
        **COLOUR,
    ),
    "crops": Augment(),
}
"""What happens to each example. "crops" are 512×512 of photographs of 1918×1280."""
NATIVE, CROP = (1280, 1918), (512, 512)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What a row is given.

    Attributes:
        kind: One of `KINDS`.
        batch: Examples a batch.
        packed: The records, open; of "crops" the photographs' pixels.
        files: Of "crops" the folder of the same photographs, `<i>.jpg`, and masks, `<i>.png`.
        dataset: Name and data dir of the built dataset that the records come from.
    """

    kind: str
    batch: int
    packed: records.Records
    files: pathlib.Path
    dataset: tuple[str, str | None]


Make = Callable[[Job], Iterator[Any]]

"""Synthetic images and masks of a user's own, in the layouts and formats that people have."""

import contextlib
import io
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from segdata import cli

SIZE = (40, 56)  # not square


def photo(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Noise in which no two are near duplicates: uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (8, 8, 3), np.uint8)
    smooth = Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    noise = rng.integers(-9, 10, (*size, 3))
    return np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)


def classes(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Class ids 0, 1 and 2, each of the latter in several places: uint8 [H, W]."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    for number in range(6):
        y, x = rng.integers(0, size[0] - 8), rng.integers(0, size[1] - 8)
        mask[y : y + 4 + number, x : x + 7] = 1 + number % 2
    mask[0, 0], mask[0, -1], mask[-1, 0], mask[-1, -1] = 1, 1, 2, 2
    return mask


def objects(seed: int, count: int = 30, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A map of objects of 4×4 pixels in rows, of which neighbours touch: uint16 [H, W]."""
    labels = np.zeros(size, np.uint16)
    columns = size[1] // 4
    places = np.random.default_rng(seed).permutation(columns * (size[0] // 4))[:count]
    for number, place in enumerate(sorted(places), start=1):
        y, x = 4 * (place // columns), 4 * (place % columns)
        labels[y : y + 4, x : x + 4] = number
    return labels


def write(path: pathlib.Path, pixels: np.ndarray, **options) -> None:
    """An image file of any kind that Pillow writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def build(
    root: pathlib.Path, *flags: object, name: str = "mine", images: str = "images"
) -> tuple[int, str, str]:
    """The exit code, standard output and standard error of `segdata build folder`."""
    out, err = io.StringIO(), io.StringIO()
    argv = [
        "build",
        "folder",
        "--images",
        root / images,
        "--name",
        name,
        "--data_dir",
        root / "data",
    ]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([*map(str, argv), *map(str, flags)])
    return code, out.getvalue(), err.getvalue().strip().splitlines()[-1] if err.getvalue() else ""


def examples(root: pathlib.Path, name: str = "mine") -> dict[str, dict]:
    """All examples by id, read by TFDS from the files alone; `split` says where they are."""
    builder: Any = tfds.builder(name, data_dir=root / "data")
    assert type(builder).__name__ == "ReadOnlyBuilder"
    read = tfds.ReadConfig(try_autocache=False)
    return {
        example["id"].decode(): {**example, "split": split}
        for split in builder.info.splits
        for example in tfds.as_numpy(builder.as_dataset(split=split, read_config=read))
    }


def equal(root: pathlib.Path, expected: Mapping[str, np.ndarray], feature: str = "mask") -> None:
    """Asserts that the dataset has these examples, with these maps."""
    found = examples(root)
    assert sorted(found) == sorted(expected)
    for key, pixels in expected.items():
        np.testing.assert_array_equal(found[key][feature][..., 0], pixels, err_msg=key)

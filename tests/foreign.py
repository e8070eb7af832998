"""Datasets of others: the features of real TFDS datasets, with small synthetic pixels.

Each is built by a plain `GeneratorBasedBuilder` that nothing of segdata knows.
"""

import io
import pathlib
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

COUNT = {"train": 6, "test": 3}
SIZE = (24, 32)
CROWD = [3, 5, 9]
"""Numbers of segments in each panoptic image, of the labels 0, 17 and 132."""


def blobs(seed: int, *, values: Any) -> np.ndarray:
    """A mask in which each of some values covers a few rectangles; int64 [H, W]."""
    rng = np.random.default_rng(seed)
    mask = np.full(SIZE, values[0], np.int64)
    for value in values[1:]:
        y, x = rng.integers(0, SIZE[0] - 8), rng.integers(0, SIZE[1] - 8)
        mask[y : y + 8, x : x + 8] = value
    return mask


def noise(seed: int, *, channels: int = 3, top: int = 256, dtype: Any = np.uint8) -> np.ndarray:
    """[H, W, C], each value below `top`."""
    shape = (*SIZE, channels)
    return np.random.default_rng(seed).integers(0, top, shape).astype(dtype)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> io.BytesIO:
    """A file of an image uint8 [H, W] or [H, W, 3]."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    file.seek(0)
    return file


class Foreign(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Six examples to train on and three for tests."""

    VERSION = tfds.core.Version("1.0.0")
    FEATURES: ClassVar[dict[str, Any]]

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(dict(self.FEATURES))
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {
            split: self._generate_examples(1000 * place, count)
            for place, (split, count) in enumerate(COUNT.items())
        }

    def _generate_examples(self, first: int, count: int) -> Any:
        for number in range(first, first + count):
            yield number, self.example(number)

    def example(self, seed: int) -> dict[str, Any]:
        """The features of one."""
        raise NotImplementedError


class OxfordIiitPet(Foreign, skip_registration=True):
    """Trimaps of 1, 2 and 3, images as JPEG; its own code is part of TFDS and reads this."""

    name = "oxford_iiit_pet"
    VERSION = tfds.core.Version("4.0.0")
    FEATURES: ClassVar = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(num_classes=37),
        "species": tfds.features.ClassLabel(names=["Cat", "Dog"]),
        "file_name": tfds.features.Text(),
        "segmentation_mask": tfds.features.Image(shape=(None, None, 1), use_colormap=True),
        "head_bbox": tfds.features.BBoxFeature(),
    }

    def example(self, seed):
        return {
            "image": encoded(noise(seed), "JPEG"),
            "label": seed % 37,
            "species": seed % 2,
            "file_name": f"pet_{seed}.jpg",
            "segmentation_mask": encoded(blobs(seed, values=[2, 3, 1]).astype(np.uint8)),
            "head_bbox": tfds.features.BBox(0.1, 0.1, 0.5, 0.5),
        }


class CityscapesLike(Foreign, skip_registration=True):
    """Images of one size; 34 numbers of classes."""

    FEATURES: ClassVar = {
        "image_id": tfds.features.Text(),
        "image_left": tfds.features.Image(shape=(*SIZE, 3), encoding_format="png"),
        "segmentation_label": tfds.features.Image(
            shape=(*SIZE, 1), encoding_format="png", use_colormap=True
        ),
    }

    def example(self, seed):
        return {
            "image_id": f"city_{seed}",
            "image_left": noise(seed),
            "segmentation_label": blobs(seed, values=[0, 7, 8, 26, 33]).astype(np.uint8)[..., None],
        }


class SceneParse150Like(Foreign, skip_registration=True):
    """The mask is grey, and declared as an RGB image."""

    FEATURES: ClassVar = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "annotation": tfds.features.Image(encoding_format="png"),
    }

    def example(self, seed):
        return {
            "image": encoded(noise(seed), "JPEG"),
            "annotation": encoded(blobs(seed, values=[0, 1, 150]).astype(np.uint8)),
        }


class CocoPanopticLike(Foreign, skip_registration=True):
    """Colours number segments, which a list gives labels; 0 is in none."""

    FEATURES: ClassVar = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "image/filename": tfds.features.Text(),
        "image/id": np.int64,
        "panoptic_image": tfds.features.Image(encoding_format="png"),
        "panoptic_image/filename": tfds.features.Text(),
        "panoptic_objects": tfds.features.Sequence(
            {
                "id": np.int64,
                "area": np.int64,
                "bbox": tfds.features.BBoxFeature(),
                "label": tfds.features.ClassLabel(num_classes=133),
                "is_crowd": np.bool_,
            }
        ),
    }

    def example(self, seed):
        numbers = [1 + 7_001 * seed + 256 * crowd for crowd in CROWD]
        mask = blobs(seed, values=[0, *numbers])
        colours = np.stack([mask & 255, mask >> 8 & 255, mask >> 16], axis=-1)
        return {
            "image": encoded(noise(seed), "JPEG"),
            "image/filename": f"{seed}.jpg",
            "image/id": seed,
            "panoptic_image": colours.astype(np.uint8),
            "panoptic_image/filename": f"{seed}.png",
            "panoptic_objects": [
                {
                    "id": number,
                    "area": 64,
                    "bbox": tfds.features.BBox(0.0, 0.0, 1.0, 1.0),
                    "label": label,
                    "is_crowd": False,
                }
                for number, label in zip(numbers, (0, 17, 132), strict=True)
            ],
        }


class KvasirLike(Foreign, skip_registration=True):
    """Masks of 0 and 255 that JPEG has smeared."""

    FEATURES: ClassVar = {
        "image": tfds.features.Image(),
        "mask": tfds.features.Image(),
        "id": np.int64,
    }

    def example(self, seed):
        mask = blobs(seed, values=[0, 255]).astype(np.uint8)
        return {
            "image": encoded(noise(seed), "JPEG"),
            "mask": encoded(np.dstack([mask] * 3), "JPEG"),
            "id": seed,
        }


class BccdLike(Foreign, skip_registration=True):
    """Arrays, in dictionaries; the mask has names, and no channel."""

    FEATURES: ClassVar = {
        "smear": {
            "photo": tfds.features.Tensor(shape=(*SIZE, 3), dtype=np.uint8),
            "cells": {"kind": tfds.features.LabeledImage(labels=["plasma", "red", "white"])},
            "is_cell": tfds.features.Tensor(shape=SIZE, dtype=np.bool_),
        },
        "group": tfds.features.Text(),
        "stratum": tfds.features.ClassLabel(names=["day", "night"]),
    }

    def example(self, seed):
        mask = blobs(seed, values=[0, 1, 2]).astype(np.uint8)
        return {
            "smear": {
                "photo": noise(seed),
                "cells": {"kind": mask[..., None]},
                "is_cell": mask > 0,
            },
            "group": f"slide {seed % 1000 // 2}",
            "stratum": seed % 1000 // 4 % 2,
        }


class SatelliteLike(Foreign, skip_registration=True):
    """Five bands of 12 bits, grey of 16 bits, floats; masks of many types."""

    FEATURES: ClassVar = {
        "bands": tfds.features.Tensor(
            shape=(None, None, 5), dtype=np.uint16, encoding=tfds.features.Encoding.ZLIB
        ),
        "grey": tfds.features.Image(shape=(None, None, 1)),
        "grey16": tfds.features.Image(shape=(None, None, 1), dtype=np.uint16),
        "rgb16": tfds.features.Image(shape=(None, None, 3), dtype=np.uint16),
        "rgba": tfds.features.Image(shape=(None, None, 4)),
        "height": tfds.features.Image(shape=(None, None, 1), dtype=np.float32),
        "cover": tfds.features.Tensor(shape=(None, SIZE[1], 1), dtype=np.int64),
        "cover16": tfds.features.Image(shape=(None, None, 1), dtype=np.uint16),
        "share": tfds.features.Tensor(
            shape=(None, None), dtype=np.float32, encoding=tfds.features.Encoding.BYTES
        ),
        "paint": tfds.features.Image(shape=(None, None, 3)),
        "small": tfds.features.Image(shape=(None, None, 1)),
        "caption": tfds.features.Text(),
    }

    def example(self, seed):
        mask = blobs(seed, values=[-4, 10, 1000])
        paint = np.zeros((*SIZE, 3), np.uint8)
        paint[mask == 10], paint[mask == 1000] = (128, 64, 128), (0, 0, 142)
        return {
            "bands": noise(seed, channels=5, top=4096, dtype=np.uint16),
            "grey": noise(seed, channels=1),
            "grey16": noise(seed, channels=1, top=4096, dtype=np.uint16),
            "rgb16": noise(seed, top=65_536, dtype=np.uint16),
            "rgba": noise(seed, channels=4),
            "height": noise(seed, channels=1, top=4096, dtype=np.float32) / 16 - 30,
            "cover": mask[..., None],
            "cover16": np.where(mask < 0, 65_535, mask).astype(np.uint16)[..., None],
            "share": (mask / 4).astype(np.float32),
            "paint": paint,
            "small": np.zeros((12, 16, 1), np.uint8),
            "caption": f"scene {seed}",
        }


ALL = [
    *(OxfordIiitPet, CityscapesLike, SceneParse150Like, CocoPanopticLike),
    *(KvasirLike, BccdLike, SatelliteLike),
]


def build(data_dir: pathlib.Path) -> None:
    """Builds them all."""
    for made in ALL:
        made(data_dir=data_dir).download_and_prepare()

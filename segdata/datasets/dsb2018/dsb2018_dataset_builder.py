"""Nuclei of the Data Science Bowl 2018 as a TFDS dataset. The reading is done by its source."""

import io
import pathlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from segdata import archives, kaggle, splits
from segdata.parallel import ordered_map
from segdata.sources import dsb2018

_COMPETITION = "data-science-bowl-2018"


class Builder(tfds.core.GeneratorBasedBuilder):
    """Native-size images with class masks; `dsb2018/instances` adds the nuclei one by one."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {
        "1.0.0": "Stage 1, split by near duplicates within grey, colour, dark, bright."
    }
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="default", description="Image and class mask."),
        tfds.core.BuilderConfig(name="instances", description="With a map of single nuclei."),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"""
    Put stage1_train.zip (and stage1_test.zip for the unlabelled test split), the folders they
    unpack to, or the whole {_COMPETITION}.zip into the manual dir, or into its folder dsb2018.
    To get them from Kaggle:
    1. Accept the rules at https://www.kaggle.com/c/{_COMPETITION}/rules in a browser.
    2. Create an API token at https://www.kaggle.com/settings and save it as
       ~/.kaggle/access_token, or as ~/.kaggle/kaggle.json for the older kind.
    3. Build: what is missing is fetched. Or run: segdata fetch dsb2018 --to MANUAL_DIR
    """

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "mask": tfds.features.LabeledImage(
                labels=["background", "nucleus"],
                shape=(None, None, 1),
                doc="Class of each pixel; 255 where nobody knows.",
            ),
            "id": tfds.features.Text(),
            "group": tfds.features.Text(doc="Near duplicates share it; no two splits do."),
        }
        if self._has_instances():
            features["instances"] = tfds.features.Tensor(
                shape=(None, None, 1),
                dtype=np.uint16,
                # Not a 16-bit PNG: `data_source` could not decode that without OpenCV.
                encoding=tfds.features.Encoding.ZLIB,
                doc="0 for background, else the number of the nucleus.",
            )
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "mask"),
            homepage=f"https://www.kaggle.com/c/{_COMPETITION}",
            license="CC0-1.0",
            metadata=tfds.core.MetadataDict(overlap={}),
        )

    def _download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        # A protocol buffer writes its map in an order that changes from process to process, and
        # TFDS has no setting for it; sorted, two builds are the same files.
        original = tfds.core.ExampleSerializer.serialize_example
        tfds.core.ExampleSerializer.serialize_example = _serialized
        try:
            super()._download_and_prepare(*args, **kwargs)
        finally:
            tfds.core.ExampleSerializer.serialize_example = original

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        folder = kaggle.manual_folder(dl_manager)
        tree = self._find(folder, "stage1_train")
        if tree is None:
            kaggle.supply(self.name, folder)
            tree = archives.open(folder / "stage1_train.zip")
        entries = dsb2018.entries(tree)
        # A first pass, of images alone: nothing but a hash and a stratum of each is kept.
        looks = dict(ordered_map(lambda entry: (entry.id, _look(tree, entry)), entries))
        groups = splits.near_duplicates({key: look.hash for key, look in looks.items()})
        split_of = splits.assign(groups, strata={key: look.stratum for key, look in looks.items()})
        parts = {
            split: self._generate_examples(tree, members, groups)
            for split in ("train", "validation")
            if (members := [entry for entry in entries if split_of[entry.id] == split])
        }
        if test := self._find(folder, "stage1_test"):
            parts["test"] = self._generate_examples(test, dsb2018.unlabelled_entries(test), {})
        return parts

    def _generate_examples(
        self, tree: archives.Tree, entries: Sequence[dsb2018.Entry], groups: Mapping[str, str]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        def encoded(entry: dsb2018.Entry) -> tuple[int, dict[str, Any]]:
            example = dsb2018.read_example(tree, entry)
            features = {
                "image": example.image,
                "mask": _png(example.mask),
                "id": example.id,
                "group": groups.get(example.id, example.group),
            }
            if self._has_instances():
                labels = example.instances
                if labels is None:
                    labels = np.zeros(example.mask.shape, np.uint16)
                features["instances"] = labels[..., None]
            return example.overlap, features

        overlaps = (self.info.metadata or {})["overlap"]  # TFDS saves it after the last example
        for overlap, features in ordered_map(encoded, entries):
            if overlap:
                overlaps[features["id"]] = overlap
            yield features["id"], features

    def _has_instances(self) -> bool:
        return self.builder_config is not None and self.builder_config.name == "instances"

    def _find(self, folder: pathlib.Path, name: str) -> archives.Tree | None:
        for place in (folder, folder / self.name):
            if tree := archives.find(place, name, within=[_COMPETITION]):
                return tree
        return None


def _serialized(serializer: tfds.core.ExampleSerializer, example: Any) -> bytes:
    return serializer.get_tf_example(example).SerializeToString(deterministic=True)


def _look(tree: archives.Tree, entry: dsb2018.Entry) -> splits.Look:
    return splits.look(dsb2018.read_image(tree, entry))


def _png(mask: np.ndarray) -> bytes:
    """A small PNG: run lengths beat the default by a third in size and by half in time."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG", compress_type=zlib.Z_RLE)
    return buffer.getvalue()

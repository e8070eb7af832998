"""Nuclei of the Data Science Bowl 2018 as a TFDS dataset, read by `sources.dsb2018`."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from segdata.archives import trees
from segdata.building import builder, shards, splits
from segdata.kaggle import downloads
from segdata.sources import dsb2018

_COMPETITION = "data-science-bowl-2018"


class Builder(builder.SourceBuilder):
    """Native-size images with class masks; `dsb2018/instances` adds a map of single nuclei."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {
        "1.0.0": "Stage 1, split by near duplicates within grey, colour, dark, bright."
    }
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="default", description="Image and class mask."),
        tfds.core.BuilderConfig(name="instances", description="With a map of single nuclei."),
    ]
    EXAMPLE_SIZE = 90_000
    MANUAL_DOWNLOAD_INSTRUCTIONS = downloads.instructions("dsb2018", "MANUAL_DIR")

    def _info(self) -> tfds.core.DatasetInfo:
        more = {}
        if self._has_instances():
            more["instances"] = tfds.features.Tensor(
                shape=(None, None, 1),
                dtype=np.uint16,
                # Not a 16-bit PNG: `data_source` could not decode that without OpenCV.
                encoding=tfds.features.Encoding.ZLIB,
                doc="0 for background, else the number of the nucleus.",
            )
        return self.describe(
            labels=["background", "nucleus"],
            group="Near duplicates share it; no two splits do.",
            homepage=f"https://www.kaggle.com/c/{_COMPETITION}",
            license="CC0-1.0",
            more=more,
            metadata={"overlap": {}},
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, shards.Part]:
        tree = self.need(dl_manager, "stage1_train")
        listed = self.kept(*dsb2018.survey(tree))
        # A first pass over the images: a hash and a stratum of each are kept.
        seen = list(self.readable(listed, lambda entry: _look(tree, entry)))
        entries = [entry for entry, _ in seen]
        looks = {entry.id: look for entry, look in seen}
        groups = splits.near_duplicates({key: look.hash for key, look in looks.items()})
        split_of = splits.assign(groups, strata={key: look.stratum for key, look in looks.items()})
        parts = {
            split: self._generate_examples(tree, members, groups)
            for split in ("train", "validation")
            if (members := [entry for entry in entries if split_of[entry.id] == split])
        }
        if test := self.find(dl_manager, "stage1_test"):
            unlabelled = self.kept(*dsb2018.survey_unlabelled(test))
            parts["test"] = self._generate_examples(test, unlabelled, {})
        return parts

    def _generate_examples(
        self, tree: trees.Tree, entries: Sequence[dsb2018.Entry], groups: Mapping[str, str]
    ) -> shards.Part:
        def read(entry: dsb2018.Entry) -> tuple[dsb2018.Example, dict[str, Any]]:
            example = dsb2018.read_example(tree, entry)
            more: dict[str, Any] = {}
            if self._has_instances():
                labels = example.instances
                if labels is None:
                    labels = np.zeros(example.mask.shape, np.uint16)
                more["instances"] = labels[..., None]
            return example, more

        return self.encoded(entries, read, group=lambda entry: groups.get(entry.id, entry.id))

    def _has_instances(self) -> bool:
        return self.builder_config is not None and self.builder_config.name == "instances"


def _look(tree: trees.Tree, entry: dsb2018.Entry) -> splits.Look:
    return splits.look(dsb2018.read_image(tree, entry))

"""Street scenes of the Cityscapes Image Pairs as a TFDS dataset; `sources` reads them."""

from collections.abc import Sequence
from typing import ClassVar

import tensorflow_datasets as tfds

from segdata.archives import trees
from segdata.building import builder, shards
from segdata.kaggle import downloads
from segdata.sources import cityscapes_pairs

_PAGE = "https://www.kaggle.com/datasets/dansbecker/cityscapes-image-pairs"
_SPLITS = {"train": "train", "val": "validation"}


class Builder(builder.SourceBuilder):
    """Photos of 256×256 with labels of the road; of all classes in `cityscapes_pairs/classes`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "The splits of Cityscapes."}
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="road", description="Road or not."),
        tfds.core.BuilderConfig(name="classes", description="All classes that have a colour."),
    ]
    EXAMPLE_SIZE = 80_000
    MANUAL_DOWNLOAD_INSTRUCTIONS = downloads.instructions("cityscapes_pairs", "MANUAL_DIR")

    def _info(self) -> tfds.core.DatasetInfo:
        palette = {name: list(colour) for name, colour in cityscapes_pairs.PALETTE.items()}
        return self.describe(
            labels=cityscapes_pairs.CLASSES if self._has_classes() else ["other", "road"],
            group="The pair itself.",
            homepage=_PAGE,
            license="Terms of Cityscapes, https://www.cityscapes-dataset.com/license: for research "
            "and not for redistribution.",
            metadata={"palette": palette if self._has_classes() else {"road": palette["road"]}},
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, shards.Part]:
        tree = self.need(dl_manager, cityscapes_pairs.FOLDER)
        entries = self.kept(*cityscapes_pairs.survey(tree))
        return {
            split: self._generate_examples(tree, members)
            for folder, split in _SPLITS.items()
            if (members := [entry for entry in entries if entry.split == folder])
        }

    def _generate_examples(
        self, tree: trees.Tree, entries: Sequence[cityscapes_pairs.Entry]
    ) -> shards.Part:
        label = cityscapes_pairs.classes if self._has_classes() else cityscapes_pairs.road
        return self.encoded(
            entries,
            lambda entry: (cityscapes_pairs.read_example(tree, entry, label=label), {}),
            group=lambda entry: entry.id,
        )

    def _has_classes(self) -> bool:
        return self.builder_config is not None and self.builder_config.name == "classes"

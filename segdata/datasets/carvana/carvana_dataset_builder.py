"""Cars of the Carvana Image Masking Challenge as a TFDS dataset, read by `sources.carvana`."""

import dataclasses
from typing import ClassVar

import tensorflow_datasets as tfds

from segdata.archives import trees
from segdata.building import builder, shards, splits
from segdata.kaggle import downloads
from segdata.sources import carvana


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
    """Which archives are read.

    Attributes:
        photos: The archive of photos with masks.
        test: The archive of photos without; empty for none.
    """

    photos: str = "train_hq"
    test: str = ""


class Builder(builder.SourceBuilder):
    """Original photos with masks of two classes; all views of a car are in one split."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "A tenth of the cars for validation."}
    BUILDER_CONFIGS: ClassVar = [
        Config(name="default", description="Photos of high quality with masks.")
    ]
    # They need archives that training does not.
    MORE_CONFIGS: ClassVar = [
        Config(name="lowres", description="The photos in lower JPEG quality.", photos="train"),
        Config(name="with_test", description="With the unlabelled test photos.", test="test_hq"),
    ]
    EXAMPLE_SIZE = 170_000
    MANUAL_DOWNLOAD_INSTRUCTIONS = downloads.instructions("carvana", "MANUAL_DIR")

    def _info(self) -> tfds.core.DatasetInfo:
        return self.describe(
            labels=["background", "car"],
            group="The car, of which there are up to 16 views; no two splits share one.",
            homepage=f"https://www.kaggle.com/c/{carvana.COMPETITION}",
            license="Terms of the competition; not for redistribution.",
            metadata={"renewed": {}},
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, shards.Part]:
        config = self.builder_config
        assert isinstance(config, Config)
        photos, labels = self.need(dl_manager, config.photos), self.need(dl_manager, "train_masks")
        entries = self.kept(*carvana.survey(photos, labels))
        split_of = splits.assign(
            {entry.id: entry.group for entry in entries}, strata={entry.id: "" for entry in entries}
        )
        parts = {
            split: self._generate_examples(members, photos, labels)
            for split in ("train", "validation")
            if (members := [entry for entry in entries if split_of[entry.id] == split])
        }
        if config.test:
            test = self.need(dl_manager, config.test)
            unlabelled = self.kept(*carvana.survey_unlabelled(test))
            parts["test"] = self._generate_examples(unlabelled, test)
        return parts

    def _generate_examples(
        self,
        entries: list[carvana.Entry],
        photos: trees.Tree,
        labels: trees.Tree | None = None,
    ) -> shards.Part:
        return self.encoded(
            entries,
            lambda entry: (carvana.read_example(entry, photos=photos, labels=labels), {}),
            group=lambda entry: entry.group,
        )

"""Nuclei of the Data Science Bowl 2018 as a TFDS dataset, read by `sources.dsb2018`."""

from typing import ClassVar

from segdata.building import builder
from segdata.sources import dsb2018


class Builder(builder.SourceBuilder):
    """Native-size images with class masks; `dsb2018/instances` adds a map of single nuclei."""

    SOURCE = dsb2018.SOURCE
    RELEASE_NOTES: ClassVar = {
        "1.0.0": "Stage 1, split by near duplicates within grey, colour, dark, bright."
    }

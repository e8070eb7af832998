"""Cars of the Carvana Image Masking Challenge as a TFDS dataset, read by `sources.carvana`."""

from typing import ClassVar

from segdata.building import builder
from segdata.sources import carvana


class Builder(builder.SourceBuilder):
    """Original photos with masks of two classes; all views of a car are in one split."""

    SOURCE = carvana.SOURCE
    RELEASE_NOTES: ClassVar = {"1.0.0": "A tenth of the cars for validation."}

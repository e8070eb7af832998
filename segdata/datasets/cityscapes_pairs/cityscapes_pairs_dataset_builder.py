"""Street scenes of the Cityscapes Image Pairs as a TFDS dataset; `sources` reads them."""

from typing import ClassVar

from segdata.building import builder
from segdata.sources import cityscapes_pairs


class Builder(builder.SourceBuilder):
    """Photos of 256×256 with labels of the road; of all classes in `cityscapes_pairs/classes`."""

    SOURCE = cityscapes_pairs.SOURCE
    RELEASE_NOTES: ClassVar = {"1.0.0": "The splits of Cityscapes."}

"""TFDS builders, one folder each. Importing this registers them, so `tfds.load` finds them."""

from segdata.datasets.carvana import carvana_dataset_builder as carvana
from segdata.datasets.cityscapes_pairs import cityscapes_pairs_dataset_builder as cityscapes_pairs
from segdata.datasets.dsb2018 import dsb2018_dataset_builder as dsb2018

__all__ = ["carvana", "cityscapes_pairs", "dsb2018"]

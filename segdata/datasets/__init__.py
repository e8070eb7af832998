"""TFDS builders, one folder each. Importing this registers them, so `tfds.load` finds them."""

from segdata.datasets.dsb2018 import dsb2018_dataset_builder as dsb2018

__all__ = ["dsb2018"]

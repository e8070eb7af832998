"""What the tests of sources share: examples, read as builders and the audit read them."""

from segdata import sources
from segdata.archives import ArchiveError
from segdata.archives.trees import Tree
from segdata.sources import Example


def cars(photos: Tree, labels: Tree) -> list[Example]:
    return read("carvana", train_hq=photos, train_masks=labels)


def nuclei(tree: Tree) -> list[Example]:
    return read("dsb2018", stage1_train=tree)


def streets(tree: Tree, config: str = "road") -> list[Example]:
    return read("cityscapes_pairs", config, cityscapes_data=tree)


def read(name: str, config: str = "default", **trees: Tree) -> list[Example]:
    """All examples of a source, part by part; the first fault raises."""
    source = sources.named(name)
    parts = list(source.parts(trees.get, source.config(config)))
    for fault in [fault for part in parts for fault in part.faults.values()]:
        raise ArchiveError(fault)
    return [part.read(entry) for part in parts for entry in part.entries]

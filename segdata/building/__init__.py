"""The TFDS side: what turns a source into a dataset on disk, and packs that to records."""

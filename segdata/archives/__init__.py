"""Raw files, opened safely and read in place: zips, folders, images, masks and run lengths.

No dataset is known here, and nothing writes to an archive.
"""


class ArchiveError(OSError):
    """An archive that is missing, broken, or not what it claims to be."""

"""Raw files, opened safely and read in place: zips, folders, images, masks and run lengths.

Nothing here knows a dataset, and nothing writes to an archive.
"""


class ArchiveError(OSError):
    """An archive that is missing, broken, or not what it claims to be."""

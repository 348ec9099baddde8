"""What can be wrong with a region that is asked for, or with the catalog that should have it, one
class for each kind. Every message is one line: what is wrong, with what, what to do.
"""

from __future__ import annotations

from typing import Any


class RegionError(Exception):
    """A region that cannot be had."""


class BoxError(RegionError):
    """A bounding box that is none: wrong order, outside the earth, too close to a pole."""


class TooLargeError(RegionError):
    """More than one grid, or what was agreed to, can hold."""


class YearError(RegionError):
    """Years or months that are none, that have not been yet, or before Sentinel-2."""


class ServerError(RegionError):
    """A catalog or a file on a server that does not answer, or answers with something else."""


class CollectionError(RegionError):
    """A catalog without the collection that was named, or a collection that is not Sentinel-2 L2A
    in files that can be read.
    """


class NoItemsError(RegionError):
    """Not one image of the box in the season of a year."""


class CloudyYearError(RegionError):
    """Too few pixels of a year were ever seen without clouds; `record` tells of the year."""

    def __init__(self, message: str, record: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.record = record


class ExistingFileError(RegionError):
    """A file of that name is there and was made in another way."""

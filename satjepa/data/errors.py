"""What can be wrong with a raster or a folder of rasters, one class for each kind."""

from __future__ import annotations

from pathlib import Path


class SceneError(Exception):
    """A raster or a folder that cannot be used: `path`, what was `found`, what is `accepted`, how
    to `fix` it.
    """

    def __init__(self, path: str | Path, found: str, accepted: str, fix: str) -> None:
        # all four in args, so that a loader's worker can pickle it
        super().__init__(path, found, accepted, fix)
        self.path = Path(path)
        self.found = found
        self.accepted = accepted
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}; accepted: {self.accepted}. To fix: {self.fix}"


class CorruptRasterError(SceneError):
    """The file is no readable raster: truncated, damaged, or with blocks never written."""


class BandCountError(SceneError):
    """The file has another number of bands than its kind of raster."""


class BandOrderError(SceneError):
    """What the file says its three bands are is not red, green and blue, or contradicts itself."""


class ScaleError(SceneError):
    """The type or the range of the values fits no convention without doubt."""


class GridMismatchError(SceneError):
    """Two rasters of one region differ in CRS, size or transform."""


class MissingYearError(SceneError):
    """A year that was asked for, or a layer of it, is not there."""


class EmptyRegionError(SceneError):
    """A region folder without any scene, or a root without any region."""


class DuplicateYearError(SceneError):
    """Two files claim the same year of the same region."""


def corrupt(path: Path, found: str) -> CorruptRasterError:
    """The error for a file that cannot be read to its end."""
    fix = (
        "fetch or write the file again, or, in a data set, leave it out with data.on_bad_scene: "
        "exclude"
    )
    return CorruptRasterError(path, found, "a complete GeoTIFF", fix)

"""What is asked for, looked at before the work: everything that the files alone can tell is told
here, before a model is loaded.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from satjepa.data.georeference import Georeference, georeference
from satjepa.data.rasters import rgb_scale
from satjepa.data.stack import ForecastError, check_grid, years_of
from satjepa.forecast.write import bounded_cache, check_place

NAME_BYTES = 255  # what file systems allow a name


@dataclass(frozen=True)
class Request:
    """Images that can be forecast, oldest first, their years, and the place of the newest."""

    images: tuple[Path, ...]
    years: tuple[int | None, ...]
    place: Georeference

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the images when they lie north up."""
        size = self.place.height, self.place.width
        return size[::-1] if self.place.north_up().exchanged else size


def check_files(
    images: Sequence[str | Path], out: str | Path | None, years: Sequence[int] | None = None
) -> Request:
    """Look at the images, which are read completely, and at where the forecast is to be written
    (None: nowhere).

    Raises what `rgb_scale`, `georeference`, `years_of` and `check_grid` raise; ForecastError where
    `out` cannot be written, or only in the place of an image, or cannot hold the place of the
    images.
    """
    paths = tuple(local_file(image) for image in images)
    known = years_of(paths, years)
    place = check_images(paths)
    spare = check_place(place, paths[-1])
    if out is not None:
        check_output(out, paths, spare)
    return Request(paths, known, place)


def check_images(paths: Sequence[Path]) -> Georeference:
    """Read the images completely: the place of the last one, on whose grid all must lie.

    Raises what `rgb_scale`, `georeference` and `check_grid` raise.
    """
    with bounded_cache():
        for path in paths:
            rgb_scale(path)
    place = georeference(paths[-1])
    check_grid(place, paths[-1], paths[:-1])
    return place


def local_file(path: str | Path) -> Path:
    """A path; ForecastError where it is a URL, or one of GDAL's ways of reading what is no file."""
    text = str(path)
    if os.path.lexists(text):
        return Path(path)
    if url := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+", text):  # Path makes https:/x of https://x
        address = f"{url[1]}://{text[url.end() :]}"
        raise ForecastError(f"{address} is a URL: fetch the file first, and name it on this disk")
    if re.match(r"/vsi\w+/", text):
        raise ForecastError(f"{text} is no file on this disk: copy it to one first")
    return Path(path)


def check_output(out: str | Path, images: Sequence[Path] = (), spare: int = 0) -> None:
    """Raise ForecastError where the file `out` cannot be written (over): a folder or a device, one
    of `images`, a place without permission, a name that is too long (with `spare` bytes added for
    the name of a companion).
    """
    out = local_file(out)
    target = Path(os.path.realpath(out))
    if any(len(os.fsencode(name)) + spare > NAME_BYTES for name in target.parts):
        raise ForecastError(f"{out}: a name of more than {NAME_BYTES - spare} bytes: shorten it")
    if target in [image.resolve() for image in images]:
        raise ForecastError(
            f"{out} is one of the images and would be written over: name another file"
        )
    if target.is_dir():
        raise ForecastError(f"{out} is a folder: name the GeoTIFF to write")
    if target.exists() and not target.is_file():
        raise ForecastError(f"{out} is no regular file: name another file")
    check_folder(target.parent, str(out))


def check_folder(folder: str | Path, name: str | None = None) -> None:
    """Raise ForecastError where nothing can be written to a folder, which need not exist yet.

    name: what the user asked to be written, if not the folder.
    """
    target = Path(os.path.realpath(folder))
    there = next(parent for parent in (target, *target.parents) if parent.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".", suffix=".part"):
            return
    except OSError as error:
        why = error.strerror or error
        raise ForecastError(
            f"{name or folder}: nothing can be written to {there} ({why}): name another place"
        ) from error

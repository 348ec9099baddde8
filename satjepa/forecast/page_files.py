"""The files that a page is made from, each looked at: where it lies and in which units it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from satjepa.data.display import is_display
from satjepa.data.errors import GridMismatchError
from satjepa.data.georeference import georeference, georeference_of
from satjepa.data.rasters import open_raster, rgb_scale
from satjepa.data.stack import whites_of
from satjepa.forecast.page_scores import Units
from satjepa.forecast.write import BANDS

NEXT = 1  # the year of a forecast where that of the images is not known; 2 is the one after it
FIRST = 1000  # from here on a number is a year
Years = Sequence[tuple[int | None, Path]]


@dataclass(frozen=True)
class Files:
    """What a page is made from, the years of forecasts known or NEXT. units: of the images and
    whites of each, by path.
    """

    images: Years
    forecasts: Years
    truth: dict[int, Path]
    members: dict[int, list[Path]]
    units: dict[Path, Units]
    white: float
    reflectance: bool


def looked_at(
    images: Years, forecasts: Years, truth: dict[int, Path], members: dict[int, list[Path]]
) -> Files:
    """The files, after a look at each: where it lies, in which units it is."""
    images = [(year, Path(path)) for year, path in images]
    newest = images[-1][1]
    paths = [path for _, path in images]
    with open_raster(forecasts[0][1], len(BANDS)) as src:
        noted = src.tags().get("WHITE")
    whites = whites_of(paths, float(noted) if noted else None)
    units = {
        path: Units(*rgb_scale(path), white) for path, (white, _) in zip(paths, whites, strict=True)
    }
    white = whites[-1][0]
    for path in truth.values():
        (own, _), _ = whites_of([path, newest], white)
        units[path] = Units(*rgb_scale(path), own)
    files = Files(images, forecasts, truth, members, units, white, not is_display(newest))
    place = georeference(newest)
    for _, path, bands in rasters(files):
        with open_raster(path, bands) as src:
            if difference := place.difference(georeference_of(src)):
                raise GridMismatchError(
                    path, difference, f"the grid of {newest}", "show it with images of its own grid"
                )
    return files


def rasters(files: Files) -> Iterator[tuple[int | None, Path, int]]:
    """(year, path, bands) of every file."""
    for year, path in files.images:
        yield year, path, 3
    for year, path in files.forecasts:
        yield year, path, len(BANDS)
    for year, paths in files.members.items():
        yield from ((year, path, 3) for path in paths)
    for year, path in files.truth.items():
        yield year, path, 3


def year_name(year: int) -> str:
    """The year of a forecast in words."""
    if year >= FIRST:
        return str(year)
    return "next year" if year == NEXT else f"in {year} years"

"""Yearly composites of a box, from the search to the files of the published layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from satjepa.region.catalog import Source
from satjepa.region.errors import REFUSED, ExistingFileError, RegionError, TooLargeError
from satjepa.region.grid import UtmGrid, utm_grid
from satjepa.region.plan import key_of
from satjepa.region.read import Reader
from satjepa.region.report import report_table, write_report
from satjepa.region.signing import Signer
from satjepa.region.write import composite_path, read_record
from satjepa.region.year import Request, clear_work, make_year

USUAL_IMAGES = 30  # of a place in a season, for an estimate before the search
BYTES = 6.25  # of an image's pixel: three bands of two bytes, and a class for four pixels
GB = 1e9
MB = 1e6
LONG = 4.0  # seconds of waiting that are told of


def get_region(request: Request) -> list[Path]:
    """Make the composites of a request; returns their files, one a year.

    A year that is there already, made in the same way, stays, unless its season was not over then;
    what a killed run has finished is not made again. Years without images that can be read, or too
    cloudy, are passed over, and after the others the error of the first of them is raised, with all
    of them in its message. Raises the errors of `satjepa.region.errors`.
    """
    grid = utm_grid(request.box)
    request.log(
        f"{request.region}: {grid.width} x {grid.height} pixels of 10 m in {grid.crs}, months "
        f"{request.season} ({request.season.reason})"
    )
    request.log(estimate(request, grid))
    keys = {year: key_of(request.settings(grid, year)) for year in request.years}
    records = _done_already(request, keys)

    def wait(seconds: float) -> None:
        if seconds >= LONG:
            request.log(f"a server fails; it is asked again in {seconds:g} s")
        request.wait(seconds)

    reader = Reader(Signer(request.catalog.tokens, wait), wait)
    todo = [year for year in request.years if year not in records]
    source = Source(request.catalog, wait) if todo else None
    refused: list[RegionError] = []
    for year in todo:
        try:
            records[year] = make_year(request, grid, year, keys[year], source, reader)
        except REFUSED as error:
            request.log(str(error))
            refused.append(error)
            if getattr(error, "record", None):
                records[year] = error.record
    if records:
        told = [records[year] for year in sorted(records)]
        path = write_report(request.folder, told)
        request.log(f"{report_table(told)}\n{path}")
    if refused:
        raise type(refused[0])("; ".join(str(error) for error in refused))
    return [composite_path(request.out, request.region, year) for year in request.years]


def estimate(request: Request, grid: UtmGrid) -> str:
    """How much is fetched and written, at most, in words. Raises TooLargeError where that is more
    than the request agrees to.
    """
    years = len(request.years)
    fetched = grid.pixels * BYTES * USUAL_IMAGES * years
    written = grid.pixels * 6 * years
    text = (
        f"about {_size(fetched)} to fetch for {years} years of {USUAL_IMAGES} images each, "
        f"before compression, and {_size(written)} to write"
    )
    if fetched > request.most_bytes:
        raise TooLargeError(
            f"bbox {request.box}: {text}: ask for less, or say --yes to fetch more than "
            f"{request.most_bytes / GB:g} GB"
        )
    return text


def _size(count: float) -> str:
    """Bytes in GB, or in MB where that is less than a tenth of one."""
    return f"{count / GB:.1f} GB" if count >= 0.1 * GB else f"{count / MB:.1f} MB"


def _done_already(request: Request, keys: dict[int, str]) -> dict[int, dict[str, Any]]:
    """The records of the years that are there, made in the same way of a season that was over.
    Raises ExistingFileError.
    """
    done = {}
    for year, key in keys.items():
        path = composite_path(request.out, request.region, year)
        if not path.exists():
            continue
        record = read_record(path)
        if record is None or record.get("key") != key:
            raise ExistingFileError(
                f"{path}: is there and was made in another way (box, months, clouds or catalog): "
                "move it away, or give another --name or --out"
            )
        if record.get("partial"):
            request.log(f"{year}: there already, but made before its season was over: made again")
            continue
        clear_work(request, year, key)  # of a run that was killed between the last two steps
        request.log(f"{year}: there already")
        done[year] = record
    return done

"""The composite of one year: search, plan, blocks, file."""

from __future__ import annotations

import datetime
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from satjepa.region.assets import read_item
from satjepa.region.blocks import Blocks
from satjepa.region.catalog import Catalog, Source
from satjepa.region.composite import compose_block
from satjepa.region.errors import CloudyYearError, NoItemsError
from satjepa.region.grid import UtmGrid, Window
from satjepa.region.plan import Plan, kept_plan, make_plan
from satjepa.region.read import Reader
from satjepa.region.report import offsets_of
from satjepa.region.request import Box, Season, check_name, name_of
from satjepa.region.write import composite_path, write_composite

WORK = ".work"  # in a region's folder: what is not finished
MAX_CLOUD = 60.0  # percent
# With gaps like those of clouds, windows of 64 pixels with half of them valid in two such years
# are 68 % of all at 0.8, 86 % at 0.9, 37 % at 0.6 (fractal gaps, 512 x 512 pixels).
MIN_VALID = 0.8
MOST_BYTES = 25e9  # that are fetched without being asked


@dataclass(frozen=True)
class Request:
    """What is asked for. max_cloud: percent of an image's clouds by its metadata; min_valid: the
    share of a year's pixels below which it is refused; most_bytes: to be fetched at most; workers:
    images read at a time; side: pixels of a block, a multiple of 16. wait: how to pass seconds.
    """

    catalog: Catalog
    box: Box
    season: Season
    years: list[int]
    out: Path
    name: str | None = None
    max_cloud: float = MAX_CLOUD
    min_valid: float = MIN_VALID
    most_bytes: float = MOST_BYTES
    workers: int = 8
    side: int = 512
    log: Callable[[str], None] = print
    progress: bool = True
    wait: Callable[[float], None] = time.sleep

    @property
    def region(self) -> str:
        """Name of the region, which is that of its folder."""
        return check_name(self.name) if self.name else name_of(self.box)

    @property
    def folder(self) -> Path:
        """The region's folder."""
        return self.out / self.region

    def settings(self, grid: UtmGrid, year: int) -> dict[str, Any]:
        """All that decides the pixels of a year."""
        return {
            "grid": asdict(grid),
            "year": year,
            "months": str(self.season),
            "max_cloud": self.max_cloud,
            "side": self.side,
            "catalog": self.catalog.url,
            "collection": self.catalog.collection,
        }


def make_year(
    request: Request, grid: UtmGrid, year: int, key: str, source: Source, reader: Reader
) -> dict[str, Any]:
    """Make the composite of a year, or go on with it; returns what is told of it in its tags.

    Raises NoItemsError, CloudyYearError, CollectionError, ServerError.
    """
    work = work_folder(request, year, key)
    plan = kept_plan(work, lambda: _plan(request, grid, year, source, reader))
    blocks = Blocks(work)
    windows = grid.blocks(plan.side)

    def make(window: Window) -> np.ndarray:
        rgb, count = compose_block(plan.images, grid, window, reader, request.workers)
        return np.concatenate([rgb, count[None]])

    seen = 0
    for window in _progress(request, year, windows):
        seen += int((blocks.made(window, lambda window=window: make(window))[3] > 0).sum())
    record = _record(request, grid, year, key, plan, seen / grid.pixels)
    request.log(
        f"{year}: {len(plan.images)} images, {record['valid_share']:.1%} valid, offsets "
        f"{offsets_of(record)}"
    )
    if record["valid_share"] < request.min_valid:
        message = (
            f"{year}: {record['valid_share']:.1%} of the pixels are clear in one of "
            f"{len(plan.images)} images, and --min-valid asks for {request.min_valid:.1%}: take "
            "more --months, a higher --max-cloud, or a lower --min-valid"
        )
        raise CloudyYearError(message, record | {"refused": "too cloudy"})
    path = composite_path(request.out, request.region, year)
    parts = (
        (window, blocks.made(window, lambda window=window: make(window))[:3]) for window in windows
    )
    made = work / path.name  # what a killed run leaves of it goes with the folder
    write_composite(made, grid, plan.side, parts, record)
    os.replace(made, path)
    clear_work(request, year, key)
    return record


def work_folder(request: Request, year: int, key: str) -> Path:
    """Where what is not finished of a year is kept."""
    return request.folder / WORK / f"{year}-{key}"


def clear_work(request: Request, year: int, key: str) -> None:
    """Remove what was kept of a year, which is finished."""
    work = work_folder(request, year, key)
    shutil.rmtree(work, ignore_errors=True)
    if work.parent.is_dir() and not any(work.parent.iterdir()):
        work.parent.rmdir()


def _plan(request: Request, grid: UtmGrid, year: int, source: Source, reader: Reader) -> Plan:
    """Search and look at what is found. Raises NoItemsError where nothing of it can be used."""
    items = source.search(request.box, request.season, year)
    first, last = request.season.dates(year)
    where = f"{year}: no image of {request.box} from {first} to {last} in {request.catalog.url}"
    if last >= datetime.date.today():
        request.log(f"{year}: its season lasts until {last}: this is made of what there is so far")
    if not items:
        raise NoItemsError(f"{where}: look at the box, or take more --months")
    images = [read_item(item) for item in items]
    plan = make_plan(
        images,
        grid,
        reader,
        max_cloud=request.max_cloud,
        side=request.side,
        workers=request.workers,
    )
    for one in plan.images:
        if one.offset.contradicted:
            request.log(
                f"{year}: {one.image.name}: offset {one.offset.value:+d} {one.offset.reason}"
            )
    if not plan.images:
        name, why = plan.left_out[-1]
        raise NoItemsError(
            f"{where} can be used, {len(plan.left_out)} are left out ({name}: {why}): take a "
            "higher --max-cloud or more --months"
        )
    return plan


def _progress(request: Request, year: int, windows: list[Window]) -> Iterator[Window]:
    """The windows, with a bar that tells the time left."""
    from tqdm import tqdm

    yield from tqdm(windows, desc=str(year), unit="block", disable=not request.progress)


def _record(
    request: Request, grid: UtmGrid, year: int, key: str, plan: Plan, valid: float
) -> dict[str, Any]:
    """All that is to be known of a year, as JSON has it."""
    first, last = request.season.dates(year)
    return request.settings(grid, year) | {
        "key": key,
        "region": request.region,
        "bbox": str(request.box),
        "first_day": str(first),
        "last_day": str(last),
        "months_reason": request.season.reason,
        "items": plan.report(),
        "left_out": [f"{name}: {why}" for name, why in plan.left_out],
        "valid_share": valid,
        "software": f"satjepa {version('satjepa')}",
    }

"""What notebook 12 walks with: a place that is asked for, what a catalog has of it, its composites,
their forecast as a Dataset and as a scene, and what the truth of the demo world says of them.

Where no catalog is named, that of `satjepa.demo.catalog` is written and asked: an invented land
whose truth is known. Pictures and tables are of the middle of a region, at most `SIDE` pixels a
side, so that a large one can be walked, too.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satjepa.data.georeference import georeference
from satjepa.data.holes import read_valid
from satjepa.data.rasters import open_raster
from satjepa.data.stack import year_of
from satjepa.demo.catalog import CatalogLand, write_catalog
from satjepa.forecast.labelled import crs_of
from satjepa.paths import ARTIFACTS, SHIPPED_MODEL
from satjepa.region.ask import ask
from satjepa.region.assets import RGB, Image, read_items
from satjepa.region.catalog import Source
from satjepa.region.grid import UtmGrid, Window, utm_grid
from satjepa.region.offsets import CLEAR
from satjepa.region.read import Reader
from satjepa.region.request import check_name, parse_years
from satjepa.region.signing import Signer

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from satjepa.region.year import Request

DEMO = "Borderland"
MARGIN = 76  # pixels of the demo's land around its box: 4 x 4 tiles of the model remain
SIDE = 512  # pixels a side, at most, of what is looked at
FULL = 10000  # DN of reflectance 1


@dataclass(frozen=True)
class Place:
    """What can be asked for, as `satjepa data get` and `satjepa forecast` take it.

    stac: a name of `satjepa.region.catalog.KNOWN`, a URL or a path; None is the demo catalog.
    bbox: west, south, east, north in degrees. years: as "2019-2022". months: as "5-9"; None is by
    the latitude. model: folder of a checkpoint. out: folder into which everything is written.
    Paths are relative to the checkout, or absolute.
    """

    stac: str | None = None
    bbox: Sequence[float] | None = None
    years: str = "2019-2022"
    months: str | None = None
    name: str | None = None
    collection: str | None = None
    model: str = SHIPPED_MODEL
    out: str = f"{ARTIFACTS}/own_region"


@dataclass(frozen=True)
class Walk:
    """A place that has been asked for: the request of its composites, folder of the model and of
    the forecast, and the land itself where it is that of the demo.
    """

    request: Request
    model: Path
    forecast: Path
    land: CatalogLand | None = None

    @property
    def grid(self) -> UtmGrid:
        """The grid of the region."""
        return utm_grid(self.request.box)


def walk(home: Path, **asked: Any) -> Walk:
    """Check what is asked for, the fields of `Place`; write the demo catalog where no other is
    named. What an earlier walk made of that goes first: it may be of another land.

    Raises TypeError for a field that a place has not, ValueError for a catalog without a bbox, and
    what `satjepa.region.ask.ask` raises.
    """
    place = Place(**asked)
    place = replace(place, years=str(place.years))  # a lone year is a number in YAML
    if place.stac is not None and place.bbox is None:
        raise ValueError(f"{place.stac}: of which place? give bbox, west, south, east, north")
    out = home / place.out
    land = None
    if place.stac is None:
        name = check_name(place.name or DEMO)
        for old in ("catalog", f"scenes/{name}", f"forecast/{name}"):
            shutil.rmtree(out / old, ignore_errors=True)
        years = parse_years(place.years)
        land = CatalogLand(years)
        stac = str(write_catalog(out / "catalog", years, land=land).path)
        place = replace(place, stac=stac, name=name, bbox=place.bbox or land.bbox(MARGIN))
    request = ask(
        place.bbox, place.years, out / "scenes", months=place.months, stac=place.stac,
        collection=place.collection, name=place.name, log=_to_stderr,
    )  # fmt: skip
    return Walk(request, home / place.model, out / "forecast" / request.region, land)


def _to_stderr(line: str) -> None:
    """Seen while it runs; an executed copy of a notebook has the tables instead."""
    print(line, file=sys.stderr)


# ---- what the catalog has ----


def offered(request: Request) -> dict[int, list[Image]]:
    """The images that the catalog has of the box in each season. Raises ServerError and
    CollectionError.
    """
    source = Source(request.catalog, request.wait)
    found = {}
    for year in request.years:
        found[year], _ = read_items(source.search(request.box, request.season, year))
    return found


def offer_table(found: dict[int, list[Image]]) -> pd.DataFrame:
    """A row a year: images, tiles, least, median and most clouds in percent, and how many images
    say that 1000 is to be taken off.
    """
    import pandas as pd

    rows = {}
    for year, images in found.items():
        clouds = pd.Series([image.cloud for image in images], dtype=float)
        rows[year] = {
            "images": len(images),
            "tiles": len({image.tile for image in images}),
            "clouds, least %": clouds.min(),
            "median %": clouds.median(),
            "most %": clouds.max(),
            "say: take 1000 off": sum(image.stated != 0 for image in images),
        }
    return pd.DataFrame(rows).T.astype({"images": int, "tiles": int, "say: take 1000 off": int})


# ---- composites ----


def evidence(record: dict[str, Any]) -> pd.DataFrame:
    """What the images of a composite were found to be, a row each, by the record of its year: the
    share of the region that is clear, the offset in DN, and whether metadata say another one.
    """
    import pandas as pd

    rows = [
        {
            "day": item["datetime"][:10],
            "image": item["item"],
            "clear, %": round(100 * item["clear_share"], 1),
            "DN to add": item["offset"],
            "metadata": "wrong" if item["against_metadata"] else "right",
        }
        for item in record["items"]
    ]
    return pd.DataFrame(rows).set_index("day")


def image_of(asked: Walk, image: Image, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """One image of the catalog in the middle of the region: (3, h, w) float DN with its offset,
    NaN where it has nothing; and where it is clear, (h, w) bool.
    """
    reader = Reader(Signer(asked.request.catalog.tokens, asked.request.wait), asked.request.wait)
    grid = asked.grid
    window = Window(*_centre(grid.width, grid.height, SIDE))

    def read(band: str) -> np.ndarray:
        return reader.on_grid(image.hrefs[band], grid, window, exact=band == "scl")

    stored = np.stack([read(band) for band in RGB]).astype(np.float32)
    seen = np.where(stored > 0, stored + offset, np.nan)
    return seen, np.isin(read("scl"), CLEAR)


def centre_of(path: Path, bands: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """The middle of a raster of so many bands: values (bands, h, w) as stored, and where they are
    valid (h, w). Raises CorruptRasterError, BandCountError.
    """
    with open_raster(path, bands) as src:
        return read_valid(src, _centre(src.width, src.height, side))


def _centre(width: int, height: int, side: int) -> tuple[int, int, int, int]:
    """First column and row, width and height of the middle of so many pixels."""
    wide = min(side, width)
    high = min(side, height)
    return (width - wide) // 2, (height - high) // 2, wide, high


def cube_of(paths: Sequence[Path], side: int = SIDE) -> xr.Dataset:
    """GeoTIFFs of a grid, one a year, as xarray has them: red, green and blue (year, y, x) uint16
    of the middle, with the centres of the pixels as coordinates and the CRS in `spatial_ref`.
    """
    import xarray as xr

    images = []
    for path in paths:
        data, valid = centre_of(path, len(RGB), side)
        images.append(np.where(valid, data, 0).astype(np.uint16))
    place = georeference(paths[-1])
    column, row, width, height = _centre(place.width, place.height, side)
    inside = place.transform @ type(place.transform).translation(column, row)
    mapping = {
        "crs_wkt": place.crs.to_wkt(),
        "GeoTransform": " ".join(repr(float(number)) for number in inside.to_gdal()),
    }
    coords = {
        "year": [year_of(path) for path in paths],
        "y": inside.f + inside.e * (np.arange(height) + 0.5),
        "x": inside.c + inside.a * (np.arange(width) + 0.5),
        "spatial_ref": ((), 0, mapping),
    }
    said = {"units": "reflectance x 10000", "_FillValue": 0, "grid_mapping": "spatial_ref"}
    stack = np.stack(images, 1)  # (3, Y, h, w)
    bands = {
        band: (("year", "y", "x"), values, said) for band, values in zip(RGB, stack, strict=True)
    }
    return xr.Dataset(bands, coords)


def numbers(cube: xr.Dataset, year: int) -> np.ndarray:
    """One year of a cube, (3, h, w) float32 DN, NaN where it has a hole."""
    stored = np.stack([cube[band].sel(year=year).values for band in RGB])
    return np.where((stored > 0).all(0), stored, np.nan).astype(np.float32)


def truth_of(land: CatalogLand, cube: xr.Dataset, year: int) -> np.ndarray:
    """What the demo's land is like in a year on the grid of a cube, (3, h, w) float32 DN."""
    from rasterio.warp import transform

    x, y = np.meshgrid(cube["x"].values, cube["y"].values)
    there = transform(crs_of(cube), "EPSG:32631", x.ravel(), y.ravel())
    x, y = (np.reshape(values, x.shape) for values in there)
    return (FULL * land.reflectance(year, x, y)).astype(np.float32)


def errors_of(land: CatalogLand | None, cube: xr.Dataset) -> dict[int, np.ndarray]:
    """Composite minus truth of each year, (3, h, w) DN; empty where no truth is known."""
    if land is None:
        return {}
    return {year: numbers(cube, year) - truth_of(land, cube, year) for year in cube["year"].values}


def wrong_table(wrong: dict[int, np.ndarray]) -> pd.DataFrame:
    """Composite minus truth in DN, (3, h, w) a year, as numbers: mean of each band (the bias), and
    what 99 % of the values are within.
    """
    import pandas as pd

    rows = {}
    for year, values in wrong.items():
        means = np.nanmean(values.astype(float), (1, 2)).round(1) + 0.0  # 0.0 for -0.0
        rows[year] = {f"bias, {band}": mean for band, mean in zip(RGB, means, strict=True)}
        rows[year]["99 % are within"] = float(np.nanpercentile(np.abs(values), 99))
    return pd.DataFrame(rows).T.round(1)

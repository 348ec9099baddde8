"""A small STAC catalog of an invented land: what a server has of Sentinel-2, in files on disk.

    python -m satjepa.demo.catalog FOLDER            or: satjepa data catalog FOLDER

One land of the demo world, on the border of two UTM zones, is seen several times a season from
both zones, with clouds and their shadows, a classification (SCL) that marks them, and an edge
without data. Dates take turns in how they are told of, as public catalogs do:

    c1    1000 is added to the numbers, and the bands state an offset of -0.1
    v1    nothing is added; the bands state -0.1 all the same, or that it was taken off
    pc    1000 is added from 2022 on, and only the processing baseline says so

    <out>/catalog.json                          the root
    <out>/sentinel-2-l2a/collection.json
    <out>/sentinel-2-l2a/<item>/<item>.json     with B02.tif, B03.tif, B04.tif and SCL.tif beside it

The truth is known: `CatalogLand.reflectance` gives it for any place.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from satjepa.demo.catalog_files import PIXEL, Frame, write_item, write_tree
from satjepa.demo.render import Year, simulate
from satjepa.demo.terrain import fractal, stream
from satjepa.demo.world import CLASSES, INDEX, Climate

BORDER = 6.0  # degrees east, between UTM zones 31 and 32
LATITUDE = 50.5
ZONES = (31, 32)
WHITE = 0.3558  # reflectance of the demo world's white
CALM = Climate(0.3, 0.85, 0.3, 0.05, 0.3, 0.7, 0.5)
FLAVOURS = ("c1", "v1", "pc")
SIDE = 360  # pixels of the land
SEEN = 300  # pixels of an image's side
DATES = ((5, 20), (6, 14), (7, 9), (7, 24), (8, 18), (9, 7))  # month and day
CLOUDED = 0.3  # share of an image
VEGETATED = ("forest", "shrub", "young", "marsh", "wheat", "meadow", "orchard")


@dataclass(frozen=True)
class Written:
    """A catalog: its root, how many items, and a box inside the land: W, S, E, N in degrees."""

    path: Path
    items: int
    bbox: tuple[float, float, float, float]


class CatalogLand:
    """The land of a catalog in some years: `reflectance` and `classes` of any place of it.

    Coordinates are metres of EPSG:32631; the land is SIDE pixels of 10 m around the border.
    """

    def __init__(self, years: Sequence[int], seed: int = 7) -> None:
        from rasterio.warp import transform

        self.years = self._simulated(years, seed)
        x, y = transform("EPSG:4326", "EPSG:32631", [BORDER], [LATITUDE])
        self.left = round(x[0] / PIXEL) * PIXEL - SIDE * PIXEL // 2
        self.top = round(y[0] / PIXEL) * PIXEL + SIDE * PIXEL // 2

    def _simulated(self, years: Sequence[int], seed: int) -> dict[int, Year]:
        """The years of the demo world that are asked for, and those between."""
        span = list(range(min(years), max(years) + 1))
        worlds = simulate(seed, "catalog", "Borderland", CALM, span, SIDE)
        return {world.year: world for world in worlds}

    def reflectance(self, year: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Red, green and blue (3, ...) in [0, 1] at places in metres; NaN outside the land."""
        image = self.years[year].rgb * (WHITE / 255)
        at = self._pixels(x, y)
        bands = [map_coordinates(b, at, order=1, cval=np.nan, prefilter=False) for b in image]
        return np.stack(bands)

    def classes(self, year: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The class of SCL at places: 4 vegetation, 5 bare, 6 water."""
        cover = self.years[year].cover
        scl = np.full(len(CLASSES), 5, np.uint8)
        scl[[INDEX[name] for name in VEGETATED]] = 4
        scl[INDEX["water"]] = 6
        rows, columns = np.rint(self._pixels(x, y)).astype(int).clip(0, SIDE - 1)
        return scl[cover][rows, columns]

    def _pixels(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Rows and columns (2, ...) of places; whole numbers are centres of pixels."""
        return np.stack([(self.top - y) / PIXEL - 0.5, (x - self.left) / PIXEL - 0.5])

    def bbox(self, margin: int = 60) -> tuple[float, float, float, float]:
        """A box around the border, `margin` pixels inside the land: W, S, E, N in degrees."""
        from rasterio.warp import transform

        near = PIXEL * margin
        far = PIXEL * (SIDE - margin)
        xs = [self.left + near, self.left + near, self.left + far, self.left + far]
        ys = [self.top - near, self.top - far, self.top - near, self.top - far]
        lon, lat = transform("EPSG:32631", "EPSG:4326", xs, ys)
        lons = sorted(lon)
        lats = sorted(lat)
        return lons[1], lats[1], lons[2], lats[2]


def frame_of(land: CatalogLand, zone: int) -> Frame:
    """Where the images of a zone lie: the western ones reach over the border to the east, and the
    eastern ones to the west, so that each sees most of the land.
    """
    from rasterio.warp import transform

    x, y = transform("EPSG:4326", f"EPSG:326{zone}", [BORDER], [LATITUDE])
    shift = -PIXEL * SIDE // 6 if zone == ZONES[0] else PIXEL * SIDE // 6
    left = round((x[0] + shift) / 20) * 20 - SEEN * PIXEL // 2
    top = round(y[0] / 20) * 20 + SEEN * PIXEL // 2
    return Frame(f"EPSG:326{zone}", left, top, SEEN)


def image_of(
    land: CatalogLand, frame: Frame, year: int, key: tuple[object, ...], added: int
) -> tuple[np.ndarray, np.ndarray]:
    """What is stored of one image: (3, n, n) uint16 with `added` DN, and its SCL, (n/2, n/2)."""
    x, y = frame.places("EPSG:32631")
    clear = land.reflectance(year, x, y)
    nothing = np.isnan(clear[0])
    nothing[:, :16] = True  # the edge of the swath
    cloud = fractal(stream(*key, "clouds"), frame.side, 3.2)
    cloud = gaussian_filter(cloud, 2)
    thick = np.clip((cloud - np.quantile(cloud, 1 - CLOUDED)) * 4, 0, 1)
    shadow = np.roll(thick, (6, 9), (0, 1)) * (thick == 0)
    seen = clear * (1 - 0.6 * shadow)
    seen = seen * (1 - thick) + 0.75 * thick
    stored = np.rint(np.nan_to_num(seen) * 10000 + added).clip(1, 65535)
    scl = land.classes(year, x, y)
    scl = np.where(shadow > 0, 3, np.where(thick > 0.5, 9, np.where(thick > 0, 8, scl)))
    scl = np.where(nothing, 0, scl)
    return np.where(nothing, 0, stored).astype(np.uint16), coarse(scl.astype(np.uint8))


def coarse(scl: np.ndarray) -> np.ndarray:
    """Classes (n, n) at half the pixels a side: what is not clear wins, then nothing at all."""
    four = np.stack([scl[i::2, j::2] for i in (0, 1) for j in (0, 1)])
    rank = np.array([12, 0, 0, 11, 3, 2, 4, 0, 10, 10, 10, 0])[four]  # by class
    return np.take_along_axis(four, rank.argmax(0)[None], 0)[0]


def told(flavour: str, year: int) -> tuple[int, str, float | None, dict[str, Any]]:
    """Of a flavour in a year: DN added, baseline, offset stated by the bands, more properties."""
    newer = year >= 2022
    if flavour == "c1":
        return 1000, "05.00", -0.1, {}
    if flavour == "v1":
        more = {"earthsearch:boa_offset_applied": newer}
        return 0, "04.00" if newer else "03.01", -0.1, more
    return 1000 if newer else 0, "04.00" if newer else "03.01", None, {}


def write_catalog(
    out: str | Path,
    years: Sequence[int] = (2019, 2020, 2021, 2022),
    flavours: Sequence[str] = FLAVOURS,
    dates: Sequence[tuple[int, int]] = DATES,
    land: CatalogLand | None = None,
) -> Written:
    """Write the catalog below `out`: of each year, each date from both zones. The flavours take
    turns by date and zone.
    """
    out = Path(out)
    land = land or CatalogLand(years)
    items = []
    for zone in ZONES:
        frame = frame_of(land, zone)
        for year in years:
            for number, (month, day) in enumerate(dates):
                flavour = flavours[(number + zone) % len(flavours)]
                added, baseline, offset, more = told(flavour, year)
                when = datetime(year, month, day, 10, 30, tzinfo=UTC)
                key = ("catalog", zone, year, number)
                rgb, scl = image_of(land, frame, year, key, added)
                properties = {"s2:processing_baseline": baseline, "grid:code": f"MGRS-{zone}UGS"}
                name = f"S2A_{zone}UGS_{when:%Y%m%d}_0_L2A"
                items.append(
                    write_item(out, name, when, frame, rgb, scl, flavour, offset, properties | more)
                )
    return Written(write_tree(out, items), len(items), land.bbox())


if __name__ == "__main__":
    print(write_catalog(sys.argv[1]))

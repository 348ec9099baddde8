"""The one grid of a region: UTM, 10 m, corners on multiples of 10 m, and its blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from satjepa.region.request import Box

if TYPE_CHECKING:
    from affine import Affine

PIXEL = 10  # metres
PER_EDGE = 33  # points along each edge of the box, which is bent in UTM


@dataclass(frozen=True)
class Window:
    """A block of a grid: first column and row, width and height, in pixels."""

    column: int
    row: int
    width: int
    height: int


@dataclass(frozen=True)
class UtmGrid:
    """EPSG code, easting and northing of the upper left corner in metres, size in pixels."""

    epsg: int
    left: int
    top: int
    width: int
    height: int

    @property
    def crs(self) -> str:
        """As "EPSG:32631"."""
        return f"EPSG:{self.epsg}"

    @property
    def pixels(self) -> int:
        """How many there are."""
        return self.width * self.height

    def transform(self, column: float = 0, row: float = 0) -> Affine:
        """From pixels to metres; of the part that begins at a column and a row."""
        from affine import Affine

        return Affine(PIXEL, 0, self.left + PIXEL * column, 0, -PIXEL, self.top - PIXEL * row)

    def blocks(self, side: int) -> list[Window]:
        """The grid in squares of `side` pixels, row by row; smaller ones at its right and lower
        edge.
        """
        corners = [
            (column, row)
            for row in range(0, self.height, side)
            for column in range(0, self.width, side)
        ]
        return [
            Window(x, y, min(side, self.width - x), min(side, self.height - y)) for x, y in corners
        ]

    def lonlat(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Longitudes and latitudes of points along the edge of a window, degrees."""
        from rasterio.warp import transform

        x, y = _edge(
            self.left + PIXEL * window.column,
            self.top - PIXEL * (window.row + window.height),
            self.left + PIXEL * (window.column + window.width),
            self.top - PIXEL * window.row,
        )
        lon, lat = transform(self.crs, "EPSG:4326", x, y)
        return np.array(lon), np.array(lat)


def utm_grid(box: Box) -> UtmGrid:
    """The smallest grid of the UTM zone of a box's centre that holds the box."""
    from rasterio.warp import transform

    lon, lat = box.centre
    zone = min(int((lon + 180) // 6) + 1, 60)
    epsg = (32600 if lat >= 0 else 32700) + zone
    lons, lats = _edge(box.west, box.south, box.west + box.width, box.north)
    x, y = transform("EPSG:4326", f"EPSG:{epsg}", (lons + 180) % 360 - 180, lats)
    left = math.floor(min(x) / PIXEL) * PIXEL
    top = math.ceil(max(y) / PIXEL) * PIXEL
    right = math.ceil(max(x) / PIXEL) * PIXEL
    bottom = math.floor(min(y) / PIXEL) * PIXEL
    return UtmGrid(epsg, left, top, (right - left) // PIXEL, (top - bottom) // PIXEL)


def _edge(left: float, bottom: float, right: float, top: float) -> tuple[np.ndarray, np.ndarray]:
    """Points along the four edges of a rectangle: x and y, each (4 PER_EDGE,)."""
    across = np.linspace(left, right, PER_EDGE)
    up = np.linspace(bottom, top, PER_EDGE)
    same = np.ones(PER_EDGE)
    x = np.concatenate([across, across, left * same, right * same])
    y = np.concatenate([bottom * same, top * same, up, up])
    return x, y

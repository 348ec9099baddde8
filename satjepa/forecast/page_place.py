"""Where the pictures of a page lie: from a pixel to coordinates, to longitude and latitude."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from satjepa.data.georeference import Georeference, name_of
from satjepa.data.grid import Turn

KNOTS = 9  # a side, of the grid of longitudes and latitudes that a page interpolates in


@dataclass(frozen=True)
class Place:
    """The place of the pictures: that of the files, turned north up, a pixel for step x step."""

    files: Georeference
    turn: Turn
    step: int

    @property
    def full(self) -> tuple[int, int]:
        """Rows and columns of the files, north up."""
        size = self.files.height, self.files.width
        return size[::-1] if self.turn.exchanged else size

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the pictures."""
        height, width = self.full
        return -(-height // self.step), -(-width // self.step)

    def facts(self) -> dict[str, Any]:
        """What the page has to know: see `page.js`."""
        height, width = self.shape
        transform = self._transform()
        geographic = bool(self.files.crs is not None and self.files.crs.is_geographic)
        return {
            "width": width,
            "height": height,
            "step": self.step,
            "transform": transform,
            "crs": name_of(self.files.crs) if self.files.crs else "x, y",
            "geographic": geographic,
            "lonlat": self._knots(transform),
            "about": self._about(geographic),
        }

    def _transform(self) -> list[float] | None:
        """a to f of the way from a pixel of a picture to the CRS; None where there is none."""
        if self.files.transform.is_identity:
            return None
        corner, right, down = (np.array(self._at(x, y)) for x, y in ((0, 0), (1, 0), (0, 1)))
        across = right - corner
        along = down - corner
        rows = zip(across, along, corner, strict=True)
        return [float(number) for row in rows for number in row]

    def _at(self, x: float, y: float) -> tuple[float, float]:
        """Coordinates of a point of a picture; its last pixels may reach beyond the file, and
        where it is mirrored these are the first.
        """
        height, width = self.shape
        x = width - x if self.turn.left_right else x
        y = height - y if self.turn.top_down else y
        column_row = (y, x) if self.turn.exchanged else (x, y)
        return self.files.transform @ tuple(self.step * n for n in column_row)

    def _knots(self, transform: list[float] | None) -> list[list[list[float]]] | None:
        """Longitude and latitude of KNOTS x KNOTS points, edges included; None where the earth
        cannot be reached.
        """
        from rasterio import warp
        from rasterio._err import CPLE_BaseError  # what `warp.transform` lets through
        from rasterio.errors import CRSError, RasterioError

        if transform is None or self.files.crs is None:
            return None
        height, width = self.shape
        x, y = np.meshgrid(np.linspace(0, width, KNOTS), np.linspace(0, height, KNOTS))
        a, b, c, d, e, f = transform
        east = (a * x + b * y + c).ravel()
        north = (d * x + e * y + f).ravel()
        try:
            lon, lat = warp.transform(self.files.crs, "EPSG:4326", east, north)
        except (CRSError, RasterioError, CPLE_BaseError):
            return None
        knots = np.stack([lon, lat], -1).reshape(KNOTS, KNOTS, 2)
        across = np.ptp(knots[..., 0]) > 180  # of the antimeridian: nothing to interpolate in
        return knots.round(7).tolist() if np.isfinite(knots).all() and not across else None

    def _about(self, geographic: bool) -> str:
        """The scene in a line."""
        height, width = self.full
        size = f"{width} × {height} px"
        if self.files.transform.is_identity or self.files.crs is None:
            return size
        side = np.hypot(self.files.transform.a, self.files.transform.d)
        unit = "°" if geographic else {"metre": " m"}.get(self.files.crs.linear_units, "")
        return f"{size} of {side:.6g}{unit}  ·  {name_of(self.files.crs)}"

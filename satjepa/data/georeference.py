"""Where the pixels of a raster lie on the earth, in whatever way its file says so, and which way of
turning its array puts north up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satjepa.data.errors import SceneError
from satjepa.data.grid import Grid, Turn
from satjepa.data.rasters import open_raster

if TYPE_CHECKING:
    from affine import Affine
    from rasterio.control import GroundControlPoint
    from rasterio.crs import CRS
    from rasterio.io import DatasetReader
    from rasterio.rpc import RPC


class GeoreferenceError(SceneError):
    """The place of a raster is told in a way that cannot be carried over to another file."""


AS_STORED = Turn(exchanged=False, top_down=False, left_right=False)


def as_stored(array: np.ndarray, turn: Turn) -> np.ndarray:
    """The array (..., H, W) that `upright` made `array` of; a view."""
    array = array[..., ::-1] if turn.left_right else array
    array = array[..., ::-1, :] if turn.top_down else array
    return array.swapaxes(-2, -1) if turn.exchanged else array


def stored_corner(
    x: int, y: int, turn: Turn, patch: int, height: int, width: int
) -> tuple[int, int]:
    """First column and row, in a raster of height x width, of the patch whose first column and row
    are (x, y) in the upright array.
    """
    if turn.exchanged:
        height, width = width, height
    x = width - patch - x if turn.left_right else x
    y = height - patch - y if turn.top_down else y
    return (y, x) if turn.exchanged else (x, y)


@dataclass(frozen=True)
class Georeference:
    """What a file says of its grid: size, CRS and transform, or ground control points, or the
    coefficients (RPC) of a sensor, and whether a coordinate is a pixel's corner (Area) or centre
    (Point); with it what its numbers mean: type, nodata, scale and offset tags, unit.

    The CRS is that of the control points where these tell the place.
    """

    height: int
    width: int
    crs: CRS | None
    transform: Affine
    points: tuple[GroundControlPoint, ...] = ()
    rpcs: RPC | None = None
    area_or_point: str | None = None
    dtype: str = "float32"
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0
    unit: str | None = None

    def difference(self, other: Georeference) -> str:
        """In what `other` lies elsewhere, in words; "" where both are the same grid.

        CRSs are compared as the library compares them, however they are spelt; corners may differ
        by a hundredth of a pixel.
        """
        if self.crs != other.crs:
            return f"CRS {name_of(other.crs)} instead of {name_of(self.crs)}"
        if (self.height, self.width) == (other.height, other.width):
            if _numbers(self.points) != _numbers(other.points):
                there = len(other.points)
                return f"{there} ground control points that are not the {len(self.points)}"
            if _coefficients(self.rpcs) != _coefficients(other.rpcs):
                return "other rational polynomial coefficients (RPC)"
            if self.transform == other.transform:
                return ""
        return self.grid().difference(other.grid())

    def grid(self) -> Grid:
        """Transform and size, without the CRS."""
        return Grid("", tuple(self.transform)[:6], self.height, self.width)

    def north_up(self) -> Turn:
        """The turn after which rows run south and columns east on the earth, as nearly as can be;
        none for a raster that lies nowhere.

        `Grid.turn` goes by the axes of the CRS, which is the same but for those of the poles and
        those whose axes point south and west.
        """
        steps = self._steps()
        if steps is None or not np.isfinite(steps).all():
            return AS_STORED
        (east_col, north_col), (east_row, north_row) = steps
        straight = abs(east_col) + abs(north_row)
        crossed = abs(north_col) + abs(east_row)
        if exchanged := bool(crossed > straight * (1 + 1e-9)):
            east_col = east_row
            north_row = north_col
        return Turn(exchanged, bool(north_row > 0), bool(east_col < 0))

    def _steps(self) -> np.ndarray | None:
        """(east, north) of a step to the next column and of one to the next row, in the middle of
        the raster; in the axes of the CRS where the earth cannot be reached from it.
        """
        from rasterio import transform, warp
        from rasterio._err import CPLE_BaseError  # what `warp.transform` lets through
        from rasterio.errors import CRSError, RasterioError

        rows = self.height / 2 + np.array([0, 0, 1])
        columns = self.width / 2 + np.array([0, 1, 0])
        if self.points:
            way = transform.GCPTransformer(list(self.points))
        elif self.rpcs:
            way = transform.RPCTransformer(self.rpcs)
        elif self.transform.is_identity:
            return None
        else:
            way = transform.AffineTransformer(self.transform)
        try:
            with way:
                x, y = (np.asarray(values, float) for values in way.xy(rows, columns))
        except RasterioError:
            return None
        crs = "EPSG:4326" if self.rpcs and self.crs is None else self.crs
        try:
            lon, lat = (np.array(values) for values in warp.transform(crs, "EPSG:4326", x, y))
        except (CRSError, RasterioError, CPLE_BaseError):
            # no CRS, a local one, or one of another planet: its axes are all there is
            return np.stack([x[1:] - x[0], y[1:] - y[0]], axis=1)
        east = ((lon[1:] - lon[0] + 180) % 360 - 180) * np.cos(np.deg2rad(lat[0]))
        return np.stack([east, lat[1:] - lat[0]], axis=1)

    def profile(self) -> dict[str, Any]:
        """What `rasterio.open` wants to know of the grid of a new file on the same place."""
        profile = {"height": self.height, "width": self.width, "crs": self.crs}
        if self.points:
            profile["gcps"] = list(self.points)
        elif self.crs is not None or not self.transform.is_identity:
            profile["transform"] = self.transform
        if self.rpcs:
            profile["rpcs"] = self.rpcs
        return profile


def georeference(path: str | Path) -> Georeference:
    """Read what the file of an RGB raster says of its place and its numbers.

    Raises GeoreferenceError where only geolocation arrays tell the place, as in a swath: they lie
    in other files. FileNotFoundError, CorruptRasterError, BandCountError as `facts`.
    """
    with open_raster(Path(path), bands=3) as src:
        return georeference_of(src)


def georeference_of(src: DatasetReader) -> Georeference:
    """The same of an open raster."""
    points, points_crs = src.gcps
    nowhere = src.transform.is_identity and src.crs is None
    if nowhere and not points and not src.rpcs and src.tags(ns="GEOLOCATION"):
        raise GeoreferenceError(
            src.name,
            "a place told by geolocation arrays only",
            "a CRS and a transform, ground control points, or RPC",
            "bring it onto a grid: gdalwarp -geoloc",
        )
    points = points if src.transform.is_identity else []
    return Georeference(
        height=src.height,
        width=src.width,
        crs=(points_crs or src.crs) if points else src.crs,
        transform=src.transform,
        points=tuple(points),
        rpcs=src.rpcs,
        area_or_point=src.tags().get("AREA_OR_POINT"),
        dtype=src.dtypes[0],
        nodata=src.nodata,
        scale=src.scales[0],
        offset=src.offsets[0],
        unit=src.units[0],
    )


def name_of(crs: CRS | None) -> str:
    """A CRS in a few words: its code, or the name that its definition begins with."""
    if crs is None:
        return "none"
    text = crs.to_string()
    if len(text) <= 40:
        return text
    return f'"{text.split(chr(34))[1]}"' if '"' in text else text[:40] + "..."


def _numbers(points: tuple[GroundControlPoint, ...]) -> list[tuple]:
    return [(p.row, p.col, p.x, p.y, p.z) for p in points]


def _coefficients(rpcs: RPC | None) -> list[float]:
    """What places a pixel; not the errors that a sensor's owner states, which formats round."""
    if rpcs is None:
        return []
    values = [value for key, value in rpcs.to_dict().items() if not key.startswith("err_")]
    return [float(f"{number:.12g}") for number in np.hstack(values)]

"""Where the pixels of a raster lie, whether two rasters lie alike, and which way is north."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

NOWHERE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # the transform of a raster without georeference


class Turn(NamedTuple):
    """How an array is brought upright: rows and columns exchanged, then mirrored top-down, then
    left-right.
    """

    exchanged: bool
    top_down: bool
    left_right: bool


@dataclass(frozen=True)
class Grid:
    """Where the pixels of a raster lie: CRS (authority string or WKT, "" for none), affine
    transform a..f, size.
    """

    crs: str
    transform: tuple[float, ...]
    height: int
    width: int

    def difference(self, other: Grid) -> str:
        """Say in what `other` differs; "" where the CRS is the same, however it is spelt, and its
        corners lie within a hundredth of a pixel of this grid's.
        """
        if not same_crs(self.crs, other.crs):
            return f"CRS {_short(other.crs)} instead of {_short(self.crs)}"
        if (self.height, self.width) != (other.height, other.width):
            return f"size {other.height}x{other.width} instead of {self.height}x{self.width}"
        corners = np.array([[0, 0, 1], [self.width, 0, 1], [0, self.height, 1]], float).T
        here, there = (np.reshape(grid.transform, (2, 3)) for grid in (self, other))
        shift = np.linalg.solve(here[:, :2], (there - here) @ corners)  # (2, 3 corners), in pixels
        if np.abs(shift).max() > 0.01:
            return f"transform {other.transform} instead of {self.transform}"
        return ""

    @property
    def turn(self) -> Turn:
        """The symmetry of the square that brings the north of the map closest to the first row,
        its east to the last column. A raster without georeference is taken as upright.
        """
        if self.transform == NOWHERE:
            return Turn(False, False, False)
        a, b, _, d, e, _ = self.transform
        column = np.array([a, d]) / np.hypot(a, d)  # map direction (east, north) of a step right
        row = np.array([b, e]) / np.hypot(b, e)  # and of a step down
        exchanged = bool(abs(row[0]) + abs(column[1]) > abs(column[0]) + abs(row[1]) + 1e-9)
        if exchanged:
            column, row = row, column
        return Turn(exchanged, bool(row[1] > 0), bool(column[0] < 0))

    def turned(self) -> Grid:
        """The grid of the upright array: the same pixels in the same places."""
        turn = self.turn
        height = self.height
        width = self.width
        steps = []
        if turn.exchanged:
            height, width = width, height
            steps.append([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
        if turn.top_down:
            steps.append([[1, 0, 0], [0, -1, height], [0, 0, 1]])
        if turn.left_right:
            steps.append([[-1, 0, width], [0, 1, 0], [0, 0, 1]])
        transform = np.reshape([*self.transform, 0, 0, 1], (3, 3))
        for step in steps:  # each from a pixel of the new array to one of the array before
            transform = transform @ np.array(step)
        return Grid(self.crs, tuple(transform[:2].ravel().tolist()), height, width)


def upright(array: np.ndarray, turn: Turn) -> np.ndarray:
    """An array (..., H, W) brought upright by the turn of its grid, so that its first row is in the
    north.
    """
    array = array.swapaxes(-2, -1) if turn.exchanged else array
    array = array[..., ::-1, :] if turn.top_down else array
    return array[..., ::-1] if turn.left_right else array


def _short(crs: str) -> str:
    """A CRS in a message: one that is spelt out in WKT takes a page."""
    return crs if 0 < len(crs) <= 80 else f"{crs[:76]} ..." if crs else "none"


@lru_cache(maxsize=1024)
def same_crs(one: str, other: str) -> bool:
    """Are two CRSs the same, as GDAL compares them? Two programs spell one CRS in two ways."""
    if one == other or not (one and other):
        return one == other
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        return CRS.from_user_input(one) == CRS.from_user_input(other)
    except CRSError:  # one that GDAL cannot read is the same as nothing but its own text
        return False

"""A land for the demo catalog whose truth is known at every place, and that costs nothing."""

import numpy as np

from satjepa.demo.catalog import CatalogLand


class SmoothLand(CatalogLand):
    """A land whose reflectance is a smooth function of the place, another one each year: what two
    resamplings do to it is less than the rounding. All of it is dark vegetation.
    """

    def _simulated(self, years: object, seed: int) -> dict:
        return {}  # the demo world takes its time

    def reflectance(self, year: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        row, column = self._pixels(x, y)
        a = np.sin(column / 40 + year)
        b = np.cos(row / 55 - year)
        image = np.stack([0.06 + 0.02 * a, 0.07 + 0.02 * b, 0.05 + 0.012 * a * b])
        inside = (row >= 0) & (column >= 0) & (row < 359) & (column < 359)
        return np.where(inside, image, np.nan)

    def classes(self, year: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.full(x.shape, 4, np.uint8)

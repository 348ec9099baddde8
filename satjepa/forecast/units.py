"""From the display scale of a forecast to the numbers of its file and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from satjepa.data.georeference import Georeference
from satjepa.data.grid import Turn

BANDS = ("mean red", "mean green", "mean blue", "spread red", "spread green", "spread blue")
COLOURS = ("red", "green", "blue")


def nodata_of(place: Georeference) -> float | None:
    """The nodata number of the forecast: that of the input, or NaN where float32 cannot hold it;
    None where the input has none.
    """
    nodata = place.nodata
    if nodata is None or math.isnan(nodata):
        return nodata
    with np.errstate(over="ignore"):
        held = float(np.float32(nodata))
    exact = held == nodata or (place.dtype.startswith("float") and math.isfinite(held))
    return nodata if exact else math.nan


@dataclass(frozen=True)
class Units:
    """What the numbers of a forecast's file mean: stored = (display * white - offset) / factor.

    nodata: the number of what is not valid, None where all is valid and the input has none. place,
    turn: where the file lies, and how its arrays were turned north up.
    """

    place: Georeference
    turn: Turn
    factor: float
    offset: float
    white: float
    nodata: float | None

    @classmethod
    def of(
        cls, place: Georeference, turn: Turn, units: tuple[float, float, float], all_valid: bool
    ) -> Units:
        """units: factor, offset and white of the newest image; all_valid: has it no hole?"""
        nodata = nodata_of(place)
        return cls(place, turn, *units, math.nan if nodata is None and not all_valid else nodata)

    def moments(self, mean: np.ndarray, spread: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Stored numbers (...,6,h,W) float32 of mean and spread (...,3,h,W)."""
        return self._apart(np.concatenate([self._colours(mean), self._widths(spread)], -3), valid)

    def colours(self, images: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Stored numbers (...,3,h,W) float32 of images."""
        return self._apart(self._colours(images), valid)

    def shown(self, stored: np.ndarray) -> np.ndarray:
        """Images (...,3,h,W) float64 on the display scale of stored numbers, NaN for nodata."""
        return (self._known(stored) * self.factor + self.offset) / self.white

    def shown_spread(self, stored: np.ndarray) -> np.ndarray:
        """The same of spreads, which have no offset."""
        return self._known(stored) * self.factor / self.white

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the file on its place."""
        point = self.place.area_or_point
        return {"AREA_OR_POINT": point} if point else {}

    def of_bands(self, count: int, spreads: int = 0) -> dict[str, Any]:
        """Unit, scale and offset of each of `count` bands, the last ones spreads, where the input
        has them: so that programs that read them see the same units.
        """
        place = self.place
        units: dict[str, Any] = {"units": [place.unit] * count} if place.unit else {}
        if (self.factor, self.offset) == (place.scale, place.offset) != (1.0, 0.0):
            units["scales"] = [place.scale] * count
            units["offsets"] = [place.offset] * (count - spreads) + [0.0] * spreads
        return units

    def _colours(self, images: np.ndarray) -> np.ndarray:
        return (images * self.white - self.offset) / self.factor

    def _widths(self, spread: np.ndarray) -> np.ndarray:
        return spread * self.white / self.factor

    def _apart(self, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """float32 of stored numbers, nodata where not valid; values that happen to be the nodata
        number are moved off it by as little as survives (a spread of 0, say).
        """
        values = values.astype(np.float32)
        if self.nodata is None:
            return values
        number = np.float32(self.nodata)
        if math.isfinite(self.nodata):
            moved = number + np.float32(1e-6 if self.nodata <= 0 else -1e-6)
            if moved == number:  # so large that 1e-6 is lost
                moved = np.nextafter(number, np.float32(0))
            values = np.where(values == number, moved, values)
        return np.where(valid, values, number)

    def _known(self, stored: np.ndarray) -> np.ndarray:
        stored = stored.astype(np.float64)
        if self.nodata is None or not math.isfinite(self.nodata):
            return np.where(np.isfinite(stored), stored, np.nan)
        return np.where(stored == float(np.float32(self.nodata)), np.nan, stored)

"""How near a written forecast comes to the truth, a strip of the files at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from satjepa.data.holes import read_valid
from satjepa.data.rasters import open_raster, read_rgb
from satjepa.forecast.reduced import STRIP
from satjepa.forecast.write import BANDS


@dataclass(frozen=True)
class Units:
    """How stored numbers become values of which 1 is white: `white` of (stored * factor + offset)
    is.
    """

    factor: float
    offset: float
    white: float

    def display(self, stored: np.ndarray) -> np.ndarray:
        """The values of an image, clipped to [0, 1]."""
        return np.clip((stored * self.factor + self.offset) / self.white, 0, 1)

    def difference(self, stored: np.ndarray) -> np.ndarray:
        """Those of differences, as a spread is one: without the offset."""
        return stored * self.factor / self.white


def scores_of(
    forecast: Path, last: Path, truth: Path, units: Units, of_truth: Units
) -> tuple[float, float]:
    """Peak signal-to-noise ratio in dB of the mean of a forecast, and of the last image taken as
    the forecast (persistence), as `picture.psnr` has it; NaN where no pixel is valid in both years.

    units: of the forecast and the last image.
    """
    import torch

    from satjepa.metrics.pixels import psnr_of

    squares = np.zeros(2)
    count = 0
    with open_raster(forecast, len(BANDS)) as src:
        for top in range(0, src.height, STRIP):
            box = (0, top, src.width, min(STRIP, src.height - top))
            stored, known = read_valid(src, box)
            mean = (stored[:3] * np.float64(units.factor) + units.offset) / units.white
            kept = _seen(last, box, units)
            seen = _seen(truth, box, of_truth)
            known &= np.isfinite(kept).all(0) & np.isfinite(seen).all(0)
            count += 3 * known.sum()
            for i, image in enumerate((mean, kept)):
                squares[i] += np.square((image - seen)[:, known], dtype=np.float64).sum()
    if not count:
        return np.nan, np.nan
    ours, persistence = psnr_of(torch.tensor(squares / count)).tolist()
    return ours, persistence


def _seen(path: Path, box: tuple[int, int, int, int], units: Units) -> np.ndarray:
    """A window of an image, (3,h,w), 1 is white, NaN where it has no value."""
    rgb, valid = read_rgb(path, box)
    return np.where(valid, np.minimum(rgb / np.float32(units.white), 1), np.nan)

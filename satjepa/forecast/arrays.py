"""A forecast as arrays, which can be saved, drawn and compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from satjepa.data.georeference import as_stored
from satjepa.forecast.led import Sentence
from satjepa.forecast.made import Made
from satjepa.forecast.picture import (
    draw,
    middle,
    part_of,
    psnr_of_strips,
    read_truth,
    save_picture,
    truth_of,
    view_of,
)
from satjepa.forecast.request import check_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rasterio import Affine
    from rasterio.crs import CRS


class Forecast:
    """The forecast of one place, on the grid of the images it was made from.

    mean, spread: (3,H,W) float32, mean and standard deviation over the members; 0 is black and 1 is
    white. members: (samples,3,H,W) float32. last: (3,H,W), the image of year t on the same scale.
    All are NaN where year t has no valid pixel. Rows and columns are those of the files, as `crs`
    and `transform` say. year: of the forecast, None where those of the images are not known.
    sentences: what led each member of each tile (`satjepa.forecast.led`), where captions were
    written; else none.

    Where tiles overlap, `members` are the weighted means of theirs, and `spread` is that of their
    mixture.
    """

    def __init__(self, made: Made) -> None:
        height, width = made.shape
        self._made = made
        self._view = view_of(made, (0, 0, width, height))
        turn = made.scene.turn
        self.mean: np.ndarray = as_stored(self._view.mean, turn)
        self.spread: np.ndarray = as_stored(self._view.spread, turn)
        self.members: np.ndarray = as_stored(self._view.members, turn)
        self.last: np.ndarray = as_stored(self._view.last, turn)
        self.sentences: list[Sentence] = list(made.sentences())
        self.year: int | None = None if self._view.year is None else self._view.year + 1

    def __repr__(self) -> str:
        height, width = self.mean.shape[1:]
        images = ", ".join(image.name for image in self._made.request.images)
        return (
            f"Forecast of {self.year or 'the next year'}: {width}x{height} px, "
            f"{len(self.members)} members, from {images}"
        )

    @property
    def crs(self) -> CRS | None:
        """Coordinate reference system of the images."""
        return self._made.request.place.crs

    @property
    def transform(self) -> Affine:
        """From (column, row) to coordinates in `crs`."""
        return self._made.request.place.transform

    def save(self, path: str | Path) -> Path:
        """Write the GeoTIFF that `satjepa forecast` writes: mean and spread of red, green and blue,
        in the units of the images. ForecastError where it cannot be written.
        """
        check_output(path, self._made.request.images)
        return self._made.write(path)

    def picture(
        self, path: str | Path | None = None, truth: str | Path | None = None
    ) -> Path | Figure:
        """Draw year t, mean, spread and three members; of a large raster its middle. With `truth`,
        the image of the forecast's year, also that and the error of the mean. Writes a PNG to
        `path`; without it, returns the figure.
        """
        view = self._view
        if truth is not None:
            view = replace(view, truth=self._truth(truth))
        view = part_of(view, middle(view.shape))
        if path is None:
            return draw(view)
        check_output(path, self._made.request.images)
        return save_picture(view, path)

    def psnr(self, truth: str | Path) -> tuple[float, float]:
        """Peak signal-to-noise ratio in dB of the mean, and of the last image taken as the forecast
        (persistence), against the image of the forecast's year; over pixels valid in both years.
        """
        return psnr_of_strips([(self._view.mean, self._view.last, self._truth(truth))])

    def _truth(self, path: str | Path) -> np.ndarray:
        """The image of the forecast's year on the grid of the view (3,H,W)."""
        return read_truth(truth_of(self._made, Path(path)), self._view.window)

"""Pixels of files on a server or on disk, brought onto a grid; read again where a server fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from satjepa.region.errors import ServerError
from satjepa.region.grid import PIXEL, UtmGrid, Window
from satjepa.region.http import AGENT, TRIES, patience
from satjepa.region.signing import Signer

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

Result = TypeVar("Result")
SAMPLE = 160  # pixels a side, at most, that a file is first looked at with
MIB = 2**20
# Bytes where rasterio wants bytes: as environment variables some of these are megabytes.
GDAL = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_CACHEMAX": 128 * MIB,
    "CPL_VSIL_CURL_CACHE_SIZE": 64 * MIB,
    "GDAL_HTTP_CONNECTTIMEOUT": 10,
    "GDAL_HTTP_TIMEOUT": 60,
    "GDAL_HTTP_USERAGENT": AGENT["User-Agent"],
    "GDAL_HTTP_MULTIRANGE": "YES",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
}
NOT_THERE = ("response_code=404", "code: 404", "not exist", "No such file", "code: 410")


class MissingFileError(ServerError):
    """A file that a catalog names and that is not there."""


@dataclass
class Reader:
    """Reads files, signed where needed. wait: how to pass seconds between two tries."""

    signer: Signer = field(default_factory=lambda: Signer(None))
    wait: Callable[[float], None] = time.sleep

    def on_grid(self, href: str, grid: UtmGrid, window: Window, exact: bool) -> np.ndarray:
        """The first band of a file on a window of a grid, (height, width) of its type; 0 where it
        has nothing. exact: the nearest pixel's value, as classes want it, else bilinear.

        The window may reach beyond the grid. Raises MissingFileError, ServerError.
        """
        from rasterio.enums import Resampling
        from rasterio.vrt import WarpedVRT

        how = Resampling.nearest if exact else Resampling.bilinear

        def read(src: DatasetReader) -> np.ndarray:
            place = {
                "crs": grid.crs,
                "transform": grid.transform(window.column, window.row),
                "width": window.width,
                "height": window.height,
            }
            with WarpedVRT(src, **place, resampling=how, src_nodata=0, nodata=0) as warped:
                return warped.read(1)

        return self._patiently(href, read)

    def sample(self, href: str, grid: UtmGrid) -> np.ndarray:
        """The part of a file within a grid, coarse: at most SAMPLE pixels a side, or fewer where
        the file ends; (0, 0) where it has no part in it. Files of one grid and different pixels
        are sampled at the same places. Raises as `on_grid`.
        """
        from rasterio.warp import transform_bounds

        right = grid.left + PIXEL * grid.width
        bottom = grid.top - PIXEL * grid.height

        def read(src: DatasetReader) -> np.ndarray:
            bounds = transform_bounds(grid.crs, src.crs, grid.left, bottom, right, grid.top)
            inverse = ~src.transform
            corners = [inverse @ (bounds[0], bounds[3]), inverse @ (bounds[2], bounds[1])]
            size = (src.width, src.height)
            low = [max(0.0, corners[0][i]) / size[i] for i in (0, 1)]
            high = [min(float(size[i]), corners[1][i]) / size[i] for i in (0, 1)]
            if min(high[0] - low[0], high[1] - low[1]) <= 0:
                return np.zeros((0, 0), src.dtypes[0])
            whole = [max(corners[1][i] - corners[0][i], 1) / size[i] for i in (0, 1)]
            shape = [max(1, round(SAMPLE * (high[i] - low[i]) / whole[i])) for i in (1, 0)]
            window = _window(
                [low[i] * size[i] for i in (0, 1)], [high[i] * size[i] for i in (0, 1)]
            )
            return src.read(1, window=window, out_shape=tuple(shape))

        return self._patiently(href, read)

    def check(self, href: str) -> None:
        """Open a file. Raises MissingFileError, ServerError."""
        self._patiently(href, lambda src: src.width)

    def _patiently(self, href: str, read: Callable[[DatasetReader], Result]) -> Result:
        """What `read` makes of the open file, tried again after an error, with a new token where
        the old one was refused.
        """
        import rasterio
        from rasterio._err import CPLE_BaseError
        from rasterio.errors import RasterioError

        remote = href.startswith("http")
        tries = TRIES if remote else 1
        for attempt in range(tries):
            signed = self.signer.sign(href)
            try:
                with rasterio.Env(**GDAL), rasterio.open(signed) as src:
                    return read(src)
            except (RasterioError, CPLE_BaseError) as error:
                said = _said(error)
            if any(words in said for words in NOT_THERE):
                raise MissingFileError(f"{href}: not there")
            if remote and attempt + 1 < tries:
                if "403" in said:
                    self.signer.refused(signed)
                _forget(signed)
                self.wait(patience(attempt))
        raise ServerError(
            f"{href}: cannot be read{f', {tries} times' if tries > 1 else ''} ({said}): run the "
            "same command again to go on"
        )


def _window(low: list[float], high: list[float]) -> Any:
    """A rasterio Window from its first and last column and row."""
    from rasterio.windows import Window as Part

    return Part(low[0], low[1], high[0] - low[0], high[1] - low[1])


def _said(error: BaseException) -> str:
    """The message of an error and of what caused it, in one line, without a token."""
    texts = []
    link: BaseException | None = error
    while link is not None:
        texts.append(str(link))
        link = link.__cause__
    words = " ".join("; ".join(dict.fromkeys(texts)).split())
    return words.split("?")[0][:300] if "sig=" in words else words[:300]


def _forget(href: str) -> None:
    """Make GDAL forget the bytes of a file that it keeps: they may be the wrong ones."""
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.Env(**GDAL, CPL_VSIL_CURL_NON_CACHED="/vsicurl/"), rasterio.open(href):
            pass
    except RasterioError:
        pass  # the next try says what is wrong

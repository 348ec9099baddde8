"""GeoTIFFs to numbers: typed errors, reflectance in [0, 1], a validity mask with every array.

What is not known without doubt is an error that names the file, what was found, what is accepted
and how to fix it. Nothing that could not be read is ever replaced by zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from satjepa.data.tiff import cut_off

if TYPE_CHECKING:
    from rasterio.io import DatasetReader
    from rasterio.windows import Window

    Box = Window | tuple[int, int, int, int]


class SceneError(Exception):
    """A raster or a folder that cannot be used: `path`, what was `found`, what is `accepted`, how
    to `fix` it.
    """

    def __init__(self, path: str | Path, found: str, accepted: str, fix: str) -> None:
        super().__init__(
            path, found, accepted, fix
        )  # all four in args, so that a loader's worker can pickle it
        self.path = Path(path)
        self.found = found
        self.accepted = accepted
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}; accepted: {self.accepted}. To fix: {self.fix}"


class CorruptRasterError(SceneError):
    """The file is no readable raster: truncated, damaged, or with blocks that were never
    written.
    """


class BandCountError(SceneError):
    """The file has another number of bands than its kind of raster."""


class ScaleError(SceneError):
    """The type or the range of the values fits no convention without doubt."""


class GridMismatchError(SceneError):
    """Two rasters of one region differ in CRS, size or transform."""


class MissingYearError(SceneError):
    """A year that was asked for, or a layer of it, is not there."""


class EmptyRegionError(SceneError):
    """A region folder without any scene, or a root without any region."""


class DuplicateYearError(SceneError):
    """Two files claim the same year of the same region."""


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
        """Say in what `other` differs; "" where its corners lie within a hundredth of a pixel of
        this grid's.
        """
        if self.crs != other.crs:
            return f"CRS {other.crs or 'none'} instead of {self.crs or 'none'}"
        if (self.height, self.width) != (other.height, other.width):
            return f"size {other.height}x{other.width} instead of {self.height}x{self.width}"
        corners = np.array([[0, 0, 1], [self.width, 0, 1], [0, self.height, 1]], float).T
        here, there = (np.reshape(grid.transform, (2, 3)) for grid in (self, other))
        shift = np.linalg.solve(here[:, :2], (there - here) @ corners)  # (2, 3 corners), in pixels
        if np.abs(shift).max() > 0.01:
            return f"transform {other.transform} instead of {self.transform}"
        return ""


@dataclass(frozen=True)
class Facts:
    """What a complete reading of a file told: grid, type, range of the valid pixels, its scale and
    offset tags.
    """

    grid: Grid
    dtype: str
    nodata: float | None
    low: float
    high: float
    scale: float
    offset: float


@contextmanager
def open_raster(path: Path, bands: int) -> Iterator[DatasetReader]:
    """Open a raster of so many bands; what GDAL cannot read, here or inside the block, is a
    CorruptRasterError.
    """
    import rasterio

    if lost := cut_off(path):
        raise _corrupt(path, f"a truncated file without {lost}")
    try:
        with rasterio.open(path) as src:
            if src.count != bands:
                fix = (
                    "export the red, green and blue bands only, in this order"
                    if bands == 3
                    else "export all bands"
                )
                raise BandCountError(path, f"{src.count} bands", f"{bands} bands", fix)
            yield src
    except rasterio.errors.RasterioIOError as error:
        raise _corrupt(
            path, f"a raster that cannot be read ({error.__cause__ or error})"
        ) from error


def _corrupt(path: Path, found: str) -> CorruptRasterError:
    fix = (
        "fetch or write the file again, or, in a data set, leave it out with data.on_bad_scene: "
        "exclude"
    )
    return CorruptRasterError(path, found, "a complete GeoTIFF", fix)


def _refuse_unwritten_blocks(src: DatasetReader) -> None:
    """Blocks that were never written read as zeros without an error, unless a nodata value makes
    them a hole.
    """
    if src.driver != "GTiff" or src.nodata is not None:
        return
    for band in range(1, 2 if src.interleaving.value == "PIXEL" else src.count + 1):
        for (row, col), window in src.block_windows(band):
            if src.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=band) is None:
                raise _corrupt(src.name, f"an unwritten block in band {band}, {window}")


def read_valid(src: DatasetReader, box: Box | None) -> tuple[np.ndarray, np.ndarray]:
    """Values (bands, H, W) as stored, and where every band has one (H, W): not nodata, not masked,
    finite.
    """
    from rasterio.windows import Window

    window = Window(*box) if isinstance(box, tuple) else box
    if window is not None and (
        min(window.col_off, window.row_off) < 0
        or window.col_off + window.width > src.width
        or window.row_off + window.height > src.height
    ):
        raise ValueError(
            f"{src.name}: {window} reaches beyond the raster of {src.width}x{src.height} pixels"
        )
    data = src.read(window=window)  # (bands, H, W)
    valid = (src.read_masks(window=window) != 0).all(0)  # (H, W)
    if data.dtype.kind == "f":
        valid &= np.isfinite(data).all(0)
    if data.dtype == np.uint16 and src.nodata is None:
        valid &= data.any(0)  # 0 is the no-data number of Sentinel-2 products
    return data, valid


@lru_cache(maxsize=4096)
def _inspect(path: Path, bands: int, version: tuple[int, int]) -> Facts:
    """Read a whole file, block by block; `version` (mtime, size) makes a rewritten file a new
    one.
    """
    with open_raster(path, bands) as src:
        _refuse_unwritten_blocks(src)
        low = np.inf
        high = -np.inf
        for _, window in src.block_windows(1):
            data, valid = read_valid(src, window)
            if valid.any():
                low = min(low, float(data[:, valid].min()))
                high = max(high, float(data[:, valid].max()))
        crs = src.crs.to_string() if src.crs else ""
        grid = Grid(crs, tuple(src.transform)[:6], src.height, src.width)
        stated = set(zip(src.scales, src.offsets, strict=True))
        if len(stated) > 1:
            raise ScaleError(
                path,
                f"different scale tags {stated} in one file",
                "one scale and offset",
                "rewrite it",
            )
        return Facts(grid, src.dtypes[0], src.nodata, low, high, *stated.pop())


def facts(path: str | Path, bands: int) -> Facts:
    """Read every pixel of a raster once (remembered until the file changes) and return what was
    found.

    Raises FileNotFoundError, CorruptRasterError, BandCountError.
    """
    path = Path(path).absolute()
    stat = path.stat()
    return _inspect(path, bands, (stat.st_mtime_ns, stat.st_size))


def rgb_scale(path: str | Path) -> tuple[float, float]:
    """Factor and offset that turn the stored numbers of an RGB raster into reflectance in [0, 1].

    * uint8: /255 (255 is display white).
    * uint16: /10000, if the largest valid value lies in 256..20000. Bright cloud and snow saturate
      up to about 16000 and are clipped to 1. A largest value up to 255 looks like 8-bit numbers,
      one above 20000 like another scaling: ScaleError. Pixels that are 0 in all bands are masked
          where the file states no nodata value (0 is Sentinel-2's).
    * float: as it is, in [0, 1] up to a rounding of 0.001.
    * A scale and offset in the file's own tags (as in public Sentinel-2 COGs: 0.0001 and -0.1) are
      applied instead, if what results lies in -0.2..2; it is clipped to [0, 1].

    The decision is made on the whole file, never on a window. NaN, infinity and nodata take no part
    in it.
    What no number shows is not corrected: the 1000 that Sentinel-2 products add since 2022 wants
    harmonised exports.
    """
    seen = facts(path, bands=3)
    if seen.low > seen.high:  # not one valid pixel: any scale, all of it masked
        return 1.0, 0.0
    if (seen.scale, seen.offset) != (1.0, 0.0):
        ends = seen.low * seen.scale + seen.offset, seen.high * seen.scale + seen.offset
        if min(ends) >= -0.2 and max(ends) <= 2:
            return seen.scale, seen.offset
    elif seen.dtype == "uint8":
        return 1 / 255, 0.0
    elif seen.dtype == "uint16" and 255 < seen.high <= 20000:
        return 1e-4, 0.0
    elif seen.dtype in ("float32", "float64") and seen.low >= -1e-3 and seen.high <= 1 + 1e-3:
        return 1.0, 0.0
    tags = (
        ""
        if (seen.scale, seen.offset) == (1.0, 0.0)
        else f", scale tag {seen.scale}, offset tag {seen.offset}"
    )
    raise ScaleError(
        path,
        f"{seen.dtype} values from {seen.low:g} to {seen.high:g} (nodata {seen.nodata}){tags}",
        "uint8 (/255), uint16 reflectance times 10000 with a largest value of 256 to 20000, float "
        "in [0, 1]",
        "convert the file to one of these; if an extreme value is a fill value, write it into the "
        "nodata tag",
    )


def read_rgb(path: str | Path, window: Box | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Reflectance (3, H, W) float32 in [0, 1] and validity (H, W) bool of an RGB raster; invalid
    pixels are 0.

    `window`: a rasterio Window or (x, y, width, height) in pixels, which must lie inside the raster
    (ValueError). The scale (see `rgb_scale`) does not depend on it, and a file is read completely
    before any part of it is believed. Raises CorruptRasterError, BandCountError, ScaleError.
    """
    factor, offset = rgb_scale(path)
    with open_raster(Path(path), bands=3) as src:
        data, valid = read_valid(src, window)
    rgb = np.where(valid, data * np.float64(factor) + offset, 0)
    return np.clip(rgb, 0, 1).astype(np.float32), valid


def read_uint8(path: str | Path, bands: int) -> np.ndarray:
    """A uint8 raster (bands, H, W) as it is stored, without holes: the truth layers of the demo
    world.

    Raises CorruptRasterError, BandCountError, ScaleError (another type).
    """
    seen = facts(path, bands)
    if seen.dtype != "uint8":
        raise ScaleError(path, f"type {seen.dtype}", "uint8", "write the layer again as uint8")
    with open_raster(Path(path), bands) as src:
        return src.read()

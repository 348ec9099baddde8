"""The forecast as a GeoTIFF: what went in is where and in what units it comes out; what the format
cannot hold is known before the work.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from satjepa.data.georeference import Georeference, as_stored, georeference_of, name_of
from satjepa.data.rasters import without_remark
from satjepa.data.stack import ForecastError, Stack
from satjepa.forecast.companions import remove_companions
from satjepa.forecast.scene import stored_window
from satjepa.forecast.units import BANDS, Units
from satjepa.paths import replaced

if TYPE_CHECKING:
    import rasterio

BLOCK = 512  # pixels: side of the blocks of a large file
CACHE = 256 * 2**20  # bytes that GDAL keeps of blocks: a row of them in a scene 10,000 px wide
Read = Callable[[int, int], np.ndarray]
"""read(top, bottom) -> those rows (bands,h,W) of the upright scene, as they are stored"""


def bounded_cache() -> rasterio.Env:
    """GDAL keeps no more of what it reads and writes than a part of what it would by itself, which
    is a twentieth of the memory of the machine.
    """
    import rasterio

    return rasterio.Env(GDAL_CACHEMAX=CACHE)


@dataclass(frozen=True)
class Layer:
    """A file to write: what its bands are called, how many of the last ones are spreads, its tags,
    and what reads its rows.
    """

    bands: tuple[str, ...]
    read: Read
    tags: dict[str, str]
    spreads: int = 0


def check_place(place: Georeference, path: Path) -> int:
    """Write the place of the raster `path` into an empty file and read it back.

    Returns by how many bytes the longest name of its files is longer than its own: 0, or the length
    of ".aux.xml" where it needs a companion. ForecastError where that does not hold the place
    either.
    """
    import rasterio

    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "trial.tif"
        profile = place.profile() | {"driver": "GTiff", "dtype": "uint8", "count": 1}
        try:
            with without_remark(), rasterio.open(trial, "w", **profile, sparse_ok=True):
                pass
            with without_remark(), rasterio.open(trial) as src:
                lost = place.difference(georeference_of(src))
                spare = max(len(name) for name in src.files) - len(str(trial))
        except rasterio.errors.RasterioError as error:
            lost = str(error)
    if lost:
        raise ForecastError(
            f"{path}: a GeoTIFF cannot hold where it lies, in {name_of(place.crs)} ({lost}): warp "
            "the images to another CRS first (gdalwarp -t_srs)"
        )
    return spare


def write_forecast(
    out: str | Path, place: Georeference, stack: Stack, mean: np.ndarray, spread: np.ndarray,
    notes: dict[str, str],
) -> None:  # fmt: skip
    """Write mean and spread (3,H,W) at the display scale of a stack as a GeoTIFF at the place of
    its newest image, in the units of that one; what `padded` added is cut off, what was turned
    north up is turned back.
    """
    height = place.height
    width = place.width
    if stack.turn.exchanged:
        height, width = width, height
    valid = stack.valid[0, :height, :width]
    numbers = (stack.factor, stack.offset, stack.white)
    units = Units.of(place, stack.turn, numbers, bool(valid.all()))

    def read(top: int, bottom: int) -> np.ndarray:
        box = (..., slice(top, bottom), slice(0, width))
        return units.moments(mean[box], spread[box], stack.valid[0][box])

    write_layer(Path(out), units, Layer(BANDS, read, notes, spreads=3))


def write_layer(
    out: Path, units: Units, layer: Layer, cloud: bool = False, folder: Path | None = None
) -> None:
    """Write a layer by rows of blocks as a float32 GeoTIFF, in `cloud` form as a Cloud-Optimized
    one; what the format does not hold itself is in the companion file that GDAL makes,
    out.tif.aux.xml.

    The file appears only when it is complete; companions of what it replaces go. It is made in
    `folder`, on the same disk, or else beside. A place that the cloud form would change comes as a
    tiled GeoTIFF with overviews instead.
    """
    with replaced(out) as part:
        made = folder / "making.tif" if folder else part
        beside = Path(f"{made}.aux.xml")
        for half in folder.glob("making.*") if folder else ():
            half.unlink()  # of a run that was killed
        try:
            with bounded_cache():
                _make(made, units, layer, cloud)
            remove_companions(out)
            if beside.exists():
                for name in {str(out), os.path.realpath(out)}:
                    shutil.copyfile(beside, f"{name}.aux.xml")
            if made != part:
                os.replace(made, part)
        finally:
            beside.unlink(missing_ok=True)


def _make(made: Path, units: Units, layer: Layer, cloud: bool) -> None:
    """Write a file in its form; where the cloud form would lie elsewhere, one with overviews."""
    import rasterio
    import rasterio.shutil
    from rasterio.enums import Resampling

    if not cloud:
        return _write(made, units, layer, "deflate")
    place = units.place
    plain = made.with_suffix(".gtiff")
    try:
        _write(plain, units, layer, None)
        options = {"compress": "deflate", "predictor": "YES", "blocksize": BLOCK}
        options |= {"bigtiff": "IF_SAFER", "overview_resampling": "average"}
        with without_remark():
            rasterio.shutil.copy(plain, made, driver="COG", **options)
            with rasterio.open(made) as copied:
                lost = place.difference(georeference_of(copied))
    finally:
        for litter in made.parent.glob(f"{plain.name}*"):
            litter.unlink()
    if lost:
        _write(made, units, layer, "deflate")
        side = max(place.height, place.width)
        factors = [2**n for n in range(1, 20) if side / 2 ** (n - 1) > BLOCK]
        with without_remark(), rasterio.open(made, "r+") as dst:
            dst.build_overviews(factors, Resampling.average)


def _write(path: Path, units: Units, layer: Layer, compress: str | None) -> None:
    """Write a tiled GeoTIFF, of a small raster one in strips; a `path` that its caller renames."""
    import rasterio

    place = units.place
    profile = place.profile() | {"driver": "GTiff", "dtype": "float32", "count": len(layer.bands)}
    profile |= {"nodata": units.nodata, "bigtiff": "if_safer"}
    if compress:
        profile |= {"compress": compress, "predictor": 3}
    if max(place.height, place.width) > BLOCK:
        profile |= {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
    with without_remark(), rasterio.open(path, "w", **profile) as dst:
        for top, bottom in strips(units):
            rows = as_stored(layer.read(top, bottom), units.turn)
            left, first, width, height = stored_window(place, units.turn, top, bottom)
            dst.write(rows, window=rasterio.windows.Window(left, first, width, height))
        dst.descriptions = layer.bands
        dst.update_tags(**units.tags, **layer.tags)
        for name, values in units.of_bands(len(layer.bands), layer.spreads).items():
            setattr(dst, name, values)


def strips(units: Units) -> Iterator[tuple[int, int]]:
    """The upright rows (first, last + 1) under each row, or column, of the blocks of a file."""
    place = units.place
    length = place.width if units.turn.exchanged else place.height
    for first in range(0, length, BLOCK):
        last = min(first + BLOCK, length)
        yield (length - last, length - first) if units.turn.top_down else (first, last)

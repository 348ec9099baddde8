"""The forecast as a GeoTIFF: what went in is where and in what units it comes out; what the format
cannot hold is known before the work.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from satjepa.data.georeference import Georeference, as_stored, georeference_of, name_of
from satjepa.data.rasters import without_remark
from satjepa.data.stack import ForecastError, Stack
from satjepa.forecast.companions import remove_companions
from satjepa.paths import replaced

BANDS = ("mean red", "mean green", "mean blue", "spread red", "spread green", "spread blue")


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
    out: str | Path,
    place: Georeference,
    stack: Stack,
    mean: np.ndarray,
    spread: np.ndarray,
    notes: dict[str, str],
) -> None:
    """Write mean and spread (3,H,W) at the display scale of a stack as a GeoTIFF at the place of
    its newest image, in the units of that one; what `padded` added is cut off, what was turned
    north up is turned back.

    Scale and offset tags are those of the input, so that programs that read them see the same
    units. The file appears only when it is complete; companions of what it replaces go.
    """
    height = place.height
    width = place.width
    if stack.turn.exchanged:
        height, width = width, height
    means = (mean * stack.white - stack.offset) / stack.factor
    stored = np.concatenate([means, spread * stack.white / stack.factor])  # (6,H,W)
    stored = as_stored(stored[:, :height, :width], stack.turn).astype(np.float32)
    valid = as_stored(stack.valid[0, :height, :width], stack.turn)
    tags = ({"AREA_OR_POINT": place.area_or_point} if place.area_or_point else {}) | notes
    tagged = (stack.factor, stack.offset) == (place.scale, place.offset) != (1.0, 0.0)
    units = {"units": [place.unit] * len(BANDS)} if place.unit else {}
    if tagged:
        units["scales"] = [place.scale] * len(BANDS)
        units["offsets"] = [place.offset] * 3 + [0.0] * 3  # a spread has no offset
    _write(Path(out), place, stored, valid, tags, units)


def _write(
    out: Path,
    place: Georeference,
    data: np.ndarray,
    valid: np.ndarray,
    tags: dict[str, str],
    units: dict[str, Any],
) -> None:
    """Write (6,H,W) float32; what the format does not hold itself is in the companion file that
    GDAL makes, out.tif.aux.xml.
    """
    import rasterio

    nodata = nodata_of(place)
    nodata = math.nan if nodata is None and not valid.all() else nodata
    if nodata is not None:
        data = np.where(valid, _apart(data, nodata), np.float32(nodata))
    profile = place.profile() | {"driver": "GTiff", "dtype": "float32", "count": len(BANDS)}
    profile |= {"nodata": nodata, "compress": "deflate", "predictor": 3, "bigtiff": "if_safer"}
    with replaced(out) as part:
        beside = Path(f"{part}.aux.xml")
        try:
            with without_remark(), rasterio.open(part, "w", **profile) as dst:
                dst.write(data)
                dst.descriptions = BANDS
                dst.update_tags(**tags)
                for name, values in units.items():
                    setattr(dst, name, values)
            remove_companions(out)
            if beside.exists():
                for name in {str(out), os.path.realpath(out)}:
                    shutil.copyfile(beside, f"{name}.aux.xml")
        finally:
            beside.unlink(missing_ok=True)


def _apart(values: np.ndarray, nodata: float) -> np.ndarray:
    """Values that happen to be the nodata number, moved off it by as little as survives (a spread
    of 0, say).
    """
    if not math.isfinite(nodata):
        return values
    number = np.float32(nodata)
    moved = number + np.float32(1e-6 if nodata <= 0 else -1e-6)
    if moved == number:  # so large that 1e-6 is lost
        moved = np.nextafter(number, np.float32(0))
    return np.where(values == number, moved, values)

"""GeoTIFFs to numbers: typed errors, reflectance in [0, 1], a validity mask with every array.

What is not known without doubt is an error that names the file, what was found, what is accepted
and how to fix it. Nothing that could not be read is ever replaced by zeros.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from satjepa.data.bands import band_order, has_alpha
from satjepa.data.errors import (
    BandCountError,
    CorruptRasterError,
    GridMismatchError,
    ScaleError,
    SceneError,
    corrupt,
)
from satjepa.data.grid import Grid
from satjepa.data.holes import read_valid, refuse_other_alpha, refuse_unwritten_blocks
from satjepa.data.tiff import cut_off

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

    from satjepa.data.holes import Box


SAMPLE = 65_536  # pixels of an image, about, that its dark and middle values are taken from
DARKEST = 0.0256  # an image without any brighter value is on another scale than its type says
ROUNDING = 1e-3  # by which a float may lie outside [0, 1]


@dataclass(frozen=True)
class Facts:
    """What a complete reading of a file told.

    low, high: range of the valid numbers as stored; scale, offset: of its tags.
    below, above: shares of the valid pixels with a band that becomes less than 0, more than 1, and
    is clipped. dark, middle: 1st percentile and median of red, green and blue as stored, of images
    that are not uint8, else empty. order: what there is to say on the order of the bands.
    """

    grid: Grid
    dtype: str
    nodata: float | None
    low: float
    high: float
    scale: float
    offset: float
    below: float = 0.0
    above: float = 0.0
    dark: tuple[float, ...] = ()
    middle: tuple[float, ...] = ()
    order: str = ""


__all__ = [
    "BandCountError", "CorruptRasterError", "Facts", "Grid", "GridMismatchError", "ScaleError",
    "SceneError", "facts", "open_raster", "read_rgb", "read_uint8", "rgb_scale",
]  # fmt: skip


@contextmanager
def without_remark() -> Iterator[None]:
    """No warning of rasterio's about a raster without georeference: it has what its file says."""
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def open_raster(path: Path, bands: int) -> Iterator[DatasetReader]:
    """Open a raster of so many bands, an image of red, green and blue also with opacity as the
    fourth; what GDAL cannot read, here or inside the block, is a CorruptRasterError.
    """
    import rasterio

    if lost := cut_off(path):
        raise corrupt(path, f"a truncated file without {lost}")
    try:
        with without_remark():
            src = rasterio.open(path)
        with src:
            if src.count != bands and not (src.count == bands + 1 == 4 and has_alpha(src)):
                fix = (
                    "export the red, green and blue bands only, in this order"
                    if bands == 3
                    else "export all bands"
                )
                raise BandCountError(path, f"{src.count} bands", f"{bands} bands", fix)
            yield src
    except rasterio.errors.RasterioIOError as error:
        raise corrupt(path, f"a raster that cannot be read ({error.__cause__ or error})") from error


class _Values:
    """Range, clipping and percentiles of the valid pixels of a raster, gathered block by block."""

    def __init__(self, src: DatasetReader, scale: float, offset: float) -> None:
        self.low = np.inf
        self.high = -np.inf
        self.pixels = self.below = self.above = 0
        self.sample: list[np.ndarray] | None = None
        self.step = max(1, src.width * src.height // SAMPLE)
        if src.count in (3, 4) and (src.dtypes[0], scale) != ("uint8", 1 / 255):
            self.sample = []
        self.scale = scale
        self.offset = offset

    def add(self, values: np.ndarray) -> None:
        """Values (bands, N) as stored."""
        if not values.size:
            return
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))
        if self.sample is not None:
            ends = np.sort(
                [v * self.scale + self.offset for v in (values.min(0), values.max(0))], 0
            )
            self.pixels += values.shape[1]
            self.below += int((ends[0] < -ROUNDING).sum())
            self.above += int((ends[1] > 1 + ROUNDING).sum())
            self.sample.append(values[:, :: self.step].copy())  # a view would keep all of them

    def percentile(self, share: float) -> tuple[float, ...]:
        """Of each band; empty where no sample was taken."""
        if not self.sample:
            return ()
        return tuple(np.percentile(np.concatenate(self.sample, 1), share, axis=1).tolist())


@lru_cache(maxsize=4096)
def _inspect(path: Path, bands: int, version: tuple[tuple[int, int], ...]) -> Facts:
    """Read a whole file, block by block; `version` (mtime, size; also of the mask and tags beside
    it) makes a rewritten file a new one.
    """
    with open_raster(path, bands) as src:
        order = band_order(src)[1] if bands == 3 else ""
        refuse_other_alpha(src, path)
        refuse_unwritten_blocks(src)
        stated = set(zip(src.scales[:bands], src.offsets[:bands], strict=True))
        if len(stated) > 1:
            raise ScaleError(
                path,
                f"different scale tags {stated} in one file",
                "one scale and offset",
                "rewrite it",
            )
        scale, offset = stated.pop()
        values = _Values(src, *_stated_scale(src.dtypes[0], scale, offset))
        for _, window in src.block_windows(1):
            data, valid = read_valid(src, window)
            values.add(data[:, valid])
        crs = src.crs.to_string() if src.crs else ""
        return Facts(
            grid=Grid(crs, tuple(src.transform)[:6], src.height, src.width),
            dtype=src.dtypes[0],
            nodata=src.nodata,
            low=values.low,
            high=values.high,
            scale=scale,
            offset=offset,
            below=values.below / max(values.pixels, 1),
            above=values.above / max(values.pixels, 1),
            dark=values.percentile(1),
            middle=values.percentile(50),
            order=order,
        )


def _stated_scale(dtype: str, scale: float, offset: float) -> tuple[float, float]:
    """Factor and offset by the tags, else by the type."""
    if (scale, offset) != (1.0, 0.0):
        return scale, offset
    return {"uint8": 1 / 255, "uint16": 1e-4}.get(dtype, 1.0), 0.0


def facts(path: str | Path, bands: int) -> Facts:
    """Read every pixel of a raster once (remembered until the file changes) and return what was
    found.

    Raises FileNotFoundError, CorruptRasterError, BandCountError.
    """
    path = Path(path).absolute()
    beside = [path.with_name(path.name + ending) for ending in (".msk", ".aux.xml")]
    stats = [path.stat(), *(file.stat() for file in beside if os.path.exists(file))]
    return _inspect(path, bands, tuple((stat.st_mtime_ns, stat.st_size) for stat in stats))


def rgb_scale(path: str | Path) -> tuple[float, float]:
    """Factor and offset that turn the stored numbers of an RGB raster into reflectance in [0, 1].

    * uint8: /255 (255 is display white).
    * uint16: /10000, if the largest valid value lies in 256..20000. Bright cloud and snow saturate
      up to about 16000 and are clipped to 1. A largest value up to 255 looks like 8-bit numbers,
      one above 20000 like another scaling: ScaleError. Pixels that are 0 in all bands are masked
      where the file states no nodata value (0 is Sentinel-2's).
    * float: as it is, in [0, 1] up to a rounding of 0.001, if not all of it is below 0.0256 and
      more than 0.
    * A scale and offset in the file's own tags (as in public Sentinel-2 COGs: 0.0001 and -0.1) are
      applied instead, if what results is plausible: it lies in -0.2..2, its largest value is at
      least 0.0256, and at most half of the pixels are below 0. It is clipped to [0, 1]. Tags that
      were kept when the numbers were converted are so found out.

    The decision is made on the whole file, never on a window. NaN, infinity and nodata take no part
    in it. What no single image shows, such as the 1000 that Sentinel-2 products add since 2022, is
    not corrected; `satjepa.data.remarks` looks for it between years.
    """
    seen = facts(path, bands=3)
    factor, offset = _stated_scale(seen.dtype, seen.scale, seen.offset)
    if seen.low > seen.high:  # not one valid pixel: any scale, all of it masked
        return 1.0, 0.0
    low = seen.low * factor + offset
    high = seen.high * factor + offset
    if (seen.scale, seen.offset) != (1.0, 0.0):
        plausible = factor > 0 and low >= -0.2 and DARKEST <= high <= 2 and seen.below <= 0.5
    elif seen.dtype == "uint16":
        plausible = DARKEST <= high <= 2
    elif seen.dtype in ("float32", "float64"):
        plausible = low >= -ROUNDING and high <= 1 + ROUNDING and not 0 < high < DARKEST
    else:
        plausible = seen.dtype == "uint8"
    if not plausible:
        raise _scale_error(path, seen, low, high)
    return factor, offset


def _scale_error(path: str | Path, seen: Facts, low: float, high: float) -> ScaleError:
    found = f"{seen.dtype} values from {seen.low:g} to {seen.high:g} (nodata {seen.nodata})"
    accepted = (
        "uint8 (/255), uint16 reflectance times 10000 with a largest value of 256 to 20000, float "
        "in [0, 1]"
    )
    fix = (
        "convert the file to one of these; if an extreme value is a fill value, write it into the "
        "nodata tag"
    )
    if (seen.scale, seen.offset) != (1.0, 0.0):
        found += (
            f", scale tag {seen.scale}, offset tag {seen.offset}: {low:g} to {high:g} once "
            f"applied, {seen.below:.0%} of the pixels below 0"
        )
        accepted += (
            f"; or tags by which it becomes -0.2 to 2, the largest value at least {DARKEST}, half "
            "of the pixels or more not below 0"
        )
        fix += (
            "; if the numbers were converted and the tags only kept, remove them (gdal_translate "
            "-a_scale 1 -a_offset 0)"
        )
    return ScaleError(path, found, accepted, fix)


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

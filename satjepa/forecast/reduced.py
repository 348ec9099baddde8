"""Rasters as the pictures of a page: read at the size that is shown, a strip at a time, north up,
and encoded in 8 bits.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from satjepa.data.holes import read_valid
from satjepa.data.rasters import open_raster, without_remark

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

STRIP = 256  # rows that are in memory at once
EXACT = 512 * 512  # pixels of a picture up to which 8 bits are kept without loss
QUALITY = 90  # of WebP, beyond


def read_reduced(path: Path, bands: int, step: int) -> np.ndarray:
    """A raster of so many bands, (bands,h,w) float32 as stored, with one pixel for step x step of
    the file: the mean of those that have a value, NaN where none has.

    h and w are rows and columns of the file divided by `step`, rounded up. Overviews in the file
    are used where their factor divides `step`. Raises what `open_raster` and `read_valid` raise.
    """
    import rasterio

    with open_raster(path, bands) as src:
        factors = src.overviews(1)
        fitting = [level for level, factor in enumerate(factors) if step % factor == 0]
        if not fitting:
            return _means(src, bands, step)
        level = max(fitting, key=factors.__getitem__)
        with without_remark(), rasterio.open(path, overview_level=level) as overview:
            return _means(overview, bands, step // factors[level])


def _means(src: DatasetReader, bands: int, step: int) -> np.ndarray:
    """Means of the squares of `step` pixels of an open raster, (bands,h,w) float32."""
    height = -(-src.height // step)
    width = -(-src.width // step)
    out = np.empty((bands, height, width), np.float32)
    rows = max(1, STRIP // step) * step
    for top in range(0, src.height, rows):
        box = (0, top, src.width, min(rows, src.height - top))
        data, valid = read_valid(src, box)
        first = top // step
        means = _of_squares(data[:bands], valid, step)
        out[:, first : first + means.shape[1]] = means
    return out


def _of_squares(data: np.ndarray, valid: np.ndarray, step: int) -> np.ndarray:
    """Means (B,h,w) over the valid ones of each step x step of (B,H,W); NaN where there are none.
    What lacks of the last squares counts as invalid.
    """
    if step == 1:
        return np.where(valid, data, np.nan).astype(np.float32)
    more = [(0, -length % step) for length in valid.shape]
    valid = np.pad(valid, more)
    known = np.where(valid, np.pad(data, [(0, 0), *more]), 0).astype(np.float32)
    bands, height, width = known.shape
    squares = (bands, height // step, step, width // step, step)
    total = known.reshape(squares).sum((2, 4), dtype=np.float64)
    count = valid.reshape(squares[1:]).sum((1, 3))
    with np.errstate(invalid="ignore"):
        return (total / count).astype(np.float32)


def data_uri(image: np.ndarray) -> str:
    """A picture (3,h,w), or a map (h,w) as grey, in [0, 1], as a WebP in a data URI; NaN is
    transparent. Up to EXACT pixels without loss in 8 bits.
    """
    from PIL import Image

    bands = image if image.ndim == 3 else np.stack([image] * 3)
    known = np.isfinite(bands).all(0)
    bytes_ = np.round(np.clip(np.where(known, bands, 0), 0, 1) * 255).astype(np.uint8)
    if not known.all():
        bytes_ = np.concatenate([bytes_, np.uint8(255) * known[None]])
    picture = Image.fromarray(np.ascontiguousarray(np.moveaxis(bytes_, 0, -1)))
    exact = known.size <= EXACT
    file = io.BytesIO()
    picture.save(file, "WEBP", lossless=exact, quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()

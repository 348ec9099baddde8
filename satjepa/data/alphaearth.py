"""AlphaEarth embeddings: 64-dimensional unit vectors a pixel and year, in Google's 8-bit code
(CC-BY 4.0).

The code is value = sign(q) (|q| / 127.5)^2 with q int8 and -128 for a pixel without embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from satjepa.data.bands import refuse_other_embedding
from satjepa.data.errors import ScaleError
from satjepa.data.holes import read_valid
from satjepa.data.rasters import facts, open_raster

if TYPE_CHECKING:
    from satjepa.data.holes import Box

BANDS = 64
MASKED = -128


def decode_alphaearth(q: np.ndarray, axis: int = 0) -> np.ndarray:
    """Codes to vectors of length 1: q int8 with the 64 bands along `axis`, float32 of the same
    shape.

    A vector with any band at -128, or with all bands 0, is 0. The code alone gives lengths of 0.994
    to 1.006 on real vectors, hence the scaling.
    """
    value = q.astype(np.float32)
    value *= np.abs(value) * np.float32(1 / 127.5**2)
    length = np.sqrt(np.square(value).sum(axis, keepdims=True))
    keep = (q != MASKED).all(axis, keepdims=True) & (length > 0)
    value *= np.divide(1, length, out=np.zeros_like(length), where=keep)
    return value


def encode_alphaearth(value: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Vectors (64, H, W) in [-1, 1] to int8 codes, the inverse of the formula; -128 where not
    `valid` (H, W).
    """
    q = np.clip(np.rint(np.sign(value) * np.sqrt(np.abs(value)) * 127.5), -127, 127)
    return (q if valid is None else np.where(valid, q, MASKED)).astype(np.int8)


def read_alphaearth(path: str | Path, window: Box | None = None) -> np.ndarray:
    """Codes (64, H, W) int8, all bands -128 where masked, from a raster of codes or of
    float32/float64 unit vectors.

    Floats are quantised with `encode_alphaearth` (cosine to the original above 0.999). NaN,
    infinity, nodata, an all-zero vector and a vector with any band at -128 are masked. `window` as
    in `read_rgb`. Raises CorruptRasterError, BandCountError, BandOrderError (bands named A00 to A63
    in another order), ScaleError (another type, or a median length that is not 1 within 10 %:
    rescaled or linearly coded bands).
    """
    seen = facts(path, BANDS)
    if seen.dtype not in ("int8", "float32", "float64"):
        raise _scale_error(path, f"type {seen.dtype}")
    with open_raster(Path(path), BANDS) as src:
        refuse_other_embedding(src)
        data, valid = read_valid(src, window)
    valid &= data.any(0)
    if seen.dtype == "int8":
        valid &= (data != MASKED).all(0)
        vectors = np.square(data[:, valid] / np.float32(127.5))  # (64, N), signs left out
    else:
        vectors = data[:, valid]
    length = np.median(np.sqrt(np.square(vectors).sum(0))) if valid.any() else 1.0
    if not 0.9 <= length <= 1.1:
        raise _scale_error(path, f"{seen.dtype} vectors of median length {length:.3g}")
    if seen.dtype == "int8":
        return np.where(valid, data, np.int8(MASKED))
    return encode_alphaearth(np.where(valid, data, 0), valid)


def _scale_error(path: str | Path, found: str) -> ScaleError:
    accepted = "int8 codes sign(q)(|q|/127.5)^2 with -128 masked, or float unit vectors"
    return ScaleError(
        path, found, accepted, "export the AlphaEarth bands as they are, without rescaling"
    )

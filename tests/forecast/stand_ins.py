"""Small rasters for the tests of this folder."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine

NORTH = Affine(10, 0, 300000, 0, -10, 5000000)
SOUTH = Affine(10, 0, 300000, 0, 10, 5000000)  # the first row is the southernmost


def pixels(seed: int, height: int = 50, width: int = 70) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(60, 250, (3, height, width)).astype(np.uint8)


def write(path: Path, data: np.ndarray, transform: Affine = NORTH, **profile: object) -> Path:
    count, height, width = data.shape
    profile |= {"count": count, "height": height, "width": width, "dtype": data.dtype}
    crs = CRS.from_epsg(32633)
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **profile) as dst:
        dst.write(data)
    return path

"""Small rasters, and a model that needs no weights, for the tests of this folder."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import rasterio
import torch
from rasterio.crs import CRS
from rasterio.transform import Affine

from satjepa.models.joint import JointModel

NORTH = Affine(10, 0, 300000, 0, -10, 5000000)
SOUTH = Affine(10, 0, 300000, 0, 10, 5000000)  # the first row is the southernmost
PATCH = 32


class Joint:
    """Stands in for a model: the last image, each member a shade darker than the one before."""

    strength = 1.0
    guidance = 1.25
    steps = JointModel.steps
    sampler = JointModel.sampler
    params = SimpleNamespace(
        captions=SimpleNamespace(captioner="rules"),
        data=SimpleNamespace(patch=PATCH, history=1, white=None),
        model=SimpleNamespace(variant="satjepa"),
        sample=SimpleNamespace(steps=6, samples=8),
    )

    def forecast(self, batch: dict, samples: int, seed: int) -> torch.Tensor:
        shade = 0.01 * torch.arange(samples)[:, None, None, None, None]
        return (batch["rgb_t"] - shade - seed / 1000).clamp(0, 1)


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

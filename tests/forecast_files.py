"""What the tests of forecasts share: small rasters, and forecasters that need no weights."""

from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.crs import CRS
from rasterio.transform import Affine

from satjepa.data.rasters import without_remark
from satjepa.data.stack import Stack
from satjepa.models.flow import patch_noise

NORTH = Affine(10, 0, 300000, 0, -10, 5000000)
ROTATED = Affine.translation(500000, 8000000) @ Affine.rotation(30) @ Affine.scale(10, -10)
quiet = {"log": lambda line: None}


class Noise:
    """Grey plus noise that belongs to the place: what a generator does, without the generator."""

    def forecast(self, batch: dict, samples: int, seed: int) -> torch.Tensor:
        shape = batch["rgb_t"].shape[1:]
        return torch.stack(
            [0.5 + 0.1 * patch_noise(batch["meta"], s, seed, shape) for s in range(samples)]
        )


class Sees:
    """Persistence that remembers the batches it was given."""

    def __init__(self) -> None:
        self.batches: list[dict] = []

    def forecast(self, batch: dict, samples: int, seed: int) -> torch.Tensor:
        self.batches.append(batch)
        return batch["rgb_t"].expand(samples, *batch["rgb_t"].shape)


def write(
    path: Path, data: np.ndarray, transform: Affine = NORTH, crs: object = 32633, **profile: object
) -> Path:
    shape = {"count": data.shape[0], "height": data.shape[1], "width": data.shape[2]}
    profile |= shape | {"dtype": data.dtype}
    profile["crs"] = None if crs is None else CRS.from_user_input(crs)
    if "gcps" not in profile:
        profile["transform"] = transform
    with without_remark(), rasterio.open(path, "w", driver="GTiff", **profile) as dst:
        dst.write(data)
    return path


def image(height: int, width: int, dtype: str = "uint8") -> np.ndarray:
    unit = np.random.default_rng(height * width).random((3, height, width))
    return {
        "uint8": lambda: (1 + unit * 254).astype(np.uint8),
        "uint16": lambda: (300 + unit * 3000).astype(np.uint16),
        "float32": lambda: (0.01 + 0.3 * unit).astype(np.float32),
    }[dtype]()


def stack_of(rgb: np.ndarray, years: tuple = (2019,), valid: np.ndarray | None = None) -> Stack:
    valid = np.ones((len(rgb), *rgb.shape[2:]), bool) if valid is None else valid
    return Stack(rgb.astype(np.float32), valid, years, 1 / 255, 0.0, 1.0, 0.0)

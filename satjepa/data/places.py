"""The arrays of a cube, the windows cut from them, and the symmetries that a window is shown in."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch

from satjepa.data.alphaearth import BANDS, MASKED, decode_alphaearth

if TYPE_CHECKING:
    import xarray as xr

Array = TypeVar("Array", np.ndarray, torch.Tensor)


def d4(array: Array, aug: int) -> Array:
    """One of the 8 symmetries of the square, on the last two axes of a numpy array or a tensor.

    Mirrored left-right if `aug` >= 4, then turned by `aug` % 4 quarters, counter-clockwise. 0 is
    the identity.
    """
    lib = torch if isinstance(array, torch.Tensor) else np
    return lib.rot90(lib.flip(array, (-1,)) if aug >= 4 else array, aug % 4, (-2, -1))


def augmentation(region: str, x: int, y: int) -> int:
    """The symmetry (0..7) of a training window: a hash of its place, so the same in every year,
    preset and run.
    """
    return hashlib.sha256(f"{region}/{x}/{y}".encode()).digest()[0] % 8


class Window(NamedTuple):
    """A square of `side` pixels whose upper left one is (x, y), shown as `d4(..., aug)` has it."""

    x: int
    y: int
    side: int
    aug: int = 0

    def cut(self, array: np.ndarray) -> np.ndarray:
        """The window of an array (..., height, width), in memory of its own or the array's."""
        square = array[..., self.y : self.y + self.side, self.x : self.x + self.side]
        return np.ascontiguousarray(d4(square, self.aug))


class Place:
    """The arrays of one cube, each read at first use and then shared by all samples."""

    def __init__(self, cube: xr.Dataset) -> None:
        self.cube = cube
        self.region = cube.attrs["region"]
        self.preset = cube.attrs["preset"]
        self.shape = cube.sizes["y"], cube.sizes["x"]
        self.years = cube["year"].values.tolist()
        self._arrays: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        """A variable of the cube, all its years, as it is stored."""
        if name not in self._arrays:
            # xarray keeps the same array: one copy in memory
            self._arrays[name] = self.cube[name].values
        return self._arrays[name]

    def image(self, i: int, window: Window) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the i-th year: rgb (3,H,W) float32 in [0,1] and valid (1,H,W) bool."""
        valid = torch.from_numpy(window.cut(self["valid"][i]))[None]
        return as_rgb(window.cut(self["rgb"][i])), valid

    def embedding(self, i: int, window: Window) -> tuple[torch.Tensor, torch.Tensor]:
        """AlphaEarth of the i-th year: (64,H,W) float32 of length 1 or, where masked, 0, and where
        it is valid, (1,H,W) bool; all masked where the cube has none.
        """
        if "emb" not in self.cube:
            nothing = torch.zeros(BANDS, window.side, window.side)
            return nothing, torch.zeros(1, window.side, window.side, dtype=torch.bool)
        codes = window.cut(self["emb"][i])
        valid = torch.from_numpy((codes != MASKED).all(0))[None]
        return torch.from_numpy(decode_alphaearth(codes)), valid

    def valid_share(self, patch: int, corners: list[tuple[int, int]]) -> np.ndarray:
        """Valid share (years, windows) of windows of `patch` pixels at `corners` (x, y)."""
        total = np.pad(
            self["valid"].cumsum(1, np.int32).cumsum(2, np.int32), ((0, 0), (1, 0), (1, 0))
        )
        x, y = np.array(corners, int).reshape(-1, 2).T
        count = (
            total[:, y + patch, x + patch]
            - total[:, y, x + patch]
            - total[:, y + patch, x]
            + total[:, y, x]
        )
        return count / patch**2


def as_rgb(values: np.ndarray) -> torch.Tensor:
    """uint8 (255 = 1.0) or float32 to a float32 tensor of its own."""
    scale = 255 if values.dtype == np.uint8 else 1
    return torch.from_numpy(values.astype(np.float32) / np.float32(scale))

"""The ground that the demo world stands on: noise with a seed of its own, fields, roads, a river.

All arithmetic is float64, so that the rounding to 8 bits gives the same pixels on every machine.
"""

from __future__ import annotations

import hashlib

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree


def stream(*key: object) -> np.random.Generator:
    """A random generator that depends on nothing but its key.

    PCG64, seeded by the SHA-256 of the key's text.
    """
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def fractal(rng: np.random.Generator, size: int, beta: float) -> np.ndarray:
    """A (size, size) field of zero mean and unit deviation with power spectrum k^-beta.

    k: cycles per pixel.
    """
    f = np.fft.fftfreq(size)
    k = np.hypot(*np.meshgrid(f, f))
    k[0, 0] = 1.0  # the mean, which is taken off below; 0 has no negative power
    white = np.fft.fft2(rng.standard_normal((size, size)))
    z = np.fft.ifft2(white * k ** (-beta / 2)).real
    return (z - z.mean()) / z.std()


def cells(points: np.ndarray, size: int, warp: np.ndarray | None = None) -> np.ndarray:
    """Voronoi cell (index of the nearest point) of each pixel, (size, size) int.

    points (n, 2); `warp` (2, size, size) bends the borders.
    """
    grid = np.stack(np.mgrid[:size, :size]).astype(float)  # (2, size, size)
    if warp is not None:
        grid = grid + warp
    _, numbers = cKDTree(points).query(grid.reshape(2, -1).T)
    return numbers.reshape(size, size)


def parcels(rng: np.random.Generator, size: int) -> tuple[np.ndarray, int]:
    """Field number of each pixel, (size, size) int, and how many there are.

    The land is districts, each cut into staggered strips of its own direction and width.
    """
    y, x = np.mgrid[:size, :size].astype(float)
    districts = rng.integers(3, 7)
    district = cells(rng.uniform(0, size, (districts, 2)), size)
    number = np.zeros((size, size), int)
    used = 0
    for d in range(districts):
        angle = rng.uniform(0, np.pi)
        width = rng.uniform(14, 28)
        length = rng.uniform(20, 52)
        u = (x * np.cos(angle) + y * np.sin(angle)) / width
        v = (-x * np.sin(angle) + y * np.cos(angle)) / length
        strip = np.floor(u + 0.15 * np.sin(1.3 * v + d)).astype(int)
        strip -= strip.min()
        shift = rng.random(strip.max() + 1)[strip]
        piece = np.floor(v + shift).astype(int)
        inside = district == d
        key = strip * 4096 + piece - piece.min()
        number[inside] = np.unique(key[inside], return_inverse=True)[1] + used
        used = number[inside].max() + 1
    return number, int(used)


def roads(rng: np.random.Generator, size: int, town: np.ndarray) -> np.ndarray:
    """(size, size) bool: two or three gently curved roads that meet in the town."""
    road = np.zeros((size, size), bool)
    along = np.arange(0, 2 * size, 0.5)
    for angle in rng.uniform(0, np.pi) + np.arange(rng.integers(2, 4)) * rng.uniform(0.8, 1.3):
        sway = rng.uniform(-14, 14)
        bend = sway * np.sin(along / 40)  # pixels across the road's own direction
        for side in (0.0, np.pi):  # both ways out of the town
            y = town[0] + along * np.sin(angle + side) + bend * np.cos(angle)
            x = town[1] + along * np.cos(angle + side) - bend * np.sin(angle)
            inside = (y >= 0) & (y < size - 1) & (x >= 0) & (x < size - 1)
            yi = y[inside].astype(int)
            xi = x[inside].astype(int)
            road[yi, xi] = road[yi, xi + 1] = road[yi + 1, xi] = True
    return road


def river(rng: np.random.Generator, size: int) -> np.ndarray:
    """(size, size) bool: a meandering river in six regions of ten, else nothing."""
    if rng.random() > 0.6:
        return np.zeros((size, size), bool)
    y, x = np.mgrid[:size, :size].astype(float)
    angle = rng.uniform(0, np.pi)
    cy, cx = rng.uniform(0.25 * size, 0.75 * size, 2)
    along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    across = -(x - cx) * np.sin(angle) + (y - cy) * np.cos(angle)
    meander = gaussian_filter(rng.standard_normal(1024), 30)
    bend = np.interp(along, np.linspace(-2 * size, 2 * size, 1024), 14 * meander / meander.std())
    return np.abs(across - bend) < rng.uniform(2.0, 4.5)

"""What covers the land, pixel by pixel: from colours to a cover map, without weights.

A cover is named by the nearest of a few colours in *display space* (1.0 = reflectance 0.3558, the
white of Sentinel-2's true-colour product), then corrected by what lies around it: bare ground
inside a forest is a clearing, pale ground beside houses is a building site.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from satjepa.data.display import REFLECTANCE_WHITE

# encoding -> (value shown as white, gamma); display space = min((value ** gamma) / white, 1)
ENCODINGS = {
    "display": (1.0, 1.0),
    "reflectance": (REFLECTANCE_WHITE, 1.0),
    "gamma": (REFLECTANCE_WHITE, 2.2),
}
COVERS = (
    "water",
    "forest",
    "scrub",
    "green crops",
    "grass",
    "yellow crops",
    "pale soil",
    "brown soil",
    "dry trees",
    "pasture",
    "building site",
    "burnt ground",
    "young trees",
    "buildings",
    "cloud",
    "clearing",
    "bare shore",
    "marsh",
)
(
    WATER,
    FOREST,
    SCRUB,
    CROPS,
    GRASS,
    YELLOW,
    PALE,
    BROWN,
    DRY,
    PASTURE,
    SITE,
    BURNT,
    YOUNG,
    TOWN,
    CLOUD,
    CLEARING,
    SHORE,
    MARSH,
) = range(len(COVERS))
_COLOURS = {
    WATER: [
        (0.07, 0.14, 0.19),
        (0.05, 0.09, 0.10),
        (0.10, 0.16, 0.17),
        (0.10, 0.22, 0.24),
        (0.16, 0.20, 0.22),
    ],
    FOREST: [(0.10, 0.18, 0.11), (0.07, 0.16, 0.08), (0.13, 0.20, 0.13), (0.07, 0.11, 0.07)],
    SCRUB: [(0.33, 0.37, 0.20)],
    YOUNG: [(0.19, 0.30, 0.14)],
    MARSH: [(0.22, 0.30, 0.24)],
    PASTURE: [(0.25, 0.33, 0.19), (0.20, 0.26, 0.18)],
    CROPS: [(0.26, 0.47, 0.20), (0.20, 0.38, 0.16)],
    GRASS: [(0.34, 0.43, 0.24)],
    YELLOW: [(0.72, 0.68, 0.22)],
    PALE: [(0.63, 0.54, 0.37)],
    SHORE: [(0.60, 0.55, 0.46)],
    BROWN: [(0.46, 0.36, 0.27), (0.44, 0.31, 0.22), (0.30, 0.25, 0.19)],
    DRY: [(0.42, 0.31, 0.20)],
    SITE: [(0.80, 0.74, 0.66)],
    BURNT: [(0.13, 0.10, 0.10)],
    CLOUD: [(0.97, 0.97, 0.98)],
    TOWN: [(0.52, 0.50, 0.50), (0.43, 0.42, 0.41), (0.36, 0.36, 0.34), (0.66, 0.64, 0.65)],
}
_NAMES = np.array([c for c, colours in _COLOURS.items() for _ in colours])
_POINTS = np.sqrt(
    np.concatenate(list(_COLOURS.values())).astype(np.float32)
)  # the root makes steps even to the eye
WOODY = (FOREST, YOUNG, SCRUB, DRY, CLEARING, BURNT)
FIELDS = (CROPS, GRASS, YELLOW, PALE, BROWN, PASTURE)


def guess_encoding(rgb: np.ndarray) -> str:
    """How the values of `rgb` (3,H,W) are encoded: 'reflectance' (all dark), 'gamma' (nowhere
    saturated) or 'display'.

    The rule is made for patches with more than one cover. Where the encoding is known, do not
    guess.
    """
    top = rgb.max(0)
    if not (top > 0.004).any() or np.percentile(top[top > 0.004], 99) < 0.17:
        return "reflectance"
    seen = top > 0.03
    saturation = (top[seen] - rgb.min(0)[seen]) / top[seen]
    return "gamma" if np.percentile(saturation, 95) < 0.42 else "display"


def display(rgb: np.ndarray, encoding: str) -> np.ndarray:
    """`rgb` (3,H,W) in [0,1] of an encoding of `ENCODINGS`, brought to display space: float32 in
    [0,1].
    """
    white, gamma = ENCODINGS[encoding]
    linear = rgb if gamma == 1.0 else rgb**gamma
    return np.clip(linear / white, 0, 1).astype(np.float32)


def cover_map(view: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Cover of each pixel of a display-space image (3,H,W): (H,W) int, an index into `COVERS`, -1
    where not valid.
    """
    near = ndimage.gaussian_filter(valid.astype(np.float32), 0.6)
    smooth = np.sqrt(ndimage.gaussian_filter(view * valid, (0, 0.6, 0.6)) / np.maximum(near, 1e-3))
    pixels = smooth.reshape(3, -1).T
    distance = (_POINTS**2).sum(
        1
    ) - 2 * pixels @ _POINTS.T  # (pixels, colours), up to a constant of the pixel
    cover = np.where(valid, _NAMES[distance.argmin(1)].reshape(valid.shape), -1)
    rough = _roughness(smooth.mean(0))
    red = view[0] > 1.1 * view[1]
    cover[(cover == BURNT) & ~red] = FOREST
    calm = ndimage.uniform_filter(rough, 7) < 0.0035  # even closed forests are rougher
    cover[calm & (cover == FOREST) & ~red & (view[0] > 0.7 * view[1])] = WATER
    streets = (rough > 0.022) & ndimage.minimum_filter(valid, 3)
    busy = ndimage.uniform_filter(
        streets.astype(np.float32), 13
    )  # towns are rough all over, fields at borders
    cover[(busy > 0.6) & np.isin(cover, (PALE, BROWN, DRY, SHORE))] = TOWN
    lake = ndimage.maximum_filter(
        ndimage.minimum_filter(cover == WATER, 7), 17
    )  # beside water more than 6 pixels wide
    cover[lake & (cover == TOWN) & (view[2] < 0.88 * view[0]) & (busy < 0.6)] = SHORE
    cover[(cover == SHORE) & ~lake] = PALE
    cover[(cover == MARSH) & ~(lake & ndimage.binary_opening(cover == MARSH, np.ones((3, 3))))] = (
        PASTURE
    )
    cover[_enclosed(cover == TOWN, busy < 0.05, 0.8, least=150)] = (
        PALE  # wide and smooth: sand or rock
    )
    return _in_context(cover)


def _roughness(grey: np.ndarray) -> np.ndarray:
    """Standard deviation in each 3x3 neighbourhood, (H,W)."""
    mean = ndimage.uniform_filter(grey, 3)
    square = ndimage.uniform_filter(grey * grey, 3)
    return np.sqrt(np.maximum(square - mean * mean, 0))


def _in_context(cover: np.ndarray) -> np.ndarray:
    """Correct covers that colour alone cannot tell apart by what lies around each connected piece
    of them.
    """
    cover = cover.copy()
    woods = ndimage.binary_opening(
        np.isin(cover, (FOREST, YOUNG, SCRUB, BURNT)), np.ones((4, 4))
    )  # without hedges
    dark = cover == BURNT
    cover[dark & ~_enclosed(dark, woods | np.isin(cover, (DRY, BROWN)), 0.5)] = WATER
    bare = np.isin(cover, (BROWN, DRY))
    inside = _enclosed(bare, woods, 0.3, most=1200)
    redder, near = (ndimage.uniform_filter(m.astype(np.float32), 7) for m in (cover == DRY, bare))
    cover[bare & ~inside] = BROWN
    cover[inside] = np.where(redder > 0.5 * near, DRY, CLEARING)[inside]
    for kind, instead in ((YOUNG, CROPS), (SCRUB, GRASS)):
        piece = cover == kind
        cover[
            piece & ~_enclosed(piece, woods | np.isin(cover, (CLEARING, DRY)), 0.15, least=25)
        ] = instead
    site = cover == SITE  # no blurred rims
    houses = ndimage.binary_opening(cover == TOWN, np.ones((3, 3)))
    cover[site & ~_enclosed(site, houses, 0.02, most=400)] = PALE
    return cover


def _enclosed(
    mask: np.ndarray, around: np.ndarray, share: float, least: int = 8, most: int = 10**9
) -> np.ndarray:
    """The connected pieces of `mask` of `least` to `most` pixels whose rim (3 pixels) is `around`
    by `share`.
    """
    piece, count = ndimage.label(mask)
    grown = ndimage.maximum_filter(piece, 7)
    rim = (grown > 0) & (piece == 0)
    total = np.bincount(grown[rim], minlength=count + 1)
    hits = np.bincount(grown[rim & around], minlength=count + 1)
    area = np.bincount(piece.ravel(), minlength=count + 1)
    keep = (hits >= share * np.maximum(total, 1)) & (area >= least) & (area <= most)
    keep[0] = False
    return keep[piece]

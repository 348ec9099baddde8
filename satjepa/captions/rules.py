"""Three captions of a satellite image, measured from its pixels alone: no weights, no randomness,
no hidden state.

    informative   how much of each cover (rounded to five percent), vigour of the vegetation,
    brightness, contrast, tint
    geometric     parcels and their grid, roads and rivers, where the main covers lie, edges and
    texture
    semantic      what the place is, the covers of each quarter, and signs of change that one image
    can show

The published system asks a vision-language model for the same three texts (`satjepa.captions.vlm`).
A cover is named by the nearest of a few colours in *display space* (1.0 = reflectance 0.3558, the
white of Sentinel-2's true-colour product), then corrected by what lies around it: bare ground
inside a forest is a clearing, pale ground beside houses is a building site. North is up.
The sentences come from a closed vocabulary, so that a tokenizer of a few hundred words covers them.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from satjepa.contracts import Captions
from satjepa.data.display import REFLECTANCE_WHITE

PROMPT_VERSION = 1
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
_WOODY = (FOREST, YOUNG, SCRUB, DRY, CLEARING, BURNT)
_FIELDS = (CROPS, GRASS, YELLOW, PALE, BROWN, PASTURE)
_GROUPS = {
    "forest": _WOODY,
    "farmland": _FIELDS,
    "town": (TOWN, SITE),
    "water": (WATER, SHORE, MARSH),
}
_LINES = ("west to east", "northwest to southeast", "north to south", "southwest to northeast")
_SPOTS = (
    ("northwest", "north", "northeast"),
    ("west", "centre", "east"),
    ("southwest", "south", "southeast"),
)
_COUNTS = ("no", "one", "two", "three", "four")


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


def caption(
    rgb: np.ndarray, valid: np.ndarray | None = None, encoding: str | None = None
) -> Captions:
    """Describe one image.

    Args:
        rgb: (3,H,W) float in [0,1], H and W of at least 16.
        valid: (H,W) bool, False where there is no data; None: black (all bands below 0.012 as
            displayed) is no data.
        encoding: a key of `ENCODINGS`; None: `guess_encoding`.

    Returns three texts; equal input gives equal output on every machine up to the rounding of
    float32.
    """
    rgb = np.nan_to_num(np.asarray(rgb, np.float32))
    view = display(rgb, encoding or guess_encoding(rgb))
    valid = view.max(0) > 0.012 if valid is None else valid
    if not valid.any():
        return Captions("No data.", "No data.", "No data.")
    cover = cover_map(view, valid)
    return Captions(
        _informative(view, cover, valid), _geometric(view, cover, valid), _semantic(cover)
    )


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


def _shares(cover: np.ndarray) -> np.ndarray:
    """Share of each cover among the valid pixels, (covers,); zeros where nothing is valid."""
    seen = cover[cover >= 0]
    return np.bincount(seen, minlength=len(COVERS)) / max(seen.size, 1)


def _ranked(shares: np.ndarray, least: float) -> list[int]:
    return [int(c) for c in np.argsort(-shares, kind="stable") if shares[c] >= least]


def _level(value: float, bounds: tuple[float, ...], words: tuple[str, ...]) -> str:
    return words[int(np.searchsorted(bounds, value))]


def _list(items: list[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def _informative(view: np.ndarray, cover: np.ndarray, valid: np.ndarray) -> str:
    shares = _shares(cover)
    main = _ranked(shares, 0.025)[:6]
    first, *rest = [f"{COVERS[c]} {5 * round(20 * shares[c])}" for c in main]
    parts = [f"{first} percent".capitalize(), *rest]
    red, green, blue = view[:, valid]
    gli = (
        (2 * green - red - blue) / (2 * green + red + blue + 1e-6)
    ).mean()  # green leaf index, Louhaichi et al. 2001
    light = view[:, valid].mean(0)
    vigour = _level(
        gli, (0.02, 0.06, 0.10, 0.15), ("no", "weak", "moderate", "strong", "very strong")
    )
    bright = _level(
        light.mean(),
        (0.15, 0.22, 0.28, 0.34, 0.42),
        ("very dark", "dark", "dim", "medium", "bright", "very bright"),
    )
    contrast = _level(light.std(), (0.04, 0.08, 0.13), ("flat", "low", "medium", "high"))
    tint = _level(
        red.mean() / (blue.mean() + 1e-6),
        (0.95, 1.25, 1.6, 2.0),
        ("blue", "neutral", "warm", "yellow", "golden"),
    )
    gap = 5 * round(20 * (1 - valid.mean()))
    lost = f" No data in {gap} percent." if gap else ""
    return (
        f"{', '.join(parts)}. {vigour.capitalize()} vigour, {bright}, {contrast} contrast, "
        f"{tint} tint.{lost}"
    )


def _spot(mask: np.ndarray) -> str:
    """Where in the image the centre of gravity of a mask lies: one of nine places."""
    centre = [(v.mean() + 0.5) / n for v, n in zip(np.nonzero(mask), mask.shape, strict=True)]
    row, column = np.searchsorted((0.38, 0.62), centre)
    return _SPOTS[row][column]


def _direction(angle: float) -> str:
    """The compass words of an undirected line at `angle` (radians from east, y down)."""
    return _LINES[int(np.round(angle / (np.pi / 4))) % 4]


def _lines(mask: np.ndarray, widest: float) -> list[str]:
    """Direction of each long thin connected piece of `mask`, the longest first."""
    piece, _ = ndimage.label(mask, np.ones((3, 3)))
    found = []
    for number, window in enumerate(ndimage.find_objects(piece), start=1):
        height, width = (s.stop - s.start for s in window)
        length = float(np.hypot(height, width))
        if length < 0.4 * max(mask.shape):
            continue
        y, x = np.nonzero(piece[window] == number)
        if y.size / length <= widest:
            (a, b), (_, c) = np.cov(x, y)
            found.append((length, _direction(0.5 * np.arctan2(2 * b, a - c))))
    return [direction for _, direction in sorted(found, reverse=True)]


def _parcels(cover: np.ndarray) -> tuple[int, float]:
    """Number of fields (connected, one cover, 40 pixels or more) and the median of their areas in
    pixels.
    """
    areas = [np.bincount(ndimage.label(cover == kind)[0].ravel())[1:] for kind in _FIELDS]
    areas = np.concatenate(areas)
    areas = areas[areas >= 40]
    return len(areas), float(np.median(areas)) if len(areas) else 0.0


def _grid(grey: np.ndarray, valid: np.ndarray) -> tuple[str, float]:
    """Words for the direction of the edges, and the mean gradient. (Fourfold: both sides of a
    rectangle agree.)
    """
    dy = ndimage.gaussian_filter(grey, 1.0, order=(1, 0))
    dx = ndimage.gaussian_filter(grey, 1.0, order=(0, 1))
    inner = ndimage.minimum_filter(valid, 7)
    z = (dx + 1j * dy)[inner]
    weight = np.abs(z) ** 2
    if weight.sum() < 1e-9:
        return "without a grid", 0.0
    fourfold, twofold = (
        (weight * np.exp(1j * k * np.angle(z))).sum() / weight.sum() for k in (4, 2)
    )
    if np.abs(twofold) > 0.25:  # one direction rules: edges run across the gradient
        return f"edges run {_direction((np.angle(twofold) + np.pi) / 2)}", float(np.abs(z).mean())
    if np.abs(fourfold) > 0.12:
        return "on an upright grid" if np.cos(
            np.angle(fourfold)
        ) > 0 else "on a diagonal grid", float(np.abs(z).mean())
    return "without a grid", float(np.abs(z).mean())


def _geometric(view: np.ndarray, cover: np.ndarray, valid: np.ndarray) -> str:
    count, area = _parcels(cover)
    grid, edges = _grid(np.sqrt(view).mean(0), valid)
    number = _COUNTS[count] if count < 5 else f"about {5 * round(count / 5)}"
    size = (
        _level(area, (60, 120, 250, 500), ("tiny", "small", "medium", "large", "very large")) + " "
        if count
        else ""
    )
    fields = f"{number} {size}{'parcel' if count == 1 else 'parcels'}, {grid}."
    town = cover == TOWN
    streets = town & ~ndimage.binary_dilation(
        ndimage.binary_opening(town, np.ones((5, 5))), iterations=2
    )
    lines = [f"river {d}" for d in _lines(cover == WATER, 13)[:1]] + [
        f"road {d}" for d in _lines(streets, 5)[:2]
    ]
    line = f" {_list(lines).capitalize()}." if lines else ""
    main = _ranked(_shares(cover), 0.06)[:4]
    where = (
        _list([f"{COVERS[c]} {_spot(cover == c)}" for c in main]).capitalize()
        if main
        else "Mixed covers"
    )
    sharp = _level(
        edges, (0.008, 0.014, 0.02, 0.027), ("smooth", "soft", "moderate", "sharp", "very sharp")
    )
    return f"{fields.capitalize()}{line} {where}. {sharp.capitalize()} edges."


def _semantic(cover: np.ndarray) -> str:
    shares = _shares(cover)
    groups = {name: float(shares[list(kinds)].sum()) for name, kinds in _GROUPS.items()}
    names = sorted(groups, key=groups.get, reverse=True)
    place = " with ".join(
        [names[0], " and ".join(n for n in names[1:] if groups[n] > 0.05)]
    ).removesuffix(" with ")
    quarters = []
    for north, half in zip(("north", "south"), np.array_split(cover, 2), strict=True):
        for west, quarter in zip(("west", "east"), np.array_split(half, 2, axis=1), strict=True):
            ranked = _ranked(_shares(quarter), 0.15)[:2]
            quarters.append(f"{north}{west} {' and '.join(COVERS[c] for c in ranked) or 'no data'}")
    signs = [
        f"{COVERS[kind]} {_spot(cover == kind)}"
        for kind in (CLEARING, BURNT, DRY, SITE, SHORE, MARSH)
        if (cover == kind).sum() >= 0.006 * cover.size
    ][:3]
    change = f"Change: {', '.join(signs)}." if signs else "No sign of change."
    return f"{place.capitalize()}. {', '.join(quarters).capitalize()}. {change}"

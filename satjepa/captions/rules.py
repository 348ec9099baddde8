"""Three captions of a satellite image, measured from its pixels alone: no weights, no randomness,
no hidden state.

    informative   how much of each cover (rounded to five percent), vigour of the vegetation,
                  brightness, contrast, tint
    geometric     parcels and their grid, roads and rivers, where the main covers lie, edges and
                  texture
    semantic      what the place is, the covers of each quarter, and signs of change that one image
                  can show

The published system asks a vision-language model for the same three texts (`satjepa.captions.vlm`).
`satjepa.captions.cover` finds the cover of each pixel; here it is put into words. The first row of
an image is north. The sentences come from a closed vocabulary, so that a tokenizer of a few hundred
words covers them.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from satjepa.captions.cover import (
    BURNT,
    CLEARING,
    COVERS,
    DRY,
    FIELDS,
    MARSH,
    SHORE,
    SITE,
    TOWN,
    WATER,
    WOODY,
    cover_map,
    display,
    guess_encoding,
)  # fmt: skip
from satjepa.contracts import Captions

PROMPT_VERSION = 1
GROUPS = {"forest": WOODY, "farmland": FIELDS, "town": (TOWN, SITE), "water": (WATER, SHORE, MARSH)}
_LINES = ("west to east", "northwest to southeast", "north to south", "southwest to northeast")
SPOTS = (
    ("northwest", "north", "northeast"),
    ("west", "centre", "east"),
    ("southwest", "south", "southeast"),
)
_COUNTS = ("no", "one", "two", "three", "four")
SHORTEST = 6  # pixels: a shorter piece of water or town has no direction


def caption(
    rgb: np.ndarray, valid: np.ndarray | None = None, encoding: str | None = None
) -> Captions:
    """Describe one image.

    Args:
        rgb: (3,H,W) float in [0,1], first row in the north; the rules are made for 16 pixels and
            more a side, less says little.
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
    return SPOTS[row][column]


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
        if length < max(0.4 * max(mask.shape), SHORTEST):
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
    areas = [np.bincount(ndimage.label(cover == kind)[0].ravel())[1:] for kind in FIELDS]
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
    groups = {name: float(shares[list(kinds)].sum()) for name, kinds in GROUPS.items()}
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

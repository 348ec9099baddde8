"""The images of one scene as a model sees them: one grid, one display scale, no holes, newest
first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from satjepa.data.rasters import GridMismatchError, facts, read_rgb, rgb_scale


class ForecastError(Exception):
    """The images given cannot be forecast as asked; the message says which and what to do."""


@dataclass(frozen=True)
class Stack:
    """T images of one scene.

    rgb: (T,3,H,W) float32 in [0, 1], display scale, holes filled from the nearest valid pixel.
    valid: (T,H,W) bool.
    years: (T,), a lone None where it is not known. The way back to the numbers of the newest
    image's file: stored = (display * white - offset) / factor. saturated: share of its pixels
    brighter than white, clipped to it.
    """

    rgb: np.ndarray
    valid: np.ndarray
    years: tuple[int | None, ...]
    factor: float
    offset: float
    white: float
    saturated: float


def year_of(path: str | Path) -> int | None:
    """The last number from 1900 to 2099 that stands alone in a file name (s2_rgb_X_2019_10km.tif:
    2019), or None.
    """
    found = re.findall(r"(?<!\d)(?:19|20)\d\d(?!\d)", Path(path).stem)
    return int(found[-1]) if found else None


def years_of(paths: Sequence[Path], given: Sequence[int] | None = None) -> tuple[int | None, ...]:
    """Year of each image, from `given` (of the last one, or of all) or from the file names.

    A single image may have none. Raises ForecastError where several are not from the oldest to the
    newest, one a year.
    """
    if given and len(given) not in (1, len(paths)):
        raise ForecastError(
            f"{len(given)} years for {len(paths)} images: give one for the last image, or one for "
            "each"
        )
    years = [year_of(path) for path in paths]
    if given:
        years[-len(given) :] = given
    if len(years) > 1 and None in years:
        unknown = paths[years.index(None)].name
        raise ForecastError(
            f"{unknown}: no year in the name; give the year of each image (--year, once for each)"
        )
    if any(a >= b for a, b in pairwise(years)):
        raise ForecastError(
            f"years {', '.join(map(str, years))}: give the images from oldest to newest, one a year"
        )
    return tuple(years)


def read_stack(paths: Sequence[Path], years: Sequence[int | None], white: float) -> Stack:
    """Read the images of a scene, given oldest first, onto the display scale on which `white` is 1.

    Raises GridMismatchError where an earlier image lies on another grid, ForecastError where the
    newest has no valid pixel, and what `read_rgb` raises.
    """
    newest = paths[-1]
    grid = facts(newest, bands=3).grid
    images = []
    masks = []
    for path in reversed(paths):
        if difference := grid.difference(facts(path, bands=3).grid):
            raise GridMismatchError(
                path, difference, f"the grid of {newest}", "warp it onto that grid first"
            )
        rgb, valid = read_rgb(path)
        images.append(filled(rgb / np.float32(white), valid))
        masks.append(valid)
    if not masks[0].any():
        raise ForecastError(f"{newest} has no valid pixel")
    saturated = float((images[0][:, masks[0]] > 1 + 1e-6).any(0).mean())
    factor, offset = rgb_scale(newest)
    stacked = np.minimum(np.stack(images), 1)
    return Stack(stacked, np.stack(masks), tuple(reversed(years)), factor, offset, white, saturated)


def filled(rgb: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(3,H,W) with every invalid pixel replaced by the nearest valid one; as it is where all or
    none are valid.
    """
    from scipy.ndimage import distance_transform_edt

    if valid.all() or not valid.any():
        return rgb
    y, x = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return rgb[:, y, x]

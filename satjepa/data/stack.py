"""The images of one scene as a model sees them: one grid, north up, one display scale, no holes,
newest first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np

from satjepa.data.display import display_white, is_display
from satjepa.data.errors import GridMismatchError
from satjepa.data.georeference import AS_STORED, Georeference, georeference
from satjepa.data.grid import Turn, upright
from satjepa.data.rasters import facts, read_rgb, rgb_scale

# Before a number that looks like a year, these words say that it is the code of a CRS.
_CODE = re.compile(r"(?<![A-Za-z])(?:epsg|esri|srid|wkid|crs)[\s_:.-]*$", re.IGNORECASE)


class ForecastError(Exception):
    """The images given cannot be forecast as asked; the message says which and what to do."""


@dataclass(frozen=True)
class Stack:
    """T images of one scene.

    rgb: (T,3,H,W) float32 in [0, 1], display scale, holes filled from the nearest valid pixel.
    valid: (T,H,W) bool.
    years: (T,), a lone None where it is not known. The way back to the numbers of the newest
    image's file: stored = (display * white - offset) / factor. saturated: share of its pixels
    brighter than white, clipped to it. turn: what was done to the arrays of the files so that north
    is up.
    """

    rgb: np.ndarray
    valid: np.ndarray
    years: tuple[int | None, ...]
    factor: float
    offset: float
    white: float
    saturated: float
    turn: Turn = AS_STORED


def year_of(path: str | Path) -> int | None:
    """The year that a file name tells, or None where it tells none or several.

    In a name as data sets have it (s2_rgb_X_2019_10km.tif) it has its place: 2019. Elsewhere it is
    the one number from 1900 to this year that stands alone (zurich_2023_epsg2056.tif: 2023), else
    the one with letters before it (field2021.tif).
    """
    found = years_in(path)
    return found[0] if len(found) == 1 else None


def layout_of(path: str | Path) -> tuple[str, int] | None:
    """Region and year of a name in the published layout, s2_rgb_<Region>_<YEAR>, and after another
    "_" whatever it likes; None for another name.
    """
    stem = Path(path).stem
    hits = re.finditer(r"(?<=_)(?:19|20)\d\d(?=_|$)", stem)
    places = [hit for hit in hits if not _CODE.search(stem[: hit.start()])]
    if not (stem.startswith("s2_rgb_") and places and places[-1].start() > len("s2_rgb__")):
        return None
    past = [hit for hit in places if int(hit[0]) <= date.today().year]
    hit = (past or places)[-1]
    return stem[len("s2_rgb_") : hit.start() - 1], int(hit[0])


def years_in(path: str | Path) -> list[int]:
    """The numbers of a file name that may be its year, in order; see `year_of`."""
    stem = Path(path).stem
    if layout := layout_of(path):
        return [layout[1]]
    number = r"((?:19|20)\d\d)(?![0-9A-Za-z])"
    for before in (r"(?<![0-9A-Za-z])", r"(?<=[A-Za-z])"):
        hits = re.finditer(before + number, stem)
        years = [int(hit[1]) for hit in hits if not _CODE.search(stem[: hit.start()])]
        years = [year for year in dict.fromkeys(years) if year <= date.today().year]
        if years:
            return years
    return []


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
    for path, year in zip(paths, years, strict=True):
        candidates = years_in(path)
        if year is None and (candidates or len(paths) > 1):
            why = f"{' or '.join(map(str, candidates))}?" if candidates else "no year in the name;"
            each = "" if len(paths) == 1 else " of each image, once for each"
            raise ForecastError(f"{path.name}: {why} give the year{each} (--year)")
    if any(a >= b for a, b in pairwise(years)):
        raise ForecastError(
            f"years {', '.join(map(str, years))}: give the images from oldest to newest, one a year"
        )
    return tuple(years)


def whites_of(
    paths: Sequence[Path], white: float | None = None, trained: float | None = None
) -> list[tuple[float, str]]:
    """For each image the value in [0, 1] that is shown as white, and why (`display_white`).

    `white` is that of the last image. Images of its type share its value; uint8 beside reflectance,
    or reflectance beside uint8, goes by its own type, as in `build_cube`. ForecastError for a
    `white` that is not above 0.
    """
    if white is not None and not 0 < white < np.inf:
        raise ForecastError(f"white {white:g}: a number above 0, as a rule up to 1")
    newest = paths[-1]
    last = display_white(newest, white, trained)
    whites = []
    for path in paths:
        if _type_of(path) == _type_of(newest):
            whites.append(last)
        elif is_display(path) == is_display(newest):
            whites.append(display_white(path, white, trained))
        else:
            whites.append(display_white(path, None, trained))
    return whites


def _type_of(path: Path) -> tuple[str, float, float]:
    seen = facts(path, bands=3)
    return seen.dtype, seen.scale, seen.offset


def read_stack(
    paths: Sequence[Path],
    years: Sequence[int | None],
    whites: Sequence[float],
    place: Georeference | None = None,
) -> Stack:
    """Read the images of a scene, given oldest first, onto the display scale on which each one's
    white is 1, and lay them north up.

    place: what the newest file says of its place, where it is known already.

    Raises GridMismatchError where an earlier image lies on another grid, ForecastError where the
    newest has no valid pixel, and what `georeference` and `read_rgb` raise.
    """
    newest = paths[-1]
    place = place or georeference(newest)
    check_grid(place, newest, paths[:-1])
    turn = place.north_up()
    images = []
    masks = []
    for path, white in zip(reversed(paths), reversed(whites), strict=True):
        rgb, valid = read_rgb(path)
        images.append(upright(filled(rgb / np.float32(white), valid), turn))
        masks.append(upright(valid, turn))
    if not masks[0].any():
        raise ForecastError(f"{newest} has no valid pixel")
    saturated = float((images[0][:, masks[0]] > 1 + 1e-6).any(0).mean())
    stacked = np.minimum(np.stack(images), 1)
    units = (*rgb_scale(newest), whites[-1])
    return Stack(stacked, np.stack(masks), tuple(reversed(years)), *units, saturated, turn)


def check_grid(place: Georeference, newest: Path, others: Sequence[Path]) -> None:
    """Raise GridMismatchError where an image lies on another grid than `newest`, at `place`."""
    for path in others:
        if difference := place.difference(georeference(path)):
            raise GridMismatchError(
                path, difference, f"the grid of {newest}", "warp it onto that grid first"
            )


def filled(rgb: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(3,H,W) with every invalid pixel replaced by the nearest valid one; as it is where all or
    none are valid.
    """
    from scipy.ndimage import distance_transform_edt

    if valid.all() or not valid.any():
        return rgb
    y, x = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return rgb[:, y, x]

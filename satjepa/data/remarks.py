"""What is to be known about images that can be read: bands put in order, values clipped, and years
between which 0.1 was added to everything.

Products of Sentinel-2 hold 1000 more since processing baseline 04.00 (25 January 2022): reflectance
is (number - 1000) / 10000. No single image shows it, as an arid place has no dark pixel; two years
of a place do, for no other change adds the same to its darkest and its middle values in all bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from satjepa.data.rasters import facts, rgb_scale

OFFSET = 0.1  # reflectance: 1000 / 10000
TOLERANCE = 0.04  # what season, haze and change add to it or take away
FLOOR = 0.085  # with the offset, no band has a darker pixel than about this


def remarks(paths: Sequence[str | Path]) -> list[str]:
    """A sentence on each thing to be known about RGB rasters of one place, given oldest first; none
    of them is an error. Raises what `rgb_scale` raises.
    """
    paths = [Path(path) for path in paths]
    lines = [line for path in paths for line in _of_one(path)]
    return lines + [line for pair in pairwise(paths) if (line := _offset_between(*pair))]


def _of_one(path: Path) -> list[str]:
    seen = facts(path, bands=3)
    rgb_scale(path)
    lines = [f"{path.name}: {seen.order}"] if seen.order else []
    for share, side in ((seen.below, "below 0"), (seen.above, "above 1")):
        if share:
            lines.append(f"{path.name}: {share:.1%} of the pixels are {side} and clipped")
    return lines


def _offset_between(before: Path, after: Path) -> str:
    """What to say where one of two years has the offset of 1000 and the other has not; else ""."""
    levels = [_levels(path) for path in (before, after)]
    if any(level is None for level in levels):
        return ""
    step = levels[1] - levels[0]  # (2, 3): of the dark and of the middle values of each band
    brighter, darker = (after, before) if step.mean() > 0 else (before, after)
    floor = max(levels[0][0].min(), levels[1][0].min())
    if (np.abs(np.abs(step) - OFFSET) > TOLERANCE).any() or np.ptp(np.sign(step)) or floor < FLOOR:
        return ""
    return (
        f"{brighter.name}: all values lie {abs(step.mean()):.3f} above those of {darker.name}, the "
        f"darkest at {floor:.3f}, as by the offset of 1000 that Sentinel-2 products have since "
        "processing baseline 04.00 (2022). To fix: export harmonised products "
        "(COPERNICUS/S2_SR_HARMONIZED), or take 1000 (0.1 of reflectance) off the numbers of "
        f"{brighter.name}, and of the years like it"
    )


def _levels(path: Path) -> np.ndarray | None:
    """Dark and middle reflectance of each band, (2, 3); None for 8 bits and for nothing valid."""
    seen = facts(path, bands=3)
    if not seen.dark or seen.dtype == "uint8":
        return None
    factor, offset = rgb_scale(path)
    return np.array([seen.dark, seen.middle]) * factor + offset

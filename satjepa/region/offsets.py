"""What is to be added to the numbers of an image to have reflectance x 10000: 0, or -1000 for what
ESA adds since processing baseline 04.00. Metadata say it, not always rightly; pixels prove it.

Vegetation and water reflect little blue. Their numbers are below 1000 where nothing was added, and
above where 1000 was. Where neither is in the image, a dark pixel of any kind proves that nothing
was added, and no dark one proves nothing: then the metadata are believed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from satjepa.region.assets import ESA_OFFSET

VEGETATION = 4
WATER = 6
CLEAR = (4, 5, 6, 7)  # classes of SCL kept: vegetation, bare, water, unclassified
DARK = 1000  # DN
FEWEST = 50  # pixels of a kind that prove something
NONE_ADDED = 0.5  # share of dark pixels among vegetation and water from which nothing was added
ADDED = 0.05  # and up to which 1000 was
ANY_DARK = 0.1  # share of dark pixels among all clear ones from which nothing was added


@dataclass(frozen=True)
class Offset:
    """DN to add; how it is known, in words; whether pixels contradict the metadata."""

    value: int
    reason: str
    contradicted: bool = False


def prove(stated: int, says: str, blue: np.ndarray, scl: np.ndarray) -> Offset:
    """The offset of an image by its metadata (`stated` DN, `says` where) and by its pixels: blue
    (H, W) as stored, 0 where there is nothing, and their classes scl (H, W).
    """
    seen = blue > 0
    low = blue < DARK
    land = seen & np.isin(scl, (VEGETATION, WATER))
    clear = seen & np.isin(scl, CLEAR)
    share = float(low[land].mean()) if land.sum() >= FEWEST else None
    of_all = float(low[clear].mean()) if clear.sum() >= FEWEST else 0.0
    if share is not None and share >= NONE_ADDED:
        found = 0
        proof = f"{share:.0%} of vegetation and water below DN {DARK}"
    elif share is not None and share <= ADDED:
        found = ESA_OFFSET
        proof = f"{share:.0%} of vegetation and water below DN {DARK}"
    elif of_all >= ANY_DARK:
        found = 0
        proof = f"{of_all:.0%} of the clear pixels below DN {DARK}"
    else:
        return Offset(stated, f"by {says}; too few dark pixels to prove it")
    if found == stated:
        return Offset(found, f"by {says}; {proof}")
    return Offset(found, f"by the pixels ({proof}), against {says} ({stated:+d})", True)

"""The display scale: every image is learnt from, described and forecast with the same value shown as white, 1.

Digital numbers become [0, 1] in `satjepa.data.rasters`, by type; here is what of that is white. Images of 8 bits were
stretched for display by whoever made them; reflectance was not, and land on it is dark: 1 is Sentinel-2's own white.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from satjepa.data.rasters import ScaleError, facts, read_rgb

REFLECTANCE_WHITE = 0.3558  # of Sentinel-2's true-colour images
DARK = 0.4  # 99 % of the values in a reflectance image of land are below this; stretched for display they are not


def display_white(path: str | Path, white: float | None = None) -> tuple[float, str]:
    """The value in [0, 1] that is shown as white, and why it is this one.

    uint8 is display imagery (1.0). Other types are reflectance (0.3558), unless their 99th percentile is above 0.4, as
    only images stretched for display have it (1.0). `white`, if given, overrides.
    """
    if white is not None:
        return white, "as given"
    if facts(path, bands=3).dtype == "uint8":
        return 1.0, "uint8 display imagery"
    rgb, valid = read_rgb(path)
    bright = float(np.percentile(rgb[:, valid], 99)) if valid.any() else 0.0
    kind = "display imagery" if bright > DARK else "reflectance"
    return 1.0 if bright > DARK else REFLECTANCE_WHITE, f"taken as {kind}: 99% of the values are below {bright:.2f}"


def whites(paths: Sequence[Path], white: float | None = None) -> list[float]:
    """`display_white` of each image of a data set.

    A guess from brightness holds for a data set, not for an image: ScaleError where some of those that are not uint8
    look like reflectance and others like display imagery.
    """
    found = [display_white(path, white)[0] for path in paths]
    guessed = {value: path for path, value in zip(paths, found, strict=True) if facts(path, bands=3).dtype != "uint8"}
    if white is None and len(guessed) > 1:
        what = f"bright as display imagery, unlike {guessed[REFLECTANCE_WHITE].name}"
        fix = f"set data.white in params.yaml: {REFLECTANCE_WHITE} if all are reflectance, 1.0 if all are stretched"
        raise ScaleError(guessed[1.0], what, "images of one scale", fix)
    return found

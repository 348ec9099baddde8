"""The display scale: every image is learnt from, described and forecast with the same value shown
as white, 1.

Digital numbers become [0, 1] in `satjepa.data.rasters`, by type; here is what of that is white.
Images of 8 bits were stretched for display by whoever made them; reflectance was not, and land on
it is dark: 1 is Sentinel-2's own white. A data set says its white (`data.white` in params.yaml);
only for a single image, where nothing says it, it is guessed.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from satjepa.data.holes import read_valid
from satjepa.data.rasters import facts, open_raster, read_rgb, rgb_scale

REFLECTANCE_WHITE = 0.3558  # of Sentinel-2's true-colour images
# 99 % of the values in a reflectance image of land are below this; stretched for display they are
# not
DARK = 0.4
WHOLE = 4_000_000  # pixels of an image that is read at once


def display_white(
    path: str | Path, white: float | None = None, trained: float | None = None
) -> tuple[float, str]:
    """The value in [0, 1] that is shown as white, and why it is this one.

    `white`, if given, overrides. uint8 is display imagery (1.0). Other types are as those that the
    model was `trained` on; where that is not known, reflectance (0.3558), unless their 99th
    percentile is above 0.4, as only images stretched for display have it (1.0); of a large image
    every n-th row counts.
    """
    if white is not None:
        return white, "as given"
    if is_display(path):
        return 1.0, "uint8 display imagery"
    if trained is not None:
        return trained, "as in training"
    values = _values(Path(path))
    bright = float(np.percentile(values, 99)) if values.size else 0.0
    kind = "display imagery" if bright > DARK else "reflectance"
    return (
        1.0 if bright > DARK else REFLECTANCE_WHITE,
        f"taken as {kind}: 99% of the values are below {bright:.2f}",
    )


def _values(path: Path) -> np.ndarray:
    """The valid values of an image, (3,N); of one of more than `WHOLE` pixels those of every n-th
    row, read by themselves, so that a scene of any size can be looked at.
    """
    grid = facts(path, bands=3).grid
    step = math.ceil(grid.height * grid.width / WHOLE)
    if step == 1:
        rgb, valid = read_rgb(path)
        return rgb[:, valid]
    factor, offset = rgb_scale(path)
    parts = []
    with open_raster(path, bands=3) as src:
        for row in range(0, grid.height, step):
            data, valid = read_valid(src, (0, row, grid.width, 1))
            parts.append(data[:, valid])
    return np.clip(np.concatenate(parts, 1) * factor + offset, 0, 1)


def is_display(path: str | Path) -> bool:
    """Is the image uint8, on the display scale as it is? One whose tags give its numbers another
    scale than 1/255 is not.
    """
    seen = facts(path, bands=3)
    as_it_is = (seen.scale, seen.offset) == (1.0, 0.0)
    return seen.dtype == "uint8" and (as_it_is or _is_255th(seen.scale, seen.offset))


def _is_255th(scale: float, offset: float) -> bool:
    """Do tags say of numbers of 8 bits what is meant without them?"""
    return offset == 0 and abs(255 * scale - 1) < 0.03  # 0.004 is written for it, too

"""The right land in the right place? Forecasts compared with the truth by their cover maps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from torch import Tensor

from satjepa.captions.cover import COVERS, cover_map


def land_and_place(images: Mapping[str, Tensor], truth: Tensor) -> pd.DataFrame:
    """Which land, and where: one row an entry of `images`, (B,3,H,W) in [0, 1] as `truth`.

    land: overlap of the shares of the covers of a patch, sum over covers of min(share, true share);
    1 where there is as much of everything as in the truth, wherever it lies. place: share of the
    pixels that have the true cover. Means over the patches; covers by rule
    (`satjepa.captions.cover.cover_map`).
    """
    wanted = [_cover(image) for image in truth]
    rows = {}
    for name, made in images.items():
        drawn = [_cover(image) for image in made]
        pairs = [*zip(drawn, wanted, strict=True)]
        rows[name] = {
            "land": np.mean([np.minimum(_shares(a), _shares(b)).sum() for a, b in pairs]),
            "place": np.mean([(a == b).mean() for a, b in pairs]),
        }
    return pd.DataFrame(rows).T


def _cover(image: Tensor) -> np.ndarray:
    pixels = image.numpy()
    return cover_map(pixels, np.ones(pixels.shape[1:], bool))


def _shares(cover: np.ndarray) -> np.ndarray:
    return np.bincount(cover.ravel(), minlength=len(COVERS)) / cover.size

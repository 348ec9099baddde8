"""The second half of notebook 12: the forecast of a place as a Dataset, set against the truth, and
as a folder of files. The first half is `satjepa.pipeline.own_region`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import torch

from satjepa.captions.rules import caption
from satjepa.forecast.folder import target_of
from satjepa.forecast.labelled import crs_of, transform_of
from satjepa.forecast.load import no_log
from satjepa.forecast.page_folder import page_of
from satjepa.forecast.raster import forecasting
from satjepa.forecast.write import BANDS
from satjepa.metrics.pixels import changed, crps, mse, psnr_of
from satjepa.pipeline.own_region import FULL, SIDE, centre_of

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from torch import Tensor

    from satjepa.forecast.load import Model

KINDS = {
    "index.html": "the page",
    "forecast.tif": "mean and spread, Cloud-Optimized GeoTIFF",
    "forecast.json": "STAC item: place, model, settings, inputs by hash",
    "forecast.png": "picture of the middle",
    "member.tif": "one possible image, Cloud-Optimized GeoTIFF",
}


def places(datasets: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Where datasets lie, a column each: CRS, corner and size of a pixel in metres, first and last
    coordinates, years.
    """
    import pandas as pd

    columns = {}
    for name, data in datasets.items():
        first = next(iter(data.data_vars.values()))
        transform = transform_of(data, first)
        crs = crs_of(data)
        columns[name] = {
            "CRS": f"EPSG:{crs.to_epsg()}, {crs.wkt.split(chr(34))[1]}",
            "upper left corner, m": f"{transform.c:.0f}, {transform.f:.0f}",
            "pixel, m": f"{transform.a:g} x {-transform.e:g}",
            "x": _ends(data["x"].values),
            "y": _ends(data["y"].values),
            "year": ", ".join(str(year) for year in np.atleast_1d(data["year"].values)),
            "units": first.attrs.get("units", ""),
        }
    return pd.DataFrame(columns)


def _ends(values: np.ndarray) -> str:
    return f"{values[0]:.0f} to {values[-1]:.0f}, {len(values)} centres"


def white_of(forecast: xr.Dataset) -> float:
    """The DN that is shown as white, by the attributes of a forecast."""
    return FULL * float(forecast.attrs["white"])


def shown(values: np.ndarray, white: float) -> Tensor:
    """DN as values of which 1 is white, in [0, 1]; holes are 0."""
    return torch.from_numpy(np.nan_to_num(values / white).clip(0, 1).astype(np.float32))


def scores(forecast: xr.Dataset, last: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    """Of the mean of a forecast, its members one by one, and `last` repeated, (3, h, w) DN: PSNR
    in dB everywhere, where the land changed and where it did not, mean error and CRPS in DN, over
    pixels that all have. The CRPS of one image is its mean error.
    """
    import pandas as pd

    white = white_of(forecast)
    known = torch.from_numpy(np.isfinite(forecast["mean"].values + last + truth).all(0))[None]
    goal = shown(truth, white)[None]
    members = shown(forecast["members"].values, white)  # (S, 3, h, w)
    mean = shown(forecast["mean"].values, white)[None]
    repeated = shown(last, white)[None]
    moved = changed(repeated, goal, known[None])[0]
    masks = {
        "PSNR, dB": known,
        f"where it changed ({moved.sum() / known.sum():.0%})": moved,
        "elsewhere": known & ~moved,
    }
    systems = {
        f"mean of {len(members)}": (mean, members[:, None]),
        "one member": (members, None),
        "persistence": (repeated, None),
    }
    rows = {}
    for name, (images, ensemble) in systems.items():
        rows[name] = {
            title: psnr_of(_mse(images, goal, mask)).item() for title, mask in masks.items()
        }
        miss = (images - goal).abs().mean(1)[:, known[0]].mean().item()
        rows[name]["mean error, DN"] = white * miss
        score = miss if ensemble is None else crps(ensemble, goal, known[None]).item()
        rows[name]["CRPS, DN"] = white * score
    return pd.DataFrame(rows).T.round(1)


def _mse(images: Tensor, goal: Tensor, mask: Tensor) -> Tensor:
    """Mean over images (S, 3, h, w) of their squared error where the mask (1, h, w) is."""
    return mse(images, goal.expand_as(images), mask.expand(len(images), *mask.shape)).mean()


# ---- a scene, to files ----


def forecast_scene(
    model: Model, images: Sequence[Path], folder: Path, samples: int, seed: int,
    log: Callable[[str], None] = no_log,
) -> tuple[list[Path], Path]:  # fmt: skip
    """What `satjepa forecast IMAGES --out FOLDER --members` does: Cloud-Optimized GeoTIFFs, a STAC
    item, a picture and the page. Returns the files and the page.

    Raises ForecastError and SceneError.
    """
    target = target_of(images, folder, is_folder=True, members=True)
    settings = model.settings(samples, seed)
    settings = replace(settings, kept=target.kept(settings.samples))
    with forecasting(target.request, model.joint, settings, target.anchor, log) as made:
        files = target.write(made)
        return files, page_of(folder, made.scene.images, files=files)


def listing(files: Sequence[Path]) -> pd.DataFrame:
    """Files in words, with their size in kB."""
    import pandas as pd

    rows = {}
    for path in files:
        kind = KINDS.get(path.name) or KINDS[f"{path.name.split('_')[0]}{path.suffix}"]
        rows[path.name] = {"what it is": kind, "kB": round(path.stat().st_size / 1000)}
    return pd.DataFrame(rows).T


def mean_of(path: Path, side: int = SIDE) -> np.ndarray:
    """The mean of a forecast's GeoTIFF in the middle of the scene, (3, h, w) float32 DN, NaN in
    holes.
    """
    data, valid = centre_of(path, len(BANDS), side)
    return np.where(valid, data[:3], np.nan).astype(np.float32)


def in_words(images: Mapping[str, np.ndarray], white: float) -> dict[str, dict[str, str]]:
    """The captions, by rule, of images (3, h, w) DN: kind -> sentence."""
    said = {}
    for name, image in images.items():
        valid = np.isfinite(image).all(0)
        said[name] = caption(shown(image, white).numpy(), valid, "display")._asdict()
    return said


def link(page: Path, home: Path) -> str:
    """The page as a link of Markdown from a notebook in notebooks/ of the checkout, with its size
    in kB.
    """
    shown = page.relative_to(home) if page.is_relative_to(home) else page
    target = os.path.relpath(page, home / "notebooks")
    return f"[{shown}]({quote(target)}), {page.stat().st_size / 1000:.0f} kB"

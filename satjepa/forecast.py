"""Rasters in, rasters out: `forecast_raster` tiles a scene, forecasts each tile and blends them
into one GeoTIFF.

What comes out lies on the grid of what went in (CRS, transform, shape, nodata), in the units of
what went in: six float32 bands, mean and spread (standard deviation over the samples) of red, green
and blue in the year after the last.

Neighbouring tiles overlap; their weights fall off towards the edges and sum to 1 at every pixel.
Moments are blended,
not samples: the ensemble at a pixel is the mixture of those of the tiles over it, so the spread
does not dip at seams.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from satjepa.captions.embeddings import Embed
from satjepa.captions.rules import caption
from satjepa.contracts import Forecaster
from satjepa.data.display import display_white
from satjepa.data.rasters import rgb_scale
from satjepa.data.stack import ForecastError, Stack, read_stack, years_of

BANDS = ("mean red", "mean green", "mean blue", "spread red", "spread green", "spread blue")
Box = tuple[int, int, np.ndarray]  # first row, first column, weights (patch, patch)


def axis_tiles(length: int, patch: int, overlap: int) -> tuple[list[int], np.ndarray]:
    """First pixels of the tiles along an axis of `length` >= `patch` pixels, and their weights
    (tiles, patch).

    The tiles are spread evenly and overlap by at least `overlap` pixels, over which their weights
    rise as half a cosine; over every pixel the weights sum to 1.
    """
    count = math.ceil((length - patch) / (patch - overlap)) + 1
    starts = np.linspace(0, length - patch, count).round().astype(int).tolist()
    inward = (
        np.minimum(np.arange(patch), np.arange(patch)[::-1]) + 0.5
    )  # pixels from the nearer edge of the tile
    ramp = np.sin(np.pi / 2 * np.minimum(inward / max(overlap, 1), 1)) ** 2
    total = np.zeros(length)
    for start in starts:
        total[start : start + patch] += ramp
    return starts, np.stack([ramp / total[start : start + patch] for start in starts])


def tiles(height: int, width: int, patch: int, overlap: int) -> list[Box]:
    """(y, x, weight (patch, patch)) of every tile of a raster; the weights sum to 1 at each of its
    pixels.
    """
    (ys, wy), (xs, wx) = axis_tiles(height, patch, overlap), axis_tiles(width, patch, overlap)
    return [(y, x, np.outer(wy[i], wx[j])) for i, y in enumerate(ys) for j, x in enumerate(xs)]


def tile_batch(
    stack: Stack, corners: Sequence[tuple[int, int]], patch: int, history: int, embed: Embed | None
) -> dict[str, Any]:
    """Batch of B tiles as the contract has it, without anything of year t+1; captions are written
    from the pixels.

    The noise of a tile depends on its corner, the year and the seed: not on the file's name nor on
    other tiles.
    """
    cut = [(..., slice(y, y + patch), slice(x, x + patch)) for y, x in corners]
    rgb = np.stack([stack.rgb[box] for box in cut])  # (B,T,3,H,W)
    valid = np.stack([stack.valid[box] for box in cut])  # (B,T,H,W)
    past = np.zeros((len(cut), history, *rgb.shape[2:]), np.float32)
    known = np.zeros((len(cut), history), bool)
    for lag in range(1, _years_back(stack, history) + 1):
        past[:, lag - 1], known[:, lag - 1] = (
            rgb[:, lag],
            valid[:, lag].mean((1, 2)) >= 0.5,
        )  # as PairDataset has it
    place = {"preset": "raster", "region": "", "year": stack.years[0] or 0, "aug": 0}
    batch = {
        "rgb_t": torch.from_numpy(rgb[:, 0].copy()),
        "valid_t": torch.from_numpy(valid[:, :1].copy()),
        "history": torch.from_numpy(past),
        "history_valid": torch.from_numpy(known),
        "meta": [place | {"x": x, "y": y} for y, x in corners],
    }
    if embed is not None:
        pairs = zip(rgb[:, 0], valid[:, 0], strict=True)
        batch["text_t"] = embed([caption(image, mask, encoding="display") for image, mask in pairs])
    return batch


def _years_back(stack: Stack, history: int) -> int:
    """How many of up to `history` years before the newest are there, back to the first gap, as in
    training.
    """
    runs = takewhile(
        lambda lag: stack.years[lag] == stack.years[0] - lag, range(1, len(stack.years))
    )
    return min(history, len(list(runs)))


def blended(
    stack: Stack,
    forecaster: Forecaster,
    boxes: Sequence[Box],
    *,
    history: int = 0,
    embed: Embed | None = None,
    samples: int = 8,
    seed: int = 0,
    batch: int = 16,
) -> tuple[np.ndarray, np.ndarray]:
    """Forecast the tiles `boxes` of a stack: mean and spread (3,H,W) float64 at the display scale.

    Neither the order of the tiles nor `batch`, the number of tiles computed at once, matters to the
    result.
    """
    from tqdm import tqdm

    patch = len(boxes[0][2])
    first, second = np.zeros((2, *stack.rgb.shape[1:]))  # E[x] and E[x^2], (3,H,W)
    for i in tqdm(range(0, len(boxes), batch), "forecast", unit="batch", leave=False, disable=None):
        part = boxes[i : i + batch]
        conditions = tile_batch(stack, [(y, x) for y, x, _ in part], patch, history, embed)
        drawn = forecaster.forecast(conditions, samples, seed).double().numpy()  # (S,B,3,H,W)
        means = drawn.mean(0)
        variances = drawn.var(0, ddof=min(1, samples - 1))
        for (y, x, weight), mean, variance in zip(part, means, variances, strict=True):
            first[:, y : y + patch, x : x + patch] += weight * mean
            second[:, y : y + patch, x : x + patch] += weight * (variance + mean**2)
    return first, np.sqrt(np.maximum(second - first**2, 0))


def forecast_raster(
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    forecaster: Forecaster,
    *,
    patch: int,
    history: int = 0,
    embed: Embed | None = None,
    samples: int = 8,
    seed: int = 0,
    years: Sequence[int] | None = None,
    white: float | None = None,
    trained_white: float | None = None,
    overlap: int | None = None,
    batch: int = 16,
    tags: dict[str, str] | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Forecast the image of the year after the last of `paths`; write it as a GeoTIFF with mean and
    spread.

    Args:
        paths: RGB GeoTIFFs of one grid, one a year, oldest first: year t is the last; up to
            `history` before it count.
        patch: side of the model's patch in pixels; tiles overlap by `overlap`, by default a quarter
            of it.
        embed: turns captions into embeddings (`caption_embedder`); None for a forecaster that reads
            none.
        years: of the last image or of each; default: from the file names (`years_of`).
        white, trained_white: value in [0, 1] shown as white, and that of the training; default:
            `display_white`.
        tags: what to note in the file about the model, beside seed, samples, year, white and
            inputs.
        log: is told what was done, a line at a time.

    Pixels invalid in year t are nodata in the forecast: the input's nodata value, or NaN where it
    declares none. Raises ForecastError and SceneError (what cannot be read without doubt); leaves
    no half-written file.
    """
    started = time.perf_counter()
    overlap = patch // 4 if overlap is None else overlap
    paths = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    if not 0 <= overlap < patch:
        raise ForecastError(
            f"overlap {overlap}: at least 0 and less than the patch of {patch} pixels"
        )
    known = check_files(paths, Path(out), years)
    white, why = display_white(paths[-1], white, trained_white)
    stack = read_stack(paths, known, white)
    log(_seen(stack, paths[-1].name, history))
    log(f"white {white:g}, {why}; {stack.saturated:.1%} of the pixels are brighter and clipped")
    stack = padded(stack, patch)
    boxes = tiles(*stack.valid.shape[1:], patch, overlap)
    boxes = [(y, x, w) for y, x, w in boxes if stack.valid[0, y : y + patch, x : x + patch].any()]
    log(
        f"{len(boxes)} tiles of {patch}x{patch} px, overlap at least {overlap}; {samples} samples, "
        f"seed {seed}"
    )
    how = {"history": history, "embed": embed, "samples": samples, "seed": seed, "batch": batch}
    mean, spread = blended(stack, forecaster, boxes, **how)
    year = "unknown" if known[-1] is None else str(known[-1] + 1)
    notes = {"YEAR": year, "SEED": str(seed), "SAMPLES": str(samples), "WHITE": f"{white:g}"}
    notes |= {"INPUTS": ", ".join(path.name for path in paths), **(tags or {})}
    write_forecast(out, paths[-1], stack, mean, spread, notes)
    log(
        f"wrote {out}: forecast of year {year}, mean and spread, in "
        f"{time.perf_counter() - started:.1f} s"
    )
    return Path(out)


def _seen(stack: Stack, name: str, history: int) -> str:
    """What there is to forecast from, in words."""
    (height, width), share, back = (
        stack.valid.shape[1:],
        stack.valid[0].mean(),
        _years_back(stack, history),
    )
    used = list(stack.years[1 : 1 + back])
    rest = list(stack.years[1 + back :])
    why_not = f"; {rest} not used: at most {history} years count, without a gap" if rest else ""
    return (
        f"year {stack.years[0]}: {name}, {width}x{height} px, {share:.1%} valid; history "
        f"{used}{why_not}"
    )


def check_files(
    images: Sequence[Path], out: Path, years: Sequence[int] | None = None
) -> tuple[int | None, ...]:
    """The years of the images (`years_of`), which can be read, as far as each alone tells.

    Raises what `rgb_scale` and `years_of` raise, and ForecastError where `out` cannot be written,
    or only in the place of an image.
    """
    for image in images:
        rgb_scale(image)
    if out.resolve() in [image.resolve() for image in images]:
        raise ForecastError(
            f"{out} is one of the images and would be written over: name another file"
        )
    if out.is_dir():
        raise ForecastError(f"{out} is a folder: name the GeoTIFF to write")
    there = next(parent for parent in out.absolute().parents if parent.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise ForecastError(f"{out}: nothing can be written to {there}: name another file")
    return years_of(images, years)


def write_forecast(
    out: str | Path,
    like: Path,
    stack: Stack,
    mean: np.ndarray,
    spread: np.ndarray,
    notes: dict[str, str],
) -> None:
    """Write mean and spread (3,H,W) at the display scale of a stack as a GeoTIFF on the grid of the
    raster `like`, in its units; what `padded` added is cut off. The file appears only when it is
    complete.
    """
    import rasterio

    with rasterio.open(like) as src:
        height, width = src.shape
    stored = np.concatenate(
        [(mean * stack.white - stack.offset) / stack.factor, spread * stack.white / stack.factor]
    )
    _write(Path(out), like, stored[:, :height, :width], stack.valid[0, :height, :width], notes)


def padded(stack: Stack, patch: int) -> Stack:
    """A scene smaller than a tile goes on as its mirror image to the right and below."""
    pad = [(0, 0), *((0, max(0, patch - size)) for size in stack.valid.shape[1:])]
    mirror = np.pad(stack.rgb, [(0, 0), *pad], mode="reflect")
    return replace(stack, rgb=mirror, valid=np.pad(stack.valid, pad, mode="reflect"))


def _write(
    out: Path, like: Path, bands: np.ndarray, valid: np.ndarray, tags: dict[str, str]
) -> None:
    """Write (6,H,W) on the grid of the raster `like`; the file appears only when it is complete."""
    import rasterio

    with rasterio.open(like) as src:
        nodata = src.nodata
        grid = {key: src.profile[key] for key in ("crs", "transform", "width", "height")}
        area = {key: value for key, value in src.tags().items() if key == "AREA_OR_POINT"}
    nodata = math.nan if nodata is None and not valid.all() else nodata
    data = bands.astype(np.float32)
    if nodata is not None:
        data[:, valid] = _apart(data[:, valid], nodata)
        data[:, ~valid] = nodata
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.part")
    profile = {
        "driver": "GTiff",
        "dtype": "float32",
        "count": len(BANDS),
        "nodata": nodata,
        "compress": "deflate",
    }
    try:
        with rasterio.open(partial, "w", **profile, **grid, predictor=3, bigtiff="if_safer") as dst:
            dst.write(data)
            dst.descriptions = BANDS
            dst.update_tags(**area, **tags)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def _apart(values: np.ndarray, nodata: float) -> np.ndarray:
    """Valid values that happen to be the nodata number, moved off it by as little as survives (a
    spread of 0, say).
    """
    step = np.float32(max(float(np.spacing(np.float32(abs(nodata)))), 1e-6))
    return np.where(values == np.float32(nodata), values + (step if nodata <= 0 else -step), values)

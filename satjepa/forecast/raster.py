"""`forecast_raster`: from the images of a place to the GeoTIFF of the year after the last."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from satjepa.captions.embeddings import Embed
from satjepa.contracts import Forecaster
from satjepa.data.georeference import AS_STORED
from satjepa.data.remarks import remarks
from satjepa.data.stack import ForecastError, Stack, read_stack, whites_of
from satjepa.forecast.led import Told
from satjepa.forecast.request import Request, check_files
from satjepa.forecast.tiles import Keep, blended, cover, years_back
from satjepa.forecast.write import nodata_of, write_forecast


@dataclass(frozen=True)
class Made:
    """A forecast that is not written yet.

    mean, spread: (3,H,W) float64 at the display scale, north up as `stack`, with what `padded`
    added. notes: tags of the file. sentences: what led each member, by the upper left corner (x, y)
    of a tile, where captions were written.
    """

    request: Request
    stack: Stack
    mean: np.ndarray
    spread: np.ndarray
    notes: dict[str, str]
    sentences: Told = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the scene, north up, without what `padded` added."""
        return self.request.shape

    def write(self, out: str | Path) -> Path:
        """Write the GeoTIFF, as `write_forecast` does."""
        write_forecast(out, self.request.place, self.stack, self.mean, self.spread, self.notes)
        return Path(out)


def forecast_raster(
    paths: str | Path | Sequence[str | Path] | Request,
    out: str | Path,
    forecaster: Forecaster,
    *,
    years: Sequence[int] | None = None,
    log: Callable[[str], None] = print,
    **settings: Any,
) -> Path:
    """Forecast the image of the year after the last of `paths`; write it as a GeoTIFF with mean and
    spread.

    Args:
        paths: RGB GeoTIFFs of one grid, one a year, oldest first: year t is the last; up to
            `history` before it count. Or what `check_files` made of them, `out` and `years`, which
            are then not looked at again.
        years: of the last image or of each; default: from the file names (`years_of`).
        log: is told what was done, a line at a time.
        settings: of `forecast_images`.

    Pixels invalid in year t are nodata in the forecast: the input's nodata value, or NaN where it
    declares none. Raises ForecastError and SceneError (what cannot be read without doubt); leaves
    no half-written file.
    """
    started = time.perf_counter()
    if not isinstance(paths, Request):
        images = [paths] if isinstance(paths, str | Path) else paths
        paths = check_files(images, out, years)
    made = forecast_images(paths, forecaster, log=log, **settings)
    made.write(out)
    seconds = time.perf_counter() - started
    year = made.notes["YEAR"]
    log(f"wrote {out}: forecast of year {year}, mean and spread, in {seconds:.1f} s")
    return Path(out)


def forecast_images(
    request: Request,
    forecaster: Forecaster,
    *,
    patch: int,
    history: int = 0,
    embed: Embed | None = None,
    samples: int = 8,
    seed: int = 0,
    white: float | None = None,
    trained_white: float | None = None,
    overlap: int | None = None,
    batch: int = 16,
    tags: dict[str, str] | None = None,
    log: Callable[[str], None] = print,
    keep: Keep | None = None,
    given: dict[str, str] | None = None,
) -> Made:
    """Forecast the image of the year after the last of those requested.

    Args:
        patch: side of the model's patch in pixels; tiles overlap by `overlap`, by default a quarter
            of it.
        embed: turns captions into embeddings (`caption_embedder`); None for a forecaster that reads
            none.
        white, trained_white: value in [0, 1] shown as white, and that of the training; default:
            `display_white`. Images of another type than the last go by their own (`whites_of`).
        tags: what to note in the file about the model, beside seed, samples, year, white and
            inputs.
        keep: is given the members of each tile (`blended`).
        given: captions of the forecast's year by kind, which lead every tile.
    """
    overlap = patch // 4 if overlap is None else overlap
    if not 0 <= overlap < patch:
        raise ForecastError(
            f"overlap {overlap}: at least 0 and less than the patch of {patch} pixels"
        )
    stack = _read(request, white, trained_white, history, log)
    stack, boxes = cover(stack, patch, overlap)
    log(
        f"{len(boxes)} tiles of {patch}x{patch} px, overlap at least {overlap}; {samples} samples, "
        f"seed {seed}"
    )
    draw = {"history": history, "embed": embed, "samples": samples, "seed": seed, "batch": batch}
    mean, spread = blended(stack, forecaster, boxes, **draw, keep=keep, given=given)
    notes = {"SEED": str(seed), "SAMPLES": str(samples)} | _notes(request, stack) | (tags or {})
    notes |= {f"GIVEN_{kind.upper()}": text for kind, text in (given or {}).items()}
    return Made(request, stack, mean, spread, notes)


def _notes(request: Request, stack: Stack) -> dict[str, str]:
    """What the file says of its inputs."""
    last = request.years[-1]
    return {
        "YEAR": "unknown" if last is None else str(last + 1),
        "WHITE": f"{stack.white:g}",
        "INPUTS": ", ".join(path.name for path in request.images),
    }


def _read(
    request: Request,
    white: float | None,
    trained: float | None,
    history: int,
    log: Callable[[str], None],
) -> Stack:
    """The stack of a request, and a word to `log` about what there is to forecast from."""
    images = request.images
    whites = whites_of(images, white, trained)
    values = [value for value, _ in whites]
    stack = read_stack(images, request.years, values, request.place)
    for line in remarks(images):
        log(line)
    log(_summary(stack, images[-1].name, history))
    value, why = whites[-1]
    log(f"white {value:g}, {why}; {stack.saturated:.1%} of the pixels are brighter and clipped")
    for path, own in zip(images, whites, strict=True):
        if own != whites[-1]:
            log(f"{path.name}: white {own[0]:g}, {own[1]}")
    nodata = request.place.nodata
    if nodata is not None and math.isnan(nodata_of(request.place)) and not math.isnan(nodata):
        log(f"nodata {nodata:g} does not fit the float32 of a forecast: NaN there")
    return stack


def _summary(stack: Stack, name: str, history: int) -> str:
    """What there is to forecast from, in words."""
    height, width = stack.valid.shape[1:]
    share = stack.valid[0].mean()
    back = years_back(stack, history)
    used = list(stack.years[1 : 1 + back])
    rest = list(stack.years[1 + back :])
    why_not = f"; {rest} not used: at most {history} years count, without a gap" if rest else ""
    turned = "; turned north up" if stack.turn != AS_STORED else ""
    return (
        f"year {stack.years[0]}: {name}, {width}x{height} px, {share:.1%} valid{turned}; history "
        f"{used}{why_not}"
    )

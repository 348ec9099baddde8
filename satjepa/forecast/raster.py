"""`forecast_raster`: from the images of a place to the GeoTIFF of the year after the last."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from satjepa.captions.embeddings import Embed
from satjepa.contracts import Forecaster
from satjepa.data.georeference import AS_STORED
from satjepa.data.remarks import remarks
from satjepa.data.share import Share
from satjepa.data.stack import ForecastError, whites_of
from satjepa.forecast.blend import NOTHING, Kept
from satjepa.forecast.made import Made
from satjepa.forecast.pieces import InFolder, InMemory
from satjepa.forecast.request import Request, check_files
from satjepa.forecast.scene import Scene
from satjepa.forecast.stream import Plan, Stream, drawing, runs_of
from satjepa.forecast.tiles import years_back
from satjepa.forecast.units import Units, nodata_of
from satjepa.forecast.write import bounded_cache

FORMAT = 2  # of the rows that are kept: those of another one are made anew


@dataclass(frozen=True)
class Settings:
    """How a scene is forecast.

    patch: side of the model's patch in pixels; tiles overlap by `overlap`, by default a quarter of
    it, and `batch` of them are computed at once. history: earlier years that count. samples, seed:
    of the ensemble. years: how many, each forecast from the one before. white, trained_white: value
    in [0, 1] shown as white, and that of the training; default: `display_white`. Images of another
    type than the last go by their own (`whites_of`). embed: turns captions into embeddings
    (`caption_embedder`); None for a forecaster that reads none. given: captions of the forecast's
    year by kind, which lead every tile. tags: what to note in the file about the model, beside
    seed, samples, year, white and inputs. kept: members that are kept.
    """

    patch: int
    history: int = 0
    samples: int = 8
    seed: int = 0
    years: int = 1
    white: float | None = None
    trained_white: float | None = None
    overlap: int | None = None
    batch: int = 16
    embed: Embed | None = None
    given: dict[str, str] | None = None
    tags: dict[str, str] | None = None
    kept: Kept = NOTHING


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
        settings: of `Settings`.

    Pixels invalid in year t are nodata in the forecast: the input's nodata value, or NaN where it
    declares none. Memory does not grow with the height of the scene. Raises ForecastError and
    SceneError (what cannot be read without doubt); leaves no half-written file.
    """
    started = time.perf_counter()
    if not isinstance(paths, Request):
        images = [paths] if isinstance(paths, str | Path) else paths
        paths = check_files(images, out, years)
    with forecasting(paths, forecaster, Settings(**settings), Path(out), log) as made:
        made.write(out)
    seconds = time.perf_counter() - started
    log(f"wrote {out}: forecast of year {made.year()}, mean and spread, in {seconds:.1f} s")
    return Path(out)


def forecast_images(
    request: Request, forecaster: Forecaster, settings: Settings,
    log: Callable[[str], None] = print,
) -> Made:  # fmt: skip
    """Forecast the years after the last of the images requested, in memory."""
    made, stream = _prepared(request, forecaster, settings, log, InMemory())
    for rows in stream.rows(0, len(made.plan.bands)):
        made.keep(rows)
    return made


@contextmanager
def forecasting(
    request: Request, forecaster: Forecaster, settings: Settings, out: Path,
    log: Callable[[str], None] = print, share: Share | None = None,
) -> Iterator[Made]:  # fmt: skip
    """Forecast the years after the last of the images requested, with the rows on the disk in a
    hidden folder beside `out` while it is written.

    Rows that a run with the same model, settings and images has left there, because it was killed,
    are taken as they are; what a run with others has left is removed. share: of this process; of
    several, each makes a part of the rows, bit for bit as one does, and the block is entered when
    all are there; the first process is to write. The folder goes when the block is left; after an
    error it stays, if it holds more than one band of rows.
    """
    share = share or Share()
    with bounded_cache():
        made, stream = _prepared(request, forecaster, settings, log, InMemory())
    pieces = InFolder.of(out, _identity(made))
    made = replace(made, pieces=pieces)
    try:
        if share.rank == 0:
            pieces.open(fresh="MODEL" not in made.notes)  # no one knows whether it is the same one
        share.wait()
        with bounded_cache():
            _fill(made, stream, pieces, share, log)
        share.wait()
        yield made
    except Exception:
        if len(made.plan.bands) == 1 and share.rank == 0:
            made.remove()
        raise
    if share.rank == 0:  # the only one that reads the rows
        made.remove()


def _fill(
    made: Made, stream: Stream, pieces: InFolder, share: Share, log: Callable[[str], None]
) -> None:
    """Make the share of this process of the rows that are not there."""
    from tqdm import tqdm

    count = len(made.plan.bands)
    todo = [band for band in range(count) if not pieces.has(band)]
    if len(todo) < count:
        log(f"going on: {count - len(todo)} of {count} bands of rows are there")
    share.wait()  # else another one's new rows would be counted as old
    mine = np.array_split(todo, share.world)[share.rank].tolist()
    total = sum(map(made.plan.count_of, mine))
    hidden = None if share.rank == 0 else True
    with tqdm(total=total, desc="forecast", unit="tile", leave=False, disable=hidden) as bar:
        for first, last in runs_of(mine):
            for rows in stream.rows(first, last):
                made.keep(rows)
                bar.update(made.plan.count_of(rows.band))


def _prepared(
    request: Request, forecaster: Forecaster, settings: Settings, log: Callable[[str], None],
    pieces: InMemory,
) -> tuple[Made, Stream]:  # fmt: skip
    """A forecast without rows yet, and what makes them."""
    patch = settings.patch
    overlap = patch // 4 if settings.overlap is None else settings.overlap
    if not 0 <= overlap < patch:
        raise ForecastError(
            f"overlap {overlap}: at least 0 and less than the patch of {patch} pixels"
        )
    scene = _opened(request, settings, log)
    plan = Plan(scene.shape, patch, overlap, settings.batch)
    log(
        f"{plan.count} tiles of {patch}x{patch} px, overlap at least {overlap}; "
        f"{settings.samples} samples, seed {settings.seed}"
    )
    draw = drawing(forecaster, settings.years, settings.embed)
    stream = Stream(
        scene, plan, draw, settings.samples, settings.seed, settings.years, settings.history,
        settings.embed, settings.given, settings.kept,
    )  # fmt: skip
    valid, _ = scene.shares
    numbers = (*scene.units, scene.whites[-1])
    units = Units.of(request.place, scene.turn, numbers, valid == 1)
    notes = _notes(request, scene, settings)
    made = Made(request, scene, plan, units, pieces, notes, settings.kept, settings.years)
    return made, stream


def _notes(request: Request, scene: Scene, settings: Settings) -> dict[str, str]:
    """What the file says of its making and its inputs."""
    notes = {
        "SEED": str(settings.seed),
        "SAMPLES": str(settings.samples),
        "WHITE": f"{scene.whites[-1]:g}",
        "INPUTS": ", ".join(path.name for path in scene.images),
    }
    given = {f"GIVEN_{kind.upper()}": text for kind, text in (settings.given or {}).items()}
    return notes | (settings.tags or {}) | given


def _identity(made: Made) -> dict[str, Any]:
    """All that the rows of a forecast depend on."""
    scene = made.scene
    return {
        "format": FORMAT,
        "notes": made.notes,
        "images": scene.hashes,
        "years": [str(year) for year in scene.years],
        "whites": scene.whites,
        "tiles": [made.plan.patch, made.plan.overlap, made.plan.batch],
        "forecast years": made.years,
        "members": list(made.kept),
        "shape": scene.shape,
        "turn": scene.turn,
        "nodata": str(made.units.nodata),
    }


def _opened(request: Request, settings: Settings, log: Callable[[str], None]) -> Scene:
    """The scene of a request, and a word to `log` about what there is to forecast from."""
    images = request.images
    whites = whites_of(images, settings.white, settings.trained_white)
    count = 1 + years_back(request.years[::-1], settings.history)
    values = tuple(value for value, _ in whites)
    scene = Scene(images[-count:], request.years[-count:], values[-count:], request.place)
    for line in remarks(images):
        log(line)
    valid, bright = scene.shares
    log(_summary(request, scene, valid, settings.history))
    value, why = whites[-1]
    log(f"white {value:g}, {why}; {bright:.1%} of the pixels are brighter and clipped")
    for path, own in zip(images, whites, strict=True):
        if own != whites[-1]:
            log(f"{path.name}: white {own[0]:g}, {own[1]}")
    nodata = request.place.nodata
    if nodata is not None and math.isnan(nodata_of(request.place)) and not math.isnan(nodata):
        log(f"nodata {nodata:g} does not fit the float32 of a forecast: NaN there")
    return scene


def _summary(request: Request, scene: Scene, valid: float, history: int) -> str:
    """What there is to forecast from, in words."""
    height, width = scene.shape
    years = request.years[::-1]
    back = len(scene.images) - 1
    used = list(years[1 : 1 + back])
    rest = list(years[1 + back :])
    why_not = f"; {rest} not used: at most {history} years count, without a gap" if rest else ""
    turned = "; turned north up" if scene.turn != AS_STORED else ""
    return (
        f"year {years[0]}: {request.images[-1].name}, {width}x{height} px, {valid:.1%} valid"
        f"{turned}; history {used}{why_not}"
    )

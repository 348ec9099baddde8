"""`satjepa inference`, the card's command: a tile in, its forecast for one or more years out,
scored if asked.

The tile is forecast at its own resolution, in overlapping patches, with captions that are found:
those the pipeline wrote (captions.parquet), or a JSON file for each patch or for the tile.
`as_published` does what the published code does: the whole tile shrunk to one patch, one step, and
a caption only where a file has the name of the whole tile.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from satjepa.assemble import embedder
from satjepa.data.display import display_white
from satjepa.data.remarks import remarks
from satjepa.data.stack import Stack, read_stack, whites_of
from satjepa.forecast import blended, cover, padded, write_forecast
from satjepa.forecast.companions import remove_companions
from satjepa.metrics import pixels as metrics
from satjepa.paths import replaced
from satjepa.published.card import as_called, load_and_resize_tif, predict_next_frame, shrunk
from satjepa.published.found_captions import Captioned, find_captions, key_of, place_of, stored_in
from satjepa.published.job import AS_THE_CARD, Job, Settings, check_inference, held_out, label

__all__ = [
    "Captioned",
    "Settings",
    "check_inference",
    "find_captions",
    "held_out",
    "label",
    "place_of",
    "run_inference",
    "run_job",
]

if TYPE_CHECKING:
    from satjepa.models.joint import JointModel

Done = list[tuple[Path, Tensor]]  # the file of each year, and its mean (3,H,W) at the display scale


def forecast_years(
    model: JointModel, job: Job, stack: Stack, caption_dir: Path | None = None
) -> Done:
    """Forecast a tile year after year at its own resolution; write a GeoTIFF a year, as
    `forecast_raster` does.

    Each year is forecast from the mean of the one before. Given captions are those of year t and
    stay; otherwise they are written from each year's image by rule. Returns the files and the means
    (3,H,W) at the display scale, north up.
    """
    settings = job.settings
    params = model.params
    height, width = stack.valid.shape[1:]
    forecaster = as_called(model, settings.steps, settings.strength)
    embed = embedder(model) if params.model.use_captions else None
    if embed is not None and caption_dir is not None:
        place = job.request.place
        size = (params.data.patch, place.height, place.width)
        tile = place_of(job.tif, job.year)
        places = find_captions(caption_dir, *tile, stored_in(place.grid().turn, *size))
        forecaster = Captioned(forecaster, places, embed, stored_in(stack.turn, *size))
        embed = None
    done = []
    patch = params.data.patch
    covered, boxes = cover(stack, patch, patch // 4)
    draw = {"history": params.data.history, "embed": embed, "samples": settings.samples}
    for ahead in range(1, settings.multi_step + 1):
        seed = settings.seed + ahead - 1
        mean, spread = blended(covered, forecaster, boxes, seed=seed, **draw)
        notes = {"YEAR": label(job.year, ahead), "INPUTS": job.tif.name}
        notes |= {name.upper(): str(value) for name, value in asdict(settings).items()}
        write_forecast(job.image(ahead), job.request.place, covered, mean, spread, notes)
        stack = advanced(stack, mean[:, :height, :width])
        covered = padded(stack, patch)  # mirrors of the forecast, as of any other image
        done.append((job.image(ahead), torch.from_numpy(stack.rgb[0])))
    return done


def advanced(stack: Stack, mean: np.ndarray) -> Stack:
    """A stack with a forecast (3,H,W) as its newest image, one year on."""
    rgb = np.concatenate([mean.clip(0, 1).astype(np.float32)[None], stack.rgb])
    newest = stack.years[0]
    years = (None if newest is None else newest + 1, *stack.years)
    return replace(
        stack, rgb=rgb, valid=np.concatenate([stack.valid[:1], stack.valid]), years=years
    )


def forecast_shrunk(model: JointModel, job: Job, caption_dir: Path | None = None) -> Done:
    """The same as the published code has it: the whole tile shrunk to one patch, one step, a PNG a
    year.

    Captions are looked for under the name of the whole tile alone; where there is none, the tokens
    do without. Returns the files and the images (3,S,S).
    """
    from PIL import Image

    settings = job.settings
    tile = place_of(job.tif, job.year)
    named = caption_dir is not None and (caption_dir / f"{key_of(*tile)}.json").is_file()
    captions = find_captions(caption_dir, *tile)[None] if named else ()
    rgb = load_and_resize_tif(job.tif, model.params.data.patch, settings.white)
    done = []
    for ahead in range(1, settings.multi_step + 1):
        rgb = predict_next_frame(
            rgb, model, captions, settings.steps, settings.strength, settings.seed + ahead - 1,
            as_published=True,
        )  # fmt: skip
        image = Image.fromarray((rgb * 255).round().byte().permute(1, 2, 0).numpy())
        with replaced(job.image(ahead)) as part:
            image.save(part, format="PNG")
            remove_companions(job.image(ahead))
        done.append((job.image(ahead), rgb))
    return done


def run_inference(
    model: JointModel, tif: str | Path, out_dir: str | Path, settings: Settings = AS_THE_CARD,
    truths: Sequence[str | Path] = (), caption_dir: Path | None = None,
    log: Callable[[str], None] = print, year: int | None = None,
) -> Path:  # fmt: skip
    """Forecast a tile into `out_dir`: a file a year, a panel of pictures, scores as JSON; returns
    the path of these.

    truths: the true images of the years after, on the same grid, at most one for each year. Scores
    of persistence stand beside those of the forecast, both over the pixels that are valid in year t
    and in the true image. year: that of the tile, instead of the one in its name.

    Raises ForecastError, SceneError, FileNotFoundError.
    """
    return run_job(model, check_inference(tif, out_dir, settings, truths, year), caption_dir, log)


def run_job(
    model: JointModel, job: Job, caption_dir: Path | None = None,
    log: Callable[[str], None] = print,
) -> Path:  # fmt: skip
    """`run_inference` of what `check_inference` made."""
    trained = 1.0 if getattr(model, "reads_padding", False) else model.params.data.white
    pairs = whites_of((*job.truths, job.tif), job.settings.white, trained)
    *whites, white = [white for white, _ in pairs]
    job = replace(job, settings=replace(job.settings, white=white))
    settings = job.settings
    manner = f"{settings.steps} steps, at its own resolution"
    if settings.as_published:
        manner = "one step, the tile shrunk, as published"
    for line in remarks((job.tif, *job.truths)):
        log(line)
    log(f"{job.tif.name}: from noise {settings.strength:g} in {manner}")
    side = model.params.data.patch if settings.as_published else None
    known = [_image(path, white, side) for path, white in zip(job.truths, whites, strict=True)]
    if side:
        now = shrunk(job.tif, side, settings.white)
        done = forecast_shrunk(model, job, caption_dir)
    else:
        stack = read_stack([job.tif], [job.year], [settings.white], job.request.place)
        now = torch.from_numpy(stack.rgb[0]), torch.from_numpy(stack.valid)
        done = forecast_years(model, job, stack, caption_dir)
    rows = _rows(job, done, now, known, log)
    _save_panel(
        job, done, now[0], [(truth, own) for (truth, _), own in zip(known, whites, strict=True)]
    )
    with replaced(job.file("metrics.json")) as part:
        report = {"input": job.tif.name, "settings": asdict(settings), "years": rows}
        part.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    log(f"wrote {', '.join(o.name for o, _ in done)}, a panel and {job.file('metrics.json')}")
    return job.file("metrics.json")


def _image(path: Path, white: float, side: int | None) -> tuple[Tensor, Tensor]:
    """An image (3,H,W), shrunk to `side` if that is given, and where it is valid (1,H,W)."""
    if side:
        return shrunk(path, side, white)
    stack = read_stack([path], [None], [white])
    return torch.from_numpy(stack.rgb[0]), torch.from_numpy(stack.valid)


def _rows(
    job: Job,
    done: Done,
    now: tuple[Tensor, Tensor],
    known: Sequence[tuple[Tensor, Tensor]],
    log: Callable[[str], None],
) -> list[dict[str, Any]]:
    """What metrics.json says of each year: its file, and the scores where the truth is known."""
    rows = []
    for ahead, (out, forecast) in enumerate(done, start=1):
        row: dict[str, Any] = {"file": out.name, "year": label(job.year, ahead)}
        if ahead <= len(known):
            truth, valid = known[ahead - 1]
            valid = valid & now[1]  # as in `evaluate`: what was seen, and can be compared
            row["forecast"] = _scores(forecast, truth, valid)
            row["persistence"] = _scores(now[0], truth, valid)
            log(f"{out.name}: {row['forecast']}; persistence {row['persistence']}")
        rows.append(row)
    return rows


def _scores(image: Tensor, truth: Tensor, valid: Tensor) -> dict[str, float | None]:
    """L1, PSNR and SSIM of an image (3,H,W); None (null in JSON) where no pixel can be scored."""
    scores = {}
    for name in ("l1", "psnr", "ssim"):
        value = float(getattr(metrics, name)(image[None], truth[None], valid[None]))
        scores[name] = round(value, 5) if math.isfinite(value) else None
    return scores


def _save_panel(job: Job, done: Done, now: Tensor, known: Sequence[tuple[Tensor, float]]) -> None:
    """A picture of year t, the forecasts and the true images, all at the scale of a display."""
    from satjepa.figures import plots

    def shown(image: Tensor, path: Path, white: float) -> Tensor:
        return (image[None] * white / display_white(path)[0]).clamp(0, 1)

    white = job.settings.white
    panel = {"year t": shown(now, job.tif, white)}
    for ahead, (_, forecast) in enumerate(done, start=1):
        panel[f"forecast {label(job.year, ahead)}"] = shown(forecast, job.tif, white)
        if ahead <= len(known):
            truth, own = known[ahead - 1]
            view = shown(truth, job.truths[ahead - 1], own)
            panel[f"truth {label(job.year, ahead)}"] = view
    remove_companions(job.file("panel.png"))
    plots.save(plots.grid(panel), job.file("panel.png"))

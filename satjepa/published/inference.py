"""`satjepa inference`, the card's command: a tile in, its forecast for one or more years out,
scored if asked.

The tile is forecast at its own resolution, in overlapping patches, with captions that are found:
those the pipeline wrote (captions.parquet), or a JSON file for each patch or for the tile.
`as_published` does what the published code
does: the whole tile shrunk to one patch, one step, and a caption only where a file has the name of
the whole tile.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from satjepa.assemble import embedder
from satjepa.contracts import Captions
from satjepa.data.display import display_white
from satjepa.data.rasters import GridMismatchError, facts
from satjepa.data.stack import ForecastError, Stack, read_stack, year_of
from satjepa.forecast import blended, padded, tiles, write_forecast
from satjepa.metrics import pixels as metrics
from satjepa.paths import root
from satjepa.published.card import (
    STEPS,
    STRENGTH,
    as_called,
    load_and_resize_tif,
    predict_next_frame,
)

if TYPE_CHECKING:
    from satjepa.captions.embeddings import Embed
    from satjepa.contracts import Forecaster
    from satjepa.models.joint import JointModel

KINDS = Captions._fields


@dataclass(frozen=True)
class How:
    """How a tile is forecast.

    multi_step: years, each forecast from the one before. white: value in [0, 1] shown as 1; None:
    `display_white`, trained on 1 where the checkpoint is imported, as the published code does not
    stretch.
    """

    steps: int = STEPS
    strength: float = STRENGTH
    multi_step: int = 1
    samples: int = 1
    seed: int = 0
    as_published: bool = False
    white: float | None = None


def place_of(path: Path) -> tuple[str, int | None]:
    """Region and year of a file name: ("Ordu", 2023) of s2_rgb_Ordu_2023_10km.tif; else the stem
    and `year_of`.
    """
    found = re.fullmatch(r"s2_rgb_(.+)_((?:19|20)\d\d)(?:_.*)?", path.stem)
    return (found[1], int(found[2])) if found else (path.stem, year_of(path))


def find_captions(
    folder: Path, region: str, year: int | None
) -> dict[tuple[int, int] | None, Captions]:
    """The captions of a tile, by the first column and row (x, y) of their patch; None is the key of
    the whole tile.

    From captions.parquet of the pipeline if it is there, else from JSON files with the three texts
    under their names: `<region>_<year>_x0000_y0000.json` for a patch, `<region>_<year>.json` for
    the tile. ForecastError where there are none, or a file does not hold the three texts.
    """
    found: dict[tuple[int, int] | None, Captions] = {}
    if (folder / "captions.parquet").is_file():
        from satjepa.captions.table import read_table

        table = read_table(folder / "captions.parquet")
        rows = table[(table.region == region) & (table.year == year)].itertuples()
        found = {(row.x, row.y): Captions(*(getattr(row, kind) for kind in KINDS)) for row in rows}
    for path in sorted(folder.glob(f"{region}_{year}*.json")):
        if name := re.fullmatch(re.escape(f"{region}_{year}") + r"(?:_x(\d+)_y(\d+))?", path.stem):
            try:
                texts = json.loads(path.read_text(encoding="utf-8"))
                three = Captions(*(texts[kind] for kind in KINDS))
            except (ValueError, KeyError, TypeError) as error:
                raise ForecastError(
                    f"{path}: expected a JSON object with the texts {', '.join(KINDS)}"
                ) from error
            found[None if name[1] is None else (int(name[1]), int(name[2]))] = three
    if not found:
        wanted = (
            f"{region}_{year}_x0000_y0000.json, {region}_{year}.json, or captions.parquet "
            "with rows of it"
        )
        raise ForecastError(f"no captions of {region} {year} in {folder}: expected {wanted}")
    return found


class Captioned:
    """A forecaster that hears the captions found for a tile: each patch those of the nearest patch
    that has some.
    """

    def __init__(
        self, forecaster: Forecaster, found: dict[tuple[int, int] | None, Captions], embed: Embed
    ) -> None:
        self.forecaster = forecaster
        self.found = found
        self.embed = embed

    def at(self, x: int, y: int) -> Captions:
        """The captions for the patch whose first pixel is (x, y)."""
        places = [place for place in self.found if place is not None]
        nearest = min(places, key=lambda p: ((p[0] - x) ** 2 + (p[1] - y) ** 2, p), default=None)
        return self.found[nearest]

    def forecast(self, batch: dict[str, Any], samples: int = 1, seed: int = 0) -> Tensor:
        """Forecaster protocol."""
        text = self.embed([self.at(meta["x"], meta["y"]) for meta in batch["meta"]])
        return self.forecaster.forecast(batch | {"text_t": text}, samples, seed)


def forecast_years(
    model: JointModel, tif: Path, out_dir: Path, how: How, caption_dir: Path | None = None
) -> list[tuple[Path, Tensor]]:
    """Forecast a tile year after year at its own resolution; write a GeoTIFF a year, as
    `forecast_raster` does.

    Each year is forecast from the mean of the one before. Given captions are those of year t and
    stay; otherwise they are written from each year's image by rule. Returns the files and the means
    (3,H,W) at the display scale.
    """
    region, year = place_of(tif)
    params = model.params
    forecaster = as_called(model, how.steps, how.strength)
    embed = embedder(model) if params.model.use_captions else None
    if embed is not None and caption_dir is not None:
        forecaster = Captioned(forecaster, find_captions(caption_dir, region, year), embed)
        embed = None
    stack = read_stack([tif], [year], how.white)
    (height, width), patch, done = stack.valid.shape[1:], params.data.patch, []
    stack = padded(stack, patch)
    boxes = tiles(*stack.valid.shape[1:], patch, patch // 4)
    boxes = [(y, x, w) for y, x, w in boxes if stack.valid[0, y : y + patch, x : x + patch].any()]
    for ahead in range(1, how.multi_step + 1):
        draw = {
            "history": params.data.history,
            "embed": embed,
            "samples": how.samples,
            "seed": how.seed + ahead - 1,
        }
        mean, spread = blended(stack, forecaster, boxes, **draw)
        out = out_dir / f"{tif.stem}_{label(year, ahead)}.tif"
        notes = {"YEAR": label(year, ahead), "INPUTS": tif.name}
        write_forecast(
            out,
            tif,
            stack,
            mean,
            spread,
            notes | {k.upper(): str(v) for k, v in asdict(how).items()},
        )
        stack = advanced(stack, mean)
        done.append((out, torch.from_numpy(stack.rgb[0, :, :height, :width])))
    return done


def label(year: int | None, ahead: int) -> str:
    """What stands for a forecast in file names and figures: its year, or t+1, t+2, ... where t is
    not known.
    """
    return f"t+{ahead}" if year is None else str(year + ahead)


def advanced(stack: Stack, mean: np.ndarray) -> Stack:
    """A stack with a forecast (3,H,W) as its newest image, one year on."""
    rgb = np.concatenate([mean.clip(0, 1).astype(np.float32)[None], stack.rgb])
    newest = stack.years[0]
    years = (None if newest is None else newest + 1, *stack.years)
    return replace(
        stack, rgb=rgb, valid=np.concatenate([stack.valid[:1], stack.valid]), years=years
    )


def forecast_shrunk(
    model: JointModel, tif: Path, out_dir: Path, how: How, caption_dir: Path | None = None
) -> list[tuple[Path, Tensor]]:
    """The same as the published code has it: the whole tile shrunk to one patch, one step, a PNG a
    year.

    Captions are looked for under the name of the whole tile alone; where there is none, the tokens
    do without. Returns the files and the images (3,S,S).
    """
    from PIL import Image

    region, year = place_of(tif)
    named = caption_dir is not None and (caption_dir / f"{region}_{year}.json").is_file()
    captions = find_captions(caption_dir, region, year)[None] if named else ()
    rgb = load_and_resize_tif(tif, model.params.data.patch, how.white)
    done = []
    for ahead in range(1, how.multi_step + 1):
        rgb = predict_next_frame(
            rgb, model, captions, how.steps, how.strength, how.seed + ahead - 1, as_published=True
        )
        out = out_dir / f"{tif.stem}_{label(year, ahead)}.png"
        Image.fromarray((rgb * 255).round().byte().permute(1, 2, 0).numpy()).save(out)
        done.append((out, rgb))
    return done


def run_inference(
    model: JointModel, tif: Path, out_dir: Path, how: How = How(), truths: Sequence[Path] = (),
    caption_dir: Path | None = None, log: Callable[[str], None] = print,
) -> Path:  # fmt: skip
    """Forecast a tile into `out_dir`: a file a year, a panel of pictures, scores as JSON; returns
    the path of these.

    truths: the true images of the years after, on the same grid, at most one for each year. Scores
    of persistence stand beside those of the forecast. Raises ForecastError, SceneError,
    FileNotFoundError.
    """
    from satjepa.figures import plots

    if how.multi_step < 1 or len(truths) > how.multi_step:
        raise ForecastError(
            f"{how.multi_step} years with {len(truths)} true images: at least one year, an image "
            "each"
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    show = display_white(tif)[0]  # in figures; the numbers stay as they are
    trained = 1.0 if getattr(model, "reads_padding", False) else model.params.data.white
    how = replace(how, white=display_white(tif, how.white, trained)[0])
    side = model.params.data.patch if how.as_published else None
    year = place_of(tif)[1]
    now, _ = _image(tif, tif, how.white, side)
    known = [_image(path, tif, how.white, side) for path in truths]
    manner = (
        "one step, the tile shrunk, as published"
        if side
        else f"{how.steps} steps, at its own resolution"
    )
    log(f"{tif.name}: from noise {how.strength:g} in {manner}")
    done = (forecast_shrunk if side else forecast_years)(model, tif, out_dir, how, caption_dir)
    rows = []
    panel = {"year t": now}
    for ahead, (out, forecast) in enumerate(done, start=1):
        rows.append({"file": out.name, "year": label(year, ahead)})
        panel[f"forecast {label(year, ahead)}"] = forecast[None]
        if ahead <= len(known):
            truth, valid = known[ahead - 1]
            panel[f"truth {label(year, ahead)}"] = truth
            rows[-1] |= {
                "forecast": _scores(forecast[None], truth, valid),
                "persistence": _scores(now, truth, valid),
            }
            log(f"{out.name}: {rows[-1]['forecast']}; persistence {rows[-1]['persistence']}")
    view = {name: (image * how.white / show).clamp(0, 1) for name, image in panel.items()}
    plots.save(plots.grid(view), out_dir / f"{tif.stem}_panel.png")
    path = out_dir / f"{tif.stem}_metrics.json"
    path.write_text(
        json.dumps({"input": tif.name, "settings": asdict(how), "years": rows}, indent=1) + "\n"
    )
    log(f"wrote {', '.join(out.name for out, _ in done)}, a panel and {path}")
    return path


def _image(path: Path, like: Path, white: float, side: int | None) -> tuple[Tensor, Tensor]:
    """An image (1,3,H,W) on the grid of `like`, or shrunk to `side`, and where it is valid
    (1,1,H,W).
    """
    if side:
        return load_and_resize_tif(path, side, white)[None], torch.ones(
            1, 1, side, side, dtype=torch.bool
        )
    if difference := facts(like, 3).grid.difference(facts(path, 3).grid):
        raise GridMismatchError(
            path, difference, f"the grid of {like}", "warp it onto that grid first"
        )
    stack = read_stack([path], [None], white)
    return torch.from_numpy(stack.rgb), torch.from_numpy(stack.valid)[None]


def _scores(image: Tensor, truth: Tensor, valid: Tensor) -> dict[str, float]:
    return {
        name: round(float(getattr(metrics, name)(image, truth, valid)), 5)
        for name in ("l1", "psnr", "ssim")
    }


def held_out(preset: str) -> list[tuple[Path, list[Path]]]:
    """What there is to forecast without an input: of each test region of a preset the last year
    with a next one, and that next one, alone in its list. FileNotFoundError where the pipeline has
    made no scenes.
    """
    from satjepa.assemble import ARTIFACTS, open_split
    from satjepa.data.scenes import find_scenes, year_pairs

    scenes = root() / ARTIFACTS / "scenes" / preset
    pairs = []
    if not scenes.is_dir():
        raise FileNotFoundError(
            f"no scenes in {scenes}: name a GeoTIFF with --input_tif, or run `make repro`"
        )
    for region in dict.fromkeys(entry.split("/")[0] for entry in open_split().test):
        files = {scene.year: scene.rgb for scene in find_scenes(scenes, [region], check=False)}
        pairs += [(files[last], [files[following]]) for last, following in year_pairs(files)[-1:]]
    return pairs

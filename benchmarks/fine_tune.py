"""What is fine-tuning on a place worth? The last year of some scenes, forecast before and after.

    python benchmarks/fine_tune.py FOLDER... [--checkpoint assets/demo_model] [--steps 15]
                                   [--rates 0.02] [--one-way] [--samples 8] [--out .work/fine_tune]

Each FOLDER is a region in the published layout (<Region>/s2_rgb_<Region>_<YEAR>_10km.tif). Of its
years the last two that follow each other are a pair that is never trained on: from the first of
them, and the years before it, the second is forecast

    persistence   as the first of the pair
    linear trend  as the line through each pixel of the last years (satjepa.baselines.trend)
    as shipped    by the model in the checkpoint
    fine-tuned    by the same model, trained on the years up to the first (satjepa train --from)

and compared with what came, on the display scale of the forecast, over the pixels valid in both
years. Of an ensemble PSNR is that of the mean, CRPS the fair one; CRPS of one image is its mean
absolute error. Prints a table in Markdown, and leaves a picture of each forecast in <out>. A run
that was stopped goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from satjepa.baselines.trend import LinearTrend
from satjepa.data.scenes import Scene, find_scenes, year_pairs
from satjepa.data.stack import read_stack, whites_of, year_of
from satjepa.forecast.load import load
from satjepa.forecast.tiles import years_back
from satjepa.metrics import pixels as metrics
from satjepa.paths import root
from satjepa.pipeline.fine_tune import RATE, STEPS, How, fine_tune

HEAD = ["scene", "system", "PSNR, dB ↑", "CRPS ↓", "spread / error"]


@dataclass(frozen=True)
class Case:
    """A scene whose last year is to be forecast: its images, oldest first, and the truth."""

    name: str
    folder: Path
    images: list[Path]
    truth: Path
    years: tuple[int, int]


def case_of(folder: Path) -> Case:
    """The last pair of consecutive years of a region folder."""
    folder = folder.resolve()
    scenes: dict[int, Scene] = {s.year: s for s in find_scenes(folder.parent, [folder.name])}
    now, ahead = year_pairs(scenes)[-1]
    images = [scene.rgb for year, scene in sorted(scenes.items()) if year <= now]
    return Case(folder.name, folder, images, scenes[ahead].rgb, (now, ahead))


def trend_of(case: Case, white: float, history: int = 2) -> np.ndarray:
    """The line through each pixel's last years, read at the year of the truth: (3,H,W)."""
    years = [year_of(path) for path in case.images]
    whites = [value for value, _ in whites_of(case.images, white)]
    stack = read_stack(case.images, years, whites)
    count = years_back(stack.years, history)
    batch = {
        "rgb_t": torch.from_numpy(stack.rgb[:1]),
        "valid_t": torch.from_numpy(stack.valid[:1, None]),
        "history": torch.from_numpy(stack.rgb[None, 1 : 1 + count]),
        "history_valid": torch.ones(1, count, dtype=torch.bool),
    }
    return LinearTrend().forecast(batch)[0, 0].numpy()


def rows_of(
    case: Case, systems: dict[str, tuple[np.ndarray, np.ndarray]], white: float
) -> Iterator:
    """A row for each system: (mean (3,H,W), members (S,3,H,W)), NaN where year t is not valid."""
    stack = read_stack([case.truth], [None], [white])
    truth = torch.from_numpy(stack.rgb)
    for system, (mean, members) in systems.items():
        valid = torch.from_numpy(stack.valid & np.isfinite(mean).all(0))[None]
        image = torch.from_numpy(np.nan_to_num(mean))[None]
        drawn = torch.from_numpy(np.nan_to_num(members))[:, None]
        psnr = float(metrics.psnr(image, truth, valid))
        crps = float(metrics.crps(drawn, truth, valid))
        ratio = ""
        if len(members) > 1:
            own = (metrics.spread(drawn, valid), metrics.mse(image, truth, valid))
            ratio = f"{metrics.spread_skill(*own, valid.flatten(1).sum(1)):.2f}"
        yield [f"{case.name} {case.years[1]}", system, f"{psnr:.2f}", f"{crps:.4f}", ratio]


def scored(case: Case, args: argparse.Namespace) -> Iterator[list[str]]:
    """The rows of a case; its models are trained, and its pictures drawn, on the way."""
    home = args.out / f"{case.name}-{case.years[1]}"
    tuned = {}
    for rate in args.rates:
        out = home / f"{args.steps}-{rate:g}{'-one-way' * args.one_way}"
        how = How(args.steps, rate, both_ways=not args.one_way)
        tuned[f"fine-tuned, {args.steps} steps, rate {rate:g}"] = fine_tune(
            args.checkpoint, case.folder, out, how, log=lambda line: None, progress=False
        )
    # all on the scale that the fine-tuned ones were trained on
    trained = load(next(iter(tuned.values()))).joint.params.data.white
    white = whites_of(case.images[-1:], None, trained)[0][0]
    systems = {}
    for name, folder in {"as shipped": args.checkpoint, **tuned}.items():
        forecast = load(folder).forecast(*case.images, samples=args.samples, white=white)
        forecast.picture(home / f"{name.split(',')[0]} {folder.parent.name}.png", case.truth)
        systems[name] = (forecast.mean, forecast.members)
    trend = trend_of(case, white)
    lines = {
        "persistence": (forecast.last, forecast.last[None]),
        "linear trend": (trend, trend[None]),
    }
    yield from rows_of(case, lines | systems, white)


def main() -> None:
    """Train, forecast, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--checkpoint", type=Path, default=root() / "assets/demo_model")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rates", type=float, nargs="+", default=[RATE])
    parser.add_argument("--one-way", action="store_true", help="pairs of years forwards only")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--out", type=Path, default=root() / ".work/fine_tune")
    args = parser.parse_args()
    print("| " + " | ".join(HEAD) + " |\n" + "| --- " * len(HEAD) + "|")
    for folder in args.folders:
        for row in scored(case_of(folder), args):
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()

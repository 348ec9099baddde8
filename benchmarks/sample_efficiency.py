"""How much land does a system need? Trained on 10, 30, 100 % of the regions, scored on the same.

    python benchmarks/sample_efficiency.py [--params params.table.yaml] [--shares 0.1 0.3 1]
                                           [--systems ours unet simvp]

The test part is the same for all. Each system is trained for as many steps as in the params file,
whatever the share: fewer regions are seen more often. `ours` is the model itself; the others are
arms of `baselines`. A run goes on where it was stopped (.work/efficiency), and rows of other
systems that were made with the same settings stay. The baselines keep the weights that are best on
the validation regions, which are the same at each share. One seed. Needs the stages up to
`embeddings` (`dvc repro embeddings`). Leaves docs/sample_efficiency.csv, its settings, and .png.
"""

from __future__ import annotations

import argparse
import json
from itertools import cycle
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from satjepa.assemble import build_model, dataset, load_model
from satjepa.baselines.arms import load_arm, members, pairs_of, train_arm
from satjepa.config import Params, load_params
from satjepa.data.pairs import PairDataset, spread_evenly
from satjepa.evaluation.results import baseline_steps
from satjepa.evaluation.score import OURS, score, untimed
from satjepa.evaluation.table import read_scores, write_table
from satjepa.figures import plots
from satjepa.figures.gallery import COLOURS
from satjepa.paths import root
from satjepa.training.loop import train

LABELS = {
    "psnr": "PSNR, dB ↑",
    "gssim": "GSSIM ↑",
    "lpips": "LPIPS ↓",
    "lpips_rand": "LPIPS of a random trunk ↓",
}


def keep_regions(data: PairDataset, share: float) -> int:
    """Leave a training set a share of its regions, at least one, and return how many.

    They are spread evenly over their names.
    """
    names = sorted({data.places[number].region for number, *_ in data.samples})
    count = max(1, round(share * len(names)))
    chosen = {names[i] for i in spread_evenly(len(names), count)}
    data.samples = [sample for sample in data.samples if data.places[sample[0]].region in chosen]
    return len(chosen)


def our_row(params: Params, share: float, home: Path) -> dict[str, object]:
    """The row of the model itself, trained on a share of the regions: the mean of its ensemble."""
    data = dataset(params, "train", latents=True)
    regions = keep_regions(data, share)
    model = load_model(train(build_model(params), data, params, home / f"ours-{regions}"))
    return scored(OURS, model, params.sample.samples, params, regions)


def arm_row(name: str, params: Params, share: float, home: Path) -> dict[str, object]:
    """An arm of `baselines`, as `our_row`."""
    data = pairs_of(name, params, "train")
    regions = keep_regions(data, share)
    folder = train_arm(name, params, home / f"{name}-{regions}", data=data)
    title = params.baselines.title(name)
    return scored(title, load_arm(name, params, folder), members(name, params), params, regions)


def scored(
    system: str, forecaster: Any, samples: int, params: Params, regions: int
) -> dict[str, object]:
    """The row of a forecaster on the test part of the first preset.

    Of an ensemble it is that of its mean, the first one.
    """
    preset = params.data.presets[0]
    first, *_ = score({system: forecaster}, params, preset, {system: samples}, params.seed)
    return {"system": system, "regions": regions} | untimed(first)


def earlier_rows(path: Path, settings: dict[str, object]) -> list[dict[str, object]]:
    """The rows of an earlier run, of other systems or shares, if it had the same settings."""
    stored = path.with_suffix(".settings.json")
    if not stored.exists() or json.loads(stored.read_text()) != settings:
        return []
    return read_scores(path)


def draw(table: pd.DataFrame) -> Figure:
    """One panel a metric over the number of regions, one line a system."""
    columns = {name: label for name, label in LABELS.items() if name in table}
    fig, axes = plots.figure(1, len(columns), 3.1 * len(columns), 2.8)
    for ax, (column, label) in zip(axes[0], columns.items(), strict=True):
        groups = table.groupby("system", sort=False)
        for colour, (system, rows) in zip(cycle(COLOURS), groups, strict=False):
            rows = rows.sort_values("regions")
            ax.plot(rows["regions"], rows[column], marker="o", ms=4, color=colour, label=system)
        ax.set_xscale("log")
        ticks = sorted(table["regions"].unique())
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()
        ax.set_xlabel("training regions", fontsize=8)
        ax.set_title(label, fontsize=9)
    axes[0, 0].legend(fontsize=7, frameon=False)
    return fig


def main() -> None:
    """Train, score, print the table, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--params", type=Path, default=root() / "params.table.yaml")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.3, 1.0])
    parser.add_argument("--systems", nargs="+", default=["ours", "unet", "simvp"])
    parser.add_argument(
        "--out", type=Path, default=root() / "docs/sample_efficiency", help="without its ending"
    )
    args = parser.parse_args()
    params = load_params(args.params)
    home = root() / ".work/efficiency"
    trained = [name for name, arm in params.baselines.arms.items() if arm.trained]
    if unknown := set(args.systems) - {"ours", *trained}:
        parser.error(f"{', '.join(sorted(unknown))}: not one of ours, {', '.join(trained)}")
    settings = {
        "seed": params.seed,
        "steps": params.train.steps,
        "jepa_share": params.train.jepa_share,
        "baseline_steps": baseline_steps(params),
    }
    path = args.out.with_suffix(".csv")
    rows = earlier_rows(path, settings)
    for share in args.shares:
        for system in args.systems:
            if system == "ours":
                row = our_row(params, share, home)
            else:
                row = arm_row(system, params, share, home)
            key = (row["system"], row["regions"])
            rows = [old for old in rows if (old["system"], old["regions"]) != key]
            rows.append(row)
            write_table(rows, path, settings)  # after each: an interrupted run keeps its rows
    table = pd.DataFrame(rows)
    shown = ["system", "regions", *(name for name in LABELS if name in table)]
    print(table[shown].to_string(index=False, float_format="{:.3f}".format))
    plots.save(draw(table), args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()

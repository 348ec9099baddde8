"""From the scores of all runs to the results table: runs of several seeds combined, ablations,
baselines, bounds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from satjepa.assemble import dataset
from satjepa.baselines.persistence import MeanColour, OracleMean, OracleSample, Persistence
from satjepa.evaluation.score import score, untimed
from satjepa.evaluation.table import arm_title, combine_seeds, write_table
from satjepa.paths import root

if TYPE_CHECKING:
    from satjepa.config import Params

DETERMINISTIC = {
    "Default (persistence)": Persistence,
    "Mean colour": MeanColour,
    "Oracle, mean": OracleMean,
    "Oracle, one draw": OracleSample,
}


def _rows(path: Path) -> list[dict[str, Any]]:
    return pd.read_csv(path).astype(object).where(lambda f: f.notna(), None).to_dict("records")


def over_seeds(paths: list[Path]) -> list[dict[str, Any]]:
    """The rows of the same run with several seeds, combined row by row by `combine_seeds`."""
    return [combine_seeds(list(rows)) for rows in zip(*map(_rows, paths), strict=True)]


def _runs(params: Params, folder: str, arm: str) -> list[dict[str, Any]]:
    """The rows of one arm of a matrix stage, combined over seeds."""
    return over_seeds(
        [root() / f"runs/{folder}/{arm}-{seed}/scores.csv" for seed in params.ablate.seeds]
    )


def _ours(params: Params) -> list[dict[str, Any]]:
    """The rows of the model itself, combined over seeds."""
    return over_seeds([root() / f"runs/joint/{seed}/scores.csv" for seed in params.ablate.seeds])


def collect_arms(params: Params, full: bool = False) -> pd.DataFrame:
    """The ablations: one row an arm, the mean of its ensemble on the first preset, combined over
    seeds.

    full: where no arm has that name, the model itself is the first row, as `full`.
    """
    runs = {"full": _ours(params)} if full and "full" not in params.ablate.arms else {}
    runs |= {arm: _runs(params, "ablate", arm) for arm in params.ablate.arms}
    rows = []
    for arm, combined in runs.items():
        row = next(
            r for r in combined if "mean of" in r["model"] and r["preset"] == params.data.presets[0]
        )
        rows.append(row | {"model": arm_title(arm)})
    return pd.DataFrame(rows)


def collect_published(params: Params) -> list[dict[str, Any]]:
    """The rows of the published system, on every preset, combined over seeds."""
    return [row for arm in params.published.arms for row in _runs(params, "published", arm)]


def collect_baselines(params: Params) -> list[dict[str, Any]]:
    """The rows of every arm of `baselines`, on every preset, combined over seeds."""
    from satjepa.config.baselines import arm_names

    return [row for arm in arm_names(params) for row in _runs(params, "baselines", arm)]


def baseline_steps(params: Params) -> dict[str, int]:
    """For how many steps each arm of `baselines` is trained, by its title; without those that are
    not.
    """
    from satjepa.config.baselines import arm_names, read_arm

    arms = [read_arm(params, name) for name in arm_names(params)]
    return {arm.title: arm.train.steps for arm in arms if arm.train}


def build_table(params: Params, path: Path) -> pd.DataFrame:
    """Score what needs no training, add baselines, the published system, ours and its ablations,
    and write the results table with its settings.
    """
    rivals = collect_baselines(params) + collect_published(params)
    runs = _ours(params)
    arms = collect_arms(params).to_dict("records")
    rows = []
    settings = {}
    for preset in params.data.presets:
        known = dataset(params, "test", preset, text=False).truth
        chosen = {
            name: make() for name, make in DETERMINISTIC.items() if known or "Oracle" not in name
        }
        scored = score(chosen, params, preset, {})
        settings = scored[0].settings
        fixed = [combine_seeds([untimed(s)]) for s in scored]
        ours = [row for row in runs if row["preset"] == preset]
        rows += (
            fixed[:2]
            + [row for row in rivals if row["preset"] == preset]
            + ours
            + [
                row | {"model": f"Ablation: {row['model']}, {row['samples']:.0f} samples"}
                for row in arms
                if row["preset"] == preset
            ]
            + fixed[2:]
        )
    write_table(
        rows,
        path,
        settings
        | {
            "steps": params.train.steps,
            "jepa_share": params.train.jepa_share,
            "baseline_steps": baseline_steps(params),
            "ablation_steps": params.ablate.steps,
            "published_steps": params.published.steps,
            "sampler_steps": params.sample.steps,
            "guidance": params.sample.guidance,
        },
    )
    return pd.read_csv(path)

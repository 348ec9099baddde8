"""From the scores of all runs to the results table: runs of several seeds combined, ablations,
baselines, bounds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from satjepa.assemble import dataset
from satjepa.baselines.arms import members
from satjepa.baselines.persistence import MeanColour, OracleMean, OracleSample, Persistence
from satjepa.evaluation.score import INITIALISED, OURS, score, untimed
from satjepa.evaluation.table import arm_title, combine_seeds, read_scores, write_table
from satjepa.models.published import STRENGTH
from satjepa.paths import run_folder

if TYPE_CHECKING:
    from satjepa.config import Params

DETERMINISTIC = {
    "Default (persistence)": Persistence,
    "Mean colour": MeanColour,
    "Oracle, mean": OracleMean,
    "Oracle, one draw": OracleSample,
}


def over_seeds(paths: list[Path]) -> list[dict[str, Any]]:
    """The rows of the same run with several seeds, combined row by row by `combine_seeds`."""
    return [combine_seeds(list(rows)) for rows in zip(*map(read_scores, paths), strict=True)]


def collect(params: Params, arm: str) -> list[dict[str, Any]]:
    """The rows of one arm on every preset that it was scored on, combined over seeds."""
    return over_seeds([run_folder(arm, seed) / "scores.csv" for seed in params.seeds])


def collect_ablations(params: Params) -> pd.DataFrame:
    """One row an ablation, its answer on the first preset, combined over seeds: the mean of its
    ensemble, or its one forecast where `sample.samples` is 1.

    Where no arm is called `full`, the model itself is the first row under that name.
    """
    arms = {name: name for name in params.arms_of("ablation")}
    if "full" not in arms:
        arms = {"full": params.main_arm} | arms
    rows = []
    for title, arm in arms.items():
        first = [row for row in collect(params, arm) if row["preset"] == params.data.presets[0]]
        answer = next(row for row in first if is_answer(row["model"]))
        rows.append(answer | {"model": arm_title(title)})
    return pd.DataFrame(rows)


def is_answer(model: str) -> bool:
    """Whether a row is what our model answers: its ensemble's mean, or the one forecast it made."""
    return model == OURS or model.startswith(f"{OURS}, mean of ")


def ablation_title(arm: str, samples: int) -> str:
    """The name of an ablation's row in the results table."""
    return f"Ablation: {arm}, {samples} samples" if samples > 1 else f"Ablation: {arm}"


def baseline_steps(params: Params) -> dict[str, int]:
    """For how many steps each baseline is trained, by its title; without those that are not."""
    names = [name for name, arm in params.baselines.arms.items() if arm.trained]
    return {params.baselines.title(name): params.baselines.fit(name).steps for name in names}


def arm_steps(params: Params, kind: Literal["ablation", "published"]) -> dict[str, int]:
    """For how many steps each ablation, or each arm of the published system, is trained."""
    return {
        arm_title(name): params.arms[name].get("train.steps", params.train.steps)
        for name in params.arms_of(kind)
    }


def sampling(params: Params) -> dict[str, Any]:
    """How forecasts are drawn: by our model, by the name of its row, and by each baseline that
    draws, by its title; what is not named makes the one forecast it has.
    """
    baselines = params.baselines
    drawn = {}
    for name, arm in baselines.arms.items():
        if arm.ensemble:
            samples = {"samples": members(name, params)}
            drawn[baselines.title(name)] = samples | arm.sample.model_dump()
    return {
        "samples": {OURS: params.sample.samples, INITIALISED: 1},
        "strength": {OURS: params.sample.strength, INITIALISED: STRENGTH},
        "sampler_steps": params.sample.steps,
        "guidance": params.sample.guidance,
        "baseline_sampling": drawn,
    }


def bounds(params: Params, preset: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of what needs no training, and the settings that they were scored with."""
    known = dataset(params, "test", preset, text=False).truth
    forecasters = {
        name: make() for name, make in DETERMINISTIC.items() if known or "Oracle" not in name
    }
    scored = score(forecasters, params, preset, {})
    return [combine_seeds([untimed(scores)]) for scores in scored], scored[0].settings


def ablation_rows(params: Params) -> list[dict[str, Any]]:
    """The rows of the ablations as the results table names them."""
    rows = []
    if params.arms_of("ablation"):
        for row in collect_ablations(params).to_dict("records"):
            rows.append(row | {"model": ablation_title(row["model"], int(row["samples"]))})
    named_full = "full" in params.arms
    return rows if named_full else rows[1:]


def build_table(params: Params, path: Path) -> pd.DataFrame:
    """Score what needs no training, add baselines, the published system, ours and its ablations,
    and write the results table with its settings.
    """
    trained = [*params.baselines.arms, *params.arms_of("published"), params.main_arm]
    collected = [row for arm in trained for row in collect(params, arm)] + ablation_rows(params)
    rows = []
    settings: dict[str, Any] = {}
    for preset in params.data.presets:
        fixed, settings = bounds(params, preset)
        rows += fixed[:2] + [row for row in collected if row["preset"] == preset] + fixed[2:]
    settings |= sampling(params) | {
        "steps": params.train.steps,
        "jepa_share": params.train.jepa_share,
        "baseline_steps": baseline_steps(params),
        "ablation_steps": arm_steps(params, "ablation"),
        "published_steps": arm_steps(params, "published"),
    }
    write_table(rows, path, settings)
    return pd.DataFrame(read_scores(path))

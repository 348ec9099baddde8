"""All trained systems on the same places."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from satjepa.assemble import load_run, sample_batch
from satjepa.baselines.arms import load_arm, members
from satjepa.evaluation.score import OURS, samplers
from satjepa.paths import run_folder

if TYPE_CHECKING:
    from satjepa.config import Params
    from satjepa.contracts import Batch, Forecaster


def trained_systems(params: Params) -> dict[str, tuple[Forecaster, int]]:
    """Every system of the first seed by the name of its row, with the size of its ensemble: the
    baselines, the published system, the model itself; not the ablations.
    """
    seed = params.seeds[0]
    params = params.model_copy(update={"seed": seed})
    systems: dict[str, tuple[Forecaster, int]] = {}
    for name in params.baselines.arms:
        forecaster = load_arm(name, params, run_folder(name, seed) / "model")
        systems[params.baselines.title(name)] = (forecaster, members(name, params))
    for name in params.arms_of("published"):
        trained = samplers(load_run(params, name, seed))
        systems |= {title: (model, 1) for title, model in trained.items()}
    ours = load_run(params, params.main_arm, seed)
    return systems | {OURS: (ours, params.sample.samples)}


def forecasts(
    params: Params, count: int, preset: str | None = None
) -> tuple[dict[str, Tensor], Batch]:
    """The members (S,B,3,H,W) in [0, 1] of every system of the first seed, and the batch they are
    forecasts of.

    Places lie evenly over the test part of a preset (default: the first). Systems that are
    deterministic have S = 1.
    """
    batch = sample_batch(params, count, preset)
    ensembles = {"persistence": batch["rgb_t"][None]}
    for title, (forecaster, samples) in trained_systems(params).items():
        ensembles[title] = forecaster.forecast(batch, samples, params.seeds[0])
    return ensembles, batch

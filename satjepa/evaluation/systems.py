"""All trained systems on the same places."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from torch import Tensor

from satjepa.assemble import load_model, sample_batch
from satjepa.baselines.arms import load_arm, members
from satjepa.config.baselines import arm_names, read_arm
from satjepa.evaluation.score import OURS, samplers
from satjepa.paths import root

if TYPE_CHECKING:
    from satjepa.config import Params


def forecasts(
    params: Params, count: int, preset: str | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The members (S,B,3,H,W) in [0, 1] of every system of the first seed, and the batch they are
    forecasts of.

    Places lie evenly over the test part of a preset (default: the first). Systems that are
    deterministic have S = 1.
    """

    seed = params.ablate.seeds[0]
    params, batch = dataclasses.replace(params, seed=seed), sample_batch(params, count, preset)
    made = {"persistence": batch["rgb_t"][None]}
    for name in arm_names(params):
        arm = read_arm(params, name)
        model = load_arm(arm, params, root() / f"runs/baselines/{name}-{seed}/model")
        made[arm.title] = model.forecast(batch, members(arm, params), seed)
    for name in params.published.arms:
        trained = samplers(load_model(root() / f"runs/published/{name}-{seed}/model"))
        made |= {title: model.forecast(batch, 1, seed) for title, model in trained.items()}
    ours = load_model(root() / f"runs/joint/{seed}/model")
    return made | {OURS: ours.forecast(batch, params.sample.samples, seed)}, batch

"""All systems on the same places: forecasts, where they err, and whether their ensembles mean what they say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from satjepa.assemble import load_model, spread_evenly
from satjepa.metrics import rank_histogram
from satjepa.paths import root
from satjepa.plots import ACCENT, INK, MUTED, WARM, figure, grid
from satjepa.score import OURS, PUBLISHED, PUBLISHED_COARSE, samplers, some

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from satjepa.config import Params

SHORT = {"persistence": "Default\n(persistence)", OURS: "ours,\nzero-RGB", PUBLISHED: "as published,\ncaptions"}
SHORT[PUBLISHED_COARSE] = "as published,\ncoarse RGB"
COLOURS = (WARM, ACCENT, "#2a9d5c", "#7d5ba6", "#8c6d31", "#5f7f8f")


def forecasts(params: Params, count: int, preset: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The members (S,B,3,H,W) in [0, 1] of every system of the first seed, and the batch they are forecasts of.

    Places lie evenly over the test part of a preset (default: the first). Systems that are deterministic have S = 1.
    """
    from satjepa.baselines.arms import load_arm, members
    from satjepa.config_baselines import arm_names, read_arm

    seed = params.ablate.seeds[0]
    params, batch = dataclasses.replace(params, seed=seed), some(params, count, preset)
    made = {"persistence": batch["rgb_t"][None]}
    for name in arm_names(params) if params.baselines else ():
        arm = read_arm(params, name)
        model = load_arm(arm, params, root() / f"runs/baselines/{name}-{seed}/model")
        made[arm.title] = model.forecast(batch, members(arm, params), seed)
    for name in params.published.arms:
        trained = samplers(load_model(root() / f"runs/published/{name}-{seed}/model"))
        made |= {title: model.forecast(batch, 1, seed) for title, model in trained.items()}
    ours = load_model(root() / f"runs/joint-{seed}/model")
    return made | {OURS: ours.forecast(batch, params.sample.samples, seed)}, batch


def _title(name: str) -> str:
    return SHORT.get(name) or name.replace(", ", ",\n").replace(" (", "\n(")


def systems(made: Mapping[str, Tensor], batch: dict[str, Any], rows: int) -> Figure:
    """Year t, the truth, and one forecast of each system: `rows` places, evenly of the batch."""
    chosen = spread_evenly(len(batch["meta"]), rows)
    columns = {"year t": batch["rgb_t"], "truth,\nyear t+1": batch["rgb_tp1"]}
    columns |= {_title(name): members[0] for name, members in made.items() if name != "persistence"}
    return grid({title: images[chosen] for title, images in columns.items()}, _places(batch, chosen))


def errors(made: Mapping[str, Tensor], batch: dict[str, Any], rows: int) -> Figure:
    """Where each system's best answer (the mean of its members) is wrong: mean absolute error of the bands, one scale
    for all; `rows` places, evenly of the batch.
    """
    chosen = spread_evenly(len(batch["meta"]), rows)
    seen = _valid(batch)[:, 0]
    off = {name: ((m.mean(0) - batch["rgb_tp1"]).abs().mean(1) * seen)[chosen] for name, m in made.items()}
    top = torch.quantile(torch.stack([*off.values()]).flatten(), 0.99)
    columns = {"truth,\nyear t+1": batch["rgb_tp1"][chosen]}
    columns |= {_title(name): _scaled(error, top) for name, error in off.items()}
    return grid(columns, _places(batch, chosen))


def _scaled(error: Tensor, top: Tensor) -> Tensor:
    """A map (B,H,W) in the colours of the house, (B,3,H,W): black is right, white is `top` or worse."""
    from matplotlib import colormaps

    return torch.from_numpy(colormaps["magma"]((error / top).clamp(0, 1).numpy())[..., :3]).permute(0, 3, 1, 2)


def _places(batch: dict[str, Any], chosen: list[int]) -> list[str]:
    return [f"{batch['meta'][i]['region']}\n{batch['meta'][i]['year'] + 1}" for i in chosen]


def reliability(made: Mapping[str, Tensor], batch: dict[str, Any], bins: int = 10) -> Figure:
    """Do ensembles mean what they say? Left: rank of the truth among the members, flat if it is like one more of them.
    Right: pixels by the spread of the members there, and how far off the mean is; a reliable ensemble keeps the line.
    """
    fig, axes = figure(1, 2, 7.6, 2.9)
    ensembles = sorted((name != OURS, name) for name, members in made.items() if len(members) > 1)  # ours first
    for (_, name), colour in zip(ensembles, cycle(COLOURS), strict=False):
        members = made[name]
        share = rank_histogram(members, batch["rgb_tp1"], _valid(batch)).sum(0).numpy()
        axes[0, 0].plot(np.linspace(0, 1, len(share)), share / share.mean(), color=colour, lw=1.8, marker="o", ms=3)
        spread, error = binned(members, batch["rgb_tp1"], _valid(batch), bins)
        axes[0, 1].plot(spread, error, color=colour, lw=1.8, marker="o", ms=3, label=name)
    axes[0, 0].axhline(1, color=MUTED, lw=1, ls="--")
    axes[0, 0].set(xlabel="rank of the truth among the members", ylabel="how often, 1 is reliable", ylim=(0, None))
    end = max((line.get_xdata().max() for line in axes[0, 1].lines), default=1.0)
    axes[0, 1].plot([0, end], [0, end], color=MUTED, lw=1, ls="--")
    axes[0, 1].set(xlabel="spread of the members", ylabel="error of their mean")
    axes[0, 1].legend(fontsize=7, frameon=False, labelcolor=INK)
    return fig


def _valid(batch: dict[str, Any]) -> Tensor:
    """Pixels (B,1,H,W) valid in both years."""
    return batch["valid_t"] & batch["valid_tp1"]


def binned(members: Tensor, target: Tensor, valid: Tensor, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Valid pixels in `bins` equally full classes of spread: in each, expected and true root mean squared error of the
    mean.

    members (S,B,3,H,W), target (B,3,H,W), valid (B,1,H,W). Spread as of `satjepa.metrics.spread`.
    """
    count = len(members)
    seen = valid[:, 0]  # (B,H,W)
    spread = (members.var(0) * (count + 1) / count).mean(1)[seen]  # (pixels,)
    error = (members.mean(0) - target).square().mean(1)[seen]
    order = spread.argsort()
    parts = [(spread[part].mean().sqrt(), error[part].mean().sqrt()) for part in order.chunk(bins)]
    return tuple(np.array([float(pair[i]) for pair in parts]) for i in (0, 1))

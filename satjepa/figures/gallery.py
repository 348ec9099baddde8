"""All systems on the same places: forecasts, where they err, whether their ensembles mean what they
say, and where each stands in the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from satjepa.data.pairs import spread_evenly
from satjepa.evaluation.score import OURS, PUBLISHED, PUBLISHED_COARSE
from satjepa.figures.plots import ACCENT, INK, MUTED, WARM, figure, grid
from satjepa.figures.table_plots import plane, skill_by_process
from satjepa.metrics.pixels import rank_histogram

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from satjepa.contracts import Batch
    from satjepa.models.joint import JointModel

# What notebooks ask the gallery for; the plots of the table stand in a module of their own.
__all__ = [
    "COLOURS", "binned", "errors", "forecast_grid", "plane", "reliability", "skill_by_process",
    "systems", "who_sees_it",
]  # fmt: skip

SHORT = {
    "persistence": "Default\n(persistence)",
    OURS: "ours,\nzero-RGB",
    PUBLISHED: "as published,\ncaptions",
}
SHORT[PUBLISHED_COARSE] = "as published,\ncoarse RGB"
COLOURS = (WARM, ACCENT, "#2a9d5c", "#7d5ba6", "#8c6d31", "#5f7f8f")


def _title(name: str) -> str:
    return SHORT.get(name) or name.replace(", ", ",\n").replace(" (", "\n(")


def systems(made: Mapping[str, Tensor], batch: dict[str, Any], rows: int) -> Figure:
    """Year t, the truth, and one forecast of each system: `rows` places, evenly of the batch."""
    chosen = spread_evenly(len(batch["meta"]), rows)
    columns = {"year t": batch["rgb_t"], "truth,\nyear t+1": batch["rgb_tp1"]}
    columns |= {_title(name): members[0] for name, members in made.items() if name != "persistence"}
    return grid(
        {title: images[chosen] for title, images in columns.items()}, _places(batch, chosen)
    )


def errors(made: Mapping[str, Tensor], batch: dict[str, Any], rows: int) -> Figure:
    """Where each system's best answer (the mean of its members) is wrong: mean absolute error of
    the bands, one scale for all; `rows` places, evenly of the batch.
    """
    chosen = spread_evenly(len(batch["meta"]), rows)
    seen = _valid(batch)[:, 0]
    off = {
        name: ((m.mean(0) - batch["rgb_tp1"]).abs().mean(1) * seen)[chosen]
        for name, m in made.items()
    }
    top = torch.quantile(torch.stack([*off.values()]).flatten(), 0.99)
    columns = {"truth,\nyear t+1": batch["rgb_tp1"][chosen]}
    columns |= {_title(name): _scaled(error, top) for name, error in off.items()}
    return grid(columns, _places(batch, chosen))


def _scaled(error: Tensor, top: Tensor) -> Tensor:
    """A map (B,H,W) in the colours of the house, (B,3,H,W): black is right, white is `top` or
    worse.
    """
    from matplotlib import colormaps

    return torch.from_numpy(colormaps["magma"]((error / top).clamp(0, 1).numpy())[..., :3]).permute(
        0, 3, 1, 2
    )


def _places(batch: dict[str, Any], chosen: list[int]) -> list[str]:
    return [f"{batch['meta'][i]['region']}\n{batch['meta'][i]['year'] + 1}" for i in chosen]


def reliability(made: Mapping[str, Tensor], batch: dict[str, Any], bins: int = 10) -> Figure:
    """Do ensembles mean what they say? Left: rank of the truth among the members, flat if it is
    like one more of them.
    Right: pixels by the spread of the members there, and how far off the mean is; a reliable
    ensemble keeps the line.
    """
    fig, axes = figure(1, 2, 7.6, 2.9)
    ensembles = sorted(
        (name != OURS, name) for name, members in made.items() if len(members) > 1
    )  # ours first
    for (_, name), colour in zip(ensembles, cycle(COLOURS), strict=False):
        members = made[name]
        share = rank_histogram(members, batch["rgb_tp1"], _valid(batch)).sum(0).numpy()
        axes[0, 0].plot(
            np.linspace(0, 1, len(share)),
            share / share.mean(),
            color=colour,
            lw=1.8,
            marker="o",
            ms=3,
        )
        spread, error = binned(members, batch["rgb_tp1"], _valid(batch), bins)
        axes[0, 1].plot(spread, error, color=colour, lw=1.8, marker="o", ms=3, label=name)
    axes[0, 0].axhline(1, color=MUTED, lw=1, ls="--")
    axes[0, 0].set(
        xlabel="rank of the truth among the members",
        ylabel="how often, 1 is reliable",
        ylim=(0, None),
    )
    end = max((line.get_xdata().max() for line in axes[0, 1].lines), default=1.0)
    axes[0, 1].plot([0, end], [0, end], color=MUTED, lw=1, ls="--")
    axes[0, 1].set(xlabel="spread of the members", ylabel="error of their mean")
    axes[0, 1].legend(fontsize=7, frameon=False, labelcolor=INK)
    return fig


def _valid(batch: dict[str, Any]) -> Tensor:
    """Pixels (B,1,H,W) valid in both years."""
    return batch["valid_t"] & batch["valid_tp1"]


def binned(
    members: Tensor, target: Tensor, valid: Tensor, bins: int
) -> tuple[np.ndarray, np.ndarray]:
    """Valid pixels in `bins` equally full classes of spread: in each, expected and true root mean
    squared error of the mean.

    members (S,B,3,H,W), target (B,3,H,W), valid (B,1,H,W). Spread as of
    `satjepa.metrics.pixels.spread`.
    """
    count = len(members)
    seen = valid[:, 0]  # (B,H,W)
    spread = (members.var(0) * (count + 1) / count).mean(1)[seen]  # (pixels,)
    error = (members.mean(0) - target).square().mean(1)[seen]
    order = spread.argsort()
    parts = [(spread[part].mean().sqrt(), error[part].mean().sqrt()) for part in order.chunk(bins)]
    return tuple(np.array([float(pair[i]) for pair in parts]) for i in (0, 1))


def who_sees_it(model: JointModel) -> str:
    """What the generator is shown of the image of year t, in two lines: strict zero-RGB, coarse RGB
    or a start.
    """
    if model.strength < 1:
        return "the generator\nstarts from it"
    side = model.params.model.coarse_rgb
    return f"the adapter sees\nit, {side} x {side} px" if side else "not seen\nby the generator"


def forecast_grid(model: JointModel, batch: Batch, members: Tensor) -> Figure:
    """Year t and who sees it, the truth, three samples, mean and spread of the ensemble, and the
    oracle where it is known.

    members: forecasts (S,B,3,H,W) of the batch by the model.
    """
    columns = {
        f"year t ({who_sees_it(model)})": batch["rgb_t"],
        "truth, year t+1": batch["rgb_tp1"],
    }
    columns |= {f"sample {i + 1}": members[i] for i in range(min(3, len(members)))}
    columns |= {
        f"mean of {len(members)}": members.mean(0),
        "spread": members.std(0, correction=0).mean(1),
    }
    if "oracle_mean" in batch:
        columns["oracle, mean"] = batch["oracle_mean"]
    return grid(columns, [f"{m['region']}\n{m['year'] + 1}" for m in batch["meta"]])

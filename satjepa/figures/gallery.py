"""All systems on the same places: forecasts, their errors, whether their ensembles are reliable.

Where each system stands in the results table is drawn in `satjepa.figures.table_plots`. A
`forecasts` argument holds those of each system under its name, (S,B,3,H,W) of the B patches of the
batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

# Titles of columns for the systems whose names are too long.
SHORT = {
    "persistence": "Default\n(persistence)",
    OURS: "ours,\nzero-RGB",
    PUBLISHED: "as published,\ncaptions",
}
SHORT[PUBLISHED_COARSE] = "as published,\ncoarse RGB"
COLOURS = (WARM, ACCENT, "#2a9d5c", "#7d5ba6", "#8c6d31", "#5f7f8f")


def _title(name: str) -> str:
    """The name of a system, broken into short lines."""
    return SHORT.get(name) or name.replace(", ", ",\n").replace(" (", "\n(")


def systems(forecasts: Mapping[str, Tensor], batch: dict[str, Any], rows: int) -> Figure:
    """Year t, the truth, and one forecast of each system: `rows` places, evenly of the batch."""
    chosen = spread_evenly(len(batch["meta"]), rows)
    columns = {"year t": batch["rgb_t"][chosen], "truth,\nyear t+1": batch["rgb_tp1"][chosen]}
    for name, members in forecasts.items():
        if name != "persistence":  # year t itself
            columns[_title(name)] = members[0][chosen]
    return grid(columns, _places(batch, chosen))


def errors(forecasts: Mapping[str, Tensor], batch: dict[str, Any], rows: int) -> Figure:
    """Where each system's best answer (the mean of its members) is wrong.

    Mean absolute error of the bands, one scale for all; `rows` places, evenly of the batch.
    """
    chosen = spread_evenly(len(batch["meta"]), rows)
    valid = _valid(batch)[:, 0]  # (B,H,W)
    maps = {}
    for name, members in forecasts.items():
        error = (members.mean(0) - batch["rgb_tp1"]).abs().mean(1)  # (B,H,W)
        maps[name] = (error * valid)[chosen]
    # One pixel in a hundred may be brighter than white, else few errors would darken all.
    top = torch.quantile(torch.stack([*maps.values()]).flatten(), 0.99)
    columns = {"truth,\nyear t+1": batch["rgb_tp1"][chosen]}
    columns |= {_title(name): _scaled(error, top) for name, error in maps.items()}
    return grid(columns, _places(batch, chosen))


def _scaled(error: Tensor, top: Tensor) -> Tensor:
    """A map (B,H,W) as an image (B,3,H,W): black is right, white is `top` or worse."""
    from matplotlib import colormaps

    share = (error / top).clamp(0, 1)
    colours = colormaps["magma"](share.numpy())[..., :3]  # (B,H,W,3), without alpha
    return torch.from_numpy(colours).permute(0, 3, 1, 2)


def _places(batch: dict[str, Any], chosen: Sequence[int]) -> list[str]:
    """Region and forecast year of the chosen patches."""
    metas = [batch["meta"][i] for i in chosen]
    return [f"{meta['region']}\n{meta['year'] + 1}" for meta in metas]


def reliability(forecasts: Mapping[str, Tensor], batch: dict[str, Any], bins: int = 10) -> Figure:
    """Do ensembles mean what they say? Left: rank of the truth among the members, flat if it is
    like one more of them. Right: pixels by the spread of the members there, and how far off the
    mean is; a reliable ensemble keeps the line.
    """
    fig, axes = figure(1, 2, 7.6, 2.9)
    left, right = axes[0]
    names = [name for name, members in forecasts.items() if len(members) > 1]
    names.sort(key=lambda name: (name != OURS, name))  # ours first
    for name, colour in zip(names, cycle(COLOURS), strict=False):
        members = forecasts[name]
        line = {"color": colour, "lw": 1.8, "marker": "o", "ms": 3}
        counts = rank_histogram(members, batch["rgb_tp1"], _valid(batch)).sum(0).numpy()  # (S+1,)
        # Ensembles of different sizes on one axis: rank as a share, count over its mean.
        left.plot(np.linspace(0, 1, len(counts)), counts / counts.mean(), **line)
        spread, error = binned(members, batch["rgb_tp1"], _valid(batch), bins)
        right.plot(spread, error, label=name, **line)
    left.axhline(1, color=MUTED, lw=1, ls="--")
    left.set(
        xlabel="rank of the truth among the members",
        ylabel="how often, 1 is reliable",
        ylim=(0, None),
    )
    end = max((line.get_xdata().max() for line in right.lines), default=1.0)
    right.plot([0, end], [0, end], color=MUTED, lw=1, ls="--")
    right.set(xlabel="spread of the members", ylabel="error of their mean")
    if names:
        right.legend(fontsize=7, frameon=False, labelcolor=INK)
    return fig


def _valid(batch: dict[str, Any]) -> Tensor:
    """Pixels (B,1,H,W) valid in both years."""
    return batch["valid_t"] & batch["valid_tp1"]


def binned(
    members: Tensor, target: Tensor, valid: Tensor, bins: int
) -> tuple[np.ndarray, np.ndarray]:
    """Expected and true root mean squared error of the mean, (bins,) each.

    The valid pixels are cut into `bins` equally full classes of spread, as
    `satjepa.metrics.pixels.spread` defines it. members (S,B,3,H,W), target (B,3,H,W), valid
    (B,1,H,W).
    """
    count = len(members)
    inside = valid[:, 0]  # (B,H,W)
    spread = (members.var(0) * (count + 1) / count).mean(1)[inside]  # (pixels,)
    error = (members.mean(0) - target).square().mean(1)[inside]
    expected = []
    true = []
    for part in spread.argsort().chunk(bins):  # numbers of pixels of one class
        expected.append(float(spread[part].mean().sqrt()))
        true.append(float(error[part].mean().sqrt()))
    return np.array(expected), np.array(true)


def who_sees_it(model: JointModel) -> str:
    """What the generator is shown of the image of year t: nothing, coarse RGB, or a start.

    In two lines, for a title.
    """
    if model.strength < 1:
        return "the generator\nstarts from it"
    if side := model.params.model.coarse_rgb:
        return f"the adapter sees\nit, {side} x {side} px"
    return "not seen\nby the generator"


def forecast_grid(batch: Batch, members: Tensor, who_sees: str = "") -> Figure:
    """Year t, the truth, up to three forecasts, for an ensemble its mean and spread, the error of
    the answer, and the oracle's where it is known.

    members: forecasts (S,B,3,H,W) of the batch. who_sees: of year t, as `who_sees_it` says it.
    """
    heading = f"year t ({who_sees})" if who_sees else "year t"
    columns = {heading: batch["rgb_t"], "truth, year t+1": batch["rgb_tp1"]}
    answer = members.mean(0)  # (B,3,H,W)
    if len(members) == 1:
        columns["forecast"] = answer
    else:
        columns |= {f"sample {i + 1}": image for i, image in enumerate(members[:3])}
        columns[f"mean of {len(members)}"] = answer
        columns["spread"] = members.std(0, correction=0).mean(1)
    columns["error"] = (answer - batch["rgb_tp1"]).abs().mean(1)
    if "oracle_mean" in batch:
        columns["oracle, mean"] = batch["oracle_mean"]
    places = [f"{place['region']}\n{place['year'] + 1}" for place in batch["meta"]]
    return grid(columns, places)

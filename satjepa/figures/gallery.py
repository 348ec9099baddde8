"""All systems on the same places: forecasts, where they err, whether their ensembles mean what they
say, and where each stands in the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from satjepa.data.pairs import spread_evenly
from satjepa.evaluation.score import OURS, PUBLISHED, PUBLISHED_COARSE
from satjepa.figures.plots import (
    ACCENT,
    INK,
    MUTED,
    PROCESS_NAMES,
    WARM,
    figure,
    grid,
    lpips_column,
)
from satjepa.metrics.pixels import rank_histogram

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from satjepa.contracts import Batch
    from satjepa.models.joint import JointModel

SHORT = {
    "persistence": "Default\n(persistence)",
    OURS: "ours,\nzero-RGB",
    PUBLISHED: "as published,\ncaptions",
}
SHORT[PUBLISHED_COARSE] = "as published,\ncoarse RGB"
COLOURS = (WARM, ACCENT, "#2a9d5c", "#7d5ba6", "#8c6d31", "#5f7f8f")
BOUNDS = ("Default", "Mean colour", "Oracle")  # how the names of rows begin that are no rivals
ANSWER = r", (?:mean|mean of \d+|one sample|one draw)$"  # how the names of rows of one system end
RING = {"mfc": "white", "ms": 6.5, "zorder": 3}
DOT = {"ms": 4.5, "zorder": 4}
FLOOR = -1.0  # of a drawn skill: twice the error of persistence


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


def _by_system(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of a table by system, in its order: the mean of an ensemble and one draw of it are
    one system.
    """
    return dict(iter(table.groupby(table["model"].str.replace(ANSWER, "", regex=True), sort=False)))


def _mark(model: str) -> dict[str, Any]:
    """How a row is drawn: ours, rivals and bounds differ in colour and shape; one draw of an
    ensemble is a ring.
    """
    bound = model.startswith(BOUNDS)
    colour, shape = (
        (WARM, "D") if model.startswith(OURS) else (MUTED, "s") if bound else (ACCENT, "o")
    )
    look = RING if model.endswith((", one sample", ", one draw")) else DOT
    return {"marker": shape, "color": colour, "ls": ""} | look


def _fills() -> list[Any]:
    """Legend entries that tell what is filled and what is a ring."""
    from matplotlib.lines import Line2D

    meant = {"mean of an ensemble, or the only answer": DOT, "one sample of an ensemble": RING}
    return [
        Line2D([], [], marker="o", color=INK, ls="", label=text, **look)
        for text, look in meant.items()
    ]


def _window(values: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest value that an axis must show: of all, but for a few (a quarter at
    most) that lie further away from the others than these from each other.
    """
    values = np.sort(values)
    gaps = np.diff(values)
    cut = int(gaps.argmax()) + 1 if len(gaps) else 0
    most = max(values[:cut], values[cut:], key=len)
    alone = 0 < len(values) - len(most) <= len(values) / 4 and gaps.max() > np.ptp(most) > 0
    shown = most if alone else values
    return float(shown.min()), float(shown.max())


def _wider(ends: tuple[float, float], share: float) -> tuple[float, float]:
    pad = share * (ends[1] - ends[0]) or 1.0
    return ends[0] - pad, ends[1] + pad


def plane(table: pd.DataFrame, x: str = "psnr", y: str | None = None) -> Figure:
    """The perception-distortion plane: a point for each row, a number for each system; the best
    corner is low right.

    y: default the LPIPS column. What lies far away from all else is drawn at the edge, its numbers
    in the legend.
    """
    from matplotlib.lines import Line2D

    y = lpips_column(table) if y is None else y
    systems = _by_system(table)
    fig, axes = figure(1, 1, 8.4, max(4.6, 1 + 0.16 * len(systems)))
    ax = axes[0, 0]
    handles = []
    spots = []
    numbers = []
    across = _window(table[x].to_numpy())
    up = _window(table[y].to_numpy())
    ax.set(xlim=_wider(across, 0.1), ylim=_wider(up, 0.1))
    for number, (system, rows) in enumerate(systems.items(), 1):
        beyond = ~(rows[x].between(*across) & rows[y].between(*up))
        at_x = rows[x].clip(*_wider(across, 0.06))
        at_y = rows[y].clip(*_wider(up, 0.06))
        ax.plot(at_x, at_y, color=MUTED, lw=0.8)
        for i, model in enumerate(rows["model"]):
            ax.plot(at_x.iloc[i], at_y.iloc[i], **_mark(model))
        spots += zip(at_x, at_y, strict=True)
        numbers += [number] * len(rows)
        far = "; ".join(f"{a:.3g}, {b:.3g}" for a, b in rows.loc[beyond, [x, y]].to_numpy())
        name = f"{system} (at {far})" if far else system
        mark = _mark(rows["model"].iloc[0])
        handles.append(Line2D([], [], **mark, label=f"{number:\u2007>2}  {name}"))
    ax.set_xlabel(f"{x.upper()} (dB, higher is closer to the truth) →")
    ax.set_ylabel(f"← {y.upper()} (lower looks more real)")
    ax.grid(alpha=0.25)
    style = {
        "fontsize": 7.5,
        "frameon": False,
        "bbox_to_anchor": (1.01, 1),
        "loc": "upper left",
        "labelcolor": INK,
    }
    ax.legend(handles=handles + _fills(), **style)
    fig.draw_without_rendering()  # the layout, in which the numbers find their places
    _annotate(ax, spots, numbers)
    return fig


def _annotate(ax: Axes, spots: Sequence[tuple[float, float]], numbers: Sequence[int]) -> None:
    """A number beside each spot, at the nearest place that no other number, no spot and no line
    takes. A line joins spots of the same number that follow each other.
    """
    places = ax.transData.transform(spots) * 72 / ax.figure.dpi  # points
    joined = [(a, b) for (a, i), (b, j) in pairwise(zip(places, numbers, strict=True)) if i == j]
    taken = [*places, *(a + part * (b - a) for a, b in joined for part in np.arange(0.05, 1, 0.05))]
    rays = [
        (np.cos(a), np.sin(a))
        for a in np.pi / 8 * np.array([1, 15, 7, 9, 4, 12, 0, 8, 2, 14, 6, 10])
    ]
    offsets = [radius * np.array(ray) for radius in range(9, 60, 4) for ray in rays]
    for spot, place, number in zip(spots, places, numbers, strict=True):
        free = (
            o for o in offsets if all((np.abs(place + o - t) > (12, 8)).any() for t in taken)
        )  # a number's size
        offset = next(free, offsets[0])
        taken.append(place + offset)
        line = {"arrowstyle": "-", "lw": 0.5, "color": MUTED, "shrinkA": 0, "shrinkB": 2}
        ax.annotate(
            str(number), spot, offset, textcoords="offset points", fontsize=7.5, color=INK,
            ha="center", va="center", arrowprops=line if np.hypot(*offset) > 10 else None,
            annotation_clip=False,
        )  # fmt: skip


def skill_by_process(table: pd.DataFrame) -> Figure:
    """Skill against persistence on the pixels that each process changed: a panel for each process,
    a line for each system. Where no process is known (the demo world knows), two panels: all
    pixels, changed ones.

    What is below `FLOOR` is an arrow with its number.
    """
    known = [name for name in PROCESS_NAMES if f"skill_{name}" in table]
    panels = {name: f"skill_{name}" for name in known} or {
        "all pixels": "skill",
        "changed pixels": "skill_changed",
    }
    systems = _by_system(table[~table["model"].str.contains("persistence|Mean colour")])
    fig, axes = figure(
        1, len(panels), 3 + 1.5 * len(panels), 1.2 + 0.22 * len(systems), sharex=True, sharey=True
    )
    for ax, (title, column) in zip(axes[0], panels.items(), strict=True):
        for line, rows in enumerate(systems.values()):
            _skills(ax, line, rows["model"], rows[column].astype(float))
        ax.axvline(0, color=INK, lw=0.8)
        ax.grid(alpha=0.25)
        share = table.get(f"share_{title}")
        ax.set_title(
            title if share is None else f"{title}\n{100 * share.iloc[0]:.2g} % of the pixels",
            fontsize=9,
        )
    axes[0, 0].set(xlim=(FLOOR - 0.1, 1.1), xticks=np.arange(FLOOR, 1.1, 0.5))
    axes[0, 0].set(yticks=range(len(systems)), yticklabels=[*systems])
    axes[0, 0].invert_yaxis()
    fig.supxlabel("skill against persistence (0 as good, 1 without error) →", fontsize=9)
    fig.legend(
        handles=_fills(),
        loc="outside upper right",
        ncols=2,
        fontsize=7.5,
        frameon=False,
        labelcolor=INK,
    )
    return fig


def _skills(ax: Axes, line: int, models: pd.Series, skills: pd.Series) -> None:
    """The skills of one system on its line."""
    inside = skills[skills >= FLOOR]
    ax.plot(skills.clip(FLOOR), [line] * len(skills), color=MUTED, lw=0.8)
    for model, skill in zip(models, skills, strict=True):
        mark = _mark(model) | ({"marker": "<"} if skill < FLOOR else {})
        ax.plot(max(skill, FLOOR), line, **mark)
    if far := ", ".join(f"{skill:.2f}".replace("-", "−") for skill in skills if skill < FLOOR):
        end = inside.max() if len(inside) else FLOOR
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        ax.text(min(end + 0.14, 0.5), line, far, fontsize=6.5, va="center", color=INK, bbox=box)


def who_sees_it(model: JointModel) -> str:
    """What the generator is shown of the image of year t, in two lines: strict zero-RGB, coarse RGB
    or a start.
    """
    if model.strength < 1:
        return "the generator\nstarts from it"
    side = model.params.model.coarse_rgb
    return f"the adapter sees\nit, {side} x {side} px" if side else "not seen\nby the generator"


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

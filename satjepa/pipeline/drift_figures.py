"""Pictures of `satjepa.pipeline.drift`: scores over the years ahead, one place in all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from satjepa.figures.plots import ACCENT, INK, MUTED, WARM, figure, grid
from satjepa.pipeline.drift import LINE, MEAN_BACK, ORACLE, OURS, PERSISTENCE, Plan, Windows

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS = {
    OURS: {"color": WARM, "lw": 2.2, "marker": "o", "ms": 4, "zorder": 3},
    MEAN_BACK: {"color": WARM, "lw": 1.4, "ls": "--", "marker": "o", "ms": 3},
    PERSISTENCE: {"color": MUTED, "lw": 1.4, "marker": "s", "ms": 3},
    LINE: {"color": MUTED, "lw": 1.4, "ls": ":", "marker": "s", "ms": 3},
    ORACLE: {"color": ACCENT, "lw": 1.8, "marker": "o", "ms": 3},
}
PANELS = {
    "psnr": "PSNR of the mean, dB",
    "crps": "CRPS",
    "spread_error": "spread / error",
    "sharp": "gradient, member / truth",
}
ENSEMBLES = (OURS, MEAN_BACK, ORACLE)  # of which spread and the look of a member are drawn


def curves(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """A row of panels for each preset: `scores` over the years ahead, a line a system. The oracle
    answers with its expected image where the mean is asked, else with its members.
    """
    fig, axes = figure(len(tables), len(PANELS), 2.6 * len(PANELS), 0.5 + 2.1 * len(tables))
    for row, (preset, table) in zip(axes, tables.items(), strict=True):
        for ax, column in zip(row, PANELS, strict=True):
            _lines(ax, table, column)
        row[0].set_ylabel(preset, fontsize=10, color=INK)
    for ax, title in zip(axes[0], PANELS.values(), strict=True):
        ax.set_title(title, fontsize=9, color=INK)
    for ax in axes[-1]:
        ax.set_xlabel("years ahead", fontsize=8, color=INK)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8,
               frameon=False, labelcolor=INK)  # fmt: skip
    return fig


def _lines(ax: Axes, table: pd.DataFrame, column: str) -> None:
    for name, look in LOOKS.items():
        if column in ("spread_error", "sharp") and name not in ENSEMBLES:
            continue
        mean = name == ORACLE and column == "psnr"
        asked = table["model"].str.startswith(f"{ORACLE}, mean") if mean else table["model"] == name
        rows = table[asked]
        ax.plot(rows["ahead"], rows[column], label=name, **look)
    ax.set_xticks(sorted(table["ahead"].unique()))
    ax.margins(x=0.1)
    if column in ("spread_error", "sharp"):
        ax.axhline(1, color=MUTED, lw=0.8, zorder=0)
        ax.set_ylim(0, None)


def place(forecasts: Mapping[str, Tensor], known: Windows, index: int, plan: Plan) -> Figure:
    """One patch, a row a year: the truth, three members of the rollout with mean and spread, one
    land of the oracle and what it expects; in front, year t again and again.
    """
    members = forecasts[OURS][:, :, index]  # (Y,S,3,H,W)
    shown = {f"{plan.year},\nrepeated": known.batch["rgb_t"][index].expand_as(known.truth[:, 0])}
    shown["truth"] = known.truth[:, index]
    count = members.shape[1]
    shown |= {f"member {number + 1}": members[:, number] for number in range(min(3, count))}
    shown[f"mean of {count}"] = members.mean(1)
    shown["spread"] = members.std(1).mean(1)
    shown["oracle,\none land"] = known.oracle[:, 0, index]
    shown["oracle,\nexpected"] = known.oracle_mean[:, index]
    return grid(shown, [str(plan.year + ahead) for ahead in range(1, plan.years + 1)])

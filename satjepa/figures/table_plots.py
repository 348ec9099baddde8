"""Where each system stands in the table: perception against distortion, skill by process."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from satjepa.evaluation.score import OURS
from satjepa.figures.plots import ACCENT, INK, MUTED, PROCESS_NAMES, WARM, figure, lpips_column

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

BOUNDS = ("Default", "Mean colour", "Oracle")  # how the names of rows begin that are no rivals
ANSWER = r", (?:mean|mean of \d+|one sample|one draw)$"  # how the names of rows of one system end
RING = {"mfc": "white", "ms": 6.5, "zorder": 3}
DOT = {"ms": 4.5, "zorder": 4}
FLOOR = -1.0  # of a drawn skill: twice the error of persistence


def _by_system(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of a table by system, in its order.

    The mean of an ensemble and one draw of it are one system.
    """
    names = table["model"].str.replace(ANSWER, "", regex=True)
    return dict(iter(table.groupby(names, sort=False)))


def _mark(model: str) -> dict[str, Any]:
    """How a row is drawn: ours, rivals and bounds differ in colour and shape.

    One draw of an ensemble is a ring.
    """
    if model.startswith(OURS):
        look = {"marker": "D", "color": WARM, "ls": ""}
    elif model.startswith(BOUNDS):
        look = {"marker": "s", "color": MUTED, "ls": ""}
    else:
        look = {"marker": "o", "color": ACCENT, "ls": ""}
    one_draw = model.endswith((", one sample", ", one draw"))
    return look | (RING if one_draw else DOT)


def _fills() -> list[Line2D]:
    """Legend entries that tell what is filled and what is a ring."""
    from matplotlib.lines import Line2D

    point = {"marker": "o", "color": INK, "ls": ""}
    filled = Line2D([], [], label="mean of an ensemble, or the only answer", **point, **DOT)
    ring = Line2D([], [], label="one sample of an ensemble", **point, **RING)
    return [filled, ring]


def _window(values: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest value that an axis must show.

    Of all, but for a few (a quarter at most) that lie further away from the others than these from
    each other.
    """
    values = np.sort(values)
    gaps = np.diff(values)
    widest = int(gaps.argmax()) + 1 if len(gaps) else 0
    most = max(values[:widest], values[widest:], key=len)
    few = 0 < len(values) - len(most) <= len(values) / 4
    shown = most if few and gaps.max() > np.ptp(most) > 0 else values
    return float(shown.min()), float(shown.max())


def _wider(ends: tuple[float, float], share: float) -> tuple[float, float]:
    """Ends moved apart on both sides by a share of what lies between them."""
    pad = share * (ends[1] - ends[0]) or 1.0
    return ends[0] - pad, ends[1] + pad


def plane(table: pd.DataFrame, x: str = "psnr", y: str | None = None) -> Figure:
    """The perception-distortion plane: a point for each row, a number for each system.

    The best corner is low right. y: default the LPIPS column. What lies far away from all else is
    drawn at the edge, its numbers in the legend.
    """
    y = lpips_column(table) if y is None else y
    systems = _by_system(table)
    fig, axes = figure(1, 1, 8.4, max(4.6, 1 + 0.16 * len(systems)))
    ax = axes[0, 0]
    across = _window(table[x].to_numpy())
    up = _window(table[y].to_numpy())
    ax.set(xlim=_wider(across, 0.1), ylim=_wider(up, 0.1))
    handles = []
    spots = []
    numbers = []
    for number, (system, rows) in enumerate(systems.items(), 1):
        # Inside the limits, which are wider by 0.1: a point at the edge is drawn whole.
        at_x = rows[x].clip(*_wider(across, 0.06))
        at_y = rows[y].clip(*_wider(up, 0.06))
        ax.plot(at_x, at_y, color=MUTED, lw=0.8)
        for i, model in enumerate(rows["model"]):
            ax.plot(at_x.iloc[i], at_y.iloc[i], **_mark(model))
        spots += zip(at_x, at_y, strict=True)
        numbers += [number] * len(rows)
        beyond = ~(rows[x].between(*across) & rows[y].between(*up))
        handles.append(_entry(number, system, rows, rows.loc[beyond, [x, y]]))
    ax.set_xlabel(f"{x.upper()} (dB, higher is closer to the truth) →")
    ax.set_ylabel(f"← {y.upper()} (lower looks more real)")
    ax.grid(alpha=0.25)
    ax.legend(
        handles=handles + _fills(), fontsize=7.5, frameon=False, labelcolor=INK,
        bbox_to_anchor=(1.01, 1), loc="upper left",
    )  # fmt: skip
    fig.draw_without_rendering()  # the layout, in which the numbers find their places
    _annotate(ax, spots, numbers)
    return fig


def _entry(number: int, system: str, rows: pd.DataFrame, beyond: pd.DataFrame) -> Line2D:
    """The legend entry of a system; `beyond`: x and y of its rows that are drawn at the edge."""
    from matplotlib.lines import Line2D

    name = system
    if len(beyond):
        pairs = [f"{x:.3g}, {y:.3g}" for x, y in beyond.to_numpy()]
        name = f"{system} (at {'; '.join(pairs)})"
    # \u2007 is a space as wide as a digit
    return Line2D([], [], **_mark(rows["model"].iloc[0]), label=f"{number:\u2007>2}  {name}")


def _annotate(ax: Axes, spots: Sequence[tuple[float, float]], numbers: Sequence[int]) -> None:
    """A number beside each spot, at the nearest place that is free.

    No other number, no spot and no line is there. A line joins spots of the same number that follow
    each other.
    """
    places = ax.transData.transform(spots) * 72 / ax.figure.dpi  # (n,2) in points
    taken = [*places, *_along_lines(places, numbers)]
    offsets = _offsets()
    for spot, place, number in zip(spots, places, numbers, strict=True):
        free = (offset for offset in offsets if _is_free(place + offset, taken))
        offset = next(free, offsets[0])
        taken.append(place + offset)
        line = {"arrowstyle": "-", "lw": 0.5, "color": MUTED, "shrinkA": 0, "shrinkB": 2}
        ax.annotate(
            str(number),
            spot,
            offset,
            textcoords="offset points",
            fontsize=7.5,
            color=INK,
            ha="center",
            va="center",
            arrowprops=line if np.hypot(*offset) > 10 else None,
            annotation_clip=False,
        )


def _along_lines(places: np.ndarray, numbers: Sequence[int]) -> list[np.ndarray]:
    """Points (2,) along the lines between successive places (n,2) of the same number."""
    points = []
    for (start, end), (number, next_number) in zip(
        pairwise(places), pairwise(numbers), strict=True
    ):
        if number == next_number:
            points += [start + part * (end - start) for part in np.arange(0.05, 1, 0.05)]
    return points


def _offsets() -> list[np.ndarray]:
    """Places (2,) for a number about its spot, in points: the nearest first, obliquely first."""
    angles = np.pi / 8 * np.array([1, 15, 7, 9, 4, 12, 0, 8, 2, 14, 6, 10])
    rays = [np.array((np.cos(angle), np.sin(angle))) for angle in angles]
    return [radius * ray for radius in range(9, 60, 4) for ray in rays]


def _is_free(place: np.ndarray, taken: list[np.ndarray]) -> bool:
    """Whether a number at `place` (2,) covers none of the points; it is 24 x 16 points large."""
    return all((np.abs(place - point) > (12, 8)).any() for point in taken)


def skill_by_process(table: pd.DataFrame) -> Figure:
    """Skill against persistence on the pixels that each process changed, a line for each system.

    A panel for each process; where none is known (the demo world knows), two panels: all pixels,
    and changed ones. What is below `FLOOR` is an arrow with its number.
    """
    panels = {name: f"skill_{name}" for name in PROCESS_NAMES if f"skill_{name}" in table}
    if not panels:
        panels = {"all pixels": "skill", "changed pixels": "skill_changed"}
    systems = _by_system(table[~table["model"].str.contains("persistence|Mean colour")])
    width = 3 + 1.5 * len(panels)
    height = 1.2 + 0.22 * len(systems)
    fig, axes = figure(1, len(panels), width, height, sharex=True, sharey=True)
    for ax, (title, column) in zip(axes[0], panels.items(), strict=True):
        for line, rows in enumerate(systems.values()):
            _skills(ax, line, rows["model"], rows[column].astype(float))
        ax.axvline(0, color=INK, lw=0.8)
        ax.grid(alpha=0.25)
        share = table.get(f"share_{title}")
        if share is not None:
            title = f"{title}\n{100 * share.iloc[0]:.2g} % of the pixels"
        ax.set_title(title, fontsize=9)
    first = axes[0, 0]  # all panels share its axes
    first.set(xlim=(FLOOR - 0.1, 1.1), xticks=np.arange(FLOOR, 1.1, 0.5))
    first.set(yticks=range(len(systems)), yticklabels=[*systems])
    first.invert_yaxis()
    fig.supxlabel("skill against persistence (0 as good, 1 without error) →", fontsize=9)
    fig.legend(
        handles=_fills(), loc="outside upper right", ncols=2, fontsize=7.5, frameon=False,
        labelcolor=INK,
    )  # fmt: skip
    return fig


def _skills(ax: Axes, line: int, models: pd.Series, skills: pd.Series) -> None:
    """The skills of one system on its line."""
    ax.plot(skills.clip(FLOOR), [line] * len(skills), color=MUTED, lw=0.8)
    for model, skill in zip(models, skills, strict=True):
        mark = _mark(model)
        if skill < FLOOR:
            mark["marker"] = "<"
        ax.plot(max(skill, FLOOR), line, **mark)
    below = [f"{skill:.2f}".replace("-", "−") for skill in skills if skill < FLOOR]
    if below:
        inside = skills[skills >= FLOOR]
        end = inside.max() if len(inside) else FLOOR
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        # Beside the last point of the line, and inside the axes.
        ax.text(
            min(end + 0.14, 0.5), line, ", ".join(below), fontsize=6.5, va="center", color=INK,
            bbox=box,
        )  # fmt: skip

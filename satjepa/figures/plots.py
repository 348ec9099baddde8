"""The figures of the notebooks; those of all systems together are in `satjepa.figures.gallery`.
Each function returns a matplotlib Figure; `show` displays, `save` writes it.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satjepa.data.pairs import spread_evenly
from satjepa.paths import replaced

if TYPE_CHECKING:
    import pandas as pd
    import torch
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from satjepa.contracts import Captions, PatchKey
    from satjepa.data.pairs import PairDataset

INK = "#222222"
MUTED = "#8a8a8a"
ACCENT = "#1f77b4"
WARM = "#d1652a"
# As `satjepa.demo.world.PROCESSES` has them, without "none".
PROCESS_NAMES = ("crop", "forest", "town", "water", "fire")


def figure(
    rows: int, columns: int, width: float, height: float, **kwargs: Any
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes (rows, columns) in the house style; `width`, `height` in inches."""
    from matplotlib.figure import Figure

    # not pyplot's, which keeps every figure alive
    fig = Figure(figsize=(width, height), layout="constrained", dpi=110)
    axes = fig.subplots(rows, columns, squeeze=False, **kwargs)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8, colors=INK)
    return fig, axes


def show(fig: Figure) -> None:
    """Display a figure in a notebook as a PNG (equal figures, equal bytes)."""
    from IPython.display import Image, display

    buffer = io.BytesIO()
    # matplotlib would write its version into the file
    fig.savefig(buffer, format="png", metadata={"Software": None})
    display(Image(buffer.getvalue()))


def save(fig: Figure, path: str | Path) -> Path:
    """Write a figure as PNG without a date in it (equal figures, equal bytes); returns the path."""
    with replaced(path) as part:
        fig.savefig(part, format="png", dpi=150, metadata={"Software": None})
    return Path(path)


def picture(ax: Axes, image: np.ndarray | torch.Tensor, title: str = "", **kwargs: Any) -> None:
    """Show an image (3,H,W) in [0, 1] or uint8, or a map (H,W), without axes."""
    array = np.asarray(image)
    if array.ndim == 3:
        array = np.moveaxis(array, 0, -1)  # (H,W,3)
    ax.imshow(array, interpolation="nearest", **kwargs)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title, fontsize=9, color=INK)


def years(cubes: Mapping[str, Sequence[xr.Dataset]], years: int = 5, regions: int = 2) -> Figure:
    """The last `years` of the last `regions` of each preset, one row a region."""
    shown = [(preset, cube) for preset, group in cubes.items() for cube in group[-regions:]]
    fig, axes = figure(len(shown), years, 2.0 * years, 2.1 * len(shown))
    for row, (preset, cube) in zip(axes, shown, strict=True):
        for ax, year in zip(row, cube["year"].values[-years:], strict=False):
            picture(ax, cube["rgb"].sel(year=year).values, str(year))
        row[0].set_ylabel(f"{cube.attrs['region']}\n{preset}", fontsize=9)
    return fig


def processes(rows: Sequence[dict[str, Any]], model: str) -> Figure:
    """Share of the pixels each process changes, and share of a model's squared error there.

    One bar a preset; empty axes where no process is known.
    """
    rows = [row for row in rows if row["model"] == model and "share_crop" in row]
    fig, axes = figure(1, 2, 8, 2.8, sharey=True)
    left, right = axes[0]
    place = np.arange(len(PROCESS_NAMES))  # up the axis
    thick = 0.8 / max(len(rows), 1)  # of a bar; those of one process take 0.8 of its height
    for i, row in enumerate(rows):
        area = np.array([row[f"share_{name}"] for name in PROCESS_NAMES])
        mse = np.array([row[f"mse_{name}"] for name in PROCESS_NAMES])
        error = area * mse / row["mse"]
        look = {"label": row["preset"], "color": (ACCENT, WARM)[i % 2]}
        left.barh(place + i * thick, 100 * area, thick, **look)
        right.barh(place + i * thick, 100 * error, thick, **look)
    left.set(
        yticks=place + 0.4 - thick / 2,
        yticklabels=PROCESS_NAMES,
        xlabel="% of the pixels that change so",
    )
    right.set(xlabel=f"% of the squared error of {model}")
    left.invert_yaxis()
    if rows:
        right.legend(fontsize=8, frameon=False)
    return fig


def embedding_drift(cubes: Sequence[xr.Dataset], step: int = 4, limit: int = 4) -> Figure:
    """Histogram of the cosine between the embeddings of one pixel in successive years.

    Pixels whose cover changed are apart from the others. `step`: every so many pixels of the first
    `limit` cubes; those without embeddings are passed over.
    """
    same = [np.zeros(0)]
    changed = [np.zeros(0)]
    with_embeddings = [cube for cube in cubes[:limit] if "emb" in cube]
    for cube in with_embeddings:
        cosine, moved = _year_to_year(cube, step)
        same.append(cosine[~moved])
        changed.append(cosine[moved])
    fig, axes = figure(1, 1, 6.5, 2.6)
    ax = axes[0, 0]
    for values, label, colour in (
        (np.concatenate(same), "nothing changed", ACCENT),
        (np.concatenate(changed), "the cover changed", WARM),
    ):
        if len(values):
            label = f"{label} (median {np.median(values):.2f})"
            bins = np.linspace(0, 1, 81)
            ax.hist(values, bins, density=True, alpha=0.7, color=colour, label=label)
    ax.set(xlabel="cosine between years t and t+1", yticks=[])
    if with_embeddings:
        ax.legend(fontsize=8, frameon=False)
    return fig


def _year_to_year(cube: xr.Dataset, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of embeddings of successive years, and where the cover changed: (Y-1,h,w) each."""
    from satjepa.data.alphaearth import decode_alphaearth

    years = [decode_alphaearth(stored[:, ::step, ::step]) for stored in cube["emb"].values]
    vectors = np.stack(years)  # (Y,64,h,w)
    cosine = (vectors[1:] * vectors[:-1]).sum(1)
    if "process" not in cube:
        return cosine, np.zeros(cosine.shape, bool)
    return cosine, cube["process"].values[1:, ::step, ::step] > 0


def captioned(data: PairDataset, captions: Mapping[PatchKey, Captions], count: int = 4) -> Figure:
    """`count` images of a dataset, evenly spread, with the three captions of each."""
    keys = data.keys()
    fig, axes = figure(count, 2, 10, 2.1 * count, width_ratios=[1, 3.6])
    for (left, right), i in zip(axes, spread_evenly(len(keys), count), strict=True):
        key = keys[i]
        _, region, year, _, _ = key
        image, _ = data.image(key)
        picture(left, image, f"{region} {year}")
        lines = []
        for kind, text in captions[key]._asdict().items():
            lines.append(textwrap.fill(f"{kind}:  {text}", 100))
        right.text(0, 0.5, "\n\n".join(lines), va="center", fontsize=8.5, color=INK)
        right.axis("off")
    return fig


def reconstructions(images: torch.Tensor, decoded: torch.Tensor, limit: int = 8) -> Figure:
    """Originals, what the VAE makes of them, and the error ten times enlarged; (B,3,H,W) both."""
    limit = min(limit, len(images))
    fig, axes = figure(3, limit, 1.25 * limit, 4.0)
    for column in range(limit):
        error = (images[column] - decoded[column]).abs()
        picture(axes[0, column], images[column])
        picture(axes[1, column], decoded[column])
        picture(axes[2, column], (10 * error).clamp(0, 1))
    for ax, label in zip(axes[:, 0], ("image", "VAE", "error x10"), strict=True):
        ax.set_ylabel(label, fontsize=9)
    return fig


def curves(log: pd.DataFrame, parts: Mapping[str, str], smooth: int = 5) -> Figure:
    """Columns of a training log over `step`, one panel each, with a running mean.

    parts: column -> title. smooth: rows of the log in the running mean.
    """
    fig, axes = figure(1, len(parts), 2.7 * len(parts), 2.4)
    for ax, (column, title) in zip(axes[0], parts.items(), strict=True):
        running = log[column].rolling(smooth, min_periods=1).mean()
        ax.plot(log["step"], log[column], color=MUTED, lw=0.6)
        ax.plot(log["step"], running, color=ACCENT, lw=1.6)
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("step", fontsize=8)
    return fig


def grid(columns: Mapping[str, torch.Tensor], labels: Sequence[str] = ()) -> Figure:
    """Forecasts side by side: a row for each patch, a column for each entry.

    columns: title -> images (B,3,H,W) or maps (B,H,W), of which those of a column share one scale.
    """
    count = len(next(iter(columns.values())))
    fig, axes = figure(count, len(columns), 1.45 * len(columns), 1.5 * count)
    for column, (title, images) in enumerate(columns.items()):
        scale = {}
        if images.ndim == 3:
            scale = {"cmap": "magma", "vmin": 0, "vmax": float(images.max())}
        for row in range(count):
            picture(axes[row, column], images[row], title if row == 0 else "", **scale)
    for ax, label in zip(axes[:, 0], labels, strict=False):
        ax.set_ylabel(label, fontsize=8)
    return fig


def lpips_column(table: pd.DataFrame) -> str:
    """The name of the LPIPS column: `lpips`, or `lpips_rand` for a random trunk."""
    return next(column for column in table if column in ("lpips", "lpips_rand"))


def bars(table: pd.DataFrame, columns: Mapping[str, str], highlight: str | None = None) -> Figure:
    """Horizontal bars: one panel for each entry of `columns`, one bar for each row of the table.

    columns: column -> title. highlight: the model in another colour.
    """
    width = 2.2 + 2.0 * len(columns)
    fig, axes = figure(1, len(columns), width, 0.5 + 0.3 * len(table), sharey=True)
    colours = [WARM if name == highlight else ACCENT for name in table["model"]]
    for ax, (column, title) in zip(axes[0], columns.items(), strict=True):
        spread = table.get(f"{column}_std")  # over seeds
        error = None if spread is None else spread.fillna(0)
        ax.barh(table["model"], table[column], color=colours, xerr=error)
        ax.set_title(title, fontsize=9)
    axes[0, 0].invert_yaxis()
    return fig


def ranks(counts: Sequence[float], title: str = "") -> Figure:
    """Rank histogram of an ensemble: flat if the truth is like another member.

    A U where the ensemble is too sure. counts: (members + 1,).
    """
    share = np.asarray(counts, float) / np.sum(counts)
    fig, axes = figure(1, 1, 4.5, 2.4)
    axes[0, 0].bar(range(len(share)), share, color=ACCENT)
    axes[0, 0].axhline(1 / len(share), color=WARM, lw=1.2)
    axes[0, 0].set(xlabel="members below the truth", ylabel="share of pixels", title=title)
    return fig


def lesson(log: pd.DataFrame) -> Figure:
    """The curve of the reader's lesson (lesson.csv of a run)."""
    return curves(log, {"layout.mse": "layout, true words read"})


def training(log: pd.DataFrame) -> Figure:
    """The curves that tell whether a joint run is healthy, but those of switched-off streams."""
    parts = {
        "flow.mse": "flow: velocity error",
        "readout.mse": "read-out: tokens to latent",
        "ijepa.cosine": "AlphaEarth: 1 - cosine",
        "ijepa.feature": "features of t+1",
        "layout.mse": "layout, words read",
        "caption.cosine": "caption: 1 - cosine",
        "grad_norm": "gradient norm",
    }
    return curves(log, {name: title for name, title in parts.items() if name in log})

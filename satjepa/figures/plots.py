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
PROCESS_NAMES = ("crop", "forest", "town", "water", "fire")


def figure(
    rows: int, columns: int, width: float, height: float, **kwargs: Any
) -> tuple[Figure, np.ndarray]:
    """A grid of axes in the house style; `width`, `height` in inches. Always a 2-D array of
    axes.
    """
    from matplotlib.figure import Figure

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
    fig.savefig(buffer, format="png", metadata={"Software": None})
    display(Image(buffer.getvalue()))


def save(fig: Figure, path: str | Path) -> Path:
    """Write a figure as PNG without a date in it (equal figures, equal bytes); returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=150, metadata={"Software": None})
    return path


def picture(ax: Axes, image: np.ndarray | torch.Tensor, title: str = "", **kwargs: Any) -> None:
    """Show an image (3,H,W) in [0, 1] or uint8, or a map (H,W), without axes."""
    array = np.asarray(image)
    ax.imshow(
        np.moveaxis(array, 0, -1) if array.ndim == 3 else array, interpolation="nearest", **kwargs
    )
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
    """Share of the pixels each process changes, and share of a model's squared error that lies
    there, by preset.

    Empty axes where no process is known.
    """
    rows = [row for row in rows if row["model"] == model and "share_crop" in row]
    fig, axes = figure(1, 2, 8, 2.8, sharey=True)
    place = np.arange(len(PROCESS_NAMES))
    thick = 0.8 / max(len(rows), 1)
    for i, row in enumerate(rows):
        area = np.array([row[f"share_{name}"] for name in PROCESS_NAMES])
        error = area * np.array([row[f"mse_{name}"] for name in PROCESS_NAMES]) / row["mse"]
        for ax, value in zip(axes[0], (area, error), strict=True):
            ax.barh(
                place + i * thick,
                100 * value,
                thick,
                label=row["preset"],
                color=(ACCENT, WARM)[i % 2],
            )
    axes[0, 0].set(
        yticks=place + 0.4 - thick / 2,
        yticklabels=PROCESS_NAMES,
        xlabel="% of the pixels that change so",
    )
    axes[0, 1].set(xlabel=f"% of the squared error of {model}")
    axes[0, 0].invert_yaxis()
    if rows:
        axes[0, 1].legend(fontsize=8, frameon=False)
    return fig


def embedding_drift(cubes: Sequence[xr.Dataset], step: int = 4, limit: int = 4) -> Figure:
    """Histogram of the cosine between the embeddings of one pixel in successive years, with and
    without change of cover.

    `step`: every so many pixels of the first `limit` cubes; those without embeddings are passed
    over.
    """
    from satjepa.data.alphaearth import decode_alphaearth

    same = []
    changed = []
    for cube in (cube for cube in cubes[:limit] if "emb" in cube):
        vectors = np.stack(
            [decode_alphaearth(q[:, ::step, ::step]) for q in cube["emb"].values]
        )  # (Y, 64, h, w)
        cosine = (vectors[1:] * vectors[:-1]).sum(1)
        moved = (
            cube["process"].values[1:, ::step, ::step] > 0
            if "process" in cube
            else np.zeros(cosine.shape, bool)
        )
        same.append(cosine[~moved])
        changed.append(cosine[moved])
    fig, axes = figure(1, 1, 6.5, 2.6)
    for values, label, colour in (
        (same, "nothing changed", ACCENT),
        (changed, "the cover changed", WARM),
    ):
        values = np.concatenate([np.zeros(0), *values])
        if len(values):
            axes[0, 0].hist(
                values,
                bins=np.linspace(0, 1, 81),
                density=True,
                alpha=0.7,
                color=colour,
                label=f"{label} (median {np.median(values):.2f})",
            )
    axes[0, 0].set(xlabel="cosine between years t and t+1", yticks=[])
    if same:
        axes[0, 0].legend(fontsize=8, frameon=False)
    return fig


def captioned(data: PairDataset, captions: Mapping[PatchKey, Captions], count: int = 4) -> Figure:
    """`count` images of a dataset, evenly spread, with the three captions of each."""
    keys = data.keys()
    fig, axes = figure(count, 2, 10, 2.1 * count, width_ratios=[1, 3.6])
    for row, i in zip(axes, spread_evenly(len(keys), count), strict=True):
        picture(row[0], data.image(keys[i])[0], f"{keys[i][1]} {keys[i][2]}")
        texts = captions[keys[i]]._asdict().items()
        words = "\n\n".join(textwrap.fill(f"{kind}:  {text}", 100) for kind, text in texts)
        row[1].text(0, 0.5, words, va="center", fontsize=8.5, color=INK)
        row[1].axis("off")
    return fig


def reconstructions(images: torch.Tensor, decoded: torch.Tensor, limit: int = 8) -> Figure:
    """Originals above what the VAE makes of them, (B,3,H,W) each, and below them the error ten
    times enlarged.
    """
    limit = min(limit, len(images))
    fig, axes = figure(3, limit, 1.25 * limit, 4.0)
    for column in range(limit):
        picture(axes[0, column], images[column])
        picture(axes[1, column], decoded[column])
        picture(axes[2, column], (10 * (images[column] - decoded[column]).abs()).clamp(0, 1))
    for ax, label in zip(axes[:, 0], ("image", "VAE", "error x10"), strict=True):
        ax.set_ylabel(label, fontsize=9)
    return fig


def curves(log: pd.DataFrame, parts: Mapping[str, str], smooth: int = 5) -> Figure:
    """Curves of a training log over `step`: one panel for each column of `parts` (column -> title),
    with a running mean.
    """
    fig, axes = figure(1, len(parts), 2.7 * len(parts), 2.4)
    for ax, (column, title) in zip(axes[0], parts.items(), strict=True):
        ax.plot(log["step"], log[column], color=MUTED, lw=0.6)
        ax.plot(
            log["step"], log[column].rolling(smooth, min_periods=1).mean(), color=ACCENT, lw=1.6
        )
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("step", fontsize=8)
    return fig


def grid(columns: Mapping[str, torch.Tensor], labels: Sequence[str] = ()) -> Figure:
    """Forecasts side by side: one row for each patch, one column for each entry (B,3,H,W) or map
    (B,H,W); maps share one scale.
    """
    count = len(next(iter(columns.values())))
    fig, axes = figure(count, len(columns), 1.45 * len(columns), 1.5 * count)
    for column, (title, images) in enumerate(columns.items()):
        scale = (
            {} if images.ndim == 4 else {"cmap": "magma", "vmin": 0, "vmax": float(images.max())}
        )
        for row in range(count):
            picture(axes[row, column], images[row], title if row == 0 else "", **scale)
    for ax, label in zip(axes[:, 0], labels, strict=False):
        ax.set_ylabel(label, fontsize=8)
    return fig


def lpips_column(table: pd.DataFrame) -> str:
    """The name of the LPIPS column: `lpips`, or `lpips_rand` where VGG16's weights could not be
    had.
    """
    return next(column for column in table if column in ("lpips", "lpips_rand"))


def bars(table: pd.DataFrame, columns: Mapping[str, str], highlight: str | None = None) -> Figure:
    """Horizontal bars: one panel for each column of `columns` (column -> title), one bar for each
    row of the table.
    """
    fig, axes = figure(
        1, len(columns), 2.2 + 2.0 * len(columns), 0.5 + 0.3 * len(table), sharey=True
    )
    colours = [WARM if name == highlight else ACCENT for name in table["model"]]
    for ax, (column, title) in zip(axes[0], columns.items(), strict=True):
        spread = table.get(f"{column}_std")
        ax.barh(
            table["model"],
            table[column],
            color=colours,
            xerr=None if spread is None else spread.fillna(0),
        )
        ax.set_title(title, fontsize=9)
    axes[0, 0].invert_yaxis()
    return fig


def ranks(counts: Sequence[float], title: str = "") -> Figure:
    """Rank histogram of an ensemble: flat if the truth is like another member, a U where the
    ensemble is too sure.
    """
    share = np.asarray(counts, float) / np.sum(counts)
    fig, axes = figure(1, 1, 4.5, 2.4)
    axes[0, 0].bar(range(len(share)), share, color=ACCENT)
    axes[0, 0].axhline(1 / len(share), color=WARM, lw=1.2)
    axes[0, 0].set(xlabel="members below the truth", ylabel="share of pixels", title=title)
    return fig


def training(log: pd.DataFrame) -> Figure:
    """The curves that tell whether a joint run is healthy; those of switched-off streams are left
    out.
    """
    parts = {
        "flow.mse": "flow: velocity error",
        "readout.mse": "read-out: tokens to latent",
        "ijepa.cosine": "AlphaEarth: 1 - cosine",
        "ijepa.feature": "features of t+1",
        "caption.cosine": "caption: 1 - cosine",
        "grad_norm": "gradient norm",
    }
    return curves(log, {name: title for name, title in parts.items() if name in log})

"""The inside of the model as pictures: tokens, maps over places, flow matching on a line, the
architecture. Each function returns a matplotlib Figure and loads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from satjepa.figures.architecture import absent, architecture, shapes, sizes
from satjepa.figures.plots import ACCENT, INK, MUTED, PROCESS_NAMES, WARM, figure, picture

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

__all__ = [
    "absent",
    "architecture",
    "histories",
    "levels",
    "one_sample",
    "patches",
    "pca_rgb",
    "row",
    "shapes",
    "sizes",
]
CHANGES = ("#eeeeee", "#e0b83c", "#3f8f4a", "#8a4a8f", "#3f7fb5", "#c8402f")  # none, then processes
NOTE = 8  # points


def pca_rgb(maps: Mapping[str, np.ndarray | torch.Tensor]) -> dict[str, np.ndarray]:
    """Vectors as colours: maps (D,h,w) -> images (3,h,w) in [0, 1], one basis for all of them.

    The three main directions of all vectors together become red, green and blue, each stretched
    from its 2nd to its 98th percentile: equal colours are equal vectors, whatever the map.
    """
    arrays = {name: np.asarray(value, float) for name, value in maps.items()}
    rows = np.concatenate([value.reshape(len(value), -1).T for value in arrays.values()])
    centre = rows.mean(0)
    directions = np.linalg.svd(rows - centre, full_matrices=False)[2][:3]
    # a direction has no sign of its own: the largest entry is made positive
    directions *= np.sign(directions[range(3), np.abs(directions).argmax(1)])[:, None]
    low, high = np.percentile((rows - centre) @ directions.T, [2, 98], axis=0)
    images = {}
    for name, value in arrays.items():
        scores = (value.reshape(len(value), -1).T - centre) @ directions.T
        colours = np.clip((scores - low) / np.maximum(high - low, 1e-9), 0, 1)
        images[name] = colours.T.reshape(3, *value.shape[1:])
    return images


def row(
    panels: Mapping[str, np.ndarray | torch.Tensor],
    label: str = "",
    bounds: tuple[float, float] | None = None,
    cmap: str = "viridis",
    width: float = 1.75,
) -> Figure:
    """Panels side by side: images (3,h,w) in [0, 1], and maps (h,w) that share one scale and its
    colour bar.

    label: of the colour bar. bounds: of the scale; default: least and largest value of the maps.
    """
    arrays = {name: np.asarray(value) for name, value in panels.items()}
    maps = [value for value in arrays.values() if value.ndim == 2]
    if bounds is None and maps:
        bounds = (min(m.min() for m in maps), max(m.max() for m in maps))
    lines = max(title.count("\n") for title in panels)
    space = 0.9 if maps else 0.0
    fig, axes = figure(1, len(panels), width * len(panels) + space, width + 0.35 + 0.15 * lines)
    for ax, (title, value) in zip(axes[0], arrays.items(), strict=True):
        scale = {} if value.ndim == 3 else {"cmap": cmap, "vmin": bounds[0], "vmax": bounds[1]}
        picture(ax, value, title, **scale)
        if value.ndim == 2:
            last = ax.images[0]
    if maps:
        bar = fig.colorbar(last, ax=axes[0].tolist(), fraction=0.03, pad=0.01)
        bar.set_label(label, fontsize=NOTE)
        bar.ax.tick_params(labelsize=NOTE - 1)
        bar.outline.set_visible(False)
    return fig


def one_sample(
    past: Sequence[torch.Tensor], rgb_t: torch.Tensor, rgb_tp1: torch.Tensor,
    embedding: torch.Tensor, process: torch.Tensor,
) -> Figure:  # fmt: skip
    """One sample of a batch: what is known (past years, most recent first, and year t), and what is
    asked for: the image of t+1, its AlphaEarth vectors (64,H,W) as colours, and what changed (H,W).
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    known = {f"t-{lag}": image for lag, image in enumerate(past, 1)}
    known = dict(reversed(known.items())) | {"t": rgb_t}
    columns = len(known) + 3
    fig, axes = figure(1, columns, 1.75 * columns, 2.5)
    for ax, (name, image) in zip(axes[0], known.items(), strict=False):
        picture(ax, image, f"year {name}")
    asked = axes[0][len(known) :]
    picture(asked[0], rgb_tp1, "year t+1")
    picture(asked[1], pca_rgb({"emb": embedding})["emb"], "AlphaEarth(t+1)")
    colours = ListedColormap(CHANGES)
    picture(asked[2], process, "what changed", cmap=colours, vmin=0, vmax=len(CHANGES) - 1)
    for ax, text in ((axes[0, 0], "known"), (asked[0], "asked for")):
        ax.set_xlabel(text, fontsize=9, color=MUTED)
    names = ("nothing", *PROCESS_NAMES)
    handles = [Patch(color=colour, label=name) for colour, name in zip(CHANGES, names, strict=True)]
    fig.legend(handles=handles, loc="outside lower right", ncols=6, fontsize=NOTE, frameon=False)
    return fig


def patches(image: torch.Tensor, size: int, maps: Mapping[str, torch.Tensor]) -> Figure:
    """An image (3,H,W) cut into patches of `size` pixels, and token maps (D,g,g) as colours in one
    basis.
    """
    fig, axes = figure(1, 1 + len(maps), 1.9 * (1 + len(maps)), 2.3)
    picture(axes[0, 0], image, f"{image.shape[-1] // size} x {image.shape[-1] // size} patches")
    for line in range(size, image.shape[-1], size):
        axes[0, 0].axhline(line - 0.5, color="white", lw=0.6)
        axes[0, 0].axvline(line - 0.5, color="white", lw=0.6)
    for ax, (title, colours) in zip(axes[0, 1:], pca_rgb(maps).items(), strict=True):
        picture(ax, colours, title)
    return fig


def histories(
    paths: Mapping[str, tuple[torch.Tensor, torch.Tensor]], peaks: Sequence[float]
) -> Figure:
    """Flow matching on a line: positions (K+1,n) against noise levels (K+1,), one panel an entry,
    and at the right of each where its points end, beside the `peaks` that the data have.
    """
    fig, axes = figure(1, 2 * len(paths), 2.5 * len(paths), 2.6, width_ratios=[4, 1] * len(paths),
                       sharey=True)  # fmt: skip
    bins = np.linspace(-3, 3, 61)
    for i, (title, (levels, places)) in enumerate(paths.items()):
        path, ends = axes[0, 2 * i : 2 * i + 2]
        path.plot(np.asarray(levels), np.asarray(places)[:, :60], color=ACCENT, lw=0.5, alpha=0.5)
        path.set_xlim(1, 0)
        path.set_title(title, fontsize=9, color=INK)
        path.set_xlabel("noise level σ", fontsize=NOTE)
        ends.hist(np.asarray(places)[-1], bins, orientation="horizontal", color=WARM)
        ends.axis("off")
        for peak in peaks:
            path.axhline(peak, color=MUTED, lw=0.7, ls=":")
    axes[0, 0].set(ylim=(-3, 3))
    axes[0, 0].set_ylabel("z", fontsize=9)
    return fig


def levels(rows: Mapping[str, Sequence[torch.Tensor]], titles: Sequence[str]) -> Figure:
    """Rows of images (3,H,W) under the same column titles."""
    fig, axes = figure(len(rows), len(titles), 1.6 * len(titles) + 0.6, 1.72 * len(rows) + 0.1)
    for number, (line, (name, images)) in enumerate(zip(axes, rows.items(), strict=True)):
        for ax, image, title in zip(line, images, titles, strict=True):
            picture(ax, image, "" if number else title)
        line[0].set_ylabel(name, fontsize=NOTE + 0.5, color=INK)
    return fig

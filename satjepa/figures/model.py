"""The inside of the model as pictures: tokens, maps over places, flow matching on a line, the
architecture. Each function returns a matplotlib Figure and loads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from satjepa.figures.plots import ACCENT, INK, MUTED, PROCESS_NAMES, WARM, figure, picture

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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


def sizes(table: Any) -> Figure:
    """Parameters of each part of a model, of which some train: a table with columns `parameters`
    and `trained`, as `satjepa.pipeline.notebook.parameter_table` makes it; its total is left out.
    """
    parts = table.drop(index="total", errors="ignore")
    fig, axes = figure(1, 1, 7, 0.6 + 0.27 * len(parts))
    ax = axes[0, 0]
    names = [*parts.index]
    ax.barh(names, parts["parameters"] / 1e6, color=MUTED, label="frozen", alpha=0.6)
    ax.barh(names, parts["trained"] / 1e6, color=WARM, label="trained")
    for place, (whole, trained) in enumerate(
        zip(parts["parameters"], parts["trained"], strict=True)
    ):
        ax.text(whole / 1e6, place, f"  {trained:,.0f} of {whole:,.0f}", va="center", fontsize=NOTE)
    ax.set_xlabel("million parameters", fontsize=NOTE)
    ax.set_xlim(0, 1.35 * parts["parameters"].max() / 1e6)
    ax.invert_yaxis()
    ax.legend(fontsize=NOTE, frameon=False, loc="upper right")
    return fig


# centre x, centre y, width of every box; drawn on a board of 12.6 x 4.8
BOXES = {
    "RGB(t)": (1.1, 4.3, 1.7),
    "past years": (1.1, 3.3, 1.7),
    "three captions": (1.1, 1.9, 1.7),
    "I-JEPA encoder": (3.6, 3.8, 1.9),
    "predictor": (6.1, 3.8, 1.9),
    "CLIP x2 + T5": (3.6, 1.9, 1.9),
    "caption forecaster": (6.1, 2.4, 1.9),
    "adapter": (8.7, 3.1, 1.8),
    "noise": (6.1, 0.6, 1.9),
    "SD 3.5 + LoRA": (8.7, 0.6, 1.8),
    "VAE decoder": (11.3, 0.6, 1.8),
    "RGB(t+1)": (11.3, 1.9, 1.8),
}
ARROWS = (
    ("RGB(t)", "I-JEPA encoder"),
    ("past years", "I-JEPA encoder"),
    ("I-JEPA encoder", "predictor"),
    ("predictor", "adapter"),
    ("three captions", "CLIP x2 + T5"),
    ("CLIP x2 + T5", "caption forecaster"),
    ("predictor", "caption forecaster"),
    ("caption forecaster", "adapter"),
    ("adapter", "SD 3.5 + LoRA"),
    ("noise", "SD 3.5 + LoRA"),
    ("SD 3.5 + LoRA", "VAE decoder"),
    ("VAE decoder", "RGB(t+1)"),
)
FROZEN = ("CLIP x2 + T5", "SD 3.5 + LoRA", "VAE decoder")
EDGES = (MUTED, ACCENT, WARM)
GIVEN = ("RGB(t)", "past years", "three captions", "noise", "RGB(t+1)")


def architecture(shapes: Mapping[str, str] | None = None, absent: Sequence[str] = ()) -> Figure:
    """The model as boxes and arrows, with the shape of what leaves each box (a name of `BOXES` ->
    text); what is `absent` is dashed. ValueError for a box that does not exist.
    """
    shapes = shapes or {}
    if unknown := sorted({*shapes, *absent} - set(BOXES)):
        raise ValueError(f"no box {unknown[0]!r}; there are {', '.join(BOXES)}")
    fig, axes = figure(1, 1, 10.2, 3.9)
    ax = axes[0, 0]
    ax.set(xlim=(0, 12.6), ylim=(0.1, 4.8))
    ax.axis("off")
    for name, (x, y, width) in BOXES.items():
        shape = "" if name in absent else shapes.get(name, "")
        _box(ax, name, (x, y, width), shape, ":" if name in absent else "-")
    for start, end in ARROWS:
        _arrow(ax, BOXES[start], BOXES[end], ":" if {start, end} & {*absent} else "-")
    for height, (name, colour) in enumerate(zip(("data", "frozen", "trained"), EDGES, strict=True)):
        ax.text(11.3, 3.5 + 0.4 * height, name, color=colour, fontsize=9, ha="center")
    return fig


def _box(ax: Axes, name: str, place: tuple[float, float, float], shape: str, line: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y, width = place
    colour = MUTED if name in GIVEN else ACCENT if name in FROZEN else WARM
    corner = (x - width / 2, y - 0.33)
    ax.add_patch(
        FancyBboxPatch(
            corner, width, 0.66, "round,pad=0.04", ec=colour, fc="white", lw=1.4, ls=line
        )
    )
    ax.text(x, y + (0.13 if shape else 0), name, ha="center", va="center", fontsize=9, color=INK)
    if shape:
        ax.text(x, y - 0.17, shape, ha="center", va="center", fontsize=7.5, color=MUTED)


def _arrow(
    ax: Axes, start: tuple[float, float, float], end: tuple[float, float, float], line: str
) -> None:
    """From the side of one box to the nearest side of another; straight down where they stand one
    above the other.
    """
    (x0, y0, w0), (x1, y1, w1) = start, end
    if abs(x1 - x0) < 0.5:
        step = np.sign(y1 - y0) * 0.4
        ends = (x0, y0 + step), (x1, y1 - step)
    else:
        ends = (x0 + w0 / 2 + 0.06, y0), (x1 - w1 / 2 - 0.06, y1)
    style = {"arrowstyle": "-|>", "color": INK, "lw": 1.0, "ls": line, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", xy=ends[1], xytext=ends[0], arrowprops=style)


def shapes(model: Any) -> dict[str, str]:
    """The shape of what leaves each box of `architecture`; none for the
    published variant, whose adapter is another.
    """
    p = model.params
    if p.model.variant == "published":
        return {}
    side = p.data.patch
    latent = model.backbone.latent_size(side)
    places = len(model.adapter.positions)
    joint = model.adapter.empty_hidden.shape[-1]
    lengths = model.adapter.lengths
    length = lengths[2]
    read = places // p.model.context_merge**2
    tokens = f"(B, {places}, {p.model.encoder.dim})"
    image = f"(B, 3, {side}, {side})"
    noise = f"(B, {model.backbone.latent_channels}, {latent}, {latent})"
    return {
        "RGB(t)": image,
        "past years": f"(B, {p.data.history}, 3, {side}, {side})",
        "I-JEPA encoder": tokens,
        "predictor": tokens,
        "CLIP x2 + T5": f"(B, 3, {max(lengths)}, {joint})",
        "caption forecaster": f"(B, {length}, {joint})",
        "adapter": f"(B, {read} + {length}, {joint})",
        "noise": noise,
        "SD 3.5 + LoRA": noise,
        "VAE decoder": image,
        "RGB(t+1)": image,
    }


def absent(model: Any) -> list[str]:
    """The boxes of `architecture` that a model has not: those of a stream
    that its arm does without, and the past years where it is told none.
    """
    m = model.params.model
    boxes = []
    if not m.use_jepa:
        boxes += ["past years", "I-JEPA encoder", "predictor"]
    elif m.variant == "published" or not model.params.data.history:
        boxes += ["past years"]
    if not m.use_captions:
        boxes += ["three captions", "CLIP x2 + T5", "caption forecaster"]
    return boxes

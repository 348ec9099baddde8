"""The architecture as a picture: the shape of what leaves each box, and what of it is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from satjepa.figures.plots import ACCENT, INK, MUTED, WARM, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOTE = 8  # points


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
    "reader": (8.7, 3.8, 1.8),
    "adapter": (8.7, 2.4, 1.8),
    "noise": (6.1, 0.6, 1.9),
    "SD 3.5 + LoRA": (8.7, 0.6, 1.8),
    "VAE decoder": (11.3, 0.6, 1.8),
    "RGB(t+1)": (11.3, 1.9, 1.8),
}


ARROWS = (
    ("RGB(t)", "I-JEPA encoder"),
    ("past years", "I-JEPA encoder"),
    ("I-JEPA encoder", "predictor"),
    ("predictor", "reader"),
    ("caption forecaster", "reader"),
    ("reader", "adapter"),
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
    x0, y0, w0 = start
    x1, y1, w1 = end
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
        "reader": f"(B, {places}, {64 * model.cells**2})",
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
    if m.variant == "published" or model.reader is None:
        boxes += ["reader"]
    return boxes

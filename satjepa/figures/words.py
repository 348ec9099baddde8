"""Captions and their embeddings as pictures: covers, words, states, cosines. Each function returns
a matplotlib Figure and loads nothing.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from satjepa.figures.plots import ACCENT, INK, MUTED, WARM, figure, picture

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from satjepa.contracts import Captions

COVER_COLOURS = {
    "water": "#3f7fb5",
    "forest": "#1f5c33",
    "scrub": "#8f9a4a",
    "green crops": "#5fae45",
    "grass": "#a8c96a",
    "yellow crops": "#e8cf3d",
    "pale soil": "#e3cfa0",
    "brown soil": "#a0764e",
    "dry trees": "#b5603a",
    "pasture": "#6f9a68",
    "building site": "#f2a3a3",
    "burnt ground": "#33262b",
    "young trees": "#3f8f4a",
    "buildings": "#8d8d97",
    "cloud": "#ffffff",
    "clearing": "#c98b5a",
    "bare shore": "#d8c7a9",
    "marsh": "#5b8f8a",
}
COLUMNS = 74  # characters of a line of sentences
NOTE = 8  # points


def cover_and_sentences(image: torch.Tensor, cover: np.ndarray, texts: Captions,
                        names: Sequence[str]) -> Figure:  # fmt: skip
    """From colour to words: an image (3,H,W), the cover of each pixel (H,W) as an index into
    `names`, -1 for none, with a legend, and the three sentences; the name of a cover in them has
    the colour of its area.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    fig, axes = figure(1, 4, 11.4, 2.7, width_ratios=[1, 1, 0.62, 2.35])
    picture(axes[0, 0], image, "the image")
    colours = ListedColormap(["#dddddd", *(COVER_COLOURS[name] for name in names)])
    picture(axes[0, 1], cover + 1, "its cover map", cmap=colours, vmin=0, vmax=len(names))
    share = np.bincount(cover[cover >= 0], minlength=len(names)) / max((cover >= 0).sum(), 1)
    present = [i for i in np.argsort(-share, kind="stable") if share[i] >= 0.005]
    handles = [
        Patch(fc=COVER_COLOURS[names[i]], ec=MUTED, lw=0.4, label=f"{names[i]} {share[i]:.0%}")
        for i in present
    ]
    axes[0, 2].legend(
        handles=handles, loc="center left", borderaxespad=0, fontsize=NOTE - 0.5, frameon=False
    )
    axes[0, 2].axis("off")
    _sentences(axes[0, 3], texts)
    return fig


def _sentences(ax: Axes, texts: Captions) -> None:
    """The three texts of a patch in a fixed-width font, names of covers on their colour."""
    ax.axis("off")
    lines: list[tuple[str, bool]] = []
    for kind, text in texts._asdict().items():
        lines.append((kind, True))
        lines += [(line, False) for line in wrapped(text)]
        lines.append(("", False))
    ax.set(xlim=(0, COLUMNS), ylim=(len(lines) - 0.5, -0.5))
    style = {"va": "center", "family": "monospace", "fontsize": 7.7}
    for number, (line, heading) in enumerate(lines):
        for start, piece, cover in spans(line):
            box = {"fc": COVER_COLOURS[cover], "ec": "none", "pad": 1.0} if cover else None
            colour = "white" if cover and dark(COVER_COLOURS[cover]) else INK
            ax.text(start, number, piece, bbox=box, color=MUTED if heading else colour, **style)


def wrapped(text: str) -> list[str]:
    """A text in lines of at most `COLUMNS` characters; the name of a cover is never cut in two."""
    for name in COVER_COLOURS:
        text = re.sub(name, lambda match: match[0].replace(" ", "\u00a0"), text, flags=re.I)
    return [line.replace("\u00a0", " ") for line in textwrap.wrap(text, COLUMNS)]


def spans(line: str) -> list[tuple[int, str, str]]:
    """A line cut at the names of covers: (first character, piece, cover or "") of each piece."""
    pattern = "|".join(sorted(COVER_COLOURS, key=len, reverse=True))
    pieces = []
    end = 0
    for match in re.finditer(rf"\b(?:{pattern})\b", line, re.IGNORECASE):
        if match.start() > end:
            pieces.append((end, line[end : match.start()], ""))
        pieces.append((match.start(), match[0], match[0].lower()))
        end = match.end()
    if line[end:]:
        pieces.append((end, line[end:], ""))
    return pieces


def dark(colour: str) -> bool:
    """Whether white text reads better on a colour (#rrggbb) than black."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return 0.3 * red + 0.59 * green + 0.11 * blue < 120


def matrix(values: np.ndarray | torch.Tensor, labels: Sequence[str], title: str = "") -> Figure:
    """A square table (n,n) of cosines as colours, each with its number."""
    return matrices({title: values}, labels)


def matrices(tables: Mapping[str, np.ndarray | torch.Tensor], labels: Sequence[str]) -> Figure:
    """Square tables (n,n) of cosines side by side, one scale, each cell with its number."""
    arrays = {title: np.asarray(table) for title, table in tables.items()}
    low = min(table.min() for table in arrays.values())
    side = 0.42 * len(labels) + 0.9
    fig, axes = figure(1, len(arrays), (side + 0.3) * len(arrays) + 0.5, side + 0.3, sharey=True)
    for ax, (title, table) in zip(axes[0], arrays.items(), strict=True):
        ax.imshow(table, cmap="YlGnBu", vmin=low, vmax=1)
        for (i, j), value in np.ndenumerate(table):
            shade = "white" if value > (low + 1) / 2 + 0.1 * (1 - low) else INK
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color=shade)
        ax.set_xticks(range(len(labels)), labels, rotation=45, ha="right", fontsize=NOTE)
        ax.set_yticks(range(len(labels)), labels, fontsize=NOTE)
        ax.spines[:].set_visible(False)
        ax.set_title(title, fontsize=9, color=INK)
    return fig


def states(hidden: torch.Tensor, words: Sequence[str], limit: int = 128) -> Figure:
    """The states (L,D) of the L tokens of a text as a heat map: a row a token, the first `limit`
    channels.
    """
    shown = np.asarray(hidden)[: len(words), :limit]
    fig, axes = figure(1, 1, 8.6, 0.8 + 0.15 * len(shown))
    top = np.abs(shown).max()
    drawn = axes[0, 0].imshow(
        shown, cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto", interpolation="nearest"
    )
    axes[0, 0].set_yticks(range(len(shown)), words[: len(shown)], fontsize=7)
    axes[0, 0].set_xlabel("channel of the T5 state", fontsize=NOTE)
    bar = fig.colorbar(drawn, ax=axes[0, 0], fraction=0.03, pad=0.01)
    bar.ax.tick_params(labelsize=7)
    return fig


def changes(words: Sequence[str], series: Mapping[str, torch.Tensor]) -> Figure:
    """One bar a word and entry: by how much (L,) its state changes."""
    fig, axes = figure(1, 1, 9, 2.7)
    ax = axes[0, 0]
    thick = 0.8 / len(series)
    colours = (MUTED, WARM, ACCENT)
    for i, (name, values) in enumerate(series.items()):
        place = np.arange(len(words)) + i * thick
        ax.bar(place, np.asarray(values)[: len(words)], thick, color=colours[i % 3], label=name)
    ax.set_xticks(
        np.arange(len(words)) + 0.4 - thick / 2, words, rotation=90, fontsize=7, color=INK
    )
    ax.set_ylabel("change of the state", fontsize=NOTE)
    ax.legend(fontsize=NOTE, frameon=False)
    return fig


def lengths(counts: Mapping[str, Sequence[int]], limit: int) -> Figure:
    """Histogram of the number of tokens of texts, one curve a kind; the line is where they are
    cut.
    """
    fig, axes = figure(1, 1, 6, 2.2)
    top = max(limit, *(max(values) for values in counts.values())) + 2
    low = min(min(values) for values in counts.values()) - 1
    for (kind, values), colour in zip(counts.items(), (ACCENT, WARM, "#2a9d5c"), strict=False):
        axes[0, 0].hist(values, np.arange(low, top) + 0.5, color=colour, alpha=0.6, label=kind)
    axes[0, 0].axvline(limit + 0.5, color=INK, lw=1, ls=":")
    axes[0, 0].set_xlabel("T5 tokens", fontsize=NOTE)
    axes[0, 0].legend(fontsize=NOTE, frameon=False)
    return fig


def plane_of(vectors: np.ndarray | torch.Tensor) -> np.ndarray:
    """Vectors (n,D) on the plane of their two main directions, (n,2)."""
    rows = np.asarray(vectors, float)
    rows = rows - rows.mean(0)
    directions = np.linalg.svd(rows, full_matrices=False)[2][:2]
    directions *= np.sign(directions[range(2), np.abs(directions).argmax(1)])[:, None]
    return rows @ directions.T


def map_of_captions(points: Mapping[str, np.ndarray], covers: Sequence[str]) -> Figure:
    """Captions as points (n,2), one panel an entry, coloured by the main cover of their image."""
    fig, axes = figure(1, len(points), 3.3 * len(points) + 1.2, 3.1)
    kinds = [name for name in COVER_COLOURS if name in set(covers)]
    for ax, (title, places) in zip(axes[0], points.items(), strict=True):
        for kind in kinds:
            mine = np.array([cover == kind for cover in covers])
            ax.scatter(*places[mine].T, s=9, color=COVER_COLOURS[kind], label=kind, ec=INK, lw=0.15)
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, fontsize=9, color=INK)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(
        handles, labels, loc="outside right center", fontsize=NOTE, frameon=False, markerscale=2
    )
    return fig


def sentences(images: Sequence[torch.Tensor], titles: Sequence[str], texts: Sequence[str],
              width: float = 2.3, line: int = 38) -> Figure:  # fmt: skip
    """Images (3,H,W) side by side, each with its title and, below, its sentence in lines of at most
    `line` characters.
    """
    folded = ["\n".join(textwrap.wrap(text, line)) for text in texts]
    lines = max(text.count("\n") for text in folded) + 1
    fig, axes = figure(1, len(images), width * len(images), width + 0.3 + 0.13 * lines)
    for ax, image, title, text in zip(axes[0], images, titles, folded, strict=True):
        picture(ax, image, title)
        ax.set_xlabel(text, fontsize=NOTE - 1.5, color=INK, loc="left")
    return fig

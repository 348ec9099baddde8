"""Pictures of notebook 12: what a catalog offers, composites and their error, a forecast beside the
truth. Images are (3, h, w) in DN, reflectance x 10000, NaN where there is nothing.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from satjepa.figures.plots import ACCENT, INK, MUTED, WARM, figure, picture
from satjepa.region.grid import Window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from satjepa.pipeline.own_region import Walk
    from satjepa.region.assets import Image

NOTHING = 0.93  # grey of a pixel without a value
ZONE = 6  # degrees of longitude of a UTM zone
WIDE = 1.95  # inches of a picture: about a pixel of the screen for one of the demo
MARKS = (("o", "say: 1000 is to be taken off"), ("s", "say: nothing is"))


def show(fig: Figure, colours: int = 256) -> None:
    """Display a figure in a notebook as a PNG with a palette of so many colours: a third of the
    bytes of a picture of land, and to the eye the same. Equal figures, equal bytes.
    """
    from IPython.display import Image as Shown
    from IPython.display import display
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image as Picture

    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    drawn = Picture.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    buffer = io.BytesIO()
    kept = drawn.quantize(colours, Picture.Quantize.MEDIANCUT, dither=Picture.Dither.NONE)
    kept.save(buffer, "PNG", optimize=True)
    display(Shown(buffer.getvalue()))


def offer(asked: Walk, found: Mapping[int, Sequence[Image]]) -> Figure:
    """On the left the box, the grid and the images of a tile on the map; on the right every image:
    its day, its clouds, and what its metadata say of the offset.
    """
    fig, axes = figure(1, 2, 10.4, 3.3, width_ratios=[1, 1.75])
    _map(axes[0, 0], asked, [image for images in found.values() for image in images])
    _calendar(axes[0, 1], asked, found)
    return fig


def _map(ax: Axes, asked: Walk, images: Sequence[Image]) -> None:
    box = asked.request.box
    for number, tile in enumerate(sorted({image.tile for image in images})):
        outline = next(image.bbox for image in images if image.tile == tile)
        west, south, east, north = outline if len(outline) == 4 else np.take(outline, [0, 1, 3, 4])
        _outline(ax, (west, south, east, north), (ACCENT, WARM)[number % 2], tile)
    _outline(ax, (box.west, box.south, box.east, box.north), INK, "the box", lw=2)
    whole = asked.grid
    lon, lat = whole.lonlat(Window(0, 0, whole.width, whole.height))
    ax.plot(lon, lat, ".", ms=1.5, color=MUTED, label=f"the grid, {whole.crs}")
    west, east = ax.get_xlim()
    for border in np.arange(np.ceil(west / ZONE), np.floor(east / ZONE) + 1) * ZONE:
        ax.axvline(border, color=MUTED, lw=0.9, ls="--", label="border of UTM zones")
    ax.set_aspect(1 / np.cos(np.deg2rad(box.centre[1])))
    ax.set_xlabel("longitude", fontsize=8, color=INK)
    ax.set_ylabel("latitude", fontsize=8, color=INK)
    ax.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2,
              labelcolor=INK)  # fmt: skip


def _outline(ax: Axes, box: tuple[float, ...], colour: str, label: str, lw: float = 1.2) -> None:
    west, south, east, north = box
    xs = [west, east, east, west, west]
    ys = [south, south, north, north, south]
    ax.plot(xs, ys, color=colour, lw=lw, label=label)
    ax.fill(xs, ys, color=colour, alpha=0.06)


def _calendar(ax: Axes, asked: Walk, found: Mapping[int, Sequence[Image]]) -> None:
    """A line a year, a mark an image; those of one day lie above each other."""
    from matplotlib.colors import Normalize

    drawn = None
    known = [i.cloud for images in found.values() for i in images if i.cloud is not None]
    scale = Normalize(min(known, default=0), max(known, default=100))
    tiles = sorted({image.tile for images in found.values() for image in images})
    for (mark, label), stated in zip(MARKS, (True, False), strict=True):
        x = []
        y = []
        clouds = []
        for year, images in found.items():
            start, _ = asked.request.season.dates(year)
            for image in (one for one in images if (one.stated != 0) == stated):
                x.append((datetime.date.fromisoformat(image.when[:10]) - start).days)
                y.append(year + 0.22 * (tiles.index(image.tile) - (len(tiles) - 1) / 2))
                clouds.append(np.nan if image.cloud is None else image.cloud)
        look = {"marker": mark, "edgecolors": INK, "linewidths": 0.6, "s": 58, "label": label}
        drawn = ax.scatter(x, y, c=clouds, norm=scale, cmap="Blues_r", plotnonfinite=True, **look)
    start, end = asked.request.season.dates(max(found))
    first = [start + datetime.timedelta(days=n) for n in range((end - start).days + 1)]
    first = [day for day in first if day.day == 1]
    ax.set_xticks([(day - start).days for day in first], [f"1 {day:%b}" for day in first])
    ax.set_yticks(list(found))
    ax.invert_yaxis()
    bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.8, aspect=22)
    bar.set_label("% of clouds, by the metadata", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7, colors=INK)
    ax.legend(fontsize=7.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2,
              labelcolor=INK)  # fmt: skip


def row(images: Mapping[str, np.ndarray], white: float) -> Figure:
    """Images side by side, `white` DN shown as white."""
    fig, axes = figure(1, len(images), WIDE * len(images), WIDE + 0.25)
    for ax, (title, image) in zip(axes[0], images.items(), strict=True):
        picture(ax, _coloured(image, white), title)
    return fig


def _coloured(image: np.ndarray, white: float) -> np.ndarray:
    """An image in [0, 1], pale where it has nothing."""
    known = np.isfinite(image).all(0)
    return np.where(known, np.clip(np.nan_to_num(image) / white, 0, 1), NOTHING)


def through_clouds(
    image: np.ndarray, clear: np.ndarray, composite: np.ndarray, titles: Sequence[str], white: float
) -> Figure:
    """An image, what is kept of it (the rest is orange), and the composite of its season."""
    orange = np.array([int(WARM[i : i + 2], 16) for i in (1, 3, 5)])[:, None, None] / 255
    kept = np.where(clear, image, white * orange)
    return row(dict(zip(titles, (image, kept, composite), strict=True)), white)


def wrong(errors: Mapping[int, np.ndarray], most: float = 100) -> Figure:
    """Composite minus truth in DN: mean over the bands on the map, a year each, and how often which
    error occurs, per band, on a logarithmic scale.
    """
    fig, axes = figure(1, len(errors) + 1, WIDE * len(errors) + 3.2, WIDE + 0.15,
                       width_ratios=[*[1] * len(errors), 1.25])  # fmt: skip
    for ax, (year, values) in zip(axes[0], errors.items(), strict=False):
        look = {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
        picture(ax, values.mean(0), str(year), **look)
    bar = fig.colorbar(axes[0, 0].images[0], ax=axes[0, :-1], shrink=0.85, aspect=22)
    bar.set_label("DN too bright", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7, colors=INK)
    together = np.concatenate([values.reshape(3, -1) for values in errors.values()], 1)
    ax = axes[0, -1]
    for name, band in zip(("red", "green", "blue"), together, strict=True):
        known = band[np.isfinite(band)].astype(float)
        colour = {"red": WARM, "green": "#2a9d5c", "blue": ACCENT}[name]
        label = f"{name} {known.mean().round(1) + 0.0:+.1f}"  # 0.0 for -0.0
        ax.hist(known, np.linspace(-most, most, 81), histtype="step", color=colour, lw=1.3,
                density=True, label=label)  # fmt: skip
    ax.axvline(0, color=MUTED, lw=0.8, zorder=0)
    ax.set(yscale="log", yticks=[])
    ax.minorticks_off()
    ax.set_xlabel("composite minus truth, DN", fontsize=8, color=INK)
    ax.legend(title="mean, DN", title_fontsize=7.5, fontsize=7.5, frameon=False, labelcolor=INK,
              loc="upper left")  # fmt: skip
    return fig


def beside_truth(
    images: Mapping[str, np.ndarray], spread: np.ndarray, white: float, columns: int = 3
) -> Figure:
    """Images in rows of so many, and the spread of a forecast as the last picture, mean over the
    bands, in parts of white.
    """
    count = len(images) + 1
    lines = -(-count // columns)
    fig, axes = figure(lines, columns, WIDE * columns + 0.7, (WIDE + 0.25) * lines)
    for ax, (title, image) in zip(axes.flat, images.items(), strict=False):
        picture(ax, _coloured(image, white), title)
    for ax in axes.flat[count:]:
        ax.axis("off")
    ax = axes.flat[count - 1]
    values = spread.mean(0) / white
    picture(ax, values, "spread", cmap="magma", vmin=0, vmax=float(np.nanpercentile(values, 99.5)))
    bar = fig.colorbar(ax.images[0], ax=ax, shrink=0.8, aspect=18)
    bar.ax.tick_params(labelsize=7, colors=INK)
    return fig

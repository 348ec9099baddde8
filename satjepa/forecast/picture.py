"""A forecast to look at: the last image, the mean, the spread and three members; beside the truth,
where there is one, and the error of the mean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from satjepa.data.grid import upright
from satjepa.data.rasters import read_rgb, rgb_scale
from satjepa.data.stack import ForecastError, check_grid, whites_of, year_of
from satjepa.figures import plots
from satjepa.forecast.members import Members, Window
from satjepa.forecast.raster import Made
from satjepa.forecast.request import Request
from satjepa.paths import replaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 384  # pixels of a picture's window: more could not be told apart on paper
MEMBERS = 3  # shown
PAPER = 0.93  # grey of pixels without a value


@dataclass(frozen=True)
class View:
    """A window of a forecast, north up, on the display scale: float32, 0 is black and 1 white, NaN
    where there is no value.

    last (3,h,w): image of year t. mean, spread (3,h,w), members (M,3,h,w): forecast of t+1.
    truth (3,h,w): image of t+1, or None. year: t, None where it is not known. window, shape: where
    this lies, in a raster of so many rows and columns.
    """

    last: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    members: np.ndarray
    year: int | None
    window: Window
    shape: tuple[int, int]
    truth: np.ndarray | None = None


def middle(shape: tuple[int, int], side: int = SIDE) -> Window:
    """The window of at most `side` x `side` pixels in the middle of a raster of (rows, columns)."""
    height, width = (min(side, length) for length in shape)
    return (shape[1] - width) // 2, (shape[0] - height) // 2, width, height


def view_of(made: Made, members: Members, truth: np.ndarray | None = None) -> View:
    """The window of a forecast on which `members` were kept; truth (3,H,W): of `truth_of`."""
    window = members.window
    valid = _cut(made.stack.valid[0], window)

    def known(array: np.ndarray) -> np.ndarray:
        return np.where(valid, array, np.nan).astype(np.float32)

    return View(
        last=known(_cut(made.stack.rgb[0], window)),
        mean=known(_cut(made.mean, window)),
        spread=known(_cut(made.spread, window)),
        members=known(members.kept),
        year=made.stack.years[0],
        window=window,
        shape=made.shape,
        truth=None if truth is None else _cut(truth, window),
    )


def part_of(view: View, window: Window) -> View:
    """A window of a view of a whole raster."""
    arrays = {name: getattr(view, name) for name in ("last", "mean", "spread", "members", "truth")}
    parts = {name: _cut(array, window) for name, array in arrays.items() if array is not None}
    return replace(view, window=window, **parts)


def _cut(array: np.ndarray, window: Window) -> np.ndarray:
    left, top, width, height = window
    return array[..., top : top + height, left : left + width]


def check_truth(request: Request, truth: Path) -> None:
    """Raise what is wrong with the image of the forecast's year, as far as can be told before the
    work: ForecastError where its name says another year, GridMismatchError where it lies elsewhere
    than the images, what `rgb_scale` raises.
    """
    last = request.years[-1]
    named = year_of(truth)
    if None not in (last, named) and named != last + 1:
        raise ForecastError(
            f"{truth} is of {named} by its name, the forecast is of {last + 1}: name that image"
        )
    rgb_scale(truth)
    check_grid(request.place, request.images[-1], [truth])


def truth_of(made: Made, path: Path) -> np.ndarray:
    """The image of the forecast's year, (3,H,W) float32 on the display scale, north up, NaN where
    invalid. Raises what `check_truth` does.
    """
    check_truth(made.request, path)
    (white, _), _ = whites_of([path, made.request.images[-1]], made.stack.white)
    rgb, valid = read_rgb(path)
    image = np.where(valid, np.minimum(rgb / np.float32(white), 1), np.float32(np.nan))
    return upright(image, made.stack.turn)


def psnr(made: Made, truth: np.ndarray) -> tuple[float, float]:
    """Peak signal-to-noise ratio in dB of the mean of a forecast, and of its last image taken as
    the forecast (persistence), against truth (3,H,W) of `truth_of`; over pixels valid in both
    years, NaN where there are none.
    """
    import torch

    from satjepa.metrics.pixels import psnr_of

    height, width = made.shape
    known = made.stack.valid[0, :height, :width] & np.isfinite(truth).all(0)
    errors = [
        np.square((image[:, :height, :width] - truth)[:, known], dtype=np.float64)
        for image in (made.mean, made.stack.rgb[0])
    ]
    forecast, persistence = psnr_of(torch.tensor([error.mean() for error in errors])).tolist()
    return forecast, persistence


def draw(view: View) -> Figure:
    """The figure of a view: year t, mean and spread of the forecast above three members; with a
    truth, it and the error of the mean in a fourth column, on the scale of the spread.
    """
    year, names = _titles(view)
    columns = 3 if view.truth is None else 4
    height, width = view.last.shape[1:]
    fig, axes = plots.figure(2, columns, 2.6 * columns + 0.7, 5.2 * height / width + 0.7)
    plots.picture(axes[0, 0], _on_paper(view.last), names["last"])
    plots.picture(axes[0, 1], _on_paper(view.mean), names["mean"])
    spread = view.spread.mean(0)  # over the bands, (h,w)
    error = None if view.truth is None else np.abs(view.mean - view.truth).mean(0)
    top = max(float(np.nanpercentile(m, 99)) for m in (spread, error) if m is not None)
    _map(axes[0, 2], spread, names["spread"], top)
    for number, (ax, member) in enumerate(zip(axes[1], view.members[:MEMBERS], strict=False), 1):
        plots.picture(ax, _on_paper(member), f"{year}: member {number}")
    for ax in axes[1, len(view.members) : MEMBERS]:
        ax.set_axis_off()
    if error is not None:
        plots.picture(axes[0, 3], _on_paper(view.truth), names["truth"])
        _map(axes[1, 3], error, names["error"], top)
    bar = fig.colorbar(axes[0, 2].images[0], ax=axes, shrink=0.5, aspect=30, pad=0.01)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    label = "spread" if error is None else "spread and error"
    bar.set_label(f"{label}; 1 is black to white", fontsize=8, color=plots.INK)
    return fig


def _map(ax: Axes, values: np.ndarray, title: str, top: float) -> None:
    """A map (h,w) of spread or error; pixels without a value are left as the paper."""
    plots.picture(ax, values, title, cmap="magma", vmin=0, vmax=max(top, 1e-6))
    ax.set_facecolor(str(PAPER))


def _titles(view: View) -> tuple[str, dict[str, str]]:
    """The year of the forecast, and the title of each panel that is not a member."""
    last = view.year
    year = "next year" if last is None else str(last + 1)
    rows, columns = view.shape
    _, _, width, height = view.window
    part = (width, height) != (columns, rows)
    return year, {
        "last": ("last image" if last is None else f"{last}: last image")
        + (f"\nmiddle {width}x{height} of {columns}x{rows} px" if part else ""),
        "mean": f"{year}: forecast, mean",
        "spread": f"{year}: spread of the members",
        "truth": f"{year}: truth",
        "error": f"{year}: error of the mean",
    }


def _on_paper(image: np.ndarray) -> np.ndarray:
    """An image (3,h,w) in [0, 1], light grey where it has no value."""
    return np.where(np.isfinite(image), np.clip(image, 0, 1), PAPER)


def save_picture(view: View, path: str | Path) -> Path:
    """Write the figure of a view as PNG; equal views give equal bytes."""
    with replaced(path) as part:
        draw(view).savefig(part, format="png", dpi=110, metadata={"Software": None})
    return Path(path)

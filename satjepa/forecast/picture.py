"""A forecast to look at: the last image, the mean, the spread and three members; beside the truth,
where there is one, and the error of the mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from satjepa.data.rasters import rgb_scale
from satjepa.data.stack import ForecastError, check_grid, whites_of, year_of
from satjepa.figures import plots
from satjepa.forecast.made import Made
from satjepa.forecast.request import Request
from satjepa.forecast.scene import ROWS, Scene, Window
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


def view_of(made: Made, window: Window, truth: np.ndarray | None = None, ahead: int = 0) -> View:
    """The window of a forecast, whose members are kept on its columns; of the year after the next
    where `ahead` is 1, and so on. truth (3,h,w): of `truth_of`, on this window.
    """
    left, top, width, height = window
    columns = (..., slice(left, left + width))
    members = (..., slice(left - made.kept.left, left - made.kept.left + width))
    last = _last_of(made, top, top + height)
    mean, spread = made.moments(top, top + height, ahead)
    year = made.request.years[-1]
    kept = made.members(top, top + height, ahead)
    return View(
        last=last[columns].astype(np.float32),
        mean=mean[columns].astype(np.float32),
        spread=spread[columns].astype(np.float32),
        members=kept[members].astype(np.float32),
        year=year,
        window=window,
        shape=made.shape,
        truth=truth,
    )


def _last_of(made: Made, top: int, bottom: int) -> np.ndarray:
    """Rows of the last image, (3,h,W) float32 on the display scale, NaN where invalid."""
    stack = made.scene.read(top, bottom)
    return np.where(stack.valid[0], stack.rgb[0], np.float32(np.nan))


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


def truth_of(made: Made, path: Path) -> Scene:
    """The image of the forecast's year, of which windows can be read on the display scale, north
    up. Raises what `check_truth` does.
    """
    check_truth(made.request, path)
    (white, _), _ = whites_of([path, made.request.images[-1]], made.units.white)
    return Scene((path,), (None,), (white,), made.request.place)


def read_truth(truth: Scene, window: Window) -> np.ndarray:
    """A window (3,h,w) float32 of what `truth_of` found, NaN where invalid."""
    left, top, width, height = window
    rgb, valid = truth.raw(top, top + height)
    image = np.where(valid, np.minimum(rgb, 1), np.float32(np.nan))
    return image[..., left : left + width]


def psnr(made: Made, truth: Scene) -> tuple[float, float]:
    """Peak signal-to-noise ratio in dB of the mean of a forecast, and of its last image taken as
    the forecast (persistence), against the truth of `truth_of`; over pixels valid in both years,
    NaN where there are none.
    """
    return psnr_of_strips(_strips(made, truth))


def _strips(made: Made, truth: Scene) -> Iterator[tuple[np.ndarray, ...]]:
    """Mean, last image and truth, by rows."""
    height, width = made.shape
    for top in range(0, height, ROWS):
        bottom = min(top + ROWS, height)
        known = read_truth(truth, (0, top, width, bottom - top))
        yield made.moments(top, bottom)[0], _last_of(made, top, bottom), known


def psnr_of_strips(strips: Iterable[tuple[np.ndarray, ...]]) -> tuple[float, float]:
    """The same of strips of the scene: mean, last image and truth (3,h,W), NaN where invalid."""
    import torch

    from satjepa.metrics.pixels import psnr_of

    sums = np.zeros(2)
    count = 0
    for mean, last, truth in strips:
        known = np.isfinite(last).all(0) & np.isfinite(truth).all(0)
        count += 3 * int(known.sum())
        errors = [np.square((image - truth)[:, known], dtype=np.float64) for image in (mean, last)]
        sums += [error.sum() for error in errors]
    forecast, persistence = psnr_of(torch.tensor(sums / count if count else sums * np.nan)).tolist()
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

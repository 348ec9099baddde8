"""Figures show the numbers they are given: bars as long as their values, images where their titles
say.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from matplotlib.colors import to_hex

from satjepa.figures import plots


def pixels(ax) -> np.ndarray:
    """The image of an axes as it is drawn."""
    return np.asarray(ax.images[0].get_array())


def rows(**columns) -> pd.DataFrame:
    return pd.DataFrame({"model": ["a", "b"], **columns})


def test_equal_figures_are_equal_files(tmp_path: Path):
    first, second = (
        plots.save(plots.bars(rows(psnr=[1.0, 2.0]), {"psnr": "PSNR"}), tmp_path / name)
        for name in ("x/1.png", "2.png")
    )
    assert first.read_bytes() == second.read_bytes() and first.read_bytes()[:4] == b"\x89PNG"


def test_a_picture_has_its_bands_last_and_no_axes():
    axes = plots.figure(1, 2, 2, 1)[1]
    image = torch.rand(3, 4, 5)
    plots.picture(axes[0, 0], image, "title")
    plots.picture(axes[0, 1], image[0])
    assert np.array_equal(pixels(axes[0, 0]), image.permute(1, 2, 0).numpy())
    assert np.array_equal(pixels(axes[0, 1]), image[0].numpy())
    assert axes[0, 0].get_title() == "title" and not axes[0, 0].get_xticks().size


def test_a_grid_has_a_column_for_each_entry_and_one_scale_for_a_map():
    images = torch.rand(2, 3, 4, 4)
    spread = torch.tensor([0.1, 0.4])[:, None, None].expand(2, 4, 4)
    fig = plots.grid({"truth": images, "spread": spread}, ["north", "south"])
    top, top_map, bottom, bottom_map = fig.axes
    assert [ax.get_title() for ax in fig.axes] == ["truth", "spread", "", ""]
    assert [top.get_ylabel(), bottom.get_ylabel()] == ["north", "south"]
    assert np.array_equal(pixels(bottom), images[1].permute(1, 2, 0).numpy())
    assert (
        top_map.images[0].get_clim() == bottom_map.images[0].get_clim() == pytest.approx((0, 0.4))
    )


def test_bars_are_as_long_as_their_values():
    table = rows(psnr=[20.0, 21.0], psnr_std=[0.5, np.nan], lpips=[0.3, 0.2])
    left, right = plots.bars(table, {"psnr": "PSNR", "lpips": "LPIPS"}, highlight="b").axes
    assert [bar.get_width() for bar in left.patches] == [20.0, 21.0]
    assert [bar.get_width() for bar in right.patches] == [0.3, 0.2]
    assert [to_hex(bar.get_facecolor()) for bar in left.patches] == [plots.ACCENT, plots.WARM]
    whiskers = left.containers[0].lines[2][0].get_segments()
    assert [segment[:, 0].tolist() for segment in whiskers] == [[19.5, 20.5], [21.0, 21.0]]


def test_ranks_are_shares():
    (ax,) = plots.ranks([1, 2, 1]).axes
    assert [bar.get_height() for bar in ax.patches] == [0.25, 0.5, 0.25]
    assert ax.lines[0].get_ydata()[0] == pytest.approx(1 / 3)


def test_curves_are_smoothed_and_absent_streams_left_out():
    log = pd.DataFrame({"step": [1, 2, 3], "flow.mse": [3.0, 1.0, 2.0], "other": [0.0, 0.0, 0.0]})
    (ax,) = plots.training(log).axes
    assert ax.get_title() == "flow: velocity error"
    raw, smooth = (line.get_ydata().tolist() for line in ax.lines)
    assert raw == [3.0, 1.0, 2.0] and smooth == [3.0, 2.0, 2.0]


def test_reconstructions_enlarge_the_error_ten_times():
    images = torch.full((3, 3, 2, 2), 0.5)
    fig = plots.reconstructions(
        images, images + torch.tensor([0.01, 0.2, 0.0])[:, None, None, None], limit=2
    )
    assert len(fig.axes) == 6
    assert pixels(fig.axes[4]) == pytest.approx(0.1, abs=1e-5) and pixels(
        fig.axes[5]
    ) == pytest.approx(1.0)


def test_processes_by_area_and_by_error():
    """A quarter of the error on a tenth of the area; rows of other models, or without known
    processes, are no bars.
    """
    row = {
        "model": "p",
        "preset": "strong",
        "mse": 0.04,
        **dict.fromkeys((f"share_{n}" for n in plots.PROCESS_NAMES), 0.1),
    }
    row |= dict.fromkeys((f"mse_{n}" for n in plots.PROCESS_NAMES), 0.1)
    area, error = plots.processes(
        [row, row | {"model": "q"}, {"model": "p", "preset": "mine", "mse": 1.0}], "p"
    ).axes
    assert [bar.get_width() for bar in area.patches] == pytest.approx([10.0] * 5)
    assert [bar.get_width() for bar in error.patches] == pytest.approx([25.0] * 5)
    assert not list(plots.processes([], "p").axes[0].patches)


def cube(change: bool) -> xr.Dataset:
    """Two years of one 4x4 place whose embedding turns by 90 degrees where the cover changes: in
    the left half.
    """
    emb = np.zeros((2, 64, 4, 4), np.int8)
    emb[0, 0], emb[1, 0] = 127, 127
    emb[1, :, :, :2] = 0
    emb[1, 1, :, :2] = 127
    process = np.zeros((2, 4, 4), np.uint8)
    process[1, :, :2] = 1
    layers = {
        "emb": (("year", "band", "y", "x"), emb),
        "rgb": (("year", "c", "y", "x"), np.zeros((2, 3, 4, 4))),
    }
    layers |= {"process": (("year", "y", "x"), process)} if change else {}
    return xr.Dataset(layers, {"year": [2020, 2021]}, {"region": "North"})


def test_drift_of_embeddings_with_and_without_change():
    (ax,) = plots.embedding_drift([cube(True)], step=1).axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "nothing changed (median 1.00)",
        "the cover changed (median 0.00)",
    ]
    (ax,) = plots.embedding_drift([cube(False)], step=1).axes
    assert len(ax.get_legend().get_texts()) == 1
    assert plots.embedding_drift([cube(True).drop_vars("emb")]).axes[0].get_legend() is None


def test_the_last_years_of_the_last_regions():
    fig = plots.years(
        {"strong": [cube(True).assign_attrs(region="South"), cube(True)]}, years=1, regions=1
    )
    (ax,) = fig.axes
    assert ax.get_title() == "2021" and ax.get_ylabel() == "North\nstrong"

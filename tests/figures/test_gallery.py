"""The gallery of all systems: what its numbers mean, and that each system is drawn where it
stands.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.text import Text

from satjepa.figures import gallery, table_plots


def world(members: int, spread: float, truth: float) -> tuple[torch.Tensor, torch.Tensor]:
    """An ensemble and a truth that scatter about the same places, by different amounts."""
    g = torch.Generator().manual_seed(0)
    centre = torch.rand(6, 1, 32, 32, generator=g).expand(6, 3, 32, 32)
    own = torch.rand(6, 3, 32, 32, generator=g) + 0.05  # how uncertain a pixel is
    scatter = torch.randn(members + 1, 6, 3, 32, 32, generator=g) * own
    return centre + spread * scatter[1:], centre + truth * scatter[0]


def batch_of(target: torch.Tensor) -> dict:
    meta = [{"region": f"R{i}", "year": 2020} for i in range(len(target))]
    ok = torch.ones(len(target), 1, *target.shape[-2:], dtype=torch.bool)
    both = {"rgb_t": target.flip(-1).clamp(0, 1), "rgb_tp1": target.clamp(0, 1)}
    return both | {"valid_t": ok, "valid_tp1": ok.clone(), "meta": meta}


def test_a_reliable_ensemble_keeps_the_line_and_a_sure_one_does_not():
    everywhere = torch.ones(6, 1, 32, 32, dtype=torch.bool)
    spread, error = gallery.binned(*world(8, 0.1, 0.1), everywhere, bins=5)
    assert (np.diff(spread) > 0).all() and error == pytest.approx(spread, rel=0.25)
    spread, error = gallery.binned(*world(8, 0.05, 0.1), everywhere, bins=5)
    assert (error > 1.3 * spread).all()


def test_a_hole_counts_nowhere():
    members, target = world(4, 0.1, 0.1)
    valid = torch.ones(6, 1, 32, 32, dtype=torch.bool)
    valid[:, :, 8:] = False
    holed = torch.where(valid, target, 9.0)
    for a, b in zip(
        gallery.binned(members, holed, valid, 4),
        gallery.binned(members, target, valid, 4),
        strict=True,
    ):
        assert np.array_equal(a, b)
    batch = batch_of(target) | {"valid_t": valid}
    worse = batch | {"rgb_tp1": torch.where(valid, batch["rgb_tp1"], 9.0)}
    for one, other in zip(
        *(gallery.reliability({"e": members}, b, 4).axes for b in (batch, worse)), strict=True
    ):
        assert np.array_equal(one.lines[0].get_ydata(), other.lines[0].get_ydata())


def test_all_ensembles_are_drawn_and_ours_first():
    members, target = world(3, 0.1, 0.1)
    made = {f"system {i}": members for i in range(8)} | {gallery.OURS: members}
    labels = [
        line.get_label() for line in gallery.reliability(made, batch_of(target), 4).axes[1].lines
    ]
    assert labels[:9] == [gallery.OURS, *(f"system {i}" for i in range(8))]


def test_only_ensembles_are_asked_for_reliability():
    members, target = world(4, 0.1, 0.1)
    fig = gallery.reliability({"many": members, "one": members[:1]}, batch_of(target), bins=4)
    left, right = fig.axes
    assert [line.get_label() for line in right.lines if not line.get_label().startswith("_")] == [
        "many"
    ]
    ranks = left.lines[0].get_ydata()
    assert len(ranks) == 5 and ranks.mean() == pytest.approx(1)


def test_pictures_and_errors_stand_under_their_system():
    _, target = world(1, 0.1, 0.1)
    batch = batch_of(target)
    made = {
        "persistence": batch["rgb_t"][None],
        "right": batch["rgb_tp1"][None],
        gallery.OURS: batch["rgb_t"][None],
    }
    fig = gallery.systems(made, batch, rows=2)
    titles = [ax.get_title() for ax in fig.axes[:4]]
    assert (
        titles == ["year t", "truth,\nyear t+1", "right", "ours,\nzero-RGB"] and len(fig.axes) == 8
    )
    shown = np.asarray(fig.axes[2].images[0].get_array())
    assert np.allclose(shown, batch["rgb_tp1"][0].permute(1, 2, 0).numpy())
    maps = gallery.errors(made, batch, rows=2).axes
    of = {ax.get_title(): np.asarray(ax.images[0].get_array()) for ax in maps[:4]}
    black = np.asarray(of["right"]).max()
    assert black < 0.02 < of["Default\n(persistence)"].mean()


# ---- where each system stands in the table ----


def marks(ax) -> list[tuple]:
    """(x, y, marker, filled) of every point of an axes, in the order they were drawn."""
    points = [line for line in ax.lines if line.get_linestyle() == "None"]
    filled = [to_hex(line.get_markerfacecolor()) != "#ffffff" for line in points]
    pairs = zip(points, filled, strict=True)
    return [
        (*(float(v[0]) for v in line.get_data()), line.get_marker(), full) for line, full in pairs
    ]


def table(*models: str, **columns) -> pd.DataFrame:
    return pd.DataFrame({"model": models, **columns})


@pytest.mark.parametrize("column", ["lpips", "lpips_rand"])
def test_the_plane_puts_each_row_at_its_numbers(column: str):
    """Whichever LPIPS was measured; a random trunk's is called so on the axis."""
    names = ("Mean colour", f"{gallery.OURS}, mean of 8", f"{gallery.OURS}, one sample")
    (ax,) = gallery.plane(table(*names, psnr=[20.0, 22.0, 21.0], **{column: [0.3, 0.1, 0.2]})).axes
    assert marks(ax) == [(20, 0.3, "s", True), (22, 0.1, "D", True), (21, 0.2, "D", False)]
    assert [(text.get_text(), text.xy) for text in ax.texts] == [
        ("1", (20, 0.3)),
        ("2", (22, 0.1)),
        ("2", (21, 0.2)),
    ]
    said = [text.get_text().split() for text in ax.get_legend().get_texts()[:2]]
    assert said == [["1", "Mean", "colour"], ["2", *gallery.OURS.split()]]
    joined = [line.get_xydata().tolist() for line in ax.lines if line.get_linestyle() == "-"]
    assert joined == [[[20, 0.3]], [[22, 0.1], [21, 0.2]]]
    assert f"{column.upper()} (" in ax.get_ylabel()


def test_numbers_of_the_plane_cover_neither_each_other_nor_a_point():
    """Many systems in one place, as in the experiment's table, some beside it and some in a
    column.
    """
    psnr = [17.0] * 12 + [17.0 + 0.1 * i for i in range(8)] + [20.0] * 8 + [25.0]
    lpips = [0.4] * 20 + [0.3 - 0.01 * i for i in range(8)] + [0.1]
    names = [f"system {i}" for i in range(len(psnr))]
    fig = gallery.plane(table(*names, psnr=psnr, lpips=lpips))
    fig.draw_without_rendering()
    (ax,) = fig.axes
    assert ax.get_legend().get_window_extent().y0 > 0, "the legend is cut off"
    extents = [Text.get_window_extent(text) for text in ax.texts]  # without the line to the point
    boxes = [extent.bounds for extent in extents]
    for i, (x, y, width, height) in enumerate(boxes):
        others = [box for k, box in enumerate(boxes) if k != i]
        assert not any(abs(x - a) < width and abs(y - b) < height for a, b, *_ in others), names[i]
    spots = ax.transData.transform([mark[:2] for mark in marks(ax)])
    assert not any(extent.contains(*spot) for extent in extents for spot in spots)


def test_one_far_system_does_not_squeeze_the_plane():
    near = [20.0, 21.0, 22.0, 23.0]
    names = ("a", "b", "c", "d", "far")
    (ax,) = gallery.plane(table(*names, psnr=[*near, -50.0], lpips=[0.1, 0.2, 0.3, 0.4, 0.5])).axes
    low, high = ax.get_xlim()
    assert 19 < low < 20 and 23 < high < 24
    assert low < marks(ax)[-1][0] < 20 and marks(ax)[-1][1] == 0.5
    assert ax.get_legend().get_texts()[4].get_text().endswith("far (at -50, 0.5)")
    (ax,) = gallery.plane(table(*names, psnr=[*near, 18.0], lpips=[0.1, 0.2, 0.3, 0.4, 0.5])).axes
    assert marks(ax)[-1][0] == 18 > ax.get_xlim()[0]


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([1, 2, 3, 4, 9], (1, 4)),
        ([-9, 1, 2, 3, 4], (1, 4)),
        ([1, 2, 3, 4, 6], (1, 6)),
        ([1, 2, 3, 9, 9], (1, 9)),
        ([1, 9], (1, 9)),
        ([1, 1, 1, 1, 1.001], (1, 1.001)),
        ([5], (5, 5)),
    ],
)
def test_an_axis_shows_all_but_a_few_far_away(values: list, ends: tuple):
    assert table_plots._window(np.array(values)) == ends


def test_skill_by_process_leaves_out_what_is_no_forecast():
    names = ("Default (persistence)", "Mean colour", "a, mean of 8", "a, one sample", "b")
    skills = {"skill_crop": [0, 0.6, 0.5, 0.4, 0.1], "skill_water": [0, 0.6, -0.2, -0.3, 0.3]}
    fig = gallery.skill_by_process(table(*names, **skills, share_crop=[0.374] * 5))
    crop, water = fig.axes
    assert [label.get_text() for label in crop.get_yticklabels()] == ["a", "b"]
    assert marks(crop) == [(0.5, 0, "o", True), (0.4, 0, "o", False), (0.1, 1, "o", True)]
    assert [mark[0] for mark in marks(water)] == [-0.2, -0.3, 0.3]
    assert [crop.get_title(), water.get_title()] == ["crop\n37 % of the pixels", "water"]
    fig = gallery.skill_by_process(table("a", "b", skill=[0.5, 0.1], skill_changed=[0.6, 0.2]))
    assert [ax.get_title() for ax in fig.axes] == ["all pixels", "changed pixels"]


def test_a_skill_off_the_axis_is_an_arrow_with_its_number():
    (ax,) = gallery.skill_by_process(
        table("a, mean of 8", "a, one sample", "b", skill_fire=[-0.8, -1.5, -30.0])
    ).axes
    assert marks(ax) == [(-0.8, 0, "o", True), (-1, 0, "<", False), (-1, 1, "<", True)]
    beside, alone = ax.texts
    assert (beside.get_text(), alone.get_text()) == ("−1.50", "−30.00")
    assert beside.get_position()[0] > -0.8 and beside.get_position()[1] == 0
    assert ax.get_xlim()[0] < -1 < ax.get_xlim()[0] + 0.2

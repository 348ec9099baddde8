"""Pictures of the inside of the model show what they are given."""

import numpy as np
import pytest
import torch

from satjepa.figures import architecture
from satjepa.figures import model as inside


def pixels(ax) -> np.ndarray:
    return np.asarray(ax.images[0].get_array())


def test_equal_vectors_have_equal_colours_in_every_map():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(8, 4, 4))
    second = rng.normal(size=(8, 4, 4))
    second[:, 0, 0] = first[:, 2, 3]
    colours = inside.pca_rgb({"a": first, "b": torch.from_numpy(second)})
    assert colours["a"].shape == (3, 4, 4)
    assert np.allclose(colours["a"][:, 2, 3], colours["b"][:, 0, 0])
    assert not np.allclose(colours["a"][:, 2, 3], colours["b"][:, 1, 0], atol=1e-3)
    everything = np.concatenate([colours["a"].ravel(), colours["b"].ravel()])
    assert everything.min() == 0 and everything.max() == 1


def test_the_colours_follow_the_main_direction():
    ramp = np.zeros((5, 1, 10))
    ramp[3, 0] = np.arange(10)
    red = inside.pca_rgb({"a": ramp})["a"][0, 0]
    assert (np.diff(red) >= 0).all() and red[0] == 0 and red[-1] == 1


def test_maps_of_a_row_share_one_scale_and_images_have_none():
    image = torch.rand(3, 4, 4)
    panels = {"image": image, "low": torch.full((4, 4), 0.2), "high": torch.full((4, 4), 0.7)}
    shown, low, high, bar = inside.row(panels, "cosine").axes
    assert np.allclose(pixels(shown), image.permute(1, 2, 0))
    assert low.images[0].get_clim() == high.images[0].get_clim() == pytest.approx((0.2, 0.7))
    assert bar.get_ylabel() == "cosine"
    fixed = inside.row(panels, bounds=(0, 1)).axes[1]
    assert fixed.images[0].get_clim() == (0, 1)
    assert len(inside.row({"image": image}).axes) == 1


def test_one_sample_puts_years_in_order():
    years = [torch.full((3, 4, 4), v) for v in (0.1, 0.2, 0.3, 0.4)]
    process = torch.tensor([[0, 1], [2, 5]])
    fig = inside.one_sample(years[1::-1], years[2], years[3], torch.rand(64, 4, 4), process)
    titles = [ax.get_title() for ax in fig.axes]
    names = ["year t-2", "year t-1", "year t", "year t+1", "AlphaEarth(t+1)", "what changed"]
    assert titles == names
    assert [float(pixels(ax)[0, 0, 0]) for ax in fig.axes[:4]] == pytest.approx(
        [0.1, 0.2, 0.3, 0.4]
    )
    assert np.array_equal(pixels(fig.axes[5]), process)
    legend = [text.get_text() for text in fig.legends[0].get_texts()]
    assert legend == ["nothing", "crop", "forest", "town", "water", "fire"]


def test_patches_are_cut_where_they_are():
    fig = inside.patches(torch.rand(3, 32, 32), 8, {"tokens": torch.rand(5, 4, 4)})
    cuts = [line.get_ydata()[0] for line in fig.axes[0].lines if line.get_xdata()[0] == 0]
    assert cuts == [7.5, 15.5, 23.5]
    assert pixels(fig.axes[1]).shape == (4, 4, 3)


def test_histories_end_where_they_end():
    places = torch.tensor([[2.0, -2.0], [1.0, -1.0]])
    fig = inside.histories({"one": (torch.tensor([1.0, 0.0]), places)}, (1.0,))
    path, ends = fig.axes
    assert path.get_xlim() == (1, 0)
    assert path.lines[0].get_ydata().tolist() == [2, 1]
    counts = {round(bar.get_y() + bar.get_height() / 2, 2): bar.get_width() for bar in ends.patches}
    assert sum(counts.values()) == 2 and counts[1.05] == 1


def test_levels_stand_under_their_titles():
    images = [torch.full((3, 4, 4), v) for v in (0.1, 0.9)]
    first, second, third, _ = inside.levels({"z": images, "x": images[::-1]}, ["a", "b"]).axes
    assert [first.get_title(), second.get_title(), third.get_title()] == ["a", "b", ""]
    assert [first.get_ylabel(), third.get_ylabel()] == ["z", "x"]
    assert float(pixels(third)[0, 0, 0]) == pytest.approx(0.9)


def test_sizes_are_as_long_as_their_parts():
    import pandas as pd

    table = pd.DataFrame({"parameters": [2e6, 1e6, 3e6], "trained": [0, 1e6, 1e6]})
    table.index = ["backbone", "adapter", "total"]
    (ax,) = inside.sizes(table).axes
    assert [bar.get_width() for bar in ax.patches] == [2, 1, 0, 1]
    assert ax.texts[1].get_text().strip() == "1,000,000 of 1,000,000"


def test_the_architecture_has_a_shape_under_each_name_and_dashes_for_what_is_absent():
    fig = inside.architecture(
        {"adapter": "(B, 112, 128)", "predictor": "(B, 64, 128)"}, ["predictor"]
    )
    texts = [text.get_text() for text in fig.axes[0].texts]
    assert {*architecture.BOXES} <= {*texts}
    assert "(B, 112, 128)" in texts and "(B, 64, 128)" not in texts
    boxes = [patch.get_linestyle() for patch in fig.axes[0].patches]
    arrows = [text.arrow_patch for text in fig.axes[0].texts if getattr(text, "arrow_patch", None)]
    assert boxes.count(":") == 1
    assert [arrow.get_linestyle() for arrow in arrows].count(":") == 4, "to it, and three from it"
    with pytest.raises(ValueError, match="no box 'adaptor'"):
        inside.architecture({"adaptor": ""})
    assert {name for arrow in architecture.ARROWS for name in arrow} == {*architecture.BOXES}

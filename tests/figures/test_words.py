"""Pictures of captions: words have the colour of their area, tables the numbers they are given."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from satjepa.captions.cover import COVERS
from satjepa.contracts import Captions
from satjepa.figures import words

TEXTS = Captions("Forest 75 percent, pale soil 25.", "Forest west.", "Forest with farmland.")


def test_every_cover_has_a_colour():
    assert tuple(sorted(words.COVER_COLOURS)) == tuple(sorted(COVERS))
    assert len(set(words.COVER_COLOURS.values())) == len(COVERS)


def test_the_words_have_the_colour_of_their_area():
    cover = np.full((16, 16), COVERS.index("forest"))
    cover[:, 12:] = COVERS.index("pale soil")
    fig = words.cover_and_sentences(torch.rand(3, 16, 16), cover, TEXTS, COVERS)
    image, areas, key, sentences = fig.axes
    assert np.asarray(image.images[0].get_array()).shape == (16, 16, 3)
    drawn = areas.images[0]
    for name, place in (("forest", (0, 0)), ("pale soil", (0, 15))):
        value = drawn.get_array()[place]
        assert to_hex(drawn.cmap(drawn.norm(value))) == words.COVER_COLOURS[name]
        boxes = [t.get_bbox_patch() for t in sentences.texts if t.get_text().lower() == name]
        assert boxes and {to_hex(b.get_facecolor()) for b in boxes} == {words.COVER_COLOURS[name]}
    labels = [text.get_text() for text in key.get_legend().get_texts()]
    assert labels == ["forest 75%", "pale soil 25%"]


def test_a_line_is_cut_at_the_names_of_covers():
    assert words.spans("Forest and pale soil.") == [
        (0, "Forest", "forest"), (6, " and ", ""), (11, "pale soil", "pale soil"), (20, ".", ""),
    ]  # fmt: skip
    assert words.spans("Forestry") == [(0, "Forestry", "")]
    long = "x" * (words.COLUMNS - 5) + " pale soil here"
    assert words.wrapped(long) == ["x" * (words.COLUMNS - 5), "pale soil here"]


def test_matrices_share_a_scale_and_show_their_numbers():
    table = torch.tensor([[1.0, 0.25], [0.25, 1.0]])
    fig = words.matrices({"a": table, "b": torch.ones(2, 2)}, ["2020", "2021"])
    assert [ax.get_title() for ax in fig.axes] == ["a", "b"]
    assert {ax.images[0].get_clim() for ax in fig.axes} == {(0.25, 1)}
    assert [text.get_text() for text in fig.axes[0].texts] == ["1.00", "0.25", "0.25", "1.00"]
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["2020", "2021"]


def test_states_have_a_row_a_word():
    hidden = torch.randn(5, 200)
    ax, _ = words.states(hidden, ["a", "b", "c"]).axes
    shown = np.asarray(ax.images[0].get_array())
    assert np.allclose(shown, hidden[:3, :128])
    low, high = ax.images[0].get_clim()
    assert -low == high == pytest.approx(hidden[:3, :128].abs().max())


def test_changes_have_a_bar_a_word():
    series = {"true": torch.tensor([1.0, 2.0, 9.0]), "forecast": torch.tensor([0.5, 1.0, 9.0])}
    (ax,) = words.changes(["a", "b"], series).axes
    assert [bar.get_height() for bar in ax.patches] == [1, 2, 0.5, 1]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["true", "forecast"]


def test_lengths_are_counted_and_the_limit_drawn():
    (ax,) = words.lengths({"a": [3, 3, 4]}, 5).axes
    heights = {bar.get_x() + 0.5: bar.get_height() for bar in ax.patches}
    assert (heights[3], heights[4], heights[5]) == (2, 1, 0)
    assert ax.lines[0].get_xdata()[0] == 5.5


def test_captions_lie_on_the_plane_of_their_main_directions():
    vectors = np.zeros((6, 5))
    vectors[:, 2] = np.arange(6)
    vectors[:3, 4] = 0.5
    plane = words.plane_of(vectors)
    assert plane.shape == (6, 2)
    assert np.allclose(((vectors - vectors.mean(0)) ** 2).sum(), (plane**2).sum())
    fig = words.map_of_captions({"kind": plane}, ["forest"] * 3 + ["water"] * 3)
    colours = [to_hex(points.get_facecolor()[0]) for points in fig.axes[0].collections]
    assert colours == [words.COVER_COLOURS["water"], words.COVER_COLOURS["forest"]]
    assert np.allclose(fig.axes[0].collections[1].get_offsets(), plane[:3])


def test_a_sentence_stands_below_its_picture():
    text = "Forest with farmland and town. No sign of change."
    images = torch.rand(2, 3, 8, 8)
    fig = words.sentences(images, ["one", "two"], [text, "Short."], line=20)
    first, second = fig.axes
    assert (first.get_title(), second.get_title()) == ("one", "two")
    assert " ".join(first.get_xlabel().split("\n")) == text
    assert max(map(len, first.get_xlabel().split("\n"))) <= 20
    assert second.get_xlabel() == "Short."
    assert np.array_equal(second.images[0].get_array(), np.moveaxis(images[1].numpy(), 0, -1))

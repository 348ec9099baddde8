"""Looking at caption embeddings."""

import pytest
import torch

from satjepa.captions import vectors
from satjepa.captions.embeddings import TextEncoders
from satjepa.paths import root


def test_the_words_are_the_tokens_that_are_embedded():
    encoders = TextEncoders.from_pretrained(root() / "assets/tiny_sd3")
    text = "Forest with farmland. Northwest pale soil."
    words = vectors.words_of(text, encoders, 48)
    assert words == ["Forest", "with", "farmland", ".", "Northwest", "pale", "soil", ".", "(end)"]
    assert len(words) == encoders.tokenize([text], 48)["mask"].sum()
    assert vectors.words_of(text, encoders, 4) == ["Forest", "with", "farmland", "(end)"]


def test_what_all_vectors_share_is_taken_off():
    torch.manual_seed(0)
    rows = torch.randn(50, 4) * torch.tensor([1.0, 10.0, 1.0, 1.0]) + 100
    unit = vectors.standardised(rows)
    assert torch.allclose(unit.norm(dim=-1), torch.ones(50))
    assert torch.allclose(unit, vectors.standardised(3 * rows - 7), atol=1e-4)
    assert vectors.cosines(rows).min() > 0.9 and vectors.cosines(unit).min() < -0.5


def test_cosines_are_cosines():
    table = vectors.cosines(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, -3.0], [-1.0, 0.0]]))
    assert table[0].tolist() == pytest.approx([1, 1, 0, -1])


def test_vectors_of_texts_in_their_order():
    store = {"a": (None, torch.ones(2).bfloat16()), "b": (None, torch.zeros(2).bfloat16())}
    assert vectors.pooled_vectors(store, ["b", "a"]).tolist() == [[0, 0], [1, 1]]


def test_the_main_cover():
    assert vectors.main_cover("Pale soil 40 percent, forest 35.") == "pale soil"
    assert vectors.main_cover("A patchwork of fields.") == ""

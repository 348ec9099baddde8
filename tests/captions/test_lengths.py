"""The lengths that a model reads are those of the longest captions."""

import pytest
import torch

from satjepa.captions.lengths import caption_lengths
from satjepa.contracts import Captions


def test_each_kind_has_the_length_of_its_longest_caption_rounded_up():
    words = {"a": 3, "b": 9, "c": 16, "d": 17, "e": 70}
    store = {text: (torch.zeros(n, 2), torch.zeros(2)) for text, n in words.items()}
    written = [Captions("a", "c", "d"), Captions("b", "a", "b")]
    assert caption_lengths(written, store, 48) == (16, 16, 24)
    written[1] = Captions("b", "a", "e")
    assert caption_lengths(written, store, 44) == (16, 16, 44)  # what is kept at most
    with pytest.raises(KeyError):
        caption_lengths([Captions("a", "z", "d")], store, 48)
    with pytest.raises(ValueError, match="no captions"):
        caption_lengths([], store, 48)

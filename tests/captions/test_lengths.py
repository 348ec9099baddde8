"""The lengths that a model reads are those of the longest captions."""

import pandas as pd
import pytest
import torch

from satjepa.captions.lengths import caption_lengths


def test_each_kind_has_the_length_of_its_longest_caption_rounded_up():
    words = {"a": 3, "b": 9, "c": 16, "d": 17, "e": 70}
    store = {text: (torch.zeros(n, 2), torch.zeros(2)) for text, n in words.items()}
    rows = {"informative": ["a", "b"], "geometric": ["c", "a"], "semantic": ["d", "b"]}
    assert caption_lengths(pd.DataFrame(rows), store, 48) == (16, 16, 24)
    rows["semantic"] = ["d", "e"]
    assert caption_lengths(pd.DataFrame(rows), store, 44) == (16, 16, 44)  # what is kept at most
    with pytest.raises(KeyError):
        caption_lengths(pd.DataFrame(rows | {"geometric": ["z", "a"]}), store, 48)
    with pytest.raises(ValueError, match="no captions"):
        caption_lengths(pd.DataFrame(rows).iloc[:0], store, 48)

"""How many words of each kind of caption a model has to read: the longest of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from satjepa.contracts import CAPTION_KINDS

if TYPE_CHECKING:
    import pandas as pd

STEP = 8  # lengths are multiples of it: attention and matrix products like them


def caption_lengths(
    table: pd.DataFrame, store: Mapping[str, Sequence[Tensor]], max_length: int
) -> tuple[int, int, int]:
    """T5 tokens of the longest informative, geometric and semantic caption of a table, rounded up
    to a multiple of 8, at most max_length.

    store: (hidden (L,D), pooled (P,)) by text, as a `TextStore`. ValueError for a table without
    captions; KeyError names a text that is not stored.
    """
    if not len(table):
        raise ValueError("the table has no captions: there is no longest one; write captions first")
    longest = (max(len(store[text][0]) for text in table[kind].unique()) for kind in CAPTION_KINDS)
    return tuple(min(-(-length // STEP) * STEP, max_length) for length in longest)

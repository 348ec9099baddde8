"""How many words of each kind of caption a model has to read: the longest of a data set."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from satjepa.contracts import Captions

STEP = 8  # lengths are multiples of it: attention and matrix products like them


def caption_lengths(
    captions: Collection[Captions], store: Mapping[str, Sequence[Tensor]], max_length: int
) -> tuple[int, int, int]:
    """T5 tokens of the longest informative, geometric and semantic caption, rounded up to a
    multiple of 8, at most max_length.

    store: (hidden (L,D), pooled (P,)) by text, as a `TextStore`. ValueError where there are no
    captions; KeyError names a text that is not stored.
    """
    if not captions:
        raise ValueError("there are no captions, so no longest one; write captions first")
    lengths = []
    for texts in zip(*captions, strict=True):  # of one kind, in the order of `Captions`
        longest = max(len(store[text][0]) for text in set(texts))
        lengths.append(min(-(-longest // STEP) * STEP, max_length))
    return tuple(lengths)

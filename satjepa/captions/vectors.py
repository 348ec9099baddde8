"""Looking at caption embeddings: the tokens of a text, mean vectors, cosines, the main cover."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def words_of(text: str, encoders: Any, length: int) -> list[str]:
    """The T5 tokens of a text as they are read, at most `length`; "(end)" is the end token.

    encoders: `satjepa.captions.embeddings.TextEncoders`.
    """
    tokenizer = encoders.tokenizers[2]
    ids = tokenizer([text], truncation=True, max_length=length).input_ids[0]
    pieces = tokenizer.convert_ids_to_tokens(ids)
    return ["(end)" if piece == "</s>" else piece.replace("▁", "") or "▁" for piece in pieces]


def mean_states(text: Mapping[str, Tensor]) -> Tensor:
    """Mean over the words of the T5 states: hidden (...,L,D), mask (...,L) -> (...,D)."""
    weight = text["mask"][..., None].float()
    return (text["hidden"] * weight).sum(-2) / weight.sum(-2)


def mean_vectors(store: Any, texts: Iterable[str]) -> Tensor:
    """Mean T5 state of each text of a store (`TextStore`): (n,D) float32. KeyError names a text
    that is not stored.
    """
    return torch.stack([store[text][0].float().mean(0) for text in texts])


def cosines(vectors: Tensor) -> Tensor:
    """Cosine of every pair of vectors: (n,D) -> (n,n)."""
    unit = F.normalize(vectors, dim=-1)
    return unit @ unit.T


def main_cover(informative: str) -> str:
    """The cover with the largest share, which an informative caption by rule begins with: "Forest
    40 percent, ..." -> "forest"; "" for a text of another form.
    """
    match = re.match(r"([A-Za-z ]+?) \d+ percent", informative)
    return match[1].lower() if match else ""

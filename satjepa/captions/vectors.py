"""Looking at caption embeddings: the tokens of a text, vectors of texts, cosines, main cover."""

from __future__ import annotations

import re
from collections.abc import Iterable
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


def pooled_vectors(store: Any, texts: Iterable[str]) -> Tensor:
    """Both CLIPs' vector of each text of a `TextStore`: (n,P) float32. KeyError names a text
    that is not stored.
    """
    return torch.stack([store[text][1].float() for text in texts])


def standardised(vectors: Tensor) -> Tensor:
    """Vectors (n,D) without what all of them share, each channel by its deviation, of length 1."""
    centred = vectors - vectors.mean(0)
    return F.normalize(centred / centred.std(0).clamp_min(1e-6), dim=-1)


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

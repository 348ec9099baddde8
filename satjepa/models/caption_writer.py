"""Caption writer: tokens of t+1 and the words of semantic(t) -> the words of semantic(t+1), one
after the other.

The forecaster (`satjepa.models.caption_forecaster`) says what comes as one embedding, the mean of
all that may come. The writer says it in words, over the vocabulary of the backbone's T5, so that a
caption can be read, scored as words, and drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satjepa.models.caption_forecaster import Caption
from satjepa.models.layers import Attention, mlp

KeyValues = tuple[Tensor, Tensor]  # (B,heads,M,d) each


class Memory(NamedTuple):
    """What a caption is written from, as each layer reads it: words of t, then tokens of t+1.

    layers: keys and values of each. mask: (B,M) bool, of what exists.
    """

    layers: list[KeyValues]
    mask: Tensor


class WriterSizes(NamedTuple):
    """vocabulary: tokens of T5. length: most tokens of a caption of t+1, its end among them. read:
    words of semantic(t). text_dim: of a T5 state. places, token_dim: number and width of the tokens
    of t+1. start, end: what a caption begins after, and ends with. dim, layers, heads: of the
    writer.
    """

    vocabulary: int
    length: int
    read: int
    text_dim: int
    places: int
    token_dim: int
    start: int
    end: int
    dim: int
    layers: int
    heads: int


class CachedAttention(Attention):
    """Attention in two halves, so that what is looked at need be read once alone."""

    def read(self, context: Tensor) -> KeyValues:
        """Keys and values of a context (B,M,dim)."""
        k, v = self.kv(context).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return k, v

    def ask(
        self, x: Tensor, known: KeyValues, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """x (B,T,dim) looks at what was read: (B,T,dim). mask: (B,M), of what exists. causal: x and
        the context are the same words, and none looks ahead.
        """
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B,heads,T,d)
        keys = None if mask is None else mask[:, None, None]  # (B,1,1,M)
        out = F.scaled_dot_product_attention(q, *known, attn_mask=keys, is_causal=causal)
        return self.proj(out.transpose(1, 2).flatten(2))


class WriterLayer(nn.Module):
    """Pre-norm: a word looks at those before it, then at what is known, then thinks."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.words = CachedAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.known = CachedAttention(dim, heads)
        self.norm3 = nn.LayerNorm(dim)
        self.mlp = mlp(dim)

    def forward(
        self, x: Tensor, memory: KeyValues, mask: Tensor, before: KeyValues | None = None
    ) -> tuple[Tensor, KeyValues]:
        """x (B,T,dim): all words of a caption, or, with keys and values of those `before`, the next
        one (T = 1) -> (B,T,dim), and keys and values of all words so far.
        """
        asked = self.norm1(x)
        own = self.words.read(asked)
        if before is not None:
            own = tuple(torch.cat(pair, 2) for pair in zip(before, own, strict=True))
        x = x + self.words.ask(asked, own, causal=before is None)
        x = x + self.known.ask(self.norm2(x), memory, mask)
        return x + self.mlp(self.norm3(x)), own


class CaptionWriter(nn.Module):
    """p(word | words before it, semantic(t), tokens(t+1)), a decoder whose input and output
    embeddings are one table.
    """

    def __init__(self, sizes: WriterSizes) -> None:
        super().__init__()
        s = sizes
        self.sizes = s
        self.words = nn.Embedding(s.vocabulary, s.dim)
        nn.init.normal_(self.words.weight, std=0.02)  # else a word first says itself
        self.positions = nn.Parameter(0.02 * torch.randn(s.length, s.dim))
        self.text_in = nn.Sequential(nn.LayerNorm(s.text_dim), nn.Linear(s.text_dim, s.dim))
        self.text_at = nn.Parameter(0.5 * torch.randn(s.read, s.dim))
        self.token_in = nn.Sequential(nn.LayerNorm(s.token_dim), nn.Linear(s.token_dim, s.dim))
        self.token_at = nn.Parameter(0.5 * torch.randn(s.places, s.dim))
        self.layers = nn.ModuleList(WriterLayer(s.dim, s.heads) for _ in range(s.layers))
        self.norm = nn.LayerNorm(s.dim)

    def forward(self, ids: Tensor, caption: Caption, tokens: Tensor) -> Tensor:
        """Words (B,T) of true captions, each to be said from those before it -> logits (B,T,V)."""
        memory = self.study(caption, tokens)
        said = F.pad(ids[:, :-1], (1, 0), value=self.sizes.start)  # (B,T): one word later
        x = self._embedded(said, 0)  # (B,T,dim)
        for layer, known in zip(self.layers, memory.layers, strict=True):
            x, _ = layer(x, known, memory.mask)
        return self._logits(x)

    def loss(self, ids: Tensor, mask: Tensor, caption: Caption, tokens: Tensor) -> Tensor:
        """Mean cross-entropy, in nats, of the words (B,T) that exist (B,T)."""
        logits = self(ids, caption, tokens)
        return F.cross_entropy(logits[mask], ids[mask])

    def study(self, caption: Caption, tokens: Tensor) -> Memory:
        """Read semantic(t), as `satjepa.models.caption_tensors.fitted` to `sizes.read` words, and
        tokens (B,N,token_dim) of t+1.
        """
        hidden = caption["hidden"].masked_fill(~caption["mask"][..., None], 0)  # (B,L,T)
        words = self.text_in(hidden) + self.text_at  # (B,L,dim)
        seen = self.token_in(tokens) + self.token_at  # (B,N,dim)
        context = torch.cat([words, seen], 1)  # (B,L+N,dim)
        there = torch.ones(seen.shape[:2], dtype=torch.bool, device=seen.device)
        mask = torch.cat([caption["mask"], there], 1)
        return Memory([layer.known.read(context) for layer in self.layers], mask)

    @torch.no_grad()
    def write(
        self, memory: Memory, uniform: Tensor | None = None, temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """Captions (B,length) of what was studied: drawn with the numbers `uniform` (B,length) in
        [0, 1), or without them the likeliest word each time. After its end a caption goes on with
        `start`, which the tokenizer leaves out; one without an end is cut.
        """
        rows = len(memory.mask)
        word = memory.mask.new_full((rows,), self.sizes.start, dtype=torch.long)
        ids = word.new_full((rows, self.sizes.length), self.sizes.start)
        done = torch.zeros_like(memory.mask[:, 0])
        before: list[KeyValues | None] = [None] * len(self.layers)
        for place in range(self.sizes.length):
            x = self._embedded(word[:, None], place)  # (B,1,dim)
            for i, layer in enumerate(self.layers):
                x, before[i] = layer(x, memory.layers[i], memory.mask, before[i])
            logits = self._logits(x)[:, 0]  # (B,V)
            logits[:, self.sizes.start] = -torch.inf  # no word
            word = logits.argmax(-1)
            if uniform is not None:
                word = chosen(logits, uniform[:, place], temperature, top_p)
            word = word.masked_fill(done, self.sizes.start)
            ids[:, place] = word
            done = done | (word == self.sizes.end)
            if done.all():
                break
        return ids

    def _embedded(self, ids: Tensor, first: int) -> Tensor:
        """Words (B,T) at the places from `first` on -> (B,T,dim)."""
        return self.words(ids) + self.positions[first : first + ids.shape[1]]

    def _logits(self, x: Tensor) -> Tensor:
        return self.norm(x) @ self.words.weight.T


def chosen(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """One word a row (B,) of logits (B,V), by the numbers `uniform` (B,) in [0, 1): from the
    likeliest words that have `top_p` of the probability together, at a temperature above 0.
    """
    chance, order = (logits.double() / temperature).softmax(-1).sort(-1, descending=True)
    total = chance.cumsum(-1)
    kept = chance.masked_fill(total - chance >= top_p, 0)  # the first one always stays
    total = kept.cumsum(-1)
    rank = (total <= uniform.double()[:, None] * total[:, -1:]).sum(-1, keepdim=True)
    last = (kept > 0).sum(-1, keepdim=True) - 1
    return order.gather(-1, rank.minimum(last))[:, 0]


def have_ended(ids: Tensor, end: int) -> Sequence[bool]:
    """Of captions (B,T), which have an end: the others were cut."""
    return (ids == end).any(1).tolist()

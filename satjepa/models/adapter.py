"""Adapter: four signals and the past years of a place -> the context and pooled vector that SD 3
reads.
"""

from collections.abc import Sequence
from math import isqrt

import torch
from torch import Tensor, nn

from satjepa.contracts import CAPTION_KINDS, SEMANTIC
from satjepa.models.caption_forecaster import Caption
from satjepa.models.caption_tensors import fitted
from satjepa.models.drops import Drops
from satjepa.models.layers import Attention, mlp, zero_linear

STREAMS = len(CAPTION_KINDS)


class TemporalAttention(nn.Module):
    """What earlier years say about each location: the token at n asks the tokens of the same n, one
    per past year.

    Keys carry a learned year-lag embedding. Years that do not exist are masked; a sample without
    any gets exactly zero. The output projection is zero at the start, so the gate opens only when
    history helps.
    """

    def __init__(self, token_dim: int, dim: int, heads: int, history: int) -> None:
        super().__init__()
        self.year_in = nn.Sequential(nn.LayerNorm(token_dim), nn.Linear(token_dim, dim))
        self.lag = nn.Parameter(0.02 * torch.randn(history, dim))
        self.norm = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.gate = zero_linear(dim, dim)

    def forward(self, h: Tensor, years: Tensor, valid: Tensor) -> Tensor:
        """h (B,N,dim), years (B,Y,N,token_dim) most recent first, valid (B,Y) bool -> what to add
        to h, (B,N,dim)
        """
        exists = valid.any(1)[:, None, None]  # (B,1,1)
        keys = self.year_in(years).transpose(1, 2) + self.lag[: years.shape[1]]  # (B,N,Y,dim)
        mask = valid | ~exists[..., 0]  # (B,Y), no row without a key
        mask = mask[:, None].expand(-1, h.shape[1], -1).flatten(0, 1)  # (B*N,Y)
        query = self.norm(h).flatten(0, 1)[:, None]  # (B*N,1,dim)
        said = self.attn(query, keys.flatten(0, 1), mask).view_as(h)  # (B,N,dim)
        return self.gate(said).masked_fill(~exists, 0)


class FusionBlock(nn.Module):
    """Pre-norm: every location reads the captions, then thinks."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = mlp(dim)

    def forward(self, h: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """h (B,N,dim), words (B,M,dim), mask (B,M) of the words that exist -> (B,N,dim)"""
        h = h + self.attn(self.norm1(h), words, mask)
        return h + self.mlp(self.norm2(h))


class Adapter(nn.Module):
    """Fuse I-JEPA tokens, three captions and past years into (context, pooled).

        h       = tokens + place + what past years say, then ``layers`` of reading the captions
        (B,N,dim)
        x       = layout(AlphaEarth prediction) + position + out(h)
        (B,N/merge^2,joint)
        context = [x ; semantic caption of t+1 + stream]
        (B,N/merge^2+L,joint)
        pooled  = semantic pooled of t+1 + pool(mean h, informative pooled, geometric pooled)
        (B,pooled)

    ``out``, ``stream`` and ``pool`` are zero at the start: the transformer first reads exactly what
    it was pre-trained on (layout tokens and text), if ``layout`` and ``position`` are warm-started
    from that pre-training (`warm_start`).

    positions: fixed position table of the locations, (N, any width). cells: AlphaEarth vectors a
    side of a patch in
    ``emb``. empty: caption of the empty text, put in place of dropped ones: "hidden" (L,joint),
    "mask" (L,), "pooled".
    coarse_rgb: side of a shrunk image that is added to x, 0 = none: only for the ablation, it
    breaks zero-RGB. lengths: words of each kind of caption that are read, None = all L; informative
    and geometric captions are read here only, and never enter the context. merge: x has one token
    for merge x merge locations: their h side by side, their AlphaEarth predictions and positions in
    the mean.
    """

    def __init__(
        self, token_dim: int, positions: Tensor, empty: Caption, dim: int, layers: int, heads: int,
        history: int = 0, cells: int = 1, coarse_rgb: int = 0,
        lengths: Sequence[int] | None = None, merge: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        joint_dim = empty["hidden"].shape[-1]
        pooled_dim = empty["pooled"].shape[-1]
        places, width = positions.shape
        self.merge = merge
        self.lengths = (len(empty["mask"]),) * STREAMS if lengths is None else tuple(lengths)
        empty = fitted(empty, max(self.lengths))
        self.register_buffer("positions", positions.clone())
        for name, value in empty.items():
            self.register_buffer(f"empty_{name}", value.clone())
        # context stream
        self.layout = nn.Linear(64 * cells**2, joint_dim)
        self.position = nn.Linear(width, joint_dim)
        self.gather = nn.Linear(merge**2 * dim, dim) if merge > 1 else nn.Identity()
        self.out = nn.Sequential(nn.LayerNorm(dim), zero_linear(dim, joint_dim))
        self.stream = nn.Parameter(torch.zeros(joint_dim))
        self.null = nn.Parameter(
            torch.zeros(joint_dim)
        )  # x where tokens are dropped, beside the position
        self.pool = nn.Sequential(
            nn.Linear(dim + 2 * pooled_dim, 2 * dim), nn.GELU(), zero_linear(2 * dim, pooled_dim)
        )
        # fusion
        self.token_in = nn.Sequential(nn.LayerNorm(token_dim), nn.Linear(token_dim, dim))
        self.place = nn.Linear(width, dim)
        self.null_token = nn.Parameter(0.02 * torch.randn(dim))
        self.text_in = nn.Sequential(nn.LayerNorm(joint_dim), nn.Linear(joint_dim, dim))
        self.streams = nn.Parameter(0.02 * torch.randn(STREAMS, 1, dim))
        self.blocks = nn.ModuleList(FusionBlock(dim, heads) for _ in range(layers))
        self.temporal = TemporalAttention(token_dim, dim, heads, history) if history else None
        if coarse_rgb:
            side = coarse_rgb * merge // int(places**0.5)  # pixels of the shrunk image per token
            self.coarse = nn.Conv2d(3, joint_dim, side, stride=side)
            nn.init.zeros_(self.coarse.weight)
            nn.init.zeros_(self.coarse.bias)

    def warm_start(self, layout: dict[str, Tensor]) -> None:
        """Take over the ``embedding.*`` (-> layout) and ``position.*`` linears of the backbone's
        pre-training.
        """
        for layer, name in ((self.layout, "embedding"), (self.position, "position")):
            layer.load_state_dict({key: layout[f"{name}.{key}"] for key in ("weight", "bias")})

    def forward(
        self, tokens: Tensor, emb: Tensor, captions: Caption, drops: Drops,
        history: tuple[Tensor, Tensor] | None = None, coarse: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """-> context (B,N/merge^2+L,joint), pooled (B,P).

        tokens (B,N,D), emb (B,N,64 cells^2): of t+1. captions: "hidden" (B,3,L,joint), "mask"
        (B,3,L), "pooled" (B,3,P), the semantic one of t+1. history: tokens (B,Y,N,D) and validity
        (B,Y). coarse: (B,3,S,S) in [-1, 1].
        """
        kept = ~(drops.tokens[:, None] | self.in_quarters(drops.quarters))[..., None]  # (B,N,1)
        hidden, mask, pooled = self.spoken(captions, drops.text)  # (B,3,L,joint), (B,3,L), (B,3,P)
        own = torch.where(kept, self.token_in(tokens), self.null_token)  # (B,N,dim)
        h = own + self.place(self.positions)
        if history is not None:
            h = h + kept * self.temporal(h, history[0], history[1] & ~drops.tokens[:, None])
        words, mask = self.words(hidden, mask)  # (B,M,dim), (B,M)
        for block in self.blocks:
            h = block(h, words, mask)  # (B,N,dim)
        what = self.layout(self.merged(emb).mean(2))  # (B,N',joint)
        if coarse is not None:
            what = what + self.coarse(coarse).flatten(2).transpose(1, 2)  # (B,N',joint)
        where = self.position(self.merged(self.positions[None]).mean(2))  # (1,N',joint)
        known = self.out(self.gather(self.merged(h).flatten(2)))  # (B,N',joint)
        whole = self.merged(kept).all(2)  # (B,N',1)
        x = torch.where(whole, what, self.null) + where + known  # (B,N',joint)
        semantic = hidden[:, SEMANTIC, : self.lengths[SEMANTIC]]
        context = torch.cat([x, semantic + self.stream], 1)  # (B,N'+L,joint)
        others = [pooled[:, kind] for kind in range(STREAMS) if kind != SEMANTIC]  # 2 x (B,P)
        return context, pooled[:, SEMANTIC] + self.pool(torch.cat([h.mean(1), *others], -1))

    def in_quarters(self, quarters: Tensor) -> Tensor:
        """Quarters (B,4) that are hidden -> locations (B,N) that are, row-major."""
        side = isqrt(len(self.positions))
        south = (
            torch.arange(side, device=quarters.device) >= side // 2
        )  # of a row; east of a column
        number = 2 * south[:, None] + south  # (side,side)
        return quarters[:, number.flatten()]

    def silence(self, count: int) -> Caption:
        """Three empty texts (count,3,...)."""
        empty = {name: getattr(self, f"empty_{name}") for name in ("hidden", "mask", "pooled")}
        return {name: value.expand(count, STREAMS, *value.shape) for name, value in empty.items()}

    def words(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Captions (B,3,L,joint), mask (B,3,L) -> the words of all three in a row, (B,M,dim),
        (B,M).
        """
        kinds = range(STREAMS)
        kept = torch.cat([hidden[:, i, : self.lengths[i]] for i in kinds], 1)  # (B,M,joint)
        own = [self.streams[i].expand(self.lengths[i], -1) for i in kinds]
        present = torch.cat([mask[:, i, : self.lengths[i]] for i in kinds], 1)  # (B,M)
        return self.text_in(kept) + torch.cat(own), present

    def merged(self, x: Tensor) -> Tensor:
        """Locations (B,N,D), row-major -> (B,N/merge^2,merge^2,D): those of each square."""
        if self.merge == 1:
            return x[:, :, None]
        side = isqrt(x.shape[1]) // self.merge
        x = x.unflatten(1, (side, self.merge, side, self.merge)).transpose(2, 3)
        return x.flatten(3, 4).flatten(1, 2)

    def spoken(self, captions: Caption, drop: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The captions that are read: empty text where ``drop`` (B,) is set, zeros at padding."""
        mask = torch.where(drop[:, None, None], self.empty_mask, captions["mask"])
        hidden = torch.where(drop[:, None, None, None], self.empty_hidden, captions["hidden"])
        pooled = torch.where(drop[:, None, None], self.empty_pooled, captions["pooled"])
        return hidden.masked_fill(~mask[..., None], 0), mask, pooled

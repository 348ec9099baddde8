"""Caption forecaster: semantic caption of t + tokens of t+1 -> semantic caption of t+1, in
embedding space.
"""

import torch
from torch import Tensor, nn

from satjepa.models.layers import Attention, mlp, zero_linear

Caption = dict[str, Tensor]
"""{"hidden": (B,L,T) T5 states, "mask": (B,L) bool, "pooled": (B,P) CLIP vectors}"""


class ForecastLayer(nn.Module):
    """Pre-norm: the words look at each other, then at the tokens of t+1, then think."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.words = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.tokens = Attention(dim, heads)
        self.norm3 = nn.LayerNorm(dim)
        self.mlp = mlp(dim)

    def forward(self, x: Tensor, mask: Tensor, tokens: Tensor) -> Tensor:
        """x (B,L,dim), mask (B,L) of the words that exist, tokens (B,N,dim) -> (B,L,dim)"""
        x = x + self.words(self.norm1(x), mask=mask)
        x = x + self.tokens(self.norm2(x), tokens)
        return x + self.mlp(self.norm3(x))


class CaptionForecaster(nn.Module):
    """Gated residual forecast of a caption embedding.

        hidden(t+1) = hidden(t) + sigmoid(gate x) * delta x,  pooled(t+1) = pooled(t) + change
            mean(x)

    x: the words of t, read through ``layers`` of cross-attention to the tokens of t+1. ``delta``
    and ``change`` are zero at the start: the forecaster starts as the identity (the published one
    claims that, and is not). All L positions are forecast, as the caption of t+1 may be longer than
    that of t: past the end of t's caption the base is zero, and the question a learned position.
    Padding is never attended.
    """

    def __init__(
        self,
        length: int,
        text_dim: int,
        pooled_dim: int,
        token_dim: int,
        dim: int,
        layers: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.text_in = nn.Sequential(nn.LayerNorm(text_dim), nn.Linear(text_dim, dim))
        self.pooled_in = nn.Sequential(nn.LayerNorm(pooled_dim), nn.Linear(pooled_dim, dim))
        self.token_in = nn.Sequential(nn.LayerNorm(token_dim), nn.Linear(token_dim, dim))
        self.positions = nn.Parameter(0.02 * torch.randn(1, length, dim))
        self.layers = nn.ModuleList(ForecastLayer(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.gate = nn.Linear(dim, text_dim)
        self.delta = zero_linear(dim, text_dim)
        self.change = zero_linear(dim, pooled_dim)

    def forward(self, caption: Caption, tokens: Tensor) -> Caption:
        """Caption of t, tokens (B,N,token_dim) of t+1 -> caption of t+1; its mask is all True: all
        is forecast.
        """
        mask = caption["mask"]  # (B,L)
        hidden = caption["hidden"].masked_fill(~mask[..., None], 0)  # (B,L,T)
        words = self.text_in(hidden).masked_fill(~mask[..., None], 0)  # (B,L,dim)
        x = words + self.positions + self.pooled_in(caption["pooled"])[:, None]  # (B,L,dim)
        seen = self.token_in(tokens)  # (B,N,dim)
        for layer in self.layers:
            x = layer(x, mask, seen)
        x = self.norm(x)
        said = x.masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True)  # (B,dim)
        return {
            "hidden": hidden + torch.sigmoid(self.gate(x)) * self.delta(x),  # (B,L,T)
            "mask": torch.ones_like(mask),
            "pooled": caption["pooled"] + self.change(said),  # (B,P)
        }

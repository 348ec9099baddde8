"""Attention and normalisation that encoder, predictor, forecaster and adapter share."""

import torch.nn.functional as F
from torch import Tensor, nn


def layer_norm0(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Layer norm over the last axis without weight and bias."""
    return F.layer_norm(x, x.shape[-1:], eps=eps)


def mlp(dim: int, ratio: int = 4) -> nn.Sequential:
    """dim -> ratio * dim -> dim with an exact GELU between."""
    return nn.Sequential(nn.Linear(dim, ratio * dim), nn.GELU(), nn.Linear(ratio * dim, dim))


def zero_linear(in_dim: int, out_dim: int) -> nn.Linear:
    """A linear layer that starts at 0, so that what it is added to starts unchanged."""
    layer = nn.Linear(in_dim, out_dim)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Attention(nn.Module):
    """Multi-head attention of x (B,N,dim) to ``context`` (B,M,dim), or to itself; ``mask`` (B,M)
    bool: keys that exist.

    softmax(q k^T / sqrt(dim / heads)) v, then an output projection. Every row of ``mask`` must hold
    one True.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """-> (B,N,dim)"""
        context = x if context is None else context
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B,heads,N,d)
        k, v = (
            self.kv(context).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )  # (B,heads,M,d) each
        keys = None if mask is None else mask[:, None, None]  # (B,1,1,M)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=keys)  # (B,heads,N,d)
        return self.proj(out.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm transformer block: x + Attention(LN x), then x + MLP(LN x)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B,N,dim) -> (B,N,dim)"""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))

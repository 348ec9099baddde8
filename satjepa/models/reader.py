"""Words put in their place: the layout of t+1, as I-JEPA foresees it, read again with the semantic
caption of t+1 at hand.
"""

import torch
from torch import Tensor, nn

from satjepa.models.adapter import FusionBlock
from satjepa.models.layers import layer_norm0, mlp, zero_linear
from satjepa.models.losses import Loss

BANDS = 64  # of AlphaEarth
PHRASE = 9  # words that are read together


class Reader(nn.Module):
    """A caption says of a quarter what covers it; the reader says of each location what that means.

        words  = the caption's states + their order, each with the words beside it     (B,L,dim)
        h      = token + layout + place, ``layers`` times having read the words        (B,N,dim)
        layout = LN(layout + change(h)), each vector normed by itself         (B,N,64 cells^2)

    ``change`` is zero at the start. The generator's own way from words to places is long (through a
    frozen transformer, by flow matching); this one is short, and trained on AlphaEarth(t+1) itself,
    from the first step on.

    positions: fixed position table of the N locations (N, any width). length: words of the caption.
    cells: AlphaEarth vectors a side of a location.
    """

    def __init__(
        self, token_dim: int, positions: Tensor, length: int, text_dim: int, cells: int,
        dim: int, layers: int, heads: int,
    ) -> None:  # fmt: skip
        super().__init__()
        width = BANDS * cells**2
        self.register_buffer("positions", positions.clone(), persistent=False)
        self.text_in = nn.Sequential(nn.LayerNorm(text_dim), nn.Linear(text_dim, dim))
        self.order = nn.Parameter(0.5 * torch.randn(1, length, dim))
        self.norm1 = nn.LayerNorm(dim)
        self.phrase = nn.Conv1d(dim, dim, PHRASE, padding=PHRASE // 2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = mlp(dim)
        self.token_in = nn.Sequential(nn.LayerNorm(token_dim), nn.Linear(token_dim, dim))
        self.layout_in = nn.Linear(width, dim)
        self.place = nn.Linear(positions.shape[1], dim)
        self.blocks = nn.ModuleList(FusionBlock(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.change = zero_linear(dim, width)

    def forward(self, tokens: Tensor, layout: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
        """Tokens (B,N,token_dim) and layout (B,N,64 cells^2) of t+1, states (B,L,T) of the words of
        its semantic caption, mask (B,L) of those that exist -> layout (B,N,64 cells^2).

        No gradient flows to the tokens from here, to the layout by the sum alone, and none to the
        caption: a forecast one is to be like a true one, and nothing else.
        """
        words = self.heard(hidden.detach(), mask)  # (B,L,dim)
        h = self.token_in(tokens.detach()) + self.layout_in(layout.detach())  # (B,N,dim)
        h = h + self.place(self.positions)
        for block in self.blocks:
            h = block(h, words, mask)
        return normed(layout + self.change(self.norm(h)))

    def heard(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """The words (B,L,dim), each knowing those beside it."""
        x = self.text_in(hidden) + self.order  # (B,L,dim)
        near = self.norm1(x).masked_fill(~mask[..., None], 0)
        x = x + self.phrase(near.transpose(1, 2)).transpose(1, 2)
        return x + self.mlp(self.norm2(x))


def normed(layout: Tensor) -> Tensor:
    """Layout vectors (B,N,64 cells^2), each of its 64 bands layer-normed by itself."""
    return layer_norm0(layout.unflatten(-1, (-1, BANDS))).flatten(2)


def layout_loss(layout: Tensor, vectors: Tensor, weight: Tensor) -> Loss:
    """Mean squared error of a layout (B,N,64 cells^2) against the AlphaEarth vectors of t+1
    (B,N,cells^2,64), layer-normed, where weight (B,N,cells^2) says that they are known.
    """
    error = (layout.unflatten(-1, (-1, BANDS)) - vectors).square().mean(-1)  # (B,N,cells^2)
    loss = (error * weight).sum() / weight.sum().clamp_min(1e-6)
    return loss, {"mse": loss.detach()}

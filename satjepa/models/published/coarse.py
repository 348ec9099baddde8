"""Coarse-RGB adapter of the published main branch: I-JEPA tokens and a shrunk image of year t ->
(context, pooled).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satjepa.models.published.adapter import (
    TemporalBlock,
    first_rows,
    initialise,
    resampled,
    three_layers,
    two_layers,
)


def shrink(rgb: Tensor, side: int) -> Tensor:
    """(B,3,H,W) -> (B,3,side,side), bilinear with half-pixel centres and no anti-aliasing
    (published).
    """
    return F.interpolate(rgb, size=(side, side), mode="bilinear", align_corners=False)


def rgb_patches(rgb: Tensor, patch: int) -> Tensor:
    """Patches as tokens: (B,3,S,S) -> (B,(S/patch)^2,3 patch^2), row-major, each flattened as (row,
    column, band).
    """
    x = rgb.unfold(2, patch, patch).unfold(3, patch, patch)  # (B,3,g,g,patch,patch)
    return x.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


class CoarseAdapter(nn.Module):
    """Tokens and coarse pixels -> context (B,M,joint), pooled (B,pooled); it breaks zero-RGB, by
    design.

        y = LN(z) + positions;
        h = three layers of y;
        c = three layers of (patches of the image + their positions)
        context = g h + (1 - g) c,  g = sigmoid(Wg [c, h]);  without an image h;  then the temporal
                                    block, given history
        pooled  = two layers of the mean of y

    The M = (coarse / patch)^2 locations are those of the image: h is resampled to them along the
    flattened token axis, which tears rows apart where M is not N (published). coarse: side of the
    image in pixels, patch: of its tokens.
    """

    def __init__(
        self, token_dim: int, joint_dim: int, pooled_dim: int, dim: int, coarse: int = 32,
        patch: int = 4, temporal_heads: int = 8, history: int = 4, places: int = 1024,
        dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        if coarse % patch:
            raise ValueError(
                f"a coarse image of {coarse} pixels cannot be cut into patches of {patch}"
            )
        self.patch = patch
        width = 3 * patch**2
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, places, token_dim))
        self.coarse_pos_embed = nn.Parameter(0.02 * torch.randn(1, (coarse // patch) ** 2, width))
        self.input_norm = nn.LayerNorm(token_dim)
        self.token_proj = three_layers(token_dim, dim, joint_dim)
        self.pool_proj = two_layers(token_dim, dim, pooled_dim)
        self.coarse_rgb_proj = three_layers(width, dim, joint_dim)
        self.fusion_gate = nn.Sequential(nn.Linear(2 * joint_dim, joint_dim), nn.Sigmoid())
        self.temporal_attn = TemporalBlock(joint_dim, temporal_heads, history, dropout)
        initialise(self)

    def forward(
        self, tokens: Tensor, rgb: Tensor | None = None, history: Sequence[Tensor] = ()
    ) -> tuple[Tensor, Tensor]:
        """tokens (B,N,token_dim), rgb (B,3,coarse,coarse) in [0, 1], history frames (B,K,joint) ->
        context, pooled
        """
        y = self.input_norm(tokens) + first_rows(self.pos_embed, tokens.shape[1])  # (B,N,token_dim)
        e = self.token_proj(y)  # (B,N,joint)
        if rgb is not None:
            c = self.coarse_rgb_proj(
                rgb_patches(rgb, self.patch) + self.coarse_pos_embed
            )  # (B,M,joint)
            h = resampled(e, c.shape[1])  # (B,M,joint)
            g = self.fusion_gate(torch.cat([c, h], -1))  # (B,M,joint)
            e = g * h + (1 - g) * c  # (B,M,joint)
        return self.temporal_attn(e, history) if history else e, self.pool_proj(y.mean(1))

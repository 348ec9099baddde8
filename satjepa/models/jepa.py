"""I-JEPA over time (Assran et al. 2023): an encoder reads the image of year t, a predictor says the
tokens of t+1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satjepa.models.layers import Block, layer_norm0


def sincos_2d(dim: int, grid: int) -> Tensor:
    """Fixed 2-D sin-cos position table, (grid * grid, dim), row-major.

    The first half of the channels codes the column, the second the row; each half is [sin, cos] of
    position times 10000^(-i / (dim / 4)).
    """
    frequency = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    angle = torch.arange(grid, dtype=torch.float64)[:, None] * frequency  # (grid, dim/4)
    code = torch.cat([angle.sin(), angle.cos()], 1).float()  # (grid, dim/2)
    column = code.expand(grid, -1, -1)  # (row, column, dim/2) each
    row = code[:, None].expand(-1, grid, -1)
    return torch.cat([column, row], -1).flatten(0, 1)


def gather_tokens(x: Tensor, masks: Tensor, repeat: int = 1) -> Tensor:
    """Tokens by index: x (B,N,D), masks (M,B,K) int64 -> (M*repeat*B,K,D), mask-major, each block
    of B repeated.
    """
    index = masks[..., None].expand(-1, -1, -1, x.shape[-1])  # (M,B,K,D)
    kept = x.expand(len(masks), -1, -1, -1).gather(2, index)  # (M,B,K,D)
    return kept[:, None].expand(-1, repeat, -1, -1, -1).flatten(0, 2)


class Encoder(nn.Module):
    """Vision transformer without class token: pixels -> one token per patch.

        x (B,3,S,S) in [-1, 1] -> patches + sin-cos positions -> blocks -> LN -> (B,N,dim), N = (S /
        patch)^2, row-major

    ``masks`` (c,B,k) keeps tokens by index, after positions are added: -> (c*B,k,dim), mask-major.
    """

    def __init__(self, img_size: int, patch: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, patch, stride=patch)
        self.register_buffer(
            "positions", sincos_2d(dim, img_size // patch), persistent=False
        )  # (N,dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor, masks: Tensor | None = None) -> Tensor:
        """Pixels (B,3,S,S) in [-1, 1] -> tokens (B,N,dim), or (c*B,k,dim) with masks (c,B,k)."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions  # (B,N,dim)
        x = x if masks is None else gather_tokens(x, masks)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Predictor(nn.Module):
    """Tokens of t -> tokens of t+1: each target place is asked by a mask token + its position,
    beside the context.

    Without masks all N tokens are context and all N places are targets, in training as at
    inference. (The published code trains on random blocks that never touch the last row and column,
    and predicts all places at inference.)

    ``seeded``: each target starts from the token of t at its own place, added to the mask token.
    The land of t+1 is the land of t with changes; a bare mask token has to find its own place among
    the context by attention first, which takes thousands of steps. With masks given, targets are
    never seeded (as published).
    """

    def __init__(
        self, grid: int, token_dim: int, dim: int, depth: int, heads: int, seeded: bool = False
    ) -> None:
        super().__init__()
        self.seeded = seeded
        self.embed = nn.Linear(token_dim, dim)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.register_buffer("positions", sincos_2d(dim, grid), persistent=False)  # (N,dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.proj = nn.Linear(dim, token_dim)

    def forward(
        self, x: Tensor, context: Tensor | None = None, target: Tensor | None = None
    ) -> Tensor:
        """x (c*B,k,D), context (c,B,k), target (t,B,m) indices -> (t*c*B,m,D); without masks
        (B,N,D) -> (B,N,D).
        """
        everywhere = torch.arange(len(self.positions), device=x.device).expand(
            1, len(x), -1
        )  # (1,B,N)
        seeded = self.seeded and context is None and target is None
        context = everywhere if context is None else context
        target = everywhere if target is None else target
        table = self.positions.expand(context.shape[1], -1, -1)  # (B,N,dim)
        x = self.embed(x) + gather_tokens(table, context)  # (c*B,k,dim)
        asked = self.mask_token + (
            x if seeded else gather_tokens(table, target, repeat=len(context))
        )  # (t*c*B,m,dim)
        x = torch.cat([x.repeat(len(target), 1, 1), asked], 1)  # (t*c*B,k+m,dim)
        for block in self.blocks:
            x = block(x)
        return self.proj(self.norm(x[:, -asked.shape[1] :]))


class ProjectionHead(nn.Linear):
    """Linear map of tokens (B,N,token_dim) to AlphaEarth vectors: 64 channels for each of cells x
    cells a patch.
    """

    def __init__(self, token_dim: int, cells: int = 1) -> None:
        super().__init__(token_dim, 64 * cells**2)


def patch_mean(emb: Tensor, patch: int, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean AlphaEarth vector of each patch: emb (B,C,H,W), valid (B,1,H,W) bool -> means (B,N,C),
    weight (B,N).

    Only valid pixels enter the mean; weight is their share of the patch, in [0, 1]. A patch without
    any has mean 0.
    """
    valid = torch.ones_like(emb[:, :1]) if valid is None else valid.to(emb.dtype)
    share = F.avg_pool2d(valid, patch).flatten(1)  # (B,N)
    total = F.avg_pool2d(emb * valid, patch).flatten(2).transpose(1, 2)  # (B,N,C)
    return total / torch.where(share > 0, share, 1)[..., None], share


def patch_cells(
    emb: Tensor, patch: int, cells: int = 1, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Target of the predictor, input of the layout tokens: layer-normed mean AlphaEarth vectors,
    cells x cells a patch.

    emb (B,C,H,W), valid (B,1,H,W) -> vectors (B,N,cells^2,C), zero mean and unit variance over C;
    weight (B,N,cells^2). Patches row-major, cells row-major within their patch; ``cells`` = 1 is
    the published target.
    """
    means, weight = patch_mean(emb, patch // cells, valid)  # on the fine grid, row-major
    fine = torch.cat([layer_norm0(means), weight[..., None]], -1)  # (B,(g cells)^2,C+1)
    grid = emb.shape[-1] // patch
    fine = fine.unflatten(1, (grid, cells, grid, cells)).transpose(2, 3)  # (B,g,g,cells,cells,C+1)
    fine = fine.flatten(3, 4).flatten(1, 2)  # (B,N,cells^2,C+1)
    return fine[..., :-1], fine[..., -1]

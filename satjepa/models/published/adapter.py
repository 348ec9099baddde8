"""Caption adapter of the published system: I-JEPA tokens, three captions, past frames -> (context,
pooled) of SD 3.

What it does with its 232,181,252 parameters at full size (published: "~25M"): half of them are the
temporal block, which nothing ever feeds. Attribute names are those of the published checkpoint.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satjepa.contracts import CAPTION_KINDS

Captions = dict[str, tuple[Tensor, Tensor | None]]
"""name -> (hidden (B,L,T), pooled (B,Tp) or None); a caption that is not given is absent"""


def resampled(tokens: Tensor, count: int) -> Tensor:
    """Another number of tokens: (B,N,D) -> (B,count,D), linear along the token axis with half-pixel
    centres.
    """
    if tokens.shape[1] == count:
        return tokens
    return F.interpolate(
        tokens.transpose(1, 2), size=count, mode="linear", align_corners=False
    ).transpose(1, 2)


def first_rows(table: Tensor, count: int) -> Tensor:
    """Positions by sequence index: the first ``count`` rows of a table (1,M,D), resampled only
    where count > M.

    In training, row i so means another place with every mask (published).
    """
    return table[:, :count] if count <= table.shape[1] else resampled(table, count)


def attend(attention: nn.MultiheadAttention, query: Tensor, keys: Tensor) -> Tensor:
    """(B,N,D) asks (B,M,D) -> (B,N,D)"""
    return attention(query, keys, keys, need_weights=False)[0]


def three_layers(in_dim: int, dim: int, out_dim: int) -> nn.Sequential:
    """LN(W3 GELU(LN(W2 GELU(LN(W1 x)))))"""
    first = (nn.Linear(in_dim, dim), nn.LayerNorm(dim), nn.GELU())
    second = (nn.Linear(dim, dim), nn.LayerNorm(dim), nn.GELU())
    return nn.Sequential(*first, *second, nn.Linear(dim, out_dim), nn.LayerNorm(out_dim))


def two_layers(in_dim: int, dim: int, out_dim: int) -> nn.Sequential:
    """V2 GELU(V1 x)"""
    return nn.Sequential(nn.Linear(in_dim, dim), nn.GELU(), nn.Linear(dim, out_dim))


def initialise(module: nn.Module) -> None:
    """Xavier weights and zero biases for every linear layer; so all gates start at one half, the
    temporal one too.

    (The published temporal block sets its gate's bias to -2, and its parent sets it back to 0.)
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


class TemporalBlock(nn.Module):
    """Past frames in the width of the context: e + sigmoid(Wg [e, a]) a with a = LN(Wp MHA(LN e, LN
    frames)).

    All tokens of all frames are keys, each with the learned embedding of its frame. Nothing in the
    published code ever passes a frame, in training or at inference: the block stays as it was
    initialised.
    """

    def __init__(self, dim: int, heads: int, history: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.temporal_pos_embed = nn.Parameter(0.02 * torch.randn(history, 1, dim))
        self.cross_attn = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.norm_q = nn.LayerNorm(dim)
        self.norm_kv = nn.LayerNorm(dim)
        self.post_proj = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim))
        self.temporal_gate = nn.Sequential(nn.Linear(2 * dim, dim), nn.Sigmoid())

    def forward(self, e: Tensor, history: Sequence[Tensor]) -> Tensor:
        """e (B,N,dim), frames (B,M,dim) most recent first, those past the block's length ignored ->
        (B,N,dim)
        """
        frames = [
            frame + place for frame, place in zip(history, self.temporal_pos_embed, strict=False)
        ]  # (B,M,dim)
        said = attend(
            self.cross_attn, self.norm_q(e), self.norm_kv(torch.cat(frames, 1))
        )  # (B,N,dim)
        a = self.post_proj(said)  # (B,N,dim)
        return e + self.temporal_gate(torch.cat([e, a], -1)) * a


class CaptionAdapter(nn.Module):
    """Tokens and captions -> context (B,N,joint), pooled (B,pooled).

        y = LN(z) + positions;   h = three layers of y;   K = [h ; captions, each projected]
        context = h + MHA(LN h, LN K), one LN for both;  without captions h;  then the temporal
            block, given history
        pooled  = sum_j softmax(w[0:m])_j p_j over the m vectors at hand: of the tokens, then of
                each caption

    w is taken by position in that list: with "informative" missing, "geometric" has its weight
    (published). token_dim: of I-JEPA; text_dim, text_pooled_dim: of the captions; joint_dim,
    pooled_dim: of SD 3; dim: hidden width.
    """

    def __init__(
        self, token_dim: int, text_dim: int, text_pooled_dim: int, joint_dim: int, pooled_dim: int,
        dim: int, fusion_heads: int = 8, temporal_heads: int = 8, history: int = 4,
        places: int = 1024, dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.ijepa_pos_embed = nn.Parameter(0.02 * torch.randn(1, places, token_dim))
        self.pooled_fusion_weights = nn.Parameter(torch.ones(1 + len(CAPTION_KINDS)))
        self.ijepa_input_norm = nn.LayerNorm(token_dim)
        self.ijepa_token_proj = three_layers(token_dim, dim, joint_dim)
        self.ijepa_pool_proj = two_layers(token_dim, dim, pooled_dim)
        for name in CAPTION_KINDS:
            layers = (
                nn.LayerNorm(text_dim),
                *two_layers(text_dim, dim, joint_dim),
                nn.LayerNorm(joint_dim),
            )
            self.add_module(f"{name}_proj", nn.Sequential(*layers))
            self.add_module(f"{name}_pool_proj", nn.Linear(text_pooled_dim, pooled_dim))
        self.stream_fusion = nn.MultiheadAttention(
            joint_dim, fusion_heads, dropout, batch_first=True
        )
        self.stream_fusion_norm = nn.LayerNorm(joint_dim)
        self.temporal_attn = TemporalBlock(joint_dim, temporal_heads, history, dropout)
        initialise(self)

    def forward(
        self, tokens: Tensor, captions: Captions, history: Sequence[Tensor] = ()
    ) -> tuple[Tensor, Tensor]:
        """tokens (B,N,token_dim), captions that are given, history frames (B,M,joint) -> context,
        pooled
        """
        y = self.ijepa_input_norm(tokens) + first_rows(
            self.ijepa_pos_embed, tokens.shape[1]
        )  # (B,N,token_dim)
        h = self.ijepa_token_proj(y)  # (B,N,joint)
        streams = [h]
        vectors = [self.ijepa_pool_proj(y.mean(1))]
        for name, (hidden, pooled) in (
            (name, captions[name]) for name in CAPTION_KINDS if name in captions
        ):
            streams.append(self.get_submodule(f"{name}_proj")(hidden))  # (B,L,joint)
            if pooled is not None:
                vectors.append(self.get_submodule(f"{name}_pool_proj")(pooled))  # (B,pooled)
        if len(streams) > 1:
            norm = self.stream_fusion_norm
            h = h + attend(self.stream_fusion, norm(h), norm(torch.cat(streams, 1)))  # (B,N,joint)
        weights = self.pooled_fusion_weights[: len(vectors)].softmax(0)  # (m,)
        pooled = torch.einsum("m,mbp->bp", weights, torch.stack(vectors))
        return self.temporal_attn(h, history) if history else h, pooled

"""Caption forecaster of the published system: semantic caption of t + tokens of t+1 -> semantic
caption of t+1.
"""

import torch
from torch import Tensor, nn


class PublishedForecaster(nn.Module):
    """Forecast of T5 states.

        v = W2 GELU(W1 LN z);
        u = W2' GELU(W1' LN s);
        x = u through pre-norm decoder layers that read v
        output = Wo LN(u + sigmoid(Wg [u, delta]) delta),   delta = Wb GELU(Wa LN x)

    The residual base is the projected text u, not s, and the linear layers at the end of both lines
    start a tenth as large as usual: at the start the output is nearly zero and all but blind to the
    tokens, not the identity that the published comments claim. No mask, no positions: padding is
    read, forecast and scored like words. Attribute names are those of the published checkpoint.
    """

    def __init__(
        self,
        token_dim: int,
        text_dim: int,
        dim: int = 1024,
        heads: int = 8,
        layers: int = 3,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.ijepa_proj = _reader(token_dim, dim)
        self.text_proj = _reader(text_dim, dim)
        how = {
            "dropout": dropout,
            "batch_first": True,
            "norm_first": True,
        }  # feed-forward with a ReLU
        self.cross_attn_layers = nn.ModuleList(
            nn.TransformerDecoderLayer(dim, heads, 4 * dim, **how) for _ in range(layers)
        )
        change = (
            nn.LayerNorm(dim),
            nn.Linear(dim, dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(dim, dim),
        )
        self.delta_predictor = nn.Sequential(*change)
        self.delta_gate = nn.Sequential(nn.Linear(2 * dim, dim), nn.Sigmoid())
        self.output_proj = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, text_dim))
        with torch.no_grad():
            for last in (self.delta_predictor[-1], self.output_proj[-1]):
                last.weight *= 0.1
                last.bias.zero_()

    def forward(self, tokens: Tensor, semantic: Tensor) -> Tensor:
        """tokens (B,N,token_dim) of t+1, semantic (B,L,text_dim) of t -> semantic of t+1
        (B,L,text_dim)
        """
        v = self.ijepa_proj(tokens)  # (B,N,dim), (B,L,dim)
        u = self.text_proj(semantic)
        x = u
        for layer in self.cross_attn_layers:
            x = layer(x, v)  # (B,L,dim)
        delta = self.delta_predictor(x)  # (B,L,dim)
        gate = self.delta_gate(torch.cat([u, delta], -1))  # (B,L,dim)
        return self.output_proj(u + gate * delta)


def _reader(in_dim: int, dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(in_dim), nn.Linear(in_dim, dim), nn.GELU(), nn.Linear(dim, dim)
    )

"""SimVP, second version, its translator of gated spatiotemporal attention (Tan et al. 2022).

    frames -> encoder      convolutions, each frame by itself
           -> translator   all frames at once, large kernels
           -> decoder      convolutions, each frame by itself

It has as many frames out as in; published forecasts of fewer frames are the first ones, and so it
is here: with `history` earlier years, 1 + history frames go in, and the first that comes out is
year t+1. Departures from the published code: unknown pixels have no part in the loss; and a year
that is not there is filled with the year after it, as if nothing had changed between them. With one
frame there is nothing temporal left. Dropout is 0 in every published setting, and left out.
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satjepa.baselines.clips import clip, deterministic, masked_mse, scored


class ConvUnit(nn.Module):
    """Convolution, group norm of 2 groups, SiLU.

    mode: "same" keeps the size, "down" halves it, "up" doubles it by a pixel shuffle.
    """

    def __init__(
        self, inputs: int, outputs: int, mode: Literal["same", "down", "up"] = "same"
    ) -> None:
        super().__init__()
        self.mode = mode
        wide = 4 * outputs if mode == "up" else outputs  # the shuffle makes 4 pixels of 4 channels
        stride = 2 if mode == "down" else 1
        self.conv = nn.Conv2d(inputs, wide, 3, stride, padding=1)
        self.norm = nn.GroupNorm(2, outputs)
        nn.init.trunc_normal_(self.conv.weight, std=0.02)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B,inputs,H,W) -> (B,outputs,H,W), or half or twice that size."""
        x = self.conv(x)
        if self.mode == "up":
            x = F.pixel_shuffle(x, 2)
        return F.silu(self.norm(x))


def drop_path(x: Tensor, rate: float) -> Tensor:
    """Each sample zero with probability `rate`, else divided by 1 - rate.

    Draws from the global generator.
    """
    if rate == 0:
        return x
    kept = x.new_empty(len(x), 1, 1, 1).bernoulli_(1 - rate)  # 1 or 0 for each sample
    return x * kept / (1 - rate)


class Stage(nn.Module):
    """One gSTA stage (gated spatiotemporal attention): large kernels and a gate, then an MLP.

    A 1 x 1 projection follows if the width changes. rate: of drop-path, both branches. ratio: width
    of the MLP over that of the stage.
    """

    def __init__(self, width: int, outputs: int, rate: float = 0.0, ratio: int = 8) -> None:
        super().__init__()
        wide = ratio * width
        self.rate = rate
        self.norm1 = nn.BatchNorm2d(width)
        self.norm2 = nn.BatchNorm2d(width)
        self.enter = nn.Conv2d(width, width, 1)
        self.near = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.far = nn.Conv2d(width, width, 7, padding=9, dilation=3, groups=width)
        self.gate = nn.Conv2d(width, 2 * width, 1)
        self.leave = nn.Conv2d(width, width, 1)
        self.mlp = nn.Sequential(
            nn.Conv2d(width, wide, 1),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide),
            nn.GELU(),
            nn.Conv2d(wide, width, 1),
        )
        self.scale1 = nn.Parameter(torch.full((width, 1, 1), 0.01))
        self.scale2 = nn.Parameter(torch.full((width, 1, 1), 0.01))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                kernel = module.weight[0, 0].numel()
                fan = kernel * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan))
                nn.init.zeros_(module.bias)
        # Made last: it keeps the initial weights of torch, as published.
        self.project = nn.Identity() if width == outputs else nn.Conv2d(width, outputs, 1)

    def attention(self, u: Tensor) -> Tensor:
        """Of the normalised input u, to which it is added: (B,width,h,w) -> the same shape."""
        y = self.far(self.near(F.gelu(self.enter(u))))
        value, gate = self.gate(y).chunk(2, 1)
        return self.leave(torch.sigmoid(gate) * value) + u

    def forward(self, x: Tensor) -> Tensor:
        """(B,width,h,w) -> (B,outputs,h,w)."""
        rate = self.rate if self.training else 0.0
        x = x + drop_path(self.scale1 * self.attention(self.norm1(x)), rate)
        x = x + drop_path(self.scale2 * self.mlp(self.norm2(x)), rate)
        return self.project(x)


def drop_rates(depth: int, last: float | None) -> list[float]:
    """Drop-path of each stage: a line from 0.01 to `last`; None: off in all stages.

    So it is 0.01 at the start even for `last` 0, as published.
    """
    if last is None:
        return [0.0] * depth
    return [0.01 + (last - 0.01) * i / (depth - 1) for i in range(depth)]


class SimVP(nn.Module):
    """SimVP v2 as a forecaster of year t+1 from year t and `history` years before it.

    hid_s, n_s: channels and layers of encoder and of decoder; an even number of layers, of which
    each second one halves or doubles the size. hid_t, n_t: channels and stages (two or more) of the
    translator. drop_path: see `drop_rates`.
    """

    def __init__(
        self,
        hid_s: int = 64,
        hid_t: int = 256,
        n_s: int = 2,
        n_t: int = 6,
        drop_path: float | None = 0.2,
        history: int = 0,
        colours: int = 3,
    ) -> None:
        super().__init__()
        if n_s % 2 or n_s < 2 or n_t < 2:
            raise ValueError(f"n_s must be even and n_s, n_t at least 2, not {n_s} and {n_t}")
        self.history = history
        down = ("same", "down") * (n_s // 2)
        up = ("up", "same") * (n_s // 2)
        self.encoder = nn.ModuleList()
        channels = colours
        for mode in down:
            self.encoder.append(ConvUnit(channels, hid_s, mode))
            channels = hid_s
        folded = (1 + history) * hid_s  # the translator sees all frames as channels of one
        widths = [folded, *[hid_t] * (n_t - 1), folded]  # before and after each stage
        rates = drop_rates(n_t, drop_path)
        stages = [Stage(widths[i], widths[i + 1], rates[i]) for i in range(n_t)]
        self.translator = nn.Sequential(*stages)
        self.decoder = nn.ModuleList(ConvUnit(hid_s, hid_s, mode) for mode in up)
        self.readout = nn.Conv2d(hid_s, colours, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """(B,T,C,H,W) -> (B,T,C,H,W), not clamped.

        T is 1 + history; H and W are multiples of 2^(n_s/2).
        """
        z = frames.flatten(0, 1)  # (B T,C,H,W)
        skip = z = self.encoder[0](z)  # (B T,hid_s,H,W)
        for unit in self.encoder[1:]:
            z = unit(z)  # (B T,hid_s,h,w)
        folded = z.reshape(len(frames), -1, *z.shape[2:])  # (B,T hid_s,h,w)
        z = self.translator(folded).reshape(z.shape)
        for unit in self.decoder[:-1]:
            z = unit(z)
        z = self.decoder[-1](z + skip)  # (B T,hid_s,H,W)
        return self.readout(z).reshape(frames.shape)

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Year t+1, not clamped: (B,3,H,W)."""
        frames, known = clip(batch, self.history)
        present = known.flatten(2).any(2)  # (B,T)
        filled = list(frames.unbind(1))
        for i in reversed(range(self.history)):
            exists = present[:, i, None, None, None]  # (B,1,1,1)
            filled[i] = torch.where(exists, filled[i], filled[i + 1])
        return self(torch.stack(filled, 1))[:, 0]

    def loss(
        self, batch: dict[str, Any], generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean square error over the pixels valid in both years; no parts.

        Drop-path draws from the global generator, not from `generator`.
        """
        return masked_mse(self.predict(batch), batch["rgb_tp1"], scored(batch)), {}

    def forecast(self, batch: dict[str, Any], samples: int = 1, seed: int = 0) -> Tensor:
        """`Forecaster`: the one image it predicts, `samples` times; (samples,B,3,H,W)."""
        return deterministic(self, batch, samples)

"""The network of MCVD: a U-Net that is shown a noised image, its noise level and the past.

Its modules stand in the order of the published list of modules, so that published weights can be
put into it one after the other (tests/baselines/test_mcvd.py does).
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def groups(channels: int) -> int:
    """Groups of a group norm: the largest divisor of `channels` that is at most min(channels // 4,
    32).
    """
    return next(n for n in range(min(channels // 4, 32), 0, -1) if channels % n == 0)


def conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps the size."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def _fir(x: Tensor, gain: float) -> Tensor:
    """The weight of a depthwise [1, 3, 3, 1] filter in both directions with sum `gain`:
    (C,1,4,4).
    """
    taps = x.new_tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return (gain * taps[:, None] * taps).expand(x.shape[1], 1, 4, 4)


def fir_down(x: Tensor) -> Tensor:
    """(B,C,H,W) -> (B,C,H/2,W/2), smoothed by [1, 3, 3, 1] in both directions."""
    return F.conv2d(x, _fir(x, 1.0), stride=2, padding=1, groups=x.shape[1])


def fir_up(x: Tensor) -> Tensor:
    """(B,C,H,W) -> (B,C,2H,2W): zeros put between the pixels, then smoothed by [1, 3, 3, 1],
    brightness kept.
    """
    return F.conv_transpose2d(x, _fir(x, 4.0), stride=2, padding=1, groups=x.shape[1])


def time_embedding(labels: Tensor, dim: int) -> Tensor:
    """Sines, then cosines, of label j times 10000^(-i / (dim // 2 - 1)): (B,) -> (B,dim), 0 at the
    end if odd.
    """
    rates = torch.exp(
        torch.arange(dim // 2, device=labels.device) * -(math.log(10000) / (dim // 2 - 1))
    )
    angles = labels[:, None].float() * rates  # (B,dim//2)
    return F.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, dim % 2))


class NormAct(nn.Module):
    """Group norm, [SPADE by the past], [scale and shift by the time], SiLU. (``cond`` and ``embed``
    0: without.)
    """

    def __init__(self, channels: int, embed: int = 0, cond: int = 0, spade_dim: int = 0) -> None:
        super().__init__()
        eps = 1e-6 if cond else 1e-5
        self.norm = nn.GroupNorm(groups(channels), channels, eps, affine=not cond and not embed)
        self.adapt = nn.Linear(embed, 2 * channels) if embed else None
        if cond:
            self.shared = conv3(cond, spade_dim)
            self.gamma = conv3(spade_dim, channels)
            self.beta = conv3(spade_dim, channels)
        self.spade = bool(cond)

    def forward(self, x: Tensor, e: Tensor, cond: Tensor) -> Tensor:
        """x (B,C,H,W), e (B,embed), cond (B,cond,any,any) -> (B,C,H,W)"""
        x = self.norm(x)
        if self.spade:
            past = F.silu(
                self.shared(F.interpolate(cond, x.shape[-2:]))
            )  # (B,spade_dim,H,W), nearest
            x = x * (1 + self.gamma(past)) + self.beta(past)
        if self.adapt is not None:
            scale, shift = self.adapt(F.silu(e))[..., None, None].chunk(2, 1)  # (B,C,1,1) each
            x = x * (1 + scale) + shift
        return F.silu(x)


class Attention(nn.Module):
    """Self-attention of all pixels, heads of `head` channels (one head if there are fewer), halved
    in variance.
    """

    def __init__(self, channels: int, head: int) -> None:
        super().__init__()
        self.heads = max(channels // head, 1)
        self.norm = nn.GroupNorm(groups(channels), channels, 1e-6)
        self.q, self.k, self.v, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)"""
        h = self.norm(x).flatten(2).transpose(1, 2)  # (B,HW,C)
        q, k, v = (
            f(h).unflatten(2, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (B,HW,C)
        return (x + self.out(h).transpose(1, 2).unflatten(2, x.shape[2:])) / math.sqrt(2)


class Block(nn.Module):
    """Residual block, at half or twice the size if `resample` says so, and attention after it if
    `head` is given.
    """

    def __init__(
        self, in_channels: int, out_channels: int, norm: partial[NormAct], dropout: float = 0.0,
        resample: Literal["", "down", "up"] = "", head: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.resample = resample
        self.norm0 = norm(in_channels)
        self.conv0 = conv3(in_channels, out_channels)
        self.norm1 = norm(out_channels)
        self.conv1 = conv3(out_channels, out_channels)
        self.dropout = nn.Dropout(dropout)
        plain = in_channels == out_channels and not resample
        self.short = nn.Identity() if plain else nn.Conv2d(in_channels, out_channels, 1)
        self.attention = Attention(out_channels, head) if head else nn.Identity()

    def forward(self, x: Tensor, e: Tensor, cond: Tensor) -> Tensor:
        """x (B,in,H,W), e (B,embed), cond -> (B,out,H,W), or half or twice that size"""
        h = self.norm0(x, e, cond)
        if self.resample:
            resize = fir_down if self.resample == "down" else fir_up
            h = resize(h)
            x = resize(x)
        h = self.conv0(h)
        h = self.conv1(self.dropout(self.norm1(h, e, cond)))
        return self.attention((self.short(x) + h) / math.sqrt(2))


class Denoiser(nn.Module):
    """The U-Net eps(x, label, cond).

    side: pixels of an image. channels, cond: of the noised image and of the past. width: channels
    at full size; level l has `width * mult[l]` of them at side / 2^l. blocks: residual blocks a
    level. attention: sides at which they attend, in heads of `width` channels. spade_dim: 0 for
    concat. mask_embedding: tell whether the past is masked.
    """

    def __init__(
        self, side: int, channels: int, cond: int, width: int, mult: Sequence[int], blocks: int,
        attention: Sequence[int], spade_dim: int = 0, dropout: float = 0.0,
        mask_embedding: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.width = width
        self.spade = spade_dim > 0
        seen = cond if self.spade else 0
        embed = 4 * width + (width // 2 if mask_embedding else 0)
        norm = partial(NormAct, embed=embed, cond=seen, spade_dim=spade_dim)
        block = partial(Block, norm=norm, dropout=dropout)
        widths = [width * m for m in mult]
        heads = [width if side >> level in attention else 0 for level in range(len(mult))]
        # in the order of the published list of modules
        self.time = nn.Sequential(
            nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width)
        )
        self.mask = nn.Embedding(2, width // 2) if mask_embedding else None
        self.conv_in = conv3(channels + cond - seen, width)
        self.down = nn.ModuleList()
        c = width
        skips = [width]
        for level, (out, head) in enumerate(zip(widths, heads, strict=True)):
            self.down.extend(block(i, out, head=head) for i in [c] + [out] * (blocks - 1))
            c = out
            skips = skips + [out] * blocks
            if level < len(mult) - 1:
                self.down.append(block(out, out, resample="down"))
                skips.append(out)
        self.middle = nn.ModuleList([block(c, c, head=width), block(c, c)])
        self.up = nn.ModuleList()
        for level in reversed(range(len(mult))):
            out = widths[level]
            for i in range(blocks + 1):
                self.up.append(block(c + skips.pop(), out, head=heads[level] if i == blocks else 0))
                c = out
            if level > 0:
                self.up.append(block(out, out, resample="up"))
        self.head = NormAct(c, cond=seen, spade_dim=spade_dim)
        self.conv_out = conv3(c, channels)
        self.reset()

    def reset(self) -> None:
        """Uniform weights of variance scale / mean of fans, biases 0; scale 1, 0.1 for queries,
        keys and values, and 1e-10 for what a block adds and for the output: the network starts by
        saying 0.
        """
        scales = {"q": 0.1, "k": 0.1, "v": 0.1, "out": 1e-10, "conv1": 1e-10, "conv_out": 1e-10}
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                fans = (
                    (module.weight.shape[0] + module.weight.shape[1])
                    / 2
                    * module.weight[0, 0].numel()
                )
                bound = math.sqrt(3 * scales.get(name.split(".")[-1], 1.0) / fans)
                nn.init.uniform_(module.weight, -bound, bound)
                nn.init.zeros_(module.bias)

    def forward(
        self, x: Tensor, labels: Tensor, cond: Tensor, kept: Tensor | None = None
    ) -> Tensor:
        """The noise in x (B,C,H,W), whose levels are `labels` (B,), given cond (B,cond,H,W).

        kept: (B,) bool, which pasts are not masked (default: all); only a mask embedding reads it.
        """
        e = self.time(time_embedding(labels, self.width))  # (B,4 width)
        if self.mask is not None:
            e = torch.cat(
                [e, self.mask(torch.ones_like(labels) if kept is None else kept.long())], 1
            )
        h = self.conv_in(x if self.spade else torch.cat([x, cond], 1))  # (B,width,H,W)
        skips = [h]
        for block in self.down:
            h = block(h, e, cond)
            skips.append(h)
        for block in self.middle:
            h = block(h, e, cond)
        for block in self.up:
            h = block(h if block.resample else torch.cat([h, skips.pop()], 1), e, cond)
        return self.conv_out(self.head(h, e, cond))

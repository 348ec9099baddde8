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
    """Groups of a group norm: the largest divisor of `channels` up to min(channels // 4, 32)."""
    most = min(channels // 4, 32)
    return next(n for n in range(most, 0, -1) if channels % n == 0)


def conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps the size."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def _fir(x: Tensor, gain: float) -> Tensor:
    """The weight (C,1,4,4) of a depthwise [1, 3, 3, 1] filter in both directions, of sum `gain`."""
    taps = x.new_tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = gain * taps[:, None] * taps  # (4,4)
    return kernel.expand(x.shape[1], 1, 4, 4)


def fir_down(x: Tensor) -> Tensor:
    """(B,C,H,W) -> (B,C,H/2,W/2), smoothed by [1, 3, 3, 1] in both directions."""
    return F.conv2d(x, _fir(x, 1.0), stride=2, padding=1, groups=x.shape[1])


def fir_up(x: Tensor) -> Tensor:
    """(B,C,H,W) -> (B,C,2H,2W): zeros between the pixels, then smoothed by [1, 3, 3, 1].

    The gain of 4 keeps the brightness: three of four pixels were zeros.
    """
    return F.conv_transpose2d(x, _fir(x, 4.0), stride=2, padding=1, groups=x.shape[1])


def time_embedding(labels: Tensor, dim: int) -> Tensor:
    """Sines, then cosines, of label j times 10000^(-i / (dim // 2 - 1)): (B,) -> (B,dim).

    An odd `dim` ends in a column of zeros.
    """
    half = dim // 2
    step = math.log(10000) / (half - 1)
    rates = torch.exp(torch.arange(half, device=labels.device) * -step)  # (dim//2,)
    angles = labels[:, None].float() * rates  # (B,dim//2)
    waves = torch.cat([angles.sin(), angles.cos()], 1)
    return F.pad(waves, (0, dim % 2))


class NormAct(nn.Module):
    """Group norm, [SPADE by the past], [scale and shift by the time], SiLU.

    embed, cond: widths of the embedded time and of the past; 0 leaves that part out. spade_dim:
    width of the features that SPADE makes of the past.
    """

    def __init__(self, channels: int, embed: int = 0, cond: int = 0, spade_dim: int = 0) -> None:
        super().__init__()
        affine = not cond and not embed  # else scale and shift come from time or past
        eps = 1e-6 if cond else 1e-5
        self.norm = nn.GroupNorm(groups(channels), channels, eps, affine)
        self.adapt = nn.Linear(embed, 2 * channels) if embed else None
        self.spade = cond > 0
        if self.spade:
            self.shared = conv3(cond, spade_dim)
            self.gamma = conv3(spade_dim, channels)
            self.beta = conv3(spade_dim, channels)

    def forward(self, x: Tensor, e: Tensor, cond: Tensor) -> Tensor:
        """x (B,C,H,W), e (B,embed), cond (B,cond,any,any) -> (B,C,H,W)"""
        x = self.norm(x)
        if self.spade:
            past = F.interpolate(cond, x.shape[-2:])  # nearest: (B,cond,H,W)
            past = F.silu(self.shared(past))  # (B,spade_dim,H,W)
            x = x * (1 + self.gamma(past)) + self.beta(past)
        if self.adapt is not None:
            scale_shift = self.adapt(F.silu(e))[..., None, None]  # (B,2C,1,1)
            scale, shift = scale_shift.chunk(2, 1)
            x = x * (1 + scale) + shift
        return F.silu(x)


class Attention(nn.Module):
    """Self-attention of all pixels, added to them; the sum is halved in variance.

    head: channels a head; one head if there are fewer channels than that.
    """

    def __init__(self, channels: int, head: int) -> None:
        super().__init__()
        self.heads = max(channels // head, 1)
        self.norm = nn.GroupNorm(groups(channels), channels, 1e-6)
        self.q = nn.Linear(channels, channels)
        self.k = nn.Linear(channels, channels)
        self.v = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)"""
        pixels = self.norm(x).flatten(2).transpose(1, 2)  # (B,HW,C)
        q = self._by_head(self.q(pixels))
        k = self._by_head(self.k(pixels))
        v = self._by_head(self.v(pixels))
        mixed = F.scaled_dot_product_attention(q, k, v)  # (B,heads,HW,C/heads)
        mixed = self.out(mixed.transpose(1, 2).flatten(2))  # (B,HW,C)
        image = mixed.transpose(1, 2).unflatten(2, x.shape[2:])  # (B,C,H,W)
        return (x + image) / math.sqrt(2)

    def _by_head(self, pixels: Tensor) -> Tensor:
        """(B,HW,C) -> (B,heads,HW,C/heads)"""
        return pixels.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Residual block.

    resample: "" keeps the size, "down" halves it, "up" doubles it. head: channels a head of the
    attention after it; 0 for none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: partial[NormAct],
        dropout: float = 0.0,
        resample: Literal["", "down", "up"] = "",
        head: int = 0,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm0 = norm(in_channels)
        self.conv0 = conv3(in_channels, out_channels)
        self.norm1 = norm(out_channels)
        self.conv1 = conv3(out_channels, out_channels)
        self.dropout = nn.Dropout(dropout)
        if in_channels == out_channels and not resample:
            self.short = nn.Identity()
        else:
            self.short = nn.Conv2d(in_channels, out_channels, 1)
        self.attention = Attention(out_channels, head) if head else nn.Identity()

    def forward(self, x: Tensor, e: Tensor, cond: Tensor) -> Tensor:
        """x (B,in,H,W), e (B,embed), cond -> (B,out,H,W), or half or twice that size"""
        h = self.norm0(x, e, cond)
        if self.resample:
            resize = fir_down if self.resample == "down" else fir_up
            h = resize(h)
            x = resize(x)
        h = self.conv0(h)
        h = self.norm1(h, e, cond)
        h = self.conv1(self.dropout(h))
        h = (self.short(x) + h) / math.sqrt(2)  # two parts of variance 1 stay at variance 1
        return self.attention(h)


class Denoiser(nn.Module):
    """The U-Net eps(x, label, cond).

    side: pixels of an image. channels, cond: of the noised image and of the past. width: channels
    at full size; level l has `width * mult[l]` of them at side / 2^l. blocks: residual blocks a
    level. attention: sides at which they attend, in heads of `width` channels. spade_dim: 0 for
    concat. mask_embedding: whether the network is shown if the past is masked.
    """

    def __init__(
        self,
        side: int,
        channels: int,
        cond: int,
        width: int,
        mult: Sequence[int],
        blocks: int,
        attention: Sequence[int],
        spade_dim: int = 0,
        dropout: float = 0.0,
        mask_embedding: bool = False,
    ) -> None:
        super().__init__()
        self.width = width
        self.spade = spade_dim > 0
        spade_cond = cond if self.spade else 0  # channels of the past that reach each norm
        concat_cond = cond - spade_cond  # those that stand beside the image
        embed = 4 * width + (width // 2 if mask_embedding else 0)
        norm = partial(NormAct, embed=embed, cond=spade_cond, spade_dim=spade_dim)
        block = partial(Block, norm=norm, dropout=dropout)
        widths = [width * m for m in mult]
        heads = [width if side >> level in attention else 0 for level in range(len(mult))]
        # Modules in the order of the published list of modules.
        self.time = nn.Sequential(
            nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width)
        )
        self.mask = nn.Embedding(2, width // 2) if mask_embedding else None
        self.conv_in = conv3(channels + concat_cond, width)
        self.down, skips = _way_down(block, width, widths, heads, blocks)
        lowest = widths[-1]
        self.middle = nn.ModuleList([block(lowest, lowest, head=width), block(lowest, lowest)])
        self.up = _way_up(block, skips, widths, heads, blocks)
        self.head = NormAct(widths[0], cond=spade_cond, spade_dim=spade_dim)
        self.conv_out = conv3(widths[0], channels)
        self.reset()

    def reset(self) -> None:
        """Draw the weights anew, such that the network starts by saying that there is no noise.

        Uniform of variance scale / mean of fans, biases 0. scale: 1; 0.1 for queries, keys and
        values; 1e-10 for what a block adds and for the output.
        """
        scales = {"q": 0.1, "k": 0.1, "v": 0.1, "out": 1e-10, "conv1": 1e-10, "conv_out": 1e-10}
        for name, module in self.named_modules():
            if not isinstance(module, nn.Linear | nn.Conv2d):
                continue
            weight = module.weight  # (out,in) or (out,in,k,k)
            field = weight[0, 0].numel()  # pixels of the kernel
            fans = (weight.shape[0] + weight.shape[1]) / 2 * field
            scale = scales.get(name.split(".")[-1], 1.0)
            bound = math.sqrt(3 * scale / fans)
            nn.init.uniform_(weight, -bound, bound)
            nn.init.zeros_(module.bias)

    def forward(
        self, x: Tensor, labels: Tensor, cond: Tensor, unmasked: Tensor | None = None
    ) -> Tensor:
        """The noise in x (B,C,H,W), whose levels are `labels` (B,), given cond (B,cond,H,W).

        unmasked: (B,) bool, which pasts are shown (default: all); a mask embedding reads it.
        """
        e = self.time(time_embedding(labels, self.width))  # (B,4 width)
        if self.mask is not None:
            number = torch.ones_like(labels) if unmasked is None else unmasked.long()
            e = torch.cat([e, self.mask(number)], 1)  # (B,4 width + width/2)
        h = x if self.spade else torch.cat([x, cond], 1)
        h = self.conv_in(h)  # (B,width,H,W)
        skips = [h]
        for block in self.down:
            h = block(h, e, cond)
            skips.append(h)
        for block in self.middle:
            h = block(h, e, cond)
        for block in self.up:
            if not block.resample:
                h = torch.cat([h, skips.pop()], 1)
            h = block(h, e, cond)
        return self.conv_out(self.head(h, e, cond))  # (B,C,H,W)


def _way_down(
    block: partial[Block], width: int, widths: list[int], heads: list[int], blocks: int
) -> tuple[nn.ModuleList, list[int]]:
    """Blocks from full size to the lowest level, and the channels of each of their outputs."""
    modules = nn.ModuleList()
    skips = [width]  # the image as it comes in
    for level, (out, head) in enumerate(zip(widths, heads, strict=True)):
        for _ in range(blocks):
            modules.append(block(skips[-1], out, head=head))
            skips.append(out)
        if level < len(widths) - 1:
            modules.append(block(out, out, resample="down"))
            skips.append(out)
    return modules, skips


def _way_up(
    block: partial[Block], skips: list[int], widths: list[int], heads: list[int], blocks: int
) -> nn.ModuleList:
    """Blocks back to full size, each given one output of the way down; its channels are `skips`."""
    modules = nn.ModuleList()
    channels = widths[-1]
    for level in reversed(range(len(widths))):
        out = widths[level]
        for i in range(blocks + 1):
            head = heads[level] if i == blocks else 0  # the last block of a level attends
            modules.append(block(channels + skips.pop(), out, head=head))
            channels = out
        if level > 0:
            modules.append(block(out, out, resample="up"))
    return modules

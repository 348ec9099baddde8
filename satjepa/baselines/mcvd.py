"""MCVD (Voleti, Jolicoeur-Martineau and Pal 2022, "Masked conditional video diffusion"), the
published 128 px network.

A U-Net is told x_j, a noised image of year t+1, and the past, and says which noise is in it:

    j uniform in 0..999 (0 is the noisiest),   x_j = sqrt(abar_j) x0 + sqrt(1 - abar_j) z,   z
    normal loss = mean over the batch of the sum over pixels and bands of (z - eps(x_j, j, past))² /
    2

Images are in [-1, 1]; 0, mid grey, is what a masked frame holds. The past reaches the network
beside x_j (``concat``, what the authors recommend) or through every normalisation (``SPADE``). As
published but for this: invalid pixels of either year are left out of the loss, and the past is one
frame, or 1 + `history` frames, what is unknown in it masked.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satjepa.baselines.clips import clip, scored
from satjepa.baselines.mcvd_sampling import LEVELS, abar, sample
from satjepa.models.flow import patch_noise


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


class MCVD(nn.Module):
    """MCVD as a forecaster of year t+1.

    side, width, mult, blocks, attention, spade_dim, dropout, mask_embedding: of the `Denoiser`; the
    defaults are the published network for 128 px (116.5 million parameters). history: earlier years
    it is told beside year t, a year that does not exist being a masked frame. mask: share of
    training samples whose past is masked (0: prediction only, as published for that task). sampler,
    steps, denoise, clip: see `mcvd_sampling.sample`.
    """

    def __init__(
        self, side: int, width: int = 128, mult: Sequence[int] = (1, 1, 2, 3, 4), blocks: int = 2,
        attention: Sequence[int] = (32, 16, 8), spade_dim: int = 0, dropout: float = 0.0,
        mask_embedding: bool = False, history: int = 0, mask: float = 0.0, sampler: Literal["ddpm",
        "ddim"] = "ddpm", steps: int = 100, denoise: Literal["none", "fixed", "reference"] = "none",
        clip: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.history = history
        self.mask = mask
        self.sampler = sampler
        self.steps = steps
        self.denoise = denoise
        self.clip = clip
        told = 3 * (1 + history)
        self.net = Denoiser(
            side, 3, told, width, mult, blocks, attention, spade_dim, dropout, mask_embedding
        )

    def past(self, batch: dict[str, Any]) -> Tensor:
        """What the network is told: the earlier years, oldest first, and year t, in [-1, 1]:
        (B,3(1+history),H,W).

        Pixels that are not known hold what a masked frame holds, 0.
        """
        frames, known = clip(batch, self.history)  # (B,1+history,3,H,W), (B,1+history,1,H,W)
        return ((2 * frames - 1) * known).flatten(1, 2)

    def loss(
        self, batch: dict[str, Any], generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch and its parts; all that is random comes from `generator`, `step`
        changes nothing.

        A sum over the image, about 6000 at the start at 64 px: the published training clips the
        gradient's norm to 1. The part "mse" is the mean square of the error in the noise.
        """
        x0 = 2 * batch["rgb_tp1"] - 1
        valid = scored(batch)
        labels = torch.randint(LEVELS, (len(x0),), generator=generator).to(x0.device)
        noise = torch.randn(x0.shape, generator=generator).to(x0.device)
        kept = (torch.rand(len(x0), generator=generator) >= self.mask).to(x0.device)
        squared = (
            self.error(x0, noise, labels, self.past(batch), kept).square() * valid
        )  # (B,3,H,W)
        mse = squared.detach().sum() / (3 * valid.sum()).clamp_min(1)
        return squared.flatten(1).sum(1).mean() / 2, {"mse": mse}

    def error(
        self, x0: Tensor, noise: Tensor, labels: Tensor, past: Tensor, kept: Tensor
    ) -> Tensor:
        """noise - eps(x_j, j, past), x0 (B,3,H,W) in [-1, 1], labels j (B,); without the past where
        not kept (B,).
        """
        a = abar().to(x0)[labels][:, None, None, None]  # (B,1,1,1)
        x = a.sqrt() * x0 + (1 - a).sqrt() * noise
        return noise - self.net(x, labels, past * kept[:, None, None, None], kept)

    def eps(self, past: Tensor) -> Callable[[Tensor, int], Tensor]:
        """The network told `past` (B,3(1+history),H,W), as `mcvd_sampling.sample` asks it: eps(x
        (B,3,H,W), level).
        """
        return lambda x, level: self.net(x, torch.full((len(x),), level, device=x.device), past)

    @torch.no_grad()
    def forecast(self, batch: dict[str, Any], samples: int = 1, seed: int = 0) -> Tensor:
        """Forecaster protocol: (samples,B,3,H,W) float32 in [0, 1] on the CPU.

        All noise, that of the start and that of each step, belongs to (seed, sample, place).
        """
        device = self.net.conv_in.weight.device
        metas = batch["meta"]
        shape = batch["rgb_t"].shape[1:]
        eps = self.eps(self.past(batch).to(device))

        def noise(number: int) -> Tensor:
            return patch_noise(metas, number, seed, shape).to(device)

        was_training = self.training
        images = []
        self.eval()
        for s in range(samples):
            # Numbers below 0, one for each step of each sample: no step's noise is the start of a
            # sample.
            each = (
                partial(lambda s, i: noise(-1 - s * self.steps - i), s)
                if self.sampler == "ddpm"
                else None
            )
            x = sample(eps, noise(s), self.steps, each, self.clip, self.denoise)
            images.append(((x + 1) / 2).clamp(0, 1).float().cpu())
        self.train(was_training)
        return torch.stack(images)

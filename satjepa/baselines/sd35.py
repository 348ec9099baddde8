"""Stable Diffusion 3.5 as a forecaster: image to image from year t, given its captions.

Nothing of I-JEPA is in it.

    z     = (1 - sigma_0) latent(t) + sigma_0 noise
    image = decode(Euler along sigma_0 > sigma_1 > ... > 0 of the frozen transformer's velocity)

sigma_0, the first noise level, is set by the strength. Two rows of the table. Zero-shot: a
`Backbone` as it is. Tuned: one with LoRA, trained by `SD35.loss`, which is flow matching on year
t+1 given the caption of year t. The tuned row is not the ablation `model.use_jepa: false`: there,
our adapter fuses three captions, our caption forecaster brings the semantic one to t+1, and the
sampler starts from noise.

The transformer is given what the pre-training of the tiny backbone calls "caption only": layout
tokens that know their position alone, then the T5 tokens of one caption, the semantic one; pooled,
both CLIPs. A backbone without layout tokens is given the T5 tokens (a departure from the pipeline
of diffusers, which puts 77 CLIP tokens before them).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satjepa.contracts import SEMANTIC
from satjepa.models.backbone import Backbone
from satjepa.models.caption_forecaster import Caption
from satjepa.models.flow import (
    Velocity,
    euler,
    guided,
    noisy,
    patch_noise,
    sample_sigmas,
    velocity_target,
)
from satjepa.models.losses import flow_loss


def img2img_path(steps: int, strength: float, shift: float) -> Tensor:
    """Noise levels of diffusers' image-to-image pipeline, falling to 0: (n,).

    They are the last ceil(steps · strength) of its `steps`, and 0. Strength is not the noise level
    it starts from: with shift 3, 50 steps and strength 0.6 that is 0.81. And
    `FlowMatchEulerDiscreteScheduler` shifts the lowest level twice (diffusers issue 13243): 0.0089
    where 0.0030 was meant. ``satjepa.models.flow.sigmas(steps, shift, start)`` has neither trait;
    with one step and start 0.35 it is the published sampler of Sat-JEPA-Diff. Raises ValueError
    unless strength is above 0 and at most 1.
    """
    if not 0 < strength <= 1:
        raise ValueError(
            f"strength {strength}: accepted is above 0 (the image as it is) "
            "and at most 1 (pure noise)"
        )
    lowest = shift * 0.001 / (1 + (shift - 1) * 0.001)
    u = torch.linspace(1, lowest, steps, dtype=torch.float64)
    shifted = shift * u / (1 + (shift - 1) * u)
    levels = torch.cat([shifted, torch.zeros(1)])  # (steps + 1,)
    first = int(steps - steps * strength)
    return levels[first:].float()


def img2img(velocity: Velocity, start: Tensor, noise: Tensor, path: Tensor) -> Tensor:
    """From a clean latent `start` (B,C,h,w) to another one, by way of noise.

    `start` is noised to path[0] by `noise` (B,C,h,w), then led along `path`: (B,C,h,w).
    """
    return euler(velocity, noisy(start, noise, path[0]), path)


class SD35(nn.Module):
    """The frozen backbone, with or without LoRA, as a forecaster of year t+1.

    path: noise levels of the sampler, falling to 0 (`img2img_path`, `flow.sigmas`). empty:
    embedding of the empty text, "hidden" (L,joint), "mask" (L,), "pooled" (P,): what guidance leads
    away from, and what a training sample is given instead of its caption with probability
    ``caption_dropout``. prompt: the same of one prompt for all places; None: the semantic caption
    of year t, from ``batch["text_t"]``. layout: state dict of the backbone's layout tokens, None
    for a backbone without. guidance: 1 is without. work_size: side at which images are drawn, 0:
    their own (128 px is far below the sizes that SD 3.5 is made for). timesteps: mean and deviation
    of the logit of the noise levels in training.
    """

    def __init__(
        self,
        backbone: Backbone,
        path: Tensor,
        empty: Caption,
        prompt: Caption | None = None,
        layout: dict[str, Tensor] | None = None,
        guidance: float = 1.0,
        work_size: int = 0,
        timesteps: tuple[float, float] = (0.0, 1.0),
        caption_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if layout is not None and work_size:
            raise ValueError(
                "work_size must be 0: a backbone with layout tokens draws at the size of its layout"
            )
        self.backbone = backbone
        self.path = path
        self.guidance = guidance
        self.work_size = work_size
        self.timesteps = timesteps
        self.caption_dropout = caption_dropout
        self.prompted = prompt is not None
        # (N,joint), layout tokens that know where they are and not what is there
        blind = torch.zeros(0, backbone.joint_dim)
        if layout is not None:
            weight = layout["position.weight"].float()
            bias = layout["position.bias"].float()
            blind = F.linear(layout["positions"], weight, bias)
        self.register_buffer("blind", blind, persistent=False)
        for name in ("hidden", "pooled"):
            self.register_buffer(f"empty_{name}", empty[name], persistent=False)
            self.register_buffer(f"prompt_{name}", (prompt or empty)[name], persistent=False)

    def caption(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The caption of each place, or the one prompt: T5 tokens and pooled vector.

        Tokens (B,L,joint), zero on padding, and pooled (B,P).
        """
        if self.prompted:
            size = len(batch["rgb_t"])
            return self.prompt_hidden.expand(size, -1, -1), self.prompt_pooled.expand(size, -1)
        text = batch["text_t"]
        hidden = text["hidden"][:, SEMANTIC].to(self.blind.device)
        pooled = text["pooled"][:, SEMANTIC].to(self.blind.device)
        return hidden, pooled

    def velocity(self, hidden: Tensor, pooled: Tensor) -> Velocity:
        """The transformer's velocity, given T5 tokens (B,L,joint) and a pooled vector (B,P)."""
        blind = self.blind.expand(len(hidden), -1, -1)  # (B,N,joint)
        context = torch.cat([blind, hidden], 1)  # (B,N+L,joint)
        return lambda z, sigma: self.backbone(z, sigma, context, pooled)

    def guided(self, hidden: Tensor, pooled: Tensor) -> Velocity:
        """`velocity`, led away from that of the empty text if guidance is not 1."""
        with_text = self.velocity(hidden, pooled)
        without_text = self.velocity(
            self.empty_hidden.expand_as(hidden), self.empty_pooled.expand_as(pooled)
        )
        return guided(with_text, without_text, self.guidance)

    def resized(self, rgb: Tensor, side: int) -> Tensor:
        """Images (B,3,H,W) brought to `side` pixels a side; as they are if side is 0."""
        if side in (0, rgb.shape[-1]):
            return rgb
        return F.interpolate(rgb, (side, side), mode="bicubic", antialias=True).clamp(0, 1)

    def latent(self, batch: dict[str, Any]) -> Tensor:
        """Latent of RGB(t+1) (B,C,h,w): stored, or encoded here."""
        if "latent_tp1" in batch and not self.work_size:
            return batch["latent_tp1"]
        return self.backbone.encode(self.resized(batch["rgb_tp1"], self.work_size))

    def loss(
        self, batch: dict[str, Any], generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of the velocity at logit-normal noise levels, for a LoRA; no parts.

        All that is random comes from `generator`; `step` changes nothing. A latent has no valid
        pixels of its own, so that, as in our model, nothing is masked.
        """
        latent = self.latent(batch)  # (B,C,h,w)
        noise = torch.randn(latent.shape, generator=generator).to(latent)
        sigma = sample_sigmas(len(latent), *self.timesteps, generator).to(latent)  # (B,)
        draws = torch.rand(len(latent), generator=generator)
        mute = (draws < self.caption_dropout).to(latent.device)  # (B,)
        hidden, pooled = self.caption(batch)
        hidden = torch.where(mute[:, None, None], self.empty_hidden, hidden)  # (B,L,joint)
        pooled = torch.where(mute[:, None], self.empty_pooled, pooled)  # (B,P)
        velocity = self.velocity(hidden, pooled)
        predicted = velocity(noisy(latent, noise, sigma), sigma)  # (B,C,h,w)
        return flow_loss(predicted, velocity_target(latent, noise))[0], {}

    @torch.no_grad()
    def forecast(self, batch: dict[str, Any], samples: int = 1, seed: int = 0) -> Tensor:
        """Forecaster protocol: (samples,B,3,H,W) float32 in [0, 1] on the CPU.

        Noise belongs to (seed, sample, place). Image-initialised, so that pixels of year t do reach
        the sampler, unless path[0] is 1.
        """
        rgb = batch["rgb_t"].to(self.blind.device)
        resized = self.resized(rgb, self.work_size)
        start = self.backbone.encode(resized)  # (B,C,h,w), the posterior's mean
        velocity = self.guided(*self.caption(batch))
        images = []
        for s in range(samples):
            noise = patch_noise(batch["meta"], s, seed, start.shape[1:]).to(start)
            image = self.backbone.decode(img2img(velocity, start, noise, self.path))
            image = self.resized(image, rgb.shape[-1])
            images.append(image.float().cpu())
        return torch.stack(images)

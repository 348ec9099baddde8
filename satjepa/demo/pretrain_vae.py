"""Pre-training of the VAE of the tiny SD 3.5: all of it on pixels, then its decoder with LPIPS."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from satjepa.demo.imagery import Crops
from satjepa.demo.pretrain_steps import Average, Log, take_step, to_signed


def vae_loss(vae: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    """`image_loss` of the reconstruction + 1e-6·KL, images (B,3,H,W) in [-1, 1]."""
    posterior = vae.encode(x).latent_dist
    loss, parts = image_loss(vae.decode(posterior.sample()).sample, x)
    return loss + 1e-6 * posterior.kl().mean(), parts


def image_loss(decoded: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    """L1 + 2·L2 + L1 of the gradients, images (B,3,H,W) in [-1, 1], and its parts for a log.

    Edges are what 8x compression loses first.
    """
    error = decoded - x  # (B,3,H,W)
    across = error[..., 1:] - error[..., :-1]  # (B,3,H,W-1)
    down = error[..., 1:, :] - error[..., :-1, :]  # (B,3,H-1,W)
    edges = across.abs().mean() + down.abs().mean()
    l1 = error.abs().mean()
    mse = error.pow(2).mean()
    loss = l1 + 2 * mse + 0.5 * edges
    psnr = -10 * np.log10(mse.item() / 4)  # images in [-1, 1] have a range of 2
    return loss, {"loss": loss.item(), "psnr": psnr}


def _one_cycle(
    module: nn.Module, lr: float, steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.OneCycleLR]:
    optimizer = torch.optim.AdamW(
        module.parameters(), lr, betas=(0.9, 0.99), weight_decay=1e-4, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, steps, pct_start=0.05, final_div_factor=200
    )
    return optimizer, schedule


def train_vae(
    vae: nn.Module, crops: Crops, steps: int, batch: int, lr: float, log: Log
) -> nn.Module:
    """Train the VAE on crops of images and return its averaged weights (AdamW, one cycle)."""
    optimizer, schedule = _one_cycle(vae, lr, steps)
    average = Average(vae, 0.998)
    for step in range(steps):
        x = to_signed(crops(batch)[0])
        loss, parts = vae_loss(vae, x)
        take_step(loss, vae.parameters(), [optimizer], [schedule])
        average.update()
        log(step + 1, parts)
    return average.module


def polish_decoder(
    vae: nn.Module,
    distance: nn.Module,
    weight: float,
    crops: Crops,
    steps: int,
    batch: int,
    lr: float,
    log: Log,
) -> nn.Module:
    """Train the decoder alone on, with LPIPS in its loss as that of Stable Diffusion was.

    The latents stay as they are. distance: LPIPS, images (B,3,H,W) in [-1, 1] -> (B,1,1,1), as
    `satjepa.metrics.perceptual.build_lpips` makes it. weight: of it, beside `image_loss`. Returns
    the VAE with averaged decoder weights (AdamW, one cycle).
    """
    decoder = vae.requires_grad_(False).decoder.requires_grad_(True)
    optimizer, schedule = _one_cycle(decoder, lr, steps)
    average = Average(decoder, 0.99)
    for step in range(steps):
        x = to_signed(crops(batch)[0])
        with torch.no_grad():
            latent = vae.encode(x).latent_dist.sample()
        decoded = vae.decode(latent).sample
        loss, parts = image_loss(decoded, x)
        lpips = distance(decoded, x).mean()
        take_step(loss + weight * lpips, decoder.parameters(), [optimizer], [schedule])
        average.update()
        log(step + 1, parts | {"lpips": lpips.item()})
    decoder.load_state_dict(average.module.state_dict())
    return vae.eval()

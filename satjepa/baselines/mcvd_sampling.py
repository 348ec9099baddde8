"""The noise levels of MCVD and its samplers: ancestral (DDPM, as published) and DDIM.

Level 0 is the NOISIEST, as published: beta_j falls from 0.02 to 0.0001 over j = 0..999 and

    abar_j = product over k >= j of (1 - beta_k)
    x_j    = sqrt(abar_j) x0 + sqrt(1 - abar_j) noise

The network is given j. A sampler of n steps visits the levels 0, 1000/n, 2 · 1000/n, ...: the last,
999, only if n is 1000. DDIM is deterministic: it draws no noise but that of its start.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

LEVELS = 1000

Noise = Callable[[int], Tensor]
"""noise(i): standard normal, of the shape of x, for step i"""


def abar() -> Tensor:
    """Share of the clean image in the variance at each level: (1000,), 0.00004 to 0.9999."""
    betas = torch.linspace(0.02, 0.0001, LEVELS, dtype=torch.float64)
    return (1 - betas).flip(0).cumprod(0).flip(0)


def sample(
    eps: Callable[[Tensor, int], Tensor],
    x: Tensor,
    steps: int,
    noise: Noise | None,
    clip: bool = True,
    denoise: Literal["none", "fixed", "reference"] = "none",
) -> Tensor:
    """From noise x (B,C,H,W) to an image, about in [-1, 1], by `steps` calls of ``eps(x, level)``.

    noise: of each step but the last for the ancestral sampler, None for the deterministic one.
    clip: hold each estimate of the clean image in [-1, 1] (`clip_before` of the published code).
    denoise: one more call, x - sqrt(1 - abar) eps, at the last level visited ("fixed"). "reference"
    is what the published code does: it then calls the network with the label steps - 1, a very
    noisy one unless steps is 1000. Raises ValueError unless `steps` divides 1000.
    """
    if steps < 1 or LEVELS % steps:
        raise ValueError(f"{steps} sampling steps: they must divide {LEVELS}")
    levels = range(0, LEVELS, LEVELS // steps)
    path = [*abar()[list(levels)].tolist(), 1.0]  # abar of each level visited, then the clean image
    for i, (level, (a, after)) in enumerate(zip(levels, pairwise(path), strict=True)):
        predicted = eps(x, level)
        x0 = (x - (1 - a) ** 0.5 * predicted) / a**0.5
        if clip:
            x0 = x0.clamp(-1, 1)
        if noise is None:
            # DDIM takes the noise as predicted, not the noise that the clamped x0 would mean.
            x = after**0.5 * x0 + (1 - after) ** 0.5 * predicted
            continue
        b = 1 - a / after  # beta of this step, which may span several levels
        to_clean = after**0.5 * b / (1 - a)
        to_noised = (1 - b) ** 0.5 * (1 - after) / (1 - a)
        x = to_clean * x0 + to_noised * x  # the mean of the posterior
        if i < steps - 1:
            deviation = ((1 - after) / (1 - a) * b) ** 0.5
            x = x + deviation * noise(i)
    if denoise != "none":
        label = levels[-1] if denoise == "fixed" else steps - 1
        x = x - (1 - path[-2]) ** 0.5 * eps(x, label)
    return x

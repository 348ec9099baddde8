"""Image metrics as the published training log has them, which are not those of its evaluation.

Two sets of metrics under the same names: those here are of a whole batch, and compare images whose
range was guessed. `satjepa.metrics.pixels` has those of the evaluation, which are in our tables.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from satjepa.metrics.pixels import SSIM_C1, SSIM_C2, SSIM_SIGMA, SSIM_WINDOW


def train_metrics(pred: Tensor, target: Tensor) -> dict[str, float]:
    """l1, mse, psnr (dB), ssim and gssim of the published training log, over a batch (B,3,H,W).

    Its GSSIM is the SSIM of both images blurred (Gaussian, sigma 2), not of gradients; psnr is
    infinite at mse 0. Each tensor is first put to [0, 1] by a guess from its own range (`as_unit`).
    """
    a = as_unit(pred.double())
    b = as_unit(target.double())
    mse = F.mse_loss(a, b).item()
    return {
        "l1": F.l1_loss(a, b).item(),
        "mse": mse,
        "psnr": 10 * math.log10(1 / mse) if mse else math.inf,
        "ssim": _ssim(a, b, eps=1e-8),
        "gssim": _ssim(_blur(a, 2.0), _blur(b, 2.0), eps=1e-8),
    }


def ssim_loss(reconstruction: Tensor, rgb: Tensor) -> float:
    """1 - SSIM as the published joint loss has it, (B,3,H,W) both.

    Nothing is clamped, so it may leave [0, 2].
    """
    return 1 - _ssim(reconstruction.double(), rgb.double())


def as_unit(image: Tensor) -> Tensor:
    """A tensor that lies in [-1, 1] but not in [0, 1] is taken as signed, (x + 1) / 2.

    Any other is clamped.
    """
    low, high = image.aminmax()
    signed = low >= -1.001 and high <= 1.001 and (low < 0 or high > 1)
    return (image + 1) / 2 if signed else image.clamp(0, 1)


def _blur(x: Tensor, sigma: float) -> Tensor:
    """11 x 11 Gaussian over each channel, zeros outside."""
    pad = SSIM_WINDOW // 2
    offset = torch.arange(SSIM_WINDOW, dtype=x.dtype) - pad
    taps = torch.exp(-offset.square() / (2 * sigma**2))
    taps = (taps / taps.sum()).view(1, 1, -1, 1)
    flat = x.flatten(0, 1)[:, None]  # (B*C,1,H,W)
    down = F.conv2d(flat, taps, padding=(pad, 0))
    return F.conv2d(down, taps.mT, padding=(0, pad)).view_as(x)


def _ssim(a: Tensor, b: Tensor, eps: float = 0.0) -> float:
    mean_a, mean_b, aa, bb, ab = (_blur(x, SSIM_SIGMA) for x in (a, b, a * a, b * b, a * b))
    over = (2 * mean_a * mean_b + SSIM_C1) * (2 * (ab - mean_a * mean_b) + SSIM_C2)
    under = (mean_a**2 + mean_b**2 + SSIM_C1) * (aa - mean_a**2 + bb - mean_b**2 + SSIM_C2)
    return (over / (under + eps)).mean().item()

"""What the past of a pixel alone says of its next year: its mean, and its straight line. Nothing is
trained.
"""

from typing import Any

import torch
from torch import Tensor

from satjepa.baselines.clips import clip
from satjepa.baselines.persistence import repeated


def _moments(batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Frames, their weights, their years, and the mean image.

    Frames (B,T,3,H,W); weights (B,T,1,H,W), 1 where a pixel is known; years (T,1,1,1), t at 0; mean
    (B,3,H,W). Where no year is known, the mean image is that of year t as the batch has it, black.
    """
    frames, known = clip(batch, batch["history"].shape[1])
    weight = known.to(frames.dtype)  # (B,T,1,H,W)
    years = torch.arange(1 - frames.shape[1], 1, dtype=frames.dtype)  # -T+1 .. 0
    mean = (weight * frames).sum(1) / weight.sum(1).clamp_min(1)  # (B,3,H,W)
    return frames, weight, years[:, None, None, None], mean


class Climatology:
    """The mean of all years known of each pixel, year t and the batch's earlier years.

    What stays, without noise.
    """

    def forecast(self, batch: dict[str, Any], samples: int = 1, seed: int = 0) -> Tensor:
        """That mean, `samples` times: (samples,B,3,H,W)."""
        return repeated(_moments(batch)[3], samples)


class LinearTrend:
    """The line of least squares through the years known of each pixel and band, read at year t+1.

    One known year makes no line: its value is the forecast. Two are met exactly.
    """

    def forecast(self, batch: dict[str, Any], samples: int = 1, seed: int = 0) -> Tensor:
        """The line at t+1, clamped to [0, 1], `samples` times: (samples,B,3,H,W)."""
        frames, weight, years, mean = _moments(batch)
        count = weight.sum(1).clamp_min(1)  # (B,1,H,W)
        middle = (weight * years).sum(1) / count  # (B,1,H,W): mean year of what is known
        away = weight * (years - middle[:, None])  # (B,T,1,H,W)
        variance = away.square().sum(1)  # (B,1,H,W)
        divisor = torch.where(variance > 0, variance, 1.0)
        slope = (away * frames).sum(1) / divisor  # (B,3,H,W); 0 for one year, as `away` is 0
        return repeated(mean + slope * (1 - middle), samples)

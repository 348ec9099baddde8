"""A plain U-Net (Ronneberger et al. 2015), the strongest simple forecaster of one image.

It is shown year t and the years before it, stacked, each with a channel that says which pixels are
known, and forecasts what is to be *added* to year t: rgb(t+1) = rgb(t) + f(years). The last layer
starts at zero, so that training begins at persistence; where nothing changes nothing has to be
learned, and no detail has to pass through the network.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satjepa.baselines.clips import clip, deterministic, masked_mse, scored


class Block(nn.Sequential):
    """Twice: 3 x 3 convolution, group norm of 4 groups, SiLU. (B,inputs,H,W) -> (B,outputs,H,W)"""

    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for source in (inputs, outputs):
            layers += [
                nn.Conv2d(source, outputs, 3, padding=1),
                nn.GroupNorm(4, outputs),
                nn.SiLU(),
            ]
        super().__init__(*layers)


class UNet(nn.Module):
    """The U-Net as a forecaster of year t+1 from year t and `history` years before it.

    width, a multiple of 4: channels at full size; twice as many on each of the `levels - 1` levels
    below it, but on the lowest, which is as wide as the one above.
    """

    def __init__(self, width: int = 24, levels: int = 4, history: int = 0) -> None:
        super().__init__()
        self.history = history
        widths = [width * 2 ** min(level, levels - 2) for level in range(levels)]
        self.down = nn.ModuleList()
        channels = 4 * (1 + history)  # three bands and a mask for each year
        for level_width in widths:
            self.down.append(Block(channels, level_width))
            channels = level_width
        self.up = nn.ModuleList()
        for level in reversed(range(levels - 1)):
            # in: what comes from below, and the skip of this level, which is as wide
            self.up.append(Block(2 * widths[level], widths[max(level - 1, 0)]))
        self.last = nn.Conv2d(width, 3, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, frames: Tensor, known: Tensor) -> Tensor:
        """The years and which of their pixels are known -> year t+1 (B,3,H,W), not clamped.

        frames (B,1+history,3,H,W), year t last; known (B,1+history,1,H,W). H and W are multiples of
        2^(levels-1).
        """
        x = torch.cat([2 * frames - 1, known.to(frames.dtype)], 2)  # (B,1+history,4,H,W)
        x = x.flatten(1, 2)  # (B,4(1+history),H,W)
        skips = []
        for level, block in enumerate(self.down):
            if level > 0:
                x = F.max_pool2d(x, 2)
            x = block(x)
            skips.append(x)
        skips.pop()  # the lowest level is x itself
        for block in self.up:
            x = F.interpolate(x, scale_factor=2)  # nearest
            x = block(torch.cat([x, skips.pop()], 1))
        return frames[:, -1] + self.last(x)

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Year t+1, not clamped: (B,3,H,W)."""
        return self(*clip(batch, self.history))

    def loss(
        self, batch: dict[str, Any], generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean square error over the pixels valid in both years; no parts, nothing random."""
        return masked_mse(self.predict(batch), batch["rgb_tp1"], scored(batch)), {}

    def forecast(self, batch: dict[str, Any], samples: int = 1, seed: int = 0) -> Tensor:
        """`Forecaster`: the one image it predicts, `samples` times; (samples,B,3,H,W)."""
        return deterministic(self, batch, samples)

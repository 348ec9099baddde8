"""A plain U-Net (Ronneberger et al. 2015): the strongest simple thing to be beaten by a model that
forecasts one image.

It is shown year t and the years before it, stacked, each with a channel that says which pixels are
known, and forecasts
what is to be *added* to year t: rgb(t+1) = rgb(t) + f(years). The last layer starts at zero, so
that training begins at persistence; where nothing changes nothing has to be learned, and no detail
has to pass through the network.
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
        self.down = nn.ModuleList(
            Block(i, o) for i, o in zip([4 * (1 + history), *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(
            Block(2 * widths[level], widths[max(level - 1, 0)])
            for level in reversed(range(levels - 1))
        )
        self.last = nn.Conv2d(width, 3, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, frames: Tensor, known: Tensor) -> Tensor:
        """Frames (B,1+history,3,H,W), year t last, and their known pixels (B,1+history,1,H,W) ->
        (B,3,H,W), unclamped.

        H and W are multiples of 2^(levels-1).
        """
        x = torch.cat([2 * frames - 1, known.to(frames.dtype)], 2).flatten(
            1, 2
        )  # (B,4(1+history),H,W)
        skips = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for block in self.up:
            x = block(torch.cat([F.interpolate(x, scale_factor=2), skips.pop()], 1))  # nearest
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

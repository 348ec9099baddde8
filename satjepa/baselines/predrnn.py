"""PredRNN (Wang et al. 2017) and its second version (Wang et al. 2022), written from the equations.

A stack of recurrent cells reads a clip year by year and says after each what the next year looks
like. Beside the memory c that each layer keeps through time, one memory m runs in a zigzag: up
through the layers within a year, then from the top into the bottom layer of the next year. The
second version trains c and m to hold different things (`decouple`) and hides true years from the
training (`sampling="reverse"`).

Departures from the published code: pixels that are unknown, and years that are not there, have no
part in the loss; and where a place has no earlier year the recurrence starts later (see
`PredRNN.forward`). With one year in and one out the recurrence never recurs: 38% of the weights of
the default network then never get a gradient, and it is a gated convolutional network of four
layers.
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satjepa.baselines.clips import clip, deterministic, masked_mse, scored

Sampling = Literal["none", "scheduled", "reverse"]


def fold(frames: Tensor, p: int) -> Tensor:
    """Space to depth: (...,C,H,W) -> (...,p p C,H/p,W/p). Channel (dy p + dx) C + c: the colour
    runs fastest.
    """
    *lead, channels, height, width = frames.shape
    cut = frames.reshape(-1, channels, height // p, p, width // p, p)  # (N,C,h,dy,w,dx)
    cut = cut.permute(0, 3, 5, 1, 2, 4)  # (N,dy,dx,C,h,w)
    return cut.reshape(*lead, p * p * channels, height // p, width // p)


def unfold(folded: Tensor, p: int) -> Tensor:
    """Inverse of `fold`."""
    *lead, channels, height, width = folded.shape
    cut = folded.reshape(-1, p, p, channels // p**2, height, width)  # (N,dy,dx,C,h,w)
    cut = cut.permute(0, 3, 4, 1, 5, 2)  # (N,C,h,dy,w,dx)
    return cut.reshape(*lead, channels // p**2, height * p, width * p)


def keep_rates(sampling: Sampling, step: int, at: tuple[int, int, int]) -> tuple[float, float]:
    """Probability that training shows a true frame: among the given ones, and after them.

    at: (s1, s2, alpha). "scheduled": the given ones always, those after them from 1 down to 0 at
    step s2. "reverse": both 1/2 until s1, then 1 - exp(-(s - s1) / alpha) / 2 and a line down to 0,
    and from s2 on 1 and 0. "none": 1, 0.
    """
    first, second, alpha = at
    if sampling == "scheduled":
        return 1.0, max(0.0, 1 - step / second)
    if sampling == "none" or step >= second:
        return 1.0, 0.0
    if step < first:
        return 0.5, 0.5
    given = 1 - math.exp(-(step - first) / alpha) / 2
    ahead = 0.5 - (step - first) / (second - first) / 2
    return given, ahead


def draw_feed(
    given: int,
    ahead: int,
    rates: tuple[float, float],
    count: int,
    generator: torch.Generator | None,
) -> Tensor:
    """What the network reads at each step: 1 the true frame, 0 its own forecast of it.

    Returns (count, given + ahead - 1); the first frame is always true. `rates` as `keep_rates`
    gives them.
    """
    among_given = [rates[0]] * (given - 1)
    after_them = [rates[1]] * (ahead - 1)
    rate = torch.tensor([1.0, *among_given, *after_them])
    draws = torch.rand(count, len(rate), generator=generator)
    return (draws < rate).float()


class Cell(nn.Module):
    """One layer at one step: (x, h, c, m) -> (h, c, m, delta_c, delta_m), all (B,hidden,h,w) but x.

    grid: (height, width) of its maps, for layer norm over whole maps; None for none.
    """

    def __init__(
        self, inputs: int, hidden: int, kernel: int, grid: tuple[int, int] | None = None
    ) -> None:
        super().__init__()

        def conv(source: int, target: int) -> nn.Module:
            layer = nn.Conv2d(source, target, kernel, padding=kernel // 2, bias=False)
            return layer if grid is None else nn.Sequential(layer, nn.LayerNorm((target, *grid)))

        self.x = conv(inputs, 7 * hidden)
        self.h = conv(hidden, 4 * hidden)
        self.m = conv(hidden, 3 * hidden)
        self.o = conv(2 * hidden, hidden)
        self.last = nn.Conv2d(2 * hidden, hidden, 1, bias=False)

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, ...]:
        """Input, forget and output gates i, f, o and candidates g; `im`, `fm`, `gm`: of memory m.

        The forget gates start open: their bias is 1.
        """
        x_i, x_f, x_g, x_im, x_fm, x_gm, x_o = self.x(x).chunk(7, 1)
        h_i, h_f, h_g, h_o = self.h(h).chunk(4, 1)
        m_i, m_f, m_g = self.m(m).chunk(3, 1)
        delta_c = torch.sigmoid(x_i + h_i) * torch.tanh(x_g + h_g)
        c = torch.sigmoid(x_f + h_f + 1) * c + delta_c
        delta_m = torch.sigmoid(x_im + m_i) * torch.tanh(x_gm + m_g)
        m = torch.sigmoid(x_fm + m_f + 1) * m + delta_m
        both = torch.cat([c, m], 1)  # (B,2 hidden,h,w)
        h = torch.sigmoid(x_o + h_o + self.o(both)) * torch.tanh(self.last(both))
        return h, c, m, delta_c, delta_m


class PredRNN(nn.Module):
    """PredRNN as a forecaster of year t+1 from year t and up to `history` years before it.

    hidden, layers, kernel: of the stack. patch: pixels folded into one cell of its grid. side: of
    the images, looked at only with `layer_norm`, whose weights are as large as the maps. decouple:
    weight of the second version's loss, as published 0.1; 0 is the first version. sampling,
    sampling_at: see `keep_rates`; with one year ahead "scheduled" never hides one.
    """

    def __init__(
        self,
        side: int,
        hidden: int = 128,
        layers: int = 4,
        kernel: int = 5,
        patch: int = 4,
        layer_norm: bool = False,
        decouple: float = 0.0,
        sampling: Sampling = "none",
        sampling_at: tuple[int, int, int] = (25_000, 50_000, 5_000),
        history: int = 0,
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.patch = patch
        self.history = history
        self.decouple = decouple
        self.sampling = sampling
        self.sampling_at = sampling_at
        grid = (side // patch, side // patch) if layer_norm else None
        colours = 3 * patch**2
        self.cells = nn.ModuleList([Cell(colours, hidden, kernel, grid)])
        for _ in range(layers - 1):
            self.cells.append(Cell(hidden, hidden, kernel, grid))
        self.head = nn.Conv2d(hidden, colours, 1, bias=False)
        self.adapter = nn.Conv2d(hidden, hidden, 1, bias=False) if decouple else None

    def forward(
        self, frames: Tensor, feed: Tensor, present: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Forecasts of frames 1 .. S (B,S,3,H,W), each after those before it, and decoupling ().

        frames (B,T,3,H,W); feed (B,S) of `draw_feed`, what is read at each step; present (B,S)
        bool: where frame s is absent, all memory of that sample is emptied after step s: its
        recurrence starts at the first frame after its last gap, as if it had been given the shorter
        clip. The decoupling loss is the mean over steps, layers, present samples and channels of
        |cosine(adapter(delta_c), adapter(delta_m))|; 0 without adapter.
        """
        folded = fold(frames, self.patch)  # (B,T,p p C,h,w)
        if present is None:
            present = torch.ones_like(feed, dtype=torch.bool)
        m = folded.new_zeros(len(frames), self.hidden, *folded.shape[-2:])  # (B,hidden,h,w)
        h = [m] * len(self.cells)
        c = [m] * len(self.cells)
        forecasts = []
        likeness = []
        for step in range(feed.shape[1]):
            x = folded[:, step]  # (B,p p C,h,w)
            if step > 0:
                true = feed[:, step, None, None, None]
                x = true * x + (1 - true) * forecasts[-1]
            h, c, m, alike = self._one_year(x, h, c, m)
            forecasts.append(self.head(h[-1]))
            likeness += [value * present[:, step] for value in alike]  # (B,) each
            exists = present[:, step, None, None, None].to(x.dtype)  # (B,1,1,1)
            h = [memory * exists for memory in h]
            c = [memory * exists for memory in c]
            m = m * exists
        decoupling = torch.stack(likeness).sum() / (len(self.cells) * present.sum())
        return unfold(torch.stack(forecasts, 1), self.patch), decoupling

    def _one_year(
        self, x: Tensor, h: list[Tensor], c: list[Tensor], m: Tensor
    ) -> tuple[list[Tensor], list[Tensor], Tensor, list[Tensor]]:
        """One year through the stack: h and c of each layer, m of the top, likenesses (B,)."""
        new_h = []
        new_c = []
        likeness = []
        for cell, h_before, c_before in zip(self.cells, h, c, strict=True):
            x, c_layer, m, delta_c, delta_m = cell(x, h_before, c_before, m)
            new_h.append(x)
            new_c.append(c_layer)
            likeness.append(self._likeness(delta_c, delta_m))
        return new_h, new_c, m, likeness

    def _likeness(self, delta_c: Tensor, delta_m: Tensor) -> Tensor:
        """|cosine| of what enters memories c and m, mean over channels: (B,); 0 without adapter."""
        if self.adapter is None:
            return delta_c.new_zeros(len(delta_c))
        a = F.normalize(self.adapter(delta_c).flatten(2), dim=2)  # (B,hidden,hw)
        b = F.normalize(self.adapter(delta_m).flatten(2), dim=2)
        return F.cosine_similarity(a, b, dim=2).abs().mean(1)

    def loss(
        self, batch: dict[str, Any], generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean square error over every year but the first, plus `decouple` times the decoupling.

        Parts: mse (of all these years), mse_tp1 (of year t+1), decoupling. In eval mode the loss is
        mse_tp1 alone.
        """
        frames, known = clip(batch, self.history)  # (B,P,3,H,W), (B,P,1,H,W)
        present = known.flatten(2).any(2)  # (B,P)
        rates = keep_rates(self.sampling if self.training else "none", step, self.sampling_at)
        feed = draw_feed(1 + self.history, 1, rates, len(frames), generator).to(frames.device)
        # A forecast made after an absent year stands for nothing: the true frame is read there.
        feed[:, 1:] = torch.where(present[:, :-1], feed[:, 1:], 1.0)
        forecasts, decoupling = self(frames, feed, present)
        target = torch.cat([frames[:, 1:], batch["rgb_tp1"][:, None]], 1)  # (B,P,3,H,W)
        target_known = torch.cat([known[:, 1:], scored(batch)[:, None]], 1)
        both_known = known & target_known  # (B,P,1,H,W)
        last = masked_mse(forecasts[:, -1], target[:, -1], both_known[:, -1])
        if not self.training:
            return last, {}
        mse = masked_mse(forecasts, target, both_known)
        parts = {"mse": mse.detach(), "mse_tp1": last.detach(), "decoupling": decoupling.detach()}
        return mse + self.decouple * decoupling, parts

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Year t+1 after all the years there are, not clamped: (B,3,H,W)."""
        frames, known = clip(batch, self.history)
        present = known.flatten(2).any(2)
        all_true = torch.ones_like(present, dtype=frames.dtype)
        forecasts, _ = self(frames, all_true, present)
        return forecasts[:, -1]

    def forecast(self, batch: dict[str, Any], samples: int = 1, seed: int = 0) -> Tensor:
        """`Forecaster`: the one image it forecasts, `samples` times; (samples,B,3,H,W)."""
        return deterministic(self, batch, samples)

"""MCVD (Voleti, Jolicoeur-Martineau and Pal 2022), the published 128 px network, as a forecaster.

"Masked conditional video diffusion": a U-Net is shown x_j, a noised image of year t+1, and the
past, and says which noise is in it:

    x_j  = sqrt(abar_j) x0 + sqrt(1 - abar_j) z,    z normal, j uniform in 0..999 (0: the noisiest)
    loss = mean over the batch of the sum over pixels and bands of (z - eps(x_j, j, past))² / 2

Images are in [-1, 1]; 0, mid grey, is what a masked frame holds. The past reaches the network
beside x_j (``concat``, what the authors recommend) or through every normalisation (``SPADE``). As
published but for this: invalid pixels of either year are left out of the loss, and the past is one
frame, or 1 + `history` frames, what is unknown in it masked.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from satjepa.baselines.clips import clip, scored
from satjepa.baselines.mcvd_net import Denoiser
from satjepa.baselines.mcvd_sampling import LEVELS, abar, sample
from satjepa.models.flow import patch_noise


class MCVD(nn.Module):
    """MCVD as a forecaster of year t+1.

    side, width, mult, blocks, attention, spade_dim, dropout, mask_embedding: of the `Denoiser`; the
    defaults are the published network for 128 px (116.5 million parameters). history: earlier years
    that it is shown beside year t, a year that does not exist being a masked frame. mask: share of
    training samples whose past is masked (0: prediction only, as published for that task). sampler,
    steps, denoise, clip: see `mcvd_sampling.sample`.
    """

    def __init__(
        self,
        side: int,
        width: int = 128,
        mult: Sequence[int] = (1, 1, 2, 3, 4),
        blocks: int = 2,
        attention: Sequence[int] = (32, 16, 8),
        spade_dim: int = 0,
        dropout: float = 0.0,
        mask_embedding: bool = False,
        history: int = 0,
        mask: float = 0.0,
        sampler: Literal["ddpm", "ddim"] = "ddpm",
        steps: int = 100,
        denoise: Literal["none", "fixed", "reference"] = "none",
        clip: bool = True,
    ) -> None:
        super().__init__()
        self.history = history
        self.mask = mask
        self.sampler = sampler
        self.steps = steps
        self.denoise = denoise
        self.clip = clip
        past_channels = 3 * (1 + history)
        self.net = Denoiser(
            side, 3, past_channels, width, mult, blocks, attention, spade_dim, dropout,
            mask_embedding,
        )  # fmt: skip

    def past(self, batch: dict[str, Any]) -> Tensor:
        """The earlier years, oldest first, and year t, in [-1, 1]: (B,3(1+history),H,W).

        Pixels that are not known hold what a masked frame holds, 0.
        """
        frames, known = clip(batch, self.history)  # (B,1+history,3,H,W), (B,1+history,1,H,W)
        return ((2 * frames - 1) * known).flatten(1, 2)

    def loss(
        self, batch: dict[str, Any], generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch and its parts.

        All that is random comes from `generator`; `step` changes nothing. A sum over the image,
        about 6000 at the start at 64 px: the published training clips the gradient's norm to 1. The
        part "mse" is the mean square of the error in the noise.
        """
        x0 = 2 * batch["rgb_tp1"] - 1  # (B,3,H,W)
        valid = scored(batch)  # (B,1,H,W)
        labels = torch.randint(LEVELS, (len(x0),), generator=generator).to(x0.device)
        noise = torch.randn(x0.shape, generator=generator).to(x0.device)
        draws = torch.rand(len(x0), generator=generator)
        unmasked = (draws >= self.mask).to(x0.device)  # (B,)
        error = self.error(x0, noise, labels, self.past(batch), unmasked)
        squared = error.square() * valid  # (B,3,H,W)
        mse = squared.detach().sum() / (3 * valid.sum()).clamp_min(1)
        return squared.flatten(1).sum(1).mean() / 2, {"mse": mse}

    def error(
        self, x0: Tensor, noise: Tensor, labels: Tensor, past: Tensor, unmasked: Tensor
    ) -> Tensor:
        """noise - eps(x_j, j, past): (B,3,H,W).

        x0 (B,3,H,W) in [-1, 1]; labels j (B,); unmasked (B,) bool: elsewhere the past is hidden.
        """
        a = abar().to(x0)[labels][:, None, None, None]  # (B,1,1,1)
        x = a.sqrt() * x0 + (1 - a).sqrt() * noise
        shown = past * unmasked[:, None, None, None]
        return noise - self.net(x, labels, shown, unmasked)

    def eps(self, past: Tensor) -> Callable[[Tensor, int], Tensor]:
        """The network given `past` (B,3(1+history),H,W), as `mcvd_sampling.sample` asks it.

        eps(x (B,3,H,W), level) -> (B,3,H,W)
        """

        def noise_in(x: Tensor, level: int) -> Tensor:
            labels = torch.full((len(x),), level, device=x.device)
            return self.net(x, labels, past)

        return noise_in

    @torch.no_grad()
    def forecast(self, batch: dict[str, Any], samples: int = 1, seed: int = 0) -> Tensor:
        """Forecaster protocol: (samples,B,3,H,W) float32 in [0, 1] on the CPU.

        All noise, that of the start and that of each step, belongs to (seed, sample, place).
        """
        device = self.net.conv_in.weight.device
        shape = batch["rgb_t"].shape[1:]
        eps = self.eps(self.past(batch).to(device))

        def noise(number: int) -> Tensor:
            return patch_noise(batch["meta"], number, seed, shape).to(device)

        was_training = self.training
        images = []
        self.eval()
        for s in range(samples):
            # Numbers below 0, one for each step of each sample: no step's noise is the start of a
            # sample.
            first = -1 - s * self.steps

            def step_noise(i: int, first: int = first) -> Tensor:
                return noise(first - i)

            each = step_noise if self.sampler == "ddpm" else None
            x = sample(eps, noise(s), self.steps, each, self.clip, self.denoise)
            image = ((x + 1) / 2).clamp(0, 1)
            images.append(image.float().cpu())
        self.train(was_training)
        return torch.stack(images)

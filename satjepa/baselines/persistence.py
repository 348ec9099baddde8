"""Forecasters without parameters: what any model has to beat, and the oracles of the demo world.

The oracles know the state of the land; no forecast can beat them.
"""

import torch
from torch import Tensor


def repeated(image: Tensor, samples: int) -> Tensor:
    """(B, 3, H, W) -> (samples, B, 3, H, W), clamped, on the CPU.

    A deterministic forecast gives the same each time.
    """
    clamped = image.detach().float().cpu().clamp(0.0, 1.0)
    return clamped.expand(samples, *image.shape)


def _truth(batch: dict, key: str) -> Tensor:
    if key not in batch:
        raise KeyError(
            f"the batch has no {key!r}: only demo cubes have it, "
            "read by PairDataset(..., truth=True)"
        )
    return batch[key]


class Persistence:
    """Nothing changes: rgb(t+1) = rgb(t). Real land changes little, so this is hard to beat."""

    def forecast(self, batch: dict, samples: int = 1, seed: int = 0) -> Tensor:
        """`rgb_t`, `samples` times: (samples, B, 3, H, W)."""
        return repeated(batch["rgb_t"], samples)


class MeanColour:
    """Each patch in one colour, the mean of its valid pixels in year t.

    What a forecast without structure scores.
    """

    def forecast(self, batch: dict, samples: int = 1, seed: int = 0) -> Tensor:
        """The mean colour of `rgb_t`, `samples` times: (samples, B, 3, H, W). Black where no pixel
        is valid.
        """
        rgb = batch["rgb_t"]
        valid = batch["valid_t"]
        total = torch.where(valid, rgb, 0.0).sum((2, 3), keepdim=True)  # (B, 3, 1, 1)
        pixels = valid.sum((2, 3), keepdim=True).clamp_min(1)  # (B, 1, 1, 1)
        return repeated((total / pixels).expand_as(rgb), samples)


class OracleMean:
    """The expected image of year t+1 given the state of the land in year t.

    No forecast has a lower MSE on average.
    """

    def forecast(self, batch: dict, samples: int = 1, seed: int = 0) -> Tensor:
        """`oracle_mean`, `samples` times: (samples, B, 3, H, W). KeyError for data without a known
        truth.
        """
        return repeated(_truth(batch, "oracle_mean"), samples)


class OracleSample:
    """The land of year t played forward once more.

    As sharp as the truth, and wrong about what cannot be known.
    """

    def forecast(self, batch: dict, samples: int = 1, seed: int = 0) -> Tensor:
        """`oracle_sample`: (1, B, 3, H, W). KeyError for data without a known truth; ValueError for
        samples > 1.
        """
        if samples != 1:
            raise ValueError(f"the demo world holds one oracle sample of each year, not {samples}")
        return repeated(_truth(batch, "oracle_sample"), 1)

"""A model that needs no weights."""

from types import SimpleNamespace

import torch

from satjepa.models.joint import JointModel

PATCH = 32


class Joint:
    """Stands in for a model: the last image, each member a shade darker than the one before."""

    strength = 1.0
    guidance = 1.25
    steps = JointModel.steps
    sampler = JointModel.sampler
    params = SimpleNamespace(
        captions=SimpleNamespace(captioner="rules"),
        data=SimpleNamespace(patch=PATCH, history=1, white=None),
        model=SimpleNamespace(variant="satjepa"),
        sample=SimpleNamespace(steps=6, samples=8),
    )

    def forecast(self, batch: dict, samples: int, seed: int) -> torch.Tensor:
        shade = 0.01 * torch.arange(samples)[:, None, None, None, None]
        return (batch["rgb_t"] - shade - seed / 1000).clamp(0, 1)

"""What the pre-trainings of the tiny SD 3.5 share: its VAE's and its transformer's.

A log, the average of the weights, one step of the optimisers, and the range of images in [-1, 1].
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import nn

from satjepa.models.averages import memory, move_average

Log = Callable[[int, dict[str, float]], None]


class Average:
    """Exponential moving average of a module's parameters, with a short memory at the start.

    decay: of the average once the memory is long, after about 10 / (1 - decay) steps.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay
        self.steps = 0
        self.averages = list(self.module.parameters())
        self.trained = list(module.parameters())

    def update(self) -> None:
        """Move the average towards the module's present parameters."""
        self.steps += 1
        move_average(self.averages, self.trained, memory(self.steps, self.decay))


def to_signed(image: torch.Tensor) -> torch.Tensor:
    """uint8 [0, 255] -> float32 [-1, 1], the range of diffusers' VAEs."""
    return image.float() / 127.5 - 1


def take_step(
    loss: torch.Tensor, parameters: Iterable[nn.Parameter], optimizers: list, schedules: list
) -> None:
    """One step of optimisers and schedules along the gradients of a loss, clipped to norm 1."""
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    for optimizer in optimizers:
        optimizer.step()
    for schedule in schedules:
        schedule.step()

"""Moving averages of weights: of the target encoder, of what is forecast with, of the baselines."""

import torch
from torch import Tensor

AVERAGE = "average."  # before the name of a tensor: its average over the steps


@torch.no_grad()
def move_average(averages: list[Tensor], values: list[Tensor], momentum: float) -> None:
    """averages <- momentum * averages + (1 - momentum) * values, in place, all in one call."""
    torch._foreach_lerp_(averages, values, 1 - momentum)

"""Moving averages of weights: of the target encoder, of what is forecast with, of the baselines."""

import torch
from torch import Tensor

AVERAGE = "average."  # before the name of a tensor: its average over the steps


def memory(step: int, longest: float) -> float:
    """What of an average stays at a step, counted from 0: a short memory at the start, in which
    the first weights are soon forgotten, later `longest`.
    """
    return min(longest, (1 + step) / (10 + step))


@torch.no_grad()
def move_average(averages: list[Tensor], values: list[Tensor], momentum: float) -> None:
    """averages <- momentum * averages + (1 - momentum) * values, in place, all in one call."""
    torch._foreach_lerp_(averages, values, 1 - momentum)

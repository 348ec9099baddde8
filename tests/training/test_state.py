"""State of optimisers and random generators, as a checkpoint keeps it."""

import random

import numpy as np
import pytest
import torch

from satjepa.training.checkpoint import CheckpointError
from satjepa.training.state import optimizer_tensors, restore_optimizers, rng_state, set_rng_state


def test_optimizer_and_random_generators_come_back_exactly() -> None:
    def make() -> tuple[dict, torch.optim.Optimizer]:
        torch.manual_seed(0)
        named = dict(torch.nn.Linear(4, 3).named_parameters())
        return named, torch.optim.AdamW(named.values(), lr=0.1)

    def step(named: dict, optimizer: torch.optim.Optimizer) -> None:
        for p in named.values():
            p.grad = torch.randn(p.shape)
        optimizer.step()

    named, optimizer = make()
    step(named, optimizer)
    random.gauss(0, 1), np.random.randn()  # both keep half a pair in hand
    tensors = optimizer_tensors([optimizer], named)
    states = rng_state()
    weights = {k: p.detach().clone() for k, p in named.items()}
    step(named, optimizer)
    expected = [
        random.gauss(0, 1),
        random.random(),
        np.random.randn(),
        np.random.rand(),
        torch.rand(1).item(),
    ]
    other, again = make()
    for name, p in other.items():
        p.data.copy_(weights[name])
    restore_optimizers([again], other, tensors)
    set_rng_state(states)
    step(other, again)
    assert all(torch.equal(named[k], other[k]) for k in named)
    assert [
        random.gauss(0, 1),
        random.random(),
        np.random.randn(),
        np.random.rand(),
        torch.rand(1).item(),
    ] == expected
    with pytest.raises(CheckpointError, match="has 'bias', which this model does not train"):
        restore_optimizers([again], {"weight": other["weight"]}, tensors)

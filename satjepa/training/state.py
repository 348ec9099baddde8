"""What training needs beside weights to go on exactly: the order of the samples as a function of
the step, and as tensors optimiser moments and random generators.
"""

from __future__ import annotations

import hashlib
import random
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from satjepa.training.checkpoint import CheckpointError

Tensors = dict[str, Tensor]


def seed_of(*key: object) -> int:
    """A seed for a random generator, a hash of the key: (what it is for, seed of the run, step) and
    the like.
    """
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, samples: int) -> np.ndarray:
    return np.random.default_rng(seed_of("epoch", seed, epoch)).permutation(samples)


def batch_indices(
    seed: int, step: int, batch: int, samples: int, rank: int = 0, world: int = 1
) -> list[int]:
    """The samples of a step: the next `batch` of an endless row of permutations, one per epoch; of
    them, those of process `rank` of `world`.
    """
    first = step * batch
    places = range(first + rank, first + batch, world)
    return [int(_permutation(seed, p // samples, samples)[p % samples]) for p in places]


def position(step: int, batch: int, samples: int) -> dict[str, int]:
    """Where the sampler stands before a step: epoch, samples of it already seen, samples of an
    epoch.
    """
    epoch, seen = divmod(step * batch, samples)
    return {"epoch": epoch, "position": seen, "samples": samples}


def optimizer_tensors(
    optimizers: list[torch.optim.Optimizer], named: dict[str, nn.Parameter]
) -> Tensors:
    """The optimisers' moments as `optimizer/<parameter>/<moment>` -> tensor (learning rates come
    from the schedule).
    """
    return {
        f"optimizer/{name}/{key}": value.clone()
        for optimizer in optimizers
        for name, parameter in named.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizers(
    optimizers: list[torch.optim.Optimizer], named: dict[str, nn.Parameter], tensors: Tensors
) -> None:
    """Inverse of `optimizer_tensors`; other names are left alone.

    Raises CheckpointError naming a parameter that this model does not have.
    """
    owner = {
        p: optimizer
        for optimizer in optimizers
        for group in optimizer.param_groups
        for p in group["params"]
    }
    for full in (name for name in tensors if name.startswith("optimizer/")):
        _, name, key = full.split("/")
        value = tensors[full]
        if name not in named:
            raise CheckpointError(
                f"the optimiser state has {name!r}, which this model does not train"
            )
        parameter = named[name]
        on_cpu = key == "step" and not owner[parameter].defaults.get("fused")
        device = "cpu" if on_cpu else parameter.device  # AdamW counts its steps there
        owner[parameter].state[parameter][key] = value.to(device)


def rng_state() -> Tensors:
    """States of the global generators (python, numpy, torch, every CUDA device) as tensors."""
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    states = {
        "rng.python": torch.tensor([version, *words]),
        "rng.python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "rng.numpy": torch.from_numpy(np.append(keys.astype(np.int64), [position, has_gauss])),
        "rng.numpy_gauss": torch.tensor([cached], dtype=torch.float64),
        "rng.torch": torch.get_rng_state(),
    }
    return states | {
        f"rng.cuda.{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())
    }


def set_rng_state(states: Tensors) -> None:
    """Inverse of `rng_state`; CUDA states are set for the devices that are here."""
    version, *words = states["rng.python"].tolist()
    gauss = states["rng.python_gauss"].tolist()
    random.setstate((version, tuple(words), gauss[0] if gauss else None))
    *keys, position, has_gauss = states["rng.numpy"].tolist()
    cached = states["rng.numpy_gauss"].item()
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["rng.torch"])
    for i in range(torch.cuda.device_count()):
        if f"rng.cuda.{i}" in states:
            torch.cuda.set_rng_state(states[f"rng.cuda.{i}"], i)

"""Reading the golden vectors of ../shared/baselines.

Made by the reference implementations, with random weights.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]


def read(shared: Path, name: str) -> tuple[Tensors, Tensors, Tensors]:
    """Parameters, inputs and outputs of one file, by name."""
    from safetensors.torch import load_file

    found = load_file(shared / f"baselines/golden/{name}.safetensors")
    parts = ({}, {}, {})
    for key, value in found.items():
        kind, _, rest = key.partition("/")
        parts[("param", "input", "output").index(kind)][rest] = value
    return parts


def load(model: nn.Module, tensors: Tensors, names: dict[str, str]) -> nn.Module:
    """Give a model golden weights, strictly.

    names: pieces of golden names -> ours, replaced in order.
    """
    state = {}
    for name, value in tensors.items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        state[name] = value
    wanted = model.state_dict()
    model.load_state_dict(
        {name: value.reshape(wanted[name].shape) for name, value in state.items()}
    )
    return model


def agree(found: Tensor | float, reference: Tensor, tolerance: float = 1e-5) -> bool:
    """|a - b| <= tolerance x max(1, max |reference|), and equal shapes."""
    found = torch.as_tensor(found).detach()
    if found.numel() == 1:
        found = found.reshape(1)
        reference = reference.reshape(1)
    assert found.shape == reference.shape
    return bool(
        (found - reference).abs().max() <= tolerance * max(1.0, float(reference.abs().max()))
    )


def gradient_norm(loss: Tensor, model: nn.Module) -> float:
    """L2 norm of the gradient with respect to all parameters."""
    loss.backward()
    return float(
        torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    )

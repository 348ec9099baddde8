"""LoRA folded into the frozen weights while nothing trains, and taken out again exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def folded(module: nn.Module) -> Iterator[None]:
    """Inside, each layer with LoRA is one matrix, W + scaling B A, rounded to the type of W.

    The frozen weights are written in place, so that compiled code finds them where they were; they
    are kept aside and written back on leaving, also after an error: to the bit as they were. The
    folded forecast differs from the plain one by rounding: in float32 by 1e-6 of a velocity, in
    bfloat16, where W + scaling B A is rounded once more, by what `benchmarks/full_size.py` prints.
    """
    places = _lora_layers(module)
    bases = [layer.base_layer for _, _, layer in places]
    weights = [base.weight.data for base in bases]
    kept = [weight.clone() for weight in weights]
    try:
        with torch.no_grad():
            for weight, (parent, name, layer) in zip(weights, places, strict=True):
                weight.copy_(_folded_weight(layer))
                parent._modules[name] = layer.base_layer
        yield
    finally:
        for parent, name, layer in places:
            parent._modules[name] = layer
        if kept:
            torch._foreach_copy_(weights, kept)


def _lora_layers(module: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """(parent, name, layer) of every layer that has LoRA."""
    return [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent._modules.items()
        if hasattr(child, "base_layer") and hasattr(child, "lora_A")
    ]


def _folded_weight(layer: nn.Module) -> torch.Tensor:
    """W + the sum of scaling B A over the active adapters, float32."""
    weight = layer.base_layer.weight.data.float()  # (out,in)
    for name in layer.active_adapters:
        down = layer.lora_A[name].weight.data.float()  # (r,in)
        up = layer.lora_B[name].weight.data.float()  # (out,r)
        weight = torch.addmm(weight, up, down, alpha=layer.scaling[name])
    return weight

"""Forward and backward of a training step: as they are, or replayed from a CUDA graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from satjepa.models.compiled import warn_slower

WARM_UPS = 3  # steps before a graph is captured: they compile, choose kernels and fill caches
Parts = dict[str, Tensor]
Forward = Callable[..., tuple[Tensor, Parts]]  # (batch, noise, sigma, drops) -> (loss, parts)


def advance(forward: Forward, model: nn.Module, inputs: tuple) -> Parts:
    """The gradients of a step are in the weights afterwards; returns the named parts of its
    loss.
    """
    loss, parts = forward(*inputs)
    model.zero_grad(set_to_none=True)
    loss.backward()
    return parts


@dataclass
class _Graph:
    """A captured step: what it reads, says, and leaves as gradients, each at its own address."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    parts: Parts
    gradients: list[Tensor | None]


class GraphedAdvance:
    """`advance` as one launch of the GPU instead of tens of thousands: a CUDA graph, captured anew
    where the shapes of a step change.

    For one process, and a model whose forward neither asks the device for a number nor draws one.
    What fails to be captured is one warning, and every step is launched kernel by kernel.
    """

    def __init__(self, forward: Forward, model: nn.Module) -> None:
        self.forward = forward
        self.model = model
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.failed = False
        self._key: tuple = ()
        self._captured: _Graph | None = None

    def __call__(self, inputs: tuple) -> Parts:
        """As `advance`; what it returns stays valid until the next call."""
        if self.failed:
            return advance(self.forward, self.model, inputs)
        tensors = [leaf for leaf in tree_flatten(inputs)[0] if isinstance(leaf, Tensor)]
        key = (len(inputs), *((x.shape, x.dtype) for x in tensors))
        if key != self._key:
            self._captured = None
            try:
                self._captured = self._capture(inputs)
            except Exception as error:
                self.failed = True
                warn_slower(
                    "the training step could not be captured as a CUDA graph and is launched "
                    "kernel by kernel",
                    error,
                )
                return advance(self.forward, self.model, inputs)
            self._key = key
        return self._replay(tensors)

    def _replay(self, tensors: list[Tensor]) -> Parts:
        captured = self._captured
        torch._foreach_copy_(captured.inputs, tensors)
        captured.graph.replay()
        for parameter, gradient in zip(self.trained, captured.gradients, strict=True):
            parameter.grad = gradient
        return captured.parts

    def _capture(self, inputs: tuple) -> _Graph:
        began = time.perf_counter()
        own = _cloned(inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                advance(self.forward, self.model, own)
        torch.cuda.current_stream().wait_stream(stream)
        self.model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss, parts = self.forward(*own)
            loss.backward()
        tensors = [leaf for leaf in tree_flatten(own)[0] if isinstance(leaf, Tensor)]
        print(f"training step captured as a CUDA graph in {time.perf_counter() - began:.0f} s")
        return _Graph(graph, tensors, parts, [p.grad for p in self.trained])


def _cloned(value: Any) -> Any:
    """Nested dicts, tuples and lists with every tensor cloned; anything else as it is."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {name: _cloned(item) for name, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_cloned(item) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(_cloned(item) for item in value)
    return value

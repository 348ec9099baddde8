"""What a model makes of many samples, made once and kept, so that what is trained on it alone costs
what that costs: the reader's lesson, the caption writer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from satjepa.contracts import Batch
from satjepa.training.feed import feed

AT_ONCE = 64  # samples


def keep(
    dataset: Any,
    chosen: Sequence[int],
    make: Callable[[Batch], Any],
    device: torch.device,
    workers: int = 0,
    is_stopping: Callable[[int], bool] = lambda number: False,
) -> Any | None:
    """`make(batch)`, tensors (B,...) in any nesting, of the samples `chosen` of a dataset, in their
    order: the same nesting of (n,...) on the CPU, numbers as float16. None where
    `is_stopping(number of the batch)` ended it.

    make: is given batches on `device`, all of one size: the last one is filled up from the first.
    """
    count = len(chosen)
    size = min(AT_ONCE, count)

    def some(first: int) -> list[int]:
        return [chosen[place % count] for place in range(first, first + size)]

    pieces = []
    batches = feed(dataset, some, range(0, count, size), device, workers)
    with closing(batches), torch.no_grad():
        for number, batch in enumerate(batches):
            if is_stopping(number):
                return None
            pieces.append(tree_map(_small, make(batch)))
    return tree_map(lambda *parts: torch.cat(parts)[:count], *pieces)


def used(kept: Any, rows: Sequence[int], device: torch.device) -> Any:
    """Some rows of what was kept, on a device, numbers as float32."""
    return tree_map(lambda x: _large(x[rows]).to(device), kept)


def _small(x: Tensor) -> Tensor:
    """A copy: the memory of a batch's words is used again (`satjepa.training.feed`)."""
    return (x.half() if x.is_floating_point() else x.clone()).cpu()


def _large(x: Tensor) -> Tensor:
    return x.float() if x.is_floating_point() else x

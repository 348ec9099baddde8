"""Multi-block masks of I-JEPA (Assran et al. 2023) as the published system draws them: what is
seen, what is asked.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Size = tuple[int, int]
"""rows, columns"""


@dataclass(frozen=True)
class Blocks:
    """Ranges of the share of the image that a block covers and of the target's rows/columns; how
    many blocks of each.

    The defaults are the published ones. min_keep: a block is meant to have more patches than that.
    """

    context: tuple[float, float] = (0.7, 1.0)
    target: tuple[float, float] = (0.2, 0.5)
    aspect: tuple[float, float] = (0.75, 1.5)
    contexts: int = 1
    targets: int = 1
    min_keep: int = 6


BLOCKS = Blocks()


def block_sizes(call: int, grid: int, blocks: Blocks = BLOCKS) -> tuple[Size, Size]:
    """Sizes of the target and the context blocks in call number ``call`` for grid x grid patches.

    The number of the call alone decides. One draw for each kind sets area and aspect, so that small
    targets are always wide and large ones tall; no block reaches the full side (both published).
    """
    generator = torch.Generator().manual_seed(call)
    sizes = []
    for (low, high), (flat, tall) in ((blocks.target, blocks.aspect), (blocks.context, (1.0, 1.0))):
        r = torch.rand(1, generator=generator).item()
        area = max(int(grid**2 * (low + r * (high - low))), blocks.min_keep + 1)
        aspect = flat + r * (tall - flat)
        sides = (round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect)))
        sizes.append(tuple(min(max(side, 1), grid - 1) for side in sides))
    return sizes[0], sizes[1]


def sample_masks(
    call: int,
    batch: int,
    grid: int,
    blocks: Blocks = BLOCKS,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Masks of a batch: patch numbers seen (contexts, batch, K) and asked (targets, batch, M),
    int64, ascending.

    Patches are numbered row by row. Where a block lies is drawn for each sample from ``generator``
    (the global one by default), but never so that it touches the last row or column (published), so
    those are never trained on. Context and target may overlap, and mostly do. All blocks of a kind
    have one size, so no mask of a batch has to be cut.
    """
    target, context = block_sizes(call, grid, blocks)
    asked = _placed(target, (blocks.targets, batch), grid, generator)
    return _placed(context, (blocks.contexts, batch), grid, generator), asked


def _placed(
    size: Size, shape: tuple[int, int], grid: int, generator: torch.Generator | None
) -> Tensor:
    rows, columns = size
    top, left = (
        torch.randint(0, grid - side, (*shape, 1, 1), generator=generator) for side in size
    )
    patches = (
        (top + torch.arange(rows)[:, None]) * grid + left + torch.arange(columns)
    )  # (*shape,rows,columns)
    return patches.flatten(-2)


def repeated(value: Any, times: int) -> Any:
    """A batch of tensors ``times`` over, [all B, all B, ...]; dicts of them alike, anything else as
    it is.
    """
    if times == 1 or not isinstance(value, Tensor | dict):
        return value
    if isinstance(value, dict):
        return {name: repeated(item, times) for name, item in value.items()}
    return value.repeat(times, *[1] * (value.ndim - 1))

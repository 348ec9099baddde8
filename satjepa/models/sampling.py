"""How a forecast is put together: which samples of which patches are computed at once, and the
switches that lead back to the plain way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = {"cuda": 128, "cpu": 64}  # forecasts computed at once, most of them, by kind of device


@dataclass(frozen=True)
class Levers:
    """What makes forecasts quick. All on, unless a test or a benchmark asks for the plain way.

    guidance: both halves of the guidance in one call. fold: LoRA folded into the frozen weights.
    together: samples of an ensemble computed at once, else one by one.
    """

    guidance: bool = True
    fold: bool = True
    together: bool = True


class RowSizes:
    """The numbers of rows that were computed at once before: fewer are padded up to one of them, so
    that nothing is compiled twice for the last tiles of a scene.
    """

    def __init__(self) -> None:
        self.known: set[int] = set()

    def fit(self, count: int) -> int:
        """The smallest known size that holds ``count``, else ``count``, which is known from now
        on.
        """
        size = min((size for size in self.known if size >= count), default=count)
        self.known.add(size)
        return size


def row_chunks(total: int, size: int, sizes: RowSizes | None) -> Iterator[tuple[Tensor, int]]:
    """Numbers of the rows to compute at once, (R,) on the CPU, and how many of them count: the
    first ones; the rest repeat the last row.

    total: rows in all. size: most of them at once. sizes: None where no shape is dearer than
    another, and nothing is padded.
    """
    for start in range(0, total, size):
        rows = torch.arange(start, min(start + size, total))
        count = len(rows)
        if sizes is not None:
            rows = torch.cat([rows, rows[-1:].expand(sizes.fit(count) - count)])
        yield rows, count

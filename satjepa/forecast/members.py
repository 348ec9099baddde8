"""The first members of an ensemble on a window of the raster, kept while it is forecast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from satjepa.forecast.tiles import Box

Window = tuple[int, int, int, int]  # first column, first row, width, height


class Members:
    """What `blended` gives its tiles to: the first `count` members on a window.

    `kept` (count,3,h,w) float32 is 0 where no tile was forecast. Where tiles overlap a member is
    their weighted mean, so it is a little smoother there than one tile's.
    """

    def __init__(self, window: Window, count: int) -> None:
        _, _, width, height = window
        self.window = window
        self.kept = np.zeros((count, 3, height, width), np.float32)

    def __call__(self, boxes: Sequence[Box], drawn: np.ndarray) -> None:
        """Add the shares of B tiles, drawn (S,B,3,patch,patch)."""
        for (y, x, weight), tile in zip(boxes, drawn.swapaxes(0, 1), strict=True):
            self._add(y, x, weight * tile[: len(self.kept)])

    def _add(self, y: int, x: int, share: np.ndarray) -> None:
        """Add the part of (S,3,patch,patch), whose first pixel is (y, x), that lies in the
        window.
        """
        left, top, width, height = self.window
        patch = share.shape[-1]
        first_row = max(y, top)
        first_column = max(x, left)
        rows = min(y + patch, top + height) - first_row
        columns = min(x + patch, left + width) - first_column
        if rows > 0 and columns > 0:
            inside = _box(first_row - y, first_column - x, rows, columns)
            self.kept[_box(first_row - top, first_column - left, rows, columns)] += share[inside]


def _box(row: int, column: int, rows: int, columns: int) -> tuple:
    return ..., slice(row, row + rows), slice(column, column + columns)

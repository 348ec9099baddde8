"""Forecasts of overlapping tiles added up to rows of the scene: moments, and members if wanted.

Moments are blended, not samples: the ensemble at a pixel is the mixture of those of the tiles over
it, so the spread does not dip at seams. What is kept is as high as a row of tiles, whatever the
height of the scene.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Kept(NamedTuple):
    """Which members are kept: the first `count`, on the columns `left` to before `right`."""

    count: int = 0
    left: int = 0
    right: int = 0


NOTHING = Kept()


class Blend:
    """The rows `top` to before `top` + `height` of a scene, to which tiles are added.

    Y years, each with E[x - r] and E[(x - r)^2] of the mixture, (Y,3,height,width), where r is the
    mean of the first tile over a pixel: where all tiles agree, their value comes out exactly and
    the spread between them is 0. Members are the weighted means of the tiles'.
    """

    def __init__(self, years: int, height: int, width: int, kept: Kept = NOTHING) -> None:
        self.top = 0
        self.kept = kept
        self._first, self._second, self._reference = np.zeros((3, years, 3, height, width))
        self._seen = np.zeros((height, width), bool)
        columns = kept.right - kept.left
        self._members = np.zeros((years, kept.count, 3, height, columns))

    def add(self, y: int, x: int, weight: np.ndarray, drawn: np.ndarray) -> None:
        """Add a tile whose first pixel is (y, x) in the scene: weight (h,w), drawn (Y,S,3,h,w)
        float64. What lies above or below the rows is left out.
        """
        height = len(self._seen)
        above = max(0, self.top - y)
        below = max(0, y + weight.shape[0] - self.top - height)
        weight = weight[above : weight.shape[0] - below]
        drawn = drawn[..., above : drawn.shape[-2] - below, :]
        if not len(weight):
            return
        row = y + above - self.top
        rows = slice(row, row + weight.shape[0])
        box = (..., rows, slice(x, x + weight.shape[1]))
        samples = drawn.shape[1]
        mean = drawn.mean(1)
        variance = drawn.var(1, ddof=min(1, samples - 1))
        self._reference[box] = np.where(self._seen[box], self._reference[box], mean)
        self._seen[box] = True
        apart = mean - self._reference[box]
        self._first[box] += weight * apart
        self._second[box] += weight * (variance + apart**2)
        self._keep(rows, x, weight, drawn)

    def _keep(self, rows: slice, x: int, weight: np.ndarray, drawn: np.ndarray) -> None:
        count, left, right = self.kept
        first = max(x, left)
        last = min(x + weight.shape[1], right)
        if count and first < last:
            inside = slice(first - x, last - x)
            share = weight[:, inside] * drawn[:, :count, :, :, inside]
            self._members[..., rows, first - left : last - left] += share

    def take(self, bottom: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean and spread (Y,3,h,width) float64 and members (Y,count,3,h,columns) of the rows from
        `top` to before `bottom`, to which no further tile is added; then the rows begin there.
        """
        count = bottom - self.top
        first = self._first[..., :count, :]
        mean = self._reference[..., :count, :] + first
        spread = np.sqrt(np.maximum(self._second[..., :count, :] - first**2, 0))
        members = self._members[..., :count, :].copy()
        for rows in (self._first, self._second, self._reference, self._members):
            _up(rows, count)
        self._seen[:-count] = self._seen[count:]
        self._seen[-count:] = False
        self.top = bottom
        return mean, spread, members


def _up(rows: np.ndarray, count: int) -> None:
    """Move rows (...,h,w) up by `count`; the last ones are 0."""
    height = rows.shape[-2]
    rows[..., : height - count, :] = rows[..., count:, :]
    rows[..., height - count :, :] = 0

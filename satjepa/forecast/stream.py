"""A scene forecast by rows of tiles: which tiles there are, and the finished rows one band after
the other, in memory that does not grow with the height of the scene.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from satjepa.captions.embeddings import Embed
from satjepa.contracts import Forecaster
from satjepa.forecast.blend import NOTHING, Blend, Kept
from satjepa.forecast.led import Sentence, Telling
from satjepa.forecast.scene import Scene
from satjepa.forecast.tiles import Box, axis_tiles, cell_of, padded_length, tile_batch
from satjepa.models.led import Led

Draw = Callable[[dict[str, Any], int, int], tuple[Tensor, list[Sentence]]]
"""draw(batch of B tiles, samples, seed) -> (Y,S,B,3,H,W) in [0, 1] on the CPU: Y years on; and what
led the members, if anything did."""


class Rows(NamedTuple):
    """The rows that a band finishes, of the scene's own width, on the display scale: mean and
    spread (Y,3,h,W) float64, members (Y,count,3,h,columns), and where year t is valid (h,W); and
    what led the members of the tiles of the band, where sentences did.
    """

    band: int
    mean: np.ndarray
    spread: np.ndarray
    members: np.ndarray
    valid: np.ndarray
    told: list[Sentence]


@dataclass(frozen=True)
class Plan:
    """Tiles of a scene of `shape` (rows, columns), and the bands that they are forecast in.

    A band is a row of tiles, or as many rows as fill a batch; it never depends on who computes it.
    The rows that band n finishes are those from its first one to before the first one of band n+1.
    """

    shape: tuple[int, int]
    patch: int
    overlap: int
    batch: int = 16

    @cached_property
    def width(self) -> int:
        """Columns that the tiles cover: those of the scene, in whole cells."""
        return padded_length(self.shape[1], self.patch)

    @cached_property
    def rows(self) -> tuple[list[int], np.ndarray]:
        """First rows of the rows of tiles, and their weights."""
        length = padded_length(self.shape[0], self.patch)
        return axis_tiles(length, self.patch, self.overlap, cell_of(self.patch))

    @cached_property
    def columns(self) -> tuple[list[int], np.ndarray]:
        """First columns of the columns of tiles, and their weights."""
        return axis_tiles(self.width, self.patch, self.overlap, cell_of(self.patch))

    @cached_property
    def bands(self) -> list[range]:
        """The numbers of the rows of tiles in each band."""
        together = max(1, self.batch // len(self.columns[0]))
        count = len(self.rows[0])
        return [range(n, min(n + together, count)) for n in range(0, count, together)]

    @cached_property
    def tops(self) -> list[int]:
        """First row of each band, and the row after the last one of the scene."""
        firsts = [self.rows[0][band[0]] for band in self.bands]
        return [*firsts, self.shape[0]]

    def bottom(self, band: int) -> int:
        """The row after the last one that the tiles of a band cover."""
        return self.rows[0][self.bands[band][-1]] + self.patch

    def tiles(self, band: int) -> list[Box]:
        """The tiles of a band: first row and column, weights."""
        ys, row_weights = self.rows
        xs, column_weights = self.columns
        boxes = []
        for n in self.bands[band]:
            for x, weight in zip(xs, column_weights, strict=True):
                boxes.append((ys[n], x, np.outer(row_weights[n], weight)))
        return boxes

    @property
    def count(self) -> int:
        """Tiles in all."""
        return len(self.rows[0]) * len(self.columns[0])

    def count_of(self, band: int) -> int:
        """Tiles of a band."""
        return len(self.bands[band]) * len(self.columns[0])


@dataclass(frozen=True)
class Stream:
    """What makes the rows of a forecast: the scene, the plan, and who draws.

    history, embed, given: of `tile_batch`. kept: the members that the rows have.
    """

    scene: Scene
    plan: Plan
    draw: Draw
    samples: int
    seed: int
    years: int = 1
    history: int = 0
    embed: Embed | None = None
    given: dict[str, str] | None = None
    kept: Kept = NOTHING

    def rows(self, first: int, last: int) -> Iterator[Rows]:
        """The finished rows of the bands `first` to before `last`, one after the other.

        They are bit for bit those of a run over all bands: a band whose tiles reach into the first
        rows is computed for these as well, and added in the same order.
        """
        plan = self.plan
        start = next(n for n in range(first + 1) if plan.bottom(n) > plan.tops[first])
        height = max(plan.bottom(n) - plan.tops[n] for n in range(start, last))
        blend = Blend(self.years, height, plan.width, self.kept)
        for band in range(start, last):
            blend.top = plan.tops[max(band, first)]
            valid, told = self._add(blend, band)
            if band >= first:
                rows = plan.tops[band + 1] - plan.tops[band]
                mean, spread, members = blend.take(plan.tops[band + 1])
                width = plan.shape[1]
                known = valid[:rows, :width]
                yield Rows(band, mean[..., :width], spread[..., :width], members, known, told)

    def _add(self, blend: Blend, band: int) -> tuple[np.ndarray, list[Sentence]]:
        """Forecast the tiles of a band, but those without a valid pixel, and add them; returns
        where the rows under them are valid in year t, and what led the members.
        """
        plan = self.plan
        stack = self.scene.read(plan.tops[band], plan.bottom(band), plan.width)
        top = plan.tops[band]
        seen = [box for box in plan.tiles(band) if self._is_seen(stack.valid[0], box, top)]
        told: list[Sentence] = []
        for i in range(0, len(seen), plan.batch):
            part = seen[i : i + plan.batch]
            corners = [(y - top, x) for y, x, _ in part]
            batch = tile_batch(
                stack, corners, plan.patch, self.history, self.embed, self.given, top
            )
            tiles, sentences = self.draw(batch, self.samples, self.seed)
            told += sentences
            drawn = tiles.double().numpy()
            for (y, x, weight), tile in zip(part, drawn.transpose(2, 0, 1, 3, 4, 5), strict=True):
                blend.add(y, x, weight, tile)  # tile (Y,S,3,patch,patch)
        return stack.valid[0], told

    def _is_seen(self, valid: np.ndarray, box: Box, top: int) -> bool:
        y, x, _ = box
        patch = self.plan.patch
        return bool(valid[y - top : y - top + patch, x : x + patch].any())


def drawing(forecaster: Forecaster, years: int, embed: Embed | None) -> Draw:
    """What draws the forecasts of `years` years: of one, the forecaster itself; of several, each
    member going on from its own forecast (`satjepa.forecast.rollout`). The sentences of a `Led` are
    handed out beside them.
    """
    from satjepa.forecast.rollout import by_rule, rollout

    captions = None if embed is None else by_rule(embed)

    def draw(batch: dict[str, Any], samples: int, seed: int) -> tuple[Tensor, list[Sentence]]:
        telling = Telling(forecaster) if isinstance(forecaster, Led) else None
        drawn = rollout(telling or forecaster, batch, samples, seed, years, captions)
        return drawn, [] if telling is None else telling.sentences()

    return draw


def runs_of(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Rising numbers as runs without a gap: (first, last + 1) of each."""
    runs: list[tuple[int, int]] = []
    for n in numbers:
        if runs and runs[-1][1] == n:
            runs[-1] = (runs[-1][0], n + 1)
        else:
            runs.append((n, n + 1))
    return runs

"""The images of one scene read by rows, north up, on the display scale, without holes: what
`satjepa.data.stack` makes of whole images, in memory that does not grow with the height.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from satjepa.data.georeference import Georeference
from satjepa.data.grid import Turn, upright
from satjepa.data.rasters import read_rgb, rgb_scale
from satjepa.data.stack import ForecastError, Stack, filled

ROWS = 128  # read at once
MARGIN = 128  # rows above and below these that a hole is filled from
KEEP = 2  # blocks of rows in memory
Window = tuple[int, int, int, int]  # first column, first row, width, height


@dataclass(frozen=True)
class Scene:
    """T images of one scene, given oldest first, of which rows can be read.

    images, years, whites: oldest first, of the images that are used. place: of the newest one.

    Holes are filled from the nearest valid pixel of the block of 128 rows that they lie in or of
    the 128 rows above and below it; where a year has none there, with 0, as a year that is absent.
    So what is read does not depend on the rows asked for, and of a scene of up to 256 rows it is
    what `read_stack` reads.
    """

    images: tuple[Path, ...]
    years: tuple[int | None, ...]
    whites: tuple[float, ...]
    place: Georeference
    _blocks: OrderedDict = field(default_factory=OrderedDict, repr=False, compare=False)

    @cached_property
    def turn(self) -> Turn:
        """What is done to the arrays of the files so that north is up."""
        return self.place.north_up()

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, north up."""
        size = self.place.height, self.place.width
        return size[::-1] if self.turn.exchanged else size

    @cached_property
    def units(self) -> tuple[float, float]:
        """Factor and offset from the numbers of the newest file to [0, 1]."""
        return rgb_scale(self.images[-1])

    @cached_property
    def shares(self) -> tuple[float, float]:
        """Share of the pixels of the newest image that are valid, and of these the share that is
        brighter than white, found by rows. ForecastError where none is valid.
        """
        count = 0
        bright = 0
        for top in range(0, self.shape[0], ROWS):
            rgb, valid = self.raw(top, min(top + ROWS, self.shape[0]))
            count += int(valid.sum())
            bright += int((rgb[:, valid] > 1 + 1e-6).any(0).sum())
        if not count:
            raise ForecastError(f"{self.images[-1]} has no valid pixel")
        return count / (self.shape[0] * self.shape[1]), bright / count

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Name of each file -> sha256 of its bytes."""
        digests = {}
        for path in self.images:
            with path.open("rb") as file:
                digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        return digests

    def read(self, top: int, bottom: int, width: int | None = None) -> Stack:
        """The rows `top` to before `bottom`, which may lie below the scene, and `width` columns
        (default: its own): beyond its edges it goes on as its mirror image.
        """
        height, own = self.shape
        rows = _mirrored(np.arange(top, bottom), height)
        columns = _mirrored(np.arange(width or own), own)
        first = int(rows.min()) // ROWS
        blocks = [self._block(n) for n in range(first, int(rows.max()) // ROWS + 1)]
        inside = rows - first * ROWS
        whole = len(columns) == own
        rgb = np.concatenate([rgb for rgb, _ in blocks], -2)[..., inside, :]
        valid = np.concatenate([valid for _, valid in blocks], -2)[..., inside, :]
        years = tuple(reversed(self.years))
        return Stack(
            rgb if whole else rgb[..., columns], valid if whole else valid[..., columns], years,
            *self.units, self.whites[-1], self.shares[1], self.turn,
        )  # fmt: skip

    def raw(self, top: int, bottom: int, which: int = -1) -> tuple[np.ndarray, np.ndarray]:
        """Rows of one of the images, by default the newest, (3,h,W) float32 on the scale on which 1
        is its white, not clipped there, 0 where invalid; and their validity (h,W).
        """
        window = stored_window(self.place, self.turn, top, bottom)
        rgb, valid = read_rgb(self.images[which], window)
        rgb /= np.float32(self.whites[which])
        return upright(rgb, self.turn), upright(valid, self.turn)

    def _block(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of a block without holes, newest image first: (T,3,h,W), and their validity."""
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        while len(self._blocks) >= KEEP:
            self._blocks.popitem(last=False)
        top = number * ROWS
        bottom = min(top + ROWS, self.shape[0])
        images = [self._without_holes(which, top, bottom) for which in range(len(self.images))]
        rgb, valid = (np.stack(parts[::-1]) for parts in zip(*images, strict=True))
        self._blocks[number] = np.minimum(rgb, 1), valid
        return self._blocks[number]

    def _without_holes(self, which: int, top: int, bottom: int) -> tuple[np.ndarray, np.ndarray]:
        rgb, valid = self.raw(top, bottom, which)
        if valid.all():
            return rgb, valid
        above = max(0, top - MARGIN)
        wide, known = self.raw(above, min(bottom + MARGIN, self.shape[0]), which)
        return filled(wide, known)[:, top - above : bottom - above], valid


def stored_window(place: Georeference, turn: Turn, top: int, bottom: int) -> Window:
    """Where the rows `top` to before `bottom` of the upright scene lie in the file of `place`."""
    length = place.width if turn.exchanged else place.height
    first = length - bottom if turn.top_down else top
    count = bottom - top
    if turn.exchanged:
        return first, 0, count, place.height
    return 0, first, place.width, count


def _mirrored(index: np.ndarray, length: int) -> np.ndarray:
    """Indices of an axis of `length` on which it goes on as its mirror image, as `np.pad` has
    it.
    """
    if length == 1:
        return np.zeros_like(index)
    index = index % (2 * (length - 1))
    return np.minimum(index, 2 * (length - 1) - index)

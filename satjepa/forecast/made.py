"""A forecast whose rows are all there: read on the display scale, or written to its files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from satjepa.forecast.blend import Kept
from satjepa.forecast.led import Sentence, write_sentences
from satjepa.forecast.pieces import InFolder, Pieces, reader
from satjepa.forecast.request import Request
from satjepa.forecast.scene import Scene
from satjepa.forecast.stream import Plan, Rows
from satjepa.forecast.units import BANDS, COLOURS, Units
from satjepa.forecast.write import Layer, write_layer


@dataclass(frozen=True)
class Made:
    """A forecast of `years` years whose rows `pieces` keeps, with the members that `kept` says.

    notes: tags of its files, but for the year.
    """

    request: Request
    scene: Scene
    plan: Plan
    units: Units
    pieces: Pieces
    notes: dict[str, str]
    kept: Kept
    years: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the scene, north up."""
        return self.request.shape

    def keep(self, rows: Rows) -> None:
        """Keep the finished rows of a band, as they are stored in a file."""
        _, left, right = self.kept
        moments = self.units.moments(rows.mean, rows.spread, rows.valid)
        members = self.units.colours(rows.members, rows.valid[:, left:right])
        told = np.frombuffer(json.dumps(rows.told).encode(), np.uint8)
        self.pieces.save(rows.band, {"moments": moments, "members": members, "told": told})

    def year(self, ahead: int = 0) -> str:
        """The year of a forecast: that after the last image, and `ahead` more."""
        last = self.request.years[-1]
        return "unknown" if last is None else str(last + 1 + ahead)

    def tags(self, ahead: int = 0) -> dict[str, str]:
        """What the file of a year says of the forecast."""
        return self.notes | {"YEAR": self.year(ahead)}

    def moments(self, top: int, bottom: int, ahead: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Mean and spread (3,h,W) float64 of rows on the display scale, NaN where invalid."""
        stored = self._reader("moments", lambda array: array[ahead])(top, bottom)
        return self.units.shown(stored[:3]), self.units.shown_spread(stored[3:])

    def members(self, top: int, bottom: int, ahead: int = 0) -> np.ndarray:
        """The members kept (count,3,h,columns) of rows, likewise."""
        return self.units.shown(self._reader("members", lambda array: array[ahead])(top, bottom))

    def write(self, out: str | Path, ahead: int = 0, cloud: bool = False) -> Path:
        """Write mean and spread of a year as a GeoTIFF, or a Cloud-Optimized one."""
        read = self._reader("moments", lambda array: array[ahead])
        layer = Layer(BANDS, read, self.tags(ahead), spreads=3)
        write_layer(Path(out), self.units, layer, cloud, self._folder)
        return Path(out)

    def write_member(self, out: str | Path, number: int, ahead: int = 0) -> Path:
        """Write a member, counted from 0, of a year as a Cloud-Optimized GeoTIFF."""
        read = self._reader("members", lambda array: array[ahead, number])
        tags = self.tags(ahead) | {"MEMBER": str(number + 1)}
        write_layer(Path(out), self.units, Layer(COLOURS, read, tags), True, self._folder)
        return Path(out)

    def sentences(self, ahead: int = 0) -> Iterator[Sentence]:
        """What led each member of each tile in a year, tile by tile; nothing where no one wrote."""
        for band in range(len(self.plan.bands)):
            told = json.loads(self.pieces.get(band, "told").tobytes())
            yield from (Sentence(*said) for said in told if said[0] == ahead)

    def write_sentences(self, out: str | Path, ahead: int = 0) -> Path:
        """Write them as a CSV (`satjepa.forecast.led`)."""
        return write_sentences(self.sentences(ahead), out)

    def remove(self) -> None:
        """Remove what was kept on the disk of the work."""
        if isinstance(self.pieces, InFolder):
            self.pieces.remove()

    @property
    def _folder(self) -> Path | None:
        return self.pieces.folder if isinstance(self.pieces, InFolder) else None

    def _reader(
        self, name: str, pick: Callable[[np.ndarray], np.ndarray]
    ) -> Callable[[int, int], np.ndarray]:
        return reader(self.pieces, self.plan, name, pick)

"""Forecasts of a scene whose members are led by sentences: who said what of which tile.

Each tile of a scene has captions of its own, written from its pixels, and so each member of each
tile is led by a sentence of its own. A member of the scene is made of all of these: its noise is
one field without seams, its words change from tile to tile, and where tiles overlap it goes over
from what one sentence led to into what the other did.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from satjepa.paths import replaced

if TYPE_CHECKING:
    from torch import Tensor

    from satjepa.models.led import Led


class Sentence(NamedTuple):
    """What led a member, counted from 1, of a tile: of the `ahead`-th year after the first one
    forecast. x, y: first column and row of the tile in the scene, north up; side in pixels.
    """

    ahead: int
    x: int
    y: int
    side: int
    member: int
    text: str


COLUMNS = Sentence._fields[1:]  # of a file, which is of one year


class Telling:
    """A `Forecaster` for tiles that keeps the sentences which lead their members."""

    def __init__(self, led: Led) -> None:
        self.led = led
        self._told: dict[tuple[int, int, int, int], list[str]] = {}

    def forecast(self, batch: dict[str, Any], samples: int = 1, seed: int = 0) -> Tensor:
        """As `satjepa.models.led.Led.forecast`. What is asked for in turn of one place and year are
        its members in their order, all at once or each alone (`satjepa.forecast.rollout`).
        """
        members, sentences = self.led.with_sentences(batch, samples, seed)
        for texts in sentences:
            for meta, text in zip(batch["meta"], texts, strict=True):
                tile = meta["year"], meta["y"], meta["x"], meta["tile"]
                self._told.setdefault(tile, []).append(text)
        return members

    def sentences(self) -> list[Sentence]:
        """All of them, by year, row and column of the tile, and member."""
        first = min(year for year, *_ in self._told)
        told = []
        for (year, y, x, side), texts in sorted(self._told.items()):
            for member, text in enumerate(texts, start=1):
                told.append(Sentence(year - first, x, y, side, member, text))
        return told


def write_sentences(sentences: Iterable[Sentence], path: str | Path) -> Path:
    """Write a CSV of sentences of one year, a row each: x, y, side, member, text."""
    with replaced(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(sentence[1:] for sentence in sentences)
    return Path(path)


def read_sentences(path: str | Path) -> list[Sentence]:
    """The sentences of such a file, as of year 0."""
    told = []
    with Path(path).open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            *place, text = (row[name] for name in COLUMNS)
            told.append(Sentence(0, *map(int, place), text))
    return told


def by_tile(sentences: Iterable[Sentence]) -> dict[tuple[int, int], list[str]]:
    """The text of each member, by the column and row (x, y) of the tile, in the order given."""
    tiles = {}
    for corner, said in groupby(sentences, key=lambda one: (one.x, one.y)):
        tiles[corner] = [one.text for one in said]
    return tiles


def of_the_middle(sentences: Sequence[Sentence]) -> list[str]:
    """The text of each member of the tile that is nearest to the middle of all."""
    tiles = by_tile(sentences)
    middle = [(min(place) + max(place)) / 2 for place in zip(*tiles, strict=True)]
    nearest = min(tiles, key=lambda c: abs(c[0] - middle[0]) + abs(c[1] - middle[1]))
    return tiles[nearest]

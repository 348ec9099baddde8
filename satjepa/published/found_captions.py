"""The captions that lie ready for a tile: those the pipeline wrote (captions.parquet), or JSON
files for each patch or for the tile.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from satjepa.contracts import CAPTION_KINDS, Captions
from satjepa.data.georeference import stored_corner
from satjepa.data.stack import ForecastError, layout_of, year_of

if TYPE_CHECKING:
    from satjepa.captions.embeddings import Embed
    from satjepa.contracts import Forecaster
    from satjepa.data.grid import Turn

# first column and row (x, y) of the patch that a caption is of; None: of the whole tile
Places = dict[tuple[int, int] | None, Captions]
Corner = Callable[[int, int], tuple[int, int]]


def place_of(path: Path, year: int | None = None) -> tuple[str, int | None]:
    """Region and year of a file name: ("Ordu", 2023) of s2_rgb_Ordu_2023_10km.tif; else the stem
    and `year_of`. A `year` that is given counts instead.
    """
    region, named = layout_of(path) or (path.stem, year_of(path))
    return region, named if year is None else year


def key_of(region: str, year: int | None) -> str:
    """What the names of a tile's caption files begin with: Ordu_2023, or the region where the year
    is not known.
    """
    return region if year is None else f"{region}_{year}"


def stored_in(turn: Turn, patch: int, height: int, width: int) -> Corner:
    """From the first pixel of a patch in the upright array to that in the file; see
    `stored_corner`.
    """
    return lambda x, y: stored_corner(x, y, turn, patch, height, width)


def find_captions(
    folder: Path, region: str, year: int | None, corner: Corner | None = None
) -> Places:
    """The captions of a tile, by the first column and row (x, y) of their patch in the file; None
    is the key of the whole tile.

    From captions.parquet of the pipeline if it is there, else from JSON files with the three texts
    under their names: `<region>_<year>_x0000_y0000.json` for a patch, `<region>_<year>.json` for
    the tile. corner: from the first pixel of a patch in the pipeline's cube, which is upright, to
    that in the file (`stored_in`).

    ForecastError where there are none, or a file does not hold the three texts.
    """
    places: Places = {}
    if (folder / "captions.parquet").is_file():
        table = _from_table(folder / "captions.parquet", region, year)
        places |= {corner(*xy) if corner else xy: texts for xy, texts in table.items()}
    key = key_of(region, year)
    pattern = re.compile(re.escape(key) + r"(?:_x(\d+)_y(\d+))?\.json")
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if name := pattern.fullmatch(path.name):
            xy = None if name[1] is None else (int(name[1]), int(name[2]))
            places[xy] = _from_json(path)
    if not places:
        expected = f"{key}_x0000_y0000.json, {key}.json, or captions.parquet with rows of it"
        tile = f"{region} {year}" if year else region
        raise ForecastError(f"no captions of {tile} in {folder}: expected {expected}")
    return places


def _from_table(path: Path, region: str, year: int | None) -> Places:
    from satjepa.captions.table import read_table

    table = read_table(path)
    rows = table[(table.region == region) & (table.year == year)].itertuples()
    places = {}
    for row in rows:
        places[row.x, row.y] = Captions(*(getattr(row, kind) for kind in CAPTION_KINDS))
    return places


def _from_json(path: Path) -> Captions:
    try:
        texts = json.loads(path.read_text(encoding="utf-8-sig"))
        captions = Captions(*(texts[kind] for kind in CAPTION_KINDS))
        if not all(isinstance(text, str) for text in captions):
            raise TypeError("a caption that is no text")
        return captions
    except (ValueError, KeyError, TypeError) as error:
        raise ForecastError(
            f"{path}: expected a JSON object with the texts {', '.join(CAPTION_KINDS)}"
        ) from error


class Captioned:
    """A forecaster that reads the captions found for a tile: each patch those of the nearest patch
    that has some.

    corner: from the first pixel (x, y) of a patch as it is forecast to that in the file, where the
    image was turned.
    """

    def __init__(
        self, forecaster: Forecaster, places: Places, embed: Embed, corner: Corner | None = None
    ) -> None:
        self.forecaster = forecaster
        self.places = places
        self.embed = embed
        self.corner = corner

    def at(self, x: int, y: int) -> Captions:
        """The captions for the patch whose first pixel is (x, y)."""
        if self.corner is not None:
            x, y = self.corner(x, y)
        corners = [place for place in self.places if place is not None]
        nearest = min(corners, key=lambda p: ((p[0] - x) ** 2 + (p[1] - y) ** 2, p), default=None)
        return self.places[nearest]

    def forecast(self, batch: dict[str, Any], samples: int = 1, seed: int = 0) -> Tensor:
        """Forecaster protocol."""
        text = self.embed([self.at(meta["x"], meta["y"]) for meta in batch["meta"]])
        return self.forecaster.forecast(batch | {"text_t": text}, samples, seed)

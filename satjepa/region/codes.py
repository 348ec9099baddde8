"""Codes of a scene that is read window by window: kept on disk as they come, so that a run that is
killed goes on, then written as one GeoTIFF.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from satjepa.data.alphaearth import BANDS, MASKED
from satjepa.paths import replaced
from satjepa.region.fetch_errors import BusyError
from satjepa.region.part import hidden

WINDOW = 512  # px a side of what is read, and noted as done, at once: 16 MiB of codes
BLOCK = 256  # px a side of the blocks of the file
GROUP = 8  # bands at a time
Window = tuple[int, int, int, int]  # first column, first row, width, height


def windows(height: int, width: int, side: int = WINDOW) -> list[Window]:
    """A raster cut into squares, row by row; those at its right and lower edge are smaller."""
    found = []
    for y in range(0, height, side):
        for x in range(0, width, side):
            found.append((x, y, min(side, width - x), min(side, height - y)))
    return found


class Codes:
    """Codes (64, H, W) int8 in a file, and the windows that are done with their numbers of valid
    pixels; `finished` once nobody needs them any more.
    """

    def __init__(
        self, raw: Path, height: int, width: int, journal: IO[str], done: dict[Window, int]
    ) -> None:
        self.raw = raw
        self.shape = (BANDS, height, width)
        self.journal = journal
        self.done = done
        self.finished = False

    def _mapped(self) -> np.ndarray:
        """The file as an array; mapped anew each time, so that what was touched does not add up in
        memory.
        """
        return np.memmap(self.raw, np.int8, "r+", shape=self.shape)

    def put(self, window: Window, block: np.ndarray) -> None:
        """Keep the codes (64, h, w) of a window, then note that it is done."""
        x, y, width, height = window
        values = self._mapped()
        values[:, y : y + height, x : x + width] = block
        values.flush()
        valid = int((block[0] != MASKED).sum())
        self.journal.write(json.dumps([*window, valid]) + "\n")
        self.journal.flush()
        self.done[window] = valid

    def rows(self, first: int, bands: int, y: int, height: int) -> np.ndarray:
        """Some rows of some bands, (bands, height, W)."""
        return np.array(self._mapped()[first : first + bands, y : y + height])


@contextmanager
def kept_codes(target: Path, identity: str, height: int, width: int) -> Iterator[Codes]:
    """The codes so far for the file `target`: those of an earlier run of the same `identity`, else
    none. They are removed after the block where they are finished. Raises BusyError.
    """
    raw = hidden(target, "codes")
    noted = hidden(target, "journal")
    target.parent.mkdir(parents=True, exist_ok=True)
    with noted.open("a+", encoding="utf-8") as journal:
        try:
            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(str(target), "another process writes it", "wait for it") from None
        size = BANDS * height * width
        done = _noted(journal, identity)
        if done is None or not raw.is_file() or raw.stat().st_size != size:
            done = {}
            journal.truncate(0)
            journal.write(json.dumps(identity) + "\n")
            journal.flush()
            raw.unlink(missing_ok=True)
            with raw.open("ab") as file:
                file.truncate(size)
        codes = Codes(raw, height, width, journal, done)
        yield codes
        if codes.finished:
            raw.unlink()
            noted.unlink()


def _noted(journal: IO[str], identity: str) -> dict[Window, int] | None:
    """Windows that are done; None where the journal is of other codes. A last line that was cut
    off is of a window that is not done.
    """
    journal.seek(0)
    lines = [_parsed(line) for line in journal]
    if not lines or lines[0] != identity:
        return None
    entries = [line for line in lines[1:] if line is not None]
    return {tuple(entry[:4]): entry[4] for entry in entries}


def _parsed(line: str) -> Any:
    try:
        return json.loads(line) if line.endswith("\n") else None
    except ValueError:
        return None


def write_codes(target: Path, codes: Codes, profile: dict[str, Any], tags: dict[str, str]) -> None:
    """Write codes as a GeoTIFF of int8 with nodata -128, its bands named A00 to A63, a
    row of blocks of a few bands at a time.

    profile: place of the grid (CRS, transform) as rasterio takes it.
    """
    import rasterio
    from rasterio.windows import Window as Box

    _, height, width = codes.shape
    layout = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "interleave": "band"}
    layout |= {"compress": "deflate", "bigtiff": "IF_SAFER", "driver": "GTiff"}
    form = {"count": BANDS, "dtype": "int8", "nodata": MASKED, "height": height, "width": width}
    with (
        replaced(target, sync=True) as part,
        rasterio.open(part, "w", **profile | form | layout) as file,
    ):
        for y in range(0, height, BLOCK):
            rows = min(BLOCK, height - y)
            for first in range(0, BANDS, GROUP):
                bands = list(range(first + 1, first + 1 + GROUP))
                block = codes.rows(first, GROUP, y, rows)
                file.write(block, bands, window=Box(0, y, width, rows))
        file.descriptions = [f"A{band:02d}" for band in range(BANDS)]
        file.update_tags(**tags)

"""Finished blocks of a composite on the disk, so that a run that was killed goes on."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from satjepa.paths import replaced
from satjepa.region.grid import Window


class Blocks:
    """Blocks (4, h, w) uint16 in a folder, one file each: red, green, blue and how many images
    were clear. A file that is damaged counts as not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, window: Window) -> np.ndarray | None:
        """The block of a window, or None where it is not there."""
        try:
            data = self._path(window).read_bytes()
        except FileNotFoundError:
            return None
        if zlib.crc32(data[4:]).to_bytes(4, "big") != data[:4]:
            return None
        values = np.frombuffer(data[4:], np.uint16)
        return values.reshape(4, window.height, window.width)

    def put(self, window: Window, block: np.ndarray) -> None:
        """Keep a block."""
        data = np.ascontiguousarray(block, np.uint16).tobytes()
        with replaced(self._path(window)) as part:
            part.write_bytes(zlib.crc32(data).to_bytes(4, "big") + data)

    def made(self, window: Window, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The block of a window, kept or made and kept now."""
        block = self.get(window)
        if block is None:
            block = make()
            self.put(window, block)
        return block

    def _path(self, window: Window) -> Path:
        return self.folder / f"block_{window.row:06d}_{window.column:06d}"

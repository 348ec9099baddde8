"""The finished rows of a forecast, kept band by band: in memory, or in a folder beside the output,
where a run that was killed finds what it had done.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from satjepa.forecast.stream import Plan
from satjepa.paths import replaced, write_text

SETTINGS = "settings.json"  # of the run that the pieces are of


class Pieces(Protocol):
    """What keeps the arrays of each band: `moments` (Y,6,h,W) and `members` (Y,count,3,h,columns),
    float32, as they are stored in the file.
    """

    def save(self, band: int, arrays: dict[str, np.ndarray]) -> None:
        """Keep the arrays of a band."""
        ...

    def get(self, band: int, name: str) -> np.ndarray:
        """One of them."""
        ...


@dataclass(frozen=True)
class InMemory:
    """Pieces that are gone with the process."""

    bands: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)

    def save(self, band: int, arrays: dict[str, np.ndarray]) -> None:
        """Keep the arrays of a band."""
        self.bands[band] = arrays

    def get(self, band: int, name: str) -> np.ndarray:
        """One of them."""
        return self.bands[band][name]


@dataclass(frozen=True)
class InFolder:
    """Pieces in a hidden folder beside the output, a file a band, there whole or not at all."""

    folder: Path
    out: Path
    settings: str

    @classmethod
    def of(cls, out: Path, settings: dict[str, Any]) -> InFolder:
        """The pieces of a run by its output and its settings, of which equal ones make equal
        rows; beside the file itself where the output is a link.
        """
        out = Path(os.path.realpath(out))
        text = json.dumps(settings, indent=1, sort_keys=True, default=str)
        return cls(out.parent / f"{_stem(out)}{_digest(text, 16)}.rows", out, text)

    def open(self, fresh: bool = False) -> None:
        """Make the folder, and remove those that runs with other settings left for this output;
        fresh: its own, too.
        """
        out = self.out
        for other in out.parent.glob(f"{_escaped(_stem(out))}*.rows"):
            if fresh or other != self.folder:
                shutil.rmtree(other)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / SETTINGS, self.settings + "\n")

    def save(self, band: int, arrays: dict[str, np.ndarray]) -> None:
        """Keep the arrays of a band."""
        with replaced(self._path(band)) as part, part.open("wb") as file:
            np.savez(file, **arrays)

    def get(self, band: int, name: str) -> np.ndarray:
        """One of them."""
        with np.load(self._path(band), allow_pickle=False) as arrays:
            return arrays[name]

    def has(self, band: int) -> bool:
        """Whether a band is there, and its bytes are those that were written."""
        path = self._path(band)
        if not path.is_file():
            return False
        try:
            with zipfile.ZipFile(path) as arrays:
                return arrays.testzip() is None
        except zipfile.BadZipFile:
            return False

    def remove(self) -> None:
        """Remove the folder and all in it."""
        shutil.rmtree(self.folder)

    def _path(self, band: int) -> Path:
        return self.folder / f"{band:06d}.npz"


def reader(
    pieces: Pieces, plan: Plan, name: str, pick: Callable[[np.ndarray], np.ndarray]
) -> Callable[[int, int], np.ndarray]:
    """read(top, bottom) -> those rows of an array of the pieces, of which `pick` takes a part
    (bands,h,W).
    """

    def read(top: int, bottom: int) -> np.ndarray:
        parts = []
        for band in range(len(plan.bands)):
            first = max(top, plan.tops[band])
            last = min(bottom, plan.tops[band + 1])
            if first < last:
                start = plan.tops[band]
                parts.append(pick(pieces.get(band, name))[..., first - start : last - start, :])
        return np.concatenate(parts, -2)

    return read


def _stem(out: Path) -> str:
    """How the names of the folders of an output begin."""
    return f".{out.name[:40]}.{_digest(out.name, 8)}-"


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _escaped(text: str) -> str:
    """A text as a pattern that matches it alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)

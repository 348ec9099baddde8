"""Forecasts of a scene whose members are led by sentences: the forecaster that keeps them, and the
table of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from satjepa.models.led import Led

Told = dict[tuple[int, int], list[str]]
"""The sentence of each member, by the upper left corner (x, y) of a tile in the scene, north up."""


class Telling:
    """A `Forecaster` for tiles that keeps what led their members in `told`."""

    def __init__(self, led: Led) -> None:
        self.led = led
        self.told: Told = {}

    def forecast(self, batch: dict[str, Any], samples: int = 1, seed: int = 0) -> Tensor:
        """As `satjepa.models.led.Led.forecast`."""
        members, sentences = self.led.with_sentences(batch, samples, seed)
        for place, meta in enumerate(batch["meta"]):
            self.told[meta["x"], meta["y"]] = [texts[place] for texts in sentences]
        return members


def write_sentences(told: Told, path: str | Path) -> Path:
    """Write a CSV with a row for each tile and member: x, y, member, sentence."""
    import pandas as pd

    from satjepa.paths import replaced

    rows = []
    for (x, y), texts in sorted(told.items()):
        rows += [(x, y, member, text) for member, text in enumerate(texts)]
    with replaced(path) as part:
        pd.DataFrame(rows, columns=["x", "y", "member", "sentence"]).to_csv(part, index=False)
    return Path(path)

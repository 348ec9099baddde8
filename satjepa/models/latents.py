"""VAE latents of every patch, computed once: training never runs the VAE's encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from satjepa.contracts import PatchKey
from satjepa.data.pairs import PairDataset
from satjepa.models.backbone import Backbone
from satjepa.paths import replaced

KEY = list(PatchKey._fields)


class LatentStore:
    """Latents by patch key, opened by memory map.

    On disk: `latents.npy` (n, C, h, w) float16 and `index.parquet` with one row (preset, region,
    year, x, y) a latent.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self.latents = np.load(folder / "latents.npy", mmap_mode="r")
        index = pd.read_parquet(folder / "index.parquet")
        self.rows = {
            key: row for row, key in enumerate(index[KEY].itertuples(index=False, name=None))
        }

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[str, str, int, int, int]) -> torch.Tensor:
        """Latent (C, h, w) float32 of (preset, region, year, x, y); KeyError where that patch was
        not encoded.
        """
        return torch.from_numpy(self.latents[self.rows[key]].astype(np.float32))

    @classmethod
    def write(
        cls,
        folder: str | Path,
        backbone: Backbone,
        batches: Iterable[tuple[list[tuple], torch.Tensor]],
    ) -> LatentStore:
        """Encode batches of (keys, rgb (B,3,H,W) in [0,1]) and write them; the index last, so that
        a half-written store never opens.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.parquet").unlink(missing_ok=True)
        keys = []
        latents = []
        for batch_keys, rgb in batches:
            keys += batch_keys
            latents.append(backbone.encode(rgb).half().cpu().numpy())
        with replaced(folder / "latents.npy") as part, open(part, "wb") as file:
            np.save(file, np.concatenate(latents))  # to a name it would add a suffix
        with replaced(folder / "index.parquet") as part:
            pd.DataFrame(keys, columns=KEY).to_parquet(part)
        return cls(folder)


def image_batches(
    sources: Iterable[tuple[PairDataset, list[tuple]]], size: int
) -> Iterator[tuple[list[tuple], torch.Tensor]]:
    """(keys, rgb (B,3,H,W)) of the images of some datasets, each image once."""
    seen: set[tuple] = set()
    for data, keys in sources:
        fresh = [key for key in keys if key not in seen]
        seen.update(fresh)
        for start in range(0, len(fresh), size):
            part = fresh[start : start + size]
            yield [tuple(key) for key in part], torch.stack([data.image(key)[0] for key in part])

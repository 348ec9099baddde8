"""The imagery that the tiny SD 3.5 is pre-trained on: a corpus, random crops, a pool of windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F


class Crops:
    """Endless random crops, flipped or turned at random, of arrays that share one grid.

    Args:
        arrays: each (regions, years, C, H·s, W·s) with its own scale s; all are cut at the same
            place.
        scales: s of each array (1 for images; 1/4 for arrays of one cell per 4 pixels).
        size: pixels a side of a crop at scale 1; corners lie on multiples of 1/min(scales).
    """

    def __init__(self, arrays: list[np.ndarray], scales: list[float], size: int, seed: int) -> None:
        self.arrays = arrays
        self.scales = scales
        self.size = size
        self.rng = np.random.default_rng(seed)

    def __call__(self, batch: int) -> list[torch.Tensor]:
        """`batch` crops of each array, on the same places and turned alike: (batch,C,h,w) each."""
        pick = self.rng.integers
        regions, years = self.arrays[0].shape[:2]
        grid = round(1 / min(self.scales))
        span = (self.arrays[0].shape[-1] - self.size) // grid + 1
        places = []
        for _ in range(batch):
            where = (pick(regions), pick(years), pick(span) * grid, pick(span) * grid)
            turn = (pick(4), pick(2))
            places.append(where + turn)
        batches = []
        for array, scale in zip(self.arrays, self.scales, strict=True):
            crops = [self._cut(array, scale, *place) for place in places]
            batches.append(torch.from_numpy(np.stack(crops)))
        return batches

    def _cut(
        self, array: np.ndarray, scale: float, r: int, y: int, i: int, j: int, turn: int, flip: int
    ) -> np.ndarray:
        i, j, n = (round(v * scale) for v in (i, j, self.size))
        window = array[r, y, :, i : i + n, j : j + n]  # (C,n,n)
        turned = np.rot90(window, turn, (-2, -1))
        return turned[..., ::-1] if flip else turned


def corpus(
    recipe: dict, regions: int, gentle: int = 4, progress: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Imagery for pre-training: regions of the demo world that are in no split.

    Every `gentle`-th of them is of the gentle preset. Returns rgb (regions, years, 3, size, size)
    uint8 and the mean embedding of each 4 x 4 pixels (regions, years, 64, size/4, size/4) float16.
    Nothing of the split's regions is in it: it is to the tiny backbone what the web's images are to
    SD 3.5.
    """
    from tqdm import tqdm

    from satjepa.demo.render import BANDS, simulate
    from satjepa.demo.world import Climate

    size = recipe["size"]
    years = recipe["years"]
    rgb = np.zeros((regions, len(years), 3, size, size), np.uint8)
    embedding = np.zeros((regions, len(years), BANDS, size // 4, size // 4), np.float16)
    for i in tqdm(range(regions), desc="corpus", unit="region", disable=not progress):
        preset = recipe["presets"]["gentle" if i % gentle == gentle - 1 else "strong"]
        climate = Climate.of(preset)
        region = simulate(recipe["seed"], "corpus", f"Corpus{i:03d}", climate, years, size)
        for j, year in enumerate(region):
            rgb[i, j] = year.rgb
            cells = year.embedding.reshape(BANDS, size // 4, 4, size // 4, 4)
            embedding[i, j] = cells.mean((2, 4))
    return rgb, embedding


def layout_cells(embedding: torch.Tensor, cells: int = 2) -> torch.Tensor:
    """Mean AlphaEarth vectors on a grid `cells` times finer than the latent, to layout-token input.

    (B, 64, h·cells, w·cells) -> (B, h·w, 64·cells²): layer-normed over the 64 bands, the cells of a
    patch row-major, as `satjepa.models.jepa.patch_cells` makes them from pixels.
    """
    height, width = (s // cells for s in embedding.shape[-2:])
    vectors = embedding.float().permute(0, 2, 3, 1)  # (B, h·c, w·c, 64)
    vectors = F.layer_norm(vectors, embedding.shape[1:2])
    vectors = vectors.unflatten(2, (width, cells)).unflatten(1, (height, cells))
    patches = vectors.transpose(2, 3)  # (B, h, w, c, c, 64)
    return patches.flatten(3).flatten(1, 2)


@dataclass(frozen=True)
class Pool:
    """Windows to pre-train on."""

    images: torch.Tensor  # (n,3,64,64) uint8
    cells: torch.Tensor  # (n,64,256) float16
    texts: list[tuple[str, str, str]]  # n triples of captions


def make_pool(
    rgb: np.ndarray,
    embedding: np.ndarray,
    windows: int,
    size: int,
    seed: int,
    progress: bool = True,
) -> Pool:
    """Random crops of the corpus with their layout cells and their captions by rule.

    windows: how many, a multiple of 64.
    """
    from tqdm import tqdm

    from satjepa.captions.rules import caption

    crops = Crops([rgb, embedding], [1, 1 / 4], size, seed)
    images = []
    cells = []
    texts = []
    for _ in tqdm(range(windows // 64), desc="pool", unit="batch", disable=not progress):
        batch, vectors = crops(64)
        images.append(batch)
        cells.append(layout_cells(vectors).half())
        for image in batch:
            display = image.numpy().astype(np.float32) / 255
            texts.append(tuple(caption(display, encoding="display")))
    return Pool(torch.cat(images), torch.cat(cells), texts)

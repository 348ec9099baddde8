"""Tiles: a scene is cut into overlapping ones, each is forecast, and they are blended.

Their weights fall off towards the edges and sum to 1 at every pixel; how they are added up is in
`blend`. They begin on cells of the latent, where the noise of the scene is theirs too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

import numpy as np
import torch

from satjepa.captions.embeddings import Embed
from satjepa.captions.rules import caption
from satjepa.contracts import CAPTION_KINDS, Captions, Forecaster
from satjepa.data.stack import Stack
from satjepa.forecast.blend import Blend

Box = tuple[int, int, np.ndarray]  # first row, first column, weights (patch, patch)
CELL = 8  # pixels: side of a cell of the latent, on which tiles begin


def cell_of(patch: int) -> int:
    """Side in pixels of the cells on which tiles of a patch begin, so that the noise of a scene,
    which has a value a cell, is the same under all tiles over a place.
    """
    return math.gcd(patch, CELL)


def padded_length(length: int, patch: int) -> int:
    """Pixels that tiles cover of an axis of `length`: whole cells, and at least a tile."""
    cell = cell_of(patch)
    return max(patch, math.ceil(length / cell) * cell)


def axis_tiles(
    length: int, patch: int, overlap: int, cell: int = 1
) -> tuple[list[int], np.ndarray]:
    """First pixels of the tiles along an axis of `length` >= `patch` pixels, and their weights
    (tiles, patch).

    The tiles are spread evenly over multiples of `cell`, as `length` and `patch` must be, and
    overlap by at least `overlap` pixels, over which their weights rise as half a cosine; over every
    pixel the weights sum to 1.
    """
    step = max(1, (patch - overlap) // cell)
    count = math.ceil((length - patch) / (step * cell)) + 1
    cells = np.linspace(0, (length - patch) // cell, count).round().astype(int)
    starts = (cells * cell).tolist()
    inward = (
        np.minimum(np.arange(patch), np.arange(patch)[::-1]) + 0.5
    )  # pixels from the nearer edge of the tile
    ramp = np.sin(np.pi / 2 * np.minimum(inward / max(overlap, 1), 1)) ** 2
    total = np.zeros(length)
    for start in starts:
        total[start : start + patch] += ramp
    return starts, np.stack([ramp / total[start : start + patch] for start in starts])


def tiles(height: int, width: int, patch: int, overlap: int, cell: int = 1) -> list[Box]:
    """(y, x, weight (patch, patch)) of every tile of a raster; the weights sum to 1 at each of its
    pixels.
    """
    ys, wy = axis_tiles(height, patch, overlap, cell)
    xs, wx = axis_tiles(width, patch, overlap, cell)
    return [(y, x, np.outer(wy[i], wx[j])) for i, y in enumerate(ys) for j, x in enumerate(xs)]


def padded(stack: Stack, patch: int) -> Stack:
    """A scene goes on as its mirror image to the right and below, up to whole cells and at least a
    tile.
    """
    pad = [(0, 0), *((0, padded_length(size, patch) - size) for size in stack.valid.shape[1:])]
    mirror = np.pad(stack.rgb, [(0, 0), *pad], mode="reflect")
    return replace(stack, rgb=mirror, valid=np.pad(stack.valid, pad, mode="reflect"))


def cover(stack: Stack, patch: int, overlap: int) -> tuple[Stack, list[Box]]:
    """A stack of whole cells, at least a tile wide and high (`padded`), and the tiles of it in
    which the newest image has a valid pixel.
    """
    stack = padded(stack, patch)
    valid = stack.valid[0]
    boxes = tiles(*valid.shape, patch, overlap, cell_of(patch))
    return stack, [(y, x, w) for y, x, w in boxes if valid[y : y + patch, x : x + patch].any()]


def tile_batch(
    stack: Stack, corners: Sequence[tuple[int, int]], patch: int, history: int,
    embed: Embed | None, given: dict[str, str] | None = None, top: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Batch of B tiles as the contract has it, without anything of year t+1; captions are written
    from the pixels. given: captions that lead the forecast of every tile, by kind. corners: row and
    column of each tile's first pixel in the stack, whose own first row is the row `top` of the
    scene.

    The noise under a pixel depends on its place in the scene, the year and the seed: not on the
    file's name nor on the tile.
    """
    cut = [(..., slice(y, y + patch), slice(x, x + patch)) for y, x in corners]
    rgb = np.stack([stack.rgb[box] for box in cut])  # (B,T,3,H,W)
    valid = np.stack([stack.valid[box] for box in cut])  # (B,T,H,W)
    past = np.zeros((len(cut), history, *rgb.shape[2:]), np.float32)
    known = np.zeros((len(cut), history), bool)
    for lag in range(1, years_back(stack.years, history) + 1):
        past[:, lag - 1] = rgb[:, lag]
        known[:, lag - 1] = valid[:, lag].mean((1, 2)) >= 0.5  # as PairDataset has it
    place = {"preset": "raster", "region": "", "year": stack.years[0] or 0, "aug": 0}
    place |= {"tile": patch}
    batch = {
        "rgb_t": torch.from_numpy(rgb[:, 0].copy()),
        "valid_t": torch.from_numpy(valid[:, :1].copy()),
        "history": torch.from_numpy(past),
        "history_valid": torch.from_numpy(known),
        "meta": [place | {"x": x, "y": top + y} for y, x in corners],
    }
    if embed is not None:
        pairs = zip(rgb[:, 0], valid[:, 0], strict=True)
        batch["text_t"] = embed([caption(image, mask, encoding="display") for image, mask in pairs])
    if given:
        texts = embed([Captions(**{kind: given.get(kind, "") for kind in CAPTION_KINDS})])
        batch["text_given"] = {n: x.expand(len(cut), *x.shape[1:]) for n, x in texts.items()}
        batch["is_given"] = torch.tensor([[kind in given for kind in CAPTION_KINDS]] * len(cut))
    return batch


def years_back(years: Sequence[int | None], history: int) -> int:
    """How many of up to `history` years before the newest, which is the first, are there, back to
    the first gap, as in training.
    """
    runs = takewhile(lambda lag: years[lag] == years[0] - lag, range(1, len(years)))
    return min(history, len(list(runs)))


def blended(
    stack: Stack,
    forecaster: Forecaster,
    boxes: Sequence[Box],
    *,
    history: int = 0,
    embed: Embed | None = None,
    samples: int = 8,
    seed: int = 0,
    batch: int = 16,
    given: dict[str, str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Forecast the tiles `boxes` of a stack: mean and spread (3,H,W) float64 at the display scale.

    given: captions of t+1 by kind, which lead every tile (`tile_batch`).
    Neither the order of the tiles nor `batch`, the number of tiles computed at once, matters to the
    result.
    """
    from tqdm import tqdm

    patch = len(boxes[0][2])
    blend = Blend(1, *stack.valid.shape[1:])
    for i in tqdm(range(0, len(boxes), batch), "forecast", unit="batch", leave=False, disable=None):
        part = boxes[i : i + batch]
        corners = [(y, x) for y, x, _ in part]
        conditions = tile_batch(stack, corners, patch, history, embed, given)
        drawn = forecaster.forecast(conditions, samples, seed).double().numpy()  # (S,B,3,H,W)
        for (y, x, weight), tile in zip(part, drawn.swapaxes(0, 1), strict=True):
            blend.add(y, x, weight, tile[None])
    mean, spread, _ = blend.take(stack.valid.shape[1])
    return mean[0], spread[0]

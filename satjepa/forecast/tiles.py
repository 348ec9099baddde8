"""Tiles: a scene is cut into overlapping ones, each is forecast, and they are blended.

Their weights fall off towards the edges and sum to 1 at every pixel. Moments are blended, not
samples: the ensemble at a pixel is the mixture of those of the tiles over it, so the spread does
not dip at seams.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

import numpy as np
import torch

from satjepa.captions.embeddings import Embed
from satjepa.captions.rules import caption
from satjepa.contracts import CAPTION_KINDS, Captions, Forecaster
from satjepa.data.stack import Stack

Box = tuple[int, int, np.ndarray]  # first row, first column, weights (patch, patch)
Keep = Callable[[Sequence[Box], np.ndarray], None]  # B tiles, members (S,B,3,patch,patch) of them


def axis_tiles(length: int, patch: int, overlap: int) -> tuple[list[int], np.ndarray]:
    """First pixels of the tiles along an axis of `length` >= `patch` pixels, and their weights
    (tiles, patch).

    The tiles are spread evenly and overlap by at least `overlap` pixels, over which their weights
    rise as half a cosine; over every pixel the weights sum to 1.
    """
    count = math.ceil((length - patch) / (patch - overlap)) + 1
    starts = np.linspace(0, length - patch, count).round().astype(int).tolist()
    inward = (
        np.minimum(np.arange(patch), np.arange(patch)[::-1]) + 0.5
    )  # pixels from the nearer edge of the tile
    ramp = np.sin(np.pi / 2 * np.minimum(inward / max(overlap, 1), 1)) ** 2
    total = np.zeros(length)
    for start in starts:
        total[start : start + patch] += ramp
    return starts, np.stack([ramp / total[start : start + patch] for start in starts])


def tiles(height: int, width: int, patch: int, overlap: int) -> list[Box]:
    """(y, x, weight (patch, patch)) of every tile of a raster; the weights sum to 1 at each of its
    pixels.
    """
    ys, wy = axis_tiles(height, patch, overlap)
    xs, wx = axis_tiles(width, patch, overlap)
    return [(y, x, np.outer(wy[i], wx[j])) for i, y in enumerate(ys) for j, x in enumerate(xs)]


def padded(stack: Stack, patch: int) -> Stack:
    """A scene smaller than a tile goes on as its mirror image to the right and below."""
    pad = [(0, 0), *((0, max(0, patch - size)) for size in stack.valid.shape[1:])]
    mirror = np.pad(stack.rgb, [(0, 0), *pad], mode="reflect")
    return replace(stack, rgb=mirror, valid=np.pad(stack.valid, pad, mode="reflect"))


def cover(stack: Stack, patch: int, overlap: int) -> tuple[Stack, list[Box]]:
    """A stack that is at least a tile wide and high (`padded`), and the tiles of it in which the
    newest image has a valid pixel.
    """
    stack = padded(stack, patch)
    valid = stack.valid[0]
    boxes = tiles(*valid.shape, patch, overlap)
    return stack, [(y, x, w) for y, x, w in boxes if valid[y : y + patch, x : x + patch].any()]


def tile_batch(
    stack: Stack, corners: Sequence[tuple[int, int]], patch: int, history: int,
    embed: Embed | None, given: dict[str, str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Batch of B tiles as the contract has it, without anything of year t+1; captions are written
    from the pixels. given: captions that lead the forecast of every tile, by kind.

    The noise of a tile depends on its corner, the year and the seed: not on the file's name nor on
    other tiles.
    """
    cut = [(..., slice(y, y + patch), slice(x, x + patch)) for y, x in corners]
    rgb = np.stack([stack.rgb[box] for box in cut])  # (B,T,3,H,W)
    valid = np.stack([stack.valid[box] for box in cut])  # (B,T,H,W)
    past = np.zeros((len(cut), history, *rgb.shape[2:]), np.float32)
    known = np.zeros((len(cut), history), bool)
    for lag in range(1, years_back(stack, history) + 1):
        past[:, lag - 1] = rgb[:, lag]
        known[:, lag - 1] = valid[:, lag].mean((1, 2)) >= 0.5  # as PairDataset has it
    place = {"preset": "raster", "region": "", "year": stack.years[0] or 0, "aug": 0}
    batch = {
        "rgb_t": torch.from_numpy(rgb[:, 0].copy()),
        "valid_t": torch.from_numpy(valid[:, :1].copy()),
        "history": torch.from_numpy(past),
        "history_valid": torch.from_numpy(known),
        "meta": [place | {"x": x, "y": y} for y, x in corners],
    }
    if embed is not None:
        pairs = zip(rgb[:, 0], valid[:, 0], strict=True)
        batch["text_t"] = embed([caption(image, mask, encoding="display") for image, mask in pairs])
    if given:
        texts = embed([Captions(**{kind: given.get(kind, "") for kind in CAPTION_KINDS})])
        batch["text_given"] = {n: x.expand(len(cut), *x.shape[1:]) for n, x in texts.items()}
        batch["is_given"] = torch.tensor([[kind in given for kind in CAPTION_KINDS]] * len(cut))
    return batch


def years_back(stack: Stack, history: int) -> int:
    """How many of up to `history` years before the newest are there, back to the first gap, as in
    training.
    """
    runs = takewhile(
        lambda lag: stack.years[lag] == stack.years[0] - lag, range(1, len(stack.years))
    )
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
    keep: Keep | None = None,
    given: dict[str, str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Forecast the tiles `boxes` of a stack: mean and spread (3,H,W) float64 at the display scale.

    keep: is given the tiles of each batch and their members, which are not kept otherwise.
    given: captions of t+1 by kind, which lead every tile (`tile_batch`).
    Neither the order of the tiles nor `batch`, the number of tiles computed at once, matters to the
    result.
    """
    from tqdm import tqdm

    patch = len(boxes[0][2])
    first, second = np.zeros((2, *stack.rgb.shape[1:]))  # E[x] and E[x^2], (3,H,W)
    for i in tqdm(range(0, len(boxes), batch), "forecast", unit="batch", leave=False, disable=None):
        part = boxes[i : i + batch]
        corners = [(y, x) for y, x, _ in part]
        conditions = tile_batch(stack, corners, patch, history, embed, given)
        drawn = forecaster.forecast(conditions, samples, seed).double().numpy()  # (S,B,3,H,W)
        if keep is not None:
            keep(part, drawn)
        means = drawn.mean(0)
        variances = drawn.var(0, ddof=min(1, samples - 1))
        for (y, x, weight), mean, variance in zip(part, means, variances, strict=True):
            first[:, y : y + patch, x : x + patch] += weight * mean
            second[:, y : y + patch, x : x + patch] += weight * (variance + mean**2)
    return first, np.sqrt(np.maximum(second - first**2, 0))

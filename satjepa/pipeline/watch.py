"""Looking into a trained model: attention, maps over places, flow matching on a line, what the
sampler sees at each noise level, and the zero-RGB test of one patch.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from satjepa.contracts import Batch
from satjepa.models.flow import euler, noisy, patch_noise, sigmas
from satjepa.models.published import STRENGTH

if TYPE_CHECKING:
    from satjepa.models.joint import Conditions, JointModel
    from satjepa.models.layers import Attention


@contextmanager
def attention_of(layer: Attention) -> Iterator[list[Tensor]]:
    """Inside, the weights (B,N,M) of every call of a layer are noted, mean over heads."""
    noted: list[Tensor] = []
    signature = inspect.signature(layer.forward)

    def note(module: nn.Module, args: tuple, kwargs: dict) -> None:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        x, context, mask = (call.arguments[name] for name in ("x", "context", "mask"))
        noted.append(attention_weights(layer, x, x if context is None else context, mask))

    handle = layer.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield noted
    finally:
        handle.remove()


@torch.no_grad()
def attention_weights(layer: Attention, x: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(d)) of x (B,N,dim) over context (B,M,dim), mean over heads: (B,N,M)."""
    q = layer.q(x).unflatten(-1, (layer.heads, -1)).transpose(1, 2)  # (B,heads,N,d)
    k = layer.kv(context).unflatten(-1, (2, layer.heads, -1))[:, :, 0].transpose(1, 2)
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5  # (B,heads,N,M)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
    return scores.softmax(-1).mean(1)


def listening(
    weights: Tensor, words: Mapping[str, Sequence[str]], lengths: Sequence[int], count: int
) -> dict[str, Tensor]:
    """The words that tell places apart: `count` maps (g,g) of attention, those whose attention
    varies most from place to place.

    weights: (N,M) of the captions one after the other, each as long as `lengths` says, M in all;
    words: the tokens of each.
    """
    grid = round(len(weights) ** 0.5)
    names = []
    for (kind, texts), length in zip(words.items(), lengths, strict=True):
        shown = [*texts[:length], *[""] * (length - len(texts))]
        names += [(text, f"{text}\n({kind}, {place})") for place, text in enumerate(shown)]
    maps: dict[str, Tensor] = {}
    for position in weights.std(0).argsort(descending=True).tolist():
        word, title = names[position]
        if word.isalpha() and len(maps) < count:
            maps[title] = weights[:, position].view(grid, grid)
    return maps


def as_map(vectors: Tensor, channels: int = 64) -> Tensor:
    """Vectors of cells within patches, (N, cells^2 * channels) or (N, cells^2, channels), patches
    and cells row-major -> the map (channels, g * cells, g * cells).
    """
    parts = vectors.reshape(len(vectors), -1, channels)
    grid = round(len(parts) ** 0.5)
    cells = round(parts.shape[1] ** 0.5)
    fine = parts.reshape(grid, grid, cells, cells, channels)
    return fine.permute(4, 0, 2, 1, 3).reshape(channels, grid * cells, grid * cells)


def cosine_map(one: Tensor, other: Tensor) -> Tensor:
    """Cosine of the vectors at each place: (D,h,w) twice -> (h,w)."""
    return nn.functional.cosine_similarity(one, other, dim=0)


def toy_velocity(z: Tensor, sigma: Tensor, peaks: Sequence[float], width: float) -> Tensor:
    """The exact velocity E[noise - x0 | z] where x0 lies at one of some peaks on a line, each a
    Gaussian of `width` and as likely as the others; z (B,1,1,1), sigma (B,).
    """
    s = sigma.view(-1, 1, 1, 1)
    centres = torch.tensor(peaks).view(1, -1, 1, 1)
    variance = ((1 - s) * width) ** 2 + s**2  # of z about a peak
    off = z - (1 - s) * centres  # (B,K,1,1)
    share = (-(off**2) / (2 * variance)).softmax(1)  # how likely z came from each peak
    clean = centres + (1 - s) * width**2 / variance * off
    noise = s / variance * off
    return (share * (noise - clean)).sum(1, keepdim=True)


def toy_paths(
    steps: int, peaks: Sequence[float], width: float, count: int = 400, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Euler's way from noise to the peaks: levels (steps+1,) and positions (steps+1, count)."""
    z = torch.randn(count, 1, 1, 1, generator=torch.Generator().manual_seed(seed))
    path = sigmas(steps)
    places = [z]
    euler(
        lambda here, sigma: toy_velocity(here, sigma, peaks, width),
        z,
        path,
        lambda step, here: places.append(here),
    )
    return path, torch.stack(places).flatten(1)


@torch.no_grad()
def from_noise(
    model: JointModel, conditions: Conditions, noise: Tensor, steps: int, guidance: float
) -> Tensor:
    """One forecast (3,H,W) in [0, 1] of B = 1 conditions from one noise (1,C,h,w)."""
    return model.backbone.decode(model.sample(conditions, noise, steps, guidance))[0]


@torch.no_grad()
def denoised(
    model: JointModel, conditions: Conditions, latents: Sequence[Tensor], marks: Sequence[float]
) -> dict[str, list[Tensor]]:
    """Latents z of B = 1 at noise levels `marks`, decoded, and what the transformer takes for the
    clean image in each: z - sigma v, decoded. Two rows of images (3,H,W).
    """
    rows: dict[str, list[Tensor]] = {"z(σ)": [], "z - σ v": []}
    for z, sigma in zip(latents, marks, strict=True):
        level = z.new_full((1,), sigma)
        velocity = model.backbone(z, level, conditions.context, conditions.pooled)
        rows["z(σ)"].append(model.backbone.decode(z)[0])
        rows["z - σ v"].append(model.backbone.decode(z - sigma * velocity)[0])
    return rows


def blinded(
    model: JointModel, batch: Batch, other: Tensor, seed: int
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The zero-RGB test of a batch (B = 1): its conditions are held, then the image of year t is
    replaced by `other` (1,3,H,W) and the forecast made again; likewise by a sampler that starts
    from the image. Returns the forecasts (3,H,W), and the largest change of any value of each.
    """
    conditions = model.condition(batch)
    held = copy.copy(model)
    held.condition = lambda batch: conditions
    samplers = {"from noise": held, "from the image": held.with_sampling(strength=STRENGTH)}
    panels = {"replaced\nyear t": other[0]}
    changes = {}
    for name, sampler in samplers.items():
        before = sampler.forecast(batch, 1, seed)[0, 0]
        after = sampler.forecast(batch | {"rgb_t": other}, 1, seed)[0, 0]
        panels |= {f"{name},\nbefore": before, f"{name},\nafter": after}
        changes[f"largest change, {name}"] = round((before - after).abs().max().item(), 4)
    return panels, changes


@torch.no_grad()
def one_step(model: JointModel, batch: Batch, seed: int) -> dict[str, Tensor]:
    """What a sampler that starts from the image of year t does, as the published one: the image
    under its noise, the answer, how far that is from the truth and how far from year t. Images
    (B,3,H,W) and maps (B,H,W), for `satjepa.figures.plots.grid`.
    """
    start = model.backbone.encode(batch["rgb_t"])
    noise = patch_noise(batch["meta"], 0, seed, start.shape[1:]).to(start)
    answer = model.forecast(batch, 1, seed)[0]
    return {
        "year t": batch["rgb_t"],
        "where it\nstarts": model.backbone.decode(noisy(start, noise, model.strength)).cpu(),
        "its answer": answer,
        "truth,\nyear t+1": batch["rgb_tp1"],
        "answer\nagainst truth": (answer - batch["rgb_tp1"]).abs().mean(1),
        "answer\nagainst year t": (answer - batch["rgb_t"]).abs().mean(1),
    }

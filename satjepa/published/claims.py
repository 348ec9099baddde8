"""What the published system says of itself beside what it does.

Small experiments, each a data frame with a number (notebook 10_published).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from satjepa.assemble import sample_batch
from satjepa.contracts import SEMANTIC

if TYPE_CHECKING:
    import xarray as xr

    from satjepa.config import Params
    from satjepa.data.splits import Split
    from satjepa.models.joint import JointModel


def heed_steps(
    models: dict[str, JointModel], params: Params, steps: Sequence[int], count: int = 8
) -> pd.DataFrame:
    """Is the number of sampling steps heeded? One row a model: the largest difference of any value
    of any pixel between forecasts of `steps[0]` steps and of each other number.
    """
    rows = {}
    batch = sample_batch(params, count)
    for name, model in models.items():
        first = model.with_sampling(steps=steps[0]).forecast(batch, 1, params.seed)
        row = {}
        for n in steps[1:]:
            other = model.with_sampling(steps=n).forecast(batch, 1, params.seed)
            row[f"{steps[0]} against {n} steps"] = (other - first).abs().max().item()
        rows[name] = row
    return pd.DataFrame(rows).T


def _cosine(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Cosine of the mean states of each caption, (B,L,T) twice: (B,).

    mask: (B,L), the words that count.
    """
    weight = mask[..., None].to(a.dtype)  # (B,L,1)
    return F.cosine_similarity((a * weight).sum(1), (b * weight).sum(1), dim=-1)


@torch.no_grad()
def forecaster_at_start(
    models: dict[str, JointModel], params: Params, count: int = 64
) -> pd.DataFrame:
    """Is the caption forecaster the identity before training? `models` must be new.

    One row a model: cosine of its answer and of what it was given (mean states of a caption), root
    mean square of the answer over that of what was given, and the relative change of the answer
    when it sees the tokens of another place.
    """
    rows = {}
    batch = sample_batch(params, count)
    given = batch["text_t"]["hidden"][:, SEMANTIC]  # (B,L,T)
    mask = batch["text_t"]["mask"][:, SEMANTIC]  # (B,L)
    words = mask[..., None].to(given.dtype)  # (B,L,1)
    length = given.shape[1]
    for name, model in models.items():
        model.eval()  # no dropout
        answer = _semantic(model, batch)[:, :length]
        elsewhere = _semantic(model, batch, shift=1)[:, :length]
        size = (answer * words).norm()
        change = ((answer - elsewhere) * words).norm()
        rows[name] = {
            "cosine to the input": _cosine(answer, given, mask).mean().item(),
            "size, of the input's": (size / (given * words).norm()).item(),
            "change with other tokens": (change / size).item(),
        }
    return pd.DataFrame(rows).T


def _semantic(model: JointModel, batch: dict[str, Any], shift: int = 0) -> Tensor:
    """Hidden states (B,L,T) of the semantic caption of t+1, on the CPU.

    shift: the tokens are those of the place so many further on in the batch.
    """
    from accelerate.utils import send_to_device

    batch = send_to_device(batch, model.device)
    if model.params.model.variant == "published":
        tokens, _ = model.predict(batch["rgb_t"])
        return model.foresee(batch, tokens.roll(shift, 0))["semantic"][0].cpu()
    tokens, _ = model.predict(batch["rgb_t"], model.remember(batch))
    return model.foresee(batch, tokens.roll(shift, 0))["hidden"][:, SEMANTIC].cpu()


@torch.no_grad()
def forecast_captions(
    models: dict[str, JointModel], params: Params, count: int = 96
) -> pd.DataFrame:
    """Is the caption of t+1 forecast better than by repeating that of t? Only where the semantic
    caption changes.

    One row a forecast: cosine of its mean state to that of the caption of t+1, and mean squared
    error of all its states, both over the words of t+1.
    """
    batch = sample_batch(params, count)
    truth = batch["text_tp1"]["hidden"][:, SEMANTIC]  # (B,L,T)
    mask = batch["text_tp1"]["mask"][:, SEMANTIC]  # (B,L)
    before = batch["text_t"]["hidden"][:, SEMANTIC]
    moved = (truth - before).abs().amax((1, 2)) > 0  # (B,)
    forecasts = {"caption of t, repeated": before}
    for name, model in models.items():
        with model.averaged():
            forecasts[name] = _semantic(model, batch)
    rows = {}
    for name, hidden in forecasts.items():
        squared = (hidden - truth).square().mean(-1)  # (B,L)
        error = squared[moved][mask[moved]]  # (words,)
        rows[name] = {
            "cosine": _cosine(hidden, truth, mask)[moved].mean().item(),
            "MSE": error.mean().item(),
        }
    return pd.DataFrame(rows).T.assign(captions=int(moved.sum()))


def idle_parameters(model: JointModel, params: Params, count: int = 2) -> pd.DataFrame:
    """Which parameters does a training step leave without any gradient?

    One row a module of `model`, which is not changed.
    """
    from accelerate.utils import send_to_device

    from satjepa.models.drops import Chances, sample_drops

    batch = sample_batch(params, count)
    model = copy.deepcopy(model).train()
    count = len(batch["meta"])
    generator = torch.Generator().manual_seed(0)
    side = model.backbone.latent_size(params.data.patch)
    noise = torch.randn(count, model.backbone.latent_channels, side, side, generator=generator)
    drops = sample_drops(count, Chances(0.0, 0.0), generator)
    sigma = torch.full((count,), 0.5)
    loss, _ = model(*send_to_device((batch, noise, sigma, drops), model.device))
    loss.backward()
    rows: dict[str, dict[str, int]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or name.startswith("backbone."):
            continue
        module = name.split(".")[0]
        row = rows.setdefault(module, {"parameters": 0, "without gradient": 0})
        row["parameters"] += parameter.numel()
        if parameter.grad is None:
            row["without gradient"] += parameter.numel()
    frame = pd.DataFrame(rows).T
    return frame.assign(share=frame["without gradient"] / frame["parameters"])


def leak(cubes: Iterable[xr.Dataset], split: Split, patch: int, seed: int = 0) -> pd.DataFrame:
    """How much of the test part was seen in training?

    One row a split: the published one (random patches), and `split`. Shares of the test samples:
    place: windows of which training saw some other pair of years; target: images of t+1 that a
    training sample reads as its image of t; input: images of t that a training sample has as its
    answer.
    """
    from satjepa.data.draw import make_split

    cubes = list(cubes)
    splits = {
        "random patches": make_split(cubes, "published", seed, patch=patch),
        f"by {split.kind}": split,
    }
    samples = _samples(cubes, patch)
    return pd.DataFrame({name: _overlap(split, samples) for name, split in splits.items()}).T


def _samples(cubes: list[xr.Dataset], patch: int) -> list[tuple[str, int, int, int]]:
    """(region, year t, x, y) of every pair of years of every window of the cubes."""
    from satjepa.data.splits import windows

    samples = []
    for cube in cubes:
        region = cube.attrs["region"]
        corners = windows((cube.sizes["y"], cube.sizes["x"]), patch, patch)
        for year in cube["year"].values.tolist()[:-1]:
            samples += [(region, year, x, y) for x, y in corners]
    return samples


def _overlap(split: Split, samples: list[tuple[str, int, int, int]]) -> dict[str, float]:
    """One row of `leak`."""
    train = {sample for sample in samples if split.part("train").allows(*sample)}
    test = {sample for sample in samples if split.part("test").allows(*sample)}
    places = {(region, x, y) for region, _, x, y in train}
    counts = {"place": 0, "target": 0, "input": 0}
    for region, year, x, y in test:
        counts["place"] += (region, x, y) in places
        counts["target"] += (region, year + 1, x, y) in train
        counts["input"] += (region, year - 1, x, y) in train
    shares = {name: count / len(test) for name, count in counts.items()}
    return {"test samples": len(test)} | shares

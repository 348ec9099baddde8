"""What the published system says of itself beside what it does: small experiments, each a data
frame with a number.
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
        first, *others = (
            model.with_sampling(steps=n).forecast(batch, 1, params.seed) for n in steps
        )
        rows[name] = {
            f"{steps[0]} against {n} steps": (other - first).abs().max().item()
            for n, other in zip(steps[1:], others, strict=True)
        }
    return pd.DataFrame(rows).T


def _cosine(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Cosine of the mean states of each caption: (B,L,T) twice, mask (B,L) of the words that count
    -> (B,).
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
    given = batch["text_t"]["hidden"][:, 2]  # (B,L,T), (B,L)
    mask = batch["text_t"]["mask"][:, 2]
    words = mask[..., None].to(given.dtype)
    for name, model in models.items():
        model.eval()  # no dropout
        answer, elsewhere = (
            _semantic(model, batch, shift)[:, : given.shape[1]] for shift in (0, 1)
        )
        rows[name] = {
            "cosine to the input": _cosine(answer, given, mask).mean().item(),
            "size, of the input's": ((answer * words).norm() / (given * words).norm()).item(),
            "change with other tokens": (
                ((answer - elsewhere) * words).norm() / (answer * words).norm()
            ).item(),
        }
    return pd.DataFrame(rows).T


def _semantic(model: JointModel, batch: dict[str, Any], shift: int = 0) -> Tensor:
    """Hidden states (B,L,T) of the semantic caption of t+1, from the tokens of the place `shift`
    further on; CPU.
    """
    from accelerate.utils import send_to_device

    batch = send_to_device(batch, model.device)
    if model.params.model.variant == "published":
        tokens, _ = model.predict(batch["rgb_t"])
        return model.foresee(batch, tokens.roll(shift, 0))["semantic"][0].cpu()
    tokens, _ = model.predict(batch["rgb_t"], model.remember(batch))
    return model.foresee(batch, tokens.roll(shift, 0))["hidden"][:, 2].cpu()


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
    truth = batch["text_tp1"]["hidden"][:, 2]
    mask = batch["text_tp1"]["mask"][:, 2]
    before = batch["text_t"]["hidden"][:, 2]
    moved = (truth - before).abs().amax((1, 2)) > 0  # (B,)
    said = {"caption of t, repeated": before}
    for name, model in models.items():
        with model.averaged():
            said[name] = _semantic(model, batch)
    rows = {}
    for name, hidden in said.items():
        error = (hidden - truth).square().mean(-1)[moved][mask[moved]]
        rows[name] = {
            "cosine": _cosine(hidden, truth, mask)[moved].mean().item(),
            "MSE": error.mean().item(),
        }
    return pd.DataFrame(rows).T.assign(captions=int(moved.sum()))


def idle_parameters(model: JointModel, params: Params, count: int = 2) -> pd.DataFrame:
    """Which parameters does a training step leave without any gradient? One row a module of `model`
    (not changed).
    """
    from accelerate.utils import send_to_device

    from satjepa.models.satjepa import sample_drops

    batch = sample_batch(params, count)
    model = copy.deepcopy(model).train()
    count = len(batch["meta"])
    generator = torch.Generator().manual_seed(0)
    side = model.backbone.latent_size(params.data.patch)
    noise = torch.randn(count, model.backbone.latent_channels, side, side, generator=generator)
    drops = sample_drops(count, 0.0, 0.0, generator)
    loss, _ = model(*send_to_device((batch, noise, torch.full((count,), 0.5), drops), model.device))
    loss.backward()
    rows: dict[str, dict[str, int]] = {}
    for name, p in model.named_parameters():
        if p.requires_grad and not name.startswith("backbone."):
            row = rows.setdefault(name.split(".")[0], {"parameters": 0, "without gradient": 0})
            row["parameters"] += p.numel()
            row["without gradient"] += p.numel() * (p.grad is None)
    frame = pd.DataFrame(rows).T
    return frame.assign(share=frame["without gradient"] / frame["parameters"])


def leak(cubes: Iterable[xr.Dataset], split: Split, patch: int, seed: int = 0) -> pd.DataFrame:
    """How much of the test part was seen in training? One row a split: the published one (random
    patches), and `split`.

    place: windows of which training saw some other pair of years; target: test images of t+1 that a
    training sample reads as its image of t; input: test images of t that a training sample has as
    its answer.
    """
    from satjepa.data.draw import make_split
    from satjepa.data.splits import windows

    cubes = list(cubes)
    splits = {
        "random patches": make_split(cubes, "published", seed, patch=patch),
        f"by {split.kind}": split,
    }
    years = {cube.attrs["region"]: cube["year"].values.tolist() for cube in cubes}
    places = {
        cube.attrs["region"]: windows((cube.sizes["y"], cube.sizes["x"]), patch, patch)
        for cube in cubes
    }
    samples = [
        (r, t, x, y)
        for r in years
        for t, _ in zip(years[r], years[r][1:], strict=False)
        for x, y in places[r]
    ]
    return pd.DataFrame({name: _seen(split, samples) for name, split in splits.items()}).T


def _seen(split: Split, samples: list[tuple[str, int, int, int]]) -> dict[str, float]:
    train, test = (
        {s for s in samples if split.part(part).allows(*s)} for part in ("train", "test")
    )
    known = {(r, x, y) for r, _, x, y in train}
    found = {
        "place": [(r, x, y) in known for r, _, x, y in test],
        "target": [(r, t + 1, x, y) in train for r, t, x, y in test],
        "input": [(r, t - 1, x, y) in train for r, t, x, y in test],
    }
    return {"test samples": len(test)} | {
        name: sum(seen) / len(test) for name, seen in found.items()
    }

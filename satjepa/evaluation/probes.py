"""Probes of a trained model: what it listens to, and whether the pixels of year t reach the
sampler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from satjepa.assemble import sample_batch
from satjepa.evaluation.score import samplers

if TYPE_CHECKING:
    from satjepa.config import Params
    from satjepa.models.joint import JointModel


def _roll(value: Any) -> Any:
    return {k: _roll(v) for k, v in value.items()} if isinstance(value, dict) else value.roll(1, 0)


def listen(model: JointModel, params: Params, count: int = 64, samples: int = 4) -> pd.DataFrame:
    """What a trained model loses when it is told of another place: tokens, captions or both of the
    next patch in the batch.

    One row a case: PSNR (dB, mean over patches) of the mean of `samples` forecasts, and its
    difference to the true conditions.
    """
    from satjepa.metrics.pixels import psnr

    batch = sample_batch(params, count)
    rows = {}
    cases = {
        "true tokens, true captions": (),
        "tokens of another place": ("rgb_t", "history", "history_valid"),
        "captions of another place": ("text_t",),
        "both of another place": ("rgb_t", "history", "history_valid", "text_t"),
    }
    for case, names in cases.items():
        told = batch | {name: _roll(batch[name]) for name in names}
        rows[case] = (
            psnr(model.forecast(told, samples, params.seed).mean(0), batch["rgb_tp1"]).mean().item()
        )
    frame = pd.DataFrame({"psnr": rows})
    return frame.assign(difference=frame["psnr"] - frame["psnr"].iloc[0])


def zero_rgb(model: JointModel, params: Params, count: int = 8) -> pd.DataFrame:
    """Conditions from the true image of year t, then its pixels replaced by noise: by how much does
    the forecast change?

    One row a sampler: the largest absolute change of any value of any pixel. Strict zero-RGB must
    give exactly 0.
    """
    from accelerate.utils import send_to_device

    batch = sample_batch(params, count)
    noise = torch.rand(batch["rgb_t"].shape, generator=torch.Generator().manual_seed(0)).to(
        model.device
    )
    batch = send_to_device(batch, model.device)
    rows = {}
    with torch.no_grad(), model.averaged():
        conditions = model.condition(batch)
        for name, variant in samplers(model).items():
            before, after = (
                _draw(variant, conditions, batch | {"rgb_t": rgb}, params.seed)
                for rgb in (batch["rgb_t"], noise)
            )
            rows[name] = (before - after).abs().max().item()
    return pd.DataFrame({"largest change of the forecast": rows})


def _draw(model: JointModel, conditions: Any, batch: dict[str, Any], seed: int) -> torch.Tensor:
    """One forecast of given conditions; of the batch, only the image-initialised sampler sees the
    pixels.
    """
    from satjepa.models.flow import patch_noise

    how = model.params.sample
    side = model.backbone.latent_size(model.params.data.patch)
    noise = patch_noise(batch["meta"], 0, seed, (model.backbone.latent_channels, side, side)).to(
        model.device
    )
    start = model.backbone.encode(batch["rgb_t"]) if model.strength < 1 else None
    return model.backbone.decode(
        model.sample(conditions, noise, how.steps, model.guidance, start, model.strength)
    )

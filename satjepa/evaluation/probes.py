"""Probes of a trained model: what it listens to, and whether the pixels of year t reach the
sampler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from satjepa.assemble import sample_batch
from satjepa.contracts import CAPTION_KINDS
from satjepa.evaluation.score import samplers
from satjepa.models.caption_tensors import semantic_of

if TYPE_CHECKING:
    from satjepa.config import Params
    from satjepa.models.joint import JointModel


def _roll(value: Any) -> Any:
    return {k: _roll(v) for k, v in value.items()} if isinstance(value, dict) else value.roll(1, 0)


def listen(model: JointModel, params: Params, count: int = 64, samples: int = 4) -> pd.DataFrame:
    """What a trained model loses when it is told of another place (the next patch in the batch) or
    hears one of its captions alone, or none, and gains by the true semantic caption of t+1.

    One row a case: PSNR (dB, mean over patches) and CRPS of `samples` forecasts, "changed" the PSNR
    of pixels that have changed (`eval.change_threshold`), and the differences of PSNR to the first.
    """
    batch = sample_batch(params, count)
    rolled = {name: _roll(batch[name]) for name in ("rgb_t", "history", "history_valid")}
    cases = {
        "as it is": {},
        "true caption of t+1": _led(batch["text_tp1"]),
        "caption of t, copied": _led(batch["text_t"]),
        "caption of another place's t+1": _led(_roll(batch["text_tp1"])),
        "captions of another place": {"text_t": _roll(batch["text_t"])},
        **_streams(model, len(batch["rgb_t"])),
        "tokens of another place": rolled,
        "both of another place": rolled | {"text_t": _roll(batch["text_t"])},
    }
    rows = {}
    for case, changes in cases.items():
        members = model.forecast(batch | changes, samples, params.seed)  # (S,B,3,H,W)
        rows[case] = heard(members, batch, params.eval.change_threshold)
    frame = pd.DataFrame(rows).T
    return frame.assign(difference=frame["psnr"] - frame["psnr"].iloc[0],
                        changed_difference=frame["changed"] - frame["changed"].iloc[0])  # fmt: skip


def _led(text: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What leads a forecast by the semantic captions of a text (B,3,...)."""
    all_of_them = torch.ones(len(text["mask"]), dtype=torch.bool)
    return {"text_given": text, "is_given": semantic_of(all_of_them)}


def _streams(model: JointModel, count: int) -> dict[str, dict[str, Any]]:
    """What leaves a model with one of its three captions, empty texts in place of the others, or
    with none; nothing for a model that has no such streams.
    """
    m = model.params.model
    if m.variant == "published" or not m.use_captions:
        return {}
    silence = model.adapter.silence(count)
    everyone = torch.ones(count, len(CAPTION_KINDS), dtype=torch.bool)
    cases = {"no captions": {"text_given": silence, "is_given": everyone}}
    for number, kind in enumerate(CAPTION_KINDS):
        others = everyone.clone()
        others[:, number] = False
        cases[f"{kind} caption alone"] = {"text_given": silence, "is_given": others}
    return cases


def heard(members: torch.Tensor, batch: dict[str, Any], threshold: float) -> dict[str, float]:
    """Scores of forecasts (S,B,3,H,W) of a batch: psnr of their mean (dB, mean over patches), crps;
    "changed" is the PSNR of the pixels, of all patches pooled, that change by more than `threshold`
    from t to t+1.
    """
    from satjepa.metrics.pixels import changed, crps, mse, pool, psnr, psnr_of

    truth = batch["rgb_tp1"]
    valid = batch["valid_t"] & batch["valid_tp1"]
    mean = members.mean(0)
    moved = changed(batch["rgb_t"], truth, valid, threshold)  # (B,1,H,W)
    return {
        "psnr": psnr(mean, truth, valid).mean().item(),
        "changed": psnr_of(pool(mse(mean, truth, moved), moved.flatten(1).sum(1))).item(),
        "crps": crps(members, truth, valid).mean().item(),
    }


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

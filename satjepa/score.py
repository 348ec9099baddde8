"""Scoring as the notebooks do it, run by run, and probes of what a trained model listens to."""

from __future__ import annotations

import copy
import dataclasses
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from satjepa.assemble import batches, dataset, spread_evenly, the_device
from satjepa.config import Params
from satjepa.data.pairs import collate
from satjepa.evaluate import Scores, evaluate_all
from satjepa.perceptual import Perceptual, load_perceptual
from satjepa.rows import write_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from satjepa.models.joint import JointModel

OURS = "Sat-JEPA-Diff, zero-RGB"
INITIALISED = "Sat-JEPA-Diff, image-initialised 0.35"
PUBLISHED = "Sat-JEPA-Diff, caption-guided as published"
PUBLISHED_COARSE = "Sat-JEPA-Diff, coarse RGB as published"
TIME = "seconds_per_patch"
STRENGTH = 0.35  # of the published sampler, which starts from the image of year t


def with_sampling(model: JointModel, **changes: Any) -> JointModel:
    """The same model (the same weights, not a copy) under other settings of the `sample` section."""
    other = copy.copy(model)
    other.params = dataclasses.replace(model.params, sample=dataclasses.replace(model.params.sample, **changes))
    return other


@cache
def _perceptual(trunk: str | None, fid: str | None) -> Perceptual:
    return load_perceptual(trunk, fid, the_device())


def score(
    forecasters: dict[str, Any], params: Params, preset: str, samples: dict[str, int], seed: int = 0
) -> list[Scores]:
    """Rows of some forecasters on the test part of a preset: `eval.max_patches` patches, spread evenly."""
    e, data = params.eval, dataset(params, "test", preset)
    return evaluate_all(
        forecasters,
        batches(data, e.batch, e.max_patches),
        samples=samples,
        seed=seed,
        perceptual=_perceptual(e.lpips_trunk, e.fid_weights),
        threshold=e.change_threshold,
    )


def samplers(model: JointModel) -> dict[str, JointModel]:
    """A trained model under the names of its rows: strict zero-RGB and image-initialised; as published, its only way,
    which starts from the image of year t.
    """
    m = model.params.model
    if m.variant == "published":
        return {PUBLISHED_COARSE if m.coarse_rgb else PUBLISHED: model}
    return {OURS: model, INITIALISED: with_sampling(model, strength=STRENGTH)}


def untimed(scores: Scores) -> dict[str, Any]:
    """A row without what depends on the machine and the hour: equal runs must write equal bytes."""
    return {name: value for name, value in scores.row.items() if name != TIME}


def score_run(model: JointModel, params: Params, path: Path, presets: list[str] | None = None) -> pd.DataFrame:
    """Score a trained model (an ensemble of `sample.samples` from pure noise; one sample from an image); write and
    return the rows (`write_scores`).
    """
    rows = []
    for preset in presets or params.data.presets:
        rows += score(samplers(model), params, preset, {OURS: params.sample.samples}, params.seed)
    return write_scores(rows, path)


def write_scores(rows: list[Scores], path: Path) -> pd.DataFrame:
    """Write and return rows. How long a forecast took goes to `timing.csv` beside, which DVC does not look at."""
    write_table([untimed(scores) for scores in rows], path)
    write_table([{name: s.row[name] for name in ("model", "preset", TIME)} for s in rows], path.with_name("timing.csv"))
    return pd.read_csv(path)


def some(params: Params, count: int, preset: str | None = None) -> dict[str, Any]:
    """One batch of `count` test patches, spread evenly."""
    data = dataset(params, "test", preset)
    return collate([data[i] for i in spread_evenly(len(data), count)])


def _roll(value: Any) -> Any:
    return {k: _roll(v) for k, v in value.items()} if isinstance(value, dict) else value.roll(1, 0)


def listen(model: JointModel, params: Params, count: int = 64, samples: int = 4) -> pd.DataFrame:
    """What a trained model loses when it is told of another place: tokens, captions or both of the next patch in the
    batch.

    One row a case: PSNR (dB, mean over patches) of the mean of `samples` forecasts, and its difference to the true
    conditions.
    """
    from satjepa.metrics import psnr

    batch, rows = some(params, count), {}
    cases = {
        "true tokens, true captions": (),
        "tokens of another place": ("rgb_t", "history", "history_valid"),
        "captions of another place": ("text_t",),
        "both of another place": ("rgb_t", "history", "history_valid", "text_t"),
    }
    for case, names in cases.items():
        told = batch | {name: _roll(batch[name]) for name in names}
        rows[case] = psnr(model.forecast(told, samples, params.seed).mean(0), batch["rgb_tp1"]).mean().item()
    frame = pd.DataFrame({"psnr": rows})
    return frame.assign(difference=frame["psnr"] - frame["psnr"].iloc[0])


def zero_rgb(model: JointModel, params: Params, count: int = 8) -> pd.DataFrame:
    """Conditions from the true image of year t, then its pixels replaced by noise: by how much does the forecast
    change?

    One row a sampler: the largest absolute change of any value of any pixel. Strict zero-RGB must give exactly 0.
    """
    from accelerate.utils import send_to_device

    batch = some(params, count)
    noise = torch.rand(batch["rgb_t"].shape, generator=torch.Generator().manual_seed(0)).to(model.device)
    batch = send_to_device(batch, model.device)
    rows = {}
    with torch.no_grad(), model.averaged():
        conditions = model.condition(batch)
        for name, variant in samplers(model).items():
            before, after = (
                _draw(variant, conditions, batch | {"rgb_t": rgb}, params.seed) for rgb in (batch["rgb_t"], noise)
            )
            rows[name] = (before - after).abs().max().item()
    return pd.DataFrame({"largest change of the forecast": rows})


def _draw(model: JointModel, conditions: Any, batch: dict[str, Any], seed: int) -> torch.Tensor:
    """One forecast of given conditions; of the batch, only the image-initialised sampler sees the pixels."""
    from satjepa.flow import patch_noise

    how, side = model.params.sample, model.backbone.latent_size(model.params.data.patch)
    noise = patch_noise(batch["meta"], 0, seed, (model.backbone.latent_channels, side, side)).to(model.device)
    start = model.backbone.encode(batch["rgb_t"]) if model.strength < 1 else None
    return model.backbone.decode(model.sample(conditions, noise, how.steps, how.guidance, start, model.strength))


def who_sees_it(model: JointModel) -> str:
    """What the generator is shown of the image of year t, in two lines: strict zero-RGB, coarse RGB or a start."""
    if model.strength < 1:
        return "the generator\nstarts from it"
    side = model.params.model.coarse_rgb
    return f"the adapter sees\nit, {side} x {side} px" if side else "not seen\nby the generator"


def forecast_grid(model: JointModel, params: Params, count: int = 6, preset: str | None = None) -> Figure:
    """Year t and who sees it, the truth, three samples, mean and spread of the ensemble, and the oracle where it is
    known.
    """
    from satjepa import plots

    batch, n = some(params, count, preset), params.sample.samples
    members = model.forecast(batch, n, params.seed)  # (S, B, 3, H, W)
    columns = {f"year t ({who_sees_it(model)})": batch["rgb_t"], "truth, year t+1": batch["rgb_tp1"]}
    columns |= {f"sample {i + 1}": members[i] for i in range(min(3, n))}
    columns |= {f"mean of {n}": members.mean(0), "spread": members.std(0, correction=0).mean(1)}
    if "oracle_mean" in batch:
        columns["oracle, mean"] = batch["oracle_mean"]
    return plots.grid(columns, [f"{m['region']}\n{m['year'] + 1}" for m in batch["meta"]])

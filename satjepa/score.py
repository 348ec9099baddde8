"""Scoring as the notebooks do it: one run, the arms of the ablations, the table; and probes of what a trained model
listens to.
"""

from __future__ import annotations

import copy
import dataclasses
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from satjepa.assemble import batches, dataset, spread_evenly
from satjepa.baselines.persistence import MeanColour, OracleMean, OracleSample, Persistence
from satjepa.config import Params
from satjepa.data.pairs import collate
from satjepa.evaluate import Scores, evaluate_all
from satjepa.paths import root
from satjepa.perceptual import Perceptual, load_perceptual
from satjepa.table import combine_seeds, write_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from satjepa.models.satjepa import SatJepa

OURS = "Sat-JEPA-Diff, zero-RGB"
INITIALISED = "Sat-JEPA-Diff, image-initialised 0.35"
TIME = "seconds_per_patch"
STRENGTH = 0.35  # of the published sampler, which starts from the image of year t
DETERMINISTIC = {
    "Default (persistence)": Persistence,
    "Mean colour": MeanColour,
    "Oracle, mean": OracleMean,
    "Oracle, one draw": OracleSample,
}


def with_sampling(model: SatJepa, **changes: Any) -> SatJepa:
    """The same model (the same weights, not a copy) under other settings of the `sample` section."""
    other = copy.copy(model)
    other.params = dataclasses.replace(model.params, sample=dataclasses.replace(model.params.sample, **changes))
    return other


@cache
def _perceptual(trunk: str | None, fid: str | None) -> Perceptual:
    return load_perceptual(trunk, fid)


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


def untimed(scores: Scores) -> dict[str, Any]:
    """A row without what depends on the machine and the hour: equal runs must write equal bytes."""
    return {name: value for name, value in scores.row.items() if name != TIME}


def score_run(model: SatJepa, params: Params, path: Path, presets: list[str] | None = None) -> pd.DataFrame:
    """Score a trained model (an ensemble of `sample.samples` from pure noise; one image-initialised sample), write and
    return the rows. How long a forecast took goes to `timing.csv` beside `path`, which DVC does not look at.
    """
    rows = []
    for preset in presets or params.data.presets:
        forecasters = {OURS: model, INITIALISED: with_sampling(model, strength=STRENGTH)}
        rows += score(forecasters, params, preset, {OURS: params.sample.samples}, params.seed)
    write_table([untimed(scores) for scores in rows], path)
    write_table([{name: s.row[name] for name in ("model", "preset", TIME)} for s in rows], path.with_name("timing.csv"))
    return pd.read_csv(path)


def _rows(path: Path) -> list[dict[str, Any]]:
    return pd.read_csv(path).astype(object).where(lambda f: f.notna(), None).to_dict("records")


def over_seeds(paths: list[Path]) -> list[dict[str, Any]]:
    """The rows of the same run with several seeds, combined row by row (mean and, from two seeds on, standard
    deviation).
    """
    return [combine_seeds(list(rows)) for rows in zip(*map(_rows, paths), strict=True)]


def collect_arms(params: Params) -> pd.DataFrame:
    """The ablations: one row an arm, the mean of its ensemble on the first preset, combined over seeds."""
    rows = []
    for arm in params.ablate.arms:
        paths = [root() / f"runs/ablate/{arm}-{seed}/scores.csv" for seed in params.ablate.seeds]
        row = next(r for r in over_seeds(paths) if "mean of" in r["model"] and r["preset"] == params.data.presets[0])
        rows.append(row | {"model": arm.replace("_", " ")})
    return pd.DataFrame(rows)


def collect_baselines(params: Params) -> list[dict[str, Any]]:
    """The rows of every arm of `baselines`, on every preset, combined over seeds."""
    from satjepa.config_baselines import arm_names

    rows = []
    for arm in arm_names(params) if params.baselines else ():
        rows += over_seeds([root() / f"runs/baselines/{arm}-{seed}/scores.csv" for seed in params.ablate.seeds])
    return rows


def build_table(params: Params, path: Path) -> pd.DataFrame:
    """Score what needs no training, add baselines, runs and ablations, and write the results table with its
    settings.
    """
    baselines = collect_baselines(params)
    runs = over_seeds([root() / f"runs/joint-{seed}/scores.csv" for seed in params.ablate.seeds])
    arms = collect_arms(params).to_dict("records")
    rows, settings = [], {}
    for preset in params.data.presets:
        known = dataset(params, "test", preset, text=False).truth
        chosen = {name: make() for name, make in DETERMINISTIC.items() if known or "Oracle" not in name}
        scored = score(chosen, params, preset, {})
        settings = scored[0].settings
        fixed = [combine_seeds([untimed(s)]) for s in scored]
        ours = [row for row in runs if row["preset"] == preset]
        rows += (
            fixed[:2]
            + [row for row in baselines if row["preset"] == preset]
            + ours
            + [
                row | {"model": f"Ablation: {row['model']}, {row['samples']:.0f} samples"}
                for row in arms
                if row["preset"] == preset
            ]
            + fixed[2:]
        )
    write_table(
        rows,
        path,
        settings
        | {
            "steps": params.train.steps,
            "ablation_steps": params.ablate.steps,
            "sampler_steps": params.sample.steps,
            "guidance": params.sample.guidance,
        },
    )
    return pd.read_csv(path)


def some(params: Params, count: int, preset: str | None = None) -> dict[str, Any]:
    """One batch of `count` test patches, spread evenly."""
    data = dataset(params, "test", preset)
    return collate([data[i] for i in spread_evenly(len(data), count)])


def _roll(value: Any) -> Any:
    return {k: _roll(v) for k, v in value.items()} if isinstance(value, dict) else value.roll(1, 0)


def listen(model: SatJepa, params: Params, count: int = 64, samples: int = 4) -> pd.DataFrame:
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


def zero_rgb(model: SatJepa, params: Params, count: int = 8) -> pd.DataFrame:
    """Conditions from the true image of year t, then its pixels replaced by noise: by how much does the forecast
    change?

    One row a sampler: the largest absolute change of any value of any pixel. Strict zero-RGB must give exactly 0.
    """
    batch = some(params, count)
    noise = torch.rand(batch["rgb_t"].shape, generator=torch.Generator().manual_seed(0))
    rows = {}
    with torch.no_grad(), model.averaged():
        conditions = model.condition(batch)
        for name, variant in ((OURS, model), (INITIALISED, with_sampling(model, strength=STRENGTH))):
            before, after = (
                _draw(variant, conditions, batch | {"rgb_t": rgb}, params.seed) for rgb in (batch["rgb_t"], noise)
            )
            rows[name] = (before - after).abs().max().item()
    return pd.DataFrame({"largest change of the forecast": rows})


def _draw(model: SatJepa, conditions: Any, batch: dict[str, Any], seed: int) -> torch.Tensor:
    """One forecast of given conditions; of the batch, only the image-initialised sampler sees the pixels."""
    from satjepa.flow import patch_noise

    how, side = model.params.sample, model.backbone.latent_size(model.params.data.patch)
    noise = patch_noise(batch["meta"], 0, seed, (model.backbone.latent_channels, side, side))
    start = model.backbone.encode(batch["rgb_t"]) if model.strength < 1 else None
    return model.backbone.decode(model.sample(conditions, noise, how.steps, how.guidance, start, model.strength))


def forecast_grid(model: SatJepa, params: Params, count: int = 6, preset: str | None = None) -> Figure:
    """Year t, the truth, three samples, mean and spread of the ensemble, and the oracle where it is known."""
    from satjepa import plots

    batch, n = some(params, count, preset), params.sample.samples
    members = model.forecast(batch, n, params.seed)  # (S, B, 3, H, W)
    columns = {"year t (not seen\nby the generator)": batch["rgb_t"], "truth, year t+1": batch["rgb_tp1"]}
    columns |= {f"sample {i + 1}": members[i] for i in range(min(3, n))}
    columns |= {f"mean of {n}": members.mean(0), "spread": members.std(0, correction=0).mean(1)}
    if "oracle_mean" in batch:
        columns["oracle, mean"] = batch["oracle_mean"]
    return plots.grid(columns, [f"{m['region']}\n{m['year'] + 1}" for m in batch["meta"]])

"""Scoring as the notebooks do it, run by run, and probes of what a trained model listens to."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from satjepa.assemble import batches, dataset, the_device
from satjepa.baselines.arms import members
from satjepa.config import Params
from satjepa.contracts import Forecaster
from satjepa.data.share import Share
from satjepa.evaluation.evaluate import Scores, evaluate_all
from satjepa.evaluation.table import write_table
from satjepa.metrics.perceptual import Perceptual, load_perceptual
from satjepa.models.published import STRENGTH

if TYPE_CHECKING:
    from satjepa.models.joint import JointModel

OURS = "Sat-JEPA-Diff, zero-RGB"
INITIALISED = f"Sat-JEPA-Diff, image-initialised {STRENGTH:g}"
PUBLISHED = "Sat-JEPA-Diff, caption-guided as published"
PUBLISHED_COARSE = "Sat-JEPA-Diff, coarse RGB as published"
TIME = "seconds_per_patch"


@cache
def _perceptual(trunk: str | None, fid: str | None) -> Perceptual:
    return load_perceptual(trunk, fid, the_device())


def score(
    forecasters: dict[str, Any], params: Params, preset: str, samples: dict[str, int], seed: int = 0
) -> list[Scores]:
    """Rows of some forecasters on the test part of a preset: `eval.max_patches` patches, spread
    evenly. Several processes score a share each; all return the rows of all.
    """
    settings = params.eval
    share = Share.mine()
    data = dataset(params, "test", preset)
    return evaluate_all(
        forecasters,
        batches(data, settings.batch, settings.max_patches, share),
        samples=samples,
        seed=seed,
        perceptual=_perceptual(settings.lpips_trunk, settings.fid_weights),
        threshold=settings.change_threshold,
        share=share,
    )


def samplers(model: JointModel) -> dict[str, JointModel]:
    """A trained model under the names of its rows: strict zero-RGB and image-initialised; as
    published, its only way, which starts from the image of year t.
    """
    m = model.params.model
    if m.variant == "published":
        return {PUBLISHED_COARSE if m.coarse_rgb else PUBLISHED: model}
    return {OURS: model, INITIALISED: model.with_sampling(strength=STRENGTH)}


def samples_of(params: Params) -> dict[str, int]:
    """Forecasts of a place by the name of a row, where they are more than one."""
    return {OURS: params.sample.samples}


def untimed(scores: Scores) -> dict[str, Any]:
    """A row without what depends on the machine and the hour: equal runs must write equal bytes."""
    return {name: value for name, value in scores.row.items() if name != TIME}


def score_run(
    model: JointModel, params: Params, path: Path, ablation: bool = False
) -> pd.DataFrame:
    """Score a trained model on every preset, an ablation on the first alone: an ensemble of
    `sample.samples` from pure noise, one sample from an image. Write and return the rows.
    """
    rows = []
    for preset in params.data.presets[: 1 if ablation else None]:
        rows += score(samplers(model), params, preset, samples_of(params), params.seed)
    return write_scores(rows, path)


def score_baseline(name: str, forecaster: Forecaster, params: Params, path: Path) -> pd.DataFrame:
    """Score a baseline on every preset under its title; write and return the rows."""
    title = params.baselines.title(name)
    samples = {title: members(name, params)}
    rows = []
    for preset in params.data.presets:
        rows += score({title: forecaster}, params, preset, samples, params.seed)
    return write_scores(rows, path)


def write_scores(rows: list[Scores], path: Path) -> pd.DataFrame:
    """Write (of several processes the first one does) and return rows. How long a forecast took
    goes to `timing.csv` beside, which DVC does not look at.
    """
    scores = [untimed(row) for row in rows]
    if Share.mine().rank == 0:
        write_table(scores, path)
        timing = pd.DataFrame([one.row for one in rows])[["model", "preset", TIME]]
        write_table(timing.to_dict("records"), path.with_name("timing.csv"))
    return pd.DataFrame(scores)

"""The experiments on what the published system claims, on models at toy size."""

import copy

import numpy as np
import pytest
import torch
import xarray as xr

from satjepa.config import load_params
from satjepa.data.draw import make_split
from satjepa.models.backbone import Backbone
from satjepa.models.published.model import PublishedSatJepa
from satjepa.models.satjepa import SatJepa
from satjepa.paths import root
from satjepa.published import claims

SMALL = {"dim": 16, "depth": 1, "heads": 2}
TINY = {
    "backbone.layout": None, "data.patch": 32, "model.encoder": SMALL | {"patch": 8},
    "model.predictor": SMALL,
    "sample.guidance": 1.0, "model.forecaster": {"dim": 16, "layers": 1, "heads": 2},
    "model.adapter": {"dim": 16, "layers": 1, "heads": 2},
}  # fmt: skip


@pytest.fixture
def models(parts, batch, monkeypatch: pytest.MonkeyPatch):
    """New models of both variants by name, and their samples."""
    transformer, vae, empty, layout = parts
    made = {}
    for name, kind, last in (("published", PublishedSatJepa, ()), ("satjepa", SatJepa, (layout,))):
        params = load_params(root() / "params.yaml", **TINY | {"model.variant": name})
        torch.manual_seed(1)
        backbone = Backbone(copy.deepcopy(transformer), vae).add_lora(2, 2, ["to_q", "to_v"])
        made[name] = kind(params, backbone, empty, *last).eval()
    monkeypatch.setattr(claims, "sample_batch", lambda params, count: batch)
    return made, params


def test_only_ours_heeds_the_number_of_steps(models):
    made, params = models
    table = claims.heed_steps(made, params, [1, 2, 5])
    assert list(table.columns) == ["1 against 2 steps", "1 against 5 steps"]
    assert (table.loc["published"] == 0).all() and (table.loc["satjepa"] > 1e-4).all()


def test_only_ours_starts_as_the_identity(models):
    made, params = models
    table = claims.forecaster_at_start(
        {name: model.train() for name, model in made.items()}, params
    )
    ours = table.loc["satjepa"]
    theirs = table.loc["published"]
    assert ours.tolist() == pytest.approx([1, 1, 0], abs=1e-6)
    assert abs(theirs["cosine to the input"]) < 0.5 and theirs["size, of the input's"] < 0.3
    assert 0 < theirs["change with other tokens"] < 0.5


def test_a_perfect_forecaster_has_no_error_and_repetition_has(
    models, batch, monkeypatch: pytest.MonkeyPatch
):
    made, params = models
    monkeypatch.setattr(
        claims, "_semantic", lambda model, batch, shift=0: batch["text_tp1"]["hidden"][:, 2]
    )
    table = claims.forecast_captions({"perfect": made["satjepa"]}, params)
    assert (
        table.loc["perfect", "cosine"] == pytest.approx(1, abs=1e-6)
        and table.loc["perfect", "MSE"] == 0
    )
    repeated = table.loc["caption of t, repeated"]
    assert (
        repeated["cosine"] < 0.99
        and repeated["MSE"] > 0.01
        and repeated["captions"] == len(batch["meta"])
    )


def test_only_the_published_temporal_attention_is_idle(models):
    made, params = models
    state = {name: p.clone() for name, p in made["published"].named_parameters()}
    theirs, ours = (claims.idle_parameters(made[name], params) for name in ("published", "satjepa"))
    temporal = sum(p.numel() for p in made["published"].adapter.temporal_attn.parameters())
    assert theirs.loc["adapter", "without gradient"] == temporal > 0
    assert theirs.drop("adapter")["share"].max() == 0 and ours["share"].max() == 0
    assert all(
        torch.equal(state[name], p) and p.grad is None
        for name, p in made["published"].named_parameters()
    )


def test_random_patches_leak_and_regions_do_not():
    years = list(range(2017, 2023))
    cubes = [
        xr.Dataset(
            coords={"year": years, "y": np.arange(64), "x": np.arange(64)},
            attrs={"region": f"R{i}"},
        )
        for i in range(16)
    ]
    table = claims.leak(cubes, make_split(cubes, "region"), 32)
    random = table.loc["random patches"]
    whole = table.loc["by region"]
    assert random["test samples"] == round(0.2 * 16 * 5 * 4) and whole["test samples"] == 8 * 5 * 4
    assert random["place"] > 0.95 and 0.4 < random["target"] < 0.8 and 0.4 < random["input"] < 0.8
    assert whole[["place", "target", "input"]].tolist() == [0, 0, 0]

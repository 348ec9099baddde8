"""I-JEPA, caption and flow losses: published formulas (golden e, f) and what we added (validity,
masks, silence).
"""

import json

import pytest
import torch
from safetensors import safe_open

from satjepa.models.losses import CaptionWeights, IJepaWeights, caption_loss, flow_loss, ijepa_loss


def golden(shared, name):
    with safe_open(shared / "reference" / "golden" / name, "pt") as f:
        tensors = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118 - not a dict
        return tensors, json.loads(f.metadata()["settings"])


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["default", "published_yaml", "no_raw", "batch1", "l1_only"])
@pytest.mark.parametrize("ones", [False, True])
def test_ijepa_loss_is_the_published_one(shared, name, ones):
    g, settings = golden(shared, "e_hybrid_ijepa_loss.safetensors")
    w = settings[name]["weights"]
    given = settings[name]
    rows = slice(0, 1) if given["first_sample_only"] else slice(None)
    pred, raw = (g[key][rows].clone().requires_grad_() for key in ("pred", "pred_raw"))
    feats = (raw, g["target_raw"][rows]) if given["raw_given"] else (None, None)
    weights = IJepaWeights(
        w["l1_weight"], w["cosine_weight"], w["contrastive_weight"], w["spatial_var_weight"],
        w["feature_reg_weight"], w["temperature"],
    )  # fmt: skip
    weight = torch.ones(pred.shape[:2]) if ones else None
    loss, parts = ijepa_loss(pred, g["target"][rows], *feats, weight, weight, weights)
    loss.backward()
    close(loss.detach(), g[f"out.{name}.total"])
    theirs = {
        "l1": "l1",
        "cosine": "cosine",
        "contrastive": "contr",
        "spatial": "spatial",
        "feature": "feat_reg",
    }
    for ours, their in theirs.items():
        close(parts[ours], g[f"out.{name}.{their}"])
    close(pred.grad, g[f"out.{name}.grad_pred"])
    if given["raw_given"]:
        close(raw.grad, g[f"out.{name}.grad_pred_raw"])


def test_default_weights_are_the_published_ones(shared):
    _, settings = golden(shared, "e_hybrid_ijepa_loss.safetensors")
    w = IJepaWeights()
    assert [w.l1, w.cosine, w.contrastive, w.spatial, w.feature, w.temperature] == [
        settings["published_yaml"]["weights"][key]
        for key in ("l1_weight", "cosine_weight", "contrastive_weight", "spatial_var_weight",
        "feature_reg_weight",
                    "temperature")
    ]  # fmt: skip


@pytest.mark.parametrize("spatial", ["scalar", "channel"])
def test_what_is_invalid_enters_no_part_of_the_ijepa_loss(spatial):
    """A token of weight 0 may hold anything; dropping it is the same as never having had it."""
    torch.manual_seed(0)
    pred, target, raw, raw_target = (torch.randn(3, 8, 6) for _ in range(4))
    weight = torch.ones(3, 8)
    weight[:, 5:] = 0
    dirty = [t.clone() for t in (pred, target, raw, raw_target)]
    for t in dirty:
        t[:, 5:] = 1e3
    loss, _ = ijepa_loss(*dirty, weight, weight, spatial=spatial)
    clean, _ = ijepa_loss(*(t[:, :5] for t in (pred, target, raw, raw_target)), spatial=spatial)
    close(loss, clean)


def test_a_sample_with_nothing_valid_is_as_if_absent_and_a_batch_of_them_costs_nothing():
    torch.manual_seed(0)
    pred, target, raw, raw_target = (torch.randn(3, 8, 6) for _ in range(4))
    weight = torch.ones(3, 8)
    weight[2] = 0
    loss, _ = ijepa_loss(pred, target, raw, raw_target, weight, weight, spatial="channel")
    without, _ = ijepa_loss(*(t[:2] for t in (pred, target, raw, raw_target)), spatial="channel")
    close(loss, without)
    _, parts = ijepa_loss(pred, target, raw, raw_target, 0 * weight, 0 * weight, spatial="channel")
    assert [float(parts[name]) for name in ("l1", "spatial", "contrastive", "feature")] == [
        0,
        0,
        0,
        0,
    ]


def test_spatial_per_channel_sees_what_one_scalar_lets_cancel():
    """Channel 0 too flat, channel 1 too rough by as much: the published scalar is 0, ours is
    not.
    """
    torch.manual_seed(0)
    x = torch.randn(1, 64, 1)
    x = (x - x.mean()) / x.std()
    pred = torch.cat([x, 3 * x], -1)
    target = torch.cat([2 * x, 2 * x], -1)
    _, scalar = ijepa_loss(pred, target, spatial="scalar")
    _, channel = ijepa_loss(pred, target, spatial="channel")
    assert scalar["spatial"] < 1e-9
    assert channel["spatial"] == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("name", ["default", "batch1", "mse_only"])
@pytest.mark.parametrize("masked", [False, True])
def test_caption_loss_is_the_published_one(shared, name, masked):
    g, settings = golden(shared, "f_caption_forecast_loss.safetensors")
    w = settings[name]["weights"]
    rows = slice(0, 1) if settings[name]["first_sample_only"] else slice(None)
    pred = g["pred"][rows].clone().requires_grad_()
    target = g["target"][rows]
    weights = CaptionWeights(
        w["mse_weight"], w["cosine_weight"], w["contrastive_weight"], w["temperature"]
    )
    mask = torch.ones(pred.shape[:2], dtype=torch.bool) if masked else None
    loss, parts = caption_loss(pred, target, mask, weights=weights)
    loss.backward()
    close(loss.detach(), g[f"out.{name}.total"])
    for part, theirs in (
        ("mse", "caption_mse"),
        ("cosine", "caption_cos"),
        ("contrastive", "caption_contr"),
    ):
        close(parts[part], g[f"out.{name}.{theirs}"])
    close(pred.grad, g[f"out.{name}.grad_pred"])


def test_caption_loss_past_the_end_of_the_caption_asks_for_silence_and_nothing_else():
    torch.manual_seed(0)
    pred, target = torch.randn(2, 2, 6, 4)
    mask = torch.arange(6).expand(2, 6) < 4
    dirty = target.clone()
    dirty[:, 4:] = 1e3
    loss, parts = caption_loss(pred, dirty, mask)
    short, short_parts = caption_loss(pred[:, :4], target[:, :4])
    for name in ("mse", "cosine", "contrastive"):
        close(parts[name], short_parts[name])
    close(parts["silence"], pred[:, 4:].square().mean())
    close(loss, short + parts["silence"])


def test_pooled_part_is_the_relative_squared_error():
    torch.manual_seed(0)
    pred, (q, goal) = torch.randn(2, 6, 4), torch.randn(2, 2, 5)
    alone, _ = caption_loss(pred, pred)
    loss, parts = caption_loss(pred, pred, pooled=(q, goal))
    close(parts["pooled"], ((q - goal).norm(dim=-1) / goal.norm(dim=-1)).square().mean())
    close(loss, alone + CaptionWeights().pooled * parts["pooled"])


def test_flow_loss_is_the_mean_squared_error():
    velocity = torch.tensor([3.0, 1.0])[:, None, None, None].expand(2, 1, 2, 2)
    loss, parts = flow_loss(velocity, torch.ones(2, 1, 2, 2))
    assert loss == parts["mse"] == 2
    assert parts["each"].tolist() == [4, 0]

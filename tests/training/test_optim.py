"""How the weights of the real model at tiny size are stepped: groups, optimisers, rates."""

import math

import pytest
import torch
from tiny_run import build, tiny

from satjepa.models.backbone import Backbone
from satjepa.training.optim import make_optimizers, make_stepping, parameter_groups


def test_decay_is_for_the_weights_of_layers_only(backbone: Backbone) -> None:
    model = build(backbone, tiny())
    names = {id(p): n for n, p in model.named_parameters()}
    groups = parameter_groups(model)
    assert {n: g["decays"] for n, g in groups.items()} == {
        "hidden": True,
        "decay": True,
        "no_decay": False,
    }
    hidden, decay, free = (
        {names[id(p)] for p in groups[name]["params"]} for name in ("hidden", "decay", "no_decay")
    )
    decayed = hidden | decay
    assert decayed | free == set(model.trainable_names())
    assert len(hidden) + len(decay) + len(free) == len(model.trainable_names())
    assert {n.split(".")[0] for n in hidden} == {"encoder", "predictor", "forecaster", "adapter"}
    assert all(n.endswith("weight") for n in hidden) and "encoder.blocks.0.attn.q.weight" in hidden
    assert all(n.endswith("weight") and "norm" not in n for n in decayed) and any(
        "lora_A" in n for n in decayed
    )
    assert {
        "predictor.mask_token",
        "adapter.null",
        "adapter.streams",
        "forecaster.positions",
    } <= free
    assert (
        "encoder.patches.weight" in decayed
        and "encoder.norm.weight" in free
        and "encoder.patches.bias" in free
    )


def test_muon_moves_the_hidden_matrices_and_adamw_the_rest(backbone: Backbone) -> None:
    model = build(backbone, tiny())
    count = len(model.trainable_names())
    adamw, muon = make_optimizers(model, tiny(train__muon_lr=0.5, train__lr=0.1).train)
    assert type(muon) is torch.optim.Muon and {g["peak_lr"] for g in muon.param_groups} == {0.5}
    assert type(adamw) is torch.optim.AdamW and {g["peak_lr"] for g in adamw.param_groups} == {0.1}
    sizes = [sum(len(g["params"]) for g in optimizer.param_groups) for optimizer in (adamw, muon)]
    assert sizes[1] == len(parameter_groups(model)["hidden"]["params"]) and sum(sizes) == count
    (alone,) = make_optimizers(model, tiny(train__muon_lr=None).train)
    assert sum(len(g["params"]) for g in alone.param_groups) == count


def test_rates_and_decay_follow_their_lines(backbone: Backbone) -> None:
    how = tiny(
        train__steps=9,
        train__warmup=0.2,
        train__lr=0.1,
        train__muon_lr=0.5,
        train__lr_ends=(0.5, 0.2),
        train__weight_decay=(0.04, 0.4),
    ).train
    stepping = make_stepping(build(backbone, tiny()), how)
    rates = [stepping.set_rates(step) for step in range(9)]
    assert rates[0] == pytest.approx(0.1 * (0.5 + 0.5 / 1.8)) and max(rates) == pytest.approx(
        0.1, rel=0.01
    )
    groups = [group for optimizer in stepping.optimizers for group in optimizer.param_groups]
    assert rates[-1] == pytest.approx(0.1 * (0.2 + 0.4 * (1 + math.cos(math.pi * 7.2 / 8.2))))
    assert {group["weight_decay"] for group in groups if group["decays"]} == {0.4}
    assert {group["weight_decay"] for group in groups if not group["decays"]} == {0.0}
    for optimizer, peak in zip(stepping.optimizers, (0.1, 0.5), strict=True):
        assert all(g["lr"] == pytest.approx(rates[-1] / 0.1 * peak) for g in optimizer.param_groups)

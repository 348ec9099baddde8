"""How the weights of the real model at tiny size are stepped: groups, optimisers, rates."""

import math

import pytest
import torch
from tiny_run import build, tiny

from satjepa.models.backbone import Backbone
from satjepa.training.optim import (
    Muon,
    has_bfloat16_units,
    make_optimizers,
    make_stepping,
    orthogonalised,
    parameter_groups,
    step_if,
)


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
    assert {n.split(".")[0] for n in hidden} == {
        "encoder",
        "predictor",
        "forecaster",
        "reader",
        "adapter",
    }
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
    assert isinstance(muon, torch.optim.Muon) and {g["peak_lr"] for g in muon.param_groups} == {0.5}
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


def moved(bfloat16: bool | None, kind: type = Muon) -> tuple[list[torch.Tensor], dict]:
    """Weights and moments of two matrices after three steps of the same gradients."""
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(shape)) for shape in ((24, 8), (8, 24))]
    options = {} if kind is torch.optim.Muon else {"bfloat16": bfloat16}
    optimizer = kind(weights, 0.1, **options)
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.05
    for _ in range(3):
        for weight in weights:
            weight.grad = torch.randn(weight.shape)
        optimizer.step()
    return [w.detach() for w in weights], optimizer.state_dict()["state"]


def test_muon_in_float32_steps_as_in_bfloat16_to_its_rounding() -> None:
    """Three steps of 0.1 each along matrices whose entries are about 0.2: within 0.01."""
    reference, moments = moved(None, torch.optim.Muon)
    exact, own = moved(False)
    same, _ = moved(True)
    for a, b, c in zip(reference, exact, same, strict=True):
        assert torch.equal(a, c)
        torch.testing.assert_close(a, b, atol=1e-2, rtol=0)
        assert not torch.equal(a, b)
    assert own.keys() == moments.keys()
    for i, state in own.items():
        torch.testing.assert_close(state["momentum_buffer"], moments[i]["momentum_buffer"])
    x = torch.randn(24, 8)
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    values = torch.linalg.svdvals(orthogonalised(x, (3.4445, -4.775, 2.0315), 5, 1e-7))
    assert values.min() > 0.5 and values.max() < 1.3
    turned = orthogonalised(x, (3.4445, -4.775, 2.0315), 5, 1e-7)
    assert torch.nn.functional.cosine_similarity(turned.flatten(), (u @ v).flatten(), 0) > 0.95


def test_what_the_cpu_cannot_is_asked_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    assert not has_bfloat16_units() and not Muon([torch.nn.Parameter(torch.ones(2, 2))], 1).bfloat16
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    assert has_bfloat16_units() and Muon([torch.nn.Parameter(torch.ones(2, 2))], 1).bfloat16


def test_a_step_that_is_not_finite_leaves_the_weights_finite() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], 0.1)
    weight.grad = torch.tensor([1.0, torch.nan, 2.0])
    step_if([optimizer], torch.tensor(False))
    assert torch.equal(weight.detach(), torch.ones(3))
    weight.grad = torch.tensor([1.0, 3.0, 2.0])
    step_if([optimizer], torch.tensor(True))
    step_if([optimizer], None)
    torch.testing.assert_close(weight.detach(), torch.tensor([0.8, 0.4, 0.6]))


def test_fused_adamw_leaves_moments_and_weights_of_a_step_that_is_not_finite() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], 0.1, fused=True)
    weight.grad = torch.ones(3)
    step_if([optimizer], torch.tensor(True))
    before = weight.detach().clone()
    moments = {name: value.clone() for name, value in optimizer.state[weight].items()}
    weight.grad = torch.full((3,), torch.nan)
    step_if([optimizer], torch.tensor(False))
    assert torch.equal(weight.detach(), before) and not torch.equal(before, torch.ones(3))
    assert all(torch.equal(optimizer.state[weight][name], value) for name, value in moments.items())

"""Quick forecasts against plain ones: every lever alone, seeds, batch sizes, and what is left
behind.
"""

import dataclasses

import pytest
import torch
from model_fixtures import with_lora
from torch.utils._python_dispatch import TorchDispatchMode

from satjepa.models import joint
from satjepa.models.folding import folded
from satjepa.models.sampling import Levers, RowSizes, row_chunks
from satjepa.training.provenance import hash_module

PLAIN = Levers(guidance=False, fold=False, together=False)


@pytest.mark.parametrize("lever", ["guidance", "fold", "together"])
@pytest.mark.parametrize("seed", [0, 7])
def test_each_lever_gives_the_plain_forecast(model, batch, lever, seed):
    """Float32 on the CPU: within 2e-6 of RGB in [0, 1]."""
    model.params.sample.guidance = 1.5
    model.levers = PLAIN
    plain = model.forecast(batch, 3, seed)
    model.levers = dataclasses.replace(PLAIN, **{lever: True})
    torch.testing.assert_close(model.forecast(batch, 3, seed), plain, atol=2e-6, rtol=0)


def test_the_published_variant_is_forecast_alike(build_published, batch):
    model = build_published().eval()
    quick = model.forecast(batch, 2)
    model.levers = PLAIN
    torch.testing.assert_close(quick, model.forecast(batch, 2), atol=2e-6, rtol=0)


def test_levers_do_what_they_say(model, batch, monkeypatch):
    """Calls of the transformer: 3 steps, 2 halves, 2 samples."""
    calls = []
    model.params.sample.guidance = 1.5
    forward = model.backbone.transformer.forward

    def counted(*args, **named):
        layer = model.backbone.transformer.transformer_blocks[0].attn.to_q
        calls.append((len(args[0]), hasattr(layer, "lora_A")))
        return forward(*args, **named)

    monkeypatch.setattr(model.backbone.transformer, "forward", counted)
    model.forecast(batch, 2)
    assert calls == [(2 * 2 * 4, False)] * 3
    calls.clear()
    model.levers = PLAIN
    model.forecast(batch, 2)
    assert calls == [(4, True)] * 12


def test_memory_bounds_what_is_computed_at_once(model, batch, monkeypatch):
    whole = model.forecast(batch, 3)
    monkeypatch.setitem(joint.ROWS, "cpu", 5)
    torch.testing.assert_close(model.forecast(batch, 3), whole, atol=1e-6, rtol=0)


def test_folding_is_undone_to_the_bit(parts):
    backbone = with_lora(parts, 1)
    transformer = backbone.transformer
    for name, p in transformer.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p.data)
    before = hash_module(transformer)
    address = transformer.transformer_blocks[0].attn.to_q.base_layer.weight.data_ptr()
    with folded(transformer):
        inside = transformer.transformer_blocks[0].attn.to_q
        assert isinstance(inside, torch.nn.Linear) and inside.weight.data_ptr() == address
    assert hash_module(transformer) == before
    with pytest.raises(KeyError), folded(transformer):
        assert hash_module(transformer) != before
        raise KeyError
    assert hash_module(transformer) == before


def test_folded_weights_are_those_of_lora_in_bfloat16_too(parts):
    backbone = with_lora(parts, 1)
    layer = backbone.transformer.transformer_blocks[0].attn.to_q
    layer.base_layer.to(torch.bfloat16)
    torch.nn.init.normal_(layer.lora_B["default"].weight.data)
    base = layer.base_layer.weight.data.float()
    delta = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    expected = (base + layer.scaling["default"] * delta.detach()).bfloat16()
    with folded(backbone.transformer):
        found = backbone.transformer.transformer_blocks[0].attn.to_q.weight.data.clone()
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-2)
    assert (found.float() - base).abs().max() > 0.1


def test_rows_are_padded_to_a_size_that_is_known():
    sizes = RowSizes()
    assert [(r.tolist(), n) for r, n in row_chunks(5, 3, sizes)] == [([0, 1, 2], 3), ([3, 4, 4], 2)]
    assert [(len(r), n) for r, n in row_chunks(2, 3, sizes)] == [(3, 2)]
    assert [(len(r), n) for r, n in row_chunks(2, 3, None)] == [(2, 2)]
    assert sizes.fit(9) == 9 and sizes.fit(4) == 9 and sizes.known == {3, 9}


WAITING = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.lift_fresh.default)


class Transfers(TorchDispatchMode):
    """Counts what would wait for a device, or cannot be captured in a CUDA graph: a number asked
    for, a copy to another device, a tensor made of Python's numbers (`lift_fresh`).
    """

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        copies = func is torch.ops.aten._to_copy.default and (kwargs or {}).get("device")
        if copies or func in WAITING:
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def test_nothing_waits_for_the_device_inside_the_sampler(model, batch):
    """One transfer of the noise levels before the first step, none in any."""
    model.params.sample.guidance = 1.5
    conditions = model.condition(batch)
    noise = torch.randn(4, 16, 4, 4)
    counts = []
    for steps in (1, 5):
        with Transfers() as transfers:
            model.sample(conditions, noise, steps, 1.5)
        counts.append(transfers.names)
    assert counts[0] == counts[1] and len(counts[0]) <= 1
    with Transfers() as transfers:
        torch.ones(3)[0].item()
        torch.tensor([1.0, 2.0])
    assert transfers.names == ["aten::_local_scalar_dense", "aten::lift_fresh"]


def test_nothing_waits_for_the_device_in_a_training_step(model, batch, step):
    from satjepa.training.optim import step_if

    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.0)
    with Transfers() as transfers:
        loss, _ = step(model, batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        step_if([optimizer], norm.isfinite())
        model.update_target(0.9)
        model.average_weights(0.9)
    assert transfers.names == []

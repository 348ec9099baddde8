"""`satjepa.training.loop` and `satjepa.assemble` with `model.variant: published`, as they are."""

import copy
from pathlib import Path

import pytest
import torch

from satjepa import assemble
from satjepa.config import load_params
from satjepa.models.published.model import PublishedSatJepa
from satjepa.models.satjepa import SatJepa
from satjepa.training import checkpoint, provenance
from satjepa.training.loop import train
from satjepa.training.optim import make_stepping
from satjepa.training.run import Interrupted

SMALL = {"dim": 16, "depth": 1, "heads": 2}
TINY = {
    "model.variant": "published", "backbone.layout": None, "data.patch": 32,
    "model.encoder": SMALL | {"patch": 8},
    "model.predictor": SMALL, "model.forecaster": {"dim": 16, "layers": 1, "heads": 2},
    "model.adapter": {"dim": 16, "layers": 1, "heads": 2}, "train.steps": 4, "train.batch": 2,
    "train.log_every": 2, "train.muon_lr": None, "sample.guidance": 1.0,
}  # fmt: skip


def params_of(**changes):
    return load_params(Path(__file__).resolve().parents[3] / "params.yaml", **TINY | changes)


@pytest.fixture
def setting(parts, batch):
    """The parts of a model, and samples in memory."""
    from satjepa.models.backbone import Backbone

    def sample(value, i):
        return {k: sample(v, i) for k, v in value.items()} if isinstance(value, dict) else value[i]

    backbone = Backbone(copy.deepcopy(parts[0]), parts[1]).add_lora(2, 2, ["to_q", "to_v"])

    def build(params):
        torch.manual_seed(1)
        return PublishedSatJepa(params, copy.deepcopy(backbone), parts[2])

    return build, [sample(batch, i) for i in range(len(batch["meta"]))]


@pytest.mark.parametrize(
    "arm", [{}, {"model.use_captions": False, "model.coarse_rgb": 8}], ids=["captions", "coarse"]
)
def test_the_loop_trains_stops_and_goes_on_exactly(setting, tmp_path, arm):
    build, data = setting
    params, (whole, parts) = params_of(**arm), (tmp_path / "whole", tmp_path / "parts")
    model = build(params)
    train(model, data, params, whole, progress=False, split="s")
    with pytest.raises(Interrupted):
        train(build(params), data, params, parts, progress=False, split="s", max_seconds=0)
    torch.rand(3)  # another process has other global random numbers
    train(build(params), data, params, parts, progress=False, split="s")
    for name in ("model/model.safetensors", "log.csv"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
    found = checkpoint.load(whole / "model")
    assert found.tensors["mask_calls"] == 4
    start = build(params)
    idle = [name for name in found.tensors if name.startswith("adapter.temporal_attn.")]
    assert idle and all(torch.equal(found.tensors[name], start.state()[name]) for name in idle)
    restored = provenance.restore(found, start)
    batch = {name: torch.stack([sample[name] for sample in data]) for name in ("rgb_t",)}
    text = {
        name: torch.stack([sample["text_t"][name] for sample in data]) for name in data[0]["text_t"]
    }
    batch |= {"text_t": text, "meta": [sample["meta"] for sample in data]}
    assert torch.equal(restored.forecast(batch), model.forecast(batch))


def test_it_steps_as_published(setting):
    """Seven groups, each clipped by itself, decay that grows; Muon it has not."""
    build, _ = setting
    params = params_of(
        **{"train.weight_decay": [0.04, 0.4], "train.lr_ends": [0.2, 0.01], "train.grad_clip": 1e-3}
    )
    model = build(params)
    stepping = make_stepping(model, params.train)
    wanted = [params.train.lr * share for share in (0.154982, 0.01)]
    assert [stepping.set_rates(step) for step in (2, 3)] == pytest.approx(wanted, rel=1e-4)
    groups = stepping.optimizers[0].param_groups
    assert [group["weight_decay"] for group in groups] == [
        pytest.approx(0.4 * group["decays"]) for group in groups
    ]
    for p in model.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert stepping.clip().item() == pytest.approx(count**0.5, rel=1e-5)
    norms = [
        torch.stack([p.grad.norm() for p in group["params"]]).norm().item() for group in groups
    ]
    assert norms == [pytest.approx(1e-3, rel=1e-2)] * 7
    with pytest.raises(ValueError, match="AdamW alone"):
        make_stepping(model, params_of(**{"train.muon_lr": 0.1}).train)


def test_the_variant_is_chosen_in_params(monkeypatch, parts):
    """One line of `build_model`; all else is told by the model itself."""
    from satjepa.models.backbone import Backbone

    empty = parts[2]

    class Encoders:
        def embed_batch(self, texts, length):
            return tuple(empty[name][None] for name in ("hidden", "mask", "pooled"))

    monkeypatch.setattr(
        assemble, "load_backbone", lambda params: Backbone(copy.deepcopy(parts[0]), parts[1])
    )
    monkeypatch.setattr(assemble, "load_text_encoders", lambda params, device: Encoders())
    for variant, kind in (("published", PublishedSatJepa), ("satjepa", SatJepa)):
        params = params_of(**{"model.variant": variant, "backbone.layout": None})
        model = assemble.build_model(params)
        same = assemble.build_model(params)
        assert type(model) is kind
        assert all(
            torch.equal(p, q) for p, q in zip(model.parameters(), same.parameters(), strict=True)
        )

"""Training of the whole model: what trains, what its loss is made of, and where each gradient
goes.
"""

import pytest
import torch

from satjepa.contracts import SEMANTIC
from satjepa.models.caption_tensors import fitted
from satjepa.models.drops import Chances, Drops, sample_drops

TRAINED_PARTS = {
    "encoder", "past", "predictor", "projection", "readout", "forecaster", "reader", "adapter",
}  # fmt: skip


def test_what_trains_is_pinned(build):
    """Ours but the target encoder, and LoRA on the four projections of each block: not one tensor
    of the backbone.
    """
    names = build().trainable_names()
    lora = {name for name in names if name.startswith("backbone.")}
    assert {name.split(".")[0] for name in set(names) - lora} == TRAINED_PARTS
    blocks = [f"backbone.transformer.transformer_blocks.{i}.attn.{layer}.lora_{m}.default.weight"
              for i in (0, 1) for layer in ("to_q", "to_k", "to_v",
              "to_out.0") for m in "AB"]  # fmt: skip
    assert lora == set(blocks)


def test_all_that_trains_gets_a_gradient_after_two_steps_and_nothing_frozen_moves(
    batch, build, step
):
    model = build()
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    text, tokens = torch.eye(4, dtype=torch.bool)[:2]
    drops = Drops.all(text, False)._replace(text=text, tokens=tokens)
    for i in range(3):
        optimizer.zero_grad()
        step(model, batch, i, drops)[0].backward()
        if i < 2:
            optimizer.step()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    silent = [name for name, p in trained.items() if p.grad is None or not p.grad.any()]
    assert not silent
    assert all(torch.equal(dict(model.named_parameters())[name], p) for name, p in frozen.items())


def test_loss_is_the_weighted_sum_of_its_named_parts(model, batch, step):
    loss, parts = step(model, batch)
    w = {"l1": 20, "cosine": 2, "contrastive": 0.5, "spatial": 2, "feature": 5}
    ijepa = sum(scale * parts[f"ijepa.{name}"] for name, scale in w.items())
    c = {"mse": 1, "cosine": 0.5, "contrastive": 0.1, "pooled": 0.5, "silence": 1}
    caption = sum(scale * parts[f"caption.{name}"] for name, scale in c.items())
    total = ijepa + parts["flow.mse"] + 0.5 * caption + 5 * parts["readout.mse"]
    total = total + 5 * parts["layout.mse"]
    torch.testing.assert_close(loss.detach(), total)
    assert parts["loss"] == loss and not any(part.requires_grad for part in parts.values())


def grads(model, loss):
    model.zero_grad()
    loss.backward()
    return {
        name.split(".")[0]
        for name, p in model.named_parameters()
        if p.grad is not None and p.grad.any()
    }


def test_where_each_gradient_goes(model, batch, step):
    """Diffusion reaches I-JEPA; the caption loss stops at the forecaster; the readout reaches the
    tokens; what is read from words reaches the projection by the sum alone.
    """
    weights = model.params.loss
    for name in ("ijepa", "sd", "caption", "readout", "layout"):
        setattr(weights, name, 0.0)
    assert grads(model, step(model, batch)[0]) == set()
    weights.readout = 1.0
    assert grads(model, step(model, batch)[0]) == {"readout", "encoder", "past", "predictor"}
    weights.readout = 0.0
    weights.caption = 1.0
    assert grads(model, step(model, batch)[0]) == {"forecaster"}
    weights.caption = 0.0
    weights.layout = 1.0
    jepa = {"encoder", "past", "predictor", "projection"}
    assert grads(model, step(model, batch)[0]) == jepa | {"reader"}
    weights.layout = 0.0
    weights.sd = 1.0
    expected = {
        "reader",
        "forecaster",
        "adapter",
        "backbone",
        "encoder",
        "past",
        "predictor",
        "projection",
    }
    assert grads(model, step(model, batch)[0]) == expected


def test_latents_of_the_store_are_those_that_would_be_encoded(model, batch, step):
    with torch.no_grad():
        stored = batch | {"latent_tp1": model.backbone.encode(batch["rgb_tp1"])}
        assert step(model, batch)[0] == step(model, stored)[0]
        assert (
            step(model, batch)[0]
            != step(model, batch | {"latent_tp1": 0 * stored["latent_tp1"]})[0]
        )


def test_invalid_pixels_of_the_target_enter_no_ijepa_loss(model, batch, step):
    valid = batch["valid_tp1"].clone()
    valid[1, :, 8:16, :8] = False
    emb = batch["emb_tp1"].clone()
    emb[1, :, 8:16, :8] = 9.0
    with torch.no_grad():
        (_, clean), (_, dirty) = (
            step(model, batch | {"valid_tp1": v, "emb_tp1": e})
            for v, e in ((valid, batch["emb_tp1"]), (valid, emb))
        )
        _, seen = step(model, batch | {"emb_tp1": emb})
    assert all(
        clean[f"ijepa.{name}"] == dirty[f"ijepa.{name}"]
        for name in ("l1", "cosine", "contrastive", "spatial")
    )
    assert seen["ijepa.l1"] != clean["ijepa.l1"]


def test_drops_have_their_probabilities_and_coincide_by_half():
    drops = sample_drops(40_000, Chances(0.1, 0.2), torch.Generator().manual_seed(0))
    assert drops.text.float().mean() == pytest.approx(0.1, abs=0.01)
    assert drops.tokens.float().mean() == pytest.approx(0.2, abs=0.01)
    assert (drops.text & drops.tokens).float().mean() == pytest.approx(0.05, abs=0.01)


def test_true_captions_and_hidden_quarters_are_drawn_beside_the_drops():
    chances = Chances(0.1, 0.2, truth=0.3, quarter=0.4)
    drops = sample_drops(40_000, chances, torch.Generator().manual_seed(0))
    assert drops.truth.float().mean() == pytest.approx(0.3, abs=0.01)
    assert (drops.truth & drops.text).float().mean() == pytest.approx(0.03, abs=0.005)
    assert drops.quarters.sum(1).max() == 1
    assert drops.quarters.float().mean(0).tolist() == pytest.approx([0.1] * 4, abs=0.01)
    others = sample_drops(40_000, Chances(0.1, 0.2), torch.Generator().manual_seed(0))
    assert torch.equal(others.text, drops.text) and torch.equal(others.tokens, drops.tokens)
    assert not others.truth.any() and not others.quarters.any()


def test_the_true_caption_of_next_year_is_read_where_it_is_drawn(model, batch, step):
    """Another caption of t+1 changes the flow loss of those samples alone, and the caption loss is
    that of the forecast one.
    """
    truth = torch.tensor([True, False, False, False])
    drops = Drops.all(truth, False)._replace(truth=truth)
    assert step(model, batch, 0, drops)[1]["flow.mse"] != step(model, batch, 0)[1]["flow.mse"]
    given = model.with_truth(model.foresee(batch, tokens_of(model, batch)), batch, truth)
    forecast = model.foresee(batch, tokens_of(model, batch))
    true = fitted(batch["text_tp1"], given["mask"].shape[-1])
    for name in given:
        assert torch.equal(given[name][:, :SEMANTIC], forecast[name][:, :SEMANTIC])
        assert torch.equal(given[name][1:], forecast[name][1:])
        assert torch.equal(given[name][0, SEMANTIC], true[name][0, SEMANTIC])
    kept = step(model, batch, 0, drops)[1]
    assert kept["caption.mse"] == step(model, batch, 0)[1]["caption.mse"]


def test_given_captions_lead_a_forecast(model, batch):
    """Only where they are given, each kind alone; the caption that would have been forecast, given,
    changes nothing.
    """
    plain = model.condition(batch)
    where = torch.zeros(4, 3, dtype=torch.bool)
    for kind in range(3):
        where[:] = False
        where[1, kind] = True
        led = model.condition(batch | {"text_given": batch["text_tp1"], "is_given": where})
        moved = (led.context != plain.context).flatten(1).any(1)
        assert moved.tolist() == [False, True, False, False]
        assert torch.equal(led.null_context, plain.null_context)
    own = model.foresee(batch, tokens_of(model, batch))
    same = model.condition(batch | {"text_given": own, "is_given": torch.ones_like(where)})
    torch.testing.assert_close(same.context, plain.context)
    torch.testing.assert_close(same.pooled, plain.pooled)


def tokens_of(model, batch):
    """Tokens of t+1."""
    return model.predict(batch["rgb_t"], model.remember(batch))[0]


def test_target_encoder_follows_the_encoder(model):
    torch.nn.init.ones_(model.encoder.norm.weight)
    torch.nn.init.zeros_(model.target_encoder.norm.weight)
    model.update_target(0.9)
    torch.testing.assert_close(model.target_encoder.norm.weight.data, torch.full((16,), 0.1))


def test_averaged_weights_are_in_force_inside_and_gone_outside(model, batch):
    model.average_weights(0.5)
    before = model.forecast(batch, 1)
    with torch.no_grad():
        model.adapter.stream += 1.0
    trained = model.adapter.stream.clone()
    assert torch.equal(
        model.forecast(batch, 1), before
    )  # forecasts are made with the average, still the old weights
    model.average_weights(0.5)
    with model.averaged():
        torch.testing.assert_close(model.adapter.stream.data, trained - 0.5)
    assert torch.equal(model.adapter.stream, trained)
    assert not torch.equal(model.forecast(batch, 1), before)


def test_state_holds_all_but_the_frozen_backbone_and_restores_the_forecast(model, batch, build):
    model.average_weights(0.9)
    with torch.no_grad():
        model.adapter.stream += 1.0
    state = model.state()
    names = {name for name in state if not name.startswith("average.")}
    assert {name for name in names if name.startswith("backbone.")} == {
        name for name in model.trainable_names() if name.startswith("backbone.")
    }
    assert {name.removeprefix("average.") for name in state.keys() - names} == set(
        model.trainable_names()
    )
    assert any(name.startswith("target_encoder.") for name in names)
    other = build(seed=11)
    other.load_state(state)
    assert torch.equal(other.forecast(batch, 1), model.forecast(batch, 1))
    assert all(torch.equal(value, other.state()[name]) for name, value in state.items())


def test_a_state_of_another_model_is_refused_by_name(model):
    state = model.state()
    del state["adapter.stream"]
    with pytest.raises(ValueError, match=r"adapter\.stream"):
        model.load_state(state | {"adapter.other": torch.zeros(1)})


@torch.no_grad()
def test_past_years_inform_the_tokens_where_they_exist(batch, trained):
    model = trained()
    blank = batch | {"history_valid": torch.zeros_like(batch["history_valid"])}
    alone = model.predict(batch["rgb_t"], None)[0]
    assert torch.equal(model.predict(batch["rgb_t"], model.remember(blank))[0], alone)
    assert not torch.allclose(
        model.predict(batch["rgb_t"], model.remember(batch))[0], alone, atol=1e-4
    )

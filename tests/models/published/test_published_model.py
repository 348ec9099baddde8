"""The published system as a whole on a tiny SD 3: what trains, what its loss is made of, how it
forecasts.
"""

import pytest
import torch
from torch import nn

from satjepa.models.drops import Drops
from satjepa.models.flow import noisy, sample_sigmas
from satjepa.models.published.masks import sample_masks

B = 4
GRID = 4
SIDE = 32
ARMS = {
    "captions": {},
    "coarse": {"use_captions": False, "coarse_rgb": 8},
    "neither": {"use_captions": False},
}


@pytest.fixture
def model(build_published):
    """As after training: what starts at zero has opened; no dropout."""
    model = build_published()
    torch.manual_seed(2)
    for parameter in model.parameters():
        if parameter.requires_grad and not parameter.any():
            nn.init.normal_(parameter.data, std=0.1)
    return model.eval()


@pytest.fixture
def masks():
    return sample_masks(0, B, GRID, generator=torch.Generator().manual_seed(0))


def drawn(seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, 16, 4, 4, generator=g), torch.rand(B, generator=g)


def silent(model):
    return [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    ]


@pytest.mark.parametrize("arm", ARMS)
def test_all_but_the_temporal_block_trains_and_it_forecasts(build_published, batch, step, arm):
    """One and the same loop for the caption-guided and the coarse-RGB system; the latter needs no
    text at all.
    """
    model = build_published(**ARMS[arm])
    if arm != "captions":
        batch = {name: value for name, value in batch.items() if "text" not in name}
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
    for i in range(2):  # what starts at zero lets a gradient through in the second step
        loss, parts = step(model, batch, i)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.isfinite() and parts["flow.each"].shape == (B,)
    kinds = {"loss", "flow", "ijepa"} | ({"caption"} if arm == "captions" else set())
    assert {name.split(".")[0] for name in parts} == kinds
    if arm != "neither":
        assert {name.rsplit("temporal_attn", 1)[0] for name in silent(model)} == {"adapter."}
    assert all(torch.equal(dict(model.named_parameters())[name], p) for name, p in frozen.items())
    images = model.eval().forecast(batch, 2)
    assert (
        images.shape == (2, B, 3, SIDE, SIDE) and images.isfinite().all() and images[0].std() > 0.01
    )
    tokens = {"captions": GRID**2, "coarse": (8 // 4) ** 2, "neither": GRID**2}[arm]
    assert model.condition(batch).context.shape == (B, tokens, 128)


def test_loss_is_the_weighted_sum_of_its_named_parts(model, batch, masks):
    loss, parts = model.loss(batch, *drawn(), masks)
    w = {"l1": 20, "cosine": 2, "contrastive": 0.5, "spatial": 2, "feature": 5}
    ijepa = sum(scale * parts[f"ijepa.{name}"] for name, scale in w.items())
    caption = (
        parts["caption.mse"] + 0.5 * parts["caption.cosine"] + 0.1 * parts["caption.contrastive"]
    )
    total = ijepa + parts["flow.mse"] + 0.1 * parts["flow.ssim"] + 0.5 * caption
    torch.testing.assert_close(loss.detach(), total)
    assert 0 < parts["flow.ssim"] < 2 and not any(part.requires_grad for part in parts.values())


def test_where_each_gradient_goes(model, batch, masks):
    """Diffusion reaches I-JEPA, and the forecaster through the adapter; the caption loss stops at
    the forecaster.
    """
    expected = {"ijepa": {"encoder", "predictor", "projection"}, "caption": {"forecaster"},
                "sd": {"encoder", "predictor", "adapter", "forecaster", "backbone"}}  # fmt: skip
    for chosen, parts in expected.items():
        vars(model.params.loss).update(dict.fromkeys(expected, 0.0) | {chosen: 1.0})
        model.zero_grad()
        model.loss(batch, *drawn(), masks)[0].backward()
        assert {
            n.split(".")[0]
            for n, p in model.named_parameters()
            if p.grad is not None and p.grad.any()
        } == parts


def test_the_ssim_term_is_of_the_target_and_its_reconstruction(model, batch, masks):
    """It does not see the forecast at all: other noise, other masks, the same number."""
    first = model.loss(batch, *drawn(), masks)[1]["flow.ssim"]
    again = model.loss(batch, *drawn(1), sample_masks(1, B, GRID))[1]["flow.ssim"]
    other = model.loss(batch | {"rgb_tp1": batch["rgb_tp1"].flip(-1)}, *drawn(), masks)[1][
        "flow.ssim"
    ]
    assert first == again != other


def test_noise_levels_become_uniform_in_their_order(model):
    drawn = sample_sigmas(20_000, 0.3, 0.8, torch.Generator().manual_seed(0))
    u = model.uniform(drawn)
    assert torch.equal(u.argsort(), drawn.argsort()) and u.min() >= 0 and u.max() <= 1
    assert (
        u.sort().values - torch.linspace(0, 1, 20_000)
    ).abs().max() < 0.015  # Kolmogorov-Smirnov at one in 10^4


def test_a_step_draws_masks_by_call_number_and_uses_uniform_levels_and_whole_batch_drops(
    model, batch
):
    noise, sigma = drawn()
    text = torch.tensor([False, True, False, True])  # geometric
    drops = Drops.all(text, True)._replace(text=text)  # tokens mean nothing
    for call in range(2):
        torch.manual_seed(call)
        loss, parts = model(batch, noise, sigma, drops)
        torch.manual_seed(call)
        masks = sample_masks(call, B, GRID)
        same, _ = model.loss(batch, noise, model.uniform(sigma), masks, ["informative", "semantic"])
        assert loss == same and torch.equal(parts["flow.sigma"], model.uniform(sigma))
        assert loss != model.loss(batch, noise, model.uniform(sigma), masks)[0]
    assert model.mask_calls == 2


def test_the_call_number_is_part_of_the_state(model, build_published):
    model.mask_calls += 7
    other = build_published(seed=5)
    other.load_state(model.state())
    assert other.mask_calls == 7 and torch.equal(
        other.adapter.ijepa_pos_embed, model.adapter.ijepa_pos_embed
    )


def test_several_masks_are_each_with_its_own_tokens_and_the_same_image(model, batch):
    """Two contexts and three targets are six trainings at once (the published code fails on
    them).
    """
    places = torch.rand(5, B, GRID**2, generator=torch.Generator().manual_seed(1)).argsort(
        -1
    )  # 4x4 has few blocks
    seen = places[:2, :, :9]
    asked = places[2:, :, :6]
    with torch.no_grad():
        _, parts = model.loss(batch, *drawn(), (seen, asked))
        alone = [model.loss(batch, *drawn(), (c[None], t[None]))[1] for t in asked for c in seen]
    for name in (
        "flow.mse",
        "flow.each",
        "ijepa.l1",
        "ijepa.feature",
        "caption.mse",
        "caption.cosine",
    ):
        torch.testing.assert_close(parts[name], torch.stack([one[name] for one in alone]).mean(0))
    assert (
        parts["flow.ssim"] == alone[0]["flow.ssim"] and alone[0]["flow.mse"] != alone[1]["flow.mse"]
    )


def test_what_is_invalid_weighs_nothing_in_the_ijepa_loss(model, batch, masks):
    row, column = divmod(masks[1][0, 1, 0].item(), GRID)  # a patch that is asked for in sample 1
    where = (1, slice(None), slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
    valid = batch["valid_tp1"].clone()
    emb = batch["emb_tp1"].clone()
    valid[where], emb[where] = False, 9.0
    cases = ((valid, batch["emb_tp1"]), (valid, emb), (batch["valid_tp1"], emb))
    with torch.no_grad():
        changed = [batch | {"valid_tp1": v, "emb_tp1": e} for v, e in cases]
        clean, dirty, seen = (model.loss(one, *drawn(), masks)[1]["ijepa.l1"] for one in changed)
    assert clean == dirty != seen


def test_a_forecast_is_one_step_from_the_noised_image_whatever_the_settings_say(
    model, batch, monkeypatch
):
    with torch.no_grad():
        c = model.condition(batch)
        start = model.backbone.encode(batch["rgb_t"])
        noise = drawn()[0]
        monkeypatch.setattr("satjepa.models.joint.patch_noise", lambda *_: noise)
        z = noisy(start, noise, 0.35)
        z = z - 0.35 * model.backbone(z, torch.full((B,), 0.35), c.context, c.pooled)
        expected = model.backbone.decode(z)
    for changes in ({"steps": 1}, {"steps": 50}, {"strength": 1.0}, {"strength": 0.35}):
        vars(model.params.sample).update(changes)
        torch.testing.assert_close(model.forecast(batch)[0], expected)
    vars(model.params.sample).update(strength=0.6)
    assert not torch.allclose(model.forecast(batch)[0], expected, atol=1e-3)
    for wrong in ({"guidance": 2.0, "start_latent": start}, {}):
        with pytest.raises(
            ValueError, match="starts from the image of year t, and has no guidance"
        ):
            model.sample(c, noise, 1, **wrong)


def test_a_rollout_takes_its_steps_and_its_anchor(model, batch):
    noise, start, anchor = torch.randn(3, B, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    conditions = model.condition(batch)
    one, four = (model.roll(conditions, noise, steps, start) for steps in (1, 4))
    assert torch.equal(
        one, model.sample(conditions, noise, 4, start_latent=start)
    ) and not torch.allclose(one, four)
    drawn = model.roll(conditions, noise, 4, start, anchor=anchor, share=0.1)
    torch.testing.assert_close(drawn, 0.9 * four + 0.1 * anchor)


def test_what_a_forecast_knows(model, batch):
    """Pixels and captions of t; nothing of t+1, no past years. The semantic pooled vector stays
    that of t.
    """
    known = {name: batch[name] for name in ("rgb_t", "text_t", "meta")}
    base = model.condition(batch)
    assert all(torch.equal(a, b) for a, b in zip(base, model.condition(known), strict=True))
    captions = model.foresee(batch, model.predict(batch["rgb_t"])[0])
    assert torch.equal(captions["semantic"][1], batch["text_t"]["pooled"][:, 2])
    assert torch.equal(captions["geometric"][0], batch["text_t"]["hidden"][:, 1])
    assert not torch.allclose(captions["semantic"][0], batch["text_t"]["hidden"][:, 2], atol=1e-2)
    for i in range(3):
        text = {name: value.clone() for name, value in batch["text_t"].items()}
        text["hidden"][:, i] = text["hidden"][:, i].flip(-1)
        assert not torch.equal(base.context, model.condition(known | {"text_t": text}).context)
    assert not torch.equal(
        base.context, model.condition(known | {"rgb_t": batch["rgb_t"].flip(-1)}).context
    )


def test_ijepa_starts_with_the_same_deviation_at_every_depth(build_published):
    model = build_published(encoder={"patch": 8, "dim": 64, "depth": 3, "heads": 2})
    layers = [
        model.encoder.patches,
        *(m for block in model.encoder.blocks for m in (block.attn.proj, block.mlp[2])),
    ]
    layers += [model.predictor.embed, model.predictor.proj]
    assert all(
        layer.weight.std().item() == pytest.approx(0.02, rel=0.1) and not layer.bias.any()
        for layer in layers
    )
    assert 0 < model.predictor.mask_token.abs().max() < 0.1
    assert torch.equal(model.target_encoder.patches.weight, model.encoder.patches.weight)


def test_wrong_combinations_say_so(build_published):
    for wrong in ({"variant": "satjepa"}, {"use_jepa": False}, {"coarse_rgb": 8}):
        with pytest.raises(ValueError, match="published"):
            build_published(**wrong)

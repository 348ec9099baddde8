"""Strict zero-RGB: what the sampler may see, and that a forecast belongs to a place and not to a
batch.
"""

import pytest
import torch

from satjepa.models.drops import Drops
from satjepa.models.flow import noisy

B = 4
SIDE = 32


def blinded(model, batch, monkeypatch, **sample):
    """Forecast of a batch whose pixels of t turn into noise as soon as the conditions are
    computed.
    """
    conditions = model.condition(batch)
    monkeypatch.setattr(model, "condition", lambda batch: conditions)
    vars(model.params.sample).update(sample)
    noise = torch.rand(batch["rgb_t"].shape, generator=torch.Generator().manual_seed(9))
    seen = model.forecast(batch, 1, seed=5)
    return seen, model.forecast(
        batch | {"rgb_t": noise, "history": batch["history"].flip(-1)}, 1, seed=5
    )


def test_no_pixel_of_t_reaches_the_sampler(model, batch, monkeypatch):
    seen, blind = blinded(model, batch, monkeypatch)
    assert torch.equal(seen, blind)


def test_the_image_initialised_mode_of_the_published_system_fails_that(model, batch, monkeypatch):
    seen, blind = blinded(model, batch, monkeypatch, strength=0.35)
    assert not torch.allclose(seen, blind, atol=1e-3)


def test_conditions_know_pixels_only_through_tokens_and_captions(model, batch, monkeypatch):
    """With tokens and memory held, any image gives the same conditions; without holding them it
    does not.
    """
    base = model.condition(batch)
    pixels = {name: torch.rand(batch[name].shape) for name in ("rgb_t", "history")}
    for name, value in pixels.items():
        changed = model.condition(batch | {name: value})
        assert not torch.equal(changed.context, base.context) and not torch.equal(
            changed.pooled, base.pooled
        )
    memory = model.remember(batch)
    tokens = model.predict(batch["rgb_t"], memory)
    monkeypatch.setattr(model, "predict", lambda rgb, years: tokens)
    monkeypatch.setattr(model, "remember", lambda batch: memory)
    assert all(
        torch.equal(a, b) for a, b in zip(base, model.condition(batch | pixels), strict=True)
    )


def test_the_coarse_rgb_ablation_does_carry_pixels(batch, monkeypatch, trained):
    model = trained(coarse_rgb=8)
    base = model.condition(batch)
    other = batch | {"rgb_t": batch["rgb_t"].flip(-1)}
    tokens = model.predict(batch["rgb_t"], model.remember(batch))
    monkeypatch.setattr(model, "predict", lambda rgb, years: tokens)
    assert not torch.equal(base.context, model.condition(other).context)


def test_nothing_of_the_target_year_is_read_for_a_forecast(model, batch):
    known = {"rgb_t", "valid_t", "text_t", "history", "history_valid", "meta"}
    full = model.forecast(batch, 1)
    assert torch.equal(
        full, model.forecast({key: value for key, value in batch.items() if key in known}, 1)
    )


def test_the_null_conditions_know_nothing(model, batch, other_batch):
    a = model.condition(batch)
    b = model.condition(other_batch)
    assert torch.equal(a.null_context, b.null_context) and torch.equal(a.null_pooled, b.null_pooled)
    assert not torch.equal(a.context, b.context)


def test_a_start_latent_and_a_strength_below_one_come_together(model, batch):
    conditions = model.condition(batch)
    z = torch.randn(B, 16, 4, 4)
    with pytest.raises(ValueError, match="start_latent"):
        model.sample(conditions, z, 2, strength=0.35)
    with pytest.raises(ValueError, match="start_latent"):
        model.sample(conditions, z, 2, start_latent=z)


def test_image_initialised_sampling_is_the_published_step(model, batch):
    """Golden i: one call at 0.35 from 0.65 z(rgb_t) + 0.35 noise, then z - 0.35 v."""
    with torch.no_grad():
        c, (start, noise) = model.condition(batch), torch.randn(2, B, 16, 4, 4)
        z = noisy(start, noise, 0.35)
        expected = z - 0.35 * model.backbone(z, torch.full((B,), 0.35), c.context, c.pooled)
        torch.testing.assert_close(
            model.sample(c, noise, 1, start_latent=start, strength=0.35), expected
        )


def test_a_forecast_does_not_depend_on_batch_size_or_order(model, batch):
    """Within 1e-6: kernels sum in another order at another batch size, so not bit for bit."""
    together = model.forecast(batch, 2, seed=7)
    assert together.shape == (2, B, 3, SIDE, SIDE) and together.dtype == torch.float32
    assert together.min() >= 0 and together.max() <= 1 and together.std() > 0.01

    def take(value, rows):
        if isinstance(value, dict):
            return {key: take(item, rows) for key, item in value.items()}
        return [value[i] for i in rows] if isinstance(value, list) else value[rows]

    alone = torch.cat([model.forecast(take(batch, [i]), 2, seed=7) for i in range(B)], 1)
    torch.testing.assert_close(alone, together, atol=1e-6, rtol=0)
    turned = model.forecast(take(batch, [3, 2, 1, 0]), 2, seed=7).flip(1)
    torch.testing.assert_close(turned, together, atol=1e-6, rtol=0)
    assert (together[0] - together[1]).abs().max() > 1e-3  # samples differ
    assert (model.forecast(batch, 1, seed=8)[0] - together[0]).abs().max() > 1e-3  # seeds differ


def test_guidance_moves_the_forecast(model, batch):
    plain = model.forecast(batch, 1)
    model.params.sample.guidance = 2.0
    assert (model.forecast(batch, 1) - plain).abs().max() > 1e-4


@pytest.mark.parametrize("arm", [{"use_captions": False}, {"use_jepa": False}])
def test_arms_train_and_forecast_without_the_stream_they_lack(batch, arm, trained, step):
    model = trained(**arm)
    del batch["text_t" if arm == {"use_captions": False} else "emb_tp1"]
    loss, named = step(model, batch)
    loss.backward()
    missing = {"caption"} if "use_captions" in arm else {"ijepa", "readout"}
    kinds = {name.split(".")[0] for name in named}
    assert kinds == {"loss", "flow", "ijepa", "readout", "caption"} - missing
    assert model.forecast(batch, 1).isfinite().all()
    lost = "text" if "use_captions" in arm else "tokens"  # the arm is that drop for every sample
    named = Drops.all(batch["rgb_t"], False)._replace(**{lost: torch.ones(B) > 0})
    years = model.remember(batch)
    told = (
        batch,
        *model.predict(batch["rgb_t"], years),
        model.foresee(batch, batch["rgb_t"].new_zeros(B, 16, 16)),
    )
    heard, dropped = (
        model.adapt(*told, drops, years)[0] for drops in (Drops.all(batch["rgb_t"], False), named)
    )
    assert torch.equal(heard, dropped)
    if "use_jepa" in arm:  # the image of t then plays no part at all
        black = batch | {"rgb_t": 0 * batch["rgb_t"]}
        assert torch.equal(model.condition(batch).context, model.condition(black).context)


def test_wrong_combinations_say_so(build):
    with pytest.raises(ValueError, match="published"):
        build(variant="published")
    with pytest.raises(ValueError, match="use_jepa"):
        build(use_jepa=False, coarse_rgb=8)
    with pytest.raises(ValueError, match="9 locations"):
        build(positions=torch.zeros(9, 32))

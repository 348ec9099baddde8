"""Flow matching against the published formulas (golden i), diffusers and closed forms; schedules
(golden l).
"""

import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from satjepa.models.flow import (
    euler,
    from_image,
    guided,
    noisy,
    patch_noise,
    sample_sigmas,
    sigmas,
    velocity_target,
)
from satjepa.models.losses import flow_loss
from satjepa.models.published.model import PublishedSatJepa
from satjepa.training import schedules


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5, check_dtype=False)


def golden(shared, name):
    with safe_open(shared / "reference" / "golden" / name, "pt") as f:
        return {key: f.get_tensor(key) for key in f.keys()}, json.loads(f.metadata()["config"])  # noqa: SIM118


class Toy:
    """The linear stand-ins of golden i, their weights as leaves: VAE, conditioner, velocity."""

    def __init__(self, g, c):
        self.g = g
        self.scale = c["scaling_factor"]
        self.shift = c["shift_factor"]
        self.K, self.A = (g[name].clone().requires_grad_() for name in ("cond.K", "unet.A"))

    def encode(self, rgb):
        z = torch.einsum(
            "kc,bchw->bkhw", self.g["vae.E"], torch.nn.functional.avg_pool2d(2 * rgb - 1, 8)
        )
        return (z - self.shift) * self.scale

    def decode(self, z):
        rgb = torch.einsum("ck,bkhw->bchw", self.g["vae.D"], z / self.scale + self.shift)
        return ((rgb.repeat_interleave(8, 2).repeat_interleave(8, 3) + 1) / 2).clamp(0, 1)

    def velocity(self, tokens):
        context = (tokens @ self.K).mean(1)
        pooled = tokens.mean(1) @ self.g["cond.Q"]
        known = context @ self.g["unet.U"].T + pooled @ self.g["unet.P"].T  # (B,C)

        def velocity(z, sigma):
            rest = known + sigma[:, None] * self.g["unet.w"]
            return torch.einsum("kc,bchw->bkhw", self.A, z) + rest[:, :, None, None]

        return velocity


def test_training_target_and_gradients_are_the_published_ones(shared):
    g, c = golden(shared, "i_flow_matching_and_sampling.safetensors")
    toy, tokens, x0, noise, t = (
        Toy(g, c),
        g["ijepa_tokens"].clone().requires_grad_(),
        *(g[f"train.{name}"] for name in ("x0", "noise", "t")),
    )
    z = noisy(x0, noise, t)
    close(z, g["train.noisy_latents"])
    close(velocity_target(x0, noise), g["train.velocity_target"])
    close(1000 * t, g["train.timestep_passed"])
    loss, _ = flow_loss(toy.velocity(tokens)(z, t), velocity_target(x0, noise))
    loss.backward()
    close(loss.detach(), g["train.mse_loss"])
    close(tokens.grad, g["train.grad_ijepa_tokens"])
    close(toy.K.grad, g["train.grad_cond_K"])
    close(toy.A.grad, g["train.grad_unet_A"])
    error = (toy.velocity(tokens)(z, t) - velocity_target(x0, noise)).detach()
    total, parts = PublishedSatJepa.flow_loss(
        SimpleNamespace(backbone=toy), error, t, x0, g["rgb_tp1"]
    )
    close(toy.decode(x0), g["train.vae_reconstruction"])
    close(parts["ssim"], g["train.ssim_loss"])
    close(total, g["train.total"])


@torch.no_grad()
def test_samplers_from_an_image_are_the_published_ones(shared):
    """One step of length 0.35 (evaluation), K steps and the anchor (rollout): same calls, same
    images.
    """
    g, c = golden(shared, "i_flow_matching_and_sampling.safetensors")
    toy = Toy(g, c)
    noise = g["sample.noise"]
    asked = []

    def sampled(tokens, rows, s, *how):
        asked.clear()

        def velocity(z, sigma):
            asked.append((z, sigma))
            return toy.velocity(tokens)(z, sigma)

        return from_image(velocity, toy.encode(g["rgb_t"])[:rows], noise[:rows], s, *how)

    for name in (key for key in g if key.startswith("sample.single.") and key.endswith(".image")):
        s = float(name.split(".image")[0].split("noise")[1])
        z = sampled(g["ijepa_tokens"], len(noise), s)
        close(toy.decode(z), g[name])
        ((start, sigma),) = asked
        close(start, g[name.replace("image", "start_latents")])
        close(1000 * sigma, g[name.replace("image", "timestep")])
    anchor = toy.encode(g["rgb_tp1"][:1])
    for name in (key for key in g if key.startswith("rollout.") and key.endswith(".image")):
        steps, s, share = (
            float(part) for part in re.findall(r"(?:steps|noise|anchor)([\d.]*\d)", name)
        )
        z = sampled(g["rollout.tokens_after_layernorm"], 1, s, int(steps), anchor, share)
        close(toy.decode(z)[0], g[name])
        if (fed := name.replace("image", "latents_fed_to_model")) in g:
            close(torch.cat([z for z, _ in asked]), g[fed])
            close(
                1000 * torch.cat([sigma for _, sigma in asked]),
                g[name.replace("image", "timesteps_fed_to_model")],
            )


def test_an_anchor_draws_by_its_share_and_none_leaves_the_latent_alone():
    z, noise, anchor = torch.randn(3, 1, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    still = from_image(lambda z, s: 0 * z, z, noise, 0.35, 2)
    close(still, 0.65 * z + 0.35 * noise)
    close(
        from_image(lambda z, s: 0 * z, z, noise, 0.35, 2, anchor, 0.25),
        0.75 * still + 0.25 * anchor,
    )


def test_noising_and_target_are_those_of_diffusers():
    """diffusers' scheduler noises as `noisy` does, and its step with the exact velocity lands on
    x0, as ours does.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    torch.manual_seed(0)
    x0, noise = torch.randn(2, 3, 16, 4, 4)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    index = torch.tensor([10, 500, 999])
    sigma = scheduler.sigmas[index]
    theirs = scheduler.scale_noise(x0, scheduler.timesteps[index], noise)
    close(noisy(x0, noise, sigma), theirs)
    # SD 3's training script, without preconditioning: target = noise - model_input
    close(theirs - sigma[:, None, None, None] * velocity_target(x0, noise), x0)
    close(1000 * sigma, scheduler.timesteps[index])


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_sampler_is_the_one_of_diffusers(shift):
    from diffusers import FlowMatchEulerDiscreteScheduler

    steps = 5
    z = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))

    def velocity(z, sigma):
        return torch.sin(z) * (0.3 + sigma[:, None, None, None])

    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
    close(sigmas(steps, shift), scheduler.sigmas)
    theirs = z
    for t in scheduler.timesteps:
        theirs = scheduler.step(velocity(theirs, t.expand(2) / 1000), t, theirs).prev_sample
    close(euler(velocity, z, sigmas(steps, shift)), theirs)


def test_euler_reaches_x0_in_one_step_when_the_velocity_is_exact():
    x0, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    close(euler(lambda z, s: velocity_target(x0, noise), noise, sigmas(1)), x0)


def test_guidance_goes_along_the_difference_and_scale_one_never_asks_the_unconditional():
    asked = []

    def null(z, sigma):
        asked.append(1)
        return z

    assert guided(lambda z, s: 3 * z, null, 1.0)(torch.ones(1), torch.ones(1)) == 3 and not asked
    assert (
        guided(lambda z, s: 3 * z, null, 2.5)(torch.ones(1), torch.ones(1)) == 1 + 2.5 * 2 and asked
    )


def test_training_sigmas_are_logit_normal():
    s = sample_sigmas(20_000, 0.3, 0.8, torch.Generator().manual_seed(0))
    logit = torch.logit(s)
    assert s.shape == (20_000,) and s.min() > 0 and s.max() < 1
    assert logit.mean() == pytest.approx(0.3, abs=0.02) and logit.std() == pytest.approx(
        0.8, abs=0.02
    )


def test_patch_noise_belongs_to_the_place_and_not_to_the_batch():
    place = {"preset": "strong", "region": "A", "year": 2020, "x": 0, "y": 64}
    others = [
        place | change
        for change in ({"preset": "gentle"}, {"region": "B"}, {"year": 2021}, {"x": 64}, {"y": 0})
    ]
    batch = patch_noise([*others, place], 0, 7, (4, 8, 8))
    alone = patch_noise([place], 0, 7, (4, 8, 8))
    assert torch.equal(batch[5:], alone)
    different = [
        *batch[:5],
        *patch_noise([place], 1, 7, (4, 8, 8)),
        *patch_noise([place], 0, 8, (4, 8, 8)),
    ]
    assert not any(torch.equal(noise, alone[0]) for noise in different)
    assert batch.std() == pytest.approx(1, abs=0.05)


def test_schedules_are_the_published_ones(shared):
    g, c = golden(shared, "l_schedules.safetensors")
    per_epoch = c["iterations_per_epoch"]
    steps = c["steps"]
    total = int(c["ipe_scale"] * c["epochs"] * per_epoch)
    warm = int(c["warmup_epochs"] * per_epoch)
    lr = [
        schedules.warmup_cosine(i + 1, total, warm, c["start_lr"], c["lr"], c["final_lr"])
        for i in range(steps)
    ]
    decay = [
        schedules.cosine(i + 1, total, c["weight_decay"], c["final_weight_decay"])
        for i in range(steps)
    ]
    momentum = [schedules.linear(i, total, *c["ema"]) for i in range(steps)]
    for ours, theirs in ((lr, "lr"), (decay, "weight_decay"), (momentum, "ema_momentum")):
        np.testing.assert_allclose(ours, g[theirs].numpy(), rtol=1e-12)


def test_schedules_stay_at_their_end():
    assert schedules.cosine(30, 20, 1.0, 0.1) == pytest.approx(0.1)
    assert schedules.linear(30, 20, 0.99, 1.0) == 1.0
    assert math.isclose(schedules.warmup_cosine(5, 20, 5, 0.0, 1.0, 0.1), 1.0)

"""SD 3.5 as a forecaster against diffusers' image-to-image pipeline, and against our own model
without I-JEPA.
"""

from pathlib import Path

import pytest
import torch

from satjepa.baselines import sd35
from satjepa.baselines.sd35 import SD35, img2img, img2img_path
from satjepa.models.backbone import Backbone
from satjepa.models.flow import sigmas

SIDE = 32
LENGTH = 6
WIDTH = 128
SHIFT = 3.0


@pytest.fixture(scope="module")
def parts():
    """Real SD 3 classes at toy size, random weights: (transformer, vae)."""
    from satjepa.demo.tiny_sd3 import build_transformer, build_vae

    torch.manual_seed(0)
    transformer = build_transformer(layers=1, heads=2, head_dim=16, side=4)
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.1)  # diffusers starts it at zero
    vae = build_vae((8, 8, 8, 8), SIDE)
    vae.decoder.conv_out.weight.data *= 0.2
    vae.register_to_config(scaling_factor=1.5305, shift_factor=0.0609)
    return transformer.eval(), vae


@pytest.fixture
def backbone(parts):
    return Backbone(*parts, shift=SHIFT)


@pytest.fixture
def pipeline(parts):
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Img2ImgPipeline

    none = {f"{part}{n}": None for part in ("text_encoder", "tokenizer") for n in ("", "_2", "_3")}
    scheduler = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    pipe = StableDiffusion3Img2ImgPipeline(
        transformer=parts[0], vae=parts[1], scheduler=scheduler, **none
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def text(seed, size=None):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(LENGTH) < 4
    hidden = torch.randn(LENGTH, WIDTH, generator=generator) * mask[:, None]
    one = {"hidden": hidden, "mask": mask, "pooled": torch.randn(WIDTH, generator=generator)}
    if size is None:
        return one
    # every caption of every place is another
    scale = 1 + torch.arange(size)[:, None] / 3 + torch.arange(3) / 10  # (size,3)
    return {
        "hidden": scale[..., None, None] * hidden,
        "mask": mask.expand(size, 3, -1),
        "pooled": scale[..., None] * one["pooled"],
    }


def make_batch(size=3, side=SIDE, places=None):
    generator = torch.Generator().manual_seed(3)
    rgb = torch.rand(2, size, 3, side, side, generator=generator)
    metas = [
        {"preset": "p", "region": "R", "year": 2020, "x": 32 * i, "y": 0}
        for i in places or range(size)
    ]
    return {"rgb_t": rgb[0], "rgb_tp1": rgb[1], "text_t": text(1, size), "meta": metas}


def options(hidden, pooled, empty, guidance):
    """What the pipeline is called with; height and width always, for its own default is 1024."""
    called = {"height": SIDE, "width": SIDE, "guidance_scale": guidance}
    called |= {"prompt_embeds": hidden, "pooled_prompt_embeds": pooled}
    if guidance > 1:
        called["negative_prompt_embeds"] = empty["hidden"].expand_as(hidden)
        called["negative_pooled_prompt_embeds"] = empty["pooled"].expand_as(pooled)
    return called


# ---------------------------------------------------------------------- noise levels


STARTS = {
    20: [0.3644, 0.5829, 0.7310, 0.8057, 0.8940],
    28: [0.4093, 0.6022, 0.7371, 0.8143, 0.8959],
    50: [0.4069, 0.6165, 0.7434, 0.8139, 0.9028],
}
RUN = {20: [4, 7, 10, 12, 15], 28: [6, 10, 14, 17, 21], 50: [10, 18, 25, 30, 38]}


@pytest.mark.parametrize("steps", STARTS)
def test_strength_sets_the_start_and_the_number_of_steps(steps):
    paths = [img2img_path(steps, strength, SHIFT) for strength in (0.2, 0.35, 0.5, 0.6, 0.75)]
    assert [path[0].item() for path in paths] == pytest.approx(STARTS[steps], abs=6e-5)
    assert [len(path) - 1 for path in paths] == RUN[steps]


def test_the_lowest_level_is_shifted_twice_as_in_diffusers():
    known = [
        1,
        0.960129,
        0.913349,
        0.857692,
        0.790368,
        0.707278,
        0.602151,
        0.464876,
        0.278049,
        0.008929,
        0,
    ]
    assert img2img_path(10, 1.0, SHIFT).tolist() == pytest.approx(known, abs=1e-6)
    assert sigmas(10, SHIFT)[:2].tolist() != pytest.approx(known[:2], abs=1e-3)


@pytest.mark.parametrize("strength", [0.0, 1.1])
def test_strength_is_above_0_and_at_most_1(strength):
    with pytest.raises(ValueError, match=f"strength {strength}: accepted"):
        img2img_path(10, strength, SHIFT)


# ---------------------------------------------------------------------- the pipeline of diffusers


@torch.no_grad()
@pytest.mark.parametrize(
    ("steps", "strength", "guidance"), [(5, 0.6, 1.0), (7, 0.35, 4.0), (4, 1.0, 1.0)]
)
def test_latents_in_latents_out_as_the_pipeline(backbone, pipeline, steps, strength, guidance):
    model = SD35(backbone, img2img_path(steps, strength, SHIFT), text(2), guidance=guidance)
    hidden, pooled = model.caption(make_batch())
    start = torch.randn(3, 16, 4, 4)
    known = options(hidden, pooled, text(2), guidance)
    theirs = pipeline(
        image=start,
        strength=strength,
        num_inference_steps=steps,
        output_type="latent",
        generator=torch.Generator().manual_seed(5),
        **known,
    ).images
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(5))
    ours = img2img(model.guided(hidden, pooled), start, noise, model.path)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    assert not torch.allclose(ours, start, atol=0.1)


@torch.no_grad()
def test_one_step_from_a_stated_noise_level_as_the_pipeline(backbone, pipeline):
    """The published sampler of Sat-JEPA-Diff. The pipeline shifts the levels it is given, so it is
    given others.
    """
    model = SD35(backbone, sigmas(1, SHIFT, 0.35), text(2))
    assert model.path.tolist() == pytest.approx([0.35, 0])
    hidden, pooled = model.caption(make_batch())
    start = torch.randn(3, 16, 4, 4)
    unshifted = 0.35 / (SHIFT - (SHIFT - 1) * 0.35)
    known = options(hidden, pooled, text(2), 1.0)
    theirs = pipeline(
        image=start,
        strength=1.0,
        sigmas=[unshifted],
        output_type="latent",
        generator=torch.Generator().manual_seed(5),
        **known,
    ).images
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(5))
    ours = img2img(model.guided(hidden, pooled), start, noise, model.path)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


def test_a_forecast_is_the_image_of_the_pipeline(backbone, pipeline, monkeypatch):
    """Image in, image out, but for one thing: our latent of year t is the posterior's mean, theirs
    a draw from it.
    """
    model = SD35(backbone, img2img_path(5, 0.6, SHIFT), text(2))
    batch = make_batch()
    generators = [torch.Generator().manual_seed(i) for i in range(3)]
    noise = torch.stack(
        [torch.randn(16, 4, 4, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    )
    monkeypatch.setattr(sd35, "patch_noise", lambda *_: noise)
    hidden, pooled = model.caption(batch)
    theirs = pipeline(
        image=backbone.encode(batch["rgb_t"]),
        strength=0.6,
        num_inference_steps=5,
        output_type="pt",
        generator=generators,
        **options(hidden, pooled, text(2), 1.0),
    ).images
    torch.testing.assert_close(model.forecast(batch)[0], theirs, rtol=0, atol=1e-5)


# ---------------------------------------------------------------------- as a forecaster


def test_a_forecast_depends_on_seed_sample_and_place_alone(backbone):
    model = SD35(backbone, img2img_path(5, 0.6, SHIFT), text(2), guidance=2.0)
    batch = make_batch()
    images = model.forecast(batch, 2, 7)
    assert images.shape == (2, 3, 3, SIDE, SIDE) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1
    alone = {k: v[1:2] for k, v in batch.items() if k != "text_t"}
    alone["text_t"] = {k: v[1:2] for k, v in batch["text_t"].items()}
    torch.testing.assert_close(model.forecast(alone, 2, 7), images[:, 1:2], rtol=0, atol=1e-5)
    others = [
        model.forecast(batch, 1, 8),
        model.forecast(batch | {"meta": make_batch(places=[7, 8, 9])["meta"]}, 1, 7),
    ]
    assert not any(
        torch.allclose(other[0], images[0], atol=1e-3) for other in [*others, images[1:]]
    )


def test_it_is_given_the_semantic_caption_or_the_prompt(backbone):
    captioned, prompted = (SD35(backbone, sigmas(2), text(2), prompt) for prompt in (None, text(5)))
    batch = make_batch()
    for i, given in ((0, False), (1, False), (2, True)):
        changed = {k: v.clone() for k, v in batch["text_t"].items()}
        changed["hidden"][:, i] = text(9)["hidden"]
        other = batch | {"text_t": changed}
        assert torch.equal(captioned.forecast(batch), captioned.forecast(other)) != given
        assert torch.equal(prompted.forecast(batch), prompted.forecast(other))
    del batch["text_t"]  # a prompt needs no captions
    hidden, pooled = prompted.caption(batch)
    assert all(torch.equal(row, text(5)["hidden"]) for row in hidden)
    assert torch.equal(pooled[2], text(5)["pooled"])


def test_pure_noise_does_not_see_year_t_and_a_start_from_it_does(backbone):
    batch = make_batch()
    other = batch | {"rgb_t": 1 - batch["rgb_t"]}
    for strength, blind in ((1.0, True), (0.6, False)):
        model = SD35(backbone, img2img_path(5, strength, SHIFT), text(2))
        assert torch.equal(model.forecast(batch), model.forecast(other)) == blind


def test_images_can_be_drawn_at_another_size(backbone, monkeypatch):
    drawn = []
    batch = make_batch(side=16)
    encode = backbone.encode
    monkeypatch.setattr(backbone, "encode", lambda rgb: drawn.append(rgb) or encode(rgb))
    images = SD35(backbone, img2img_path(2, 0.5, SHIFT), text(2), work_size=SIDE).forecast(batch)
    assert images.shape == (1, 3, 3, 16, 16)
    assert drawn[0].shape == (3, 3, SIDE, SIDE)
    assert drawn[0].min() >= 0 and drawn[0].max() <= 1


def test_layout_tokens_are_of_one_size(backbone):
    with pytest.raises(ValueError, match="work_size must be 0"):
        SD35(
            backbone, sigmas(1), text(2), layout={"positions": torch.zeros(16, 32)}, work_size=SIDE
        )


# ---------------------------------------------------------------------- the tuned row


def tuned(parts, **changes):
    import copy

    backbone = Backbone(copy.deepcopy(parts[0]), parts[1], SHIFT)
    return SD35(
        backbone.add_lora(2, 2, ["to_q", "to_k", "to_v", "to_out.0"]), sigmas(2), text(2), **changes
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_only_lora_trains_and_it_learns(parts, backbone):
    assert not [p for p in SD35(backbone, sigmas(2), text(2)).parameters() if p.requires_grad]
    model = tuned(parts, caption_dropout=0.0)
    batch = make_batch()
    before = model.loss(batch, generator(), 0)[0].item()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    optimizer = torch.optim.Adam(trained.values(), 1e-2)
    for step in range(8):
        optimizer.zero_grad()
        loss = model.loss(batch, generator(), step)[0]
        loss.backward()
        optimizer.step()
    assert not [name for name, p in trained.items() if not p.grad.any()]
    assert loss < before


@torch.no_grad()
def test_loss_is_that_of_flow_matching_on_year_t_plus_1(parts):
    model = tuned(parts, timesteps=(0.5, 2.0), caption_dropout=0.5)
    batch = make_batch(8)
    draw = generator(4)
    x0 = model.backbone.encode(batch["rgb_tp1"])
    noise = torch.randn(x0.shape, generator=draw)
    sigma = torch.sigmoid(0.5 + 2 * torch.randn(8, generator=draw))
    mute = torch.rand(8, generator=draw) < 0.5
    assert 0 < mute.sum() < 8
    hidden, pooled = (batch["text_t"][name][:, 2].clone() for name in ("hidden", "pooled"))
    hidden[mute], pooled[mute] = text(2)["hidden"], text(2)["pooled"]
    z = (1 - sigma.view(-1, 1, 1, 1)) * x0 + sigma.view(-1, 1, 1, 1) * noise
    error = model.backbone(z, sigma, hidden, pooled) - (noise - x0)
    loss = model.loss(batch, generator(4), 0)[0]
    torch.testing.assert_close(loss, error.square().mean())
    assert model.loss(batch | {"latent_tp1": x0}, generator(4), 0)[0] == loss
    assert model.loss(batch | {"latent_tp1": 2 * x0}, generator(4), 0)[0] != loss


# ---------------------------------------------------------------------- the demo's tiny backbone


def test_zero_shot_is_our_model_without_jepa_before_any_training():
    """The tiny backbone is given what it was pre-trained on as "caption only", to the bit."""
    from safetensors.torch import load_file

    from satjepa.assemble import build_model, load_backbone, load_text_encoders, local
    from satjepa.config import load_params

    sampler = {"sample.steps": 3, "sample.strength": 0.5, "sample.guidance": 1.0}
    params = load_params(**{"model.use_jepa": False}, **sampler)
    batch = make_batch(2, 64)
    texts = ["", "", "Forest.", "Forest with farmland.", "", "Water.", "Town with water."]
    hidden, mask, pooled = load_text_encoders(params).embed_batch(texts, params.captions.max_length)
    words = {"hidden": hidden, "mask": mask, "pooled": pooled}
    batch["text_t"] = {name: value[1:].unflatten(0, (2, 3)) for name, value in words.items()}
    empty = {name: value[0] for name, value in words.items()}
    layout = load_file(Path(local(params.backbone.layout)) / "layout.safetensors")
    backbone = load_backbone(params, lora=False)
    model = SD35(backbone, sigmas(3, backbone.shift, 0.5), empty, layout=layout)
    ours = build_model(params).forecast(batch, 2, 7)
    torch.testing.assert_close(model.forecast(batch, 2, 7), ours, rtol=0, atol=1e-5)
    muted = SD35(backbone, model.path, empty, empty, layout=layout)
    assert not torch.allclose(muted.forecast(batch, 2, 7), ours, atol=1e-2)

"""MCVD against the golden vectors of its reference, its published sizes, and as a forecaster."""

import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

from satjepa.baselines import mcvd
from satjepa.baselines.mcvd import MCVD
from satjepa.baselines.mcvd_net import (
    Attention,
    Block,
    Denoiser,
    NormAct,
    fir_down,
    fir_up,
    time_embedding,
)
from satjepa.baselines.mcvd_sampling import abar, sample

LAYERS = {
    "Conv_0": "conv0",
    "Conv_1": "conv1",
    "Conv_2": "short",
    "GroupNorm_0": "norm",
    "NIN_0": "q",
    "NIN_1": "k",
    "NIN_2": "v",
    "NIN_3": "out",
    "actnorm0": "norm0",
    "actnorm1": "norm1",
    "Dense_0": "adapt",
    "mlp_gamma": "gamma",
    "mlp_beta": "beta",
    "W": "weight",
    "b": "bias",
}


def golden(shared, name):
    with safe_open(shared / "baselines/golden" / f"{name}.safetensors", "pt") as f:
        tensors = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118 (no dict)
        return tensors, json.loads(f.metadata().get("config", "{}"))


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance * max(1, b.abs().max().item()))


def published_order(net: Denoiser) -> list[str]:
    """Names of the modules that the published code numbers, in its order."""
    kinds = (nn.Linear, nn.Conv2d, Block, Attention, NormAct)
    names = []
    for name, module in net.named_modules():
        inside = any(name.startswith(f"{block}.") for block in names)
        if isinstance(module, kinds) and (isinstance(module, Attention) or not inside):
            names.append(name)
    return names


def our_name(key: str, order: list[str]) -> str:
    """param/unet.all_modules.{i}.{layer}.weight -> the name of the same tensor in `Denoiser`."""
    i, *layers = key.removeprefix("param/unet.all_modules.").split(".")
    if layers[0] == "Norm_0" and not layers[1].startswith("mlp"):
        layers[0] = "norm"  # the affine group norm of the head
    short = ".".join(LAYERS.get(layer, layer) for layer in layers if layer != "Norm_0")
    return f"{order[int(i)]}.{short}".replace("mlp_shared.0", "shared")


@pytest.fixture(params=["mcvd_concat", "mcvd_spade"])
def reference(request, shared):
    """(golden tensors, our network with their weights)."""
    g, c = golden(shared, request.param)
    spade_dim = c["spade_dim"] if c["spade"] else 0
    assert c["n_head_channels"] == c["ngf"]
    model = MCVD(
        c["image_size"],
        c["ngf"],
        c["ch_mult"],
        c["num_res_blocks"],
        c["attn_resolutions"],
        spade_dim,
    )
    order = published_order(model.net)
    assert len(order) == len(g["output/trace_shapes"])
    weights = {
        our_name(key, order): value.T if key.endswith(".W") else value
        for key, value in g.items()
        if key.startswith("param/")
    }
    model.net.load_state_dict(weights)
    return g, model.eval()


@torch.no_grad()
def test_noise_and_loss_are_those_of_the_reference(reference):
    g, model = reference
    close(model.net(g["input/x_noisy"], g["input/labels"], g["input/cond"]), g["output/eps"])
    kept = torch.ones(2, dtype=torch.bool)
    error = model.error(g["input/x0"], g["input/z"], g["input/labels"], g["input/cond"], kept)
    close(error.square().sum() / 2 / len(error), g["output/dsm_loss"][0])


@torch.no_grad()
@pytest.mark.parametrize("denoise", ["none", "reference"])
@pytest.mark.parametrize(("sampler", "tolerance"), [("ddpm", 1e-5), ("ddim", 1e-4)])
def test_samples_are_those_of_the_reference(reference, sampler, tolerance, denoise):
    g, model = reference
    noise = (lambda i: g["input/step_noise"]) if sampler == "ddpm" else None
    eps = model.eps(g["input/cond"])
    expected = g[f"output/{sampler}10_denoise{int(denoise == 'reference')}"]
    close(sample(eps, g["input/xT"], 10, noise, denoise=denoise), expected, tolerance)


def test_resampling_time_and_levels_are_those_of_the_reference(shared):
    g, _ = golden(shared, "units")
    close(fir_down(g["input/fir_x"]), g["output/fir_down"], 1e-6)
    close(fir_up(g["input/fir_x"]), g["output/fir_up"], 1e-6)
    close(time_embedding(g["input/temb_t"], 16), g["output/temb_16"], 1e-6)
    close(abar().float(), g["output/alphas"], 1e-6)


def test_time_embedding_of_odd_width_ends_in_zero():
    assert time_embedding(torch.tensor([3, 7]), 9).shape == (2, 9)
    assert not time_embedding(torch.tensor([3, 7]), 9)[:, -1].any()


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (116_520_579, {}),
        (5_235_267, {"width": 32, "blocks": 1}),
        (173_148_419, {"spade_dim": 128}),
        (7_795_491, {"width": 32, "blocks": 1, "spade_dim": 32}),
        (119_633_667, {"mask_embedding": True}),
        (116_524_035, {"history": 1}),
    ],
)
def test_sizes_are_the_published_ones(count, sizes):
    with torch.device("meta"):
        assert sum(p.numel() for p in MCVD(128, **sizes).parameters()) == count


def place(i):
    return {"preset": "p", "region": "R", "year": 2020, "x": 16 * i, "y": 0, "aug": 0}


def make_batch(size=3, history=2):
    generator = torch.Generator().manual_seed(4)
    frames = torch.rand(size, 2 + history, 3, 16, 16, generator=generator)
    valid = torch.ones(size, 1, 16, 16, dtype=torch.bool)
    return {
        "rgb_t": frames[:, 0],
        "rgb_tp1": frames[:, 1],
        "valid_t": valid,
        "valid_tp1": valid.clone(),
        "history": frames[:, 2:],
        "history_valid": torch.ones(size, history, dtype=torch.bool),
        "meta": [place(i) for i in range(size)],
    }


def small(lively=True, **options):
    """A toy MCVD; `lively`: as after training, its outputs not close to zero."""
    torch.manual_seed(0)
    model = MCVD(16, 8, (1, 2), 1, (8,), **{"steps": 4} | options)
    if lively:
        for name, p in model.named_parameters():
            if name.split(".")[-2] in ("conv1", "conv_out", "out"):
                nn.init.normal_(p, std=0.2)
    return model


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def test_it_starts_by_saying_that_there_is_no_noise():
    model = small(lively=False)
    batch = make_batch(16)
    assert (
        model.net(torch.randn(2, 3, 16, 16), torch.tensor([3, 977]), torch.randn(2, 3, 16, 16))
        .abs()
        .max()
        < 1e-4
    )
    loss, parts = model.loss(batch, generator(), 0)
    assert loss == pytest.approx(0.5 * 3 * 16 * 16, rel=0.05)
    assert parts["mse"] == pytest.approx(1, rel=0.05)


def test_weights_start_with_the_variance_of_the_mean_of_their_fans():
    net = Denoiser(16, 3, 3, 64, (1, 2), 1, (8,))
    variances = {
        "conv_in": 1 * 2 / (9 * 70),
        "time.0": 2 / (64 + 256),
        "down.0.conv1": 1e-10 * 2 / (9 * 128),
        "middle.0.attention.q": 0.1 / 128,
        "middle.0.attention.out": 1e-10 / 128,
    }
    for name, variance in variances.items():
        assert net.get_submodule(name).weight.var().item() == pytest.approx(variance, rel=0.15), (
            name
        )
    assert not any(
        p.any()
        for name, p in net.named_parameters()
        if name.endswith("bias") and "norm" not in name
    )


@torch.no_grad()
def test_loss_is_the_sum_over_valid_pixels_of_what_the_generator_draws():
    model = small()
    batch = make_batch()
    draw = generator(5)
    batch["valid_t"][0, :, :4] = False
    batch["valid_tp1"][1, :, 8:] = False
    labels = torch.randint(1000, (3,), generator=draw)
    noise = torch.randn(3, 3, 16, 16, generator=draw)
    error = model.error(
        2 * batch["rgb_tp1"] - 1, noise, labels, model.past(batch), torch.ones(3).bool()
    )
    sums = [error[0, :, 4:].square().sum(), error[1, :, :8].square().sum(), error[2].square().sum()]
    loss, parts = model.loss(batch, generator(5), 7)
    torch.testing.assert_close(loss, sum(sums) / 6)
    torch.testing.assert_close(parts["mse"], sum(sums) / (3 * 16 * (12 + 8 + 16)))


@torch.no_grad()
@pytest.mark.parametrize("spade_dim", [0, 4])
def test_a_masked_past_is_a_past_of_zeros_and_masks_have_their_probability(spade_dim):
    never = small(spade_dim=spade_dim)
    always = small(spade_dim=spade_dim, mask=1.0)
    batch = make_batch()
    grey = batch | {"rgb_t": torch.full_like(batch["rgb_t"], 0.5)}
    masked = always.loss(batch, generator(), 0)[0]
    assert masked == never.loss(grey, generator(), 0)[0]
    assert masked != never.loss(batch, generator(), 0)[0]
    half = small(mask=0.3)
    kept = []
    half.error = lambda x0, noise, labels, past, k: kept.append(k) or x0
    half.loss(make_batch(400), generator(), 0)
    assert (~kept[0]).float().mean() == pytest.approx(0.3, abs=0.06)


@torch.no_grad()
def test_the_mask_embedding_tells_a_masked_past_from_a_grey_one():
    net = small(mask_embedding=True).net
    x = torch.randn(2, 3, 16, 16)
    labels = torch.tensor([3, 500])
    grey = torch.zeros(2, 3, 16, 16)
    kept = torch.ones(2, dtype=torch.bool)
    assert torch.equal(net(x, labels, grey), net(x, labels, grey, kept))
    assert not torch.allclose(net(x, labels, grey), net(x, labels, grey, ~kept))


def test_the_past_is_told_oldest_first_and_what_is_unknown_is_grey():
    batch = make_batch()
    batch["history_valid"][0, 1] = False
    batch["valid_t"][1, :, :8] = False
    past = small(history=2).past(batch)
    assert past.shape == (3, 9, 16, 16)
    assert not past[0, :3].any() and not past[1, 6:, :8].any()
    torch.testing.assert_close(past[1, :3], 2 * batch["history"][1, 1] - 1)
    torch.testing.assert_close(past[1, 3:6], 2 * batch["history"][1, 0] - 1)
    torch.testing.assert_close(past[2, 6:], 2 * batch["rgb_t"][2] - 1)
    torch.testing.assert_close(small().past(batch), past[:, 6:])


@pytest.mark.parametrize(
    "options", [{"history": 2}, {"sampler": "ddim"}, {"spade_dim": 4, "dropout": 0.5}], ids=str
)
def test_a_forecast_depends_on_seed_sample_and_place_alone(options):
    model = small(**options).train()
    batch = make_batch()
    images = model.forecast(batch, 2, 7)
    assert images.shape == (2, 3, 3, 16, 16)
    assert images.min() >= 0 and images.max() <= 1 and images.std() > 0.1
    assert model.training  # as it was
    alone = {k: v[1:2] for k, v in batch.items()}
    torch.testing.assert_close(model.forecast(alone, 2, 7), images[:, 1:2], rtol=0, atol=5e-4)
    assert not torch.allclose(images[0], images[1], atol=1e-2)
    assert not torch.allclose(model.forecast(batch, 1, 8)[0], images[0], atol=1e-2)
    elsewhere = batch | {"meta": [place(i + 9) for i in range(3)]}
    assert not torch.allclose(model.forecast(elsewhere, 1, 7)[0], images[0], atol=1e-2)


def test_each_step_of_each_sample_has_its_own_noise(monkeypatch):
    """x starts as the same noise as that of any other row; the noise of a step is nobody's else."""
    numbers = []

    def noise(metas, sample, seed, shape):
        numbers.append(sample)
        return torch.zeros(len(metas), *shape)

    monkeypatch.setattr(mcvd, "patch_noise", noise)
    small().forecast(make_batch(), 3)
    assert numbers[::4] == [0, 1, 2]
    assert len(numbers) == len(set(numbers)) == 3 * 4


def test_what_the_sampler_makes_becomes_an_image_in_0_to_1(monkeypatch):
    made = torch.tensor([-3.0, -1, 0, 0.5, 1, 3])
    monkeypatch.setattr(mcvd, "sample", lambda *_: made)
    assert small().forecast(make_batch())[0].tolist() == [0, 0, 0.5, 0.75, 1, 1]


def test_two_steps_of_training_reach_every_weight():
    model = small(lively=False, history=2)
    batch = make_batch()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(3):
        optimizer.zero_grad()
        model.loss(batch, generator(step), step)[0].backward()
        optimizer.step()
    assert not [name for name, p in model.named_parameters() if not p.grad.any()]

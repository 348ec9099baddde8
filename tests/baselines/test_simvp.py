"""SimVP against the reference's golden vectors and its published sizes."""

import pytest
import torch
from golden import agree, gradient_norm, load, read

from satjepa.baselines.simvp import SimVP, drop_path, drop_rates

NAMES = {
    "enc.enc": "encoder",
    "hid.encoder": "translator",
    "dec.dec": "decoder",
    "dec.readout": "readout",
    "conv.conv.0": "conv",
    "conv.conv": "conv",
    "conv.norm": "norm",
    "block.": "",
    "reduction": "project",
    "attn.proj_1": "enter",
    "attn.proj_2": "leave",
    "attn.spatial_gating_unit.conv0": "near",
    "attn.spatial_gating_unit.conv_spatial": "far",
    "attn.spatial_gating_unit.conv1": "gate",
    "layer_scale_": "scale",
    "mlp.fc1": "mlp.0",
    "mlp.dwconv.dwconv": "mlp.1",
    "mlp.fc2": "mlp.3",
}
SIZES = {"hid_s": 8, "hid_t": 16, "n_s": 2, "n_t": 3}


def golden(shared) -> tuple[SimVP, dict, dict]:
    tensors, inputs, outputs = read(shared, "simvp_ns2_t1")
    tensors = {name.replace("hid.enc.", "hid.encoder."): value for name, value in tensors.items()}
    return load(SimVP(**SIZES, drop_path=None), tensors, NAMES), inputs, outputs


def test_in_eval_mode(shared):
    model, inputs, outputs = golden(shared)
    model.eval()
    parts = {f"enc{i}": unit for i, unit in enumerate(model.encoder)}
    parts |= {f"trans{i}": stage for i, stage in enumerate(model.translator)}
    parts |= {f"dec{i}": unit for i, unit in enumerate(model.decoder)}
    seen = {}
    for name, part in parts.items():
        part.register_forward_hook(lambda part, args, out, name=name: seen.__setitem__(name, out))
    first = model.translator[0]
    first.project.register_forward_hook(
        lambda part, args, out: seen.__setitem__("trans0_block", args[0])
    )
    first.norm1.register_forward_hook(
        lambda part, args, out: seen.__setitem__("trans0_attn", first.attention(out))
    )
    assert agree(model(inputs["x"]), outputs["pred_eval"])
    assert {f"trace_{name}" for name in seen} == {
        name for name in outputs if name.startswith("trace")
    }
    assert all(agree(value, outputs[f"trace_{name}"]) for name, value in seen.items())


def test_in_train_mode(shared):
    model, inputs, outputs = golden(shared)
    image = model(inputs["x"])
    loss = (image - inputs["y"]).square().mean()
    assert agree(image, outputs["pred_train"]) and agree(loss, outputs["loss_train"])
    assert agree(gradient_norm(loss, model), outputs["gradnorm_train"])
    norm = model.translator[0].norm1
    assert agree(norm.running_mean, outputs["bn0_running_mean_after"])
    assert agree(norm.running_var, outputs["bn0_running_var_after"])


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (7_127_875, {}),
        (37_969_667, {"hid_t": 512, "n_s": 4, "n_t": 8}),
        (10_097_923, {"n_s": 4, "n_t": 8}),
        (1_206_403, {"hid_s": 32, "hid_t": 128, "n_s": 4, "n_t": 4}),
        (320_323, {"hid_s": 16, "hid_t": 64, "n_s": 4, "n_t": 4}),
        (
            46_769_665,
            {"hid_t": 512, "n_s": 4, "n_t": 8, "history": 9, "colours": 1},
        ),  # Moving-MNIST, 10 frames
        (15_634_243, {"history": 9}),  # KittiCaltech
        (9_961_058, {"hid_s": 32, "hid_t": 256, "n_t": 8, "history": 3, "colours": 2}),  # TaxiBJ
    ],
)
def test_published_sizes(count: int, sizes: dict):
    with torch.device("meta"):
        model = SimVP(**sizes)
    assert sum(p.numel() for p in model.parameters()) == count


def test_drop_path_rates_start_at_a_hundredth_whatever_is_asked():
    assert drop_rates(6, 0.0) == pytest.approx([0.01, 0.008, 0.006, 0.004, 0.002, 0.0], abs=1e-6)
    assert drop_rates(6, 0.2) == pytest.approx([0.01, 0.048, 0.086, 0.124, 0.162, 0.2], abs=1e-6)
    assert drop_rates(3, None) == [0.0] * 3
    assert [stage.rate for stage in SimVP(**SIZES, drop_path=0.2).translator] == drop_rates(3, 0.2)


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    kept = drop_path(torch.ones(4000, 1, 2, 2), 0.25).flatten(1)
    assert set(kept.unique().tolist()) == {0.0, float(torch.tensor(1.0) / 0.75)}
    assert (kept == kept[:, :1]).all() and kept.mean().item() == pytest.approx(1, abs=0.03)


def test_drop_path_is_for_training_alone():
    torch.manual_seed(0)
    model = SimVP(**SIZES, drop_path=0.9)
    frames = torch.rand(2, 1, 3, 16, 16)
    with torch.no_grad():
        for stage in model.translator:
            stage.scale1 += 1
        model(frames)
        assert not torch.equal(model(frames), model(frames))
        model.eval()
        assert torch.equal(model(frames), model(frames))


def test_initialisation():
    torch.manual_seed(0)
    model = SimVP(hid_s=32, hid_t=128)
    stage = model.translator[1]
    spreads = {
        model.encoder[1].conv: 0.02,
        stage.enter: (2 / 128) ** 0.5,
        stage.near: (2 / 25) ** 0.5,
        stage.far: (2 / 49) ** 0.5,
        stage.mlp[0]: (2 / 1024) ** 0.5,
        stage.mlp[1]: (2 / 9) ** 0.5,
    }
    for layer, spread in spreads.items():
        assert layer.weight.std().item() == pytest.approx(spread, rel=0.1)
        assert (layer.bias == 0).all()
    assert (stage.scale1 == 0.01).all() and (stage.scale2 == 0.01).all()
    assert model.translator[0].project.weight.abs().max().item() == pytest.approx(
        32**-0.5, rel=0.05
    )  # torch's own
    assert model.readout.bias.abs().max() > 0


@pytest.mark.parametrize("sizes", [{"n_s": 3}, {"n_s": 0}, {"n_t": 1}])
def test_sizes_that_the_reference_would_change_silently_are_refused(sizes: dict):
    with pytest.raises(ValueError, match="n_s must be even"):
        SimVP(**SIZES | sizes)


def test_with_history_the_first_frame_out_counts_and_missing_years_are_filled():
    torch.manual_seed(0)
    model = SimVP(**SIZES, drop_path=None, history=2).eval()
    rgb = torch.rand(2, 3, 16, 16)
    past = torch.rand(2, 2, 3, 16, 16) + 0.01
    past[0, 1] = 0
    valid = torch.ones(2, 1, 16, 16, dtype=torch.bool)
    there = torch.tensor([[True, False], [True, True]])
    batch = {"rgb_t": rgb, "valid_t": valid, "history": past, "history_valid": there}
    clips = torch.stack(
        [
            torch.stack([past[0, 0], past[0, 0], rgb[0]]),
            torch.stack([past[1, 1], past[1, 0], rgb[1]]),
        ]
    )
    with torch.no_grad():
        assert torch.allclose(model.predict(batch), model(clips)[:, 0], atol=1e-6)
    image = model.forecast(batch, samples=2)
    assert image.shape == (2, 2, 3, 16, 16) and torch.equal(image[0], image[1])
    assert torch.allclose(image[0], model.predict(batch).detach().clamp(0, 1), atol=1e-6)


def test_loss_is_over_the_pixels_valid_in_both_years():
    torch.manual_seed(0)
    model = SimVP(**SIZES, drop_path=None).eval()
    g = torch.Generator().manual_seed(1)
    batch = {name: torch.rand(2, 3, 16, 16, generator=g) for name in ("rgb_t", "rgb_tp1")}
    batch |= {
        name: torch.rand(2, 1, 16, 16, generator=g) > 0.3 for name in ("valid_t", "valid_tp1")
    }
    batch |= {
        "history": torch.zeros(2, 0, 3, 16, 16),
        "history_valid": torch.zeros(2, 0, dtype=torch.bool),
    }
    both = (batch["valid_t"] & batch["valid_tp1"]).expand(-1, 3, -1, -1)
    with torch.no_grad():
        squared = (model.predict(batch) - batch["rgb_tp1"]).square()[both]
        assert model.loss(batch, g, 0)[0].item() == pytest.approx(squared.mean().item(), rel=1e-5)

"""The backbone: one way in for the tiny and the big one, frozen, with a LoRA that starts as
nothing.
"""

from pathlib import Path

import pytest
import torch

from satjepa.demo.tiny_sd3 import (
    JOINT_DIM,
    POOLED_DIM,
    build_transformer,
    build_vae,
    fold_normalisation,
    save_pipeline,
)
from satjepa.models.backbone import Backbone, BackboneError

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("tiny")
    save_pipeline(path, build_vae((8, 8, 8, 8)), build_transformer(layers=2, heads=1))
    return path


@pytest.fixture
def backbone(folder: Path) -> Backbone:
    return Backbone.from_pretrained(folder)


def frozen_state(backbone: Backbone) -> dict[str, torch.Tensor]:
    """Every tensor that must never change, under the names it had before LoRA was added."""
    return {
        name.replace(".base_layer", ""): tensor
        for name, tensor in backbone.state_dict().items()
        if "lora_" not in name
    }


def inputs() -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(1)
    shapes = ((2, 16, 8, 8), (2, 70, JOINT_DIM), (2, POOLED_DIM))
    z, context, pooled = (torch.randn(s, generator=g) for s in shapes)
    return z, torch.tensor([0.2, 0.9]), context, pooled


def test_folder_has_the_layout_of_sd35(folder: Path) -> None:
    assert {p.name for p in folder.iterdir()} == {
        "transformer",
        "vae",
        "scheduler",
        "model_index.json",
    }
    assert (folder / "transformer/diffusion_pytorch_model.safetensors").exists()


def test_latents_and_images_have_the_right_shape_and_range(backbone: Backbone) -> None:
    rgb = torch.rand(2, 3, 64, 64)
    latent = backbone.encode(rgb)
    assert (
        latent.shape
        == (2, backbone.latent_channels, backbone.latent_size(64), backbone.latent_size(64))
        == (2, 16, 8, 8)
    )
    decoded = backbone.decode(100 * torch.randn_like(latent))
    assert decoded.shape == rgb.shape
    assert decoded.min() >= 0
    assert decoded.max() <= 1
    assert backbone(*inputs()).shape == (2, 16, 8, 8)


def test_lora_starts_as_nothing_and_is_all_that_trains(backbone: Backbone) -> None:
    before = backbone(*inputs())
    names = set(frozen_state(backbone))
    backbone.add_lora(4, 8, TARGETS)
    assert torch.equal(backbone(*inputs()), before)
    trained = [name for name, p in backbone.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    assert set(frozen_state(backbone)) == names


def test_frozen_state_survives_a_step_of_lora(backbone: Backbone) -> None:
    backbone.add_lora(4, 8, TARGETS)
    before = {k: v.clone() for k, v in frozen_state(backbone).items()}
    optimizer = torch.optim.AdamW([p for p in backbone.parameters() if p.requires_grad], 1e-2)
    out = backbone(*inputs())
    for _ in range(2):  # B is zero at first, so A moves in the second step only
        optimizer.zero_grad()
        backbone(*inputs()).square().mean().backward()
        optimizer.step()
    assert not torch.equal(backbone(*inputs()), out)
    assert all(torch.equal(before[k], v) for k, v in frozen_state(backbone).items())


@pytest.mark.filterwarnings(
    "ignore:The `local_dir_use_symlinks` argument:UserWarning"
)  # diffusers passes it
@pytest.mark.usefixtures("no_hub")
def test_missing_backbone_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"transformer.*licence.*assets/tiny_sd3"):
        Backbone.from_pretrained("stabilityai/not-there")
    with pytest.raises(BackboneError, match="diffusers layout"):
        Backbone.from_pretrained(tmp_path)


def test_folding_the_normalisation_changes_latents_but_not_images() -> None:
    torch.manual_seed(0)
    vae = build_vae((8, 8, 8, 8)).eval()
    x = 2 * torch.rand(16, 3, 64, 64) - 1
    with torch.no_grad():
        raw = vae.encode(x).latent_dist
        image = vae.decode(raw.mode()).sample
        fold_normalisation(vae, raw.mode())
        folded = vae.encode(x).latent_dist
        assert torch.allclose(folded.mode().std((0, 2, 3)), torch.ones(16), atol=1e-4)
        assert torch.allclose(vae.decode(folded.mode()).sample, image, atol=1e-4)
        assert torch.allclose(
            folded.std / raw.std,
            (folded.mode() / raw.mode()).abs().mean((0, 2, 3))[:, None, None],
            rtol=1e-2,
        )


def test_half_the_weights_make_nearly_the_same_picture(folder, backbone):
    """Frozen in bfloat16, trained in float32; latents come and go in float32."""
    half = Backbone.from_pretrained(folder, dtype=torch.bfloat16).add_lora(2, 2, ["to_q", "to_v"])
    kinds = {(p.dtype, p.requires_grad) for p in half.transformer.parameters()}
    assert kinds == {(torch.bfloat16, False), (torch.float32, True)}
    assert {p.dtype for p in half.vae.parameters()} == {torch.float32}
    g = torch.Generator().manual_seed(0)
    side = half.transformer.config.sample_size
    latent = torch.randn(2, 16, side, side, generator=g)
    context = torch.randn(2, 5, half.joint_dim, generator=g)
    told = (latent, torch.tensor([0.3, 0.8]), context, torch.randn(2, half.pooled_dim, generator=g))
    velocity = half(*told)
    exact = backbone(*told)
    assert velocity.dtype == torch.float32
    assert 0 < (velocity - exact).norm() < 0.05 * exact.norm()
    velocity.square().mean().backward()
    grads = [p.grad for name, p in half.transformer.named_parameters() if "lora_B" in name]
    assert (
        grads
        and all(grad.dtype == torch.float32 for grad in grads)
        and any(grad.any() for grad in grads)
    )

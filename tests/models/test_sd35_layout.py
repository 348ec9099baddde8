"""A miniature of Stable Diffusion 3.5 Medium in its own layout goes the way of the tiny SD 3, from
disk to forecast.

Unlike the tiny one it has dual attention in its first blocks, normalised queries and keys, patches
of 2 x 2, a time shift of 3, a scaled and shifted latent, and weights in several files.
"""

import json
from pathlib import Path

import pytest
import torch

from satjepa import assemble
from satjepa.config import load_params
from satjepa.demo.text_encoders import build_tiny_text_encoders, train_tokenizers
from satjepa.paths import root
from satjepa.training.loop import train

SMALL = {"dim": 16, "depth": 1, "heads": 2}
TINY = {
    "data.patch": 32, "data.history": 2, "model.encoder": SMALL | {"patch": 8},
    "model.predictor": SMALL, "model.forecaster": {"dim": 16, "layers": 1, "heads": 2},
    "model.adapter": {"dim": 16, "layers": 1, "heads": 2}, "train.steps": 2, "train.batch": 2,
    "train.lesson": {"windows": 4, "steps": 2, "batch": 2}, "train.log_every": 1, "sample.steps": 2,
    "backbone.layout": None, "captions.max_length": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature as `save_pretrained` writes it, transformer and T5 in shards."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
    from transformers import T5EncoderModel

    path = tmp_path_factory.mktemp("sd35")
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=16, out_channels=16, num_layers=3,
        attention_head_dim=16, num_attention_heads=2, joint_attention_dim=128,
        caption_projection_dim=32, pooled_projection_dim=128, pos_embed_max_size=12,
        dual_attention_layers=(0, 1), qk_norm="rms_norm",
    )  # fmt: skip
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.1)
    transformer.save_pretrained(path / "transformer", max_shard_size="100KB")
    AutoencoderKL(
        latent_channels=16, block_out_channels=(8, 8, 8, 8),
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=1, norm_num_groups=4, use_quant_conv=False, use_post_quant_conv=False,
        scaling_factor=1.5305, shift_factor=0.0609,
    ).save_pretrained(path / "vae")  # fmt: skip
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(path / "scheduler")
    train_tokenizers(
        ["Fields and a road.", "Forest in the north, water in the south.", "A growing town."], path
    )
    build_tiny_text_encoders(path, 0)
    T5EncoderModel.from_pretrained(path / "text_encoder_3").save_pretrained(
        path / "text_encoder_3", max_shard_size="100KB"
    )
    (path / "text_encoder_3/model.safetensors").unlink(missing_ok=True)
    return path


def test_the_miniature_has_the_layout_of_the_real_one(folder: Path):
    for part, name in (("transformer", "diffusion_pytorch_model"), ("text_encoder_3", "model")):
        shards = json.loads((folder / part / f"{name}.safetensors.index.json").read_text())[
            "weight_map"
        ]
        assert (
            len(set(shards.values())) > 1 and not (folder / part / f"{name}.safetensors").exists()
        )
        assert any("attn2" in tensor for tensor in shards) == (part == "transformer")
    assert (folder / "tokenizer_3/tokenizer.json").is_file()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_from_disk_to_forecast(folder: Path, batch: dict, tmp_path: Path, dtype: str):
    params = load_params(
        root() / "params.yaml", **TINY, **{"backbone.path": str(folder), "backbone.dtype": dtype}
    )
    encoders = assemble.load_text_encoders(params)
    words = ["Fields.", "A road.", "Forest with water."]
    hidden, mask, pooled = encoders.embed_batch(words, params.captions.max_length)
    assert hidden.dtype == getattr(torch, dtype)
    hidden = hidden.float()
    pooled = pooled.float()
    for when in ("text_t", "text_tp1"):
        batch[when] = {
            k: v.expand(4, *v.shape)
            for k, v in (("hidden", hidden), ("mask", mask), ("pooled", pooled))
        }
    model = assemble.build_model(params)
    assert model.backbone.shift == 3.0 and model.backbone.vae.config.scaling_factor == 1.5305
    adapted = [name for name in model.trainable_names() if name.startswith("backbone.")]
    assert {"attn", "attn2"} == {name.split(".")[4] for name in adapted}
    samples = [_one(batch, i) for i in range(4)]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model, samples, params, tmp_path / "run", progress=False, split="s")
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert any("lora_B" in name and "attn2" in name for name in moved)
    assert all("lora" in name for name in moved if name.startswith("backbone."))
    images = model.forecast(batch, 2)
    assert images.shape == (2, 4, 3, 32, 32) and images.isfinite().all()
    assert not torch.equal(images[0], images[1])


def _one(value: object, i: int) -> object:
    return (
        {key: _one(item, i) for key, item in value.items()} if isinstance(value, dict) else value[i]
    )

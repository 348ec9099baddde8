"""Encoder, predictor and targets against the published ones (golden a, h)."""

import json

import pytest
import torch
from safetensors import safe_open

from satjepa.models.averages import move_average
from satjepa.models.jepa import (
    Encoder,
    Predictor,
    ProjectionHead,
    gather_tokens,
    patch_cells,
    patch_mean,
    sincos_2d,
)
from satjepa.models.layers import layer_norm0


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def golden(shared, name):
    with safe_open(shared / "reference" / "golden" / name, "pt") as f:
        tensors = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118
        return tensors, json.loads(f.metadata()["config"])


RENAMED = {
    "patch_embed.proj": "patches", "predictor_embed": "embed", "predictor_blocks": "blocks",
    "predictor_norm": "norm", "predictor_proj": "proj", "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.2",
}  # fmt: skip


def ours(g, prefix):
    """Reference parameter names and packed qkv -> ours, without the fixed position tables."""
    state = {}
    for name, value in g.items():
        if not name.startswith(prefix) or name.endswith("pos_embed"):
            continue
        name = name.removeprefix(prefix)
        for theirs, mine in RENAMED.items():
            name = name.replace(theirs, mine)
        if ".qkv." in name:
            third = len(value) // 3
            state[name.replace("qkv", "q")], state[name.replace("qkv", "kv")] = (
                value[:third],
                value[third:],
            )
        else:
            state[name] = value
    return state


@pytest.fixture
def jepa(shared):
    g, c = golden(shared, "a_ijepa.safetensors")
    encoder = Encoder(c["img"], c["patch"], c["embed_dim"], c["depth"], c["heads"])
    predictor = Predictor(
        c["img"] // c["patch"], c["embed_dim"], c["pred_dim"], c["pred_depth"], c["heads"]
    )
    encoder.load_state_dict(ours(g, "encoder."))
    predictor.load_state_dict(ours(g, "predictor."))
    return g, encoder, predictor


@torch.no_grad()
def test_all_tokens_are_the_published_ones(jepa):
    g, encoder, predictor = jepa
    tokens = encoder(g["x"])
    close(tokens, g["full.encoder_no_mask"])
    close(predictor(tokens), g["full.predictor"])
    close(layer_norm0(predictor(tokens)), g["full.predictor_layernorm_no_affine"])


@torch.no_grad()
@pytest.mark.parametrize("case", ["case0", "case1"])
def test_masked_tokens_are_the_published_ones(jepa, case):
    g, encoder, predictor = jepa
    context = g[f"{case}.masks_ctx"]
    target = g[f"{case}.masks_tgt"]
    tokens = encoder(g["x"], context)
    close(tokens, g[f"{case}.encoder"])
    close(predictor(tokens, context, target), g[f"{case}.predictor"])
    close(
        gather_tokens(g[f"{case}.target_table"], target, repeat=len(context)),
        g[f"{case}.target_gathered"],
    )


@torch.no_grad()
def test_seeded_targets_start_from_the_token_of_their_place():
    """Without attention (both projections silent) a target knows its own place and nothing else."""
    torch.manual_seed(0)
    bare, seeded = (Predictor(4, 24, 16, 2, 2, seeded=s) for s in (False, True))
    seeded.load_state_dict(bare.state_dict())
    for block in (*bare.blocks, *seeded.blocks):
        block.attn.proj.weight.zero_()
    x = torch.randn(2, 16, 24)
    other = torch.randn(24)
    moved = x.clone()
    moved[:, 5] = other
    changed = (seeded(moved) - seeded(x)).abs().amax((0, 2)) > 0
    assert changed.tolist() == [n == 5 for n in range(16)]
    assert torch.equal(bare(moved), bare(x))
    everywhere = torch.arange(16).expand(1, 2, -1)
    assert torch.equal(seeded(x, everywhere, everywhere), bare(x))  # with masks: as published


def test_position_tables_are_the_published_ones(jepa):
    g, encoder, predictor = jepa
    close(encoder.positions, g["encoder.pos_embed"][0])
    close(predictor.positions, g["predictor.predictor_pos_embed"][0])
    close(sincos_2d(48, 4), g["encoder.pos_embed"][0])


def test_patch_means_are_the_published_targets(shared):
    g, c = golden(shared, "h_embedding_to_patches.safetensors")
    means, weight = patch_mean(g["embeddings"], c["patch"])
    close(means, g["patches"])
    assert torch.equal(weight, torch.ones_like(weight))
    vectors, weight = patch_cells(g["embeddings"], c["patch"])
    close(vectors[:, :, 0], g["patches_layernorm_no_affine"])
    assert weight.shape == (2, 9, 1)


def test_patch_mean_is_over_valid_pixels_only():
    emb = torch.randn(1, 3, 8, 8)
    valid = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    valid[..., :4, :4], valid[..., 2, 6] = False, False
    emb[..., 2, 6] = 1e3
    means, weight = patch_mean(emb, 4, valid)
    seen = emb[0, :, :4, 4:][:, valid[0, 0, :4, 4:]]  # (3,15)
    close(means[0, 1], seen.mean(1))
    assert weight.tolist() == [[0, 15 / 16, 1, 1]] and torch.equal(means[0, 0], torch.zeros(3))


def test_cells_are_row_major_within_their_patch():
    """8x8 pixels, patch 4, 2x2 cells a patch: cell (r, c) of patch (i, j) starts at pixel (4i+2r,
    4j+2c).
    """
    emb = torch.randn(1, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    valid[..., 4:6, 2:4] = False
    vectors, weight = patch_cells(emb, 4, 2, valid)
    assert vectors.shape == (1, 4, 4, 5)
    close(
        vectors[0, 1, 2], layer_norm0(emb[0, :, 2:4, 4:6].mean((1, 2)))
    )  # patch (0,1), cell (1,0)
    assert (weight == 0).nonzero().tolist() == [[0, 2, 1]]  # patch (1,0), cell (0,1)


def test_projection_head_has_64_channels_a_cell():
    assert ProjectionHead(8)(torch.zeros(2, 4, 8)).shape == (2, 4, 64)
    assert ProjectionHead(8, cells=2)(torch.zeros(2, 4, 8)).shape == (2, 4, 256)


def test_ema_moves_by_one_minus_momentum():
    average = [torch.zeros(3)]
    value = [torch.ones(3)]
    move_average(average, value, 0.75)
    move_average(average, value, 0.75)
    close(average[0], torch.full((3,), 1 - 0.75**2))

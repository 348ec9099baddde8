"""Adapters and forecaster of the published system: names, counts, golden vectors b, c, d, and how
they start.
"""

import json

import pytest
import torch

from satjepa.contracts import CAPTION_KINDS
from satjepa.models.published.adapter import CaptionAdapter
from satjepa.models.published.coarse import CoarseAdapter, rgb_patches, shrink
from satjepa.models.published.forecaster import PublishedForecaster


@pytest.fixture(scope="session")
def layout(shared):
    return json.loads((shared / "reference/checkpoint_layout.json").read_text())


def full_size():
    """The three modules as the published system builds them, without content."""
    with torch.device("meta"):
        return (CaptionAdapter(768, 4096, 2048, 4096, 2048, 1024), CoarseAdapter(768, 4096, 2048,
        1024),
                PublishedForecaster(768, 4096))  # fmt: skip


def test_full_size_has_the_published_tensors(layout):
    states = layout["state_dicts"]
    known = (
        states["cond_adapter"],
        layout["coarse_rgb_main_branch"]["cond_adapter"],
        states["caption_forecaster"],
    )
    counts = []
    for module, tensors in zip(full_size(), known, strict=True):
        assert {n: list(t.shape) for n, t in module.state_dict().items()} == {
            n: t["shape"] for n, t in tensors.items()
        }
        counts.append(sum(p.numel() for p in module.parameters()))
    assert counts == [232_181_252, 166_100_480, 65_881_600]


@pytest.fixture
def caption_adapter(golden, below):
    g, meta = golden("c_caption_adapter")
    c = meta["config"]
    adapter = CaptionAdapter(
        c["ijepa_dim"], c["text_hidden_dim"], c["text_pooled_dim"], c["cross_attn_dim"],
        c["pooled_dim"], c["hidden_dim"], c["fusion_heads"], c["temporal_heads"],
        c["temporal_max_history"], c["max_ijepa_tokens"],
    )  # fmt: skip
    adapter.load_state_dict(below(g, "model."))
    return adapter.eval(), g, meta


def captions_of(g, hidden=CAPTION_KINDS, pooled=CAPTION_KINDS):
    return {
        name: (g[f"{name}_hidden"], g[f"{name}_pooled"] if name in pooled else None)
        for name in hidden
    }


@torch.no_grad()
def test_caption_adapter_is_the_published_one(caption_adapter, close):
    adapter, g, meta = caption_adapter
    for name, case in meta["cases"].items():
        captions = captions_of(g, case["hidden_given"], case["pooled_given"])
        history = [g[f"history.{i}"] for i in range(case["history_frames"])]
        context, pooled = adapter(g["ijepa_tokens"], captions, history)
        close(context, g[f"out.{name}.encoder_hidden_states"])
        close(pooled, g[f"out.{name}.pooled_projections"])


@torch.no_grad()
def test_frames_past_the_length_of_the_block_are_ignored(caption_adapter):
    adapter, g, meta = caption_adapter
    frames = [g[f"history.{i}"] for i in range(5)]
    most = meta["config"]["temporal_max_history"]
    full, long = (adapter(g["ijepa_tokens"], {}, frames[:n])[0] for n in (most, 5))
    assert torch.equal(full, long) and not torch.allclose(
        full, adapter(g["ijepa_tokens"], {}, frames[:2])[0]
    )


@torch.no_grad()
def test_a_caption_without_a_pooled_vector_leaves_its_weight_to_the_next(caption_adapter, close):
    adapter, g, _ = caption_adapter
    context, pooled = adapter(g["ijepa_tokens"], captions_of(g, pooled=("geometric", "semantic")))
    assert torch.equal(context, adapter(g["ijepa_tokens"], captions_of(g))[0])  # it is still read
    close(pooled, g["out.no_informative.pooled_projections"])


@torch.no_grad()
def test_positions_go_by_sequence_index_and_are_stretched_past_their_end():
    torch.manual_seed(0)
    adapter = CaptionAdapter(4, 4, 4, 8, 4, 4, fusion_heads=2, temporal_heads=2, places=6).eval()
    z = torch.randn(1, 1, 4).expand(1, 8, 4)
    six, three = (adapter(z[:, :n], {})[0] for n in (6, 3))
    torch.testing.assert_close(
        six[:, :3], three
    )  # not its bits: a matrix product rounds by its size
    assert not torch.allclose(six[:, :1], six[:, 1:2])
    table = torch.nn.functional.interpolate(adapter.ijepa_pos_embed.mT, size=8, mode="linear").mT
    expected = adapter.ijepa_token_proj(adapter.ijepa_input_norm(z) + table)
    torch.testing.assert_close(adapter(z, {})[0], expected)


@torch.no_grad()
def test_coarse_adapter_is_the_published_one(golden, below, close):
    g, meta = golden("d_coarse_rgb_adapter")
    c = meta["config"]
    adapter = CoarseAdapter(
        c["in_dim"], c["cross_attn_dim"], c["pooled_dim"], c["hidden_dim"], c["coarse_size"],
        c["coarse_patch_size"], c["temporal_heads"], c["temporal_max_history"],
        c["max_ijepa_tokens"],
    )  # fmt: skip
    adapter.load_state_dict(below(g, "model."))
    frames = [g[f"history.{i}"] for i in range(2)]
    cases = {"rgb": (g["ref_rgb"], []), "no_rgb": (None, []), "rgb_same_count": (g["ref_rgb"], []),
             "rgb_history2": (g["ref_rgb"], frames)}  # fmt: skip
    for name, given in cases.items():
        tokens = g["ijepa_tokens_same_count" if name == "rgb_same_count" else "ijepa_tokens"]
        context, pooled = adapter.eval()(tokens, *given)
        close(context, g[f"out.{name}.encoder_hidden_states"])
        close(pooled, g[f"out.{name}.pooled_projections"])
    close(rgb_patches(g["ref_rgb"], c["coarse_patch_size"]), g["rgb_to_patches"])
    close(shrink(g["full_rgb"], c["coarse_size"]), g["full_rgb_downsampled"])
    close(
        shrink(g["full_rgb"], 24), torch.nn.functional.avg_pool2d(g["full_rgb"], 2)
    )  # half-pixel centres


def test_a_coarse_image_that_is_not_whole_patches_is_refused():
    with pytest.raises(ValueError, match="6 pixels cannot be cut into patches of 4"):
        CoarseAdapter(4, 8, 4, 4, coarse=6)


@torch.no_grad()
def test_forecaster_is_the_published_one(golden, below, close):
    g, meta = golden("b_caption_forecaster")
    c = meta["config"]
    forecaster = PublishedForecaster(
        c["ijepa_dim"], c["text_dim"], c["hidden_dim"], c["heads"], c["layers"]
    )
    forecaster.load_state_dict(below(g, "model."))
    close(forecaster.eval()(g["ijepa_tokens"], g["semantic_t"]), g["output"])


@torch.no_grad()
def test_gates_start_at_one_half():
    torch.manual_seed(0)
    for adapter in (CaptionAdapter(8, 8, 8, 64, 8, 8), CoarseAdapter(8, 64, 8, 8)):
        gates = [adapter.temporal_attn.temporal_gate]
        gates += [adapter.fusion_gate] if isinstance(adapter, CoarseAdapter) else []
        for gate in gates:
            assert torch.equal(gate(torch.zeros(1, 128)), torch.full((1, 64), 0.5))
            assert gate(torch.randn(500, 128)).mean().item() == pytest.approx(0.5, abs=0.01)


@torch.no_grad()
def test_forecaster_starts_silent_and_blind_not_as_the_identity():
    torch.manual_seed(0)
    forecaster = PublishedForecaster(32, 256, dim=64, heads=4, layers=2).eval()
    tokens = torch.randn(2, 4, 16, 32)
    semantic = torch.randn(4, 9, 256)
    out, other = (forecaster(z, semantic) for z in tokens)
    assert torch.nn.functional.cosine_similarity(out, semantic, dim=-1).mean().abs() < 0.05
    assert out.square().mean().sqrt().item() == pytest.approx(0.1 / 3**0.5, rel=0.1)
    assert 0 < (out - other).norm() / out.norm() < 0.02

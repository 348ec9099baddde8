"""params.paper.yaml: the published configuration, at full size on the meta device, where a weight
has no content.
"""

from pathlib import Path

import pytest
import torch
from torch import nn

from satjepa.baselines.mcvd import MCVD
from satjepa.baselines.predrnn import PredRNN
from satjepa.baselines.simvp import SimVP
from satjepa.config import load_params
from satjepa.config.files import read_yaml
from satjepa.models.adapter import Adapter
from satjepa.models.caption_forecaster import CaptionForecaster
from satjepa.models.jepa import Encoder, sincos_2d
from satjepa.models.published.adapter import CaptionAdapter
from satjepa.models.published.coarse import CoarseAdapter
from satjepa.models.published.forecaster import PublishedForecaster

REPO = Path(__file__).resolve().parents[2]
PAPER = REPO / "params.paper.yaml"
TEXT = 4096  # of SD 3.5
POOLED = 2048


def millions(module: nn.Module) -> float:
    return sum(p.numel() for p in module.parameters() if p.requires_grad) / 1e6


def test_it_is_the_published_configuration():
    params = load_params(PAPER)
    b = params.backbone
    t = params.train
    assert (b.path, b.lora_rank, b.lora_alpha) == (
        "stabilityai/stable-diffusion-3.5-medium",
        16,
        32,
    )
    assert b.lora_targets == ("to_q", "to_k", "to_v", "to_out.0") and params.data.patch == 128
    assert (t.batch, t.lr, t.weight_decay, t.target_ema) == (8, 1e-4, (0.04, 0.4), (0.999, 1.0))
    assert (
        t.steps == 100 * int(0.8 * 100 * 7 * 49) // t.batch
        and t.warmup > 0
        and t.precision == "bf16"
    )
    weights = params.loss
    assert (weights.l1, weights.cosine, weights.contrastive, weights.spatial, weights.feature) == (
        20,
        2,
        0.5,
        2,
        5,
    )
    assert (weights.sd, weights.caption, t.caption_dropout) == (1.0, 0.5, 0.1)


@pytest.mark.parametrize("name", ["params.table.yaml", "params.paper.yaml"])
def test_an_overlay_says_what_differs_and_nothing_else(name: str):
    """A value that is that of params.yaml has no place in it."""

    def same(base: dict, changes: dict, where: str = "") -> list[str]:
        keys = []
        for key, value in changes.items():
            if isinstance(value, dict) and isinstance(base.get(key), dict) and value:
                keys += same(base[key], value, f"{where}{key}.")
            elif key in base and base[key] == value:
                keys.append(f"{where}{key}")
        return keys

    overlay = read_yaml(REPO / name)
    assert overlay.pop("base") == "params.yaml"
    assert same(read_yaml(REPO / "params.yaml"), overlay) == []


def test_ours_has_the_promised_size():
    m = load_params(PAPER).model
    length = load_params(PAPER).captions.max_length
    with torch.device("meta"):
        hidden = torch.zeros(length, TEXT)
        mask = torch.ones(length, dtype=torch.bool)
        empty = {"hidden": hidden, "mask": mask, "pooled": torch.zeros(POOLED)}
        encoder = Encoder(128, m.encoder.patch, m.encoder.dim, m.encoder.depth, m.encoder.heads)
        adapter = Adapter(
            m.encoder.dim,
            sincos_2d(m.encoder.dim, 16),
            empty,
            m.adapter.dim,
            m.adapter.layers,
            m.adapter.heads,
            2,
        )
        f = m.forecaster
        forecaster = CaptionForecaster(
            length, TEXT, POOLED, m.encoder.dim, f.dim, f.layers, f.heads
        )
    assert millions(encoder) == pytest.approx(85.2, abs=0.1)  # ViT-B
    assert millions(adapter) == pytest.approx(25, abs=2)  # as the model card says
    assert f.layers == 3 and f.dim == 1024 and millions(forecaster) < 75


def test_the_published_arms_have_the_published_sizes():
    captions, coarse = (
        load_params(PAPER, arm=arm).model for arm in ("published_captions", "published_coarse")
    )
    assert captions.variant == coarse.variant == "published" and coarse.coarse_rgb == 32
    dim = captions.encoder.dim
    f = captions.forecaster
    with torch.device("meta"):
        modules = (
            CaptionAdapter(dim, TEXT, POOLED, TEXT, POOLED, captions.adapter.dim),
            CoarseAdapter(dim, TEXT, POOLED, coarse.adapter.dim),
            PublishedForecaster(dim, TEXT, f.dim, f.heads, f.layers),
        )
    assert [sum(p.numel() for p in module.parameters()) for module in modules] == [
        232181252,
        166100480,
        65881600,
    ]


@pytest.mark.parametrize(
    ("name", "build", "count"),
    [("predrnn", lambda m: PredRNN(128, **m), 24_559_616), ("predrnn_v2", lambda m: PredRNN(128,
    **m), 24_576_000),
     ("simvp", lambda m: SimVP(**m), 7_127_875), ("mcvd", lambda m: MCVD(128, **m), 116_520_579)],
)  # fmt: skip
def test_baselines_have_the_sizes_of_their_papers(name: str, build, count: int):
    params = load_params(PAPER)
    arm = params.baselines.read(name, params.data)
    with torch.device("meta"):
        model = build(arm.model.model_dump() | arm.sample.model_dump())
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count

"""A SatJepa of real SD 3 classes at toy size, with random weights, and a batch for it."""

import copy
from types import SimpleNamespace

import pytest
import torch

B = 4  # 4x4 locations, latent 16x4x4
SIDE = 32
LENGTH = 6
TEXT = 128


def space(**named):
    return SimpleNamespace(
        **{k: space(**v) if isinstance(v, dict) else v for k, v in named.items()}
    )


def params(**model):
    small = {"dim": 16, "depth": 1, "heads": 2}
    return space(
        data={"patch": SIDE, "history": 2},
        captions={"lengths": None},
        model={
            "variant": "satjepa",
            "encoder": small | {"patch": 8},
            "predictor": small,
            "forecaster": {"dim": 16, "layers": 1, "heads": 2},
            "adapter": {"dim": 16, "layers": 1, "heads": 2},
            "reader": {"dim": 16, "layers": 1, "heads": 2},
            "use_jepa": True,
            "use_captions": True,
            "coarse_rgb": 0,
            "context_merge": 1,
        } | model,
        loss={
            "l1": 20.0, "cosine": 2.0, "contrastive": 0.5, "spatial": 2.0, "feature": 5.0,
            "temperature": 0.1, "ijepa": 1.0, "readout": 5.0, "layout": 5.0, "sd": 1.0,
            "caption": 0.5,
        },
        train={"timestep_mean": 0.3, "timestep_std": 0.8, "precision": "float32"},
        sample={"steps": 3, "guidance": 1.0, "strength": 1.0, "compile": "auto"},
    )  # fmt: skip


@pytest.fixture(scope="session")
def parts():
    """Real SD 3 classes from their configuration, random weights."""
    from satjepa.demo.tiny_sd3 import Layout, build_transformer, build_vae, positions_of

    torch.manual_seed(0)
    transformer = build_transformer(layers=2, heads=2, head_dim=16, side=4)
    # diffusers starts it at zero: no gradient passes
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.1)
    layout = Layout(256, positions_of(transformer, 4))
    empty = {
        "hidden": torch.randn(LENGTH, TEXT),
        "mask": torch.arange(LENGTH) < 1,
        "pooled": torch.randn(128),
    }
    vae = build_vae((8, 8, 8, 8), SIDE)
    vae.decoder.conv_out.weight.data *= 0.2  # a random decoder shoots far past [0, 1]
    return transformer, vae, empty, layout.state_dict()


def with_lora(parts, seed):
    from satjepa.models.backbone import Backbone

    torch.manual_seed(seed)
    return Backbone(copy.deepcopy(parts[0]), parts[1]).add_lora(
        2, 2, ["to_q", "to_k", "to_v", "to_out.0"]
    )


@pytest.fixture
def build(parts):
    """build(seed, layout changes, parameters of the model section...) -> SatJepa at its start."""
    from satjepa.models.satjepa import SatJepa

    def build(seed=1, positions=None, **model):
        _, _, empty, layout = parts
        known = layout if positions is None else layout | {"positions": positions}
        return SatJepa(params(**model), with_lora(parts, seed), empty, known)

    return build


@pytest.fixture
def build_published(parts):
    """build_published(seed, parameters of the model section...) -> PublishedSatJepa with LoRA."""
    from satjepa.models.published.model import PublishedSatJepa

    def build(seed=1, **model):
        return PublishedSatJepa(
            params(**{"variant": "published"} | model), with_lora(parts, seed), parts[2]
        )

    return build


@pytest.fixture
def trained(build):
    """trained(...) -> `build(...)` as after training: every zero layer has opened."""

    def trained(**options):
        model = build(**options)
        torch.manual_seed(2)
        for parameter in model.parameters():
            if parameter.requires_grad and not parameter.any():
                torch.nn.init.normal_(parameter.data, std=0.1)
        return model

    return trained


def make_batch(seed, size=B):
    torch.manual_seed(seed)
    ok = torch.ones(size, 1, SIDE, SIDE, dtype=torch.bool)

    def text():
        mask = torch.arange(LENGTH) < torch.randint(2, LENGTH, (size, 3, 1))
        hidden = torch.randn(size, 3, LENGTH, TEXT) * mask[..., None]
        return {"hidden": hidden, "mask": mask, "pooled": torch.randn(size, 3, 128)}

    def meta(i):
        return {"preset": "p", "region": "R", "year": 2020, "x": 32 * i, "y": 0, "aug": 0}

    return {
        "rgb_t": torch.rand(size, 3, SIDE, SIDE),
        "rgb_tp1": torch.rand(size, 3, SIDE, SIDE),
        "valid_t": ok,
        "valid_tp1": ok,
        "emb_tp1": torch.nn.functional.normalize(torch.randn(size, 64, SIDE, SIDE), dim=1),
        "emb_valid": ok,
        "history": torch.rand(size, 2, 3, SIDE, SIDE),
        "history_valid": torch.ones(size, 2, dtype=torch.bool),
        "text_t": text(),
        "text_tp1": text(),
        "meta": [meta(i) for i in range(size)],
    }


@pytest.fixture
def batch():
    return make_batch(3)


@pytest.fixture
def other_batch():
    return make_batch(8)


@pytest.fixture
def model(trained):
    return trained()


@pytest.fixture
def step():
    """step(model, batch, seed, drops) -> (loss, parts): one training forward with fixed noise."""
    return _step


def _step(model, batch, seed=0, drops=None):
    from satjepa.models.drops import Drops

    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(B, 16, 4, 4, generator=generator)
    sigma = torch.rand(B, generator=generator)
    return model(batch, noise, sigma, drops or Drops.all(sigma, False))

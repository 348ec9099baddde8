"""A run of the joint loop at tiny size: parameters, samples in memory, the model, six steps."""

import copy
import csv
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from reach import REPO

from satjepa.config import Params, load_params
from satjepa.models.backbone import Backbone
from satjepa.models.satjepa import SatJepa
from satjepa.training.loop import train

SIDE = 32  # 4x4 locations, latents 16x4x4
LENGTH = 5
TEXT = 128
SAMPLES = 7
SMALL = {"dim": 16, "depth": 1, "heads": 2}
TINY = {
    "backbone.layout": None, "data.patch": SIDE, "data.history": 1,
    "model.encoder": SMALL | {"patch": 8},
    "model.predictor": SMALL, "model.forecaster": {"dim": 16, "layers": 1, "heads": 2},
    "model.adapter": {"dim": 16, "layers": 1, "heads": 2},
    "model.reader": {"dim": 16, "layers": 1, "heads": 2}, "train.steps": 6, "train.lesson.steps": 0,
    "train.jepa_share": 0.5, "train.batch": 2, "train.log_every": 2, "train.checkpoint_every": 2,
    "train.precision": "float32", "sample.steps": 2,
}  # fmt: skip


def tiny(**changes: object) -> Params:
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return load_params(REPO / "params.yaml", **TINY | dotted)


class Samples:
    """A dataset in memory that uses the global random generators; `at`: number of a fetch -> what
    happens before it.
    """

    def __init__(self, count: int = SAMPLES, at: dict | None = None) -> None:
        self.items = [sample(i) for i in range(count)]
        self.at = at or {}
        self.fetched = []

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict:
        self.at.get(len(self.fetched), lambda: None)()
        self.fetched.append(index)
        haze = (torch.rand(1).item() + random.random() + np.random.rand()) / 30
        return self.items[index] | {"rgb_t": self.items[index]["rgb_t"] + haze}


def sample(i: int) -> dict:
    g = torch.Generator().manual_seed(i)

    def text() -> dict:
        mask = torch.arange(LENGTH) < torch.tensor([[2], [3], [5]])
        hidden = torch.randn(3, LENGTH, TEXT, generator=g) * mask[..., None]
        return {"hidden": hidden, "mask": mask, "pooled": torch.randn(3, 128, generator=g)}

    emb = torch.nn.functional.normalize(torch.randn(64, SIDE, SIDE, generator=g), dim=0)
    ok = torch.ones(1, SIDE, SIDE, dtype=torch.bool)
    return {
        "rgb_t": torch.rand(3, SIDE, SIDE, generator=g), "rgb_tp1": torch.rand(3, SIDE, SIDE,
        generator=g), "valid_t": ok, "valid_tp1": ok, "emb_tp1": emb, "emb_valid": ok,
        "history": torch.rand(1, 3, SIDE, SIDE, generator=g),
        "history_valid": torch.tensor([i % 2 == 0]), "text_t": text(), "text_tp1": text(),
        "latent_tp1": torch.randn(16, 4, 4, generator=g), "meta": {"preset": "p", "region": f"R{i}",
        "year": 2020, "x": 0, "y": 0, "aug": 0},
    }  # fmt: skip


def make_backbone() -> Backbone:
    from satjepa.demo.tiny_sd3 import build_transformer, build_vae

    torch.manual_seed(0)
    transformer = build_transformer(layers=1, heads=2, head_dim=16, side=4)
    torch.nn.init.normal_(
        transformer.proj_out.weight, std=0.1
    )  # diffusers starts it at zero: no gradient passes
    return Backbone(transformer, build_vae((8, 8, 8, 8), SIDE)).add_lora(2, 2, ["to_q", "to_v"])


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone()


def build(backbone: Backbone, params: Params) -> SatJepa:
    torch.manual_seed(1)
    empty = {
        "hidden": torch.randn(LENGTH, TEXT),
        "mask": torch.arange(LENGTH) < 1,
        "pooled": torch.randn(128),
    }
    return SatJepa(params, copy.deepcopy(backbone), empty)


def rows_of(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "log.csv").read_text().splitlines()))


@pytest.fixture(scope="module")
def whole(
    backbone: Backbone, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, SatJepa, Samples]:
    """Six steps in one go: its run folder, model, dataset."""
    run = tmp_path_factory.mktemp("whole")
    model = build(backbone, tiny())
    data = Samples()
    train(model, data, tiny(), run, progress=False, split="s")
    return run, model, data

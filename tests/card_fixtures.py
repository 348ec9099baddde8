"""What the tests of the model card share: a published file in miniature, models, an image."""

from pathlib import Path

import pytest
import torch
from published_files import content, saved
from reach import REPO

from satjepa import assemble, load_model
from satjepa.config import load_params

WORDS = ("Green crops 90 percent.", "Many parcels.", "Farmland with a river.")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(content(optimizer=False), tmp_path_factory.mktemp("file") / "a.pth.tar")


@pytest.fixture(scope="module")
def model(file: Path):
    return load_model(file, "cpu")


@pytest.fixture(scope="module")
def ours():
    """A model of the variant satjepa, as at its first step, its LoRA opened."""
    params = load_params(REPO / "params.yaml", **{"sample.steps": 2, "sample.guidance": 1.0})
    model = assemble.build_model(params).eval()
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p.data, std=0.05)
    return model


@pytest.fixture(scope="module")
def rgb() -> torch.Tensor:
    return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))

"""What the tests of the command line share: a checkpoint that can be opened, and a scene."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from cli_model import Encoders, Model

from satjepa import assemble
from satjepa.config import load_params
from satjepa.training import checkpoint, provenance

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint folder that `forecast` can open."""
    monkeypatch.setenv("SATJEPA_PARAMS", str(REPO / "params.yaml"))
    monkeypatch.setattr(assemble, "build_model", Model)
    monkeypatch.setattr(assemble, "load_text_encoders", lambda params, device: Encoders())
    model = Model(load_params())
    model.scale.data.fill_(1.0)
    header = provenance.make_header(
        model.params.as_dict(), "s", provenance.hash_module(model.backbone, True)
    )
    return checkpoint.save(tmp_path / "model", model.state(), header, {"step": 1}, {})


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "field_2021.tif"
    data = (60 + 100 * np.random.default_rng(0).random((3, 70, 66))).astype(np.uint8)
    where = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 3e5, 0, -10, 5e6)}
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=70, width=66, dtype="uint8", **where
    ) as dst:
        dst.write(data)
    return path

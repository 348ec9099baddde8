"""The pipeline at smoke size on folders of GeoTIFFs in place of the demo world (`make smoke`)."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from scratch import ENDS, Scratch

from satjepa.evaluation.table import read_scores

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(3600)]


def test_own_regions_take_the_same_way(tmp_path: Path):
    """Reflectance, one preset, no truth, some without AlphaEarth."""
    own = Scratch(tmp_path / "own")
    own.repro("data")
    regions = tmp_path / "regions"
    for name in ("Aldmere", "Birkenau", "Zarnekow", "Ambergau"):
        source = own.folder / "artifacts/scenes/strong" / name
        for path in source.glob("*_10km.tif"):
            if not (path.name.startswith("gee") and name == "Zarnekow"):
                (regions / name).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, regions / name)
    for path in regions.rglob("s2_rgb_*.tif"):
        with rasterio.open(path) as src:
            profile = src.profile
            shown = src.read()
        with rasterio.open(path, "w", **profile | {"dtype": "uint16"}) as dst:
            dst.write(np.rint(shown / 255 * 3558).astype(np.uint16))
    own.set("params.yaml", {"data.root": str(regions), "data.presets": ["mine"],
    "data.val_regions": 1,
                            "data.test_regions": 1, "data.white": 0.3558})  # fmt: skip
    shipped = (own.folder / "assets/demo_model/README.md").read_text()
    own.repro(*ENDS)
    assert (own.folder / "assets/demo_model/README.md").read_text() == shipped
    rows = read_scores(own.folder / "reports/table.csv")
    assert {row["preset"] for row in rows} == {"mine"} and not any(
        "Oracle" in row["model"] for row in rows
    )

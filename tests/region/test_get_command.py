"""`satjepa data catalog`, then `satjepa data get` as it says: no network, no code."""

import shlex

import numpy as np
import rasterio
from cli_model import run

from satjepa.data.scenes import find_scenes
from satjepa.demo.catalog import CatalogLand


def test_from_a_demo_catalog_to_scenes(tmp_path):
    """Also the land of the demo world, which is not smooth: no bias, whatever the metadata say."""
    result = run("data", "catalog", tmp_path / "demo", "--years", "2022")
    assert result.exit_code == 0, result.output
    words = shlex.split(result.output.splitlines()[-1])
    assert words[:3] == ["satjepa", "data", "get"]
    result = run(*words[1:], "--months", "6-8", "--name", "Borderland")
    assert result.exit_code == 0, result.output
    (scene,) = find_scenes(tmp_path / "demo/scenes")
    assert (scene.region, scene.year) == ("Borderland", 2022) and "12 images" not in result.output
    with rasterio.open(scene.rgb) as src:
        rgb = src.read()
        x = src.transform.c + 10 * (np.arange(src.width) + 0.5)
        y = src.transform.f - 10 * (np.arange(src.height) + 0.5)
        assert src.crs.to_epsg() == 32631
    truth = CatalogLand([2022]).reflectance(2022, *np.meshgrid(x, y)) * 10000
    wrong = (rgb - truth)[:, (rgb > 0).all(0)]
    assert np.abs(wrong.mean(1)).max() < 1 and truth.std() > 300


def test_what_is_missing_is_said(tmp_path):
    for words, said in (
        ((), "--bbox W S E N"),
        (("elsewhere",), "say `published`"),
        (("--bbox", 6, 50, 5, 51), "error: bbox 6 50 5 51: its west is not left of its east"),
        (("--bbox", -6, -5, -5.9, -4.9, "--stac", tmp_path), "no such catalog"),
        (("--bbox", 5, 50, 5.1, 50.1, "--years", "2099"), "error: years '2099': 2099 has not"),
    ):
        result = run("data", "get", *words)
        assert result.exit_code == 2 and said in " ".join(result.output.split()), result.output

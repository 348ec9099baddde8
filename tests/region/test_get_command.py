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


def test_embeddings_come_for_the_years_that_are_made_when_another_is_refused(
    catalog, tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(
        "satjepa.region.alphaearth.get_embeddings", lambda *told, **_: asked.append(told)
    )
    words = ("data", "get", "--stac", catalog.path, "--bbox", *catalog.bbox, "--months", "6-7")
    words += ("--min-valid", 0.3, "--name", "Borderland", "--out", tmp_path, "--embeddings")
    result = run(*words, "--years", "2020,2022")
    assert result.exit_code == 2 and "error: 2020: no image" in result.output
    image = tmp_path / "Borderland/s2_rgb_Borderland_2022_10km.tif"
    assert asked == [(image, [2022], image.parent, None)] and image.is_file()
    asked.clear()
    result = run(*words, "--years", "2020")
    assert result.exit_code == 2 and not asked  # no year, no grid to ask for


def test_options_that_play_no_part_are_named(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "satjepa.region.published.get_published", lambda *told, **_: asked.append(told)
    )
    every = ("--years", "2017-2024", "--yes", "--stac", "earth-search", "--embeddings", "--index")
    every += ("i", "--months", "5-9", "--collection", "c", "--max-cloud", 9, "--min-valid", 0.1)
    result = run("data", "get", "published", *every, "--bbox", 5, 50, 6, 51)
    said = " ".join(result.output.replace("│", "").split())
    assert result.exit_code == 2 and "play no part" in said and not asked
    for option in [word for word in every if str(word).startswith("--")] + ["--bbox"]:
        assert option in said
    assert "--out" not in said and "--name" not in said
    result = run("data", "get", "published", "--out", tmp_path, "--name", "Lhasa")
    assert result.exit_code == 0 and asked == [(tmp_path, ["Lhasa"])]
    result = run("data", "get", "--bbox", 5, 50, 5.1, 50.1, "--index", "i", "--stac", tmp_path)
    said = " ".join(result.output.replace("│", "").split())
    assert result.exit_code == 2 and "--index plays no part without --embeddings" in said

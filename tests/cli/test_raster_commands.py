"""`forecast`, `inference` and `caption` on what users bring, from where they stand."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from cli_model import run
from forecast_files import NORTH, write
from rasterio.transform import Affine

from satjepa import assemble
from satjepa.training import checkpoint

WATER = np.array([13, 23, 26], np.uint8)[:, None, None]
FIELD = np.array([66, 120, 51], np.uint8)[:, None, None]


def test_inside_somebody_elses_project(
    trained: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their dvc.yaml and params.yaml are nothing to us; paths are taken from where one stands."""
    theirs = tmp_path / "theirs"
    (theirs / "data").mkdir(parents=True)
    (theirs / "dvc.yaml").write_text("stages:\n  train: {cmd: python train.py}\n")
    (theirs / "params.yaml").write_text("lr: 0.1\nseed: 3\nmodel: resnet\n")
    (theirs / "artifacts").mkdir()
    monkeypatch.chdir(theirs / "data")
    monkeypatch.delenv("SATJEPA_PARAMS")
    result = run("forecast", scene, "--out", "o.tif", "--checkpoint", trained)
    assert result.exit_code == 0, result.output
    assert (theirs / "data/o.tif").exists()
    result = run("caption", scene)
    assert result.exit_code == 0 and "semantic" in result.output, result.output
    monkeypatch.setattr(checkpoint, "exists", lambda folder: False)
    for words in (("forecast", scene, "--out", "o.tif"), ("inference", "--output", "o")):
        more = () if words[0] == "forecast" else ("--input", scene)
        result = run(*words, *more)
        assert result.exit_code == 2 and "runs/" in result.output, result.output
        assert "lr" not in result.output and "licence" not in result.output


@pytest.mark.parametrize(
    ("transform", "rows"), [(NORTH, "first"), (Affine(10, 0, 3e5, 0, 10, 5e6), "last")]
)
def test_words_are_of_the_map(tmp_path: Path, transform: Affine, rows: str) -> None:
    """Water in the north is in the north, whichever way the file has its rows."""
    data = np.repeat(np.repeat(FIELD, 64, 1), 64, 2)
    data[:, : 24 if rows == "first" else 0] = WATER
    data[:, 40 if rows == "last" else 64 :] = WATER
    result = run("caption", write(tmp_path / "a.tif", data, transform))
    assert result.exit_code == 0 and "water north" in result.output, result.output
    assert "water south" not in result.output


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 2), (40, 5)])
def test_an_image_of_a_few_pixels_has_words(tmp_path: Path, shape: tuple[int, int]) -> None:
    data = np.random.default_rng(0).integers(1, 255, (3, *shape), np.uint8)
    result = run("caption", write(tmp_path / "a.tif", data))
    assert result.exit_code == 0 and "semantic" in result.output, result.output


@pytest.mark.parametrize(
    "words",
    [
        ("forecast", "{url}", "--out", "{out}"),
        ("forecast", "{scene}", "--out", "{url}"),
        ("inference", "--input_tif", "{url}", "--output_dir", "{out}"),
        ("inference", "--input_tif", "{scene}", "--gt_tif", "{url}", "--output_dir", "{out}"),
        ("inference", "--input_tif", "{scene}", "--output_dir", "{url}"),
        ("caption", "{url}"),
    ],
)
def test_a_url_is_shown_as_it_was_given(
    words: tuple[str, ...], scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = "https://host.example/a/b_2021.tif"
    result = run(*(w.format(url=url, scene=scene, out=tmp_path / "o") for w in words))
    assert result.exit_code == 2 and f"error: {url} is a URL" in result.output, result.output
    assert sorted(tmp_path.iterdir()) == [scene]


@pytest.mark.parametrize("out", ["file/o.tif", "/proc/o.tif", "/dev/null", "n" * 260])
def test_an_output_that_cannot_be_is_found_before_the_model(
    trained: Path, scene: Path, tmp_path: Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr(assemble, "from_checkpoint", lambda *_, **__: pytest.fail("loaded"))
    monkeypatch.setattr("satjepa.published.card.load_model", lambda *_: pytest.fail("loaded"))
    result = run("forecast", scene, "--out", out, "--checkpoint", trained)
    assert result.exit_code == 2 and "error: " in result.output, result.output
    words = ("--output", out, "--input", scene, "--checkpoint", trained)
    result = run("inference", *words)
    assert result.exit_code == 2 and "error: " in result.output, result.output


def test_a_year_that_is_not_clear_is_asked_for_by_name(
    trained: Path, scene: Path, tmp_path: Path
) -> None:
    swiss = scene.rename(tmp_path / "zurich_2023_epsg2056.tif")
    args = ("--out", tmp_path / "o.tif", "--checkpoint", trained)
    result = run("forecast", swiss, *args)
    assert result.exit_code == 0 and "forecast of year 2024" in result.output, result.output
    two = swiss.rename(tmp_path / "plot_1999_2021.tif")
    result = run("forecast", two, *args)
    assert result.exit_code == 2 and "1999 or 2021? give the year (--year)" in result.output
    assert run("forecast", two, *args, "--year", 2021).exit_code == 0
    with rasterio.open(tmp_path / "o.tif") as dst:
        assert dst.tags()["YEAR"] == "2022"


def test_options_of_a_tile_want_a_tile(scene: Path, tmp_path: Path) -> None:
    for words in (("--gt_tif", scene), ("--year", 2021)):
        result = run("inference", "--output", tmp_path / "o", *words)
        assert result.exit_code == 2 and "--input_tif" in result.output

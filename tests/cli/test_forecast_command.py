"""`satjepa forecast`: what it says, what it passes on, when it looks at the files."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from cli_model import Model, run

from satjepa import assemble
from satjepa.config import Params, load_params
from satjepa.training import checkpoint


def test_forecast_writes_what_was_asked_and_says_what_it_did(
    trained: Path, scene: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.tif"
    result = run(
        "forecast",
        scene,
        "--out",
        out,
        "--checkpoint",
        trained,
        "--samples",
        2,
        "--seed",
        7,
        "--steps",
        51,
    )
    assert result.exit_code == 0, result.output
    for word in (
        "51 steps from pure noise, strict zero-RGB",
        "2 samples, seed 7",
        "white 1",
        "forecast of year 2022",
    ):
        assert word in result.output
    with rasterio.open(out) as dst, rasterio.open(scene) as src:
        np.testing.assert_allclose(dst.read()[:3], src.read() - 255 * 0.051, atol=1e-3)
        tags = dst.tags()
    digest = checkpoint.load(trained).state["sha256"][checkpoint.MODEL]
    assert (
        tags["MODEL"] == digest[:12]
        and tags["SEED"] == "7"
        and tags["STRENGTH"] == "1"
        and tags["STEPS"] == "51"
    )


def test_years_white_and_strength_are_passed_on(trained: Path, scene: Path, tmp_path: Path) -> None:
    older = scene.rename(tmp_path / "older.tif")
    newer = tmp_path / "newer.tif"
    newer.write_bytes(older.read_bytes())
    args = (
        "--out",
        tmp_path / "o.tif",
        "--checkpoint",
        trained,
        "--strength",
        0.35,
        "--white",
        0.9,
        "--guidance",
        2,
    )
    result = run("forecast", older, newer, *args, "--year", 2018, "--year", 2019)
    assert result.exit_code == 0, result.output
    for word in (
        "from the last image, strength 0.35: not zero-RGB",
        "guidance 2",
        "history [2018]",
        "white 0.9, as given",
    ):
        assert word in result.output
    tags = rasterio.open(tmp_path / "o.tif").tags()
    assert (tags["YEAR"], tags["SAMPLES"]) == ("2020", str(load_params().sample.samples))


def test_the_white_of_the_training_holds_unless_another_is_given(
    trained: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_white(*args, **kwargs):
        model = from_checkpoint(*args, **kwargs)
        data = model.params.data.model_copy(update={"white": 0.5})
        model.params = model.params.model_copy(update={"data": data})
        return model

    from_checkpoint = assemble.from_checkpoint
    monkeypatch.setattr(assemble, "from_checkpoint", with_white)
    with rasterio.open(scene) as src:
        profile = src.profile
        data = src.read()
    with rasterio.open(tmp_path / "float.tif", "w", **profile | {"dtype": "float32"}) as dst:
        dst.write((data / 255).astype("float32"))
    args = (
        "forecast",
        tmp_path / "float.tif",
        "--out",
        tmp_path / "o.tif",
        "--checkpoint",
        trained,
    )
    assert "white 0.5, as in training" in run(*args).output
    assert "white 0.75, as given" in run(*args, "--white", 0.75).output


def test_files_are_looked_at_before_the_model_is_loaded(
    trained: Path, scene: Path, monkeypatch
) -> None:
    monkeypatch.setattr(assemble, "from_checkpoint", lambda *_, **__: pytest.fail("loaded"))
    for images, out in (
        ([scene, scene], "o.tif"),
        ([trained / "state.json"], "o.tif"),
        ([scene], scene),
    ):
        result = run("forecast", *images, "--out", out, "--checkpoint", trained)
        assert result.exit_code == 2 and "error: " in result.output, result.output


def test_another_backbone_is_refused(
    trained: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(params: Params, device: str) -> Model:
        model = Model(params)
        model.backbone.weight.data += 1
        return model

    monkeypatch.setattr(assemble, "build_model", other)
    result = run("forecast", scene, "--out", tmp_path / "o.tif", "--checkpoint", trained)
    assert result.exit_code == 2 and "restore that backbone, or train again" in result.output

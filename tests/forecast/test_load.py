"""`satjepa.load`: which model is meant, what its forecasts hold, what is written and drawn."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.crs import CRS
from reach import REPO, as_checkout
from shades import PATCH, Joint
from stand_ins import NORTH, SOUTH, pixels, write

import satjepa
from satjepa.data.rasters import GridMismatchError
from satjepa.data.stack import ForecastError
from satjepa.forecast import forecast_raster
from satjepa.forecast import load as module
from satjepa.forecast.blend import Kept
from satjepa.forecast.load import Forecast, Model
from satjepa.forecast.picture import View, draw, middle, part_of
from satjepa.training import checkpoint
from satjepa.training.checkpoint import CheckpointError


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(tmp_path / "model", "0123456789ab", Joint(), None)


@pytest.fixture
def scene(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / f"field_{year}.tif", pixels(year)) for year in (2020, 2021)]


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return write(tmp_path / "true_2022.tif", pixels(2022))


def test_a_forecast_holds_arrays_on_the_grid_of_the_images(model: Model, scene: list) -> None:
    forecast = model.forecast(*scene, samples=4)
    image = pixels(2021) / np.float32(255)
    assert forecast.members.shape == (4, 3, 50, 70) and forecast.members.dtype == np.float32
    assert forecast.mean.dtype == forecast.spread.dtype == np.float32
    np.testing.assert_allclose(forecast.last, image, atol=1e-6)
    np.testing.assert_allclose(forecast.mean, image - 0.015, atol=1e-6)
    np.testing.assert_allclose(forecast.members[3], image - 0.03, atol=1e-6)
    np.testing.assert_allclose(forecast.members.mean(0), forecast.mean, atol=1e-6)
    expected = np.std([0, 0.01, 0.02, 0.03], ddof=1)
    np.testing.assert_allclose(forecast.spread, expected, atol=1e-5)
    assert (forecast.year, forecast.transform) == (2022, NORTH)
    assert forecast.crs == CRS.from_epsg(32633)
    assert repr(forecast) == (
        "Forecast of 2022: 70x50 px, 4 members, from field_2020.tif, field_2021.tif"
    )
    other = model.forecast(*scene, samples=4, seed=7)
    np.testing.assert_allclose(other.mean, image - 0.022, atol=1e-6)


def test_save_writes_what_the_command_line_writes(
    model: Model, scene: list, tmp_path: Path
) -> None:
    forecast = model.forecast(*(str(path) for path in scene))
    saved = forecast.save(tmp_path / "deep" / "a.tif")
    settings = {"patch": PATCH, "history": 1, "tags": model.tags, "log": lambda line: None}
    written = forecast_raster(scene, tmp_path / "b.tif", Joint(), **settings)
    assert saved.read_bytes() == written.read_bytes()
    with rasterio.open(saved) as src:
        assert src.tags()["MODEL"] == "0123456789ab" and src.tags()["STEPS"] == "6"
    for call in (forecast.save, forecast.picture):
        with pytest.raises(ForecastError, match="one of the images"):
            call(scene[0])


def test_arrays_lie_as_the_files_do_and_pictures_north_up(model: Model, tmp_path: Path) -> None:
    path = write(tmp_path / "south_2021.tif", pixels(1), SOUTH)
    forecast = model.forecast(path, samples=1)
    image = pixels(1) / np.float32(255)
    for array in (forecast.last, forecast.mean, forecast.members[0]):
        np.testing.assert_allclose(array, image, atol=1e-6)
    figure = forecast.picture()
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(np.moveaxis(shown, -1, 0), image[:, ::-1], atol=1e-6)


def test_what_is_not_valid_is_nan(model: Model, tmp_path: Path) -> None:
    data = pixels(3)
    data[:, 5:9, 10:20] = 0
    forecast = model.forecast(write(tmp_path / "a_2021.tif", data, nodata=0), samples=2)
    hole = np.zeros((50, 70), bool)
    hole[5:9, 10:20] = True
    for array in (forecast.last, forecast.mean, forecast.spread, *forecast.members):
        np.testing.assert_array_equal(np.isnan(array), np.broadcast_to(hole, (3, 50, 70)))
    shown = np.asarray(forecast.picture().axes[1].images[0].get_array())
    assert np.ptp(shown[hole]) == 0 and shown[hole].min() > 0.9  # paper, no colour of the land


def test_years_and_white_are_passed_on(model: Model, tmp_path: Path) -> None:
    path = write(tmp_path / "field.tif", pixels(1))
    assert model.forecast(path, samples=1).year is None
    assert repr(model.forecast(path, samples=1)).startswith("Forecast of the next year: ")
    forecast = model.forecast(path, samples=1, years=[2019], white=0.9)
    assert forecast.year == 2020
    np.testing.assert_allclose(forecast.last, np.minimum(pixels(1) / 255 / 0.9, 1), atol=1e-6)
    lines = []
    model.forecast(path, samples=1, log=lines.append)
    assert any("white 1, uint8" in line for line in lines)


def test_no_image_is_an_error(model: Model) -> None:
    with pytest.raises(ForecastError, match="no image"):
        model.forecast()


def titles(figure) -> list[str]:
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


def test_the_picture_says_what_is_what(model: Model, scene: list, truth: Path) -> None:
    forecast = model.forecast(*scene, samples=4)
    ours = ["2021: last image", "2022: forecast, mean", "2022: spread of the members"]
    members = [f"2022: member {number}" for number in (1, 2, 3)]
    assert titles(forecast.picture()) == [*ours, *members]
    drawn = forecast.picture(truth=truth)
    assert titles(drawn) == [*ours, "2022: truth", *members, "2022: error of the mean"]
    panels = {ax.get_title(): ax.images[0] for ax in drawn.axes if ax.get_title()}
    error = np.abs(pixels(2021) / 255 - 0.015 - pixels(2022) / 255).mean(0)
    np.testing.assert_allclose(panels["2022: error of the mean"].get_array(), error, atol=1e-5)
    limits = [panels[name].get_clim() for name in (ours[2], "2022: error of the mean")]
    assert limits[0] == limits[1]
    assert titles(model.forecast(scene[1], samples=1).picture())[3:] == ["2022: member 1"]


def test_equal_forecasts_give_equal_pictures(model: Model, scene: list, tmp_path: Path) -> None:
    paths = [model.forecast(*scene).picture(tmp_path / name) for name in ("a.png", "b.png")]
    first, second = (path.read_bytes() for path in paths)
    assert first == second and first.startswith(b"\x89PNG")


def test_a_large_raster_is_shown_in_part() -> None:
    assert middle((1000, 300), 400) == (0, 300, 300, 400)
    ramp = np.arange(3 * 40 * 60, dtype=np.float32).reshape(3, 40, 60) / 7200
    view = View(ramp, ramp, ramp, ramp[None], 2021, (0, 0, 60, 40), (40, 60))
    part = part_of(view, middle(view.shape, 20))
    np.testing.assert_array_equal(part.members[0], ramp[:, 10:30, 20:40])
    assert titles(draw(part))[0] == "2021: last image\nmiddle 20x20 of 60x40 px"
    assert titles(draw(view))[0] == "2021: last image"


def test_members_of_some_columns_are_those_of_the_whole(model: Model, scene: list) -> None:
    from satjepa.forecast import check_files, forecast_images

    whole = model.forecast(*scene, samples=3)
    settings = model.settings(samples=3, kept=Kept(2, 11, 51))  # no tile begins or ends there
    made = forecast_images(check_files(scene, None), model.joint, settings, lambda line: None)
    np.testing.assert_allclose(made.members(5, 38), whole.members[:2, :, 5:38, 11:51], atol=1e-6)


def test_psnr_is_over_what_is_valid_in_both_years(model: Model, tmp_path: Path) -> None:
    last = np.full((3, 40, 40), 100, np.uint8)
    later = last + np.uint8(10)
    later[:, :5] = 0
    last[:, :, :5] = 0
    image = write(tmp_path / "a_2021.tif", last, nodata=0)
    forecast = model.forecast(image, samples=1, seed=20)
    ours, persistence = forecast.psnr(write(tmp_path / "a_2022.tif", later, nodata=0))
    assert persistence == pytest.approx(-20 * np.log10(10 / 255), abs=1e-3)
    assert ours == pytest.approx(-20 * np.log10(10 / 255 + 0.02), abs=1e-3)


@pytest.mark.parametrize("call", [Forecast.psnr, lambda f, truth: f.picture(truth=truth)])
def test_a_truth_of_another_year_or_place_is_refused(
    call, model: Model, scene: list, truth: Path, tmp_path: Path
) -> None:
    forecast = model.forecast(*scene, samples=1)
    call(forecast, truth)
    with pytest.raises(ForecastError, match=r"true_2023\.tif is of 2023 .*the forecast is of 2022"):
        call(forecast, truth.rename(tmp_path / "true_2023.tif"))
    with pytest.raises(GridMismatchError, match=r"moved_2022\.tif"):
        call(forecast, write(tmp_path / "moved_2022.tif", pixels(1), SOUTH))


def test_the_run_of_the_pipeline_is_meant_else_the_shipped_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SATJEPA_PARAMS", str(REPO / "params.yaml"))
    monkeypatch.chdir(as_checkout(tmp_path))
    with pytest.raises(
        CheckpointError, match=r"(?s)runs/satjepa-0/model.*make repro.*git checkout"
    ):
        module.default_checkpoint()
    shipped = tmp_path / module.SHIPPED_MODEL
    trained = tmp_path / "runs/satjepa-0/model"
    for folder in (shipped, trained):
        checkpoint.save(folder, {"w": torch.zeros(1)}, {}, {"step": 1}, None)
        assert module.default_checkpoint() == folder


def test_load_is_a_call_of_the_package() -> None:
    assert satjepa.load is module.load
    assert "load" in dir(satjepa)

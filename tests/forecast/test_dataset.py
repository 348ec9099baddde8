"""xarray in, xarray out: the forecast of a Dataset is that of the same images as files."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.crs import CRS
from shades import Joint
from stand_ins import NORTH, pixels, write

from satjepa.data.stack import ForecastError
from satjepa.forecast.load import Model

WKT = CRS.from_epsg(32633).to_wkt()
GEOTRANSFORM = "300000.0 10.0 0.0 5000000.0 0.0 -10.0"
YEARS = (2020, 2021)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(tmp_path / "model", "0123456789ab", Joint(), None)


def cube(values: np.ndarray, **attrs: object) -> xr.DataArray:
    """(T,3,H,W) as rioxarray has it: place in spatial_ref, centres as coordinates."""
    height, width = values.shape[2:]
    coords = {
        "time": np.array([f"{year}-07-01" for year in YEARS], "datetime64[ns]")[: len(values)],
        "y": 5000000 - 10 * (np.arange(height) + 0.5),
        "x": 300000 + 10 * (np.arange(width) + 0.5),
        "spatial_ref": ((), 0, {"crs_wkt": WKT, "GeoTransform": GEOTRANSFORM}),
    }
    array = xr.DataArray(values, coords, ("time", "band", "y", "x"), "rgb", attrs)
    array.encoding["grid_mapping"] = "spatial_ref"
    return array


def numbers(kind: str) -> tuple[np.ndarray, dict, dict]:
    """Two images of a type, profile of their files, attributes of their arrays."""
    images = np.stack([pixels(year) for year in YEARS])
    if kind == "uint8":
        return images, {}, {}
    if kind == "float32":
        images = (images / np.float32(255) * np.float32(0.9)).astype(np.float32)
        images[1, :, 5:9, 10:20] = np.nan
        return images, {"nodata": np.nan}, {}
    images = images.astype(np.uint16) * 20 + 1500
    images[1, :, 5:9, 10:20] = 9
    return images, {"nodata": 9}, {"_FillValue": 9, "scale_factor": 1e-4, "add_offset": -0.1}


def files(folder: Path, images: np.ndarray, profile: dict, attrs: dict) -> list[Path]:
    paths = [folder / f"field_{year}.tif" for year in YEARS]
    for path, image in zip(paths, images, strict=True):
        write(path, image, **profile)
        if "scale_factor" in attrs:
            with rasterio.open(path, "r+") as dst:
                dst.scales = [attrs["scale_factor"]] * 3
                dst.offsets = [attrs["add_offset"]] * 3
    return paths


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_it_is_the_forecast_of_the_same_images_as_files(
    kind: str, model: Model, tmp_path: Path
) -> None:
    images, profile, attrs = numbers(kind)
    forecast = model.forecast(*files(tmp_path, images, profile, attrs), samples=4, seed=3)
    found = model.forecast(cube(images, **attrs), samples=4, seed=3)
    with rasterio.open(forecast.save(tmp_path / "out.tif")) as src:
        bands = np.where(np.isnan(forecast.mean[:1]), np.nan, src.read())
        seed = src.tags()["SEED"]
    assert found["mean"].dtype == np.float32 and found["mean"].dims == ("band", "y", "x")
    np.testing.assert_array_equal(found["mean"], bands[:3])
    np.testing.assert_array_equal(found["spread"], bands[3:])
    assert np.isnan(found["mean"].values).any() == (kind != "uint8")
    assert found["members"].dims == ("member", "band", "y", "x") and len(found.member) == 4
    mean = found["members"].mean("member", skipna=False)
    np.testing.assert_allclose(mean, found["mean"], rtol=1e-5)
    assert (found.attrs["seed"], found.attrs["model"], seed) == ("3", "0123456789ab", "3")


def test_the_place_comes_back_as_cf_has_it(model: Model) -> None:
    data = cube(numbers("uint8")[0])
    found = model.forecast(data, samples=2)
    place = found["spatial_ref"].attrs
    assert CRS.from_wkt(place["crs_wkt"]) == CRS.from_epsg(32633)
    assert place["GeoTransform"] == GEOTRANSFORM
    assert found["mean"].encoding["grid_mapping"] == "spatial_ref"
    np.testing.assert_array_equal(found["x"], data["x"])
    np.testing.assert_array_equal(found["y"], data["y"])
    assert list(found["band"].values) == ["red", "green", "blue"]
    assert found["time"].values == np.datetime64("2022-07-01")


@pytest.mark.filterwarnings("ignore")  # of its own use of affine
def test_rioxarray_reads_the_place(model: Model) -> None:
    pytest.importorskip("rioxarray")
    found = model.forecast(cube(numbers("uint8")[0]), samples=2)
    assert found["mean"].rio.crs == CRS.from_epsg(32633) == found.rio.crs
    assert found["mean"].rio.transform() == NORTH


def test_a_part_cut_out_lies_where_its_coordinates_say(model: Model) -> None:
    """`isel` leaves the GeoTransform as it was."""
    part = cube(numbers("uint8")[0]).isel(y=slice(7, None), x=slice(4, None))
    place = model.forecast(part, samples=2)["spatial_ref"].attrs
    assert place["GeoTransform"] == "300040.0 10.0 0.0 4999930.0 0.0 -10.0"


def test_rows_from_the_south_stay_so(model: Model) -> None:
    data = cube(numbers("uint8")[0])
    found = model.forecast(data.isel(y=slice(None, None, -1)), samples=2)
    plain = model.forecast(data, samples=2)
    np.testing.assert_array_equal(found["y"], data["y"][::-1])
    np.testing.assert_array_equal(found["mean"], plain["mean"][:, ::-1])


def test_decoded_numbers_are_those_that_were_stored(model: Model, tmp_path: Path) -> None:
    images, _, attrs = numbers("uint16")
    raw = cube(images, **attrs)
    raw.encoding.clear()
    raw.to_dataset().to_zarr(tmp_path / "a.zarr", consolidated=False)
    with xr.open_zarr(tmp_path / "a.zarr", consolidated=False) as decoded:
        assert decoded["rgb"].dtype.kind == "f" and bool(decoded["rgb"].isnull().any())
        found = model.forecast(decoded, samples=2)
    stored = model.forecast(raw, samples=2)
    assert "scale_factor" not in found["mean"].attrs
    assert stored["mean"].attrs["add_offset"] == -0.1
    assert stored["spread"].attrs["add_offset"] == 0
    expected = (stored["mean"].astype("f8") * 1e-4 - 0.1).astype("f4")
    np.testing.assert_array_equal(found["mean"], expected)
    np.testing.assert_allclose(found["spread"], stored["spread"] * 1e-4, rtol=1e-6)
    np.testing.assert_allclose(found["members"].mean("member"), found["mean"], atol=1e-6)


def test_what_was_changed_since_it_was_decoded_counts_as_it_is(model: Model) -> None:
    images = numbers("float32")[0]
    data = cube(images)
    data.encoding |= {"dtype": "uint8", "scale_factor": 0.004}
    found = model.forecast(data, samples=2)
    np.testing.assert_array_equal(found["mean"], model.forecast(cube(images), samples=2)["mean"])


def test_variables_and_bands_go_by_their_names(model: Model) -> None:
    data = cube(numbers("uint8")[0])
    expected = model.forecast(data, samples=2)["mean"]
    names = dict(enumerate(("B04", "B03", "B02")))
    split = xr.Dataset({names[i]: data.isel(band=i) for i in (2, 0, 1)})
    np.testing.assert_array_equal(model.forecast(split, samples=2)["mean"], expected)
    infrared = data.assign_coords(band=["B08", "B11", "B12"])
    with pytest.raises(ForecastError, match="b08"):
        model.forecast(infrared)
    four = data.isel(band=[2, 1, 0, 0]).assign_coords(band=["blue", "green", "red", "nir"])
    np.testing.assert_array_equal(model.forecast(four, samples=2)["mean"], expected)


def test_years_are_put_in_order(model: Model) -> None:
    data = cube(numbers("uint8")[0])
    expected = model.forecast(data, samples=2)
    turned = model.forecast(data.isel(time=[1, 0]), samples=2)
    np.testing.assert_array_equal(turned["mean"], expected["mean"])
    years = data.assign_coords(time=list(YEARS)).rename(time="year")
    found = model.forecast(years, samples=2)
    assert found["year"] == 2022
    np.testing.assert_array_equal(found["mean"], expected["mean"])


def test_a_lone_image_needs_no_time_and_no_place(model: Model) -> None:
    data = cube(numbers("uint8")[0]).isel(time=1)
    found = model.forecast(data, samples=2)
    assert found["time"].values == np.datetime64("2022-07-01") and found.attrs["year"] == "2022"
    bare = model.forecast(xr.DataArray(data.values, dims=("band", "y", "x")), samples=2)
    np.testing.assert_array_equal(bare["mean"], found["mean"])
    assert "time" not in bare and "crs_wkt" not in bare["spatial_ref"].attrs


ODD = {
    "no bands": (lambda a: a.isel(band=0), "needed are band, y and x"),
    "two of four bands": (lambda a: a.isel(band=[0, 1, 2, 2]), "bands .*needed are red, green"),
    "one year twice": (lambda a: a.isel(time=[0, 0]), "one image a year"),
    "words": (lambda a: a.astype(str), "numbers are needed"),
    "a gap": (lambda a: a.isel(x=[0, 1, 2, 9]), "x is not evenly spaced"),
    "a column": (
        lambda a: a.isel(x=[0]).drop_vars("spatial_ref"),
        "one pixel along x, and no GeoTransform",
    ),
    "more": (lambda a: a.expand_dims(orbit=[1]), "dimension 'orbit'"),
    "no years": (lambda a: a.drop_vars("time"), "time has no coordinate"),
    "numbers of 16 bits": (
        lambda a: a.astype("f4") * 30,
        r"^image_2020\.tif: found float32 values from",
    ),
    "holes only": (lambda a: (a / 255).where(a.time != a.time[1]), "no valid pixel"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_cannot_be_forecast_is_said_in_one_line(name: str, model: Model) -> None:
    change, message = ODD[name]
    with pytest.raises(ForecastError, match=message) as caught:
        model.forecast(change(cube(numbers("uint8")[0])), samples=2)
    assert "\n" not in str(caught.value) and "/tmp" not in str(caught.value)

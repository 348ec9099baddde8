"""Rasters in, rasters out: georeference, units, nodata, with forecasters that need no weights."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from forecast_files import NORTH, ROTATED, Sees, image, quiet, write
from rasterio.transform import Affine

from satjepa.baselines.persistence import Persistence
from satjepa.data.errors import BandCountError, CorruptRasterError, GridMismatchError, ScaleError
from satjepa.data.stack import ForecastError, year_of
from satjepa.forecast import BANDS, forecast_raster


def test_pixel_is_point_keeps_its_grid(tmp_path: Path) -> None:
    path = write(tmp_path / "a_2019.tif", image(64, 64))
    with rasterio.open(path, "r+") as dst:
        dst.update_tags(AREA_OR_POINT="Point")
    out = forecast_raster(path, tmp_path / "o.tif", Persistence(), patch=64, **quiet)
    with rasterio.open(path) as src, rasterio.open(out) as dst:
        assert (
            dst.transform == src.transform
            and dst.tags()["AREA_OR_POINT"] == src.tags()["AREA_OR_POINT"] == "Point"
        )


@pytest.mark.parametrize(
    ("height", "width", "dtype", "transform", "crs", "nodata"),
    [
        (100, 65, "uint8", NORTH, 32633, None),  # a remainder of one pixel
        (64, 64, "uint16", NORTH, 32733, 0),  # southern UTM
        (20, 31, "float32", ROTATED, 3035, -9999.0),  # smaller than a tile
        (70, 9, "float32", NORTH, 4326, None),
        (64, 129, "uint8", ROTATED, 32633, 255),
    ],
)
def test_persistence_comes_back_on_the_same_grid_in_the_same_units(
    tmp_path: Path,
    height: int,
    width: int,
    dtype: str,
    transform: Affine,
    crs: int,
    nodata: float | None,
) -> None:
    data = image(height, width, dtype)
    hole = np.zeros((height, width), bool)
    if nodata is not None:
        hole[3:9, 4:20] = True
        data[:, hole] = nodata
    path = write(tmp_path / "a_2019.tif", data, transform, crs, nodata=nodata)
    out = forecast_raster(
        path, tmp_path / "deep" / "out.tif", Persistence(), patch=64, samples=2, **quiet
    )
    with rasterio.open(path) as src, rasterio.open(out) as dst:
        assert (dst.crs, dst.transform, dst.shape, dst.nodata) == (
            src.crs,
            src.transform,
            src.shape,
            src.nodata,
        )
        assert dst.count == 6 and set(dst.dtypes) == {"float32"} and dst.descriptions == BANDS
        got = dst.read()
        mask = dst.read_masks()
    assert ((mask == 0).all(0) == hole).all() and ((mask == 0).any(0) == hole).all()
    scale = {"uint8": 255, "uint16": 1e4, "float32": 1}[dtype]
    np.testing.assert_allclose(got[:3, ~hole], data[:, ~hole], atol=2e-6 * scale)
    assert got[3:, ~hole].max() < 1e-6 * scale


def test_holes_without_a_nodata_value_become_nan(tmp_path: Path) -> None:
    data = image(64, 64, "float32")
    data[1, 10:12, 5] = np.nan
    out = forecast_raster(
        write(tmp_path / "a.tif", data), tmp_path / "o.tif", Persistence(), patch=64, **quiet
    )
    with rasterio.open(out) as dst:
        got = dst.read()
        assert np.isnan(dst.nodata)
    expected = np.zeros((64, 64), bool)
    expected[10:12, 5] = True
    assert (np.isnan(got) == expected).all()


def test_valid_pixels_never_get_the_nodata_number(tmp_path: Path) -> None:
    data = np.full((3, 64, 64), 7, np.uint8)
    data[:, :5] = 0
    path = write(tmp_path / "a_2019.tif", data, nodata=0)
    out = forecast_raster(path, tmp_path / "o.tif", Persistence(), patch=64, samples=1, **quiet)
    with rasterio.open(
        out
    ) as dst:  # one sample: the spread is 0 everywhere, which is the nodata number
        assert (dst.read_masks()[:, 5:] > 0).all() and (dst.read_masks()[:, :5] == 0).all()
        assert dst.read()[3:, 5:].max() < 1e-5


def test_the_model_sees_the_display_scale_and_the_log_says_what_was_done(tmp_path: Path) -> None:
    data = np.full((3, 64, 64), 0.1779, np.float32)
    data[:, :, 32:] = 0.39
    seen = Sees()
    lines = []
    paths = [write(tmp_path / f"a_{year}.tif", data) for year in (2015, 2016, 2018, 2019)]
    forecast_raster(
        paths,
        tmp_path / "o.tif",
        seen,
        patch=64,
        history=2,
        seed=3,
        log=lines.append,
        tags={"MODEL": "m"},
    )
    assert seen.batches[0]["rgb_t"][0, 0, 0, 0].item() == pytest.approx(0.5)
    assert seen.batches[0]["rgb_t"].max() == 1 and seen.batches[0]["history_valid"].tolist() == [
        [True, False]
    ]
    text = "\n".join(lines)
    for word in (
        "year 2019: a_2019.tif, 64x64 px, 100.0% valid; history [2018]; [2016, 2015] not used",
        "white 0.3558",
        "50.0% of the pixels",
        "1 tiles of 64x64 px",
        "8 samples, seed 3",
        "forecast of year 2020",
    ):
        assert word in text, text
    with rasterio.open(tmp_path / "o.tif") as dst:
        tags = dst.tags()
    expected = {"YEAR": "2020", "SEED": "3", "SAMPLES": "8", "WHITE": "0.3558", "MODEL": "m"}
    assert expected.items() <= tags.items() and tags["INPUTS"] == "a_2018.tif, a_2019.tif"


def test_bad_input_is_a_typed_error_and_leaves_nothing(tmp_path: Path) -> None:
    good = write(tmp_path / "g_2019.tif", image(64, 64))
    cases = {
        "bands": (BandCountError, write(tmp_path / "b_2018.tif", image(64, 64)[:2])),
        "grid": (
            GridMismatchError,
            write(tmp_path / "c_2018.tif", image(64, 64), NORTH @ Affine.translation(3, 0)),
        ),
        "scale": (
            ScaleError,
            write(tmp_path / "d_2018.tif", np.full((3, 64, 64), 60000, np.uint16)),
        ),
        "none": (
            ForecastError,
            write(tmp_path / "e_2020.tif", np.zeros((3, 64, 64), np.uint8), nodata=0),
        ),
    }
    (tmp_path / "t_2018.tif").write_bytes(good.read_bytes()[:3000])
    cases["truncated"] = (CorruptRasterError, tmp_path / "t_2018.tif")
    out = tmp_path / "out" / "o.tif"
    for kind, (error, path) in cases.items():
        with pytest.raises(error):
            forecast_raster(
                sorted([path, good], key=year_of), out, Persistence(), patch=64, history=1, **quiet
            )
        assert not out.exists(), kind
    with pytest.raises(ForecastError, match="overlap 64"):
        forecast_raster(good, out, Persistence(), patch=64, overlap=64, **quiet)


def test_an_output_that_cannot_be_is_refused_before_the_forecast(tmp_path: Path) -> None:
    good = write(tmp_path / "g_2019.tif", image(64, 64))
    before = good.read_bytes()
    (tmp_path / "file").write_text("no folder")
    for out, says in ((tmp_path / "x/../g_2019.tif", "written over"), (tmp_path, "is a folder"),
                      (tmp_path / "file/o.tif", "nothing can be written")):  # fmt: skip
        with pytest.raises(ForecastError, match=says):
            forecast_raster(good, out, None, patch=64, **quiet)
    assert good.read_bytes() == before


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = write(tmp_path / "g_2019.tif", image(64, 64))
    out = tmp_path / "o.tif"
    out.write_text("old")

    def full(self, **tags) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(rasterio.io.DatasetWriter, "update_tags", full)
    with pytest.raises(OSError, match="No space"):
        forecast_raster(good, out, Persistence(), patch=64, **quiet)
    assert out.read_text() == "old" and sorted(p.name for p in tmp_path.iterdir()) == [
        "g_2019.tif",
        "o.tif",
    ]


def test_real_sentinel_2_keeps_its_grid_and_values(tmp_path: Path, shared: Path) -> None:
    paths = sorted((shared / "data" / "RomaniaForest").glob("*_201[78]_*.tif"))
    forecast_raster(
        paths, tmp_path / "o.tif", Persistence(), patch=64, history=2, samples=2, **quiet
    )
    with rasterio.open(paths[-1]) as src, rasterio.open(tmp_path / "o.tif") as dst:
        assert (dst.crs, dst.transform, dst.shape, dst.nodata) == (
            src.crs,
            src.transform,
            (100, 100),
            None,
        )
        np.testing.assert_allclose(dst.read()[:3], src.read(), atol=1e-6)
        assert dst.tags()["WHITE"] == "0.3558" and dst.tags()["YEAR"] == "2019"

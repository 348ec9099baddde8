"""What is told before the work: everything that the files alone can tell."""

import os
from pathlib import Path

import pytest
from forecast_files import NORTH, image, quiet, write
from rasterio.transform import Affine

from satjepa.data.errors import GridMismatchError
from satjepa.data.stack import ForecastError
from satjepa.forecast import check_files, check_output, forecast_raster, local_file
from satjepa.forecast.request import check_folder


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("https://host.example/a/b_2019.tif?x=1", "https://host.example/a/b_2019.tif?x=1 is a URL"),
        (Path("https://host.example/a_2019.tif"), "https://host.example/a_2019.tif is a URL"),
        (Path("s3://bucket/a_2019.tif"), "s3://bucket/a_2019.tif is a URL"),
        (Path("/vsicurl/https://host.example/a.tif"), "no file on this disk"),
        ("/vsizip/a.zip/a.tif", "no file on this disk"),
    ],
)
def test_a_url_is_called_one(tmp_path: Path, path: str | Path, says: str) -> None:
    good = write(tmp_path / "g_2019.tif", image(64, 64))
    with pytest.raises(ForecastError) as error:
        forecast_raster(path, tmp_path / "o.tif", None, patch=64, **quiet)
    assert says in str(error.value)
    with pytest.raises(ForecastError) as error:
        forecast_raster(good, path, None, patch=64, **quiet)
    assert says in str(error.value)


def test_a_file_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s3:").mkdir()
    Path("s3:/a.tif").touch()
    assert local_file("s3:/a.tif") == Path("s3:/a.tif")
    assert local_file("gone.tif") == Path("gone.tif")


def test_where_nothing_can_be_written_is_found_first(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for folder in ("file", "file/deeper", "/proc/deeper"):
        with pytest.raises(ForecastError, match="nothing can be written to"):
            check_folder(tmp_path / folder)
        with pytest.raises(ForecastError, match="nothing can be written to"):
            check_output(tmp_path / folder / "o.tif")
    check_folder(tmp_path / "new/and/deep")
    check_output(tmp_path / "new/and/deep/o.tif")
    for out, says in ((tmp_path, "is a folder"), ("/dev/null", "no regular file")):
        with pytest.raises(ForecastError, match=says):
            check_output(out)
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]


def test_an_image_is_not_written_over_by_any_name(tmp_path: Path) -> None:
    good = write(tmp_path / "g_2019.tif", image(64, 64))
    (tmp_path / "link.tif").symlink_to(good)
    for out in (good, tmp_path / "x/../g_2019.tif", tmp_path / "link.tif"):
        with pytest.raises(ForecastError, match="would be written over"):
            check_files([good], out)


def test_years_apart_in_place_are_refused_before_the_work(tmp_path: Path) -> None:
    first = write(tmp_path / "a_2018.tif", image(64, 64))
    moved = write(tmp_path / "b_2019.tif", image(64, 64), NORTH @ Affine.translation(1, 0))
    with pytest.raises(GridMismatchError, match="warp it onto that grid first"):
        check_files([first, moved], tmp_path / "o.tif")
    request = check_files([first, first], tmp_path / "o.tif", [2018, 2019])
    assert request.years == (2018, 2019) and request.place.transform == NORTH

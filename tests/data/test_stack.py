"""The images of a scene: years, whites, one grid, north up."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from forecast_files import image, write
from rasterio.transform import Affine

from satjepa.data.display import display_white
from satjepa.data.errors import GridMismatchError
from satjepa.data.stack import ForecastError, read_stack, whites_of, year_of, years_of


@pytest.mark.parametrize(
    ("name", "year"),
    [
        ("s2_rgb_X_2019_10km", 2019),
        ("s2_rgb_Area_2010_2023_10km", 2023),
        ("s2_rgb_X_2023_epsg_2056", 2023),
        ("zurich_2023_epsg2056", 2023),
        ("EPSG-2056 zurich 2023", 2023),
        ("roi_2023_2048px", 2023),
        ("tile_2099_2022", 2022),  # not yet
        ("2022-07-15", 2022),
        ("field2021", 2021),
        ("tile_2019", 2019),
        ("m_20190818_scene", None),  # a date is not a year
        ("zurich_epsg2056", None),
        ("crs_2000", None),
        ("mosaic_2000px", None),
        ("2017_to_2018", None),  # which?
        ("plot_1999_2021", None),
    ],
)
def test_the_year_is_the_one_that_is_clear(name: str, year: int | None) -> None:
    assert year_of(f"a/2016/{name}.tif") == year


def test_years_come_from_names_or_are_given() -> None:
    a = Path("a_2017.tif")
    b = Path("b_2018.tif")
    c = Path("c.tif")
    both = Path("plot_1999_2021.tif")
    assert years_of([a, b]) == (2017, 2018)
    assert years_of([c]) == (None,) and years_of([c], [2020]) == (2020,)
    assert years_of([a, c], [2020]) == (2017, 2020)
    assert years_of([c, a], [2001, 2002]) == (2001, 2002)
    assert years_of([both], [2021]) == (2021,)
    for paths, given, match in [
        ([b, a], None, "years 2018, 2017: give the images from oldest to newest"),
        ([a, a], None, "years 2017, 2017"),
        ([c, a], None, r"c\.tif: no year in the name; give the year of each image.*--year"),
        ([both], None, r"plot_1999_2021\.tif: 1999 or 2021\? give the year \(--year\)"),
        ([both, a], None, r"1999 or 2021\?.*--year"),
        ([a, b, c], [1, 2], "2 years for 3 images"),
    ]:
        with pytest.raises(ForecastError, match=match):
            years_of(paths, given)


def test_the_scale_is_told_by_type_and_range(tmp_path: Path) -> None:
    assert display_white(write(tmp_path / "a.tif", image(9, 9) // 4)) == (
        1.0,
        "uint8 display imagery",
    )
    assert display_white(write(tmp_path / "b.tif", image(9, 9, "uint16")))[0] == 0.3558
    dark = image(30, 30, "float32")
    dark[0, 0, 0] = 0.95  # one bright roof changes nothing
    assert display_white(write(tmp_path / "c.tif", dark)) == (
        0.3558,
        "taken as reflectance: 99% of the values are below 0.31",
    )
    white, why = display_white(write(tmp_path / "d.tif", np.minimum(dark * 3, 1)))
    assert white == 1.0 and "display imagery" in why
    assert display_white(tmp_path / "d.tif", 0.5, trained=0.4) == (0.5, "as given")
    assert display_white(tmp_path / "d.tif", trained=0.4) == (0.4, "as in training")
    assert display_white(tmp_path / "a.tif", trained=0.4)[0] == 1.0


LAND = np.random.default_rng(0).normal(0.45, 0.1, (3, 40, 50)).clip(0.02, 0.98)  # as displayed
STORED = {
    "uint8": np.rint(LAND * 255).astype(np.uint8),
    "uint16": np.rint(LAND * 3558).astype(np.uint16),
    "float32": (LAND * 0.3558).astype(np.float32),
    "float64": LAND * 0.3558,
}


@pytest.mark.parametrize("trained", [None, 0.3558])
@pytest.mark.parametrize("older", STORED)
@pytest.mark.parametrize("newer", STORED)
def test_each_image_has_the_white_of_its_own_type(
    tmp_path: Path, newer: str, older: str, trained: float | None
) -> None:
    """The same land in two types is the same land."""
    paths = [write(tmp_path / "a_2021.tif", STORED[older])]
    paths.append(write(tmp_path / "a_2022.tif", STORED[newer]))
    whites = [white for white, _ in whites_of(paths, None, trained)]
    stack = read_stack(paths, (2021, 2022), whites)
    np.testing.assert_allclose(stack.rgb, np.stack([LAND, LAND]), atol=3e-3)
    assert stack.white == (1.0 if newer == "uint8" else 0.3558) and stack.saturated == 0


def test_tags_count_as_a_type(tmp_path: Path) -> None:
    """int16 and uint16 with scale and offset beside a display image of the same land."""
    numbers = np.rint(LAND * 3558 + 1000)
    for dtype in ("int16", "uint16"):
        path = write(tmp_path / f"{dtype}_2021.tif", numbers.astype(dtype))
        with rasterio.open(path, "r+") as dst:
            dst.scales = [1e-4] * 3
            dst.offsets = [-0.1] * 3
        paths = [path, write(tmp_path / "a_2022.tif", STORED["uint8"])]
        whites = [white for white, _ in whites_of(paths)]
        stack = read_stack(paths, (2021, 2022), whites)
        np.testing.assert_allclose(stack.rgb[1], LAND, atol=3e-3)


def test_a_given_white_is_that_of_the_last_images_type(tmp_path: Path) -> None:
    float_ = write(tmp_path / "a_2021.tif", STORED["float32"])
    short = write(tmp_path / "a_2022.tif", STORED["uint16"])
    bytes_ = write(tmp_path / "a_2023.tif", STORED["uint8"])
    assert [white for white, _ in whites_of([float_, short], 0.3)] == [0.3, 0.3]
    assert [white for white, _ in whites_of([bytes_, short], 0.3)] == [1.0, 0.3]
    assert [white for white, _ in whites_of([short, bytes_], 0.9)] == [0.3558, 0.9]
    for white in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ForecastError, match="a number above 0"):
            whites_of([bytes_], white)


SINUSOIDAL = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"
MODIS = (
    'PROJCS["MODIS Sinusoidal",GEOGCS["Unknown",DATUM["unnamed",SPHEROID["sphere",6371007.181,0]],'
    'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Sinusoidal"],'
    'PARAMETER["longitude_of_center",0],PARAMETER["false_easting",0],PARAMETER["false_northing",0],'
    'UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
)


def test_a_crs_is_the_same_however_it_is_spelt(tmp_path: Path) -> None:
    paths = []
    for year, text in ((2021, SINUSOIDAL), (2022, MODIS), (2023, "EPSG:3035")):
        crs = rasterio.CRS.from_user_input(text)
        paths.append(write(tmp_path / f"a_{year}.tif", STORED["uint8"], crs=crs))
    crs = [rasterio.open(path).crs for path in paths]
    assert crs[0].to_wkt() != crs[1].to_wkt() and crs[0] == crs[1]
    assert read_stack(paths[:2], (2021, 2022), (1.0, 1.0)).rgb.shape == (2, 3, 40, 50)
    with pytest.raises(GridMismatchError, match="found CRS EPSG:3035 instead of") as error:
        read_stack(paths[::-2], (2021, 2022), (1.0, 1.0))
    assert len(str(error.value)) < 500  # no pages of WKT


def test_a_stack_is_north_up(tmp_path: Path) -> None:
    data = STORED["uint8"].copy()
    data[:, :5, :7] = 0
    north_up = read_stack([write(tmp_path / "n.tif", data, nodata=0)], [None], [1.0])
    south_up = write(tmp_path / "s.tif", data[:, ::-1], Affine(10, 0, 3e5, 0, 10, 4e6), nodata=0)
    stack = read_stack([south_up], [None], [1.0])
    np.testing.assert_array_equal(stack.rgb, north_up.rgb)
    np.testing.assert_array_equal(stack.valid, north_up.valid)

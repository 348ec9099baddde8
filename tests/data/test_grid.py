"""Two grids are the same where the library says so; an array is brought north up, pixel for
pixel.
"""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import rasterio
from affine import Affine

from satjepa.data.cube import build_cube
from satjepa.data.errors import GridMismatchError
from satjepa.data.grid import Grid, same_crs, upright
from satjepa.data.rasters import facts, read_rgb
from satjepa.data.scenes import find_scenes

SINUSOIDAL = (
    'PROJCS["{}",GEOGCS["{}",DATUM["{}",SPHEROID["{}",6371007.181,0]],PRIMEM["Greenwich",0],'
    'UNIT["degree",0.0174532925199433]],PROJECTION["Sinusoidal"],'
    'PARAMETER["longitude_of_center",0],PARAMETER["false_easting",0],'
    'PARAMETER["false_northing",0],UNIT["metre",1]]'
)
ONE = SINUSOIDAL.format("MODIS Sinusoidal", "Unknown", "Unknown", "MODIS sphere")
OTHER = SINUSOIDAL.format("unnamed", "sphere", "unknown", "based on a sphere")


def test_a_crs_is_compared_by_the_library():
    assert same_crs(ONE, OTHER) and same_crs("EPSG:32635", "epsg:32635") and same_crs("", "")
    assert not same_crs(ONE, OTHER.replace("6371007.181", "6378137"))
    assert not same_crs("EPSG:32635", "EPSG:32636") and not same_crs("EPSG:32635", "")
    assert not same_crs("EPSG:32635", "nonsense") and same_crs("nonsense", "nonsense")


def test_two_spellings_are_one_grid_in_a_data_set(tmp_path, make):
    """The first year lies elsewhere: it is alone, though no two files agree in letters."""
    for year, crs in ((2018, "EPSG:32635"), (2019, ONE), (2020, OTHER)):
        values = np.full((3, 48, 48), year - 2000, np.uint8)
        make.tif(make.rgb_path(tmp_path, "Alpha", year), values, crs=crs)
    assert facts(make.rgb_path(tmp_path, "Alpha", 2020), 3).grid.crs != (
        facts(make.rgb_path(tmp_path, "Alpha", 2019), 3).grid.crs
    )
    scenes = find_scenes(tmp_path, on_bad="exclude")
    assert [s.year for s in scenes] == [2019, 2020]
    assert [type(error) for _, error in scenes.excluded] == [GridMismatchError]
    make.rgb_path(tmp_path, "Alpha", 2018).unlink()
    cube = build_cube(find_scenes(tmp_path), tmp_path / "a.zarr")
    assert cube["rgb"].values.max(axis=(1, 2, 3)).tolist() == [19, 20]


def test_a_crs_in_a_message_is_short():
    one, other = (Grid(crs, (10, 0, 0, 0, -10, 0), 4, 4) for crs in (ONE, "EPSG:32635"))
    difference = one.difference(other)
    assert difference.startswith('CRS EPSG:32635 instead of PROJCS["MODIS Sinusoidal",')
    assert len(difference) < 120 and other.difference(replace(one, crs="")).startswith("CRS none")


NORTH_UP = Affine(10, 0, 400_000, 0, -10, 5_200_000)


@pytest.mark.parametrize(("exchanged", "south_up", "east_left"), [*product((0, 1), repeat=3)])
def test_every_order_of_rows_and_columns_is_brought_north_up(exchanged, south_up, east_left):
    """The map is known; each file stores it in another order, and each comes back as the map."""
    world = np.arange(24.0).reshape(4, 6)
    stored, transform = world, NORTH_UP
    if east_left:
        stored, transform = stored[:, ::-1], transform @ Affine(-1, 0, 6, 0, 1, 0)
    if south_up:
        stored, transform = stored[::-1], transform @ Affine(1, 0, 0, 0, -1, 4)
    if exchanged:
        stored, transform = stored.T, transform @ Affine(0, 1, 0, 1, 0, 0)
    grid = Grid("EPSG:32635", tuple(transform)[:6], *stored.shape)
    np.testing.assert_array_equal(upright(stored, grid.turn), world)
    assert grid.turned() == Grid("EPSG:32635", tuple(NORTH_UP)[:6], 4, 6)
    np.testing.assert_array_equal(upright(stored[None, None], grid.turn)[0, 0], world)


@pytest.mark.parametrize("angle", [-30, 0, 30])
@pytest.mark.parametrize("quarter", [0, 90, 180, 270])
def test_a_rotated_grid_is_turned_by_the_nearest_quarter(angle, quarter):
    transform = NORTH_UP @ Affine.rotation(angle + quarter)
    grid = Grid("", tuple(transform)[:6], 8, 8)
    turned = grid.turned()
    a, b, _, d, e, _ = turned.transform
    assert a > 8 and e < -8 and abs(b) < 6 and abs(d) < 6
    assert any(grid.turn) == (quarter != 0)


def test_a_raster_without_georeference_is_taken_as_upright():
    assert not any(Grid("", (1, 0, 0, 0, 1, 0), 4, 6).turn)


def test_a_south_up_scene_lies_north_up_in_the_cube(tmp_path, make):
    region = tmp_path / "scenes"
    make.region(region, "Alpha", [2018, 2019], truth=True)
    upward = build_cube(find_scenes(region), tmp_path / "cubes" / "a.zarr", "p").load()
    for path in region.rglob("*.tif"):
        with rasterio.open(path) as src:
            values, profile = src.read(), src.profile
        options = {"nodata": profile["nodata"], "interleave": profile["interleave"]}
        turned = Affine(10, 0, 400_000, 0, 10, 5_200_000 - 480)
        make.tif(path, values[:, ::-1].copy(), turned, **options)
    scenes = find_scenes(region)
    cube = build_cube(scenes, tmp_path / "cubes" / "b.zarr", "p").load()
    assert cube.identical(upward)
    south_up = read_rgb(scenes[0].rgb)[0]
    np.testing.assert_array_equal(south_up[:, ::-1], cube["rgb"][0] / np.float32(255))

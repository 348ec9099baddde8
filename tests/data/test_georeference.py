"""Where a raster lies, in whatever way its file tells it, and which way is north."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import rasterio
from forecast_files import NORTH, image, write
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.transform import Affine

from satjepa.data.georeference import (
    AS_STORED,
    GeoreferenceError,
    as_stored,
    georeference,
    stored_corner,
)
from satjepa.data.grid import Turn, upright
from satjepa.data.rasters import without_remark

TURNS = [Turn(*flags) for flags in itertools.product((False, True), repeat=3)]
RPCS = RPC(
    height_off=0, height_scale=500, lat_off=45.0, lat_scale=0.1, line_off=30, line_scale=30,
    long_off=15.0, long_scale=0.1, samp_off=30, samp_scale=30,
    line_num_coeff=[0.0, 0.0, -1.0] + [0.0] * 17, line_den_coeff=[1.0] + [0.0] * 19,
    samp_num_coeff=[0.0, 1.0] + [0.0] * 18, samp_den_coeff=[1.0] + [0.0] * 19,
    err_bias=None, err_rand=None,
)  # fmt: skip


def points(transform: Affine, size: int = 60) -> list[GroundControlPoint]:
    corners = [(0, 0), (0, size), (size, 0), (size, size)]
    return [GroundControlPoint(r, c, *(transform @ (c, r))) for r, c in corners]


def nowhere(path: Path, **profile: object) -> Path:
    profile = {"transform": Affine.identity(), "crs": None} | profile
    return write(path, image(60, 60), **profile)


@pytest.mark.parametrize("turn", TURNS)
def test_a_turn_can_be_undone_and_a_patch_be_found_again(turn: Turn) -> None:
    array = np.arange(2 * 7 * 5).reshape(2, 7, 5)
    turned = upright(array, turn)
    np.testing.assert_array_equal(as_stored(turned, turn), array)
    for y, x in itertools.product(range(turned.shape[1] - 2), range(turned.shape[2] - 2)):
        column, row = stored_corner(x, y, turn, 3, 7, 5)
        patch = array[:, row : row + 3, column : column + 3]
        np.testing.assert_array_equal(upright(patch, turn), turned[:, y : y + 3, x : x + 3])


@pytest.mark.parametrize(
    ("transform", "crs", "turn"),
    [
        (NORTH, 32633, AS_STORED),
        (Affine(10, 0, 3e5, 0, 10, 5e6), 32633, Turn(False, True, False)),
        (Affine(-10, 0, 3e5, 0, -10, 5e6), 32633, Turn(False, False, True)),
        (Affine(-10, 0, 3e5, 0, 10, 5e6), 32633, Turn(False, True, True)),
        (Affine(0, -10, 3e5, -10, 0, 5e6), 32633, Turn(True, False, True)),
        (Affine(0, 10, 3e5, 10, 0, 5e6), 32633, Turn(True, True, False)),
        (Affine(0.1, 0, 10, 0, 0.1, 50), 4326, Turn(False, True, False)),
        (NORTH @ Affine.rotation(30), 32633, AS_STORED),
        (Affine(10, 0, 3e5, 0, 10, 5e6), None, Turn(False, True, False)),  # its axes are all
        (Affine(10, 0, 0, 0, -10, 3e6), 3413, Turn(False, True, True)),  # beyond the pole
        (Affine.identity(), None, AS_STORED),
    ],
)
def test_north_is_north(tmp_path: Path, transform: Affine, crs: int | None, turn: Turn) -> None:
    place = georeference(nowhere(tmp_path / "a.tif", transform=transform, crs=crs))
    assert place.north_up() == turn


def test_north_is_told_by_points_and_by_coefficients_too(tmp_path: Path) -> None:
    south_up = Affine(10, 0, 3e5, 0, 10, 5e6)
    for name, transform, turn in (
        ("n", NORTH, AS_STORED),
        ("s", south_up, Turn(False, True, False)),
    ):
        path = nowhere(tmp_path / f"{name}.tif", gcps=points(transform), crs=32633)
        assert georeference(path).north_up() == turn
    rpcs = RPCS.to_dict() | {"line_num_coeff": [0.0, 0.0, 1.0] + [0.0] * 17}
    path = nowhere(tmp_path / "r.tif", rpcs=RPCS)
    assert georeference(path).north_up() == AS_STORED
    path = nowhere(tmp_path / "q.tif", rpcs=RPC(**rpcs))
    assert georeference(path).north_up() == Turn(False, True, False)


def test_places_differ_by_what_tells_them(tmp_path: Path) -> None:
    here = georeference(nowhere(tmp_path / "a.tif", gcps=points(NORTH), crs=32633))
    same = georeference(nowhere(tmp_path / "b.tif", gcps=points(NORTH), crs=32633))
    far = georeference(
        nowhere(tmp_path / "c.tif", gcps=points(NORTH @ Affine.translation(9, 0)), crs=32633)
    )
    none = georeference(nowhere(tmp_path / "d.tif"))
    coefficients = georeference(nowhere(tmp_path / "e.tif", rpcs=RPCS))
    gridded = georeference(nowhere(tmp_path / "f.tif", transform=NORTH, crs=32633))
    assert here.difference(same) == "" and none.difference(none) == ""
    assert "ground control points" in here.difference(far)
    assert here.difference(gridded) and gridded.difference(here)
    assert "CRS none" in here.difference(none) and "RPC" in none.difference(coefficients)
    assert "transform" in gridded.difference(
        georeference(
            nowhere(tmp_path / "g.tif", transform=NORTH @ Affine.translation(1, 0), crs=32633)
        )
    )


def test_geolocation_arrays_are_refused_with_the_cure(tmp_path: Path) -> None:
    path = nowhere(tmp_path / "a.tif")
    with without_remark(), rasterio.open(path, "r+") as dst:
        dst.update_tags(ns="GEOLOCATION", X_DATASET="lon.tif", Y_DATASET="lat.tif", X_BAND="1")
    with pytest.raises(GeoreferenceError, match="gdalwarp -geoloc"):
        georeference(path)

"""Reflectance and its mask: scales without doubt, holes, windows; no truncated file is read as if
it were whole.
"""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from satjepa.data.display import is_display
from satjepa.data.rasters import (
    CorruptRasterError,
    ScaleError,
    SceneError,
    facts,
    read_rgb,
    read_uint8,
)

TILED = {"tiled": True, "blockxsize": 16, "blockysize": 16}
BIG = {"BIGTIFF": "YES", "ENDIANNESS": "BIG"}


@pytest.mark.parametrize("options", [{}, TILED, BIG])
def test_no_truncation_goes_unseen(tmp_path, make, options) -> None:
    values = np.random.default_rng(0).integers(0, 200, (3, 20, 20), np.uint8)
    path = make.tif(tmp_path / "a.tif", values, nodata=7, **options)
    read_rgb(path)
    whole = path.read_bytes()
    cut = tmp_path / "cut.tif"
    for length in [*range(0, len(whole), 61), len(whole) - 2, len(whole) - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(CorruptRasterError):
            read_rgb(cut)


def test_a_window_of_a_damaged_file_is_refused_too(tmp_path, make) -> None:
    path = make.tif(
        tmp_path / "a.tif",
        np.random.default_rng(0).integers(0, 255, (3, 64, 64), np.uint8),
        **TILED,
    )
    with rasterio.open(path) as tif:
        last = int(tif.get_tag_item("BLOCK_OFFSET_3_3", "TIFF", bidx=1))
    data = bytearray(path.read_bytes())
    data[last : last + 20] = b"x" * 20
    path.write_bytes(data)
    with pytest.raises(CorruptRasterError):
        read_rgb(path, (0, 0, 8, 8))  # the damage is at the other end


def test_unwritten_blocks_are_not_zeros(tmp_path, make) -> None:
    options = {
        "driver": "GTiff",
        "count": 3,
        "height": 64,
        "width": 64,
        "dtype": "uint8",
        "sparse_ok": True,
    }
    options |= {"tiled": True, "blockxsize": 32, "blockysize": 32}
    for nodata in (None, 255):
        path = tmp_path / f"{nodata}.tif"
        options |= {"nodata": nodata, "crs": "EPSG:32635", "transform": Affine(10, 0, 5, 0, -10, 5)}
        with rasterio.open(path, "w", **options) as tif:
            tif.write(np.full((3, 32, 32), 9, np.uint8), window=Window(0, 0, 32, 32))
    with pytest.raises(CorruptRasterError, match="unwritten block"):
        read_rgb(tmp_path / "None.tif")
    assert (
        read_rgb(tmp_path / "255.tif")[1].sum() == 32 * 32
    )  # stated as nodata: a hole like any other


def test_absent_file(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.tif"):
        read_rgb(tmp_path / "nowhere.tif")


def test_a_file_written_again_is_read_again(tmp_path, make) -> None:
    path = make.tif(tmp_path / "a.tif", np.full((3, 8, 8), 51, np.uint8))
    assert read_rgb(path)[0].max() == np.float32(0.2)
    make.tif(path, np.full((3, 8, 8), 0.5, np.float32))
    assert read_rgb(path)[0].max() == 0.5


@pytest.mark.parametrize(
    ("dtype", "value", "reflectance"),
    [
        *[("uint8", 51, 0.2), ("uint8", 255, 1), ("uint8", 0, 0)],
        *[("uint16", 256, 0.0256), ("uint16", 2000, 0.2), ("uint16", 16000, 1)],
        *[("float32", 0.2, 0.2), ("float64", 1.0005, 1), ("float32", -0.0005, 0)],
    ],
)
def test_accepted_scales(tmp_path, make, dtype, value, reflectance) -> None:
    rgb, valid = read_rgb(make.tif(tmp_path / "a.tif", np.full((3, 8, 8), value, dtype)))
    assert rgb.dtype == np.float32 and rgb.shape == (3, 8, 8) and valid.all()
    np.testing.assert_allclose(rgb, reflectance, rtol=1e-6)


def test_scale_tags_are_used(tmp_path, make) -> None:
    values = np.full((3, 8, 8), 3000, np.uint16)
    path = make.tif(tmp_path / "a.tif", values, scale=1e-4, offset=-0.1)
    np.testing.assert_allclose(read_rgb(path)[0], 0.2, rtol=1e-6)
    with pytest.raises(ScaleError, match=r"scale tag 0\.01"):
        read_rgb(make.tif(tmp_path / "b.tif", values, scale=1e-2))


def test_the_scale_does_not_depend_on_the_window(tmp_path, make) -> None:
    values = np.full((3, 16, 16), 100, np.uint16)
    values[:, :, 8:] = 4000
    path = make.tif(tmp_path / "a.tif", values)
    rgb, valid = read_rgb(path, window=(2, 0, 4, 3))
    assert rgb.shape == (3, 3, 4) and valid.shape == (3, 4)
    np.testing.assert_allclose(rgb, 0.01)
    np.testing.assert_allclose(read_rgb(path, Window(8, 0, 8, 16))[0], 0.4)
    with pytest.raises(ValueError, match="beyond"):
        read_rgb(path, window=(10, 0, 8, 8))


def test_nan_is_a_hole(tmp_path, make) -> None:
    values = np.full((3, 8, 8), 0.3, np.float32)
    values[1, 2, 3], values[:, 0, 0] = np.nan, np.inf
    rgb, valid = read_rgb(make.tif(tmp_path / "a.tif", values))
    assert np.argwhere(~valid).tolist() == [[0, 0], [2, 3]]
    assert (rgb[:, ~valid] == 0).all() and (rgb[:, valid] == np.float32(0.3)).all()


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 7), ("uint16", 65535), ("float32", -9999)])
def test_nodata_is_a_hole_and_no_part_of_the_range(tmp_path, make, dtype, nodata) -> None:
    values = np.full(
        (3, 8, 8), 1 if dtype == "float32" else 255 if dtype == "uint8" else 10000, dtype
    )
    values[0, 2, 3] = nodata
    rgb, valid = read_rgb(make.tif(tmp_path / "a.tif", values, nodata=nodata))
    assert np.argwhere(~valid).tolist() == [[2, 3]]
    assert (rgb[:, 2, 3] == 0).all() and (rgb[:, valid] == 1).all()


def test_zero_in_all_bands_is_a_hole_of_uint16_only(tmp_path, make) -> None:
    values = np.full((3, 8, 8), 200)
    values[:, 1, 1], values[0, 4, 4], values[:, 0, 0] = 0, 0, 255
    assert read_rgb(make.tif(tmp_path / "a.tif", values.astype(np.uint8)))[1].all()
    assert read_rgb(make.tif(tmp_path / "b.tif", (values / 255).astype(np.float32)))[1].all()
    numbers = (values * 10).astype(np.uint16)
    assert np.argwhere(~read_rgb(make.tif(tmp_path / "c.tif", numbers))[1]).tolist() == [[1, 1]]
    assert read_rgb(make.tif(tmp_path / "d.tif", numbers, nodata=65535))[1].all()


@pytest.mark.parametrize(("dtype", "value"), [("float32", np.nan), ("uint16", 0)])
def test_a_scene_without_any_valid_pixel_is_all_hole(tmp_path, make, dtype, value) -> None:
    rgb, valid = read_rgb(make.tif(tmp_path / "a.tif", np.full((3, 8, 8), value, dtype)))
    assert not valid.any() and (rgb == 0).all()


def test_grid_of_a_rotated_raster(tmp_path, make) -> None:
    path = make.tif(tmp_path / "a.tif", np.ones((3, 4, 6), np.uint8), Affine(8, 6, 5, 6, -8, 7))
    grid = facts(path, 3).grid
    assert grid.transform == (8, 6, 5, 6, -8, 7) and grid.difference(grid) == ""
    assert "transform" in grid.difference(replace(grid, transform=(8, 6, 5.2, 6, -8, 7)))


def test_truth_layers_are_uint8(tmp_path, make) -> None:
    values = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    np.testing.assert_array_equal(read_uint8(make.tif(tmp_path / "a.tif", values), 1), values)
    with pytest.raises(ScaleError, match="int16"):
        read_uint8(make.tif(tmp_path / "b.tif", values.astype(np.int16)), 1)


def test_errors_survive_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(ScaleError("a.tif", "this", "that", "so")))
    assert str(error) == "a.tif: found this; accepted: that. To fix: so" and isinstance(
        error, SceneError
    )


def spread(low: float, high: float, dtype: str) -> np.ndarray:
    return np.linspace(low, high, 3 * 64).reshape(3, 8, 8).astype(dtype)


@pytest.mark.parametrize(
    ("values", "scale", "offset"),
    [
        (spread(0.05, 0.3, "float32"), 1e-4, 0),  # reflectance already; only the tags were kept
        (spread(0.05, 0.3, "float32"), 1e-4, -0.1),
        (spread(0, 1, "float64"), 1 / 255, 0),
        (spread(0, 255, "uint8"), 1e-4, 0),
        (spread(500, 4000, "uint16"), 1e-6, 0),
        (spread(500, 4000, "uint16"), 1e-2, 0),
        (spread(500, 4000, "uint16"), 1e-3, 0),
        (spread(500, 4000, "uint16"), -1e-4, 0.5),
        (spread(500, 4000, "uint16"), 0, 0.5),
        (np.sort(spread(0.02, 0.3, "float32") ** 3 * 10, None).reshape(3, 8, 8), 1, -0.1),
    ],
)
def test_tags_that_do_not_fit_the_numbers_are_refused(tmp_path, make, values, scale, offset):
    path = make.tif(tmp_path / "a.tif", values, scale=scale, offset=offset)
    with pytest.raises(ScaleError, match=r"scale tag .* offset tag .*-a_scale 1 -a_offset 0"):
        read_rgb(path)


@pytest.mark.parametrize(
    ("values", "scale", "offset"),
    [
        (spread(500, 4000, "uint16"), 1e-4, 0),
        (spread(900, 4000, "uint16"), 1e-4, -0.1),
        (spread(500, 4000, "int16"), 1e-4, 0),
        (spread(0, 255, "uint8"), 0.002, 0),
        (spread(10, 60, "float32"), 0.01, 0),
    ],
)
def test_tags_that_fit_are_applied(tmp_path, make, values, scale, offset):
    path = make.tif(tmp_path / "a.tif", values, scale=scale, offset=offset)
    wanted = np.clip(values * scale + offset, 0, 1)
    np.testing.assert_allclose(read_rgb(path)[0], wanted, rtol=1e-5, atol=1e-7)


def test_a_float_image_that_is_dark_all_over_is_refused(tmp_path, make):
    """Reflectance divided by 10000 once too often."""
    with pytest.raises(ScaleError, match=r"float32 values from 5e-06 to 3e-05"):
        read_rgb(make.tif(tmp_path / "a.tif", spread(5e-6, 3e-5, "float32")))
    assert read_rgb(make.tif(tmp_path / "b.tif", np.zeros((3, 8, 8), np.float32)))[1].all()


def test_8_bits_with_tags_of_another_scale_are_no_display_imagery(tmp_path, make):
    values = spread(0, 255, "uint8")
    for scale, display in ((1, True), (1 / 255, True), (0.004, True), (0.002, False)):
        path = make.tif(tmp_path / "a.tif", values, scale=scale)
        assert is_display(path) is display

"""Every way to say "no data here" makes a hole, alone and beside another one."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from satjepa.data.errors import CorruptRasterError
from satjepa.data.rasters import read_rgb

LEFT = Window(0, 0, 32, 64)


def sparse(path, count=3, mask=None, opacity=False, dtype="uint8", **options):
    """A raster of 64x64 pixels in tiles of 32 whose right half was never written."""
    profile = {"driver": "GTiff", "count": count, "height": 64, "width": 64, "dtype": dtype}
    profile |= {"tiled": True, "blockxsize": 32, "blockysize": 32, "sparse_ok": True}
    profile |= {"crs": "EPSG:32635", "transform": Affine(10, 0, 5, 0, -10, 5)} | options
    values = np.full((count, 64, 32), 3000 if dtype == "uint16" else 90, dtype)
    if opacity:
        values[3] = 255
    inside = rasterio.Env(GDAL_TIFF_INTERNAL_MASK=mask == "inside")
    with inside, rasterio.open(path, "w", **profile) as tif:
        tif.write(values, window=LEFT)
        if mask:
            shown = np.zeros((64, 64), np.uint8)
            shown[:, :32] = 255
            tif.write_mask(shown)
    return path


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize(
    "options",
    [
        {"mask": "inside"},
        {"mask": "beside"},
        {"mask": "inside", "nodata": 255},
        {"count": 4, "opacity": True},
        {"nodata": 0},
        {"dtype": "uint16"},
    ],
)
def test_a_sparse_tile_where_no_data_is_stated_is_a_hole(tmp_path, options, interleave):
    rgb, valid = read_rgb(sparse(tmp_path / "a.tif", interleave=interleave, **options))
    assert valid[:, :32].all() and not valid[:, 32:].any()
    assert (rgb[:, :, 32:] == 0).all() and (rgb[:, :, :32] > 0.2).all()


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_a_sparse_tile_beside_the_hole_is_refused(tmp_path, interleave):
    path = sparse(tmp_path / "a.tif", interleave=interleave)
    with rasterio.open(path, "r+") as tif:
        shown = np.full((64, 64), 255, np.uint8)
        shown[:32, 32:] = 0
        tif.write_mask(shown)  # the lower right tile is missing and not left out
    with pytest.raises(CorruptRasterError, match="an unwritten block in band 1"):
        read_rgb(path)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_mask_and_the_nodata_number_both_count(tmp_path, make, inside, dtype):
    values = np.full((3, 8, 8), 100 if dtype == "uint8" else 0.4, dtype)
    values[1, 0, 0] = 7
    path = make.tif(tmp_path / "a.tif", values, nodata=7)
    shown = np.full((8, 8), 255, np.uint8)
    shown[5, 5] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as tif:
        tif.write_mask(shown)
    assert np.argwhere(~read_rgb(path)[1]).tolist() == [[0, 0], [5, 5]]


def test_opacity_and_the_nodata_number_both_count(tmp_path, make):
    values = np.full((4, 20, 20), 100, np.uint8)
    values[3], values[:3, 0, 0], values[3, 5, 5] = 255, 7, 0
    valid = read_rgb(make.tif(tmp_path / "a.tif", values, nodata=7))[1]
    assert np.argwhere(~valid).tolist() == [[0, 0], [5, 5]]


def test_a_mask_written_later_is_seen(tmp_path, make):
    path = make.tif(tmp_path / "a.tif", np.full((3, 8, 8), 100, np.uint8))
    assert read_rgb(path)[1].all()
    with rasterio.open(path, "r+") as tif:
        tif.write_mask(np.zeros((8, 8), np.uint8))
    assert not read_rgb(path)[1].any()

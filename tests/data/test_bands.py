"""What the file says its bands are is read: put in order with a word, or refused."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from satjepa.data.errors import BandCountError, BandOrderError
from satjepa.data.rasters import read_rgb
from satjepa.data.remarks import remarks

VALUES = np.array([40, 120, 200])
REFLECTANCE = VALUES / 255


@pytest.fixture
def banded(tmp_path, make):
    """banded(descriptions, colours, tags) -> a raster whose bands are 40, 120 and 200."""

    def write(descriptions=(), colours="", tags=(), dtype="uint8"):
        values = np.broadcast_to(VALUES[:, None, None], (3, 8, 8))
        values = values.astype(dtype) if dtype == "uint8" else (values / 255).astype(dtype)
        path = make.tif(tmp_path / "a.tif", values)
        with rasterio.open(path, "r+") as tif:
            if descriptions:
                tif.descriptions = descriptions
            if colours:
                tif.colorinterp = [ColorInterp[name] for name in colours.split()]
            for band, name in enumerate(tags, 1):
                tif.update_tags(band, BANDNAME=name)
        return path

    return write


@pytest.mark.parametrize(
    ("descriptions", "colours", "dtype"),
    [
        ((), "blue green red", "uint8"),
        ((), "blue green red", "float32"),
        (("B2", "B3", "B4"), "", "uint8"),
        (("B02", "B03", "B04"), "", "float32"),
        (("Blue (490 nm)", "Green", "Red"), "", "uint8"),
        (("b", "g", "r"), "", "float32"),
        (("B02_10m", "B03_10m", "B04_10m"), "blue green red", "uint8"),
    ],
)
def test_bands_in_another_order_are_put_in_order_with_a_word(banded, descriptions, colours, dtype):
    path = banded(descriptions, colours, dtype=dtype)
    rgb, valid = read_rgb(path)
    assert valid.all()
    np.testing.assert_allclose(rgb[:, 2, 2], REFLECTANCE[::-1], atol=1e-6)
    np.testing.assert_allclose(read_rgb(path, (1, 1, 3, 2))[0][:, 0, 0], REFLECTANCE[::-1], 1e-5)
    assert [line for line in remarks([path]) if "blue, green, red: read as red" in line]


def test_any_order_of_the_three(banded):
    rgb, _ = read_rgb(banded(("green", "blue", "red")))
    np.testing.assert_allclose(rgb[:, 0, 0], REFLECTANCE[[2, 0, 1]], atol=1e-6)


def test_a_name_in_the_tags_of_a_band_counts(banded):
    rgb, _ = read_rgb(banded(tags=("B2", "B3", "B4"), dtype="float32"))
    np.testing.assert_allclose(rgb[:, 0, 0], REFLECTANCE[::-1], atol=1e-6)


@pytest.mark.parametrize(
    ("descriptions", "colours", "dtype"),
    [
        ((), "", "uint8"),
        ((), "", "float32"),
        (("B4", "B3", "B2"), "", "float32"),
        (("red", "", ""), "", "float32"),
        (("TCI_1", "TCI_2", "TCI_3"), "", "uint8"),
        (("Band 1", "Band 2", "Band 3"), "red green blue", "float32"),
    ],
)
def test_the_usual_order_and_no_word_at_all(banded, descriptions, colours, dtype):
    path = banded(descriptions, colours, dtype=dtype)
    np.testing.assert_allclose(read_rgb(path)[0][:, 0, 0], REFLECTANCE, atol=1e-6)
    assert remarks([path]) == []


@pytest.mark.parametrize(
    ("descriptions", "colours", "dtype"),
    [
        (("B8", "B4", "B3"), "", "uint8"),  # false colour
        (("nir", "red", "green"), "", "float32"),
        (("red edge", "red", "green"), "", "float32"),
        (("B3", "B2", "B1"), "", "float32"),  # of an older Landsat: red, green, blue
        (("blue", "", ""), "", "float32"),
        (("red", "red", "blue"), "", "float32"),
        (("red", "green", "blue"), "blue green red", "uint8"),
        (("B2", "B3", "B4"), "red green blue", "float32"),
        ((), "hue saturation lightness", "uint8"),
    ],
)
def test_other_bands_and_contradictions_are_refused(banded, descriptions, colours, dtype):
    with pytest.raises(BandOrderError, match=r"a\.tif: found bands .* To fix: export red"):
        read_rgb(banded(descriptions, colours, dtype=dtype))


def test_a_fourth_band_is_opacity_or_refused(tmp_path, make):
    values = np.full((4, 8, 8), 51, np.uint8)
    values[3] = 255
    values[3, 2:4] = 0
    rgb, valid = read_rgb(make.tif(tmp_path / "a.tif", values))
    assert rgb.shape == (3, 8, 8) and np.argwhere(~valid.any(1)).ravel().tolist() == [2, 3]
    assert (rgb[:, valid] == np.float32(0.2)).all()
    values[3] = np.arange(64).reshape(8, 8)  # near infrared, which GDAL calls opacity unasked
    with pytest.raises(BandCountError, match="4 bands"):
        read_rgb(make.tif(tmp_path / "b.tif", values))

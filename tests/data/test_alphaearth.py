"""The 8-bit code of AlphaEarth, on real vectors and from the files people have."""

import numpy as np
import pytest
import rasterio

from satjepa.data.alphaearth import decode_alphaearth, encode_alphaearth, read_alphaearth
from satjepa.data.errors import BandOrderError


def test_alphaearth_code_on_real_vectors(shared) -> None:
    points = np.load(shared / "data" / "aef_points" / "aef_points_114x3x64.npz")
    q = np.moveaxis(points["q"], -1, 0)
    vectors = np.moveaxis(points["vec"], -1, 0)
    np.testing.assert_array_equal(encode_alphaearth(vectors), q)
    decoded = decode_alphaearth(q)
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=0), 1, rtol=1e-6)
    np.testing.assert_allclose(decoded, vectors / np.linalg.norm(vectors, axis=0), atol=1e-6)
    np.testing.assert_array_equal(
        decode_alphaearth(points["q"], axis=-1), np.moveaxis(decoded, 0, -1)
    )


def test_alphaearth_code_of_large_values() -> None:
    codes = encode_alphaearth(np.array([0.9, -0.9, 1, 0]))  # sqrt(0.9) 127.5 = 120.96
    assert codes.tolist() == [121, -121, 127, 0] and codes.dtype == np.int8


def test_alphaearth_masked_and_zero_vectors_are_zero() -> None:
    q = np.full((64, 2, 2), 45, np.int8)
    q[3, 0, 0], q[:, 1, 1] = -128, 0
    decoded = decode_alphaearth(q)
    assert (decoded[:, [0, 1], [0, 1]] == 0).all()
    np.testing.assert_allclose(decoded[:, 0, 1], 1 / 8, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float_embeddings_are_quantised(tmp_path, make, dtype) -> None:
    vectors = make.vectors(1, 8)
    stored = vectors.astype(dtype)
    stored[5, 0, 0], stored[:, 0, 1] = np.nan, 0
    q = read_alphaearth(make.tif(tmp_path / "a.tif", stored))
    assert q.dtype == np.int8 and (q[:, 0, :2] == -128).all() and (q[:, 1:] != -128).all()
    assert (decode_alphaearth(q) * vectors).sum(0)[1:].min() > 0.999


def test_int8_embeddings_keep_their_codes_and_mask(tmp_path, make) -> None:
    q = encode_alphaearth(make.vectors(1, 8))
    q[7, 2, 3], q[:, 4, 4] = -128, -128
    for nodata in (None, -128):
        read = read_alphaearth(make.tif(tmp_path / f"{nodata}.tif", q, nodata=nodata))
        assert (
            (read[:, 2, 3] == -128).all()
            and (read[:, 4, 4] == -128).all()
            and (read == -128).sum() == 2 * 64
        )
        np.testing.assert_array_equal(read[:, 0], q[:, 0])
    window = (1, 2, 5, 3)
    np.testing.assert_array_equal(read_alphaearth(tmp_path / "None.tif", window), read[:, 2:5, 1:6])


def test_named_bands_stand_in_the_order_of_their_names(tmp_path, make):
    path = make.tif(tmp_path / "a.tif", encode_alphaearth(make.vectors(1, 8)), nodata=-128)
    names = [f"A{number:02d}" for number in range(64)]
    with rasterio.open(path, "r+") as tif:
        tif.descriptions = names
    np.testing.assert_array_equal(read_alphaearth(path), encode_alphaearth(make.vectors(1, 8)))
    names[10], names[20] = names[20], names[10]
    with rasterio.open(path, "r+") as tif:
        tif.descriptions = names
    with pytest.raises(BandOrderError, match=r"A20 as band 11; accepted: A00 to A63"):
        read_alphaearth(path)

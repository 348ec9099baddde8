"""Small GeoTIFFs in the published layout, and cubes of them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from affine import Affine

from satjepa.data.alphaearth import encode_alphaearth
from satjepa.data.cube import build_cube
from satjepa.data.scenes import find_scenes

TRANSFORM = Affine(10, 0, 400_000, 0, -10, 5_200_000)


def write_tif(
    path: Path,
    array: np.ndarray,
    transform: Affine = TRANSFORM,
    scale: float = 1,
    offset: float = 0,
    **options: object,
) -> Path:
    """Write (bands, H, W) as a GeoTIFF in UTM 35N."""
    import rasterio

    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = array.shape
    profile = {
        "driver": "GTiff",
        "crs": "EPSG:32635",
        "compress": "deflate",
        "transform": transform,
        **options,
    }
    with rasterio.open(
        path, "w", count=count, height=height, width=width, dtype=array.dtype, **profile
    ) as tif:
        tif.write(array)
        tif.scales = [scale] * count
        tif.offsets = [offset] * count
    return path


def unit_vectors(seed: int, size: int) -> np.ndarray:
    """Random vectors (64, size, size) of length 1."""
    vectors = np.random.default_rng(seed).normal(size=(64, size, size))
    return vectors / np.linalg.norm(vectors, axis=0)


def rgb_path(root: Path, region: str, year: int) -> Path:
    return root / region / f"s2_rgb_{region}_{year}_10km.tif"


def emb_path(root: Path, region: str, year: int, prefix: str = "gee_embeddings") -> Path:
    return root / region / f"{prefix}_{region}_{year}_10km.tif"


def write_region(
    root: Path, region: str, years: list[int], size: int = 48, truth: bool = False
) -> None:
    """A good region: uint8 RGB whose red is year - 2000, int8 embeddings, and truth from the second
    year on.
    """
    rng = np.random.default_rng(sum(map(ord, region)))
    for year in years:
        rgb = rng.integers(0, 256, (3, size, size), np.uint8)
        rgb[0] = year - 2000
        write_tif(rgb_path(root, region, year), rgb)
        codes = encode_alphaearth(unit_vectors(year, size))
        write_tif(emb_path(root, region, year), codes, nodata=-128, interleave="band")
        for layer, bands in ("oracle_mean", 3), ("oracle_sample", 3), ("process", 1):
            if truth and year > years[0]:
                values = np.full((bands, size, size), (year - 2000) % 6, np.uint8)
                write_tif(root / region / "truth" / f"{layer}_{region}_{year}.tif", values)


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The makers above, for the tests: make.tif, make.region, make.rgb_path, make.emb_path,
    make.vectors.
    """
    return SimpleNamespace(
        tif=write_tif,
        region=write_region,
        rgb_path=rgb_path,
        emb_path=emb_path,
        vectors=unit_vectors,
    )


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A root with the region Alpha, 2018 to 2020, 48x48 pixels."""
    write_region(tmp_path / "scenes", "Alpha", [2018, 2019, 2020])
    return tmp_path / "scenes"


@pytest.fixture
def make_cube(tmp_path: Path) -> Callable:
    """make_cube(region, years, ...) -> an opened cube of the preset "demo", made from GeoTIFFs."""

    def make(region: str, years: list[int], size: int = 48, truth: bool = False):
        write_region(tmp_path / "scenes", region, years, size, truth)
        return build_cube(
            find_scenes(tmp_path / "scenes", [region]),
            tmp_path / "cubes" / "demo" / f"{region}.zarr",
        )

    return make

"""Embeddings from a server that fails, an index and tiles that are none, and the place sought."""

import re

import numpy as np
import pytest
import rasterio
from aef_tiles import NORTH, WEST, border, expected, get, grid, make_tiles, write_index
from affine import Affine
from pyarrow import parquet
from rasterio import warp
from web_server import serving

from satjepa.data.alphaearth import read_alphaearth
from satjepa.region.alphaearth import EmbeddingError, IndexFormatError, TileError
from satjepa.region.fetch_errors import UnreachableError
from satjepa.region.patience import Patience
from satjepa.region.tile_index import address_of, boxes_of


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """See `make_tiles`."""
    return make_tiles(tmp_path_factory.mktemp("aef"))


# ---- from a server ----


@pytest.fixture
def web(tiles, monkeypatch, tmp_path):
    """The tiles and an index of their addresses on a server; the user's cache in `tmp_path`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serving() as web:
        for path in tiles.iterdir():
            web.files[f"/{path.name}"] = path.read_bytes()
        rows = parquet.read_table(tiles / "aef_index.parquet").to_pylist()
        rows = [tuple((row | {"path": f"{web.url}/{row['path']}"}).values()) for row in rows]
        write_index(tmp_path / "index.parquet", rows)
        web.files["/index.parquet"] = (tmp_path / "index.parquet").read_bytes()
        yield web


def test_from_a_server_that_fails_now_and_then(tmp_path, tiles, web):
    west, _, _ = border()
    rgb = grid(tmp_path, WEST, west - 600, NORTH - 50, 100, 30)
    web.faults = {"/index.parquet": [502, "half"], "/a-2021.tiff": [503, 429, None, None, 502]}
    web.faults["/c-2021.tiff"] = [404, None, None, "half"]
    patient = Patience(tries=4, first=0.01, longest=0.02, limit=1, connect=5, read=5)
    (path,) = get(rgb, tiles, index=f"{web.url}/index.parquet", patience=patient)
    np.testing.assert_array_equal(read_alphaearth(path), expected(rgb, 2021))
    agents = {headers["User-Agent"] for _, _, headers in web.seen}
    assert all(agent.startswith("satjepa/") for agent in agents)
    assert not web.faults["/a-2021.tiff"] and not web.faults["/c-2021.tiff"], "a test of nothing"
    get(rgb, tiles, (2022,), index=f"{web.url}/index.parquet")
    assert len([r for r in web.seen if r[:2] == ("GET", "/index.parquet")]) == 3, "cached"


def test_a_server_that_is_down_leaves_no_file(tmp_path, tiles, web):
    west, _, _ = border()
    rgb = grid(tmp_path, WEST, west - 600, NORTH - 50, 100, 30)
    web.faults = {"/a-2021.tiff": [502] * 99}
    with pytest.raises(UnreachableError, match=r"a-2021.tiff: not read"):
        get(rgb, tiles, index=f"{web.url}/index.parquet")
    assert not list(rgb.parent.glob("gee*"))


# ---- what is wrong ----


def test_an_index_that_is_none(tmp_path, tiles):
    west, _, _ = border()
    rgb = grid(tmp_path, WEST, west - 600, NORTH, 20, 20)
    rows = [("a.tiff", 2021, WEST, 5.0, 45.0, 7.0, 46.0)]
    write_index(tmp_path / "i.parquet", rows, drop="wgs84_west")
    with pytest.raises(IndexFormatError, match="no column wgs84_west"):
        get(rgb, tiles, index=tmp_path / "i.parquet")
    (tmp_path / "i.parquet").write_bytes(b"PAR1" * 9)
    with pytest.raises(IndexFormatError, match="no index"):
        get(rgb, tiles, index=tmp_path / "i.parquet")
    with pytest.raises(FileNotFoundError):
        get(rgb, tiles, index=tmp_path / "none.parquet")


@pytest.mark.parametrize("bad", ["missing", "bytes", "bands", "type"])
def test_a_tile_that_is_none(tmp_path, tiles, bad):
    west, _, _ = border()
    rgb = grid(tmp_path, WEST, west - 600, NORTH, 20, 20)
    write_index(tmp_path / "i.parquet", [("bad.tiff", 2021, WEST, 5.0, 45.0, 7.0, 46.0)])
    path = tmp_path / "bad.tiff"
    if bad == "bytes":
        data = bytearray((tiles / "a-2021.tiff").read_bytes())
        data[len(data) // 4 :] = bytes(len(data) - len(data) // 4)
        path.write_bytes(data)
    elif bad != "missing":
        form = {"count": 63 if bad == "bands" else 64}
        form["dtype"] = "uint8" if bad == "type" else "int8"
        with rasterio.open(
            path, "w", driver="GTiff", width=4, height=4, crs=WEST,
            transform=Affine(10, 0, west, 0, 10, NORTH), **form,
        ):  # fmt: skip
            pass
    found = {"bands": "63 bands of int8", "type": "64 bands of uint8"}.get(bad, "cannot be read")
    with pytest.raises(TileError, match=re.escape(found)):
        get(rgb, tiles, index=tmp_path / "i.parquet")
    assert [p.name for p in rgb.parent.iterdir() if not p.name.startswith(".")] == [rgb.name]


def test_a_raster_that_lies_nowhere(tmp_path, tiles):
    rgb = grid(tmp_path, None, 0, 0, 20, 20)
    with pytest.raises(EmbeddingError, match="no grid on the map"):
        get(rgb, tiles)


# ---- where ----


class Place:
    """As much of a georeference as says where a grid lies."""

    def __init__(self, crs, transform, width, height):
        self.crs = crs
        self.transform = transform
        self.width = width
        self.height = height


def test_the_box_of_a_grid():
    turned = Place("EPSG:4326", Affine(0, 0.1, 5, 0.1, 0, 40), 20, 10)
    assert np.allclose(boxes_of(turned), [(5, 40, 6, 42)], atol=0.002)
    wide = Place("EPSG:3035", Affine(1000, 0, 3_300_000, 0, -1000, 4_000_000), 2000, 1000)
    ((_, _, _, north),) = boxes_of(wide)
    x = np.linspace(3_300_000, 5_300_000, 999)
    lat = warp.transform("EPSG:3035", "EPSG:4326", x, np.full(999, 4_000_000))[1]
    assert lat[0] < max(lat) - 1 and abs(north - max(lat)) < 0.01, "the upper side is bent"


def test_a_grid_across_the_antimeridian_has_two_boxes():
    place = Place("EPSG:32660", Affine(10, 0, 829_000, 0, -10, 1_000_000), 200, 100)
    west, east = boxes_of(place)
    assert 179.9 < west[0] < 180 == west[2] and east[0] == -180 < east[2] < -179.9
    assert west[1::2] == east[1::2]


def test_where_a_tile_is_read(tmp_path):
    key = "us-west-2.opendata.source.coop/tge-labs/aef/v1/annual/2021/31N/x.tiff"
    there = "/vsicurl/https://data.source.coop/tge-labs/aef/v1/annual/2021/31N/x.tiff"
    assert address_of(f"s3://{key}", tmp_path) == there
    google = "/vsicurl/https://storage.googleapis.com/bucket/x.tiff"
    assert address_of("gs://bucket/x.tiff", tmp_path) == google
    assert address_of("s3://b/x.tiff", tmp_path) == "/vsicurl/https://s3.amazonaws.com/b/x.tiff"
    assert address_of("2021/x.tiff", tmp_path) == str(tmp_path / "2021/x.tiff")
    assert address_of("/a/x.tiff", tmp_path) == "/a/x.tiff"

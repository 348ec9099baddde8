"""AlphaEarth's embeddings on the grid of an image: each code is that of the nearest pixel of a tile
that is made up, with the south in its first row, in two zones.
"""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import rasterio
from aef_tiles import (
    EAST,
    FIRST,
    LAST,
    NORTH,
    WEST,
    border,
    expected,
    get,
    grid,
    make_tiles,
    tile,
    write_index,
)
from reach import REPO

from satjepa.data.alphaearth import read_alphaearth
from satjepa.data.scenes import find_scenes
from satjepa.region.alphaearth import EmbeddingError, NoEmbeddingsError
from satjepa.region.fetch_errors import BusyError, NoSpaceError


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """See `make_tiles`."""
    return make_tiles(tmp_path_factory.mktemp("aef"))


@pytest.mark.parametrize("zone", [WEST, EAST])
def test_each_code_is_that_of_the_nearest_pixel(tmp_path, tiles, zone):
    west, east, north = border()
    corner = {WEST: (west - 600, NORTH - 50), EAST: (east - 500, north - 100)}[zone]
    rgb = grid(tmp_path, zone, *corner, 100, 50)
    said = []
    paths = get(rgb, tiles, (2022, 2021), said)
    assert [p.name for p in paths] == [f"gee_embeddings_Border_{y}_10km.tif" for y in (2021, 2022)]
    for path, year in zip(paths, (2021, 2022), strict=True):
        with rasterio.open(path) as file:
            codes = file.read()
            assert file.nodata == -128 and file.descriptions[63] == "A63"
            tags = file.tags()
        want = expected(rgb, year)
        assert (want != -128).all(), "a test of nothing"
        np.testing.assert_array_equal(codes, want)
        np.testing.assert_array_equal(read_alphaearth(path), want)
        assert tags["LICENCE"] == "CC-BY 4.0" and "Google DeepMind" in tags["TIFFTAG_COPYRIGHT"]
        assert "127.5" in tags["ENCODING"] and tags["VALID_SHARE"] == "1.000000"
        assert tags["TILES"].split()[-1].startswith("c" if zone == WEST else "b")
    assert "2021: 3 tiles, 100.0% of the pixels have an embedding" in said
    (scene,) = find_scenes(tmp_path)
    assert scene.emb == paths[0]
    assert sorted(p.name for p in rgb.parent.glob(".*")) == []


@pytest.mark.parametrize("zone", [LAST, FIRST])
def test_across_the_antimeridian(tmp_path, zone):
    zones = (LAST, FIRST)
    last, first, north = border(zones, 180.0)
    rows = [tile(tmp_path / "l.tiff", LAST, last - 400, NORTH - 300, 80, 60, 2021)]
    rows += [tile(tmp_path / "f.tiff", FIRST, first - 400, north - 300, 80, 60, 2021)]
    write_index(tmp_path / "aef_index.parquet", rows)
    corner = {LAST: (last - 200, NORTH + 100), FIRST: (first - 200, north + 100)}[zone]
    (path,) = get(grid(tmp_path, zone, *corner, 40, 20), tmp_path)
    want = expected(path, 2021, zones)
    assert (want != -128).all(), "a test of nothing"
    np.testing.assert_array_equal(read_alphaearth(path), want)


def test_a_place_without_tiles_is_empty_there_and_the_share_is_said(tmp_path, tiles):
    west, _, _ = border()
    rgb = grid(tmp_path, WEST, west - 1400, NORTH, 40, 30)
    said = []
    (path,) = get(rgb, tiles, said=said)
    codes = read_alphaearth(path)
    assert (codes[:, :, :20] == -128).all() and (codes[:, :, 20:] != -128).all()
    assert "50.0%" in said[-1]
    with rasterio.open(path) as file:
        assert file.tags()["VALID_SHARE"] == "0.500000"


def test_years_that_the_index_lacks_are_said(tmp_path, tiles):
    west, _, _ = border()
    rgb = grid(tmp_path, WEST, west - 600, NORTH, 20, 20)
    said = []
    assert len(get(rgb, tiles, (2019, 2021, 2030), said)) == 1
    assert [line[:19] for line in said[:2]] == ["2019: the index " + str(tiles)[:3], said[1][:19]]
    assert said[1].startswith("2030: the index")
    with pytest.raises(NoEmbeddingsError, match="no embedding of this place in 2019, 2030"):
        get(rgb, tiles, (2030, 2019))


def test_a_year_without_a_valid_pixel_has_no_file(tmp_path, tiles):
    west, _, _ = border()
    rgb = grid(tmp_path, WEST, west - 1240, NORTH + 120, 4, 4)  # beside the tile, within the margin
    with pytest.raises(NoEmbeddingsError):
        get(rgb, tiles)
    assert [path.name for path in rgb.parent.iterdir()] == [rgb.name]


def test_what_is_there_is_kept_and_what_is_others_stays(tmp_path, tiles):
    west, _, _ = border()
    rgb = grid(tmp_path, WEST, west - 600, NORTH, 20, 20)
    (path,) = get(rgb, tiles)
    before = path.stat().st_ino
    assert get(rgb, tiles) == [path] and path.stat().st_ino == before
    rgb = grid(tmp_path, WEST, west - 700, NORTH, 20, 20)  # another grid
    get(rgb, tiles)
    np.testing.assert_array_equal(read_alphaearth(path), expected(rgb, 2021))
    path.write_bytes(b"my own")
    with pytest.raises(EmbeddingError, match="move it away"):
        get(rgb, tiles)
    assert path.read_bytes() == b"my own"


# ---- stopped ----


@pytest.fixture
def long(tmp_path):
    """A scene of three windows on one tile: its image, and the folder of the tile."""
    west, _, _ = border()
    row = tile(tmp_path / "a.tiff", WEST, west - 14000, NORTH - 200, 1100, 20, 2021)
    write_index(tmp_path / "aef_index.parquet", [row])
    return grid(tmp_path, WEST, west - 14000, NORTH - 50, 1100, 10)


def test_a_run_that_is_killed_goes_on(tmp_path, long):
    """What was read before is not read again: it is still that of the tile as it was."""
    call = (
        "import os, signal\n"
        "from satjepa.region import codes, alphaearth\n"
        "put = codes.Codes.put\n"
        "def die(self, window, block):\n"
        "    put(self, window, block)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "codes.Codes.put = die\n"
        f"alphaearth.get_embeddings({str(long)!r}, [2021], {str(long.parent)!r}, "
        f"{str(tmp_path / 'aef_index.parquet')!r})\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run([sys.executable, "-c", call], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not list(long.parent.glob("gee*"))
    was = expected(long, 2021)
    with rasterio.open(tmp_path / "a.tiff", "r+") as file:
        file.write(-file.read())
    (path,) = get(long, tmp_path)
    codes = read_alphaearth(path)
    np.testing.assert_array_equal(codes[:, :, :512], was[:, :, :512])
    np.testing.assert_array_equal(codes[:, :, 512:], -was[:, :, 512:])
    assert not list(long.parent.glob(".*"))


@pytest.mark.parametrize("damage", ["journal", "codes", "line"])
def test_what_does_not_belong_together_is_not_gone_on_with(tmp_path, long, damage, monkeypatch):
    monkeypatch.setattr("satjepa.region.alphaearth.write_codes", fail)
    with pytest.raises(OSError, match="disk full"):
        get(long, tmp_path)
    monkeypatch.undo()
    (journal,) = long.parent.glob(".*.journal")
    (codes,) = long.parent.glob(".*.codes")
    if damage == "journal":
        first, _, rest = journal.read_text().partition("\n")
        journal.write_text(first.replace('"', '"x', 1) + "\n" + rest)
    elif damage == "codes":
        codes.write_bytes(b"1")
    else:
        journal.write_text(journal.read_text()[:-5])
    with rasterio.open(tmp_path / "a.tiff", "r+") as file:
        file.write(-file.read())
    (path,) = get(long, tmp_path)
    again = slice(1024, None) if damage == "line" else slice(None)
    want = expected(long, 2021)
    want[:, :, again] *= -1
    np.testing.assert_array_equal(read_alphaearth(path), want)


def fail(*_):
    raise OSError("disk full")


def test_two_at_once(tmp_path, long, monkeypatch):
    def meanwhile(*_):
        with pytest.raises(BusyError, match="another process"):
            get(long, tmp_path)

    monkeypatch.setattr("satjepa.region.alphaearth.write_codes", meanwhile)
    get(long, tmp_path)


def test_no_room(tmp_path, long, monkeypatch):
    from shutil import _ntuple_diskusage

    monkeypatch.setattr("shutil.disk_usage", lambda _: _ntuple_diskusage(0, 0, 1100 * 10 * 128 - 1))
    with pytest.raises(NoSpaceError, match="an estimated"):
        get(long, tmp_path)

"""Composites against a truth that is known at every pixel, on both sides of a zone's border."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform

from satjepa.data.scenes import find_scenes
from satjepa.demo.catalog import BORDER, FLAVOURS, write_catalog
from satjepa.region.get import get_region

DATES = ((6, 14), (7, 9), (8, 18))


def errors(path: Path, land) -> tuple[np.ndarray, np.ndarray]:
    """DN too much (3, N) of the valid pixels, and their longitudes (N,)."""
    with rasterio.open(path) as src:
        rgb = src.read()
        x0 = src.transform.c + 10 * (np.arange(src.width) + 0.5)
        y0 = src.transform.f - 10 * (np.arange(src.height) + 0.5)
        crs = src.crs
        year = int(src.tags()["TIFFTAG_COPYRIGHT"][-4:])
    x, y = np.meshgrid(x0, y0)
    valid = (rgb > 0).all(0)
    there = transform(crs, "EPSG:32631", x[valid], y[valid])
    truth = land.reflectance(year, *map(np.array, there)) * 10000
    lon, _ = transform(crs, "EPSG:4326", x[valid], y[valid])
    return rgb[:, valid] - truth, np.array(lon)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_both_sides_of_the_border_are_as_the_truth_whatever_metadata_say(
    flavour, land, request_of, tmp_path
):
    stac = write_catalog(tmp_path / flavour, [2022], [flavour], DATES, land).path
    (path,) = get_region(request_of(stac))
    wrong, lon = errors(path, land)
    assert wrong.shape[1] > 50_000
    for side in (lon < BORDER, lon > BORDER):
        assert side.sum() > 10_000
        assert np.abs(wrong[:, side].mean(1)).max() < 0.5
        assert np.percentile(np.abs(wrong[:, side]), 99.9) <= 2


def test_years_of_one_region_share_a_grid_and_are_scenes(catalog, land, request_of):
    lines: list[str] = []
    request = request_of(years="2021-2022", log=lines.append, name="Borderland")
    paths = get_region(request)
    scenes = find_scenes(request.out)
    assert [(s.region, s.year, s.rgb) for s in scenes] == [
        ("Borderland", 2021, paths[0]),
        ("Borderland", 2022, paths[1]),
    ]
    for path in paths:
        wrong, _ = errors(path, land)
        assert np.abs(wrong.mean(1)).max() < 0.5
    with rasterio.open(paths[1]) as src:
        tags = src.tags()
        assert (src.crs.to_epsg(), src.nodata, src.dtypes[0], src.count) == (32631, 0, "uint16", 3)
        assert all(edge % 10 == 0 for edge in src.bounds)
        west, south, east, north = catalog.bbox
        for lon, lat in ((west, south), (west, north), (east, south), (east, north)):
            x, y = transform("EPSG:4326", src.crs, [lon], [lat])
            row, column = src.index(x[0], y[0])
            assert 0 <= row < src.height and 0 <= column < src.width
    assert "Copernicus Sentinel data 2022" in tags["ATTRIBUTION"]
    assert tags["MONTHS"] == "5-9" and "satjepa" in tags["TIFFTAG_SOFTWARE"]
    report = json.loads((request.folder / "report.json").read_text())["years"]["2022"]
    items = {item["item"]: item for item in report["items"]}
    assert len(items) == 8 and tags["ITEMS"].split() == list(items)
    # v1 says that 1000 was added where nothing was (2021), pc and c1 say what is
    offsets = [item["offset"] for item in items.values()]
    assert offsets.count(-1000) == 5 and offsets.count(0) == 3
    assert report["valid_share"] == pytest.approx(float(tags["VALID_SHARE"]), abs=1e-4)
    told = [line for line in lines if "against" in line and line.startswith("2021: S2A")]
    assert len(told) == 3 and "below DN 1000" in told[0]
    assert not [path for path in request.folder.rglob("*") if path.name.startswith(".")]


def test_a_server_gives_what_the_files_give(server, request_of):
    (path,) = get_region(request_of())
    local = rasterio.open(path).read()
    (path,) = get_region(request_of(server.base, name="Served"))
    assert (rasterio.open(path).read() == local).all()
    assert [path for _, path in server.seen].count("/search") == 3  # pages of 3 for 8 items


def test_a_region_of_many_blocks_is_as_one_of_one(request_of):
    (whole,) = get_region(request_of(name="Whole"))
    (parts,) = get_region(request_of(name="Parts", side=112, workers=1))
    with rasterio.open(whole) as one, rasterio.open(parts) as many:
        assert one.width > 2 * 112
        apart = np.abs(one.read().astype(int) - many.read())
    # not bit by bit: GDAL places the pixels of a block in another zone to an eighth of one
    assert (apart > 0).mean() < 0.05 and np.percentile(apart, 99.9) <= 20


KILLED = """
import os, signal, sys
from satjepa.region import blocks, year
from satjepa.region.ask import ask
from satjepa.region.get import get_region
put = blocks.Blocks.put
def dying(self, window, block):
    if window.row and window.column:
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, window, block)
blocks.Blocks.put = dying
from dataclasses import replace
get_region(replace(ask({bbox}, "2022", {out!r}, stac={stac!r}), side=160))
"""


def test_killed_and_run_again_it_goes_on_bit_equal(catalog, request_of, tmp_path):
    code = KILLED.format(
        bbox=catalog.bbox, out=str(tmp_path / "out"), stac=str(catalog.path)
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=os.environ)
    assert done.returncode == -signal.SIGKILL, done.stderr
    request = request_of(side=160)
    kept = sorted(request.folder.rglob("block_*"))
    assert len(kept) == 3 and not list(request.folder.glob("*.tif"))  # of 4 blocks
    kept[0].write_bytes(b"damaged")
    stamps = [path.stat().st_mtime_ns for path in kept[1:]]
    seen: list[list[int]] = []
    request = request_of(
        side=160,
        log=lambda line: seen.append([p.stat().st_mtime_ns for p in kept[1:] if p.exists()]),
    )
    (path,) = get_region(request)
    assert stamps in seen  # none of them was made again
    (other,) = get_region(request_of(side=160, name="Other"))
    assert path.stat().st_size > 0
    with rasterio.open(path) as one, rasterio.open(other) as two:
        assert (one.read() == two.read()).all()
    before = path.stat().st_mtime_ns
    get_region(request)  # a year that is there stays
    assert path.stat().st_mtime_ns == before

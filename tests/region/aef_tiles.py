"""Made-up tiles of embeddings, their index, and what is right on a grid across two zones."""

import numpy as np
import pyarrow as pa
import rasterio
from affine import Affine
from pyarrow import parquet
from rasterio import warp

from satjepa.region.alphaearth import get_embeddings
from satjepa.region.patience import Patience

QUICK = Patience(tries=2, first=0.01, longest=0.02, limit=1, connect=5, read=5)
WEST = "EPSG:32631"  # its zone ends at 6 degrees east
EAST = "EPSG:32632"
LAST = "EPSG:32660"  # ends at 180 degrees
FIRST = "EPSG:32601"
NORTH = 5_000_000


def code_of(column, row, zone, year):
    """Codes (64, ...) of the pixels that lie so many steps of 10 m east and north: a vector of
    length 1, nearly, other than those around it.
    """
    band = np.arange(64).reshape(64, *[1] * np.ndim(column))
    mixed = (column * 7919 + row * 104_729 + band * 1_299_709 + zone * 31 + year * 17) % 1009
    return ((40 + mixed % 11) * np.where(mixed % 2, 1, -1)).astype(np.int8)


def codes_at(crs, x, y, year):
    """Codes of the pixels in which points of a zone lie."""
    return code_of(np.floor(x / 10).astype(int), np.floor(y / 10).astype(int), int(crs[-2:]), year)


def outside(crs, lon):
    """Which longitudes a tile of the zone does not cover: they overlap by some 40 m."""
    lon = np.array(lon)
    beyond = {WEST: lon > 6.0005, EAST: lon <= 6, LAST: (lon < 0) & (lon > -179.9995)}
    return beyond.get(crs, lon > 0)


def tile(path, crs, west, south, width, height, year, south_up=True):
    """Write a tile of the zone; what of it lies in another zone is empty."""
    column, row = np.meshgrid(np.arange(width), np.arange(height))
    codes = code_of(west // 10 + column, south // 10 + row, int(crs[-2:]), year)
    lon, _ = warp.transform(
        crs, "EPSG:4326", (west + 5 + 10 * column).ravel(), (south + 5 + 10 * row).ravel()
    )
    codes[:, np.reshape(outside(crs, lon), column.shape)] = -128
    transform = Affine(10, 0, west, 0, 10, south)
    if not south_up:
        codes = codes[:, ::-1]
        transform = Affine(10, 0, west, 0, -10, south + 10 * height)
    with rasterio.open(
        path, "w", driver="GTiff", dtype="int8", count=64, width=width, height=height, crs=crs,
        transform=transform, nodata=-128, compress="zstd", interleave="band", tiled=True,
        blockxsize=64, blockysize=64,
    ) as file:  # fmt: skip
        file.write(codes)
    corners = [west, west + 10 * width], [south, south + 10 * height]
    lon, lat = warp.transform(crs, "EPSG:4326", np.repeat(corners[0], 2), np.tile(corners[1], 2))
    if max(lon) - min(lon) > 180:  # a footprint is clipped to its zone
        lon = (
            [x for x in lon if x > 0] + [180] if crs == LAST else [-180] + [x for x in lon if x < 0]
        )
    return path.name, year, crs, min(lon), min(lat), max(lon), max(lat)


def write_index(path, rows, drop=None):
    names = ["path", "year", "crs", "wgs84_west", "wgs84_south", "wgs84_east", "wgs84_north"]
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    columns.pop(drop, None)
    parquet.write_table(pa.table({name: list(column) for name, column in columns.items()}), path)


def grid(folder, crs, west, north, width, height, region="Border"):
    """An RGB raster of the published layout, whose grid is wanted."""
    path = folder / region / f"s2_rgb_{region}_2021_10km.tif"
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint16", count=3, width=width, height=height, crs=crs,
        transform=Affine(10, 0, west, 0, -10, north),
    ) as file:  # fmt: skip
        file.write(np.random.default_rng(0).integers(300, 3000, (3, height, width), np.uint16))
    return path


def border(zones=(WEST, EAST), degrees=6.0):
    """Eastings in both zones of a place between them, and its northing in the second one, on whole
    pixels; in the first one that is NORTH.
    """
    x, _ = warp.transform("EPSG:4326", zones[0], [degrees], [45.15])
    there = warp.transform(zones[0], zones[1], [round(x[0], -1)], [NORTH])
    return int(round(x[0], -1)), int(round(there[0][0], -1)), int(round(there[1][0], -1))


def make_tiles(folder):
    """In a folder: tiles either side of 6 degrees east, of 2021 and 2022, and their index."""
    west, east, north = border()
    rows = []
    for year in (2021, 2022):
        rows += [
            tile(folder / f"a-{year}.tiff", WEST, west - 1200, NORTH - 700, 120, 80, year),
            tile(folder / f"b-{year}.tiff", WEST, west - 100, NORTH - 700, 120, 80, year, False),
            tile(folder / f"c-{year}.tiff", EAST, east - 900, north - 800, 200, 160, year),
        ]
    rows += [("far.tiff", 2021, WEST, 2.0, 45.0, 3.0, 46.0)]
    rows += [("east.tiff", 2021, EAST, 8.0, 45.0, 9.0, 46.0)]
    lat = warp.transform(WEST, "EPSG:4326", [west], [NORTH - 300])[1][0]
    rows += [("flat.tiff", 2021, WEST, 5.0, lat, 7.0, lat)]
    rows += [("old.tiff", 2017, WEST, 5.0, 45.0, 7.0, 46.0)]
    write_index(folder / "aef_index.parquet", rows)
    return folder


def get(rgb, tiles, years=(2021,), said=None, **options):
    options = {"index": tiles / "aef_index.parquet", "patience": QUICK} | options
    said = [] if said is None else said
    return get_embeddings(rgb, years, rgb.parent, log=said.append, **options)


def expected(path, year, zones=(WEST, EAST)):
    """By the definition: the centre of each pixel, in the zone whose side of 6 degrees it is on."""
    with rasterio.open(path) as file:
        a, _, c, _, e, f = tuple(file.transform)[:6]
        column, row = np.meshgrid(np.arange(file.width), np.arange(file.height))
        x = c + a * (column.ravel() + 0.5)
        y = f + e * (row.ravel() + 0.5)
        crs = file.crs.to_string()
        shape = column.shape
    codes = {}
    for zone in zones:
        there = [np.array(v) for v in warp.transform(crs, zone, x, y)]
        codes[zone] = codes_at(zone, *there, year)
        # the side is that of the tile's pixel, not of the point in it
        middle = [np.floor(v / 10) * 10 + 5 for v in there]
        lon = warp.transform(zone, "EPSG:4326", *middle)[0]
        codes[zone][:, outside(zone, lon)] = -128
    own, other = (codes[zone] for zone in sorted(codes, key=lambda zone: zone != crs))
    return np.where(own == -128, other, own).reshape(64, *shape)

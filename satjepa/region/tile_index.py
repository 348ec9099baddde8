"""Which files of AlphaEarth's embeddings meet a box: from the index that lies beside them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satjepa.data.grid import same_crs
from satjepa.region.fetch import PATIENT, Log, cached
from satjepa.region.patience import Patience

if TYPE_CHECKING:
    from satjepa.data.georeference import Georeference

INDEX = "https://data.source.coop/tge-labs/aef/v1/annual/aef_index.parquet"
COLUMNS = ("path", "year", "crs", "wgs84_west", "wgs84_south", "wgs84_east", "wgs84_north")
# buckets that anyone may read over https, by the addresses that the index gives
HOSTS = (
    ("s3://us-west-2.opendata.source.coop/", "https://data.source.coop/"),
    ("gs://", "https://storage.googleapis.com/"),
    ("s3://", "https://s3.amazonaws.com/"),
)
EDGE = 21  # points along each side of a grid, which is curved in longitude and latitude
MARGIN = 0.001  # degrees, about 100 m, for what lies between these points
Box = tuple[float, float, float, float]  # west, south, east, north in degrees


class EmbeddingError(Exception):
    """AlphaEarth's embeddings of a grid cannot be had: what is wrong, and what to do."""


class IndexFormatError(EmbeddingError):
    """The index is no Parquet file, or lacks columns."""


@dataclass(frozen=True)
class Tile:
    """A file of embeddings of one year: `path` as the index gives it, `address` as GDAL opens it,
    CRS as the index spells it.
    """

    path: str
    address: str
    year: int
    crs: str


def boxes_of(place: Georeference) -> list[Box]:
    """The box around a grid in longitude and latitude; two where it crosses the antimeridian."""
    from rasterio import warp

    share = np.linspace(0, 1, EDGE)
    side = np.concatenate([share, share, np.zeros(EDGE), np.ones(EDGE)])
    other = np.concatenate([np.zeros(EDGE), np.ones(EDGE), share, share])
    column = side * place.width
    row = other * place.height
    a, b, c, d, e, f = tuple(place.transform)[:6]
    x = a * column + b * row + c
    y = d * column + e * row + f
    lon, lat = (np.array(v) for v in warp.transform(place.crs, "EPSG:4326", x, y))
    south = float(lat.min()) - MARGIN
    north = float(lat.max()) + MARGIN
    if np.ptp(lon) <= 180:
        return [(float(lon.min()) - MARGIN, south, float(lon.max()) + MARGIN, north)]
    west = float(lon[lon > 0].min()) - MARGIN
    east = float(lon[lon <= 0].max()) + MARGIN
    return [(west, south, 180.0, north), (-180.0, south, east, north)]


def local_index(index: str | Path | None, patience: Patience = PATIENT, log: Log = print) -> Path:
    """The index as a file: where it is an address, fetched once into the user's cache, and again
    when the server has a newer one.
    """
    index = str(index or INDEX)
    if not index.startswith(("http://", "https://")):
        return Path(index)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return cached(index, Path(base) / "satjepa", patience, log)


def tiles_in(
    index: Path, boxes: Sequence[Box], years: Iterable[int], crs: str
) -> dict[int, list[Tile]]:
    """The files that meet one of the boxes, for each year that has any: those in the CRS of the
    grid first, which need no resampling, then by name.

    Paths that are no addresses are taken relative to the folder of the index. Raises
    IndexFormatError, FileNotFoundError.
    """
    found: dict[str, Tile] = {}
    for row in _rows(index, boxes, sorted(set(years))):
        if row["wgs84_south"] < row["wgs84_north"]:  # some at the equator have no height
            address = address_of(row["path"], index.parent)
            found[row["path"]] = Tile(row["path"], address, int(row["year"]), str(row["crs"]))
    tiles: dict[int, list[Tile]] = {}
    for tile in sorted(found.values(), key=lambda t: (not same_crs(t.crs, crs), t.path)):
        tiles.setdefault(tile.year, []).append(tile)
    return dict(sorted(tiles.items()))


def _rows(index: Path, boxes: Sequence[Box], years: list[int]) -> list[dict[str, Any]]:
    from pyarrow import ArrowException, parquet

    meets = [
        [
            ("year", "in", years),
            ("wgs84_west", "<", east),
            ("wgs84_east", ">", west),
            ("wgs84_south", "<", north),
            ("wgs84_north", ">", south),
        ]
        for west, south, east, north in boxes
    ]
    fix = "take the index that lies beside the tiles (aef_index.parquet)"
    try:
        names = parquet.read_schema(index).names
        if lacking := [name for name in COLUMNS if name not in names]:
            raise IndexFormatError(f"{index}: no column {', '.join(lacking)}. To fix: {fix}")
        table = parquet.read_table(index, columns=list(COLUMNS), filters=meets)
    except ArrowException as error:
        raise IndexFormatError(f"{index}: no index ({error}). To fix: {fix}") from error
    return table.to_pylist()


def address_of(path: str, folder: Path) -> str:
    """How GDAL opens a path of the index."""
    for start, host in HOSTS:
        if path.startswith(start):
            path = host + path.removeprefix(start)
            break
    if path.startswith(("http://", "https://")):
        return f"/vsicurl/{path}"
    return str(folder / path)

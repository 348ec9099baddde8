"""AlphaEarth's annual embeddings on the grid of an image: the codes of the public tiles, as they
are, each from the nearest pixel.

The data are Google's and Google DeepMind's, under CC-BY 4.0; the files written say so.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satjepa.data.alphaearth import BANDS, MASKED
from satjepa.data.georeference import Georeference, georeference, name_of
from satjepa.region.codes import GROUP, Window, kept_codes, windows, write_codes
from satjepa.region.fetch import AGENT, PATIENT, Log
from satjepa.region.fetch_errors import NoSpaceError
from satjepa.region.patience import AgainError, Attempts, Patience
from satjepa.region.tile_index import (
    INDEX,
    EmbeddingError,
    IndexFormatError,
    Tile,
    boxes_of,
    local_index,
    tiles_in,
)

if TYPE_CHECKING:
    from rasterio.vrt import WarpedVRT

LICENCE = "CC-BY 4.0"
ATTRIBUTION = (
    "The AlphaEarth Foundations Satellite Embedding dataset is produced by Google and Google "
    "DeepMind."
)
ENCODING = "value = sign(q) (|q| / 127.5)^2 of the stored number q; -128: no embedding"
EXACT = 1e-6  # pixels by which the warper may be wrong; the library takes 0 for nothing to warp
CACHE = 256 << 20  # bytes of tile blocks in memory

__all__ = [
    "ATTRIBUTION", "INDEX", "EmbeddingError", "IndexFormatError", "NoEmbeddingsError", "TileError",
    "get_embeddings",
]  # fmt: skip


class NoEmbeddingsError(EmbeddingError):
    """Not one of the years asked for has an embedding of the place."""


class TileError(EmbeddingError):
    """A tile is not what AlphaEarth's are, or cannot be read."""


def get_embeddings(
    grid_tif: str | Path,
    years: Sequence[int],
    out: str | Path,
    index: str | Path | None = None,
    log: Log = print,
    *,
    patience: Patience = PATIENT,
) -> list[Path]:
    """Write the embeddings of each year on the grid of `grid_tif` (an RGB raster of the published
    layout) into the folder `out`, that of its region, as gee_embeddings_<Region>_<YEAR>_10km.tif:
    64 bands of int8 codes, nodata -128; returns the files.

    index: a Parquet file, or its https address (default: Source Cooperative's), whose columns are
    `path`, `year`, `crs` and the bounds in degrees `wgs84_west`, `_south`, `_east`, `_north`. A
    year without a tile there, or without a valid pixel, is told to `log` and has no file. A file
    that an earlier call wrote of the same tiles is kept; one that was stopped goes on. Raises
    NoEmbeddingsError where no year has any, IndexFormatError, TileError, EmbeddingError (a grid
    without CRS; a file of someone else's under the name), FetchError.
    """
    out = Path(out)
    place = georeference(grid_tif)
    if place.crs is None or place.points or place.rpcs:
        fix = "give it a CRS and a transform (gdalwarp)"
        raise EmbeddingError(f"{grid_tif}: no grid on the map. To fix: {fix}")
    years = sorted(set(years))
    source = str(index or INDEX)
    tiles = tiles_in(local_index(index, patience, log), boxes_of(place), years, _spelt(place))
    for year in [year for year in years if year not in tiles]:
        log(f"{year}: the index {source} has no embeddings of this place")
    _refuse_if_too_large(out, place, len(tiles))
    written = []
    for year, found in tiles.items():
        target = out / f"gee_embeddings_{_region(Path(grid_tif), out)}_{year}_10km.tif"
        tags = _tags(place, year, found, source)
        if _is_there(target, tags) or _made(target, place, found, tags, patience, log):
            written.append(target)
    if not written:
        asked = ", ".join(map(str, years))
        fix = "check place and years; AlphaEarth begins in 2017 and has land only"
        raise NoEmbeddingsError(f"{source}: no embedding of this place in {asked}. To fix: {fix}")
    return written


def _region(grid_tif: Path, out: Path) -> str:
    match = re.fullmatch(r"s2_rgb_(.+)_(?:19|20)\d\d(?:\D.*)?\.tiff?", grid_tif.name, re.IGNORECASE)
    return match[1] if match else out.resolve().name


def _spelt(place: Georeference) -> str:
    return place.crs.to_string()


def _tags(place: Georeference, year: int, tiles: Sequence[Tile], source: str) -> dict[str, str]:
    grid = [_spelt(place), *tuple(place.transform)[:6], place.height, place.width]
    addresses = [tile.address for tile in tiles]
    identity = hashlib.sha256(json.dumps([grid, year, addresses]).encode()).hexdigest()
    return {
        "LICENCE": LICENCE,
        "ATTRIBUTION": ATTRIBUTION,
        "TIFFTAG_COPYRIGHT": f"{ATTRIBUTION} {LICENCE}",
        "ENCODING": ENCODING,
        "YEAR": str(year),
        "INDEX": source,
        "TILES": " ".join(tile.path for tile in tiles),
        "SOURCES_SHA256": identity,
    }


def _is_there(target: Path, tags: dict[str, str]) -> bool:
    """Whether an earlier call wrote the same; EmbeddingError where the file is of another hand."""
    import rasterio

    if not target.exists():
        return False
    try:
        with rasterio.open(target) as file:
            found = file.tags().get("SOURCES_SHA256")
    except rasterio.errors.RasterioIOError:
        found = None
    if found is None:
        raise EmbeddingError(
            f"{target}: is there, and not from here. To fix: move it away to have AlphaEarth's"
        )
    return found == tags["SOURCES_SHA256"]


def _refuse_if_too_large(out: Path, place: Georeference, years: int) -> None:
    """Each year's codes uncompressed, and those of one year once more while they come."""
    out.mkdir(parents=True, exist_ok=True)
    needed = BANDS * place.height * place.width * (years + 1)
    free = shutil.disk_usage(out).free
    if needed > free:
        found = f"an estimated {needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free"
        raise NoSpaceError(str(out), found, "make room, or name fewer years or a smaller place")


def _made(
    target: Path, place: Georeference, tiles: Sequence[Tile], tags: dict[str, str],
    patience: Patience, log: Log,
) -> bool:  # fmt: skip
    """Read all windows of a year that are not there yet and write its file; False where not one
    pixel has an embedding.
    """
    from tqdm import tqdm

    year = tags["YEAR"]
    identity = tags["SOURCES_SHA256"]
    todo = windows(place.height, place.width)
    with kept_codes(target, identity, place.height, place.width) as codes, _opener(
        place, patience, log
    ) as reader:  # fmt: skip
        rest = [window for window in todo if window not in codes.done]
        for window in tqdm(rest, f"embeddings {year}", unit="window", leave=False, disable=None):
            codes.put(window, reader.codes(tiles, window))
        share = sum(codes.done.values()) / (place.height * place.width)
        log(f"{year}: {len(tiles)} tiles, {share:.1%} of the pixels have an embedding")
        if share:
            profile = {"crs": place.crs, "transform": place.transform}
            write_codes(target, codes, profile, tags | {"VALID_SHARE": f"{share:.6f}"})
        codes.finished = True
    return bool(share)


@contextmanager
def _opener(place: Georeference, patience: Patience, log: Log) -> Iterator[_Reader]:
    """GDAL told to ask again, to say who asks, to list no folders and to remember no failure."""
    import rasterio

    options = {
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
        "GDAL_HTTP_MAX_RETRY": str(patience.tries),
        "GDAL_HTTP_RETRY_DELAY": str(patience.first),
        "GDAL_HTTP_CONNECTTIMEOUT": str(int(patience.connect) or 1),
        "GDAL_HTTP_LOW_SPEED_TIME": str(int(patience.read) or 1),  # so long without a byte
        "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
        "GDAL_HTTP_USERAGENT": AGENT,
        "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/",  # after a file is closed
        "GDAL_CACHEMAX": CACHE,
    }
    with rasterio.Env(**options), ExitStack() as stack:
        reader = _Reader(place, patience, log)
        stack.callback(reader.close)
        yield reader


class _Reader:
    """The tiles of a year as if they lay on the grid, opened when first read."""

    def __init__(self, place: Georeference, patience: Patience, log: Log) -> None:
        self.place = place
        self.patience = patience
        self.log = log
        self.open: dict[Tile, tuple[Any, WarpedVRT]] = {}

    def codes(self, tiles: Sequence[Tile], window: Window) -> np.ndarray:
        """Codes (64, h, w) of a window: each pixel whole from the first tile that has it."""
        codes = np.full((BANDS, window[3], window[2]), MASKED, np.int8)
        for tile in tiles:
            holes = codes[0] == MASKED
            if not holes.any():
                break
            found = self._read(tile, window)
            holes &= (found != MASKED).all(0)
            codes[:, holes] = found[:, holes]
        return codes

    def _read(self, tile: Tile, window: Window) -> np.ndarray:
        """All bands of one tile, a few at a time; TileError when it cannot be read at last."""
        from rasterio.errors import RasterioError
        from rasterio.windows import Window as Box

        attempts = Attempts(tile.path, self.patience, self.log)
        while True:
            try:
                vrt = self._opened(tile)
                groups = [range(first + 1, first + 1 + GROUP) for first in range(0, BANDS, GROUP)]
                return np.concatenate([vrt.read(list(g), window=Box(*window)) for g in groups])
            except RasterioError as error:
                self._forget(tile)
                if not tile.address.startswith("/vsicurl/"):
                    why = error.__cause__ or error
                    raise TileError(f"{tile.path}: cannot be read ({why})") from error
                attempts.wait(AgainError(f"not read ({error})"), progress=False)

    def _opened(self, tile: Tile) -> WarpedVRT:
        """A view of a tile on the grid. Whether its first row is in the south or in the north, and
        in which zone it lies, is seen to by the warper, without an error of its own (tolerance).
        """
        import rasterio
        from rasterio.enums import Resampling
        from rasterio.vrt import WarpedVRT

        if tile not in self.open:
            src = rasterio.open(tile.address)
            if src.count != BANDS or src.dtypes[0] != "int8" or src.crs is None:
                found = f"{src.count} bands of {src.dtypes[0]} in {name_of(src.crs)}"
                src.close()
                raise TileError(f"{tile.path}: {found} instead of {BANDS} bands of int8 codes")
            place = self.place
            vrt = WarpedVRT(
                src, crs=place.crs, transform=place.transform, height=place.height,
                width=place.width, resampling=Resampling.nearest, src_nodata=MASKED,
                nodata=MASKED, tolerance=EXACT,
            )  # fmt: skip
            self.open[tile] = (src, vrt)
        return self.open[tile][1]

    def _forget(self, tile: Tile) -> None:
        for dataset in reversed(self.open.pop(tile, ())):
            dataset.close()

    def close(self) -> None:
        """Close all tiles."""
        for tile in list(self.open):
            self._forget(tile)

"""A composite as a GeoTIFF of the published layout: what it is made of stands in its tags."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from satjepa.paths import replaced
from satjepa.region.assets import RGB
from satjepa.region.grid import UtmGrid, Window

RECORD = "SATJEPA_RECORD"  # the tag with all that is known of a composite, as JSON
LICENCE = "https://sentinel.esa.int/documents/247904/690755/Sentinel_Data_Legal_Notice"


def attribution(year: int) -> str:
    """What has to be said of an image made of Copernicus data."""
    return f"Contains modified Copernicus Sentinel data {year}"


def composite_path(out: Path, region: str, year: int) -> Path:
    """Where the composite of a year lies below the root of a data set."""
    return out / region / f"s2_rgb_{region}_{year}_10km.tif"


def write_composite(
    path: Path,
    grid: UtmGrid,
    side: int,
    blocks: Iterable[tuple[Window, np.ndarray]],
    record: dict[str, Any],
) -> None:
    """Write the blocks (3, h, w) uint16 of a grid, of `side` pixels each, in any order; the file
    appears when it is complete.
    """
    import rasterio
    from rasterio.windows import Window as Part

    profile = {
        "driver": "GTiff",
        "count": len(RGB),
        "width": grid.width,
        "height": grid.height,
        "dtype": "uint16",
        "nodata": 0,
        "crs": grid.crs,
        "transform": grid.transform(),
        "compress": "deflate",
        "predictor": 2,
        "tiled": True,
        "blockxsize": side,
        "blockysize": side,
        "bigtiff": "if_safer",
    }
    with replaced(path) as part, rasterio.open(part, "w", **profile) as tif:
        for window, block in blocks:
            place = Part(window.column, window.row, window.width, window.height)
            tif.write(block, window=place)
        tif.descriptions = RGB
        tif.update_tags(**_tags(record))


def read_record(path: Path) -> dict[str, Any] | None:
    """What `write_composite` was told of a file; None where the file does not say."""
    import rasterio
    from rasterio.errors import RasterioIOError

    try:
        with rasterio.open(path) as src:
            text = src.tags().get(RECORD)
        return json.loads(text) if text else None
    except (RasterioIOError, ValueError):
        return None


def _tags(record: dict[str, Any]) -> dict[str, str]:
    """The record as a whole, and in words what people look for."""
    items = record["items"]
    return {
        RECORD: json.dumps(record, sort_keys=True),
        "TIFFTAG_COPYRIGHT": attribution(record["year"]),
        "TIFFTAG_SOFTWARE": record["software"],
        "TIFFTAG_IMAGEDESCRIPTION": (
            f"Sentinel-2 L2A, median of the clear pixels of {len(items)} images, "
            f"{record['first_day']} to {record['last_day']}; reflectance x 10000, 0 is nodata"
        ),
        "ATTRIBUTION": attribution(record["year"]),
        "LICENCE": LICENCE,
        "ITEMS": " ".join(item["item"] for item in items),
        "OFFSETS": " ".join(f"{item['item']}:{item['offset']:+d}" for item in items),
        "MONTHS": record["months"],
        "VALID_SHARE": f"{record['valid_share']:.4f}",
    }

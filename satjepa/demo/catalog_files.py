"""The files of the demo world's STAC catalog: COGs of an image, items, collection and root."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from satjepa.paths import replaced, write_text

PIXEL = 10  # metres
COLLECTION = "sentinel-2-l2a"
EXTENSIONS = [
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("projection/v1.1.0", "eo/v1.1.0", "raster/v1.1.0")
]
BANDS = {"red": "B04", "green": "B03", "blue": "B02"}


@dataclass(frozen=True)
class Frame:
    """Where an image lies: CRS, upper left corner in metres, pixels of 10 m a side."""

    crs: str
    left: int
    top: int
    side: int

    def places(self, crs: str) -> tuple[np.ndarray, np.ndarray]:
        """x and y of the centres of its pixels in another CRS, each (side, side)."""
        from rasterio.warp import transform

        middle = np.arange(self.side) + 0.5
        x, y = np.meshgrid(self.left + PIXEL * middle, self.top - PIXEL * middle)
        there = transform(self.crs, crs, x.ravel(), y.ravel())
        x, y = (np.reshape(values, (self.side, self.side)) for values in there)
        return x, y

    def ring(self) -> list[list[float]]:
        """Its outline, closed, as longitude and latitude."""
        from rasterio.warp import transform

        far = PIXEL * self.side
        xs = [self.left, self.left, self.left + far, self.left + far, self.left]
        ys = [self.top, self.top - far, self.top - far, self.top, self.top]
        lon, lat = transform(self.crs, "EPSG:4326", xs, ys)
        return [[round(a, 7), round(b, 7)] for a, b in zip(lon, lat, strict=True)]


def write_item(
    out: Path,
    name: str,
    when: datetime,
    frame: Frame,
    rgb: np.ndarray,
    scl: np.ndarray,
    flavour: str,
    offset: float | None,
    properties: dict[str, Any],
) -> dict[str, Any]:
    """Write the COGs of an image, rgb (3, n, n) uint16 and scl (n/2, n/2) uint8, and its item;
    returns the item.
    """
    folder = out / COLLECTION / name
    assets = {}
    for (color, band), data in zip(BANDS.items(), rgb, strict=True):
        _write_cog(folder / f"{band}.tif", data, frame, PIXEL)
        asset = _asset(f"{band}.tif", band, color)
        if offset is not None:
            asset["raster:bands"] = [
                {"nodata": 0, "data_type": "uint16", "scale": 1e-4, "offset": offset}
            ]
        assets[band if flavour == "pc" else color] = asset
    _write_cog(folder / "SCL.tif", scl, frame, 2 * PIXEL)
    assets["SCL" if flavour == "pc" else "scl"] = _asset("SCL.tif")
    clouds = float(np.isin(scl, (8, 9, 10)).mean() / max((scl > 0).mean(), 1e-9))
    told = {
        "datetime": f"{when:%Y-%m-%dT%H:%M:%SZ}",
        "platform": "sentinel-2a",
        "eo:cloud_cover": round(100 * clouds, 2),
        "proj:epsg": int(frame.crs.removeprefix("EPSG:")),
    }
    item = _item(name, frame.ring(), told | properties, assets)
    write_text(folder / f"{name}.json", json.dumps(item, indent=1) + "\n")
    return item


def _item(
    name: str, ring: list[list[float]], properties: dict[str, Any], assets: dict[str, Any]
) -> dict[str, Any]:
    """A STAC item with links to where it stands in the tree."""
    lon, lat = np.transpose(ring)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": EXTENSIONS,
        "id": name,
        "collection": COLLECTION,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [lon.min(), lat.min(), lon.max(), lat.max()],
        "properties": properties,
        "links": [
            _link("root", "../../catalog.json"),
            _link("parent", "../collection.json"),
            _link("collection", "../collection.json"),
        ],
        "assets": assets,
    }


def write_tree(out: Path, items: list[dict[str, Any]]) -> Path:
    """Write collection and root of some items; returns the root."""
    boxes = np.array([item["bbox"] for item in items])
    times = sorted(item["properties"]["datetime"] for item in items)
    extent = {
        "spatial": {"bbox": [[*boxes[:, :2].min(0), *boxes[:, 2:].max(0)]]},
        "temporal": {"interval": [[times[0], times[-1]]]},
    }
    collection = {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": COLLECTION,
        "description": "An invented land as Sentinel-2 L2A would show it; no real data.",
        "license": "other",
        "extent": extent,
        "links": [_link("root", "../catalog.json"), _link("parent", "../catalog.json")]
        + [_link("item", f"./{item['id']}/{item['id']}.json") for item in items],
    }
    root = {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "satjepa-demo",
        "description": "The demo world of satjepa as a STAC catalog.",
        "links": [
            _link("root", "./catalog.json"),
            _link("child", f"./{COLLECTION}/collection.json"),
        ],
    }
    write_text(out / COLLECTION / "collection.json", json.dumps(collection, indent=1) + "\n")
    write_text(out / "catalog.json", json.dumps(root, indent=1) + "\n")
    return out / "catalog.json"


def _link(rel: str, href: str) -> dict[str, str]:
    return {"rel": rel, "href": href, "type": "application/json"}


def _asset(file: str, band: str | None = None, color: str | None = None) -> dict[str, Any]:
    asset: dict[str, Any] = {
        "href": f"./{file}",
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data"],
    }
    if band:
        asset["eo:bands"] = [{"name": band, "common_name": color}]
    return asset


def _write_cog(path: Path, data: np.ndarray, frame: Frame, pixel: int) -> None:
    """Write (n, n) pixels of so many metres."""
    import rasterio
    from affine import Affine

    profile = {
        "driver": "COG",
        "count": 1,
        "width": data.shape[1],
        "height": data.shape[0],
        "dtype": data.dtype,
        "nodata": 0,
        "crs": frame.crs,
        "transform": Affine(pixel, 0, frame.left, 0, -pixel, frame.top),
        "compress": "deflate",
        "blocksize": 128,
    }
    with replaced(path) as part, rasterio.open(part, "w", **profile) as tif:
        tif.write(data, 1)

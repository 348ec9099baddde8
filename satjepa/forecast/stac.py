"""A STAC item beside the files of a forecast: where and when, from what, by which model and how."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import satjepa
from satjepa.data.georeference import Georeference
from satjepa.forecast.made import Made
from satjepa.forecast.units import BANDS, COLOURS

if TYPE_CHECKING:
    from collections.abc import Sequence

CLOUD = "image/tiff; application=geotiff; profile=cloud-optimized"
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
EDGE = 8  # points of each edge of the outline: a straight edge of a grid is a curve in degrees


def item_of(
    made: Made, ahead: int, data: Path, members: Sequence[str] = (), picture: str | None = None,
    sentences: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The item (STAC 1.1) of the forecast of one year in the file `data`; members, picture
    and the sentences that led the members lie beside it under these names. Links lead to the images
    that it was made from.

    Properties of satjepa: the model (`satjepa:model`, of the sha256 of its weights), the tags of
    the file in lower case, and the name, year and sha256 of each image it was made from. A place
    that is not on the earth, or not told, has no geometry. ValueError where no year is known.
    """
    place = made.request.place
    year = int(made.year(ahead))
    assets = {"forecast": _asset(made, data.name, "Mean and spread of the ensemble", BANDS)}
    for number, name in enumerate(members, start=1):
        assets[f"member_{number}"] = _asset(made, name, f"Member {number}", COLOURS)
    if picture:
        assets["picture"] = {"href": f"./{picture}", "type": "image/png", "roles": ["overview"]}
    if sentences:
        title = "The caption that led each member of each tile"
        assets["sentences"] = {"href": f"./{sentences}", "type": "text/csv", "title": title,
                               "roles": ["metadata"]}  # fmt: skip
    outline = outline_of(place)
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [PROJECTION],
        "id": data.stem,
        "geometry": geometry_of(outline) if outline else None,
        "properties": {
            "title": f"Forecast of {year}",
            "datetime": None,
            "start_datetime": f"{year}-01-01T00:00:00Z",
            "end_datetime": f"{year}-12-31T23:59:59Z",
            **_projection(place),
            **_making(made, ahead),
        },
        "links": [_source(image, data.parent) for image in made.scene.images],
        "assets": assets,
    }
    if outline:
        item["bbox"] = box_of(outline)
    return item


def _source(image: Path, folder: Path) -> dict[str, str]:
    """The link from an item in a folder to an image that it was made from."""
    href = os.path.relpath(image.resolve(), folder.resolve())
    return {"rel": "derived_from", "href": href, "type": "image/tiff; application=geotiff"}


def _asset(made: Made, name: str, title: str, bands: tuple[str, ...]) -> dict[str, Any]:
    units = made.units
    nodata: float | str | None = units.nodata
    if nodata is not None and not math.isfinite(nodata):
        nodata = str(nodata)  # JSON has no number for it
    listed = []
    for band in bands:
        entry = {"name": band, "data_type": "float32", "unit": units.place.unit, "nodata": nodata}
        listed.append({key: value for key, value in entry.items() if value is not None})
    return {
        "href": f"./{name}", "type": CLOUD, "title": title, "roles": ["data"], "bands": listed,
    }  # fmt: skip


def _projection(place: Georeference) -> dict[str, Any]:
    """What the projection extension says of a place."""
    epsg = place.crs.to_epsg() if place.crs else None
    found: dict[str, Any] = {"proj:shape": [place.height, place.width]}
    found["proj:code"] = f"EPSG:{epsg}" if epsg else None
    if place.crs and not epsg:
        found["proj:wkt2"] = place.crs.to_wkt()
    if not place.points and not place.transform.is_identity:
        found["proj:transform"] = [*tuple(place.transform)[:6], 0, 0, 1]
    return found


def _making(made: Made, ahead: int) -> dict[str, Any]:
    """By what and from what a forecast was made."""
    tags = {name.lower(): text for name, text in made.tags(ahead).items() if name != "INPUTS"}
    scene = made.scene
    inputs = []
    for path, year, digest in zip(scene.images, scene.years, scene.hashes, strict=True):
        inputs.append({"name": path.name, "year": year, "sha256": digest})
    numbers = {"satjepa:seed": int(tags["seed"]), "satjepa:samples": int(tags["samples"])}
    return (
        {f"satjepa:{name}": text for name, text in tags.items()}
        | numbers
        | {"satjepa:version": satjepa.__version__, "satjepa:inputs": inputs}
    )


def outline_of(place: Georeference) -> list[tuple[float, float]]:
    """The outline of a raster as points (longitude, latitude), anticlockwise on the map, the first
    one once; longitudes without a jump, so that they may lie beyond 180 degrees. Empty where it
    does not lie on the earth.
    """
    from rasterio import transform, warp
    from rasterio._err import CPLE_BaseError  # what `warp.transform` lets through
    from rasterio.errors import CRSError, RasterioError

    if place.points:
        way = transform.GCPTransformer(list(place.points))
    elif place.rpcs and place.transform.is_identity:
        way = transform.RPCTransformer(place.rpcs)
    else:
        way = transform.AffineTransformer(place.transform)
    crs = "EPSG:4326" if place.rpcs and place.crs is None else place.crs
    if crs is None:
        return []
    steps = np.linspace(0, 1, EDGE, endpoint=False)
    rows = np.concatenate([steps, steps * 0 + 1, 1 - steps, steps * 0]) * place.height
    columns = np.concatenate([steps * 0, steps, steps * 0 + 1, 1 - steps]) * place.width
    try:
        with way:
            x, y = (np.asarray(values, float) for values in way.xy(rows, columns, offset="ul"))
        lon, lat = (np.array(values) for values in warp.transform(crs, "EPSG:4326", x, y))
    except (CRSError, RasterioError, CPLE_BaseError):
        return []
    if not np.isfinite([lon, lat]).all():
        return []
    lon = np.rad2deg(np.unwrap(np.deg2rad(lon)))
    area = np.sum(lon * np.roll(lat, -1) - np.roll(lon, -1) * lat)
    points = list(zip(lon.round(7).tolist(), lat.round(7).tolist(), strict=True))
    return points if area > 0 else points[::-1]


def geometry_of(outline: list[tuple[float, float]]) -> dict[str, Any]:
    """A GeoJSON polygon of an outline, in two where it crosses the antimeridian."""
    rings = []
    for turn in (-360.0, 0.0, 360.0):
        moved = [(lon + turn, lat) for lon, lat in outline]
        ring = _clipped(_clipped(moved, -180.0, above=True), 180.0, above=False)
        if len(ring) > 2:
            rings.append([[*point] for point in (*ring, ring[0])])
    if len(rings) == 1:
        return {"type": "Polygon", "coordinates": rings}
    return {"type": "MultiPolygon", "coordinates": [[ring] for ring in rings]}


def box_of(outline: list[tuple[float, float]]) -> list[float]:
    """West, south, east, north of an outline; west is greater than east across the antimeridian."""
    lons = [lon for lon, _ in outline]
    lats = [lat for _, lat in outline]
    west, east = (round((lon + 180) % 360 - 180, 7) for lon in (min(lons), max(lons)))
    return [west, min(lats), east, max(lats)]


def _clipped(
    ring: list[tuple[float, float]], limit: float, above: bool
) -> list[tuple[float, float]]:
    """The part of a ring on one side of a meridian."""
    kept: list[tuple[float, float]] = []
    for i, point in enumerate(ring):
        before = ring[i - 1]
        inside = (point[0] >= limit) if above else (point[0] <= limit)
        was_inside = (before[0] >= limit) if above else (before[0] <= limit)
        if inside != was_inside:
            share = (limit - before[0]) / (point[0] - before[0])
            kept.append((limit, round(before[1] + share * (point[1] - before[1]), 7)))
        if inside:
            kept.append(point)
    return kept if len({lon for lon, _ in kept}) > 1 else []

"""What the items of a catalog say of their files: where red, green, blue and the scene
classification (SCL) are, what is to be added to the numbers, clouds, tile and baseline.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from satjepa.region.errors import CollectionError

# Of each band, the keys of its asset in the catalogs known, the finest first.
KEYS = {
    "red": ("red", "B04", "B04_10m"),
    "green": ("green", "B03", "B03_10m"),
    "blue": ("blue", "B02", "B02_10m"),
    "scl": ("scl", "SCL", "SCL_20m"),
}
RGB = ("red", "green", "blue")
ESA_OFFSET = -1000  # DN, by which numbers of processing baseline 04.00 and later are too high
SINCE_BASELINE = 4.0


@dataclass(frozen=True)
class Image:
    """One item. hrefs: of red, green, blue and scl. stated: the offset in DN that its metadata
    ask for, and `says` where. bbox in degrees; cloud in percent or None.
    """

    name: str
    when: str
    hrefs: dict[str, str]
    stated: int
    says: str
    bbox: tuple[float, ...]
    cloud: float | None
    tile: str
    baseline: str

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it; `image_from` is the way back."""
        return asdict(self)


def image_from(stored: dict[str, Any]) -> Image:
    """What `as_dict` made a dict of."""
    return Image(**(stored | {"bbox": tuple(stored["bbox"])}))


def read_item(item: dict[str, Any]) -> Image:
    """Raises CollectionError where an item lacks one of the four files, or has it in a place or
    on a scale that cannot be read.
    """
    properties = item["properties"]
    assets = {band: _asset(item, band) for band in KEYS}
    baseline = str(
        properties.get("s2:processing_baseline") or properties.get("processing:version") or ""
    )
    stated, says = _stated(properties, assets["blue"], baseline)
    cloud = properties.get("eo:cloud_cover")
    return Image(
        name=item["id"],
        when=properties["datetime"],
        hrefs={band: _readable(item["id"], asset["href"]) for band, asset in assets.items()},
        stated=stated,
        says=says,
        bbox=tuple(item.get("bbox") or (-180, -90, 180, 90)),
        cloud=None if cloud is None else float(cloud),
        tile=str(properties.get("grid:code") or properties.get("s2:mgrs_tile") or ""),
        baseline=baseline,
    )


def newest_baselines(images: list[Image]) -> list[Image]:
    """Without those that are the same tile at the same minute as another of a later processing
    baseline: catalogs keep both.
    """
    best: dict[tuple[str, str], Image] = {}
    for image in images:
        key = (image.tile or image.name, image.when[:16])
        kept = best.get(key)
        if kept is None or (image.baseline, image.name) > (kept.baseline, kept.name):
            best[key] = image
    return [image for image in images if image in best.values()]


def _asset(item: dict[str, Any], band: str) -> dict[str, Any]:
    """The asset of a band: by its key, else by the common name of its only band."""
    assets = item.get("assets", {})
    for key in KEYS[band]:
        if key in assets:
            return assets[key]
    for asset in assets.values():
        described = asset.get("eo:bands") or asset.get("bands") or []
        names = [one.get("common_name") or one.get("eo:common_name") for one in described]
        if names == [band]:
            return asset
    has = ", ".join(sorted(assets)[:12]) or "none"
    raise CollectionError(
        f"item {item['id']}: no asset for {band} (it has {has}): name a collection of Sentinel-2 "
        "L2A (--collection)"
    )


def _stated(properties: dict[str, Any], asset: dict[str, Any], baseline: str) -> tuple[int, str]:
    """The offset in DN by the metadata, and which of them."""
    bands = asset.get("raster:bands") or asset.get("bands") or [{}]
    scale = bands[0].get("scale", bands[0].get("raster:scale", asset.get("raster:scale")))
    offset = bands[0].get("offset", bands[0].get("raster:offset", asset.get("raster:offset")))
    if scale not in (None, 1, 1e-4):
        raise CollectionError(f"a scale of {scale} is stated, and Sentinel-2 L2A has 0.0001")
    if properties.get("earthsearch:boa_offset_applied"):
        return 0, "boa_offset_applied"
    if offset is not None:
        return round(float(offset) / (scale or 1e-4)), f"offset {offset:g} of the band"
    try:
        newer = float(baseline) >= SINCE_BASELINE
    except ValueError:
        return 0, "nothing"
    return (ESA_OFFSET if newer else 0), f"processing baseline {baseline}"


def _readable(name: str, href: str) -> str:
    """An href that GDAL can read without credentials: a path or http(s)."""
    scheme = urlsplit(href).scheme
    if scheme in ("http", "https") or "://" not in href:
        return href
    raise CollectionError(
        f"item {name}: its files are at {scheme}://, which wants credentials of that store: use a "
        "catalog with https files, such as --stac earth-search or planetary-computer"
    )

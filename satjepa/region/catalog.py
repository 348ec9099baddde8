"""Catalogs of Sentinel-2 images: which ones are known by name, and what one of them has of a box
in a season.
"""

from __future__ import annotations

import datetime
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satjepa.region.errors import CollectionError, RegionError, ServerError
from satjepa.region.http import patient_io
from satjepa.region.request import Box, Season

if TYPE_CHECKING:
    from pystac_client import Client

Dates = tuple[datetime.date, datetime.date]  # first and last day
PAGE = 100  # items: servers fail on larger pages
MOST_ITEMS = 5000  # of a season: more is a server that repeats itself, or too large a box


@dataclass(frozen=True)
class Catalog:
    """A STAC API or a static catalog: its URL or path, a collection of Sentinel-2 L2A, and, where
    its files need a signature, the URL that gives a token for the collection.
    """

    url: str
    collection: str
    tokens: str | None = None


KNOWN = {
    "earth-search": Catalog("https://earth-search.aws.element84.com/v1", "sentinel-2-l2a"),
    "planetary-computer": Catalog(
        "https://planetarycomputer.microsoft.com/api/stac/v1",
        "sentinel-2-l2a",
        "https://planetarycomputer.microsoft.com/api/sas/v1/token/sentinel-2-l2a",
    ),
}
USUAL = "sentinel-2-l2a"


def catalog_of(name: str, collection: str | None = None) -> Catalog:
    """A catalog by a name of KNOWN, a URL, or the path of a catalog.json or of its folder.

    The tokens of a known catalog are those of the collection asked for. Raises ServerError where a
    path does not exist.
    """
    known = KNOWN.get(name)
    if known:
        wanted = collection or known.collection
        tokens = known.tokens and known.tokens.replace(known.collection, wanted)
        return Catalog(known.url, wanted, tokens)
    if "://" not in name:
        path = Path(name) / "catalog.json" if Path(name).is_dir() else Path(name)
        if not path.is_file():
            names = ", ".join(KNOWN)
            raise ServerError(f"{name}: no such catalog; give {names}, a URL or a catalog.json")
        name = str(path.resolve())
    return Catalog(name, collection or USUAL)


class Source:
    """An opened catalog, searched a season at a time.

    Raises ServerError where it does not answer or is no STAC catalog.
    """

    def __init__(self, catalog: Catalog, wait: Callable[[float], None] = time.sleep) -> None:
        self.catalog = catalog
        with _quietly():
            self.client = _open(catalog, wait)
        self.walked: list[dict[str, Any]] | None = None  # all items of a catalog without search

    def search(self, box: Box, season: Season, year: int) -> list[dict[str, Any]]:
        """The items (STAC, as dicts with absolute hrefs) that touch a box in the season of a year,
        sorted by time and id; clouds play no part.

        A catalog without search is walked. Raises ServerError, and CollectionError where nothing
        is found because the catalog has no such collection.
        """
        found: dict[str, dict[str, Any]] = {}
        dates = season.dates(year)
        with _quietly():
            for item in self._items(box, dates):
                if _meets(item, box, dates):
                    found[item["id"]] = item
                if len(found) > MOST_ITEMS:
                    raise ServerError(
                        f"{self.catalog.url}: more than {MOST_ITEMS} items for {box} in {year}"
                    )
            if not found:
                self._check_collection()
        return sorted(found.values(), key=lambda item: (item["properties"]["datetime"], item["id"]))

    def _items(self, box: Box, dates: Dates) -> Iterator[dict[str, Any]]:
        """Items as a catalog gives them: from its search, or from a walk through its files."""
        name = self.catalog.collection
        if self.client.conforms_to("ITEM_SEARCH"):
            times = f"{dates[0]}T00:00:00Z/{dates[1]}T23:59:59Z"
            for part in box.parts:
                found = self.client.search(
                    collections=[name], bbox=part, datetime=times, limit=PAGE
                )
                yield from found.items_as_dicts()
            return
        if self.walked is None:
            items = [i for i in self.client.get_items(recursive=True) if i.collection_id == name]
            self.walked = [
                item.make_asset_hrefs_absolute().to_dict(transform_hrefs=False) for item in items
            ]
        yield from self.walked

    def _check_collection(self) -> None:
        """Raises CollectionError where the catalog has no collection of that name."""
        names = sorted(collection.id for collection in self.client.get_collections())
        if self.catalog.collection not in names:
            shown = ", ".join([name for name in names if "entinel" in name] or names[:10])
            raise CollectionError(
                f"{self.catalog.url}: no collection {self.catalog.collection!r}; it has "
                f"{shown or 'none'} (--collection)"
            )


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the library's warnings, of pages without a count and of extensions missing: they
    play no part here.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(catalog: Catalog, wait: Callable[[float], None]) -> Client:
    from pystac_client import Client

    try:
        return Client.open(catalog.url, stac_io=patient_io(wait))
    except RegionError:
        raise
    except Exception as error:  # the library has an error of its own for each way not to be STAC
        words = " ".join(str(error).split())[:120]
        raise ServerError(f"{catalog.url}: no STAC catalog ({words})") from error


def _meets(item: dict[str, Any], box: Box, dates: Dates) -> bool:
    """Whether an item touches a box in time: servers and static catalogs alike are checked."""
    when = item["properties"].get("datetime")
    if not when or not dates[0].isoformat() <= when[:10] <= dates[1].isoformat():
        return False
    bounds = item.get("bbox") or (-180, -90, 180, 90)
    west, south, east, north = bounds[:4] if len(bounds) == 4 else (*bounds[:2], *bounds[3:5])
    inside = south <= box.north and north >= box.south
    width = east - west if east >= west else east - west + 360
    apart = (west - box.west + 180) % 360 - 180  # degrees, to the east
    return inside and (apart <= box.width if apart >= 0 else -apart <= width)

"""A request from what people write."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from satjepa.region.catalog import catalog_of
from satjepa.region.request import check_begun, check_name, parse_box, parse_months, parse_years
from satjepa.region.year import MAX_CLOUD, MIN_VALID, MOST_BYTES, Request


def ask(
    bbox: Sequence[float],
    years: str,
    out: str | Path,
    *,
    months: str | None = None,
    max_cloud: float | None = None,
    min_valid: float | None = None,
    stac: str = "earth-search",
    collection: str | None = None,
    name: str | None = None,
    yes: bool = False,
    log: Callable[[str], None] = print,
    today: datetime.date | None = None,
) -> Request:
    """Check what is asked for and make a request of it, for `satjepa.region.get.get_region`.

    bbox: west, south, east, north in degrees. years, months: as "2017-2024" and "5-9". max_cloud in
    percent, min_valid a share; None for the usual. stac: a known name, URL or path. yes: however
    many bytes that is. Raises BoxError, TooLargeError, YearError, ServerError.
    """
    box = parse_box(bbox)
    wanted = parse_years(years, today)
    season = parse_months(months, box)
    check_begun(season, wanted, today)
    return Request(
        catalog=catalog_of(stac, collection),
        box=box,
        season=season,
        years=wanted,
        out=Path(out),
        name=check_name(name) if name else None,
        max_cloud=MAX_CLOUD if max_cloud is None else max_cloud,
        min_valid=MIN_VALID if min_valid is None else min_valid,
        most_bytes=math.inf if yes else MOST_BYTES,
        log=log,
    )

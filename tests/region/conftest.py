"""What the tests of a region share: a smooth land whose truth is known at every place, its catalog,
and a server of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from smooth_land import SmoothLand
from stac_server import StacServer, serving

from satjepa.demo.catalog import Written, write_catalog
from satjepa.region.ask import ask
from satjepa.region.year import Request

DATES = ((5, 20), (6, 14), (7, 9), (8, 18))


@pytest.fixture(scope="session")
def land() -> SmoothLand:
    return SmoothLand([2021])


@pytest.fixture(scope="session")
def catalog(land: SmoothLand, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Two years, four dates from each zone, all flavours."""
    return write_catalog(tmp_path_factory.mktemp("catalog"), [2021, 2022], dates=DATES, land=land)


@pytest.fixture
def server(catalog: Written) -> Iterator[StacServer]:
    with serving(catalog.path.parent) as server:
        yield server


@pytest.fixture
def waits() -> list[float]:
    """Seconds that a request waited for, none of which pass."""
    return []


@pytest.fixture
def request_of(catalog: Written, tmp_path: Path, waits: list[float]) -> Callable[..., Request]:
    """A request for the box of the catalog, for one year unless told otherwise."""

    def make(stac: object = None, years: str = "2022", **changed: Any) -> Request:
        words = {key: changed.pop(key) for key in ("months", "collection") if key in changed}
        bbox = changed.pop("bbox", catalog.bbox)
        made = ask(bbox, years, tmp_path / "out", stac=str(stac or catalog.path), **words)
        quiet = {"progress": False, "wait": waits.append, "log": [].append}
        return replace(made, **(quiet | changed))

    return make

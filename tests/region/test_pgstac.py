"""Composites from a real STAC API: PostgreSQL with pgstac. `pytest tests/region -m pipeline`."""

import json

import pytest
import rasterio
from pgstac import missing, pgstac

from satjepa.region.errors import CollectionError, NoItemsError
from satjepa.region.get import get_region


@pytest.mark.pipeline
@pytest.mark.timeout(1800)
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_real_api_gives_what_the_files_give(catalog, server, request_of, tmp_path):
    collection = json.loads((catalog.path.parent / "sentinel-2-l2a/collection.json").read_text())
    paths = get_region(request_of(years="2021-2022"))
    with pgstac(tmp_path, server.items, collection | {"links": []}) as url:
        served = get_region(request_of(url, years="2021-2022", name="Served"))
        with pytest.raises(NoItemsError, match="2020"):
            get_region(request_of(url, years="2020"))
        with pytest.raises(CollectionError, match="it has sentinel-2-l2a"):
            get_region(request_of(url, years="2020", collection="other"))
    for path, other in zip(paths, served, strict=True):
        with rasterio.open(path) as one, rasterio.open(other) as two:
            assert (one.read() == two.read()).all()

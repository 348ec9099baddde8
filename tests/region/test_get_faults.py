"""Servers that fail, and catalogs that lack what is asked for: tried again, or one clear line; no
file is half there, and none is wrong.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import rasterio
from stac_server import Fault, StacServer

from satjepa.region.catalog import Catalog
from satjepa.region.errors import (
    CloudyYearError,
    CollectionError,
    ExistingFileError,
    NoItemsError,
    RegionError,
    ServerError,
)
from satjepa.region.get import get_region
from satjepa.region.http import TRIES
from satjepa.region.year import Request

MONTHS = "6-7"  # two dates from two zones, a search of two pages


@pytest.fixture
def request_of(request_of) -> Callable[..., Request]:
    """A request for four images, which holes are no fault of."""
    return partial(request_of, months=MONTHS, min_valid=0.5)


@pytest.fixture(scope="module")
def right(catalog, tmp_path_factory):
    """The pixels of 2022, made from files on disk."""
    from satjepa.region.ask import ask

    out = tmp_path_factory.mktemp("right")
    words = {"months": MONTHS, "min_valid": 0.5, "stac": str(catalog.path), "log": [].append}
    (path,) = get_region(ask(catalog.bbox, "2022", out, **words))
    with rasterio.open(path) as src:
        return src.read()


FAULTS = {
    "502 to a search": [Fault("/search", 502, 2)],
    "429 to a search": [Fault("/search", 429, 1, {"Retry-After": "7"})],
    "half a page": [Fault("/search", "half", 2)],
    "a page that is no JSON": [Fault("/search", "wrong")],
    "no answer to a search": [Fault("/search", "nothing")],
    "503 to the root": [Fault("/", 503, 1)],
    "502 to files": [Fault("B03.tif", 502, 3)],
    "429 to files": [Fault("B02.tif", 429, 3)],
    "half of files": [Fault("B04.tif", "half", 5)],
    "wrong bytes of files": [Fault("B04.tif", "wrong", 3)],
    "wrong bytes of a classification": [Fault("SCL.tif", "wrong", 3)],
    "no answer to files": [Fault("B04.tif", "nothing", 3)],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_what_passes_is_tried_again_and_nothing_is_lost(
    faults: list[Fault], server: StacServer, request_of, right, waits
):
    server.faults = [Fault(f.part, f.kind, f.times, f.headers) for f in faults]
    (path,) = get_region(request_of(server.base))
    assert not any(fault.times for fault in server.faults)  # each was met
    with rasterio.open(path) as src:
        assert (src.read() == right).all()
    assert (7 in waits) == any("Retry-After" in fault.headers for fault in faults)
    assert waits or faults[0].part.endswith(".tif")  # GDAL asks again by itself, too


LASTING = {
    "search": (Fault("/search", 502, 99), "502"),
    "half": (Fault("/search", "half", 99), "/search"),
    "files": (Fault("B03.tif", 502, 9999), "B03.tif"),
    "wrong": (Fault("B02.tif", "wrong", 9999), "B02.tif"),
    "cut": (Fault("B04.tif", "half", 9999), "B04.tif"),
}


@pytest.mark.parametrize(("fault", "words"), LASTING.values(), ids=LASTING)
def test_what_lasts_is_one_line_and_no_file(fault, words, server, request_of, waits):
    server.faults = [Fault(fault.part, fault.kind, fault.times)]
    request = request_of(server.base, workers=1)
    with pytest.raises(ServerError, match=f"{TRIES} times") as caught:
        get_region(request)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert len(waits) >= TRIES - 1 and waits[:3] == [0.5, 1.0, 2.0]
    assert not list(request.out.rglob("*.tif"))
    server.faults = []
    (path,) = get_region(request)  # goes on where it was
    assert path.is_file()


def test_no_server_at_all(request_of):
    with pytest.raises(ServerError, match=rf"127\.0\.0\.1:9/.* {TRIES} times"):
        get_region(request_of("http://127.0.0.1:9/"))


def test_a_404_is_not_tried_again(server, request_of, waits):
    with pytest.raises(ServerError, match="/nowhere: answered 404: look at the address"):
        get_region(request_of(f"{server.base}/nowhere"))
    assert not waits


def test_a_token_is_fetched_and_renewed_when_it_is_refused(server, request_of, right, waits):
    server.signed = True
    with pytest.raises(ServerError, match="403"):
        get_region(request_of(server.base))
    waits.clear()
    catalog = Catalog(server.base, "sentinel-2-l2a", f"{server.base}/token")
    server.expires_after = 30  # answers with files
    request = request_of(server.base, catalog=catalog, name="Signed", workers=1)
    (path,) = get_region(request)
    assert 2 <= server.tokens < 9 and waits
    with rasterio.open(path) as src:
        assert (src.read() == right).all()
    assert b"sig=" not in path.read_bytes()


def test_an_item_whose_file_is_gone_is_left_out_and_named(server, request_of):
    gone = next(item for item in server.items if "20220709" in item["id"])
    gone["assets"]["green" if "green" in gone["assets"] else "B03"]["href"] += "x"
    lines: list[str] = []
    get_region(request_of(server.base, log=lines.append))
    report = (request_of().folder / "report.json").read_text()
    assert f"{gone['id']}: http" in report and "not there" in report


@pytest.mark.parametrize("where", ["files", "server"])
def test_a_wrong_collection_is_named_with_those_that_are_there(where, server, request_of):
    stac = server.base if where == "server" else None
    with pytest.raises(CollectionError, match="'landsat'; it has sentinel-2-l2a"):
        get_region(request_of(stac, collection="landsat"))


def change(server: StacServer, key: str, href: str | None) -> None:
    """Rename an asset of all items, or move it."""
    for item in server.items:
        asset = item["assets"].pop("SCL", None) or item["assets"].pop("scl")
        item["assets"][key] = asset | ({"href": href} if href else {})


def test_items_of_another_product_are_refused(server, request_of):
    change(server, "other", None)
    with pytest.raises(CollectionError, match=r"no asset for scl .*it has B02.* L2A"):
        get_region(request_of(server.base))


def test_files_in_a_store_with_credentials_are_refused(server, request_of):
    change(server, "scl", "s3://bucket/SCL.jp2")
    with pytest.raises(CollectionError, match=r"s3://.* credentials .*--stac earth-search"):
        get_region(request_of(server.base))


@pytest.mark.parametrize("where", ["files", "server"])
def test_a_year_or_a_box_without_images(where, server, request_of):
    stac = server.base if where == "server" else None
    with pytest.raises(NoItemsError, match=r"2020: no image of .* 2020-06-01 to 2020-07-31"):
        get_region(request_of(stac, years="2020"))
    with pytest.raises(NoItemsError, match="2022: no image of 7 50"):
        get_region(request_of(stac, bbox=(7, 50, 7.01, 50.01)))


def test_a_year_without_images_does_not_stop_the_others(request_of):
    request = request_of(years="2020-2022")
    with pytest.raises(NoItemsError, match="2020"):
        get_region(request)
    assert [path.name[-13:-9] for path in sorted(request.folder.glob("*.tif"))] == ["2021", "2022"]


def test_a_year_too_cloudy_is_refused_and_reported(request_of):
    request = request_of(min_valid=0.9999)
    with pytest.raises(CloudyYearError, match=r"2022: \d\d\.\d% of the pixels .* --min-valid"):
        get_region(request)
    assert not list(request.folder.glob("*.tif"))
    report = (request.folder / "report.json").read_text()
    assert '"refused": "too cloudy"' in report
    (path,) = get_region(request_of(min_valid=0.3))
    with rasterio.open(path) as src:
        rgb = src.read()
    holes = (rgb == 0).all(0)
    assert 0.001 < holes.mean() < 0.7 and (holes == (rgb == 0).any(0)).all()


def test_clouds_are_filtered_here(server, request_of):
    for item in server.items:
        item["properties"]["eo:cloud_cover"] = 61
    clear = next(item for item in server.items if "20220614" in item["id"])
    clear["properties"]["eo:cloud_cover"] = 60
    lines: list[str] = []
    get_region(request_of(server.base, min_valid=0, log=lines.append))
    assert any("2022: 1 images" in line for line in lines)
    clear["properties"]["eo:cloud_cover"] = 99.0
    with pytest.raises(NoItemsError, match=r"4 are left out .*--max-cloud"):
        get_region(request_of(server.base, name="Cloudy"))


def test_a_file_made_in_another_way_is_not_overwritten(request_of):
    (path,) = get_region(request_of())
    data = path.read_bytes()
    with pytest.raises(ExistingFileError, match=r"another way.*--name"):
        get_region(request_of(months="6-8"))
    assert path.read_bytes() == data


def test_every_error_is_a_region_error_with_one_line(request_of, tmp_path: Path):
    bad = tmp_path / "catalog.json"
    bad.write_text('{"no": "catalog"}')
    with pytest.raises(RegionError, match="no STAC catalog") as caught:
        get_region(request_of(bad))
    assert "\n" not in str(caught.value)

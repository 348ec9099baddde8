"""Items that lack what a composite wants, and seasons that are not over yet."""

import json
from collections.abc import Callable
from functools import partial

import pytest

from satjepa.region.errors import CollectionError
from satjepa.region.get import get_region
from satjepa.region.year import Request


@pytest.fixture
def request_of(request_of) -> Callable[..., Request]:
    """A request for four images, which holes are no fault of."""
    return partial(request_of, months="6-7", min_valid=0)


def year_of(request: Request, year: int = 2022) -> dict:
    """What the report tells of a year."""
    return json.loads((request.folder / "report.json").read_text())["years"][str(year)]


def without_blue(item: dict) -> None:
    item["assets"] = {k: a for k, a in item["assets"].items() if k not in ("blue", "B02")}


def in_a_store(item: dict) -> None:
    for asset in item["assets"].values():
        asset["href"] = "s3://bucket/x.jp2"


def on_an_odd_scale(item: dict) -> None:
    for asset in item["assets"].values():
        asset["raster:bands"] = [{"scale": 0.5}]


def without_href(item: dict) -> None:
    for asset in item["assets"].values():
        del asset["href"]


def with_odd_clouds(item: dict) -> None:
    item["properties"]["eo:cloud_cover"] = "some"


FAULTS = {
    without_blue: "no asset for blue",
    in_a_store: "s3://",
    on_an_odd_scale: "a scale of 0.5",
    without_href: "'href'",
    with_odd_clouds: "'some'",
}


@pytest.mark.parametrize(("spoil", "words"), FAULTS.items())
def test_an_item_that_lacks_something_is_left_out_and_named(spoil, words, server, request_of):
    bad = next(item for item in server.items if "20220709" in item["id"])
    spoil(bad)
    request = request_of(server.base)
    (path,) = get_region(request)
    assert path.is_file()
    told = year_of(request)
    (line,) = told["left_out"]
    assert line.startswith(f"{bad['id']}: ") and line.count(bad["id"]) == 1 and words in line
    assert len(told["items"]) == 3


def test_a_year_whose_items_all_lack_something_does_not_stop_the_others(server, request_of):
    for item in server.items:
        if item["properties"]["datetime"] < "2022":
            without_blue(item)
    request = request_of(server.base, years="2021-2022")
    with pytest.raises(CollectionError, match=r"^2021: none of 4 items .*no asset for blue"):
        get_region(request)
    assert [path.name[-13:-9] for path in request.folder.glob("*.tif")] == ["2022"]

"""Items that lack what a composite wants, and seasons that are not over yet."""

import datetime
import json
from collections.abc import Callable
from functools import partial

import pytest

from satjepa.region.blocks import Blocks
from satjepa.region.errors import CloudyYearError, CollectionError
from satjepa.region.get import get_region
from satjepa.region.write import read_record
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


AMID = datetime.date(2022, 7, 1)  # a day of the season 6-7, after one of its two dates
LAST = datetime.date(2022, 7, 31)
AFTER = datetime.date(2022, 8, 1)


def hide_until_later(server) -> list[dict]:
    """Take the items of July off a server; returns all of them."""
    items = list(server.items)
    server.items = [item for item in items if item["properties"]["datetime"] < "2022-07"]
    return items


@pytest.mark.parametrize("day", [AMID, LAST])
def test_a_year_made_before_its_season_is_over_is_partial_and_made_again(day, server, request_of):
    items = hide_until_later(server)
    lines: list[str] = []
    request = request_of(server.base, today=day, log=lines.append)
    (path,) = get_region(request)
    assert read_record(path)["partial"] is True and year_of(request)["partial"] is True
    assert len(year_of(request)["items"]) == 2
    assert any("PARTIAL: its season lasts until 2022-07-31" in line for line in lines)
    server.items = items
    (path,) = get_region(request_of(server.base, today=AFTER))
    assert len(year_of(request)["items"]) == 4 and read_record(path)["partial"] is False
    assert len(read_record(path)["items"]) == 4
    before = path.stat().st_mtime_ns
    get_region(request_of(server.base, today=AFTER))
    assert path.stat().st_mtime_ns == before


def test_a_year_refused_before_its_season_is_over_is_searched_again(server, request_of):
    items = hide_until_later(server)
    request = request_of(server.base, today=AMID, min_valid=1)
    with pytest.raises(CloudyYearError, match="one of 2 images"):
        get_region(request)
    assert not list(request.folder.rglob("plan.json"))
    server.items = items
    with pytest.raises(CloudyYearError, match="one of 4 images"):
        get_region(request_of(server.base, today=AFTER, min_valid=1))
    assert len(list(request.folder.rglob("plan.json"))) == 1  # of a season that is over: kept


def stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_a_stopped_run_kept_of_half_a_season_is_not_gone_on_with(
    server, request_of, monkeypatch
):
    items = hide_until_later(server)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Blocks, "put", stop)
        get_region(request_of(server.base, today=AMID))
    request = request_of(server.base, today=AFTER)
    assert list(request.folder.rglob("plan.json"))
    server.items = items
    get_region(request)
    assert len(year_of(request)["items"]) == 4
    assert not (request.folder / ".work").exists()

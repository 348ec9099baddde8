"""Catalogs and token servers that answer, but not what they should: one line, of a kind that is
ours.
"""

import datetime
import json
from collections.abc import Callable
from functools import partial

import pytest

from satjepa.region.catalog import Catalog
from satjepa.region.errors import ServerError
from satjepa.region.get import get_region
from satjepa.region.year import Request


@pytest.fixture
def request_of(request_of) -> Callable[..., Request]:
    """A request for four images, which holes are no fault of."""
    return partial(request_of, months="6-7", min_valid=0)


def one_line(request: Request, words: str) -> None:
    """The request fails with a ServerError of one line that says so."""
    with pytest.raises(ServerError, match=words) as caught:
        get_region(request)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def served(server, monkeypatch, path: str, answer: object) -> None:
    """Have a server answer so to a path."""
    handler = server.RequestHandlerClass
    usual = handler.json
    monkeypatch.setattr(
        handler,
        "json",
        lambda self, asked, body: answer if asked == path else usual(self, asked, body),
    )


PAGES = {
    "a list": [1, 2],
    "a feature that is none": {"features": ["\n"], "links": []},
    "no id": {"features": [{"properties": {"datetime": "2022-07-01T00:00:00Z"}}], "links": []},
    "no properties": {"features": [{"id": "x"}], "links": []},
    "an odd box": {
        "features": [
            {"id": "x", "bbox": [1, 2], "properties": {"datetime": "2022-07-01T00:00:00Z"}}
        ],
        "links": [],
    },
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_that_is_none(page, server, request_of, monkeypatch):
    served(server, monkeypatch, "/search", page)
    one_line(request_of(server.base), rf"{server.base}: an answer that is not as STAC has it \(")


def test_an_item_that_does_not_say_where_it_is_is_looked_at(server, request_of, monkeypatch):
    items = [{k: v for k, v in item.items() if k != "bbox"} for item in server.items]
    served(server, monkeypatch, "/search", {"features": items, "links": []})
    (path,) = get_region(request_of(server.base))
    assert path.is_file()


def test_collections_that_are_none(server, request_of, monkeypatch):
    server.items = []
    served(server, monkeypatch, "/collections", {"collections": [{"no": "id"}], "links": []})
    one_line(request_of(server.base), "an answer that is not as STAC has it")


def test_a_broken_item_in_a_catalog_of_files(request_of, tmp_path):
    item = tmp_path / "item.json"
    item.write_text('{"type": "Feature"')
    links = [{"rel": "item", "href": "./item.json", "type": "application/json"}]
    head = {"type": "Catalog", "stac_version": "1.0.0", "id": "c", "description": "d"}
    (tmp_path / "catalog.json").write_text(json.dumps(head | {"links": links}))
    one_line(request_of(tmp_path), "an answer that is not as STAC has it")


LATER = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).isoformat()
TOKENS = {
    "no token": {"msft:expiry": LATER},
    "no expiry": {"token": "sig=1"},
    "an odd expiry": {"token": "sig=1", "msft:expiry": "soon"},
    "a number": {"token": "sig=1", "msft:expiry": 7},
    "a token that is no text": {"token": None, "msft:expiry": LATER},
    "a list": [1],
}


@pytest.mark.parametrize("answer", TOKENS.values(), ids=TOKENS)
def test_a_token_that_is_none(answer, server, request_of, monkeypatch):
    server.signed = True
    served(server, monkeypatch, "/token", answer)
    catalog = Catalog(server.base, "sentinel-2-l2a", f"{server.base}/token")
    request = request_of(server.base, catalog=catalog)
    one_line(request, f"{server.base}/token: an answer without a token and its expiry")

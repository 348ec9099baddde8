"""What is asked for is checked before anything is fetched."""

import datetime

import numpy as np
import pytest

from satjepa.region.ask import ask
from satjepa.region.composite import median
from satjepa.region.errors import BoxError, ServerError, TooLargeError, YearError
from satjepa.region.get import get_region
from satjepa.region.grid import utm_grid
from satjepa.region.offsets import prove
from satjepa.region.request import parse_box, parse_months, parse_years

TODAY = datetime.date(2025, 4, 1)
BOX = (5.9, 50.4, 6.1, 50.6)
WRONG = [
    ((6.1, 50.4, 5.9, 50.6), BoxError, "west is not left of its east"),
    ((5.9, 50.6, 6.1, 50.4), BoxError, "south is not below"),
    ((5.9, 50.4, 190, 50.6), BoxError, "longitude outside"),
    ((5.9, 50.4, 6.1, 95), BoxError, "latitude outside"),
    ((5.9, 83, 6.1, 85), BoxError, "where UTM ends"),
    ((5.9, float("nan"), 6.1, 50.6), BoxError, "four finite numbers"),
    ((0, 50, 7, 51), TooLargeError, "several regions"),
    ((-180, 50, 180, 51), TooLargeError, "360 x 1 degrees"),
]


@pytest.mark.parametrize(("values", "error", "words"), WRONG)
def test_a_box_that_is_none(values, error, words):
    with pytest.raises(error, match=words):
        parse_box(values)


def test_years_and_months_that_are_none():
    assert parse_years("2017-2019,2021", TODAY) == [2017, 2018, 2019, 2021]
    for text, words in {
        "2019-2026": "2026 has not been yet",
        "2014": "flies since 2015",
        "2020-2019": "after its last",
        "soon": "write them as 2017-2024",
    }.items():
        with pytest.raises(YearError, match=words):
            parse_years(text, TODAY)
    with pytest.raises(YearError, match="2025: its season begins on 2025-05-01"):
        ask(BOX, "2025", "out", today=TODAY)
    for months in ("0-3", "5-13", "May", ""):
        with pytest.raises(YearError, match="write first and last"):
            parse_months(months, parse_box(BOX))


@pytest.mark.parametrize(
    ("south", "season", "first", "last"),
    [
        (50, "5-9", "2021-05-01", "2021-09-30"),
        (0, "1-12", "2021-01-01", "2021-12-31"),
        (-35, "11-3", "2020-11-01", "2021-03-31"),
        (65, "6-8", "2021-06-01", "2021-08-31"),
        (-65, "12-2", "2020-12-01", "2021-02-28"),
    ],
)
def test_the_season_is_that_of_the_latitude(south, season, first, last):
    found = parse_months(None, parse_box((6, south, 6.1, south + 0.1)))
    assert str(found) == season and "latitude" in found.reason
    assert [str(day) for day in found.dates(2021)] == [first, last]


def test_a_box_across_the_antimeridian_is_one_region_and_two_searches():
    box = parse_box((179.9, -17, -179.9, -16.9))
    assert box.parts == [(179.9, -17, 180, -16.9), (-180, -17, -179.9, -16.9)]
    grid = utm_grid(box)
    assert grid.crs in ("EPSG:32701", "EPSG:32760")
    assert 20_000 < grid.width * 10 < 22_500 and 10_500 < grid.height * 10 < 12_000
    lon, lat = grid.lonlat(grid.blocks(10**6)[0])
    assert np.abs(lon).min() > 179.8 and lat.min() < -16.99 and {-1, 1} == set(np.sign(lon))


@pytest.mark.parametrize(
    ("lon", "lat", "crs"), [(5.99, 50, 32631), (6.01, 50, 32632), (-179.9, -9, 32701)]
)
def test_the_grid_is_that_of_the_centre_and_on_multiples_of_10_m(lon, lat, crs):
    box = parse_box((lon, lat, lon + 0.015, lat + 0.1) if lon != 5.99 else (5.98, 50, 5.995, 50.1))
    grid = utm_grid(box)
    assert grid.epsg == crs and grid.left % 10 == 0 and grid.top % 10 == 0
    lons, lats = grid.lonlat(grid.blocks(10**6)[0])
    assert lons.min() <= box.west + 1e-9 and lons.max() >= box.east - 1e-9
    assert lats.min() <= box.south and lats.max() >= box.north


def test_too_many_bytes_are_estimated_and_agreed_to_first(tmp_path):
    catalog = tmp_path / "catalog.json"
    catalog.write_text("{}")
    request = ask((5, 50, 7, 51), "2017-2024", tmp_path, stac=str(catalog), log=[].append)
    with pytest.raises(TooLargeError, match=r"about 2[45678]\d\.\d GB to fetch .*--yes"):
        get_region(request)
    agreed = ask((5, 50, 7, 51), "2017-2024", tmp_path, stac=str(catalog), yes=True)
    with pytest.raises(ServerError, match="no STAC catalog"):
        get_region(agreed)


def test_names():
    assert ask(BOX, "2021", "o").region == "N50p500E006p000"
    assert ask((-70.2, -33.4, -70, -33.2), "2021", "o").region == "S33p300W070p100"
    for name in ("../a", "a b", ".a", ""):
        with pytest.raises(BoxError, match="letters, digits"):
            ask(BOX, "2021", "o", name=name or "_")
    with pytest.raises(ServerError, match="no such catalog; give earth-search"):
        ask(BOX, "2021", "o", stac="nowhere")
    known = ask(BOX, "2021", "o", stac="planetary-computer").catalog
    assert known.tokens.endswith("/sentinel-2-l2a") and known.url.startswith("https://")


def land(blue: float, kind: int, added: int) -> tuple[np.ndarray, np.ndarray]:
    """A field of DN around a reflectance, and its class; a corner shows nothing."""
    dn = np.random.default_rng(0).normal(blue * 10000, 150, (40, 40)) + added
    dn[:5, :5] = 0
    return dn, np.full((40, 40), kind)


@pytest.mark.parametrize("stated", [0, -1000])
@pytest.mark.parametrize(
    ("blue", "kind", "added", "found", "words"),
    [
        (0.03, 4, 1000, -1000, "vegetation and water"),
        (0.03, 4, 0, 0, "vegetation and water"),
        (0.08, 5, 0, 0, "clear pixels"),
        (0.25, 5, 0, None, "too few dark"),
        (0.25, 5, 1000, None, "too few dark"),
        (0.03, 9, 0, None, "too few dark"),
    ],
)
def test_pixels_prove_the_offset_or_metadata_are_believed(stated, blue, kind, added, found, words):
    offset = prove(stated, "the item", *land(blue, kind, added))
    assert offset.value == (stated if found is None else found)
    assert offset.contradicted == (offset.value != stated)
    assert words in offset.reason and "the item" in offset.reason


def test_the_median_is_of_what_is_clear():
    rng = np.random.default_rng(1)
    stack = rng.integers(1, 3000, (6, 3, 20, 30)).astype(np.uint16)
    clouded = rng.random((6, 20, 30)) < 0.5
    clouded[:, 0, 0] = True
    stack = np.where(clouded[:, None], 65535, stack).astype(np.uint16)
    floats = np.where(clouded[:, None], np.nan, stack.astype(float))
    floats[:, :, clouded.all(0)] = 0
    rgb, count = median(stack)
    assert np.abs(rgb - np.nanmedian(floats, 0)).max() <= 0.5
    assert (count == (~clouded).sum(0)).all() and not rgb[:, 0, 0].any()
    assert set(np.unique(count)) >= {0, 1, 2, 3}  # none, one, an even and an odd number
    empty, count = median(np.full((0, 3, 2, 2), 0, np.uint16))
    assert empty.shape == (3, 2, 2) and not empty.any() and not count.any()

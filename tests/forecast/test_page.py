"""The page of a forecast, without a browser: what it holds, in which units, and that it asks nobody
for anything.
"""

import base64
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from forecast_files import NORTH, Noise, image, quiet, write
from page_files import (
    HOLE,
    SIZE,
    WHITE,
    data_of,
    forecast,
    layers_of,
    member,
    pixels,
    scene,
    stored,
    title_of,
)  # fmt: skip
from rasterio.transform import Affine
from rasterio.windows import Window

from satjepa.data.errors import GridMismatchError
from satjepa.data.stack import ForecastError
from satjepa.forecast.page import write_page
from satjepa.forecast.picture import psnr, truth_of
from satjepa.forecast.raster import forecast_images
from satjepa.forecast.request import check_files

PLAIN = {"settings": {"Seed": "0"}, "attribution": None}


@pytest.fixture
def images(tmp_path: Path) -> list:
    return scene(tmp_path)


@pytest.fixture
def made(tmp_path: Path, images: list) -> Path:
    return forecast(images, tmp_path / "forecast_2022.tif")


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return scene(tmp_path / "truth", (2022,))[0][1]


def near(layer: dict, display: np.ndarray) -> bool:
    """Whether the colours of a layer are these (3,H,W), 1 is white, to the nearest of 256."""
    error = np.moveaxis(pixels(layer)[..., :3], -1, 0) / 255 - np.clip(display, 0, 1)
    valid = pixels(layer)[..., 3] > 0
    return bool(valid.any()) and float(np.abs(error[:, valid]).max()) <= 0.5 / 255 + 1e-6


def test_layers_are_the_files_on_the_scale_of_display(
    tmp_path: Path, images: list, made: Path, truth: Path
) -> None:
    members = [member(made, tmp_path / f"m{k}.tif", 100.0 * k) for k in (1, 2)]
    page = write_page(
        tmp_path / "p.html", images, [(2022, made)], truth={2022: truth}, members={2022: members},
        **PLAIN,
    )  # fmt: skip
    layers = layers_of(page)
    assert list(layers) == [
        "image-2020", "image-2021", "mean-2022", "member1-2022", "member2-2022", "truth-2022",
        "spread-2022", "error-2022",
    ]  # fmt: skip
    scale = 1e-4 / WHITE
    mean = stored(made)[:3] * scale
    assert near(layers["mean-2022"], mean)
    assert near(layers["member2-2022"], mean + 200 * scale)
    assert near(layers["truth-2022"], stored(truth) * scale)
    for year, path in images:
        assert near(layers[f"image-{year}"], stored(path) * scale)
    top = data_of(page)["top"]
    spread = stored(made)[3:].mean(0) * scale / top
    assert near(layers["spread-2022"], np.stack([spread] * 3))
    error = np.abs(np.clip(mean, 0, 1) - np.clip(stored(truth) * scale, 0, 1)).mean(0) / top
    assert near(layers["error-2022"], np.stack([error] * 3))
    known = pixels(layers["spread-2022"])[..., 3] > 0
    most = max(np.percentile(values[known], 99) for values in (spread, error))
    assert most == pytest.approx(1, rel=1e-4), "the last colour is that of the 99th percentile"
    assert [layers[f"{kind}-2022"]["map"] for kind in ("mean", "spread", "error")] == [0, 1, 1]


def test_what_has_no_value_is_transparent(tmp_path: Path, images: list, made: Path) -> None:
    layers = layers_of(write_page(tmp_path / "p.html", images, [(2022, made)], **PLAIN))
    expected = np.full(SIZE, 255)
    assert (pixels(layers["image-2020"])[..., 3] == expected).all()
    expected[HOLE] = 0
    for name in ("image-2021", "mean-2022", "spread-2022"):
        assert (pixels(layers[name])[..., 3] == expected).all(), name


def test_scores_are_those_of_the_forecast_command(
    tmp_path: Path, images: list, truth: Path
) -> None:
    with rasterio.open(truth, "r+") as dst:  # a hole that the images do not have
        dst.write(np.zeros((3, 4, 9), np.uint16), window=Window(20, 15, 9, 4))
    request = check_files([path for _, path in images], None)
    draw = quiet | {"patch": 16, "samples": 3, "white": WHITE}
    made = forecast_images(request, Noise(), **draw)
    out = made.write(tmp_path / "f.tif")
    page = write_page(
        tmp_path / "p.html", images, [(2022, out)], truth={2022: truth}, side=10, **PLAIN
    )
    (score,) = data_of(page)["scores"]
    ours, persistence = psnr(made, truth_of(made, truth))
    assert score["name"] == "2022"
    assert score["forecast"] == pytest.approx(ours, abs=1e-4)
    assert score["persistence"] == pytest.approx(persistence, abs=1e-4)


def test_a_large_raster_is_shown_by_means_of_what_is_valid(
    tmp_path: Path, images: list, made: Path
) -> None:
    page = write_page(tmp_path / "p.html", images, [(2022, made)], side=14, **PLAIN)  # 3 x 3
    data = data_of(page)
    assert (data["width"], data["height"], data["step"]) == (14, 8, 3)
    assert "each pixel the mean of 3 × 3 of the 40 × 24 in the files" in data["note"]
    values = np.where(stored(images[-1][1]) > 0, stored(images[-1][1]), np.nan) * 1e-4 / WHITE
    shown = pixels(layers_of(page)["image-2021"])
    for row, column in ((0, 0), (7, 12), (1, 3), (1, 4)):  # the last two: in the hole, on its edge
        block = values[:, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3].reshape(3, -1)
        known = np.isfinite(block).all(0)
        assert shown[row, column, 3] == (255 if known.any() else 0)
        if known.any():
            expected = np.clip(block[:, known].mean(1), 0, 1) * 255
            assert np.abs(shown[row, column, :3] - expected).max() <= 0.5 + 1e-3
    assert data["transform"] == [30, 0, NORTH.c, 0, -30, NORTH.f]
    assert shown.shape[:2] == (8, 14)  # the last column is one pixel of the file wide


def test_overviews_are_read_where_they_fit(tmp_path: Path) -> None:
    """Overviews that differ from the image tell which one is read."""
    images = scene(tmp_path, (2021,))
    made = forecast(images, tmp_path / "f.tif")
    with rasterio.open(made, "r+") as dst:
        dst.build_overviews([2], rasterio.enums.Resampling.nearest)
    with rasterio.open(made, overview_level=0) as small:
        nearest = small.read((1, 2, 3))
    assert not np.allclose(nearest[0], stored(made)[0].reshape(12, 2, 20, 2).mean((1, 3)))
    two, four, three = (
        write_page(tmp_path / "p.html", images, [(2022, made)], side=side, **PLAIN) and
        layers_of(tmp_path / "p.html")["mean-2022"]
        for side in (20, 10, 14)
    )  # fmt: skip
    assert near(two, nearest * 1e-4 / WHITE)
    assert pixels(four).shape[:2] == (6, 10) and pixels(three).shape[:2] == (8, 14)
    block = nearest[:, 4:6, 16:18].mean((1, 2)) * 1e-4 / WHITE
    assert np.abs(pixels(four)[2, 8, :3] / 255 - block).max() <= 0.51 / 255


@pytest.mark.parametrize("side", [40, 7])
def test_a_raster_that_lies_otherwise_is_shown_north_up(tmp_path: Path, side: int) -> None:
    """First row in the south, first column in the east: the page has both turned, and says for its
    pixels where they lie; also where the last square of 6 x 6 is not whole.
    """
    turned = NORTH @ Affine(-1, 0, 40, 0, -1, 24)
    images = scene(tmp_path, (2021,), turned)
    made = forecast(images, tmp_path / "f.tif")
    page = write_page(tmp_path / "p.html", images, [(2022, made)], side=side, **PLAIN)
    data = data_of(page)
    shown = pixels(layers_of(page)["image-2021"])[..., :3]
    values = stored(images[0][1]) * 1e-4 / WHITE
    step = data["step"]
    row, column = (data["height"] - 1, data["width"] - 1)  # the first squares of the file
    expected = 255 * np.clip(values[:, :step, :step].mean((1, 2)), 0, 1)
    assert np.abs(shown[row, column] - expected).max() <= 0.51
    a, b, c, d, e, f = data["transform"]
    assert (a, b, d, e) == (10 * step, 0, 0, -10 * step)
    east = NORTH.c + 400  # edge of the raster
    south = NORTH.f - 240
    assert (a * data["width"] + c, e * data["height"] + f) == (east, south)


def test_longitude_and_latitude_are_known_on_a_grid(tmp_path: Path) -> None:
    from rasterio.warp import transform

    images = scene(tmp_path, (2021,), NORTH @ Affine.scale(250))  # 100 km wide
    made = forecast(images, tmp_path / "f.tif")
    data = data_of(write_page(tmp_path / "p.html", images, [(2022, made)], **PLAIN))
    knots = np.array(data["lonlat"])
    x, y = (NORTH.c + 2500 * 40 * 0.3125, NORTH.f - 2500 * 24 * 0.6875)  # between knots
    lon, lat = (values[0] for values in transform("EPSG:32633", "EPSG:4326", [x], [y]))
    between = knots[5:7, 2:4].mean((0, 1))
    metres = (between - [lon, lat]) * [111_000 * np.cos(np.deg2rad(lat)), 111_000]
    assert np.hypot(*metres) < 10, "a pixel of Sentinel-2"
    assert data["crs"] == "EPSG:32633" and "40 × 24 px of 2500 m" in data["about"]


def test_a_raster_that_lies_nowhere_has_no_coordinates(tmp_path: Path) -> None:
    path = write(tmp_path / "a_2019.tif", image(24, 40), Affine.identity(), None)
    made = forecast([(2019, path)], tmp_path / "f.tif")
    data = data_of(write_page(tmp_path / "p.html", [(2019, path)], [(2020, made)], **PLAIN))
    assert (data["transform"], data["lonlat"], data["about"]) == (None, None, "40 × 24 px")


def test_the_page_asks_nobody_for_anything(tmp_path: Path, images: list, made: Path) -> None:
    page = write_page(tmp_path / "p.html", images, [(2022, made)], **PLAIN)
    text = page.read_text()
    policy = re.search('Content-Security-Policy" content="(.*?)"', text)[1]
    style = re.search("<style>(.*?)</style>", text, re.S)[1]
    script = re.search(r"<script>(.*?)</script>\s*</body>", text, re.S)[1]
    hashes = [
        base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        for part in (style, script)
    ]
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; "
        f"script-src 'sha256-{hashes[1]}'; base-uri 'none'; form-action 'none'"
    )
    assert not re.findall(r"https?:|//\w+\.\w|@import|url\(|\bfetch\(|XMLHttp|\bimport\(", text)
    assert set(re.findall(r'(?:src|href)="?([^",]*)', text)) <= {"data:image/webp;base64"}
    assert "{{" not in text


NASTY = '</script><b>bold</b> & "quoted" \u2028 ☃ <!-- {{data}}'


def test_words_from_outside_stay_words(tmp_path: Path, images: list, made: Path) -> None:
    page = write_page(
        tmp_path / "p.html", images, [(2022, made)], place=NASTY, settings={NASTY: NASTY},
        captions={"2021": NASTY, "2022": {"semantic": NASTY, "informative": "b", NASTY: "c"}},
        attribution=NASTY,
    )  # fmt: skip
    text = page.read_text()
    assert len(re.findall("</script>", text)) == 2 and "<b>" not in text and "<!-- " not in text
    assert title_of(page) == f"{NASTY}, forecast for 2022"
    data = data_of(page)
    assert data["settings"] == [[NASTY, NASTY]] and data["attribution"] == NASTY
    assert data["captions"] == [
        {"title": "2021", "year": None, "parts": [["", NASTY]]},
        {
            "title": "2022, forecast",
            "year": 2022,
            "parts": [["what covers it", "b"], ["what it is", NASTY], [NASTY, "c"]],
        },
    ]


def test_the_title_says_place_and_years(tmp_path: Path, images: list, made: Path) -> None:
    later = forecast(images, tmp_path / "forecast_2023.tif", seed=1)
    page = write_page(tmp_path / "p.html", images, [(2022, made), (2023, later)], **PLAIN)
    assert title_of(page) == "Old Town, forecast for 2022 to 2023"
    data = data_of(page)
    assert data["years"] == [2022, 2023] and "images of 2020 and 2021" in data["lead"]
    assert "reflectance" in data["legend"] and data["white"] == WHITE
    assert f"Reflectance {WHITE} and more is shown as white" in data["note"]


def test_images_for_display_are_not_called_reflectance(tmp_path: Path) -> None:
    path = write(tmp_path / "my_field_2019.tif", image(24, 40))
    made = forecast([(None, path)], tmp_path / "f.tif")
    page = write_page(tmp_path / "p.html", [(None, path)], [(None, made)], **PLAIN)
    assert title_of(page) == "my field, forecast for next year"
    assert "eflectance" not in page.read_text().split("application/json")[1].split("</script>")[0]
    assert list(layers_of(page)) == ["image-last", "mean-1", "spread-1"]


def test_equal_forecasts_give_equal_pages(tmp_path: Path, images: list, made: Path) -> None:
    one, two = (write_page(tmp_path / name, images, [(2022, made)], **PLAIN) for name in ("1", "2"))
    assert one.read_bytes() == two.read_bytes()


def test_what_cannot_be_shown_is_refused(tmp_path: Path, images: list, made: Path) -> None:
    out = tmp_path / "p.html"
    elsewhere = scene(tmp_path / "other", (2022,), NORTH @ Affine.translation(5, 0))[0][1]
    with pytest.raises(ForecastError, match="needs the images and a forecast"):
        write_page(out, [], [(2022, made)], **PLAIN)
    with pytest.raises(GridMismatchError, match="s2_rgb_Old_Town_2022"):
        write_page(out, images, [(2022, made)], truth={2022: elsewhere}, **PLAIN)
    with pytest.raises(Exception, match="found 3 bands; accepted: 6 bands"):
        write_page(out, images, [(2022, images[0][1])], **PLAIN)
    with pytest.raises(ForecastError, match="is one of the images"):
        write_page(images[0][1], images, [(2022, made)], **PLAIN)
    assert not out.exists()

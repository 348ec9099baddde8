"""`satjepa page FOLDER`: the page of what a forecast leaves in a folder."""

import json
import shutil
from pathlib import Path

import pytest
import rasterio
from cli_model import run
from page_files import data_of, forecast, layers_of, member, scene, stored

from satjepa.captions.rules import caption
from satjepa.data.errors import CorruptRasterError
from satjepa.data.stack import ForecastError
from satjepa.forecast.page_folder import page_of


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    found = [path for _, path in scene(tmp_path / "in")]
    with rasterio.open(found[-1], "r+") as dst:
        dst.update_tags(ATTRIBUTION="Owed to <somebody>", LICENCE="as they say")
    return found


@pytest.fixture
def folder(tmp_path: Path, images: list[Path]) -> Path:
    """Two years, three members of the first, given out of order."""
    pairs = list(zip((2020, 2021), images, strict=True))
    words = {"GIVEN_SEMANTIC": "A lake </script> fills."}
    first = forecast(pairs, tmp_path / "out/forecast_2022.tif", MODEL="0123456789ab", **words)
    forecast(pairs, tmp_path / "out/forecast_2023.tif", seed=1)
    for number in (10, 2, 1):
        member(first, tmp_path / f"out/member_{number}_2022.tif", 20.0 * number)
    (tmp_path / "out/notes.txt").write_text("not of the forecast")
    return tmp_path / "out"


def item(folder: Path, **parts: object) -> None:
    (folder / "forecast_2022.json").write_text(json.dumps({"type": "Feature"} | parts))


def test_the_page_shows_what_is_in_the_folder(folder: Path, images: list[Path]) -> None:
    page = page_of(folder, images, captions={})
    assert page == folder / "index.html"
    layers = layers_of(page)
    assert [layer["name"] for layer in layers.values()] == [
        "2020", "2021", "2022: forecast", "2022: member 1", "2022: member 2", "2022: member 3",
        "2022: spread of the members", "2023: forecast", "2023: spread of the members",
    ]  # fmt: skip
    from test_page import near

    tenth = stored(folder / "forecast_2022.tif")[:3] + 200
    assert near(layers["member3-2022"], tenth * 1e-4 / 0.25)


def test_settings_words_and_credit_come_from_the_tags(folder: Path, images: list[Path]) -> None:
    data = data_of(page_of(folder, images))
    assert dict(data["settings"]) == {
        "Model (sha256)": "0123456789ab",
        "Seed": "0",
        "Members": "3",
        "Shown as white": "0.25",
        "Made from": "s2_rgb_Old_Town_2020_10km.tif, s2_rgb_Old_Town_2021_10km.tif",
        "Files": "forecast_2022.tif, forecast_2023.tif",
    }
    assert data["attribution"] == "Owed to <somebody>  ·  as they say"
    titles = [said["title"] for said in data["captions"]]
    assert titles == ["2021", "2022, forecast", "2022, as asked for", "2023, forecast"]
    assert data["captions"][2] == {
        "title": "2022, as asked for",
        "year": 2022,
        "parts": [["what it is", "A lake </script> fills."]],
    }
    rgb = stored(images[-1]) * 1e-4 / 0.25
    by_rule = caption(rgb.clip(0, 1), (rgb > 0).all(0), encoding="display")
    assert sorted(text for _, text in data["captions"][0]["parts"]) == sorted(by_rule)


@pytest.mark.parametrize("way", ["roles", "names", "links", "file", "properties"])
def test_the_item_tells_the_images(folder: Path, images: list[Path], way: str) -> None:
    """However a STAC item may do so; newest first here, and with an embedding's mean."""
    hrefs = [f"../in/{path.name}" for path in reversed(images)]
    if way == "file":
        hrefs = [path.as_uri() for path in images]
    properties = {}
    assets = {"mean": {"href": "forecast_2022.tif", "roles": ["data"]}}
    links = [{"rel": "self", "href": "forecast_2022.json"}]
    for number, href in enumerate(hrefs):
        if way in ("roles", "file"):
            assets[f"year{number}"] = {"href": href, "roles": ["input"]}
        elif way == "names":
            assets[f"input-{number}"] = {"href": href}
        elif way == "properties":
            shutil.copy(images[number], folder.parent if number else folder)
            properties.setdefault("satjepa:inputs", []).append({"name": images[number].name})
        else:
            links.append({"rel": "derived_from", "href": href})
    item(folder, assets=assets, links=links, properties=properties)
    assert list(layers_of(page_of(folder, captions={})))[:3] == [
        "image-2020",
        "image-2021",
        "mean-2022",
    ]


def test_what_does_not_tell_the_images_says_what_to_do(folder: Path) -> None:
    with pytest.raises(ForecastError, match=r"no forecast_2022.json .*--image"):
        page_of(folder)
    item(folder, assets={"input-1": {"href": "../in/gone_2021.tif"}})
    with pytest.raises(ForecastError, match=r"gone_2021.tif, which it names, is not there.*--imag"):
        page_of(folder)
    item(folder, assets={})
    with pytest.raises(ForecastError, match="names no images"):
        page_of(folder)
    for text in ("{", "[]", '{"assets": 3}', '{"a": 1}'):
        (folder / "forecast_2022.json").write_text(text)
        with pytest.raises(ForecastError, match="no STAC item"):
            page_of(folder)
    assert not (folder / "index.html").exists()


def test_a_folder_without_a_forecast_or_with_half_of_one(
    folder: Path, images: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(ForecastError, match=r"no forecast_<YEAR>.tif in it"):
        page_of(tmp_path / "in", images)
    with pytest.raises(ForecastError, match="no folder"):
        page_of(tmp_path / "nowhere", images)
    whole = (folder / "forecast_2023.tif").read_bytes()
    (folder / "forecast_2023.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptRasterError):
        page_of(folder, images)
    assert not list(folder.glob("*index*"))


def test_a_truth_goes_with_its_year(folder: Path, images: list[Path], tmp_path: Path) -> None:
    ((_, later),) = scene(tmp_path / "truth", (2023,))
    page = page_of(folder, images, [later], {})
    assert [score["name"] for score in data_of(page)["scores"]] == ["2023"]
    assert "truth-2023" in layers_of(page) and "truth-2022" not in layers_of(page)
    ((_, other),) = scene(tmp_path / "truth", (2019,))
    with pytest.raises(ForecastError, match=r"is of 2019 by its name, the forecast is of 2022, 20"):
        page_of(folder, images, [other])
    nameless = shutil.copy(later, tmp_path / "seen.tif")
    with pytest.raises(ForecastError, match="says no year in its name"):
        page_of(folder, images, [nameless])
    (folder / "forecast_2023.tif").unlink()
    assert "truth-2022" in layers_of(page_of(folder, images, [nameless], {}))


def test_a_forecast_of_an_unknown_year(tmp_path: Path, images: list[Path]) -> None:
    alone = shutil.copy(images[0], tmp_path / "in/field.tif")
    made = forecast([(None, alone)], tmp_path / "out/forecast_next_year.tif")
    member(made, tmp_path / "out/member_1_next_year.tif", 5.0)
    member(made, tmp_path / "out/member_1_next_year_2.tif", 5.0)
    shutil.copy(made, tmp_path / "out/forecast_next_year_2.tif")
    page = page_of(tmp_path / "out", [alone], [images[1]])
    assert list(layers_of(page)) == [
        "image-last", "mean-1", "member1-1", "truth-1", "spread-1", "error-1", "mean-2",
        "member1-2", "spread-2",
    ]  # fmt: skip
    assert [said["title"] for said in data_of(page)["captions"]] == [
        "last image",
        "next year, forecast",
        "in 2 years, forecast",
    ]


def test_the_command_makes_the_page(folder: Path, images: list[Path], tmp_path: Path) -> None:
    ((_, truth),) = scene(tmp_path / "truth", (2022,))
    named = [word for path in images for word in ("--image", path)]
    result = run("page", folder, *named, "--truth", truth)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"wrote {folder}/index.html: the page of it" in result.stdout
    assert [score["name"] for score in data_of(folder / "index.html")["scores"]] == ["2022"]
    wrong = run("page", folder)
    assert wrong.exit_code == 2 and wrong.stderr.startswith(f"error: {folder}: no forecast_2022.j")
    assert "is a URL" in run("page", "https://example.org/out").stderr

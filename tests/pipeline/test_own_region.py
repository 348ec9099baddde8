"""Notebook 12's helpers: a place that is asked for, the catalog's images, composites and their
error, forecasts of them as a Dataset and as files.
"""

import io
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import shades
import xarray as xr
from PIL import Image
from rasterio.enums import Resampling
from rasterio.warp import reproject
from smooth_land import SmoothLand

from satjepa.demo.catalog import write_catalog
from satjepa.forecast.load import Model
from satjepa.pipeline import own_region, own_region_figures
from satjepa.pipeline import own_region_forecast as ahead
from satjepa.region.get import get_region
from satjepa.region.write import read_record

DATES = ((6, 14), (7, 9), (8, 18))
YEARS = [2021, 2022]
WHITE = 3558.0


class Joint(shades.Joint):
    """Of the demo model's patches, two members."""

    params = SimpleNamespace(
        **vars(shades.Joint.params)
        | {
            "data": SimpleNamespace(patch=64, history=1, white=None),
            "sample": SimpleNamespace(steps=6, samples=2),
        }
    )


MODEL = Model(Path("model"), "0123456789ab", Joint(), None)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def asked(home: Path) -> own_region.Walk:
    """The demo's place in two years, with fewer images; before it, files of earlier walks."""
    for name in ("scenes/Borderland", "scenes/Venn", "forecast/Borderland", "catalog"):
        (home / "artifacts/own_region" / name).mkdir(parents=True)
        (home / "artifacts/own_region" / name / "old").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_region, "CatalogLand", SmoothLand)
        patch.setattr(own_region, "write_catalog", partial(write_catalog, dates=DATES))
        return own_region.walk(home, years="2021-2022")


@pytest.fixture(scope="module")
def found(asked) -> dict:
    return own_region.offered(asked.request)


@pytest.fixture(scope="module")
def paths(asked) -> list[Path]:
    return get_region(asked.request)


@pytest.fixture(scope="module")
def cube(paths) -> xr.Dataset:
    return own_region.cube_of(paths)


# ---- what is asked for ----


def test_the_demo_is_made_anew_and_other_regions_stay(asked, home):
    out = home / "artifacts/own_region"
    assert [path.relative_to(out).as_posix() for path in out.rglob("old")] == ["scenes/Venn/old"]
    assert [path.name for path in home.iterdir()] == ["artifacts"]
    assert (asked.request.region, asked.request.years) == ("Borderland", YEARS)
    assert asked.request.catalog.url == str(out / "catalog/catalog.json")
    assert asked.request.folder == out / "scenes/Borderland"
    assert asked.forecast == out / "forecast/Borderland"
    assert asked.model == home / "assets/demo_model"
    assert (asked.grid.crs, asked.grid.width, asked.grid.height) == ("EPSG:32631", 208, 208)


def test_a_place_of_ones_own_is_asked_of_its_catalog(asked, home, tmp_path, capsys):
    kept = tmp_path / "scenes/Borderland/kept"
    kept.parent.mkdir(parents=True)
    kept.touch()
    place = {"stac": asked.request.catalog.url, "bbox": [5.98, 50.49, 6.01, 50.5], "months": "6-7"}
    place["years"] = 2021
    own = own_region.walk(home, **place, name="Borderland", out=str(tmp_path), model="/models/mine")
    assert own.land is None and kept.exists()
    assert (own.model, own.forecast) == (Path("/models/mine"), tmp_path / "forecast/Borderland")
    assert (own.request.box.west, str(own.request.season)) == (5.98, "6-7")
    assert own.request.years == [2021]
    own.request.log("a line")
    assert capsys.readouterr() == ("", "a line\n")  # an executed copy has no stderr


def test_what_is_no_place_is_refused(tmp_path):
    with pytest.raises(ValueError, match="earth-search: of which place"):
        own_region.walk(tmp_path, stac="earth-search")
    with pytest.raises(TypeError, match="box"):
        own_region.walk(tmp_path, box=[5, 50, 6, 51])
    assert not [*tmp_path.iterdir()]


# ---- images and composites ----


def test_a_row_says_what_the_catalog_has_of_a_year(found):
    table = own_region.offer_table(found)
    assert [*table.index] == YEARS
    assert table["images"].tolist() == [6, 6] and table["tiles"].tolist() == [2, 2]
    for year, images in found.items():
        clouds = sorted(image.cloud for image in images)
        told = table.loc[year, ["clouds, least %", "median %", "most %"]].tolist()
        assert told == pytest.approx([clouds[0], np.median(clouds), clouds[-1]])
        assert table.loc[year, "say: take 1000 off"] == 4  # c1, v1 or pc; each of them twice
    assert own_region.offer_table({2020: []}).loc[2020, "images"] == 0


def test_an_image_is_the_truth_where_it_is_clear(asked, found, paths, cube):
    record = read_record(paths[1])
    table = own_region.evidence(record)
    assert len(table) == 6 and set(table["metadata"]) == {"right"}  # in 2022 no catalog is wrong
    assert set(own_region.evidence(read_record(paths[0]))["metadata"]) == {"right", "wrong"}
    shares = [round(100 * item["clear_share"], 1) for item in record["items"]]
    assert table["clear, %"].tolist() == shares and table.index[0] == "2022-06-14"
    truth = own_region.truth_of(asked.land, cube, 2022)
    for image in found[2022]:
        row = table[table["image"] == image.name].iloc[0]
        seen, clear = own_region.image_of(asked, image, row["DN to add"])
        wrong = (seen - truth)[:, clear & np.isfinite(seen).all(0)]
        assert np.median(np.abs(wrong)) < 1
        assert np.nanmean(seen[:, ~clear]) > 1500, "clouds are bright"
        assert np.isnan(seen).any(), "an edge without data"
        grid = asked.grid
        place = {"dst_crs": grid.crs, "dst_transform": grid.transform()}
        classes = np.zeros((grid.height, grid.width), np.uint8)
        with rasterio.open(image.hrefs["scl"]) as src:
            reproject(rasterio.band(src, 1), classes, **place, resampling=Resampling.nearest)
        assert np.array_equal(clear, np.isin(classes, (4, 5, 6, 7)))


def test_a_cube_is_the_composites_and_lies_where_they_do(asked, paths, cube):
    with rasterio.open(paths[0]) as src:
        assert np.array_equal(
            np.stack([cube[b].sel(year=2021) for b in own_region.RGB]), src.read()
        )
        x, y = src.xy(0, 0)
        assert (cube["x"].values[0], cube["y"].values[0]) == (x, y)
        assert ahead.crs_of(cube) == src.crs
        assert ahead.transform_of(cube, cube["red"]).almost_equals(src.transform)
    part = own_region.cube_of(paths, side=50)
    assert part.sizes == {"year": 2, "y": 50, "x": 50}
    same = cube.sel(x=part["x"], y=part["y"])
    for band in own_region.RGB:
        assert np.array_equal(part[band], same[band])
    assert part["x"].values[0] == cube["x"].values[(208 - 50) // 2]
    corner = ahead.transform_of(part, part["red"])
    assert (corner.c + 5, corner.f - 5) == (part["x"].values[0], part["y"].values[0])


def test_composites_are_as_the_truth(asked, cube):
    errors = own_region.errors_of(asked.land, cube)
    assert [*errors] == YEARS
    table = own_region.wrong_table(errors)
    assert np.abs(table[["bias, red", "bias, green", "bias, blue"]].values).max() < 0.5
    assert table["99 % are within"].max() <= 2
    shifted = own_region.wrong_table({2021: errors[2021] + np.array([1, 0, -3])[:, None, None]})
    moved = shifted.loc[2021] - table.loc[2021]
    assert moved.iloc[:3].tolist() == pytest.approx([1, 0, -3], abs=0.11)
    assert own_region.errors_of(None, cube) == {}
    assert own_region.wrong_table({}).empty


def test_a_hole_is_a_hole_in_all_bands(cube):
    holed = cube.copy(deep=True)
    holed["green"].loc[{"year": 2022}][100, 90] = 0
    values = own_region.numbers(holed, 2022)
    assert np.isnan(values[:, 100, 90]).all()
    assert np.isfinite(values).sum() == np.isfinite(own_region.numbers(cube, 2022)).sum() - 3


# ---- forecasts ----


@pytest.fixture(scope="module")
def forecast(cube) -> xr.Dataset:
    return MODEL.forecast(cube.isel(year=[0]), samples=2)


def test_a_dataset_comes_back_to_its_place(cube, forecast):
    table = ahead.places({"in": cube, "out": forecast})
    assert table.loc["CRS"].tolist() == ["EPSG:32631, WGS 84 / UTM zone 31N"] * 2
    same = [name for name in table.index if table.loc[name, "in"] == table.loc[name, "out"]]
    assert [name for name in table.index if name not in same] == ["year"]
    assert table.loc["year"].tolist() == ["2021, 2022", "2022"]
    assert table.loc["pixel, m", "in"] == "10 x 10"
    assert table.loc["units", "out"] == "reflectance x 10000"
    west = cube["x"].values
    assert table.loc["x", "in"] == f"{west[0]:.0f} to {west[-1]:.0f}, 208 centres"


def test_scores_are_what_they_say():
    rng = np.random.default_rng(0)
    truth = rng.uniform(500, 3000, (3, 8, 8)).astype(np.float32)
    last = truth.copy()
    last[:, :2] += 0.2 * WHITE * np.where(truth[:, :2] > 1700, -1, 1)  # a quarter of the land
    members = np.stack([truth + 0.01 * WHITE, truth - 0.01 * WHITE])
    truth[:, 7, 7] = np.nan
    members[:, :, 6, 6] = np.nan
    data = {"members": (("member", "band", "y", "x"), members)}
    data["mean"] = (("band", "y", "x"), members.mean(0))
    table = ahead.scores(xr.Dataset(data, attrs={"white": "0.3558"}), last, truth)
    assert table.columns[1] == "where it changed (26%)"  # 16 of 62
    assert table.loc["mean of 2", "PSNR, dB"] == 100
    assert table.loc["one member"].tolist()[:4] == pytest.approx([40, 40, 40, 35.6], abs=0.06)
    assert table.loc["one member", "CRPS, DN"] == table.loc["one member", "mean error, DN"]
    assert table.loc["mean of 2", "CRPS, DN"] == pytest.approx(0, abs=0.06)  # 0.01 - 0.02 / 2
    repeated = table.loc["persistence"].tolist()
    error = 0.2 * 16 / 62
    wanted = [-10 * np.log10(0.2 * error), 20 * np.log10(5), 100, WHITE * error, WHITE * error]
    assert repeated == pytest.approx(wanted, abs=0.06)


def test_a_scene_becomes_a_folder_with_a_page(asked, home, paths, cube):
    lines: list[str] = []
    files, page = ahead.forecast_scene(MODEL, paths, asked.forecast, 2, 3, lines.append)
    named = [path.name for path in files]
    assert named == ["forecast_2023.tif", "member_1_2023.tif", "member_2_2023.tif",
                     "forecast_2023.png", "forecast_2023.json"]  # fmt: skip
    assert all(path.is_file() for path in files) and page == asked.forecast / "index.html"
    assert sorted(path.name for path in asked.forecast.iterdir()) == sorted([*named, page.name])
    assert "2 samples, seed 3" in "\n".join(lines)
    last = own_region.numbers(cube, 2022)
    mean = ahead.mean_of(files[0])
    known = np.isfinite(last)
    assert np.array_equal(known, np.isfinite(mean))
    assert np.abs(mean - last + (0.005 + 0.003) * WHITE)[known].max() < 0.01
    assert np.array_equal(ahead.mean_of(files[0], 50), mean[:, 79:129, 79:129], equal_nan=True)
    table = ahead.listing([*files, page])
    assert table.loc["index.html", "what it is"] == "the page"
    assert table.loc["member_2_2023.tif", "what it is"].startswith("one possible image")
    assert table.loc["forecast_2023.tif", "kB"] == round(files[0].stat().st_size / 1000)
    assert max(map(len, table["what it is"])) <= 50, "pandas cuts it"
    size = f"{page.stat().st_size / 1000:.0f} kB"
    shown = "artifacts/own_region/forecast/Borderland/index.html"
    assert ahead.link(page, home) == f"[{shown}](../{shown}), {size}"
    assert ahead.link(page, home / "other").startswith(f"[{page}](../../artifacts/own_region/")


def test_images_are_said_in_words():
    green = np.full((3, 64, 64), np.nan)
    green[:, :, :40] = WHITE * np.array([0.10, 0.18, 0.11])[:, None, None]
    said = ahead.in_words({"2022": green}, WHITE)["2022"]
    assert [*said] == ["informative", "geometric", "semantic"]
    assert said["informative"].startswith("Forest 100 percent")


# ---- pictures ----


def test_the_offer_shows_every_image_and_the_box(asked, found):
    left, right, *_ = own_region_figures.offer(asked, found).axes
    labels = [line.get_label() for line in left.lines]
    assert labels == ["MGRS-31UGS", "MGRS-32UGS", "the box", "the grid, EPSG:32631",
                      "border of UTM zones"]  # fmt: skip
    assert set(left.lines[2].get_xdata()) == {asked.request.box.west, asked.request.box.east}
    assert set(left.lines[4].get_xdata()) == {6}
    taken, not_taken = right.collections
    assert (len(taken.get_offsets()), len(not_taken.get_offsets())) == (8, 4)
    clouds = sorted([*taken.get_array(), *not_taken.get_array()])
    assert clouds == sorted(i.cloud for images in found.values() for i in images)
    first = taken.get_offsets()[:, 0].min()
    assert first == 44, "14 June, counted from 1 May"


def test_pictures_are_of_what_they_are_given():
    rng = np.random.default_rng(1)
    image = rng.uniform(0, WHITE, (3, 6, 6))
    image[:, 0, 0] = np.nan
    clear = np.ones((6, 6), bool)
    clear[5] = False
    axes = own_region_figures.through_clouds(image, clear, image, "abc", WHITE).axes
    first, kept, last = (ax.images[0].get_array() for ax in axes)
    assert np.allclose(np.moveaxis(first, -1, 0)[:, 1:], image[:, 1:] / WHITE)
    assert np.array_equal(last, first)
    assert (first[0, 0] == own_region_figures.NOTHING).all()
    assert np.array_equal(kept[:5], first[:5]) and np.allclose(kept[5], [0xD1 / 255, 0.396, 0.165],
                                                              atol=1e-3)  # fmt: skip
    assert [ax.get_title() for ax in axes] == ["a", "b", "c"]
    error = np.where(np.isfinite(image), 7.0, np.nan)
    *maps, histogram, _ = own_region_figures.wrong({2021: error, 2022: error}).axes
    assert [ax.get_title() for ax in maps] == ["2021", "2022"]
    assert (maps[0].images[0].get_array().compressed() == 7).all()
    labels = histogram.get_legend_handles_labels()[1]
    assert labels == ["red +7.0", "green +7.0", "blue +7.0"]
    spread = np.full((3, 6, 6), 0.1 * WHITE)
    figure = own_region_figures.beside_truth(dict.fromkeys("abcd", image), spread, WHITE)
    titles = [ax.get_title() for ax in figure.axes[:6]]
    assert titles == ["a", "b", "c", "d", "spread", ""] and not figure.axes[5].axison
    assert np.allclose(figure.axes[4].images[0].get_array(), 0.1)


def test_a_picture_is_shown_with_a_palette(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    noise = np.random.default_rng(2).uniform(0, WHITE, (3, 200, 200))
    own_region_figures.show(own_region_figures.row({"a": noise, "b": noise}, WHITE), 16)
    picture = Image.open(io.BytesIO(shown[0].data))
    assert (picture.format, picture.mode, len(picture.getcolors())) == ("PNG", "P", 16)
    size = own_region_figures.row({"a": noise, "b": noise}, WHITE).get_size_inches() * 110
    assert picture.size == tuple(size.astype(int))
    assert np.asarray(picture.convert("RGB"))[0, 0].min() > 250, "the paper is white"

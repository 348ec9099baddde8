"""A folder of a forecast: Cloud-Optimized GeoTIFFs, members, a STAC item; and folders of scenes."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import rasterio
from forecast_files import NORTH, ROTATED, Noise, image, quiet, write
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine

from satjepa.baselines.persistence import Persistence
from satjepa.data.georeference import Georeference, georeference_of
from satjepa.data.rasters import without_remark
from satjepa.data.stack import ForecastError
from satjepa.forecast import BANDS, Settings, forecasting
from satjepa.forecast.folder import scenes_of, target_of
from satjepa.forecast.stac import box_of, geometry_of, outline_of

POINTS = [
    GroundControlPoint(r, c, *(NORTH @ (c + r / 9, r)))
    for r, c in ((0, 0), (0, 64), (64, 0), (64, 64), (20, 30))
]


def forecast_folder(paths: list[Path], out: Path, **asked: object) -> list[Path]:
    target = target_of(paths, out, **{"with_picture": False} | asked)
    settings = Settings(patch=64, samples=2, kept=target.kept(2), tags={"MODEL": "m"})
    forecaster = Noise() if target.members else Persistence()
    with forecasting(target.request, forecaster, settings, target.anchor, **quiet) as made:
        return target.write(made)


@pytest.mark.parametrize(
    ("shape", "dtype", "place"),
    [
        ((600, 530), "uint8", {"transform": ROTATED, "nodata": 0}),  # blocks of 512 px
        ((530, 70), "uint16", {"transform": Affine(10, 0, 3e5, 0, 10, 5e6), "nodata": 0}),
        ((70, 530), "uint8", {"transform": Affine(0, 10, 3e5, -10, 0, 5e6), "nodata": 0}),
        ((64, 64), "float32", {"crs": 4326, "transform": Affine(1e-4, 0, 15, 0, -1e-4, 45)}),
        ((1, 90), "uint8", {"nodata": 0}),
        ((20, 31), "float32", {"nodata": -3.4e38}),
        ((64, 64), "uint8", {"crs": None, "transform": Affine.identity()}),
        ((64, 64), "uint8", {"gcps": POINTS}),
    ],
)
def test_any_raster_comes_back_in_the_cloud_form(
    tmp_path: Path, shape: tuple, dtype: str, place: dict
) -> None:
    data = image(*shape, dtype)
    hole = np.zeros(shape, bool)
    if "nodata" in place:
        hole[:, 5:9] = True
        data[:, hole] = place["nodata"]
    path = write(tmp_path / "a_2019.tif", data, **place)
    out, item = forecast_folder([path], tmp_path / "out")
    assert sorted(file.name for file in out.parent.iterdir()) == sorted([out.name, item.name])
    with without_remark(), rasterio.open(path) as src, rasterio.open(out) as dst:
        assert georeference_of(src).difference(georeference_of(dst)) == ""
        assert dst.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and dst.descriptions == BANDS
        assert dst.tags()["YEAR"] == "2020" and dst.tags()["MODEL"] == "m"
        assert bool(dst.overviews(1)) == (max(shape) > 512)
        masks = dst.read_masks()
        assert ((masks == 0) == hole).all()
        scale = {"uint8": 255, "uint16": 1e4, "float32": 1}[dtype]
        np.testing.assert_allclose(dst.read()[:3, ~hole], data[:, ~hole], atol=2e-6 * scale)


def test_alpha_and_masks_count_as_holes(tmp_path: Path) -> None:
    data = image(70, 66)
    alpha = np.full((1, 70, 66), 255, np.uint8)
    alpha[:, 10:20] = 0
    rgba = write(
        tmp_path / "a_2019.tif", np.concatenate([data, alpha]), photometric="RGB", alpha="YES"
    )
    masked = write(tmp_path / "b_2019.tif", data)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(masked, "r+") as dst:
        dst.write_mask(alpha[0])
    for path in (rgba, masked):
        out, _ = forecast_folder([path], tmp_path / path.stem)
        with rasterio.open(out) as dst:
            got = dst.read()
        assert (np.isnan(got).all(0) == (alpha[0] == 0)).all()
        np.testing.assert_allclose(got[:3, 20:], data[:, 20:], atol=1e-3)


def test_the_item_says_where_when_and_from_what(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"a_{year}.tif", image(80, 100)) for year in (2018, 2019)]
    files = forecast_folder(paths, tmp_path / "out", members=True, with_picture=True)
    names = ["forecast_2020.tif", "member_1_2020.tif", "member_2_2020.tif", "forecast_2020.png"]
    assert [file.name for file in files] == [*names, "forecast_2020.json"]
    item = json.loads(files[-1].read_text())
    assert item["stac_version"] == "1.1.0" and item["id"] == "forecast_2020"
    assert [asset["href"] for asset in item["assets"].values()] == [f"./{name}" for name in names]
    properties = item["properties"]
    assert properties["datetime"] is None
    assert properties["start_datetime"] == "2020-01-01T00:00:00Z"
    assert properties["end_datetime"] == "2020-12-31T23:59:59Z"
    assert properties["proj:code"] == "EPSG:32633" and properties["proj:shape"] == [80, 100]
    assert properties["proj:transform"] == [10, 0, 300000, 0, -10, 5000000, 0, 0, 1]
    assert (properties["satjepa:model"], properties["satjepa:seed"]) == ("m", 0)
    (used,) = properties["satjepa:inputs"]  # Persistence looks at the last image alone
    digest = sha256(paths[1].read_bytes()).hexdigest()
    assert used == {"name": "a_2019.tif", "year": 2019, "sha256": digest}
    ring = item["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1] and item["geometry"]["type"] == "Polygon"
    west, south, east, north = item["bbox"]
    assert 12.45 < west < east < 12.48 and 45.11 < south < north < 45.14
    with rasterio.open(files[1]) as member, rasterio.open(files[2]) as other:
        assert member.descriptions == ("red", "green", "blue") and member.tags()["MEMBER"] == "1"
        both = np.stack([member.read(), other.read()])
    with rasterio.open(files[0]) as mean:
        np.testing.assert_allclose(mean.read()[:3], both.mean(0), atol=1e-3)
    assert np.abs(both[0] - both[1]).mean() > 1


def test_places_in_degrees() -> None:
    def outline(crs: object, transform: Affine) -> list:
        crs = rasterio.crs.CRS.from_user_input(crs)
        return outline_of(Georeference(100, 200, crs, transform))

    plain = outline(4326, Affine(0.01, 0, 10, 0, -0.01, 50))
    assert box_of(plain) == [10, 49, 12, 50] and geometry_of(plain)["type"] == "Polygon"
    turned = outline(4326, Affine(0.01, 0, 10, 0, 0.01, 49))  # south up
    for ring in (plain, turned):
        x, y = np.array(ring).T
        assert (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() > 0  # anticlockwise
    across = outline(4326, Affine(0.01, 0, 179, 0, -0.01, 50))
    assert box_of(across) == [179, 49, -179, 50]
    shape = geometry_of(across)
    spans = [
        [min(p[0] for p in ring[0]), max(p[0] for p in ring[0])] for ring in shape["coordinates"]
    ]
    assert shape["type"] == "MultiPolygon" and sorted(spans) == [[-180, -179], [179, 180]]
    assert outline("+proj=eqc +R=1737400 +units=m +no_defs", NORTH) == []  # on the moon


def test_what_cannot_be_written_so_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a_2019.tif", image(64, 64))
    with pytest.raises(ForecastError, match=r"--members makes several files: name a folder"):
        target_of([path], tmp_path / "o.tif", members=True)
    with pytest.raises(ForecastError, match="--years 2 makes several files"):
        target_of([path], tmp_path / "o.tif", years=2)
    with pytest.raises(ForecastError, match="has its pictures beside"):
        target_of([path], tmp_path / "out", picture=tmp_path / "p.png")
    taken = write(tmp_path / "forecast_2020.tif", image(64, 64))
    with pytest.raises(ForecastError, match="written over"):
        target_of([path, taken], tmp_path, [2018, 2019])


def test_scenes_are_found_by_the_published_layout(tmp_path: Path) -> None:
    for region, year in (("Ost", 2019), ("Ost", 2018), ("Big_Bend", 2021)):
        (tmp_path / region).mkdir(exist_ok=True)
        (tmp_path / region / f"s2_rgb_{region}_{year}_10km.tif").touch()
    (tmp_path / "Ost" / "s2_rgb_West_2019_10km.tif").touch()
    found = scenes_of(tmp_path)
    assert {region: [p.name[-13:-9] for p in paths] for region, paths in found.items()} == {
        "Big_Bend": ["2021"],
        "Ost": ["2018", "2019"],
    }
    (tmp_path / "Ost" / "s2_rgb_Ost_2019.tif").touch()
    with pytest.raises(ForecastError, match="are of one year"):
        scenes_of(tmp_path)
    with pytest.raises(ForecastError, match="no <Region>/"):
        scenes_of(tmp_path / "Ost")

"""The demo world's STAC catalog is one that others can read, and has what real ones have."""

import json

import numpy as np
import pytest
import rasterio

from satjepa.demo.catalog import DATES, FLAVOURS, CatalogLand, write_catalog


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_catalog(tmp_path_factory.mktemp("demo"), [2021], dates=DATES[:3])


@pytest.mark.filterwarnings("ignore:Server does not advertise")  # a static catalog is none
@pytest.mark.filterwarnings("ignore:Falling back to pystac")
def test_a_stac_library_walks_it(written):
    import pystac_client

    items = list(pystac_client.Client.open(str(written.path)).get_items(recursive=True))
    assert len(items) == written.items == 6
    for item in items:
        west, south, east, north = item.bbox
        assert west < written.bbox[2] and east > written.bbox[0]
        assert south < written.bbox[1] and north > written.bbox[3]
        assert len(item.assets) == 4 and item.collection_id == "sentinel-2-l2a"
        for asset in item.make_asset_hrefs_absolute().assets.values():
            with rasterio.open(asset.href) as src:
                assert src.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
                assert src.crs.to_string() == item.properties["proj:code"]  # as it is called now
    assert {i.properties["proj:code"] for i in items} == {"EPSG:32631", "EPSG:32632"}


def test_images_have_clouds_shadows_an_edge_and_three_ways_to_tell_of_1000(written):
    seen = []
    for path in sorted(written.path.parent.glob("*/*/*.json")):
        item = json.loads(path.read_text())
        with rasterio.open(path.with_name("SCL.tif")) as src:
            scl = src.read(1)
        with rasterio.open(path.with_name("B02.tif")) as src:
            blue = src.read(1)
        assert {0, 3, 4, 5, 8, 9} <= set(np.unique(scl)) and (blue == 0).any()
        full = scl.repeat(2, 0).repeat(2, 1)
        assert not (blue[full == 4] == 0).any()
        assert np.median(blue[full == 9]) > np.median(blue[full == 4]) + 2000
        cloudy = np.isin(scl, (8, 9)).sum() / (scl > 0).sum()
        assert item["properties"]["eo:cloud_cover"] == pytest.approx(100 * cloudy, abs=0.01)
        added = np.median(blue[full == 4]) > 1000
        stated = [a["raster:bands"][0]["offset"] for a in item["assets"].values()
                  if "raster:bands" in a]  # fmt: skip
        seen.append((added, stated[:1], "B02" in item["assets"]))
    assert len(FLAVOURS) == 3
    kinds = [(True, [-0.1], False), (False, [-0.1], False), (False, [], True)]
    assert sorted(seen, key=str) == sorted(kinds * 2, key=str)


def test_the_truth_is_that_of_the_land():
    land = CatalogLand([2021])
    x = land.left + 10 * (np.arange(20, 30) + 0.5)
    y = land.top - 10 * (np.arange(40, 50) + 0.5)
    truth = land.reflectance(2021, *np.meshgrid(x, y))
    rgb = land.years[2021].rgb[:, 40:50, 20:30]
    assert truth == pytest.approx(rgb * 0.3558 / 255)
    assert np.isnan(land.reflectance(2021, np.array([land.left - 50.0]), y[:1])).all()

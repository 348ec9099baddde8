"""What a GeoTIFF of a forecast holds besides numbers: place, units, nodata; and what it leaves
behind: nothing.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from forecast_files import NORTH, image, quiet, write
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.transform import Affine

from satjepa.baselines.persistence import Persistence
from satjepa.data.georeference import georeference, georeference_of
from satjepa.data.rasters import without_remark
from satjepa.data.stack import ForecastError
from satjepa.forecast import forecast_raster
from satjepa.forecast.companions import companions
from satjepa.forecast.write import check_place

ROTATED_POLE = (
    "+proj=ob_tran +o_proj=longlat +lon_0=-162 +o_lat_p=39.25 +o_lon_p=180 "
    "+to_meter=0.0174532925199433 +ellps=sphere"
)
LOCAL = 'LOCAL_CS["site",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
MOON = "+proj=eqc +R=1737400 +units=m +no_defs"
POINTS = [
    GroundControlPoint(r, c, *(NORTH @ (c + r / 9, r)), 7.5)
    for r, c in ((0, 0), (0, 64), (64, 0), (64, 64), (20, 30))
]
RPCS = RPC(
    height_off=0, height_scale=500, lat_off=45.0, lat_scale=0.1, line_off=30, line_scale=30,
    long_off=15.0, long_scale=0.1, samp_off=30, samp_scale=30,
    line_num_coeff=[0.0, 0.1, -1.0] + [0.0] * 17, line_den_coeff=[1.0] + [0.0] * 19,
    samp_num_coeff=[0.0, 1.0] + [0.0] * 18, samp_den_coeff=[1.0] + [0.0] * 19,
    err_bias=None, err_rand=None,
)  # fmt: skip


def persisted(path: Path, out: Path, **settings: object) -> Path:
    settings = {"patch": 64, "samples": 2} | quiet | settings
    return forecast_raster(path, out, Persistence(), **settings)


def lies_alike(one: Path, other: Path) -> str:
    with without_remark(), rasterio.open(one) as a, rasterio.open(other) as b:
        return georeference_of(a).difference(georeference_of(b))


@pytest.mark.parametrize(
    "crs", ["EPSG:32651+4326", ROTATED_POLE, LOCAL, "EPSG:32633+5773", MOON, None]
)
def test_any_crs_is_kept_without_litter(tmp_path: Path, crs: str | None) -> None:
    (tmp_path / "in").mkdir()
    transform = NORTH if crs else Affine.identity()
    path = write(tmp_path / "in/a_2019.tif", image(64, 64), transform, crs)
    for _ in range(2):  # written again over itself
        out = persisted(path, tmp_path / "out/o.tif")
        assert lies_alike(path, out) == ""
        names = {file.name for file in out.parent.iterdir()}
        assert names <= {"o.tif", "o.tif.aux.xml"}, names
        assert ("o.tif.aux.xml" in names) is (crs in ("EPSG:32651+4326", ROTATED_POLE))
    if crs:
        with rasterio.open(out) as dst:
            assert dst.crs == CRS.from_user_input(crs)


def test_a_place_that_the_format_cannot_hold_is_refused_before_the_work(tmp_path: Path) -> None:
    """Here because companion files are switched off; so nothing holds a rotated pole."""
    path = write(tmp_path / "a_2019.tif", image(64, 64), crs=ROTATED_POLE)
    place = georeference(path)
    assert check_place(place, path) == len(".aux.xml")
    with (
        rasterio.Env(GDAL_PAM_ENABLED="NO"),
        pytest.raises(ForecastError, match=r"cannot hold where it lies.*gdalwarp -t_srs"),
    ):
        check_place(place, path)


def test_control_points_and_coefficients_are_carried_over(tmp_path: Path) -> None:
    identity = {"transform": Affine.identity()}
    for name, place in {
        "points": {"crs": 32633, "gcps": POINTS},
        "points on a rotated pole": {"crs": ROTATED_POLE, "gcps": POINTS},
        "coefficients": {"crs": None, "rpcs": RPCS} | identity,
        "both": {"crs": 32633, "rpcs": RPCS},
    }.items():
        path = write(tmp_path / f"{name}_2019.tif", image(64, 64), **place)
        out = persisted(path, tmp_path / f"out {name}.tif")
        assert lies_alike(path, out) == "", name
        with without_remark(), rasterio.open(out) as dst, rasterio.open(path) as src:
            got = [(p.row, p.col, p.x, p.y, p.z) for p in dst.gcps[0]]
            wanted = POINTS if "gcps" in place else []
            assert got == [(p.row, p.col, p.x, p.y, p.z) for p in wanted]
            assert dst.gcps[1] == src.gcps[1] and (dst.rpcs is None) == ("rpcs" not in place)
            np.testing.assert_allclose(dst.read()[:3], src.read(), atol=1e-3)


@pytest.mark.parametrize(
    "transform",
    [
        Affine(10, 0, 3e5, 0, 10, 5e6),
        Affine(-10, 0, 3e5, 0, -10, 5e6),
        Affine(0, -10, 3e5, -10, 0, 5e6),
        Affine(0, 10, 3e5, -10, 0, 5e6),
    ],
)
def test_what_was_turned_north_up_is_turned_back(tmp_path: Path, transform: Affine) -> None:
    data = image(50, 90)
    data[:, 3:20, 60:] = 0
    path = write(tmp_path / "a_2019.tif", data, transform, nodata=0)
    out = persisted(path, tmp_path / "o.tif")
    assert lies_alike(path, out) == ""
    with rasterio.open(out) as dst:
        np.testing.assert_allclose(dst.read()[:3], data, atol=1e-3)


@pytest.mark.parametrize(
    ("dtype", "nodata", "expected"),
    [
        ("float64", -1.797e308, np.nan),
        ("float64", -9999.0, -9999.0),
        ("float64", -np.inf, -np.inf),
        ("float32", float(np.finfo("float32").min), float(np.finfo("float32").min)),
        ("float32", -3.4e38, -3.4e38),
        ("int32", 2147483647, np.nan),  # rounds to another number
        ("int32", -2147483648, -2147483648),
        ("int16", -32768, -32768),
    ],
)
def test_the_nodata_number_fits_or_is_nan(
    tmp_path: Path, dtype: str, nodata: float, expected: float
) -> None:
    data = image(64, 64, "float32").astype(dtype)
    if np.dtype(dtype).kind == "i":
        data = (image(64, 64, "float32") * 10000).astype(dtype)
    data[:, :9] = nodata
    path = write(tmp_path / "a_2019.tif", data, nodata=nodata)
    if np.dtype(dtype).kind == "i":
        with rasterio.open(path, "r+") as dst:
            dst.scales = [1e-4] * 3
    lines = []
    out = persisted(path, tmp_path / "o.tif", log=lines.append)
    with rasterio.open(out) as dst:
        np.testing.assert_equal(dst.nodata, float(np.float32(expected)))
        masks = dst.read_masks()
        assert (masks[:, :9] == 0).all() and (masks[:, 9:] == 255).all()
        np.testing.assert_allclose(dst.read()[:3, 9:], data[:, 9:], rtol=1e-5)
    changed = bool(np.isnan(expected))
    assert any("does not fit the float32 of a forecast" in line for line in lines) is changed


@pytest.mark.parametrize(("scale", "offset"), [(1e-4, -0.1), (2e-4, 0.0), (1e-4, 0.05)])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32"])
def test_tools_that_read_the_tags_see_the_same_units(
    tmp_path: Path, dtype: str, scale: float, offset: float
) -> None:
    data = (image(64, 64, "uint16") + 1000).astype(dtype)
    path = write(tmp_path / "a_2019.tif", data)
    with rasterio.open(path, "r+") as dst:
        dst.scales = [scale] * 3
        dst.offsets = [offset] * 3
        dst.units = ["reflectance"] * 3
    out = persisted(path, tmp_path / "o.tif")
    with rasterio.open(out) as dst:
        assert dst.scales == (scale,) * 6 and dst.offsets == (offset,) * 3 + (0.0,) * 3
        assert dst.units == ("reflectance",) * 6
        stored = dst.read()
    np.testing.assert_allclose(stored[:3], data, atol=0.01)
    np.testing.assert_allclose(stored[3:] * scale, 0, atol=1e-6)  # spread 0 is 0 in any units


def companions_of(out: Path) -> list[Path]:
    names = (".ovr", ".aux.xml", ".msk", ".msk.ovr", ".AUX.XML", ".ovr.aux.xml")
    stems = (".tfw", ".TFW", ".tifw", ".wld", ".prj", ".tab", ".RPB", "_RPC.TXT", ".aux", ".IMD")
    files = [out.with_name(out.name + name) for name in names[:-1]]
    return files + [out.with_name(out.stem + name) for name in stems]


@pytest.mark.parametrize("there", [True, False])
def test_companions_of_what_is_replaced_go(tmp_path: Path, there: bool) -> None:
    out = tmp_path / "o.tif"
    path = write(tmp_path / "a_2019.tif", image(64, 64))
    if there:
        out.write_bytes(b"old")
    for file in companions_of(out):
        file.write_bytes(b"old")
    kept = [tmp_path / n for n in ("o.txt", "o.qml", "oo.tif.ovr", "p.tfw", "o.tif.bak", "po.prj")]
    for file in kept:
        file.write_text("mine")
    persisted(path, out)
    assert sorted(tmp_path.iterdir()) == sorted([out, path, *kept])
    with rasterio.open(out) as dst:
        assert dst.files == [str(out)] and dst.overviews(1) == [] and dst.transform == NORTH


def test_real_companions_do_not_lend_their_values(tmp_path: Path) -> None:
    """As a GIS leaves them: external overviews, statistics and another place."""
    out = tmp_path / "o.tif"
    first = write(tmp_path / "a_2019.tif", np.full((3, 256, 256), 200, np.uint8))
    second = write(tmp_path / "b_2019.tif", np.full((3, 256, 256), 90, np.uint8), crs=32634)
    persisted(first, out)
    with rasterio.Env(TIFF_USE_OVR="YES"), rasterio.open(out, "r+") as dst:
        dst.build_overviews([4], rasterio.enums.Resampling.average)
    place = "<GeoTransform>1, 1, 0, 1, 0, -1</GeoTransform><SRS>EPSG:4326</SRS>"
    Path(f"{out}.aux.xml").write_text(f"<PAMDataset>{place}</PAMDataset>")
    assert Path(f"{out}.ovr").exists() and rasterio.open(out).crs == CRS.from_epsg(4326)
    persisted(second, out)
    with rasterio.open(out) as dst:
        assert dst.crs == CRS.from_epsg(32634) and dst.transform == NORTH
        np.testing.assert_allclose(dst.read(1, out_shape=(64, 64)), 90, atol=1e-3)


def test_another_files_companions_stay(tmp_path: Path) -> None:
    """a.tfw places a.tiff, an input; a.prj may be that of a shapefile."""
    for other in ("o.tiff", "o.shp", "O.JP2"):
        folder = tmp_path / other
        folder.mkdir()
        for name in (other, "o.tfw", "o.prj", "o.tif.ovr"):
            (folder / name).touch()
        assert companions(folder / "o.tif") == [folder / "o.tif.ovr"]


def test_a_link_is_followed(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (tmp_path / "o.tif").symlink_to(store / "real.tif")
    (store / "real.tif.ovr").touch(), (tmp_path / "o.tif.ovr").touch()
    path = write(tmp_path / "a_2019.tif", image(64, 64), crs=ROTATED_POLE)
    out = persisted(path, tmp_path / "o.tif")
    assert out.is_symlink() and sorted(f.name for f in store.iterdir()) == [
        "real.tif",
        "real.tif.aux.xml",
    ]
    assert lies_alike(path, out) == lies_alike(path, store / "real.tif") == ""
    assert not (tmp_path / "o.tif.ovr").exists()


def test_permissions_and_long_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a_2019.tif", image(64, 64))
    for length in (250, 255):
        out = persisted(path, tmp_path / ("n" * (length - 4) + ".tif"))
        assert out.stat().st_mode & 0o777 == 0o666 & ~_umask()
    with pytest.raises(ForecastError, match="name of more than 255 bytes"):
        forecast_raster(path, tmp_path / ("n" * 252 + ".tif"), None, patch=64, **quiet)
    with pytest.raises(ForecastError, match="name of more than 255 bytes"):
        forecast_raster(path, tmp_path / ("é" * 126 + ".tif"), None, patch=64, **quiet)
    pole = write(tmp_path / "b_2019.tif", image(64, 64), crs=ROTATED_POLE)
    with pytest.raises(ForecastError, match="name of more than 247 bytes"):
        forecast_raster(pole, tmp_path / ("n" * 246 + ".tif"), None, patch=64, **quiet)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask

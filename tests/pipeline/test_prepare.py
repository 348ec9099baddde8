"""The data stage on a folder of one's own regions: what is in, what is not, and why."""

import os
import stat
from functools import partial

import numpy as np
import pytest
from affine import Affine
from reach import REPO

from satjepa.assemble import cubes_of
from satjepa.config import load_params
from satjepa.data.cube import open_cube
from satjepa.pipeline import prepare


@pytest.fixture
def own(tmp_path, monkeypatch):
    """own(**changes) -> params of a checkout in tmp_path whose regions lie in tmp_path / mine."""
    import satjepa.assemble

    for module in (prepare, satjepa.assemble):
        monkeypatch.setattr(module, "root", lambda: tmp_path)
    given = {"data.root": "mine", "data.presets": ["mine"], "data.patch": 32, "data.white": 0.3558}
    given["backbone.layout"] = None
    given |= {"data.val_regions": 1, "data.test_regions": 1}
    return partial(load_params, REPO / "params.yaml", **given)


def write(folder, region, years, size=64, added=0.0, **options):
    import rasterio

    for year in years:
        values = np.random.default_rng(0).integers(200, 3000, (3, size, size)).astype(np.uint16)
        values += np.uint16(added if year == years[-1] else 0)
        path = folder / region / f"s2_rgb_{region}_{year}_10km.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        profile = {"driver": "GTiff", "count": 3, "height": size, "width": size, "dtype": "uint16"}
        profile |= {"crs": "EPSG:32635", "transform": Affine(10, 0, 0, 0, -10, 0)}
        with rasterio.open(path, "w", **profile) as tif:
            tif.write(values)


def test_what_cannot_serve_and_what_is_doubtful_is_reported(own, tmp_path):
    mine = tmp_path / "mine"
    for region in ("A", "B", "C"):
        write(mine, region, [2020, 2021])
    write(mine, "Small", [2020, 2021], size=30)
    write(mine, "Gap", [2018, 2020])
    write(mine, "Offset", [2021, 2022], added=1000)
    write(mine, "_Draft", [2021, 2022])
    write(mine, ".hidden", [2021, 2022])
    for seed in range(3):
        report = prepare.prepare(own(seed=seed), progress=False)
        assert report.regions == {"mine": 6} and list(report.unfit) == ["Gap", "Small"]
    lines = str(report).splitlines()
    assert "2 regions are in no part of the split" in lines
    assert [line for line in lines if line.startswith("Small is in no part of the split: 30x30")]
    assert [line for line in lines if line.startswith("s2_rgb_Offset_2022_10km.tif: all values")]
    for name in (".hidden", "_Draft"):
        assert [line for line in lines if f"{name}: left out, as its name begins" in line]


def test_a_small_region_named_nowhere_is_no_reason_to_fail(own, tmp_path):
    write(tmp_path / "mine", "A", [2020, 2021])
    write(tmp_path / "mine", "Small", [2020, 2021], size=20)
    with pytest.raises(ValueError, match=r"1 regions are too few.*Small: 20x20 pixels, less than"):
        prepare.prepare(own(), progress=False)


def test_hidden_files_beside_and_in_the_cubes_are_none(own, tmp_path):
    for region in ("A", "B", "C"):
        write(tmp_path / "mine", region, [2020, 2021])
    prepare.prepare(own(), progress=False)
    cubes = tmp_path / "artifacts/cubes/mine"
    for name in ("._A.zarr", ".DS_Store", "A.zarr/.DS_Store", "A.zarr/._rgb", "A.zarr/rgb/._c"):
        (cubes / name).write_bytes(b"\0\5\26\7")
    (cubes / "A.zarr/rgb/c/0/._0").write_bytes(b"\0\5\26\7")
    assert [cube.attrs["region"] for cube in cubes_of("mine")] == ["A", "B", "C"]
    assert open_cube(cubes / "A.zarr")["rgb"].values.max() > 0


@pytest.mark.parametrize("mask", [0o022, 0o002])
def test_what_is_written_has_the_mode_that_the_umask_says(own, tmp_path, mask):
    for region in ("A", "B", "C"):
        write(tmp_path / "mine", region, [2020, 2021])
    before = os.umask(mask)
    try:
        prepare.prepare(own(), progress=False)
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o666 & ~mask}

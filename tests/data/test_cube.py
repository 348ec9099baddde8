"""A cube holds what the GeoTIFFs hold, with masks, CRS and transform, and appears whole or not at
all.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from reach import REPO

from satjepa.config import ConfigError, load_params
from satjepa.data.alphaearth import read_alphaearth
from satjepa.data.cube import build_cube, open_cube
from satjepa.data.errors import CorruptRasterError, GridMismatchError
from satjepa.data.rasters import read_rgb
from satjepa.data.scenes import find_scenes
from satjepa.pipeline import prepare


def test_uint8_scenes_are_kept_as_they_are(make_cube, tmp_path) -> None:
    cube = make_cube("Alpha", [2018, 2019, 2020], truth=True)
    assert {name: (v.dims, v.dtype.name) for name, v in cube.data_vars.items()} == {
        "rgb": (("year", "band", "y", "x"), "uint8"),
        "valid": (("year", "y", "x"), "bool"),
        "emb": (("year", "emb_band", "y", "x"), "int8"),
        "has_truth": (("year",), "bool"),
        "oracle_mean": (("year", "band", "y", "x"), "uint8"),
        "oracle_sample": (("year", "band", "y", "x"), "uint8"),
        "process": (("year", "y", "x"), "uint8"),
    }
    grid = {"crs": "EPSG:32635", "transform": [10, 0, 400_000, 0, -10, 5_200_000]}
    assert cube.attrs == {"region": "Alpha", "preset": "demo", **grid}
    for i, scene in enumerate(find_scenes(tmp_path / "scenes")):
        rgb, valid = read_rgb(scene.rgb)
        np.testing.assert_array_equal(cube["rgb"][i] / np.float32(255), rgb)
        np.testing.assert_array_equal(cube["valid"][i], valid)
        np.testing.assert_array_equal(cube["emb"][i], read_alphaearth(scene.emb))
    assert cube["year"].values.tolist() == [2018, 2019, 2020]
    assert cube["has_truth"].values.tolist() == [False, True, True]
    assert cube["process"].values.max(axis=(1, 2)).tolist() == [0, 19 % 6, 20 % 6]
    assert cube["oracle_mean"].values.max(axis=(1, 2, 3)).tolist() == [0, 19 % 6, 20 % 6]


def test_coordinates_are_pixel_centres(make_cube) -> None:
    cube = make_cube("Alpha", [2018])
    assert cube["x"].values[:2].tolist() == [400_005, 400_015]
    assert cube["y"].values[:2].tolist() == [5_199_995, 5_199_985]


def test_values_are_read_when_used(make_cube) -> None:
    cube = make_cube("Alpha", [2018, 2019])
    assert not cube["emb"].variable._in_memory
    assert np.shares_memory(cube["emb"].values, cube["emb"].values)  # then kept, once


def test_other_scales_become_float32(tmp_path, make) -> None:
    make.region(tmp_path, "Alpha", [2018])
    values = np.full((3, 48, 48), 2500, np.uint16)
    values[:, 3, 4] = 0
    make.tif(make.rgb_path(tmp_path, "Alpha", 2019), values)
    cube = build_cube(find_scenes(tmp_path), tmp_path / "a.zarr")
    assert cube["rgb"].dtype == np.float32
    assert np.argwhere(~cube["valid"].values).tolist() == [[1, 3, 4]]
    np.testing.assert_array_equal(
        cube["rgb"][0], read_rgb(make.rgb_path(tmp_path, "Alpha", 2018))[0]
    )
    assert cube["rgb"].values[1, :, 3, 4].tolist() == [0, 0, 0]
    assert cube["rgb"].values[1, 0, 0, 0] == np.float32(0.25)


def test_one_value_becomes_white_in_all_images_but_uint8(tmp_path, make) -> None:
    make.tif(make.rgb_path(tmp_path, "Alpha", 2018), np.full((3, 48, 48), 0.2, np.float32))
    make.tif(make.rgb_path(tmp_path, "Alpha", 2019), np.full((3, 48, 48), 7000, np.uint16))
    make.tif(make.rgb_path(tmp_path, "Alpha", 2020), np.full((3, 48, 48), 51, np.uint8))
    rgb = build_cube(find_scenes(tmp_path), tmp_path / "a.zarr", white=0.5)["rgb"].values[
        :, 0, 0, 0
    ]
    assert rgb.tolist() == pytest.approx([0.4, 1.0, 0.2])


def test_a_data_set_that_is_not_uint8_must_say_its_white(tmp_path, make, monkeypatch) -> None:
    """Else a model would learn from other images than `satjepa forecast` shows it."""
    for region in "ABC":
        for year in (2018, 2019):
            make.tif(
                make.rgb_path(tmp_path / "mine", region, year),
                np.full((3, 48, 48), 0.2, np.float32),
            )
    monkeypatch.setattr(prepare, "root", lambda: tmp_path)
    given = {
        "data.root": "mine",
        "data.presets": ["mine"],
        "data.val_regions": 1,
        "data.test_regions": 1,
    }
    params = partial(
        load_params, REPO / "params.yaml", **given, **{"data.patch": 32, "backbone.layout": None}
    )
    with pytest.raises(
        ConfigError, match=r"data\.white: found null, but .*A_2018.*; accepted: 0\.3558 if"
    ):
        prepare.prepare(params())
    prepare.prepare(params(**{"data.white": 0.4}))
    assert float(
        open_cube(tmp_path / "artifacts/cubes/mine/A.zarr")["rgb"][0, 0, 0, 0]
    ) == pytest.approx(0.5)


def test_a_year_without_embedding_is_masked(tmp_path, make) -> None:
    make.region(tmp_path, "Alpha", [2018, 2019])
    make.emb_path(tmp_path, "Alpha", 2018).unlink()
    cube = build_cube(find_scenes(tmp_path), tmp_path / "a.zarr")
    assert (cube["emb"][0] == -128).all() and (cube["emb"][1] != -128).all()
    make.emb_path(tmp_path, "Alpha", 2019).unlink()
    assert "emb" not in build_cube(find_scenes(tmp_path, ["Alpha"]), tmp_path / "a.zarr")


def test_a_rotated_grid_has_no_axes_but_a_transform(tmp_path, make) -> None:
    make.tif(
        make.rgb_path(tmp_path, "Alpha", 2018),
        np.ones((3, 8, 8), np.uint8),
        Affine(8, 6, 5, 6, -8, 7),
    )
    cube = build_cube(find_scenes(tmp_path), tmp_path / "a.zarr")
    assert "x" not in cube.coords and cube.attrs["transform"] == [8, 6, 5, 6, -8, 7]


def test_bad_scenes_leave_the_old_cube_alone(tmp_path, make) -> None:
    make.region(tmp_path / "scenes", "Alpha", [2018, 2019])
    scenes = find_scenes(tmp_path / "scenes")
    out = tmp_path / "cubes" / "Alpha.zarr"
    build_cube(scenes, out)
    make.tif(make.rgb_path(tmp_path / "scenes", "Alpha", 2019), np.ones((3, 40, 40), np.uint8))
    make.emb_path(tmp_path / "scenes", "Alpha", 2019).unlink()
    with pytest.raises(GridMismatchError):
        build_cube(find_scenes(tmp_path / "scenes", check=False), out)
    scenes[0].rgb.write_bytes(b"nothing")
    with pytest.raises(CorruptRasterError):
        build_cube(scenes[:1], out)
    assert open_cube(out)["year"].values.tolist() == [2018, 2019]


def test_an_interrupted_write_leaves_the_old_cube_and_no_rest(tmp_path, make, monkeypatch) -> None:
    make.region(tmp_path / "scenes", "Alpha", [2018, 2019])
    scenes = find_scenes(tmp_path / "scenes")
    out = tmp_path / "cubes" / "Alpha.zarr"
    build_cube(scenes[:1], out)

    def interrupted(self: xr.Dataset, path: Path, **options: object) -> None:
        path.mkdir()
        (path / "zarr.json").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(xr.Dataset, "to_zarr", interrupted)
        build_cube(scenes, out)
    assert open_cube(out)["year"].values.tolist() == [2018]
    assert [path.name for path in out.parent.iterdir()] == ["Alpha.zarr"]
    assert build_cube(scenes, out)["year"].values.tolist() == [2018, 2019]
    assert [path.name for path in out.parent.iterdir()] == ["Alpha.zarr"]


def test_one_region_and_one_scene_a_year(tmp_path, make) -> None:
    for region in "Alpha", "Beta":
        make.region(tmp_path, region, [2018])
    scenes = find_scenes(tmp_path)
    for wrong in scenes, [scenes[0], scenes[0]], []:
        with pytest.raises(ValueError, match="one scene a year of one region"):
            build_cube(wrong, tmp_path / "a.zarr")


def test_a_lost_chunk_is_not_zeros(make_cube, tmp_path) -> None:
    make_cube("Alpha", [2018, 2019])
    path = tmp_path / "cubes" / "demo" / "Alpha.zarr"
    next(path.glob("rgb/c/1/*/*/*")).unlink()
    with pytest.raises(CorruptRasterError, match="1 of 2 chunks of rgb"):
        open_cube(path)


def test_a_black_year_is_stored_like_any_other(tmp_path, make) -> None:
    make.tif(make.rgb_path(tmp_path, "Alpha", 2018), np.zeros((3, 8, 8), np.uint8))
    assert (build_cube(find_scenes(tmp_path), tmp_path / "a.zarr")["rgb"] == 0).all()


def test_absent_cube(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.zarr: no cube"):
        open_cube(tmp_path / "nowhere.zarr")


def test_the_same_scenes_give_the_same_bytes(tmp_path, make) -> None:
    make.region(tmp_path / "scenes", "Alpha", [2018])
    scenes = find_scenes(tmp_path / "scenes")
    for name in "a", "b":
        build_cube(scenes, tmp_path / name / "Alpha.zarr", preset="p")
    first, second = (
        {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        for folder in (tmp_path / "a", tmp_path / "b")
    )
    assert first == second and len(first) > 8


def test_real_cube(shared, tmp_path) -> None:
    scenes = find_scenes(shared / "data", ["RomaniaForest"])
    cube = build_cube(scenes, tmp_path / "Romania.zarr", preset="real")
    assert (
        cube["rgb"].shape == (4, 3, 100, 100)
        and cube["rgb"].dtype == np.float32
        and "emb" not in cube
    )
    assert (
        cube.attrs["crs"] == "EPSG:3035"
        and cube.attrs["preset"] == "real"
        and cube["valid"].values.all()
    )
    np.testing.assert_array_equal(cube["rgb"][3], read_rgb(scenes[3].rgb)[0])

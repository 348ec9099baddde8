"""Rasters in, rasters out: georeference, units, nodata, tiles and blending, with forecasters that
need no weights.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.crs import CRS
from rasterio.transform import Affine

from satjepa.baselines.persistence import Persistence
from satjepa.captions.embeddings import caption_embedder
from satjepa.data.display import display_white
from satjepa.data.rasters import BandCountError, CorruptRasterError, GridMismatchError, ScaleError
from satjepa.data.stack import ForecastError, Stack, year_of, years_of
from satjepa.forecast import BANDS, axis_tiles, blended, forecast_raster, tile_batch, tiles
from satjepa.models.flow import patch_noise

NORTH = Affine(10, 0, 300000, 0, -10, 5000000)
ROTATED = Affine.translation(500000, 8000000) @ Affine.rotation(30) @ Affine.scale(10, -10)
quiet = {"log": lambda line: None}


class Noise:
    """Grey plus noise that belongs to the place: what a generator does, without the generator."""

    def forecast(self, batch: dict, samples: int, seed: int) -> torch.Tensor:
        shape = batch["rgb_t"].shape[1:]
        return torch.stack(
            [0.5 + 0.1 * patch_noise(batch["meta"], s, seed, shape) for s in range(samples)]
        )


class Sees:
    """Persistence that remembers the batches it was given."""

    def __init__(self) -> None:
        self.batches: list[dict] = []

    def forecast(self, batch: dict, samples: int, seed: int) -> torch.Tensor:
        self.batches.append(batch)
        return batch["rgb_t"].expand(samples, *batch["rgb_t"].shape)


def write(
    path: Path, data: np.ndarray, transform: Affine = NORTH, crs: int = 32633, **profile: object
) -> Path:
    shape = {"count": data.shape[0], "height": data.shape[1], "width": data.shape[2]}
    profile = {"dtype": data.dtype, "crs": CRS.from_epsg(crs), "transform": transform} | profile
    with rasterio.open(path, "w", driver="GTiff", **shape, **profile) as dst:
        dst.write(data)
    return path


def image(height: int, width: int, dtype: str = "uint8") -> np.ndarray:
    unit = np.random.default_rng(height * width).random((3, height, width))
    return {
        "uint8": lambda: (1 + unit * 254).astype(np.uint8),
        "uint16": lambda: (300 + unit * 3000).astype(np.uint16),
        "float32": lambda: (0.01 + 0.3 * unit).astype(np.float32),
    }[dtype]()


def stack_of(rgb: np.ndarray, years: tuple = (2019,), valid: np.ndarray | None = None) -> Stack:
    valid = np.ones((len(rgb), *rgb.shape[2:]), bool) if valid is None else valid
    return Stack(rgb.astype(np.float32), valid, years, 1 / 255, 0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("length", "patch", "overlap"),
    [(64, 64, 16), (65, 64, 16), (100, 64, 16), (256, 64, 32), (97, 32, 0)],
)
def test_tiles_cover_the_axis_overlap_enough_and_weigh_one(
    length: int, patch: int, overlap: int
) -> None:
    starts, weights = axis_tiles(length, patch, overlap)
    total = np.zeros(length)
    for start, weight in zip(starts, weights, strict=True):
        assert (weight > 0).all()
        total[start : start + patch] += weight
    np.testing.assert_allclose(total, 1, atol=1e-12)
    assert starts[0] == 0 and starts[-1] == length - patch
    assert all(b - a <= patch - overlap for a, b in pairwise(starts))
    assert len(starts) == -(-(length - patch) // (patch - overlap)) + 1  # and no tile too many


def test_weights_of_a_raster_sum_to_one_and_are_smooth() -> None:
    total = np.zeros((100, 77))
    for y, x, weight in tiles(100, 77, 32, 8):
        total[y : y + 32, x : x + 32] += weight
        inside = weight[:, 16] if 0 < y < 68 else weight[16:, 16]
        assert np.abs(np.diff(inside)).max() < 0.25  # a hard edge would jump by 1
    np.testing.assert_allclose(total, 1, atol=1e-12)


def test_pixel_is_point_keeps_its_grid(tmp_path: Path) -> None:
    path = write(tmp_path / "a_2019.tif", image(64, 64))
    with rasterio.open(path, "r+") as dst:
        dst.update_tags(AREA_OR_POINT="Point")
    out = forecast_raster(path, tmp_path / "o.tif", Persistence(), patch=64, **quiet)
    with rasterio.open(path) as src, rasterio.open(out) as dst:
        assert (
            dst.transform == src.transform
            and dst.tags()["AREA_OR_POINT"] == src.tags()["AREA_OR_POINT"] == "Point"
        )


@pytest.mark.parametrize(
    ("height", "width", "dtype", "transform", "crs", "nodata"),
    [
        (100, 65, "uint8", NORTH, 32633, None),  # a remainder of one pixel
        (64, 64, "uint16", NORTH, 32733, 0),  # southern UTM
        (20, 31, "float32", ROTATED, 3035, -9999.0),  # smaller than a tile
        (70, 9, "float32", NORTH, 4326, None),
        (64, 129, "uint8", ROTATED, 32633, 255),
    ],
)
def test_persistence_comes_back_on_the_same_grid_in_the_same_units(
    tmp_path: Path,
    height: int,
    width: int,
    dtype: str,
    transform: Affine,
    crs: int,
    nodata: float | None,
) -> None:
    data = image(height, width, dtype)
    hole = np.zeros((height, width), bool)
    if nodata is not None:
        hole[3:9, 4:20] = True
        data[:, hole] = nodata
    path = write(tmp_path / "a_2019.tif", data, transform, crs, nodata=nodata)
    out = forecast_raster(
        path, tmp_path / "deep" / "out.tif", Persistence(), patch=64, samples=2, **quiet
    )
    with rasterio.open(path) as src, rasterio.open(out) as dst:
        assert (dst.crs, dst.transform, dst.shape, dst.nodata) == (
            src.crs,
            src.transform,
            src.shape,
            src.nodata,
        )
        assert dst.count == 6 and set(dst.dtypes) == {"float32"} and dst.descriptions == BANDS
        got = dst.read()
        mask = dst.read_masks()
    assert ((mask == 0).all(0) == hole).all() and ((mask == 0).any(0) == hole).all()
    scale = {"uint8": 255, "uint16": 1e4, "float32": 1}[dtype]
    np.testing.assert_allclose(got[:3, ~hole], data[:, ~hole], atol=2e-6 * scale)
    assert got[3:, ~hole].max() < 1e-6 * scale


def test_holes_without_a_nodata_value_become_nan(tmp_path: Path) -> None:
    data = image(64, 64, "float32")
    data[1, 10:12, 5] = np.nan
    out = forecast_raster(
        write(tmp_path / "a.tif", data), tmp_path / "o.tif", Persistence(), patch=64, **quiet
    )
    with rasterio.open(out) as dst:
        got = dst.read()
        assert np.isnan(dst.nodata)
    expected = np.zeros((64, 64), bool)
    expected[10:12, 5] = True
    assert (np.isnan(got) == expected).all()


def test_valid_pixels_never_get_the_nodata_number(tmp_path: Path) -> None:
    data = np.full((3, 64, 64), 7, np.uint8)
    data[:, :5] = 0
    path = write(tmp_path / "a_2019.tif", data, nodata=0)
    out = forecast_raster(path, tmp_path / "o.tif", Persistence(), patch=64, samples=1, **quiet)
    with rasterio.open(
        out
    ) as dst:  # one sample: the spread is 0 everywhere, which is the nodata number
        assert (dst.read_masks()[:, 5:] > 0).all() and (dst.read_masks()[:, :5] == 0).all()
        assert dst.read()[3:, 5:].max() < 1e-5


def test_a_tile_never_sees_a_hole_and_an_empty_one_is_not_computed(tmp_path: Path) -> None:
    data = image(64, 200)
    data[:, :, 64:] = 0
    data[:, 10:20, 10:20] = 0
    seen = Sees()
    forecast_raster(
        write(tmp_path / "a_2019.tif", data, nodata=0),
        tmp_path / "o.tif",
        seen,
        patch=64,
        overlap=0,
        **quiet,
    )
    (batch,) = seen.batches
    assert [(m["x"], m["y"]) for m in batch["meta"]] == [(0, 0), (45, 0)]
    assert batch["rgb_t"].min() >= 1 / 255  # filled from the nearest pixel, not with zeros
    assert (
        not batch["valid_t"][0, 0, 10:20, 10:20].any()
        and batch["valid_t"][0].sum() == 64 * 64 - 100
    )


def test_a_small_scene_goes_on_as_its_mirror_image(tmp_path: Path) -> None:
    seen = Sees()
    data = image(20, 31)
    forecast_raster(
        write(tmp_path / "a_2019.tif", data), tmp_path / "o.tif", seen, patch=64, **quiet
    )
    expected = np.pad(data, [(0, 0), (0, 44), (0, 33)], mode="reflect") / np.float32(255)
    np.testing.assert_allclose(seen.batches[0]["rgb_t"][0].numpy(), expected, atol=1e-6)
    assert seen.batches[0]["valid_t"].all()


def test_noise_belongs_to_the_place_not_to_batch_order_or_name(tmp_path: Path) -> None:
    stack = stack_of(np.full((1, 3, 90, 70), 0.5))
    boxes = tiles(90, 70, 32, 8)
    mean, spread = blended(stack, Noise(), boxes, samples=3, seed=1, batch=4)
    for order, batch in ((boxes[::-1], 4), (boxes, 1), (sorted(boxes, key=lambda b: b[1]), 5)):
        again = blended(stack, Noise(), order, samples=3, seed=1, batch=batch)
        np.testing.assert_allclose(again, (mean, spread), atol=1e-12)
    assert np.abs(blended(stack, Noise(), boxes, samples=3, seed=2)[0] - mean).mean() > 0.01
    files = []
    for name in ("x_2019.tif", "renamed_2019.tif"):
        path = write(tmp_path / name, image(90, 70))
        files.append(
            forecast_raster(
                path, tmp_path / f"o-{name}", Noise(), patch=32, samples=2, seed=5, **quiet
            )
        )
    first, second = (rasterio.open(file).read() for file in files)
    assert (first == second).all()
    corner = stack_of(np.full((1, 3, 90, 70), 0.5), years=(2020,))
    assert (
        np.abs(blended(corner, Noise(), boxes, samples=3, seed=1)[0] - mean).mean() > 0.01
    )  # another year


def test_spread_does_not_dip_where_tiles_overlap() -> None:
    stack = stack_of(np.full((1, 3, 64, 112), 0.5))
    boxes = tiles(64, 112, 64, 16)
    _, spread = blended(stack, Noise(), boxes, samples=64, seed=0)
    alone = spread[:, :, :40].mean()
    shared = spread[:, :, 50:62].mean()
    assert alone == pytest.approx(0.1, rel=0.05)
    assert shared == pytest.approx(
        alone, rel=0.05
    )  # averaging the samples of both tiles would give 0.071


def test_history_goes_back_to_the_first_gap() -> None:
    rgb = np.stack([np.full((3, 32, 32), v) for v in (0.9, 0.7, 0.6, 0.1)])
    valid = np.ones((4, 32, 32), bool)
    valid[2, :, :9] = False
    batch = tile_batch(
        stack_of(rgb, (2019, 2018, 2017, 2015), valid), [(0, 0), (0, 16)], 16, 4, None
    )
    assert batch["rgb_t"].shape == (2, 3, 16, 16) and batch["valid_t"].shape == (2, 1, 16, 16)
    assert batch["history_valid"].tolist() == [
        [True, False, False, False],
        [True, True, False, False],
    ]
    assert batch["history"].shape == (2, 4, 3, 16, 16)
    assert batch["history"][1, :, 0, 0, 0].tolist() == pytest.approx(
        [0.7, 0.6, 0, 0]
    )  # 2015 lies beyond the gap
    assert batch["meta"][1] == {
        "preset": "raster",
        "region": "",
        "year": 2019,
        "aug": 0,
        "x": 16,
        "y": 0,
    }
    assert "rgb_tp1" not in batch and "text_t" not in batch
    assert tile_batch(stack_of(rgb[:1]), [(0, 0)], 16, 0, None)["history"].shape == (
        1,
        0,
        3,
        16,
        16,
    )


def test_captions_are_written_from_the_pixels_and_embedded_tile_by_tile() -> None:
    class Encoders:
        def embed_batch(self, texts: list[str], max_length: int) -> tuple:
            self.texts = texts
            ids = torch.arange(len(texts), dtype=torch.float32)
            hidden = (ids[:, None, None] + 0.001).expand(-1, max_length, 2)
            return (
                hidden,
                torch.ones(len(texts), max_length, dtype=torch.bool),
                ids[:, None].expand(-1, 5),
            )

    green = np.array([0.26, 0.47, 0.20])
    water = np.array([0.05, 0.09, 0.10])
    rgb = np.concatenate(
        [np.broadcast_to(c[:, None, None], (3, 32, 32)) for c in (green, water)], axis=2
    )
    encoders = Encoders()
    batch = tile_batch(stack_of(rgb[None]), [(0, 0), (0, 32)], 32, 0, caption_embedder(encoders, 4))
    assert (
        "Green crops" in encoders.texts[0]
        and "Water" in encoders.texts[3]
        and len(encoders.texts) == 6
    )
    text = batch["text_t"]
    assert (
        text["hidden"].shape == (2, 3, 4, 2)
        and text["mask"].shape == (2, 3, 4)
        and text["pooled"].shape == (2, 3, 5)
    )
    assert text["pooled"][1, 2, 0] == 5  # tile 1, semantic
    assert (
        text["hidden"][0, 1, 0, 0] == torch.tensor(1.001).bfloat16()
    )  # rounded as in the store the model trained on


def test_years_come_from_names_or_are_given() -> None:
    assert year_of("s2_rgb_X_2019_10km.tif") == 2019
    assert (
        year_of("a/2016/m_20190818_scene.tif") is None
    )  # a date is not a year, a folder not a name
    assert year_of("2017_to_2018.tif") == 2018
    a = Path("a_2017.tif")
    b = Path("b_2018.tif")
    c = Path("c.tif")
    assert (
        years_of([a, b]) == (2017, 2018)
        and years_of([c]) == (None,)
        and years_of([c], [2020]) == (2020,)
    )
    assert years_of([a, c], [2020]) == (2017, 2020) and years_of([c, a], [2001, 2002]) == (
        2001,
        2002,
    )
    for paths, given, match in [
        ([b, a], None, "years 2018, 2017: give the images from oldest to newest"),
        ([a, a], None, "years 2017, 2017"),
        ([c, a], None, r"c\.tif: no year in the name"),
        ([a, b, c], [1, 2], "2 years for 3 images"),
    ]:
        with pytest.raises(ForecastError, match=match):
            years_of(paths, given)


def test_the_scale_is_told_by_type_and_range(tmp_path: Path) -> None:
    assert display_white(write(tmp_path / "a.tif", image(9, 9) // 4)) == (
        1.0,
        "uint8 display imagery",
    )
    assert display_white(write(tmp_path / "b.tif", image(9, 9, "uint16")))[0] == 0.3558
    dark = image(30, 30, "float32")
    dark[0, 0, 0] = 0.95  # one bright roof changes nothing
    assert display_white(write(tmp_path / "c.tif", dark)) == (
        0.3558,
        "taken as reflectance: 99% of the values are below 0.31",
    )
    white, why = display_white(write(tmp_path / "d.tif", np.minimum(dark * 3, 1)))
    assert white == 1.0 and "display imagery" in why
    assert display_white(tmp_path / "d.tif", 0.5, trained=0.4) == (0.5, "as given")
    assert display_white(tmp_path / "d.tif", trained=0.4) == (0.4, "as in training")
    assert display_white(tmp_path / "a.tif", trained=0.4)[0] == 1.0


def test_the_model_sees_the_display_scale_and_the_log_says_what_was_done(tmp_path: Path) -> None:
    data = np.full((3, 64, 64), 0.1779, np.float32)
    data[:, :, 32:] = 0.39
    seen = Sees()
    lines = []
    paths = [write(tmp_path / f"a_{year}.tif", data) for year in (2015, 2016, 2018, 2019)]
    forecast_raster(
        paths,
        tmp_path / "o.tif",
        seen,
        patch=64,
        history=2,
        seed=3,
        log=lines.append,
        tags={"MODEL": "m"},
    )
    assert seen.batches[0]["rgb_t"][0, 0, 0, 0].item() == pytest.approx(0.5)
    assert seen.batches[0]["rgb_t"].max() == 1 and seen.batches[0]["history_valid"].tolist() == [
        [True, False]
    ]
    text = "\n".join(lines)
    for word in ("year 2019: a_2019.tif, 64x64 px, 100.0% valid; history [2018]; [2016, 2015] not used",
                 "white 0.3558", "50.0% of the pixels",
                 "1 tiles of 64x64 px", "8 samples, seed 3", "forecast of year 2020"):  # fmt: skip
        assert word in text, text
    with rasterio.open(tmp_path / "o.tif") as dst:
        tags = dst.tags()
    expected = {"YEAR": "2020", "SEED": "3", "SAMPLES": "8", "WHITE": "0.3558", "MODEL": "m"}
    assert (
        expected.items() <= tags.items()
        and tags["INPUTS"] == "a_2015.tif, a_2016.tif, a_2018.tif, a_2019.tif"
    )


def test_bad_input_is_a_typed_error_and_leaves_nothing(tmp_path: Path) -> None:
    good = write(tmp_path / "g_2019.tif", image(64, 64))
    cases = {
        "bands": (BandCountError, write(tmp_path / "b_2018.tif", image(64, 64)[:2])),
        "grid": (
            GridMismatchError,
            write(tmp_path / "c_2018.tif", image(64, 64), NORTH @ Affine.translation(3, 0)),
        ),
        "scale": (
            ScaleError,
            write(tmp_path / "d_2018.tif", np.full((3, 64, 64), 60000, np.uint16)),
        ),
        "none": (
            ForecastError,
            write(tmp_path / "e_2020.tif", np.zeros((3, 64, 64), np.uint8), nodata=0),
        ),
    }
    (tmp_path / "t_2018.tif").write_bytes(good.read_bytes()[:3000])
    cases["truncated"] = (CorruptRasterError, tmp_path / "t_2018.tif")
    out = tmp_path / "out" / "o.tif"
    for kind, (error, path) in cases.items():
        with pytest.raises(error):
            forecast_raster(
                sorted([path, good], key=year_of), out, Persistence(), patch=64, history=1, **quiet
            )
        assert not out.exists(), kind
    with pytest.raises(ForecastError, match="overlap 64"):
        forecast_raster(good, out, Persistence(), patch=64, overlap=64, **quiet)


def test_an_output_that_cannot_be_is_refused_before_the_forecast(tmp_path: Path) -> None:
    good = write(tmp_path / "g_2019.tif", image(64, 64))
    before = good.read_bytes()
    (tmp_path / "file").write_text("no folder")
    for out, says in ((tmp_path / "x/../g_2019.tif", "written over"), (tmp_path, "is a folder"),
                      (tmp_path / "file/o.tif", "nothing can be written")):  # fmt: skip
        with pytest.raises(ForecastError, match=says):
            forecast_raster(good, out, None, patch=64, **quiet)
    assert good.read_bytes() == before


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = write(tmp_path / "g_2019.tif", image(64, 64))
    out = tmp_path / "o.tif"
    out.write_text("old")

    def full(self, **tags) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(rasterio.io.DatasetWriter, "update_tags", full)
    with pytest.raises(OSError, match="No space"):
        forecast_raster(good, out, Persistence(), patch=64, **quiet)
    assert out.read_text() == "old" and sorted(p.name for p in tmp_path.iterdir()) == [
        "g_2019.tif",
        "o.tif",
    ]


def test_real_sentinel_2_keeps_its_grid_and_values(tmp_path: Path, shared: Path) -> None:
    paths = sorted((shared / "data" / "RomaniaForest").glob("*_201[78]_*.tif"))
    forecast_raster(
        paths, tmp_path / "o.tif", Persistence(), patch=64, history=2, samples=2, **quiet
    )
    with rasterio.open(paths[-1]) as src, rasterio.open(tmp_path / "o.tif") as dst:
        assert (dst.crs, dst.transform, dst.shape, dst.nodata) == (
            src.crs,
            src.transform,
            (100, 100),
            None,
        )
        np.testing.assert_allclose(dst.read()[:3], src.read(), atol=1e-6)
        assert dst.tags()["WHITE"] == "0.3558" and dst.tags()["YEAR"] == "2019"

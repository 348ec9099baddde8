"""What `satjepa inference` looks at before the work, and what it scores: with persistence in the
place of a model.
"""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from forecast_files import NORTH, write
from rasterio.transform import Affine

from satjepa import assemble
from satjepa.baselines.persistence import Persistence
from satjepa.config import Params, load_params
from satjepa.contracts import Captions
from satjepa.data.errors import GridMismatchError
from satjepa.data.splits import Split
from satjepa.data.stack import ForecastError
from satjepa.published import inference, job
from satjepa.published.inference import Settings, check_inference, held_out, run_inference

RNG = np.random.default_rng(1)
LAND = RNG.normal(0.45, 0.1, (3, 70, 90)).clip(0.05, 0.95)  # as displayed
NEXT = (LAND + RNG.normal(0, 0.05, LAND.shape)).clip(0.05, 0.95)
OUT = "s2_rgb_A_2021_10km"


def with_captions(use: bool) -> Params:
    params = load_params()
    model = params.model.model_copy(update={"use_captions": use})
    return params.model_copy(update={"model": model})


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    """`run_inference` of persistence into tmp_path/out; returns metrics.json."""
    monkeypatch.setattr(inference, "as_called", lambda *_, **__: Persistence())
    params = with_captions(False)

    def run(tif: Path, truths: list[Path] = ()) -> dict:
        model = SimpleNamespace(params=params)
        path = run_inference(model, tif, tmp_path / "out", Settings(), truths, log=str)
        text = path.read_text()
        assert "NaN" not in text and "Infinity" not in text
        return json.loads(text)

    return run


def scene(tmp_path: Path, year: int, land: np.ndarray, dtype: str = "uint8", **profile) -> Path:
    stored = {
        "uint8": np.rint(land * 255).astype(np.uint8),
        "uint16": np.rint(land * 3558).astype(np.uint16),
        "float32": (land * 0.3558).astype(np.float32),
    }[dtype]
    return write(tmp_path / f"s2_rgb_A_{year}_10km.tif", stored, **profile)


def test_only_what_is_valid_in_both_years_is_scored(run, tmp_path: Path) -> None:
    now, then = LAND.copy(), NEXT.copy()
    now[:, :35] = 0
    then[:, 60:] = 0
    seen = slice(35, 60)
    paths = [scene(tmp_path, 2021, now, nodata=0), scene(tmp_path, 2022, then, nodata=0)]
    (row,) = run(paths[0], paths[1:])["years"]
    expected = np.abs(np.rint(255 * LAND) - np.rint(255 * NEXT))[:, seen].mean() / 255
    assert row["persistence"]["l1"] == pytest.approx(expected, abs=1e-4)
    assert row["forecast"]["l1"] == pytest.approx(expected, abs=1e-4)
    assert row["persistence"]["ssim"] is not None


def test_scattered_holes_and_none_in_common_are_null(run, tmp_path: Path) -> None:
    scattered = NEXT.copy()
    scattered[:, np.random.default_rng(0).random(LAND.shape[1:]) < 0.12] = 0
    now = scene(tmp_path, 2021, LAND, nodata=0)
    (row,) = run(now, [scene(tmp_path, 2022, scattered, nodata=0)])["years"]
    assert row["persistence"]["ssim"] is None and row["persistence"]["l1"] > 0
    left, right = LAND.copy(), NEXT.copy()
    left[:, :, 45:] = 0
    right[:, :, :45] = 0
    now = scene(tmp_path, 2021, left, nodata=0)
    (row,) = run(now, [scene(tmp_path, 2022, right, nodata=0)])["years"]
    assert set(row["persistence"].values()) == set(row["forecast"].values()) == {None}


@pytest.mark.parametrize("now", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("then", ["uint8", "uint16", "float32"])
def test_the_truth_is_read_by_its_own_type(run, tmp_path: Path, now: str, then: str) -> None:
    """The same land in another type is the same land."""
    tif = scene(tmp_path, 2021, LAND, now)
    (row,) = run(tif, [scene(tmp_path, 2022, LAND, then)])["years"]
    assert row["persistence"]["l1"] < 3e-3 and row["persistence"]["psnr"] > 45


def test_a_south_up_tile_is_scored_and_written_where_it_lies(run, tmp_path: Path) -> None:
    south_up = Affine(10, 0, 3e5, 0, 10, 5e6 - 700)
    paths = [
        scene(tmp_path, year, land[:, ::-1], transform=south_up)
        for year, land in ((2021, LAND), (2022, NEXT))
    ]
    (row,) = run(paths[0], paths[1:])["years"]
    expected = np.abs(np.rint(255 * LAND) - np.rint(255 * NEXT)).mean() / 255
    assert row["persistence"]["l1"] == pytest.approx(expected, abs=1e-4)
    with rasterio.open(tmp_path / f"out/{OUT}_2022.tif") as dst, rasterio.open(paths[0]) as src:
        assert dst.transform == src.transform
        np.testing.assert_allclose(dst.read()[:3], src.read(), atol=1e-3)


def test_captions_of_a_turned_tile_reach_their_patches(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of the file run north: the patch of its first rows is forecast last."""
    heard = {}

    def embed(texts: list[Captions]) -> dict:
        heard["texts"] = [three.semantic for three in texts]
        return {}

    model = SimpleNamespace(params=with_captions(True))
    monkeypatch.setattr(inference, "embedder", lambda model: embed)
    for transform, expected in (
        (NORTH, ["first rows", "last rows"]),
        (Affine(10, 0, 3e5, 0, 10, 5e6), ["last rows", "first rows"]),
    ):
        tall = np.tile(LAND, (1, 2, 1))[:, :128, :64]
        tif = scene(tmp_path, 2021, tall, transform=transform)
        for y, words in ((0, "first rows"), (64, "last rows")):
            three = Captions("", "", words)._asdict()
            (tmp_path / f"A_2021_x0000_y{y:04d}.json").write_text(json.dumps(three))
        run_inference(model, tif, tmp_path / "out", Settings(), (), tmp_path, log=str)
        assert [heard["texts"][0], heard["texts"][-1]] == expected


def test_what_lay_beside_the_pictures_goes(run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in (f"{OUT}_2022.tif.ovr", f"{OUT}_panel.png.aux.xml", f"{OUT}_panel.pgw"):
        (tmp_path / "out" / name).touch()
    run(scene(tmp_path, 2021, LAND))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"{OUT}_2022.tif", f"{OUT}_panel.png", f"{OUT}_metrics.json"}


def test_what_cannot_be_is_said_before_a_model_is_loaded(tmp_path: Path) -> None:
    tif = scene(tmp_path, 2021, LAND)
    then = scene(tmp_path, 2022, NEXT)
    moved = write(
        tmp_path / "m_2022.tif", rasterio.open(tif).read(), NORTH @ Affine.translation(2, 0)
    )
    (tmp_path / "file").touch()
    for out in ("file", "file/deeper"):
        with pytest.raises(ForecastError, match="nothing can be written to"):
            check_inference(tif, tmp_path / out)
    with pytest.raises(ForecastError, match=r"https://host\.example/a\.tif is a URL"):
        check_inference(Path("https://host.example/a.tif"), tmp_path)
    with pytest.raises(ForecastError, match=r"s3://bucket/o is a URL"):
        check_inference(tif, "s3://bucket/o")
    with pytest.raises(GridMismatchError, match="transform"):
        check_inference(tif, tmp_path, truths=[moved])
    then.rename(tmp_path / f"{OUT}_2022.tif")
    with pytest.raises(ForecastError, match="would be written over"):
        check_inference(tif, tmp_path, truths=[tmp_path / f"{OUT}_2022.tif"])
    both = write(tmp_path / "plot_1999_2021.tif", rasterio.open(tif).read())
    with pytest.raises(ForecastError, match=r"1999 or 2021\? give the year \(--year\)"):
        check_inference(both, tmp_path)
    assert check_inference(both, tmp_path, year=2021).image(1).name == "plot_1999_2021_2022.tif"
    long = write(tmp_path / ("n" * 246 + ".tif"), rasterio.open(tif).read())
    with pytest.raises(ForecastError, match="name of more than 255 bytes"):
        check_inference(long, tmp_path / "out")


def test_regions_of_ones_own_are_forecast_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their scenes lie in data.root; artifacts/scenes has those of the demo world only."""
    monkeypatch.setattr(job, "root", lambda: tmp_path)
    params = load_params()
    data = params.data.model_copy(update={"root": "mine", "presets": ("own",)})
    params = params.model_copy(update={"data": data})
    with pytest.raises(FileNotFoundError, match=r"none prepared from .*mine: name a GeoTIFF"):
        held_out(params)
    for year in (2020, 2021):
        folder = tmp_path / "mine/Big Bend [a]"
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / f"s2_rgb_Big Bend [a]_{year}_10km.tif", np.rint(LAND * 255).astype("uint8"))
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/split.json").touch()
    split = Split("region", 0, ("x",), (), ("Big Bend [a]",))
    monkeypatch.setattr(assemble, "open_split", lambda: split)
    ((tif, truths),) = held_out(params)
    assert tif.name == "s2_rgb_Big Bend [a]_2020_10km.tif" and len(truths) == 1


def test_a_tile_is_shrunk_north_up_with_its_holes(tmp_path: Path) -> None:
    from satjepa.published.card import load_and_resize_tif, shrunk

    land = np.tile(LAND, (1, 2, 2))[:, :128, :128]
    land[:, :64, :64] = 0
    north = scene(tmp_path, 2021, land, nodata=0)
    image, valid = shrunk(north, 32)
    assert valid.shape == (1, 32, 32) and image.shape == (3, 32, 32)
    assert not valid[0, :15, :15].any() and valid[0, 17:].all() and valid[0, :, 17:].all()
    south_up = Affine(10, 0, 3e5, 0, 10, 5e6 - 1280)
    south = scene(tmp_path, 2022, land[:, ::-1], nodata=0, transform=south_up)
    assert torch.equal(load_and_resize_tif(south, 32), image)

"""A scene of any size: no seams, the same rows however they are made, memory that stays."""

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from forecast_files import Noise, Sees, image, quiet, write
from torch.nn.functional import interpolate

from satjepa.baselines.persistence import Persistence
from satjepa.data import display
from satjepa.data.display import display_white
from satjepa.forecast import Settings, check_files, forecast_images, forecast_raster
from satjepa.forecast.blend import Kept
from satjepa.forecast.made import Made
from satjepa.forecast.raster import forecasting
from satjepa.forecast.stream import Plan, Stream, drawing, runs_of
from satjepa.models.flow import patch_noise

PLACE = {"preset": "raster", "region": "", "year": 2019}


class Hills:
    """Smooth land that is drawn by the noise of the latent, a hill or a hollow for each cell of 8
    pixels; `own` draws each tile for itself.
    """

    def __init__(self, own: bool = False) -> None:
        self.own = own

    def forecast(self, batch: dict, samples: int, seed: int) -> torch.Tensor:
        side = batch["rgb_t"].shape[-1] // 8
        metas = batch["meta"]
        if self.own:
            metas = [{k: v for k, v in meta.items() if k != "tile"} for meta in metas]
        noise = [patch_noise(metas, s, seed, (3, side, side)) for s in range(samples)]
        hills = [interpolate(draw, scale_factor=8, mode="bilinear") for draw in noise]
        return 0.5 + 0.1 * torch.stack(hills)


def made_of(path: Path, forecaster: object, **settings: object) -> Made:
    settings = {"patch": 32, "samples": 2} | settings
    return forecast_images(check_files([path], None), forecaster, Settings(**settings), **quiet)


def test_the_noise_of_a_scene_is_one_field() -> None:
    field = patch_noise([PLACE | {"x": 0, "y": 0, "tile": 320}], 1, 7, (4, 40, 40))[0]
    for x, y in ((0, 0), (48, 8), (136, 200)):
        (window,) = patch_noise([PLACE | {"x": x, "y": y, "tile": 64}], 1, 7, (4, 8, 8))
        assert torch.equal(window, field[:, y // 8 : y // 8 + 8, x // 8 : x // 8 + 8])
    assert abs(field.mean()) < 0.05 and field.std() == pytest.approx(1, abs=0.05)
    here = PLACE | {"x": 0, "y": 0, "tile": 64}
    draws = [patch_noise([here], s, seed, (4, 8, 8)) for s, seed in ((0, 0), (1, 0), (0, 1))]
    draws += [patch_noise([here | {"year": 2020}], 0, 0, (4, 8, 8)), draws[0].flip(1)]
    assert all(not torch.equal(draws[0], other) for other in draws[1:])
    with pytest.raises(ValueError, match="not on cells of 8 pixels"):
        patch_noise([here | {"x": 4}], 0, 0, (4, 8, 8))


def seams(member: np.ndarray, plan: Plan) -> tuple[float, float]:
    """Mean step of a member (3,H,W) over the edges of tiles, as a multiple of that over the other
    edges of cells; and its deviation in the middle of their overlaps, of that inside tiles.
    """
    xs = [0, *plan.columns[0][1:]]
    ends = [x + plan.patch for x in xs[:-1]]
    steps = np.abs(np.diff(member, axis=-1)).mean((0, 1))  # (W-1,): from x to x + 1
    edges = sorted({x - 1 for x in [*xs[1:], *ends]})
    inside = steps[[x for x in range(7, 255, 8) if x not in edges]].mean()
    wide = np.stack([member[..., (x + end) // 2] for x, end in zip(xs[1:], ends, strict=True)])
    middles = np.stack([member[..., x + plan.patch // 2] for x in xs])
    return float(steps[edges].mean() / inside), float(wide.std() / middles.std())


def test_members_have_no_seams(tmp_path: Path) -> None:
    path = write(tmp_path / "a_2019.tif", image(256, 256))

    def found(own: bool, overlap: int) -> tuple[float, float]:
        made = made_of(path, Hills(own), patch=64, overlap=overlap, kept=Kept(2, 0, 256))
        return seams(made.members(0, 256)[1], made.plan)

    step, deviation = found(own=False, overlap=16)
    assert step < 1.1 and deviation == pytest.approx(1, abs=0.1)
    assert found(own=True, overlap=0)[0] > 3  # what tiles side by side, each with its own draw, do
    assert found(own=True, overlap=16)[1] < 0.85  # and blended: the land fades where they meet


def test_a_constant_field_comes_out_constant(tmp_path: Path) -> None:
    data = np.full((3, 75, 110), 0.3, np.float32)
    path = write(tmp_path / "a_2019.tif", data)
    how = {"patch": 32, "samples": 3, "white": 1.0} | quiet
    for overlap in (8, 13, 28):
        out = forecast_raster(path, tmp_path / "o.tif", Persistence(), overlap=overlap, **how)
        with rasterio.open(out) as src:
            got = src.read()
        assert (got[:3] == np.float32(0.3)).all() and (got[3:] == 0).all()


@pytest.mark.parametrize("overlap", [8, 20])  # 20: three rows of tiles lie over a pixel
def test_rows_are_the_same_to_the_bit_in_whatever_runs_they_are_made(
    tmp_path: Path, overlap: int
) -> None:
    path = write(tmp_path / "a_2019.tif", image(150, 90))
    made = made_of(path, Noise(), kept=Kept(2, 0, 90), batch=2, overlap=overlap)
    stream = Stream(made.scene, made.plan, drawing(Noise(), 1, None), 2, 0, kept=made.kept)
    count = len(made.plan.bands)
    assert count > 4
    whole = list(stream.rows(0, count))
    parts = [[*stream.rows(first, last)] for first, last in ((3, count), (0, 1), (1, 3))]
    again = [*parts[1], *parts[2], *parts[0]]
    for one, other in zip(whole, again, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert runs_of([0, 2, 3, 7]) == [(0, 1), (2, 4), (7, 8)]


def test_the_batch_does_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path / "a_2019.tif", image(100, 50))
    whole = made_of(path, Noise(), batch=16)
    assert len(whole.plan.bands) == 1
    for batch in (1, 3, 5):
        made = made_of(path, Noise(), batch=batch)
        assert len(made.plan.bands) > 1
        np.testing.assert_allclose(made.moments(0, 100), whole.moments(0, 100), atol=1e-9)


def test_bands_cover_the_scene_once() -> None:
    for shape in ((1, 1), (31, 64), (33, 64), (200, 70), (129, 32)):
        plan = Plan(shape, 32, 8, 4)
        assert plan.tops[0] == 0 and plan.tops[-1] == shape[0]
        assert all(a < b for a, b in pairwise(plan.tops))
        starts = [y for band in range(len(plan.bands)) for y, _, _ in plan.tiles(band)]
        assert plan.count == len(starts) and not any(y % 8 for y in starts)
        assert plan.bottom(len(plan.bands) - 1) >= shape[0]


def test_memory_does_not_grow_with_the_height(tmp_path: Path) -> None:
    peaks = []
    for height in (1024, 4096):
        path = write(tmp_path / f"a{height}_2019.tif", image(height, 256), tiled=True)
        request = check_files([path], None)
        settings = Settings(patch=128, samples=1, overlap=0, batch=2)
        tracemalloc.start()
        with forecasting(request, Persistence(), settings, tmp_path / "o.tif", **quiet) as made:
            made.write(tmp_path / "o.tif", cloud=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0], peaks


def test_a_hole_is_filled_alike_however_the_scene_is_read(tmp_path: Path) -> None:
    data = image(700, 40)
    data[:, 200:330, 5:30] = 0
    path = write(tmp_path / "a_2019.tif", data, nodata=0)
    scene = made_of(path, Sees()).scene
    whole = scene.read(0, 700)
    parts = [scene.read(top, top + 50) for top in range(0, 700, 50)]
    assert (np.concatenate([part.rgb for part in parts], -2) == whole.rgb).all()
    assert (whole.valid[0] == (data != 0).all(0)).all()
    assert whole.rgb.min() > 0
    np.testing.assert_allclose(whole.rgb[0, :, 250, 6], data[:, 250, 4] / 255, atol=1e-6)


def test_the_white_of_a_large_image_is_guessed_from_some_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a_2019.tif", image(200, 60, "float32"))
    exact = display_white(path)
    monkeypatch.setattr(display, "WHOLE", 3000)
    assert display_white(path) == exact  # to the two digits that it says

"""Tiles: what they cover, what they weigh, what a forecaster is shown of each."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from forecast_files import Noise, Sees, image, quiet, stack_of, write

from satjepa.captions.embeddings import caption_embedder
from satjepa.forecast import axis_tiles, blended, forecast_raster, tile_batch, tiles


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
        "tile": 16,
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
    assert [(m["x"], m["y"]) for m in batch["meta"]] == [(0, 0), (48, 0)]
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

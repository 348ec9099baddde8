"""The calls of the model card, on the tiny SD 3.5 with random weights."""

# ruff: noqa: F811 (a test asks for an imported fixture by its name)

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from card_fixtures import WORDS, file, model, ours, rgb  # noqa: F401
from reach import REPO

import satjepa
from satjepa import (
    CaptionForecaster,
    assemble,
    encode_caption_batch,
    load_and_resize_tif,
    predict_next_frame,
)
from satjepa.captions.rules import caption
from satjepa.config import load_params
from satjepa.data.stack import ForecastError
from satjepa.published import card as api


def tif(path: Path, data: np.ndarray, **profile: object) -> Path:
    where = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 3e5, 0, -10, 5e6)}
    height, width = data.shape[1:]
    shape = {"count": 3, "height": height, "width": width, "dtype": data.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **where, **profile) as dst:
        dst.write(data)
    return path


def watched_levels(model: object, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Noise levels that the transformer is asked at, as they come."""
    levels: list[float] = []
    forward = type(model.backbone).forward

    def spy(self: object, latent: object, sigma: torch.Tensor, *rest: object) -> torch.Tensor:
        levels.append(round(float(sigma[0]), 4))
        return forward(self, latent, sigma, *rest)

    monkeypatch.setattr(type(model.backbone), "forward", spy)
    return levels


def test_the_card_s_names_are_there_and_the_package_stays_cheap() -> None:
    assert satjepa.load_model is api.load_model
    assert satjepa.predict_next_frame is predict_next_frame
    with pytest.raises(AttributeError, match="no attribute 'load_modle'"):
        satjepa.load_modle  # noqa: B018
    heavy = "('torch', 'numpy', 'satjepa.published.card')"
    code = f"import sys, satjepa; print([m for m in {heavy} if m in sys.modules])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPO, env=os.environ, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done


def test_a_frame_is_forecast_in_the_steps_asked_for(
    model: object, rgb, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = watched_levels(model, monkeypatch)
    frame = predict_next_frame(rgb, model, num_diffusion_steps=4, noise_strength=0.4)
    assert frame.shape == (3, 64, 64)
    assert frame.dtype == torch.float32 and frame.device.type == "cpu"
    assert frame.min() >= 0 and frame.max() <= 1 and frame.std() > 0.01
    assert levels == [0.4, 0.3, 0.2, 0.1]
    again = predict_next_frame(rgb[None].numpy(), model, num_diffusion_steps=4, noise_strength=0.4)
    assert torch.equal(frame, again)
    other = predict_next_frame(rgb, model, num_diffusion_steps=4, noise_strength=0.4, seed=1)
    assert not torch.equal(frame, other)
    levels.clear()
    predict_next_frame(rgb, model)
    assert len(levels) == 20 and levels[0] == 0.35  # the card's defaults
    assert model.params.sample.steps == 20  # what was asked for has not changed the model
    assert "sample" not in vars(model) and "foresee" not in vars(model)


def test_as_published_takes_one_step_whatever_is_asked(
    model: object, rgb, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = watched_levels(model, monkeypatch)
    frames = [predict_next_frame(rgb, model, (), steps, as_published=True) for steps in (1, 50)]
    assert levels == [0.35, 0.35] and torch.equal(*frames)
    # No captions are found, so none are given.
    assert torch.equal(frames[0], predict_next_frame(rgb, model, None, as_published=True))
    assert torch.equal(frames[0], predict_next_frame(rgb, model, (), 1))
    assert not torch.equal(frames[0], predict_next_frame(rgb, model, (), 2))
    assert not torch.equal(frames[0], predict_next_frame(rgb, model, WORDS, as_published=True))


def test_pure_noise_forgets_the_pixels_but_not_the_tokens(model: object, rgb) -> None:
    """Noise strength 1: the latent that sampling starts from holds nothing of the image of t."""
    start, noise = torch.randn(2, 1, 16, 8, 8).unbind()
    for strength, forgets in ((1.0, True), (0.5, False)):
        called = api.as_called(model, 2, strength, heard=False)
        conditions = called.condition({"rgb_t": rgb[None]})
        once = called.sample(conditions, noise, 9, 1.0, start, 0.35)
        again = called.sample(conditions, noise, 9, 1.0, 5 * start, 0.35)
        assert torch.equal(once, again) == forgets


def test_captions_are_written_by_rule_given_or_left_out(model: object, rgb) -> None:
    by_rule = predict_next_frame(rgb, model, num_diffusion_steps=1)
    written = caption(rgb.numpy(), np.ones((64, 64), bool), encoding="display")
    assert torch.equal(by_rule, predict_next_frame(rgb, model, written, 1))
    frames = [
        by_rule,
        predict_next_frame(rgb, model, WORDS, 1),
        predict_next_frame(rgb, model, (), 1),
    ]
    assert not any(torch.equal(frames[i], frames[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_our_variant_answers_the_same_calls(
    ours: object, rgb, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = watched_levels(ours, monkeypatch)
    frame = predict_next_frame(rgb, ours, num_diffusion_steps=3, noise_strength=0.6)
    assert levels == [0.6, 0.4, 0.2] and frame.shape == (3, 64, 64)
    assert not torch.equal(frame, predict_next_frame(rgb, ours, WORDS, 3, 0.6))
    levels.clear()
    predict_next_frame(rgb, ours, num_diffusion_steps=2, noise_strength=1.0)
    assert levels == [1.0, 0.5]
    for asked, message in (
        ({"as_published": True}, "sampling as published"),
        ({"captions": ()}, "a forecast without"),
    ):
        with pytest.raises(ForecastError, match=f"{message}.*only the variant 'published' can"):
            predict_next_frame(rgb, ours, **asked)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"rgb_t": torch.rand(3, 32, 64)},
            r"shape \(3, 32, 64\); the model forecasts \(3, 64, 64\)",
        ),
        ({"rgb_t": torch.rand(2, 3, 64, 64)}, "the model forecasts"),
        ({"rgb_t": torch.full((3, 64, 64), 1.5)}, "pixels from 1.5 to 1.5"),
        ({"rgb_t": torch.full((3, 64, 64), torch.nan)}, r"in \[0, 1\]"),
        (
            {"captions": ("one", "two")},
            "2 captions: give one of each kind: informative, geometric, semantic",
        ),
        ({"num_diffusion_steps": 0}, "0 steps from noise strength 0.35"),
        ({"noise_strength": 0.0}, "noise strength 0: "),
        ({"noise_strength": 1.01}, "noise strength 1.01"),
    ],
)
def test_what_does_not_fit_is_said(change: dict, says: str, model: object, rgb) -> None:
    with pytest.raises(ForecastError, match=says):
        predict_next_frame(**{"rgb_t": rgb, "model": model, "num_diffusion_steps": 1} | change)


def test_captions_are_encoded_as_the_published_model_reads_them() -> None:
    encoders = assemble.load_text_encoders(load_params(REPO / "params.yaml"))
    hidden, pooled = encode_caption_batch(list(WORDS), encoders)
    assert hidden.shape == (3, 77, 128) and pooled.shape == (3, 128)
    masked, mask, same = encoders.embed_batch(list(WORDS), 77)
    assert torch.equal(pooled, same) and hidden[~mask].any()  # padding is kept,
    assert not torch.allclose(hidden[mask], masked[mask], atol=1e-3)  # and attended
    ids = encoders.tokenize([WORDS[0]], 77)["t5"]
    alone = encoders.t5(input_ids=ids).last_hidden_state  # without a mask, as the published code
    torch.testing.assert_close(hidden[:1], alone, atol=1e-5, rtol=1e-5)
    assert encode_caption_batch(list(WORDS[:1]), encoders, max_length=5)[0].shape == (1, 5, 128)


def test_text_encoders_that_are_kept_are_read_once() -> None:
    params = load_params(REPO / "params.yaml")
    kept = assemble.load_text_encoders(params, "cpu", keep=True)
    assert assemble.load_text_encoders(params, "cpu", keep=True) is kept
    assert assemble.load_text_encoders(params, "cpu") is not kept


def test_the_forecaster_has_the_card_s_arguments() -> None:
    forecaster = CaptionForecaster(ijepa_dim=24, text_dim=40, hidden_dim=16, num_layers=2)
    assert forecaster(torch.randn(2, 9, 24), torch.randn(2, 5, 40)).shape == (2, 5, 40)
    assert len(forecaster.cross_attn_layers) == 2
    with torch.device("meta"):
        whole = CaptionForecaster(ijepa_dim=768, text_dim=4096, hidden_dim=1024, num_layers=3)
    assert sum(p.numel() for p in whole.parameters()) == 65_881_600


def test_a_tile_becomes_one_square_image(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(1, 255, (3, 64, 64), np.uint8)
    image = load_and_resize_tif(tif(tmp_path / "same.tif", data), 64)
    torch.testing.assert_close(image, torch.from_numpy(data) / 255)
    assert load_and_resize_tif(tmp_path / "same.tif").shape == (3, 128, 128)
    blocks = data[:, :20, :30].repeat(8, 1).repeat(8, 2)
    small = load_and_resize_tif(tif(tmp_path / "big.tif", blocks), 16)
    assert small.shape == (3, 16, 16) and small.dtype == torch.float32
    assert 0 <= small.min() <= small.max() <= 1
    assert abs(small.mean() - blocks.mean() / 255) < 0.01  # an average, not one pixel of many
    dark = tif(tmp_path / "dark.tif", (data / 2000).astype(np.float32))
    image = load_and_resize_tif(dark, 64, white=0.2)
    torch.testing.assert_close(image, torch.from_numpy(data) / 400)
    holes = data.copy()
    holes[:, :10, :10] = 0
    patched = load_and_resize_tif(tif(tmp_path / "holes.tif", holes, nodata=0), 64)
    assert patched.min() > 0.003
    with pytest.raises(ForecastError, match="no valid pixel"):
        load_and_resize_tif(tif(tmp_path / "empty.tif", np.zeros_like(data), nodata=0))

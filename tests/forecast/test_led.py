"""Forecasts led by captions: in the batch, in Python with a trained model, by the command."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from shades import Joint
from stand_ins import pixels, write
from typer.testing import CliRunner

import satjepa
from satjepa import cli
from satjepa.contracts import CAPTION_KINDS
from satjepa.data.stack import ForecastError
from satjepa.forecast.load import Model, default_checkpoint
from satjepa.forecast.tiles import tile_batch

WATER = "Northwest water, calm; northeast water; southwest water; southeast water."


def embed(three: list) -> dict[str, torch.Tensor]:
    """The length of each text, so that one can be told from another."""
    lengths = torch.tensor([[len(text) for text in texts] for texts in three]).float()
    return {"pooled": lengths[..., None], "mask": torch.ones(*lengths.shape, 2, dtype=torch.bool)}


def test_given_captions_stand_beside_those_of_the_last_year(stack_of_ones) -> None:
    corners = [(0, 0), (0, 8)]
    batch = tile_batch(stack_of_ones, corners, 8, 0, embed, {"semantic": "lake", "geometric": ""})
    assert batch["text_given"]["pooled"][..., 0].tolist() == [[0, 0, 4]] * 2
    assert batch["is_given"].tolist() == [[False, True, True]] * 2
    assert batch["text_t"]["pooled"].min() > 4  # by rule, from the pixels
    assert "text_given" not in tile_batch(stack_of_ones, corners, 8, 0, embed)


@pytest.fixture
def stack_of_ones():
    from satjepa.data.stack import Stack

    rgb = np.ones((1, 3, 8, 16), np.float32)
    return Stack(rgb=rgb, valid=np.ones((1, 8, 16), bool), years=(2020,), white=1.0, offset=0.0,
                 factor=1.0, saturated=0.0)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Model:
    return satjepa.load(default_checkpoint(), "cpu", steps=1)


def test_words_move_a_forecast_and_are_noted_in_its_file(model: Model, tmp_path: Path) -> None:
    image = write(tmp_path / "a_2021.tif", pixels(1, 64, 64))
    plain = model.forecast(image, samples=1)
    led = model.forecast(image, samples=1, captions={"semantic": WATER})
    assert np.nanmax(np.abs(led.mean - plain.mean)) > 1e-4
    assert np.array_equal(model.forecast(image, samples=1, captions={}).mean, plain.mean, True)
    with rasterio.open(led.save(tmp_path / "led.tif")) as file:
        assert file.tags()["GIVEN_SEMANTIC"] == WATER
    with rasterio.open(plain.save(tmp_path / "plain.tif")) as file:
        assert not any(name.startswith("GIVEN") for name in file.tags())


def test_captions_that_cannot_lead_are_refused(model: Model, tmp_path: Path) -> None:
    image = write(tmp_path / "a_2021.tif", pixels(1, 64, 64))
    with pytest.raises(ForecastError, match=r"kind 'sematic': there are .*'semantic'"):
        model.forecast(image, samples=1, captions={"sematic": WATER})
    with pytest.raises(
        ForecastError, match=r"semantic caption has 513 tokens, and the model reads 4\d"
    ):
        model.forecast(image, samples=1, captions={"semantic": 20 * WATER})
    with pytest.raises(ForecastError, match="geometric caption is empty: say something"):
        model.forecast(image, samples=1, captions={"geometric": " "})
    silent = Model(model.folder, model.name, Joint(), None)
    with pytest.raises(ForecastError, match="cannot be led by captions"):
        silent.forecast(image, samples=1, captions={"semantic": WATER})


@pytest.mark.parametrize(("captioner", "lines"), [("rules", 0), ("imported/earthdial", 1)])
def test_a_forecast_says_that_its_captions_are_not_those_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, captioner: str, lines: int
) -> None:
    monkeypatch.setattr(Joint.params.captions, "captioner", captioner)
    image = write(tmp_path / "a_2021.tif", pixels(1))
    log = []
    Model(tmp_path, "0123456789ab", Joint(), embed).forecast(image, samples=1, log=log.append)
    assert len([line for line in log if f"in training {captioner} wrote them" in line]) == lines


def test_the_command_takes_a_caption_of_each_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from satjepa.forecast import load as module

    image = write(tmp_path / "a_2021.tif", pixels(1))
    given = []
    monkeypatch.setattr(Model, "check_captions", lambda self, captions: given.append(captions))
    joint = Model(tmp_path, "0123456789ab", Joint(), embed)
    monkeypatch.setattr(module, "load", lambda folder, **_: joint)
    words = ["--caption", "lake", "--geometric", "round", "--informative", "water"]
    out = ["--out", str(tmp_path / "b.tif"), "--no-picture", "--samples", "1"]
    result = CliRunner().invoke(cli.app, ["forecast", str(image), *out, *words])
    assert result.exit_code == 0, result.output
    expected = {"semantic": "lake", "geometric": "round", "informative": "water"}
    assert given == [expected] and set(expected) == set(CAPTION_KINDS)

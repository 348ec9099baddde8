"""What the benchmark of words says of a forecast, on pictures that are drawn by hand."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch

from satjepa.evaluation.steering import of_quarter

FILE = Path(__file__).resolve().parents[1] / "benchmarks/words.py"
SIDE = 64
FOREST = (0.10, 0.18, 0.11)
RAPE = (0.72, 0.68, 0.22)


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("words_bench", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn(*quarters: str) -> torch.Tensor:
    """Forest, but for fields of rape in some quarters: (3,H,W)."""
    image = torch.tensor(FOREST)[:, None, None].repeat(1, SIDE, SIDE)
    for quarter in quarters:
        of_quarter(image, quarter)[:] = torch.tensor(RAPE)[:, None, None]
    return image


def test_forecasts_are_held_against_what_the_truth_shows(bench: ModuleType) -> None:
    truth = torch.stack([drawn("northeast"), drawn()])
    valid = torch.ones(2, 1, SIDE, SIDE, dtype=torch.bool)
    right = bench.shown(truth.expand(3, -1, -1, -1, -1), truth, valid)
    assert right["claims"] == 1 and right["bleu_4"] == pytest.approx(1)
    # one member right, one that shows each place as the other is: of 5 claims 3 in common
    both = bench.shown(torch.stack([truth, truth.flip(0)]), truth, valid)
    assert both["claims"] == pytest.approx((1 + 3 / 5) / 2)
    assert both["bleu_4"] < 1 and both["cider"] < right["cider"]


def test_what_no_one_has_seen_is_not_held_against_a_forecast(bench: ModuleType) -> None:
    truth = drawn()[None]
    forecast = drawn("northeast")[None, None]
    valid = torch.ones(1, 1, SIDE, SIDE, dtype=torch.bool)
    assert bench.shown(forecast, truth, valid)["claims"] == pytest.approx(3 / 5)
    of_quarter(valid, "northeast")[:] = False
    assert bench.shown(forecast, truth, valid)["claims"] == 1


def test_a_model_keeps_what_it_drew_and_is_else_itself(bench: ModuleType) -> None:
    class Model:
        folder = "here"

        def forecast(self, number: int) -> torch.Tensor:
            return torch.full((1,), number)

    model = bench.Noting(Model())
    assert [model.forecast(1).item(), model.forecast(2).item()] == [1, 2]
    assert [images.item() for images in model.drawn] == [1, 2] and model.folder == "here"


def test_a_number_over_seeds_is_their_mean_and_deviation(bench: ModuleType) -> None:
    tables = [pd.DataFrame({"psnr": [x, 1.0]}, ["true", "none"]) for x in (20.0, 22.0)]
    both = bench.over_seeds(tables)
    assert both.loc["true", ("psnr", "mean")] == 21
    assert both.loc["true", ("psnr", "sd")] == pytest.approx(2**0.5)
    assert both.loc["none", ("psnr", "sd")] == 0

"""What the benchmark of words says of a forecast, on pictures that are drawn by hand."""

from types import ModuleType

import pandas as pd
import pytest
import torch
from drawings import SIDE, drawn
from reach import script

from satjepa.evaluation.steering import of_quarter


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return script("benchmarks/words.py")


def test_forecasts_are_held_against_what_the_truth_shows(bench: ModuleType) -> None:
    truth = torch.stack([drawn(northeast="yellow crops"), drawn()])
    valid = torch.ones(2, 1, SIDE, SIDE, dtype=torch.bool)
    right = bench.shown(truth.expand(3, -1, -1, -1, -1), truth, valid)
    assert right["claims"] == 1 and right["bleu_4"] == pytest.approx(1)
    # one member right, one that shows each place as the other is: of 5 claims 3 in common
    both = bench.shown(torch.stack([truth, truth.flip(0)]), truth, valid)
    assert both["claims"] == pytest.approx((1 + 3 / 5) / 2)
    assert both["bleu_4"] < 1 and both["cider"] < right["cider"]


def test_what_no_one_has_seen_is_not_held_against_a_forecast(bench: ModuleType) -> None:
    truth = drawn()[None]
    forecast = drawn(northeast="yellow crops")[None, None]
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

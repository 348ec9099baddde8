"""Scores of all runs to rows: which run an ablation is compared with."""

from pathlib import Path

import pytest
from reach import REPO, as_checkout

from satjepa.config import Params, load_params
from satjepa.evaluation.results import collect_arms
from satjepa.evaluation.table import write_table

ARMS = {"no_jepa": {"model.use_jepa": False}}


def runs(folder: Path, *names: str) -> None:
    """scores.csv of some runs: the ensemble's PSNR on the first preset is 20, 21, .. in their
    order.
    """
    as_checkout(folder)
    for i, name in enumerate(names):
        row = {"n": 2, "samples": 8}
        rows = [
            row | {"model": "x, one sample", "preset": "strong", "samples": 1, "psnr": 1.0},
            row | {"model": "x, mean of 8", "preset": "gentle", "psnr": 2.0},
            row | {"model": "x, mean of 8", "preset": "strong", "psnr": 20.0 + i},
        ]
        write_table(rows, folder / f"runs/{name}/scores.csv")


def params_of(arms: dict) -> Params:
    return load_params(REPO / "params.yaml", **{"ablate.arms": arms, "ablate.seeds": [0]})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_an_arm_full_the_model_itself_stands_for_it(home: Path):
    runs(home, "joint/0", "ablate/no_jepa-0")
    rows = collect_arms(params_of(ARMS), full=True)
    assert rows[["model", "psnr"]].to_numpy().tolist() == [["full", 20.0], ["no JEPA", 21.0]]
    assert collect_arms(params_of(ARMS))["model"].tolist() == ["no JEPA"], (
        "the table has a row of ours already"
    )


def test_an_arm_full_is_what_the_others_are_compared_with(home: Path):
    runs(home, "ablate/no_jepa-0", "ablate/full-0")
    rows = collect_arms(params_of({"full": {}} | ARMS), full=True)
    assert rows[["model", "psnr"]].to_numpy().tolist() == [["full", 21.0], ["no JEPA", 20.0]]

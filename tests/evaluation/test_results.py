"""Scores of all runs to rows: which run an ablation is compared with, what the table is made of."""

from pathlib import Path

import pytest
from reach import REPO, as_checkout

from satjepa.config import Params, load_params
from satjepa.evaluation.results import (
    ablation_rows,
    arm_steps,
    collect,
    collect_ablations,
    sampling,
)
from satjepa.evaluation.score import INITIALISED, OURS
from satjepa.evaluation.table import read_scores, write_table

ARMS = {"satjepa": {}, "no_jepa": {"model.use_jepa": False, "train.steps": 5}}
FULL = ARMS | {"full": {"train.steps": 5}}
PUBLISHED = {"model.variant": "published", "backbone.layout": None, "train.muon_lr": None}


def runs(folder: Path, *names: str) -> None:
    """scores.csv of some runs: the ensemble's PSNR on the first preset is 20, 21, .. in their
    order.
    """
    as_checkout(folder)
    for i, name in enumerate(names):
        row = {"n": 2, "samples": 8}
        rows = [
            row | {"model": f"{OURS}, one sample", "preset": "strong", "samples": 1, "psnr": 1.0},
            row | {"model": f"{OURS}, mean of 8", "preset": "gentle", "psnr": 2.0},
            row | {"model": f"{OURS}, mean of 8", "preset": "strong", "psnr": 20.0 + i},
        ]
        write_table(rows, folder / f"runs/{name}/scores.csv")


def params_of(arms: dict, **dotted: object) -> Params:
    return load_params(REPO / "params.yaml", **{"arms": arms} | dotted)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("satjepa.paths.root", lambda: tmp_path)
    return tmp_path


def test_without_an_arm_full_the_model_itself_stands_for_it(home: Path):
    runs(home, "satjepa-0", "no_jepa-0")
    rows = collect_ablations(params_of(ARMS))
    assert rows[["model", "psnr"]].to_numpy().tolist() == [["full", 20.0], ["no JEPA", 21.0]]
    named = [row["model"] for row in ablation_rows(params_of(ARMS))]
    assert named == ["Ablation: no JEPA, 8 samples"], "the table has a row of ours already"


def test_an_arm_full_is_what_the_others_are_compared_with(home: Path):
    runs(home, "no_jepa-0", "full-0")
    rows = collect_ablations(params_of(FULL))
    assert rows[["model", "psnr"]].to_numpy().tolist() == [["no JEPA", 20.0], ["full", 21.0]]
    named = [row["model"] for row in ablation_rows(params_of(FULL))]
    assert named == ["Ablation: no JEPA, 8 samples", "Ablation: full, 8 samples"]


def test_one_forecast_is_an_answer_too(home: Path):
    """`sample.samples: 1`: there is no ensemble, and no row of one."""
    (home / "dvc.yaml").touch()
    row = {"preset": "strong", "n": 2, "samples": 1}
    for arm, psnr in ("satjepa", 20.0), ("no_jepa", 15.0):
        rows = [row | {"model": INITIALISED, "psnr": 1.0}, row | {"model": OURS, "psnr": psnr}]
        write_table(rows, home / f"runs/{arm}-0/scores.csv")
    assert collect_ablations(params_of(ARMS))["psnr"].tolist() == [20.0, 15.0]
    assert [row["model"] for row in ablation_rows(params_of(ARMS))] == ["Ablation: no JEPA"]


def test_runs_of_several_seeds_are_one_row(home: Path):
    runs(home, "satjepa-0", "satjepa-1")
    (row,) = [r for r in collect(params_of(ARMS, seeds=[0, 1]), "satjepa") if r["psnr"] > 2]
    assert (row["psnr"], row["seeds"]) == (20.5, 2)


def test_steps_of_arms_are_told_by_what_they_are():
    params = params_of(FULL | {"published_captions": PUBLISHED})
    assert arm_steps(params, "ablation") == {"no JEPA": 5, "full": 5}
    assert arm_steps(params, "published") == {"published captions": params.train.steps}


def test_what_draws_its_forecasts_says_how():
    params = load_params(REPO / "params.table.yaml", **{"sample.samples": 4})
    drawn = sampling(params)
    assert drawn["samples"] == {OURS: 4, INITIALISED: 1}
    assert drawn["strength"] == {OURS: 1.0, INITIALISED: 0.35}
    baselines = drawn["baseline_sampling"]
    assert baselines["MCVD"] == {"samples": 4} | params.baselines.arms["mcvd"].sample.model_dump()
    assert baselines["SD 3.5, one prompt, 0.35"]["strength"] == 0.35
    assert "U-Net" not in baselines, "it has one answer, and draws none"


def test_names_are_text_whatever_they_look_like(tmp_path: Path):
    """A preset called 2023, a region called NA, a system called 1e3."""
    rows = [{"model": "1e3", "preset": "2023", "region": "NA", "psnr": 1.0, "crps": None}]
    write_table(rows, tmp_path / "scores.csv")
    assert read_scores(tmp_path / "scores.csv") == rows

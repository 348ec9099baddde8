"""The shipped demo model: what its card says is so, and it forecasts what was recorded."""

import hashlib
import json
import re
from pathlib import Path

import pandas as pd
import pytest
import torch

from satjepa.config import load_params
from satjepa.evaluation.score import OURS
from satjepa.paths import SHIPPED_MODEL, root
from satjepa.pipeline import ship
from satjepa.training import checkpoint

FOLDER = root(Path(__file__).parent) / SHIPPED_MODEL
RECORD = {"samples": 8, "seed": 0, "images": ["x/a_2021.tif"], "truth": "x/b_2022.tif"}
RECORD |= {"mean": [0.1, 0.2, 0.3], "spread": [0.01] * 3, "psnr": 21.234, "psnr_persistence": 18.7}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def hashes(card: str) -> dict[str, str]:
    """What of the table of a card -> its sha256."""
    return dict(re.findall(r"^\| `?([^|`]+?)`? \| `([0-9a-f]{64})` \|$", card, re.M))


def test_the_card_names_the_files_that_lie_beside_it() -> None:
    named = hashes((FOLDER / "README.md").read_text())
    for name in (checkpoint.MODEL, checkpoint.STATE, ship.RECORD):
        assert named[name] == sha256(FOLDER / name), name
    header = checkpoint.read_header(FOLDER)
    assert named["split"] == header["split"]
    assert named["frozen weights of the backbone"] == header["backbone"]
    assert named[ship.RECIPE] == sha256(root() / ship.RECIPE)


def test_it_is_small_and_only_averaged_weights() -> None:
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    writer = files.pop(ship.WRITER)
    assert sum(files.values()) < 12_000_000 and writer < 2_500_000
    assert set(files) == {"README.md", ship.RECORD, checkpoint.MODEL, checkpoint.STATE}
    found = checkpoint.load(FOLDER)
    assert found.header["weights"] == checkpoint.AVERAGED
    assert {tensor.dtype for tensor in found.tensors.values()} == {torch.float32}
    assert not [name for name in found.tensors if name.startswith("target_encoder.")]


def test_it_forecasts_what_was_recorded() -> None:
    """On another machine to rounding, which the sampler's steps enlarge a little."""
    recorded = json.loads((FOLDER / ship.RECORD).read_text())
    measured = ship.forecast_example(FOLDER)
    assert measured.keys() == recorded.keys()
    for name in ("mean", "spread"):
        assert measured[name] == pytest.approx(recorded[name], abs=1e-3)
    assert measured["psnr"] == pytest.approx(recorded["psnr"], abs=0.02)
    assert measured["psnr_persistence"] == pytest.approx(recorded["psnr_persistence"], abs=1e-4)
    same = ("samples", "seed", "images", "truth")
    assert [measured[name] for name in same] == [recorded[name] for name in same]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that says it has the settings of params.yaml."""
    config = load_params(root() / "params.yaml").as_dict()
    header = {"config": config, "backbone": "b" * 64, "split": "5" * 64}
    header |= {"config_digest": "c" * 64, "code": "d" * 64}
    tensors = {"w": torch.zeros(7, 100), "average.w": torch.ones(7, 100)}
    checkpoint.save(tmp_path / "run/model", tensors, header, {"step": 77}, {})
    return tmp_path / "run"


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    rows = [
        {"model": f"{OURS}, mean of 8", "preset": "strong", "n": 64, "samples": 8, "psnr": 20.125,
         "psnr_changed": 17.875, "skill": 0.512, "crps": 0.0601, "spread_skill": 0.87},
        {"model": f"{OURS}, one sample", "preset": "strong", "n": 64, "samples": 1, "psnr": 18.5,
         "psnr_changed": 15.5, "skill": 0.25, "crps": 0.09, "spread_skill": None},
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "scores.csv", index=False)
    return tmp_path / "scores.csv"


@pytest.fixture
def shipped(run: Path, scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ship, "forecast_example", lambda folder: RECORD)
    return ship.ship(run, scores, tmp_path / "out")


def test_the_card_is_made_of_what_was_measured(shipped: Path) -> None:
    card = (shipped / "README.md").read_text()
    flat = " ".join(card.split())
    for text in (
        "700 trained numbers",
        "averaged weights after 77 steps",
        f"| {OURS}, mean of 8 | strong | 64 | 20.125 | 0.512 | 17.875 | 0.060 | 0.870 |",
        f"| {OURS}, one sample | strong | 64 | 18.500 | 0.250 | 15.500 | 0.090 |  |",
        "Of the example scene (`a_2021.tif`; 8 samples, seed 0): PSNR 21.23 dB",
        "the last image as the forecast 18.70 dB",
        "has 20.1 dB, where the land changed 17.9 dB",
        "Spread / error is 0.87 there (1 is right): the ensemble is too sure of itself.",
        "Trained on 24 regions of the preset `strong`, with 4 for validation; scored on 8 others.",
        "guidance: 1.25",
    ):
        assert text in (card if text.startswith("|") else flat), text
    assert hashes(card)[checkpoint.MODEL] == sha256(shipped / checkpoint.MODEL)
    assert "c" * 64 in card and "d" * 64 in card
    assert "{" not in card.split("## Settings")[0]  # nothing was left to fill in


def test_the_caption_writer_of_the_run_goes_with_it(
    run: Path, scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ship, "forecast_example", lambda folder: RECORD)
    (run / "writer.safetensors").write_bytes(b"words")
    out = ship.ship(run, scores, tmp_path / "with")
    assert (out / "writer.safetensors").read_bytes() == b"words"
    named = hashes((out / "README.md").read_text())
    assert named["writer.safetensors"] == sha256(out / "writer.safetensors")
    (run / "writer.safetensors").unlink()
    out = ship.ship(run, scores, tmp_path / "without")
    assert not (out / "writer.safetensors").exists()
    assert "writer.safetensors" not in (out / "README.md").read_text()


def test_equal_runs_and_scores_give_equal_bytes(
    shipped: Path, run: Path, scores: Path, tmp_path: Path
) -> None:
    again = ship.ship(run, scores, tmp_path / "again")
    for path in shipped.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    ("ratio", "text"), [(0.5, "too sure"), (0.95, "as wide as"), (1.3, "less sure")]
)
def test_the_spread_is_judged_by_its_number(ratio: float, text: str) -> None:
    assert text in ship._calibration(ratio)


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({}, False),
        ({"data.root": "/home/me/regions"}, True),
        ({"backbone.path": "stabilityai/stable-diffusion-3.5-medium"}, True),
    ],
)
def test_what_is_no_demo_does_not_take_its_place(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], left: bool
) -> None:
    params = load_params(root() / "params.yaml", **changes)
    shipped: list[tuple[str, ...]] = []
    monkeypatch.setattr(ship, "load_params", lambda: params)
    monkeypatch.setattr(ship, "ship", lambda *arguments: shipped.append(arguments))
    ship.main(["run", "scores.csv", "out"])
    assert shipped == ([] if left else [("run", "scores.csv", "out")])

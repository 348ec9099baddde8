"""From an arm of params.yaml to a scored forecaster, on a data set in memory."""

from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch

from satjepa.baselines import arms
from satjepa.baselines.arms import build_arm, load_arm, members, train_arm
from satjepa.baselines.persistence import Persistence
from satjepa.baselines.predrnn import PredRNN
from satjepa.baselines.trend import LinearTrend
from satjepa.config import Params, load_params
from satjepa.data.pairs import collate
from satjepa.data.splits import LeakError, Split
from satjepa.evaluation import score as scoring
from satjepa.evaluation.evaluate import evaluate_all
from satjepa.evaluation.score import score_baseline, untimed
from satjepa.training import checkpoint
from satjepa.training.checkpoint import CheckpointError

REPO = Path(__file__).resolve().parents[2]
SIDE = 16
SPLIT = Split("region", 0, ("Aldmere", "Birkenau"), ("Corvey",), ("Drostan",))
REGIONS = {"train": ["Aldmere", "Birkenau"], "val": ["Corvey"], "test": ["Drostan"]}
TINY = {
    "data.patch": SIDE, "baselines.train": {
        "steps": 4, "batch": 2, "lr": 1e-2, "schedule": "onecycle", "warmup": 0,
        "weight_decay": 0.0, "grad_clip": 0.0, "ema": 0.0, "val_every": 2, "val_patches": 2,
        "checkpoint_every": 4,
    },
    "baselines.arms": {
        "trend": {"kind": "trend", "model": {}, "train": {}, "sample": {}},
        "unet": {"kind": "unet", "model": {"width": 4, "levels": 2, "history": 1}, "train": {},
                 "sample": {}},
        "mcvd": {
            "kind": "mcvd", "model": {
                "width": 8, "mult": [1, 2], "blocks": 1, "attention": [8], "spade_dim": 0,
                "dropout": 0.0, "mask_embedding": False, "history": 0, "mask": 0.0,
            }, "train": {},
            "sample": {"sampler": "ddim", "steps": 2, "denoise": "none", "clip": True},
        },
    },
}  # fmt: skip


def tiny(**changes: object) -> Params:
    return load_params(
        REPO / "params.yaml",
        **TINY | {key.replace("__", "."): value for key, value in changes.items()},
    )


class Places:
    """Four patches of each region of a part, each with one earlier year."""

    def __init__(self, params: Params, part: str, preset: str | None = None, **asked: bool) -> None:
        self.metas = [
            {"preset": preset or "strong", "region": region, "year": 2020, "x": SIDE * i, "y": 0,
            "aug": 0} for region in REGIONS[part] for i in range(4)
        ]  # fmt: skip

    def __len__(self) -> int:
        return len(self.metas)

    def __getitem__(self, i: int) -> dict:
        g = torch.Generator().manual_seed(i)
        ok = torch.ones(1, SIDE, SIDE, dtype=torch.bool)
        images = {name: torch.rand(3, SIDE, SIDE, generator=g) for name in ("rgb_t", "rgb_tp1")}
        past = {
            "history": torch.rand(1, 3, SIDE, SIDE, generator=g),
            "history_valid": torch.tensor([True]),
        }
        unused = {"emb_tp1": torch.zeros(64, SIDE, SIDE), "emb_valid": ok & False}
        return images | past | unused | {"valid_t": ok, "valid_tp1": ok, "meta": self.metas[i]}


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data set of this file in place of the files of artifacts/, and scores without LPIPS."""

    def score(forecasters: dict, params: Params, preset: str, samples: dict, seed: int) -> list:
        data = Places(params, "test", preset)
        batch = collate([data[i] for i in range(len(data))])
        return evaluate_all(forecasters, [batch], samples=samples, seed=seed)

    monkeypatch.setattr(arms, "dataset", Places)
    monkeypatch.setattr(arms, "open_split", lambda: SPLIT)
    monkeypatch.setattr(scoring, "score", score)


@pytest.mark.parametrize("name", ["trend", "unet", "mcvd"])
def test_from_params_to_scores(tmp_path: Path, name: str):
    params = tiny()
    forecaster = load_arm(name, params, train_arm(name, params, tmp_path, progress=False))
    scores = score_baseline(name, forecaster, params, tmp_path / "scores.csv")
    count = members(name, params)
    assert count == (params.sample.samples if name == "mcvd" else 1)
    titles = [f"mcvd, mean of {count}", "mcvd, one sample"] if name == "mcvd" else [name]
    assert list(scores["model"]) == titles * 2 and set(scores["preset"]) == set(params.data.presets)
    assert (
        scores["psnr"].notna().all()
        and (scores["n"] == 4).all()
        and "seconds_per_patch" not in scores
    )
    assert (pd.read_csv(tmp_path / "timing.csv")["seconds_per_patch"] > 0).all()
    lines = len(pd.read_csv(tmp_path / "log.csv"))  # of what is not trained, an empty log
    assert (
        lines == (0 if name == "trend" else 2) and (tmp_path / "model/model.safetensors").is_file()
    )


def test_equal_runs_give_equal_bytes(tmp_path: Path):
    params = tiny()
    for run in ("a", "b"):
        folder = train_arm("mcvd", params, tmp_path / run, progress=False)
        score_baseline(
            "mcvd", load_arm("mcvd", params, folder), params, tmp_path / run / "scores.csv"
        )
    for file in ("scores.csv", "log.csv", "model/model.safetensors", "model/state.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_what_is_loaded_is_what_was_trained(tmp_path: Path):
    params = tiny()
    folder = train_arm("unet", params, tmp_path, progress=False)
    forecaster = load_arm("unet", params, folder)
    saved = checkpoint.load(folder).tensors
    assert saved["last.weight"].abs().max() > 0  # it is zero before training
    assert all(torch.equal(tensor, saved[name]) for name, tensor in forecaster.state_dict().items())
    assert not forecaster.training


def test_what_an_arm_is_trained_and_judged_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    params = tiny()
    given = []
    monkeypatch.setattr(arms, "fit", lambda *args: given.append(args))
    train_arm("unet", params, tmp_path)
    _, data, validation, settings, _, _, seed, *_ = given[0]
    assert {meta["region"] for meta in data.metas} == {"Aldmere", "Birkenau"}
    assert (settings.steps, seed) == (4, 0)
    (batch,) = validation
    assert [meta["x"] for meta in batch["meta"]] == [0, 2 * SIDE]  # 2 of 4, spread evenly
    assert validation[0]["meta"][0]["region"] == "Corvey" and "emb_tp1" not in validation[0]


def test_persistence_and_an_arm_are_scored_by_the_same_function():
    """SPEC 10.8. An untrained U-Net is persistence, so its row must be that of persistence."""
    params = tiny()
    unet = build_arm("unet", params)
    rows = scoring.score({"Default": Persistence(), "unet": unet}, params, "strong", {}, 0)
    first, second = (untimed(scores) | {"model": ""} for scores in rows)
    assert first == pytest.approx(second, nan_ok=True) and first["skill"] == pytest.approx(
        0, abs=1e-6
    )


def test_what_it_was_trained_on_is_never_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    params = tiny()
    forecaster = load_arm("unet", params, train_arm("unet", params, tmp_path, progress=False))
    seen = Places(params, "train")
    with pytest.raises(LeakError):
        evaluate_all({"unet": forecaster}, [collate([seen[0]])])
    monkeypatch.setattr(
        arms, "open_split", partial(Split, "region", 0, ("Drostan",), ("Corvey",), ("Aldmere",))
    )
    with pytest.raises(CheckpointError, match="split hash"):
        load_arm("unet", params, tmp_path / "model")


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path):
    folder = train_arm("unet", tiny(), tmp_path, progress=False)
    for change in ({"seed": 5}, {"data__stride": 16}):
        with pytest.raises(CheckpointError, match=r"(seed|data\.stride): \d+ in the checkpoint"):
            load_arm("unet", tiny(**change), folder)
    longer = tiny(**{"baselines.arms.unet.train": {"steps": 6}})
    with pytest.raises(CheckpointError, match=r"train\.steps: 4 in the checkpoint, 6 here"):
        load_arm("unet", longer, folder)


def test_every_arm_of_the_table_is_what_it_is_called():
    """But SD 3.5, whose backbone takes seconds to load: it has a test of its own below."""
    params = load_params(REPO / "params.table.yaml")
    built = {}
    for name, arm in params.baselines.arms.items():
        if not arm.kind.startswith("sd35"):
            built[name] = build_arm(name, params)
            assert type(built[name]).__name__.lower().removeprefix("linear") == arm.kind
    assert isinstance(built["trend"], LinearTrend) and isinstance(built["predrnn_v2"], PredRNN)
    assert (built["predrnn"].history, built["predrnn"].decouple) == (0, 0)
    assert (built["predrnn_v2"].history, built["predrnn_v2"].decouple) == (2, 0.1)


def test_equal_seeds_give_equal_weights_before_training():
    a, b, c = (build_arm("mcvd", tiny(seed=seed)).net.conv_in.weight for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_sd35_is_the_backbone_of_params_and_tunes_its_lora_alone():
    params = load_params(REPO / "params.table.yaml")
    tuned = params.baselines.arms["sd35_tuned"]
    model = build_arm("sd35_tuned", params)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    assert len(model.path) == 1 + round(tuned.sample.steps * tuned.sample.strength)
    assert model.timesteps == tuned.model.timesteps and not model.prompted
    header = arms.header_of("sd35_tuned", params, model)
    assert header["backbone"] and header["config"]["backbone"]["lora_rank"] == (
        params.backbone.lora_rank
    )
    sample = {"prompt": "a satellite image", "levels": "published", "steps": 1, "strength": 0.5}
    changes = {f"baselines.arms.sd35.sample.{key}": value for key, value in sample.items()}
    prompted = build_arm("sd35", load_params(REPO / "params.table.yaml", **changes))
    assert not [name for name, p in prompted.named_parameters() if p.requires_grad]
    assert prompted.prompted and prompted.path.tolist() == pytest.approx([0.5, 0])


def test_another_sampler_is_no_reason_to_train_anew(tmp_path: Path):
    """What draws from the weights is no part of what made them."""
    train_arm("mcvd", tiny(), tmp_path, progress=False)
    other = tiny(**{"baselines.arms.mcvd.sample.steps": 5, "sample.samples": 2})
    assert load_arm("mcvd", other, tmp_path / "model").steps == 5

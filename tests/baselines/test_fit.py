"""The baselines' loop on real, tiny baselines: exact resume, the best weights are kept, clean
stops, honest logs.
"""

import csv
import json
import math
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from satjepa.baselines import fit as module
from satjepa.baselines.fit import fit, make_header, trained_tensors, validation_loss
from satjepa.baselines.predrnn import PredRNN
from satjepa.baselines.simvp import SimVP
from satjepa.baselines.unet import UNet
from satjepa.config.baselines import Fit
from satjepa.data.pairs import collate
from satjepa.training import checkpoint, provenance
from satjepa.training.checkpoint import CheckpointError
from satjepa.training.run import Interrupted, NonFiniteError

SIDE = 16
SAMPLES = 7
HOW = Fit(
    steps=6, batch=2, lr=1e-2, schedule="onecycle", warmup=0, weight_decay=0.01, grad_clip=0.5,
    ema=0.0, val_every=3, val_patches=0, checkpoint_every=2,
)  # fmt: skip


def replace(settings: Fit, **changes: object) -> Fit:
    return Fit.model_validate(settings.model_dump() | changes)


WARM = replace(HOW, schedule="warmup", warmup=3, ema=0.9)


class Samples:
    """Places whose next year is year t moved by a pixel; `at`: number of a fetch -> what happens
    before it.
    """

    def __init__(self, first: int = 0, at: dict | None = None) -> None:
        self.first = first
        self.at = at or {}
        self.fetched = []

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, i: int) -> dict:
        self.at.get(len(self.fetched), lambda: None)()
        self.fetched.append(i)
        g = torch.Generator().manual_seed(self.first + i)
        ok = torch.ones(1, SIDE, SIDE, dtype=torch.bool)
        rgb = torch.rand(3, SIDE, SIDE, generator=g)
        meta = {"preset": "p", "region": f"R{i}", "year": 2020, "x": 0, "y": 0, "aug": 0}
        return {
            "rgb_t": rgb, "rgb_tp1": rgb.roll(1, 2), "valid_t": ok, "valid_tp1": ok, "meta": meta,
            "history": torch.rand(1, 3, SIDE, SIDE, generator=g),
            "history_valid": torch.tensor([i % 2 == 0]),
        }  # fmt: skip


def build(name: str) -> nn.Module:
    torch.manual_seed(1)
    if name == "simvp":  # statistics of batch norm, drop-path from the global generator
        return SimVP(8, 8, 2, 2, drop_path=0.5)
    if name == "predrnn":  # years hidden by the step's generator
        return PredRNN(SIDE, 8, 2, decouple=0.1, sampling="reverse", history=1)
    return UNet(4, 2)


def validation() -> list[dict]:
    held_out = Samples(100)
    return [collate([held_out[i] for i in range(3)])]


def run(
    name: str, folder: Path, how: Fit = HOW, data: Samples | None = None, seed: int = 0, **more
) -> nn.Module:
    model = build(name)
    header = make_header({"kind": name, "seed": seed, "train": how.model_dump()}, "s", "", model)
    fit(model, data or Samples(), validation(), how, folder, header, seed, progress=False, **more)
    return model


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "log.csv").read_text().splitlines()))


@pytest.mark.parametrize(("name", "how"), [("simvp", HOW), ("predrnn", HOW), ("unet", WARM)])
@pytest.mark.parametrize(
    "at", [2, 3]
)  # after this many steps: in the middle of a line of the log, and after one
def test_resume_is_exact(tmp_path: Path, name: str, how: Fit, at: int):
    run(name, tmp_path / "whole", how)
    data = Samples(at={2 * at - 1: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    with pytest.raises(Interrupted, match=f"SIGTERM.*after step {at} of 6"):
        run(name, tmp_path / "parts", how, data)
    assert not (tmp_path / "parts/model").exists()
    torch.rand(3)  # another process has other global random numbers
    model = run(name, tmp_path / "parts", how)
    for file in ("model/model.safetensors", "model/state.json", "log.csv"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes()
    assert sorted(p.name for p in (tmp_path / "parts").iterdir()) == [
        "log.csv",
        "model",
        "run.json",
        "speed.csv",
    ]
    kept = checkpoint.load(tmp_path / "parts/model").tensors
    assert kept.keys() == trained_tensors(model).keys() and not model.training
    assert all(torch.equal(tensor, kept[key]) for key, tensor in trained_tensors(model).items())


def test_a_time_limit_stops_cleanly(tmp_path: Path):
    with pytest.raises(Interrupted, match="time limit"):
        run("unet", tmp_path, max_seconds=0)
    assert checkpoint.load(tmp_path / "resume").state["step"] == 1
    assert json.loads((tmp_path / "run.json").read_text())["stop_reason"] == "stopped: time limit"
    run("unet", tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["stop_reason"] == "finished"


def test_the_weights_with_the_lowest_validation_loss_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    losses = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(module, "validation_loss", lambda *args: next(losses))
    run("unet", tmp_path / "a", replace(HOW, val_every=2))
    assert checkpoint.load(tmp_path / "a/model").state | {"sha256": 0} == {
        "step": 4,
        "val_loss": 1.0,
        "sha256": 0,
    }
    assert [float(row["val_loss"]) for row in rows_of(tmp_path / "a")] == [3.0, 1.0, 2.0]
    losses = iter([3.0, 2.0, 1.0])
    run("unet", tmp_path / "b", replace(HOW, val_every=2))
    first, last = (checkpoint.load(tmp_path / f"{name}/model").tensors for name in "ab")
    assert not torch.equal(first["last.weight"], last["last.weight"])


def test_the_best_weights_survive_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    losses = iter([1.0, 3.0, 2.0])
    monkeypatch.setattr(module, "validation_loss", lambda *args: next(losses))
    with pytest.raises(Interrupted):
        run(
            "unet",
            tmp_path / "a",
            how := replace(HOW, val_every=2),
            Samples(at={5: lambda: os.kill(os.getpid(), 15)}),
        )
    kept = checkpoint.load(tmp_path / "a/resume").tensors["kept/last.weight"]
    model = run("unet", tmp_path / "a", how)
    assert checkpoint.load(tmp_path / "a/model").state["step"] == 2 and torch.equal(
        model.last.weight, kept
    )


def test_the_log(tmp_path: Path):
    model = run("predrnn", tmp_path)
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == ["3", "6"]
    names = ["step", "lr", "loss", "mse", "mse_tp1", "decoupling", "grad_norm", "val_loss"]
    assert list(rows[0]) == names and all(
        math.isfinite(float(row[name])) for row in rows for name in names
    )
    best = min(rows, key=lambda row: float(row["val_loss"]))
    state = checkpoint.load(tmp_path / "model").state
    assert str(state["step"]) == best["step"] and f"{state['val_loss']:.6g}" == best["val_loss"]
    assert validation_loss(model, validation(), 0) == pytest.approx(state["val_loss"], rel=1e-5)


def test_validation_is_in_eval_mode_and_each_time_the_same():
    model = build("simvp")
    batches = validation()
    before = {name: tensor.clone() for name, tensor in trained_tensors(model).items()}
    assert validation_loss(model, batches, 0) == validation_loss(model, batches, 5)
    assert model.training and all(
        torch.equal(before[k], v) for k, v in trained_tensors(model).items()
    )
    samples = Samples(100)
    apart = [
        collate([samples[i] for i in group]) for group in ((0, 1), (2,))
    ]  # the same places in uneven batches
    assert validation_loss(model, apart, 0) == pytest.approx(
        validation_loss(model, batches, 0), rel=1e-5
    )


class Told(nn.Module):
    """A loss that tells what it was given; its gradient is 3 for its one trained weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.frozen = nn.BatchNorm1d(2).requires_grad_(False)
        self.register_buffer("counted", torch.zeros(1))
        self.seen: list[tuple] = []

    def loss(self, batch: dict, generator: torch.Generator, step: int) -> tuple[torch.Tensor, dict]:
        drawn = torch.rand(1, generator=generator).item(), torch.rand(1).item()
        self.seen.append((self.training, step, *drawn, self.weight.item()))
        return 3 * self.weight.sum(), {}


def told(tmp_path: Path, how: Fit) -> Told:
    model = Told()
    header = {"config": {"train": {}}, "code": "", "split": "s", "backbone": ""}
    fit(model.eval(), Samples(), validation(), how, tmp_path, header, 0, progress=False)
    return model


def test_the_interface_of_a_model(tmp_path: Path):
    model = told(tmp_path, replace(HOW, steps=4, val_every=2))
    assert [(training, step) for training, step, *_ in model.seen] == [
        (True, 0), (True, 1), (False, 1), (True, 2), (True, 3), (False, 3),
    ]  # fmt: skip
    draws = [(own, other) for _, _, own, other, _ in model.seen]
    assert (
        draws[2] == draws[5]
        and len({own for own, _ in draws} | {other for _, other in draws}) == 2 * 5
    )
    assert checkpoint.load(tmp_path / "model").tensors.keys() == {
        "weight",
        "counted",
    }  # nothing of what is frozen


def test_steps_follow_the_schedules_and_averages_are_judged(tmp_path: Path):
    """Adam's first steps are lr x sign of the gradient, here down."""
    model = told(tmp_path / "a", replace(WARM, steps=4, val_every=2, weight_decay=0.0, lr=0.3))
    weights = [weight for training, *_, weight in model.seen if training]
    assert weights == pytest.approx(
        [0, 0, -0.1, -0.3], abs=1e-6
    )  # rates 0, 0.1, 0.2, 0.3: warm-up starts at 0
    mean = 0.0
    after = [0, -0.1, -0.3, -0.6]
    for step, weight in enumerate(after):
        mean += (1 - min(0.9, (1 + step) / (10 + step))) * (weight - mean)
    assert model.seen[-1][-1] == pytest.approx(
        mean, abs=1e-6
    ) and model.weight.item() == pytest.approx(mean, abs=1e-6)
    assert [float(row["lr"]) for row in rows_of(tmp_path / "a")] == pytest.approx([0.1, 0.3])
    told(tmp_path / "b", replace(HOW, steps=10, val_every=1, lr=1e-3))
    rates = [float(row["lr"]) for row in rows_of(tmp_path / "b")]
    assert (
        rates[0] == pytest.approx(4e-5)
        and max(rates) == rates[2] == 1e-3
        and rates[-1] == pytest.approx(4e-9)
    )


def test_what_is_not_finite_stops_before_it_reaches_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Told, "loss", lambda self, *args: (self.weight.sum() * math.nan, {}))
    with pytest.raises(
        NonFiniteError, match=r"step 1: loss, grad_norm not finite; samples p/R\d/2020/0/0, "
    ):
        told(tmp_path, HOW)
    assert not (tmp_path / "resume").exists()
    assert (
        json.loads((tmp_path / "run.json").read_text())["stop_reason"]
        == "not finite: loss, grad_norm"
    )


def test_a_validation_that_is_not_finite_stops_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "validation_loss", lambda *args: math.nan)
    with pytest.raises(NonFiniteError, match="step 3: val_loss not finite"):
        run("unet", tmp_path)


def test_an_unfinished_run_goes_on_with_the_same_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    with pytest.raises(Interrupted):
        run("unet", tmp_path, max_seconds=0)
    fewer = Samples()
    monkeypatch.setattr(Samples, "__len__", lambda self: 5)
    with pytest.raises(CheckpointError, match="was trained on 7 samples, there are 5 now"):
        run("unet", tmp_path, data=fewer)
    monkeypatch.undo()
    assert "note:" not in capsys.readouterr().out
    monkeypatch.setattr(provenance, "code_digest", lambda modules: "other")
    run("unet", tmp_path)
    assert "note: the code of model or training has changed" in capsys.readouterr().out


def test_a_finished_run_is_taken_as_it_is_and_another_is_not_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    first = run("unet", tmp_path)
    data = Samples()
    again = run("unet", tmp_path, data=data)
    assert (
        data.fetched == [] and "nothing to train" in capsys.readouterr().out and not again.training
    )
    assert torch.equal(first.last.weight, again.last.weight)
    run("unet", tmp_path, data=data, seed=1)  # other settings: trained anew
    assert len(data.fetched) == 12
    with pytest.raises(Interrupted):
        run("unet", tmp_path / "b", max_seconds=0)
    with pytest.raises(CheckpointError, match=r"seed: 0 in the checkpoint, 1 here"):
        run("unet", tmp_path / "b", seed=1)


def test_equal_seeds_give_equal_weights_and_others_do_not(tmp_path: Path):
    a, b, c = (run("unet", tmp_path / str(i), seed=seed) for i, seed in enumerate((0, 0, 1)))
    assert torch.equal(a.last.weight, b.last.weight) and not torch.equal(
        a.last.weight, c.last.weight
    )


def test_weights_of_another_model_are_refused():
    with pytest.raises(CheckpointError, match="weights of another model"):
        module.load_trained(build("unet"), trained_tensors(build("simvp")))

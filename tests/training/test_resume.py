"""Runs that stop and go on: exact resume, clean stops, and what is no checkpoint to go on from."""

import json
import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import SAMPLES, Samples, build, sample, tiny

from satjepa.config import Params
from satjepa.models.backbone import Backbone
from satjepa.training import checkpoint, provenance
from satjepa.training.checkpoint import CheckpointError
from satjepa.training.loop import train
from satjepa.training.run import Interrupted, NonFiniteError


def same_bytes(a: Path, b: Path) -> bool:
    return a.read_bytes() == b.read_bytes()


def interrupted() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def terminated() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def stopped_here() -> None:
    raise RuntimeError("the machine is gone")


@pytest.mark.parametrize(
    ("death", "raises", "at"),
    [
        (interrupted, Interrupted, 3),  # in the middle of a line of the log
        (terminated, Interrupted, 2),
        (stopped_here, RuntimeError, 2),  # nothing is saved on the way out: back to step 2
    ],
)
def test_resume_is_exact(
    backbone: Backbone, whole: tuple, tmp_path: Path, death, raises: type, at: int
) -> None:
    data = Samples(at={2 * at: death})
    with pytest.raises(raises):
        train(build(backbone, tiny()), data, tiny(), tmp_path, progress=False, split="s")
    # Another process has other global random numbers.
    torch.rand(3)
    random.random()
    np.random.rand()
    step = checkpoint.load(tmp_path / "resume").state["step"]
    assert step == at + (raises is Interrupted)  # the step in hand was ended
    assert not (tmp_path / "model").exists()
    model = build(backbone, tiny())
    data = Samples()
    # Whatever it starts from, the checkpoint counts.
    torch.nn.init.normal_(next(model.encoder.parameters()))
    folder = train(model, data, tiny(), tmp_path, progress=False, split="s")
    assert folder == tmp_path / "model" and data.fetched == whole[2].fetched[2 * step :]
    for name in ("model/model.safetensors", "model/state.json", "log.csv"):
        assert same_bytes(tmp_path / name, whole[0] / name), name
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["log.csv", "model", "run.json", "speed.csv"]


def test_workers_change_no_byte(backbone: Backbone, tmp_path: Path) -> None:
    items = [sample(i) for i in range(SAMPLES)]
    for workers in (0, 1):
        params = tiny(train__workers=workers)
        run = tmp_path / str(workers)
        train(build(backbone, params), items, params, run, progress=False, split="s")
    for name in ("model/model.safetensors", "model/state.json", "log.csv"):
        assert same_bytes(tmp_path / "0" / name, tmp_path / "1" / name), name


def test_a_finished_run_is_taken_as_it_is(
    backbone: Backbone, whole: tuple, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(backbone, tiny())
    data = Samples()
    assert train(model, data, tiny(sample__steps=7), whole[0], split="s") == whole[0] / "model"
    printed = capsys.readouterr().out
    assert data.fetched == []
    assert "nothing to train" in printed and "note:" not in printed
    trained = dict(whole[1].named_parameters())
    assert all(torch.equal(p, trained[name]) for name, p in model.named_parameters())
    monkeypatch.setattr(provenance, "code_digest", lambda: "other")
    train(model, data, tiny(), whole[0], split="s")
    assert "note: the code of model or training has changed" in capsys.readouterr().out


def test_a_time_limit_saves_and_says_so(backbone: Backbone, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    model = build(backbone, tiny())
    with pytest.raises(Interrupted, match=r"stopped \(time limit\) after step 1 of 6, saved"):
        train(model, Samples(), tiny(), tmp_path, progress=False, split="", max_seconds=0)
    assert json.loads((tmp_path / "run.json").read_text())["stop_reason"] == "stopped: time limit"
    sampler = checkpoint.load(tmp_path / "resume").state["sampler"]
    assert sampler == {"epoch": 0, "position": 2, "samples": 7}
    assert signal.getsignal(signal.SIGINT) is handler  # as it was before


def test_what_is_missing_foreign_or_finished_is_no_start(
    backbone: Backbone, whole: tuple, tmp_path: Path
) -> None:
    def run(resume: object, params: Params, data: Samples | None = None, **more: object) -> None:
        model = build(backbone, params)
        more = {"split": ""} | more
        train(model, data or Samples(), params, tmp_path, resume, progress=False, **more)

    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nowhere"):
        run(tmp_path / "nowhere", tiny())
    with pytest.raises(CheckpointError, match="end of a run: nothing is left"):
        run(whole[0] / "model", tiny(), split="s")
    with pytest.raises(Interrupted):
        run("auto", tiny(), max_seconds=0)
    other = tiny(train__lr=1e-2, sample__steps=9, eval__batch=1)
    with pytest.raises(CheckpointError, match="made by another run") as error:
        run("auto", other, split="t")
    lines = str(error.value).splitlines()[1:]
    assert lines == [
        "  train.lr: 0.0015 in the checkpoint, 0.01 here",
        "  split hash:  in the checkpoint, t here",
        "Restore these settings to go on with it; remove it, or do not resume, to begin anew.",
    ]
    with pytest.raises(CheckpointError, match="trained on 7 samples, there are 3 now"):
        run("auto", tiny(), Samples(3))
    data = Samples(3)
    with pytest.raises(Interrupted):
        run("no", tiny(), data, max_seconds=0)  # begins anew, over it
    assert len(data.fetched) == 2


def test_a_loss_that_is_not_finite_stops_before_the_weights(
    backbone: Backbone, tmp_path: Path
) -> None:
    data = Samples()
    model = build(backbone, tiny())

    def poison() -> None:
        for item in data.items:
            item["latent_tp1"] = torch.full((16, 4, 4), torch.nan)

    data.at = {2 * 3: poison}  # step 4
    with pytest.raises(NonFiniteError) as error:
        train(model, data, tiny(), tmp_path, progress=False, split="")
    message = str(error.value)
    assert message.startswith("step 4: ")
    assert "flow.mse" in message and str(tmp_path / "resume") in message
    for index in data.fetched[-2:]:
        assert f"p/R{index}/2020/0/0" in message
    assert all(p.isfinite().all() for p in model.parameters())
    assert "not finite: " in json.loads((tmp_path / "run.json").read_text())["stop_reason"]
    assert checkpoint.load(tmp_path / "resume").state["step"] == 2

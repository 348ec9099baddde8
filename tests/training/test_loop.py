"""The joint loop on the real model at tiny size: exact resume, frozen stays frozen, clean stops,
honest logs.
"""

import copy
import csv
import json
import math
import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from satjepa.config import Params, load_params
from satjepa.models.backbone import Backbone
from satjepa.models.satjepa import SatJepa
from satjepa.training import checkpoint, provenance
from satjepa.training.checkpoint import CheckpointError
from satjepa.training.loop import Plan, train
from satjepa.training.run import Interrupted, NonFiniteError
from satjepa.training.state import position

SIDE = 32  # 4x4 locations, latents 16x4x4
LENGTH = 5
TEXT = 128
SAMPLES = 7
SMALL = {"dim": 16, "depth": 1, "heads": 2}
TINY = {
    "data.patch": SIDE, "data.history": 1, "model.encoder": SMALL | {"patch": 8},
    "model.predictor": SMALL, "model.forecaster": {"dim": 16, "layers": 1, "heads": 2},
    "model.adapter": {"dim": 16, "layers": 1, "heads": 2}, "train.steps": 6,
    "train.jepa_share": 0.5, "train.batch": 2, "train.log_every": 2, "train.checkpoint_every": 2,
    "train.precision": "no", "sample.steps": 2, "baselines": {},
}  # fmt: skip


def tiny(**changes: object) -> Params:
    path = Path(__file__).resolve().parents[2] / "params.yaml"
    return load_params(
        path, **TINY | {key.replace("__", "."): value for key, value in changes.items()}
    )


class Samples:
    """A dataset in memory that uses the global random generators; `at`: number of a fetch -> what
    happens before it.
    """

    def __init__(self, count: int = SAMPLES, at: dict | None = None) -> None:
        self.items = [sample(i) for i in range(count)]
        self.at = at or {}
        self.fetched = []

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict:
        self.at.get(len(self.fetched), lambda: None)()
        self.fetched.append(index)
        haze = (torch.rand(1).item() + random.random() + np.random.rand()) / 30
        return self.items[index] | {"rgb_t": self.items[index]["rgb_t"] + haze}


def sample(i: int) -> dict:
    g = torch.Generator().manual_seed(i)

    def text() -> dict:
        mask = torch.arange(LENGTH) < torch.tensor([[2], [3], [5]])
        hidden = torch.randn(3, LENGTH, TEXT, generator=g) * mask[..., None]
        return {"hidden": hidden, "mask": mask, "pooled": torch.randn(3, 128, generator=g)}

    emb = torch.nn.functional.normalize(torch.randn(64, SIDE, SIDE, generator=g), dim=0)
    ok = torch.ones(1, SIDE, SIDE, dtype=torch.bool)
    return {
        "rgb_t": torch.rand(3, SIDE, SIDE, generator=g), "rgb_tp1": torch.rand(3, SIDE, SIDE,
        generator=g), "valid_t": ok, "valid_tp1": ok, "emb_tp1": emb, "emb_valid": ok,
        "history": torch.rand(1, 3, SIDE, SIDE, generator=g),
        "history_valid": torch.tensor([i % 2 == 0]), "text_t": text(), "text_tp1": text(),
        "latent_tp1": torch.randn(16, 4, 4, generator=g), "meta": {"preset": "p", "region": f"R{i}",
        "year": 2020, "x": 0, "y": 0, "aug": 0},
    }  # fmt: skip


def make_backbone() -> Backbone:
    from satjepa.demo.tiny_sd3 import build_transformer, build_vae

    torch.manual_seed(0)
    transformer = build_transformer(layers=1, heads=2, head_dim=16, side=4)
    torch.nn.init.normal_(
        transformer.proj_out.weight, std=0.1
    )  # diffusers starts it at zero: no gradient passes
    return Backbone(transformer, build_vae((8, 8, 8, 8), SIDE)).add_lora(2, 2, ["to_q", "to_v"])


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone()


def build(backbone: Backbone, params: Params) -> SatJepa:
    torch.manual_seed(1)
    empty = {
        "hidden": torch.randn(LENGTH, TEXT),
        "mask": torch.arange(LENGTH) < 1,
        "pooled": torch.randn(128),
    }
    return SatJepa(params, copy.deepcopy(backbone), empty)


def rows_of(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "log.csv").read_text().splitlines()))


def same_bytes(a: Path, b: Path) -> bool:
    return a.read_bytes() == b.read_bytes()


@pytest.fixture(scope="module")
def whole(
    backbone: Backbone, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, SatJepa, Samples]:
    """Six steps in one go: its run folder, model, dataset."""
    run = tmp_path_factory.mktemp("whole")
    model = build(backbone, tiny())
    data = Samples()
    train(model, data, tiny(), run, progress=False, split="s")
    return run, model, data


def stopped_here() -> None:
    raise RuntimeError("the machine is gone")


@pytest.mark.parametrize(
    ("death", "raises", "at"),
    [
        (
            lambda: os.kill(os.getpid(), signal.SIGINT),
            Interrupted,
            3,
        ),  # in the middle of a line of the log
        (lambda: os.kill(os.getpid(), signal.SIGTERM), Interrupted, 2),
        (stopped_here, RuntimeError, 2),  # nothing is saved on the way out: back to step 2
    ],
)
def test_resume_is_exact(
    backbone: Backbone, whole: tuple, tmp_path: Path, death, raises: type, at: int
) -> None:
    with pytest.raises(raises):
        train(
            build(backbone, tiny()),
            Samples(at={2 * at: death}),
            tiny(),
            tmp_path,
            progress=False,
            split="s",
        )
    (
        torch.rand(3),
        random.random(),
        np.random.rand(),
    )  # another process has other global random numbers
    step = checkpoint.load(tmp_path / "resume").state["step"]
    assert step == at + (raises is Interrupted)  # the step in hand was ended
    assert not (tmp_path / "model").exists()
    model = build(backbone, tiny())
    data = Samples()
    torch.nn.init.normal_(
        next(model.encoder.parameters())
    )  # whatever it starts from, the checkpoint counts
    folder = train(model, data, tiny(), tmp_path, progress=False, split="s")
    assert folder == tmp_path / "model" and data.fetched == whole[2].fetched[2 * step :]
    for name in ("model/model.safetensors", "model/state.json", "log.csv"):
        assert same_bytes(tmp_path / name, whole[0] / name), name
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "log.csv",
        "model",
        "run.json",
        "speed.csv",
    ]


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
    assert (
        data.fetched == []
        and "nothing to train" in (said := capsys.readouterr().out)
        and "note:" not in said
    )
    trained = dict(whole[1].named_parameters())
    assert all(torch.equal(p, trained[name]) for name, p in model.named_parameters())
    monkeypatch.setattr(provenance, "code_digest", lambda: "other")
    train(model, data, tiny(), whole[0], split="s")
    assert "note: the code of model or training has changed" in capsys.readouterr().out


def test_only_what_should_train_trains(backbone: Backbone, whole: tuple) -> None:
    start, (run, model, _) = build(backbone, tiny()), whole
    assert provenance.hash_module(model.backbone, True) == provenance.hash_module(
        start.backbone, True
    )
    before = dict(start.named_parameters())
    after = dict(model.named_parameters())
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    trained = set(model.trainable_names())
    assert changed <= trained | {n for n in after if n.startswith("target_encoder.")}
    assert any("lora_B" in n for n in changed) and any(n.startswith("adapter.") for n in changed)
    assert any(n.startswith("target_encoder.") for n in changed) and len(changed) > 0.8 * len(
        trained
    )
    found = checkpoint.load(run / "model", with_optimizer=True)
    assert not any(n.startswith("backbone.vae") for n in found.tensors) and found.optimizer == {}
    assert (
        found.header["backbone"] == provenance.hash_module(start.backbone, True)
        and found.header["split"] == "s"
    )
    assert (
        found.header["config"]["train"]["lr"] == tiny().train.lr and len(found.header["code"]) == 64
    )
    assert not model.training


def test_i_jepa_trains_alone_first(backbone: Backbone, tmp_path: Path) -> None:
    """In the first steps, and only where there is an I-JEPA, nothing but it moves, and the backbone
    is not asked.
    """
    model = build(backbone, tiny())
    start = build(backbone, tiny())
    with pytest.raises(Interrupted):
        model.backbone.forward = lambda *args: pytest.fail("the backbone was asked")
        train(model, Samples(), tiny(), tmp_path / "a", progress=False, split="", max_seconds=0)
    before = dict(start.named_parameters())
    moved = {
        name.split(".")[0]
        for name, p in model.named_parameters()
        if not torch.equal(p, before[name])
    }
    assert moved == {"encoder", "target_encoder", "predictor", "projection", "readout", "past"}
    blind = tiny(model__use_jepa=False)
    with pytest.raises(Interrupted):
        train(
            build(backbone, blind),
            Samples(),
            blind,
            tmp_path / "b",
            progress=False,
            split="",
            max_seconds=0,
        )
    sums = checkpoint.load(tmp_path / "b/resume").state["log"]["sums"]
    assert "flow.mse" in sums and "ijepa.l1" not in sums


def test_the_last_step_is_joint_whatever_the_share(backbone: Backbone, tmp_path: Path) -> None:
    params = tiny(train__jepa_share=1.0, train__steps=2, train__log_every=1)
    train(build(backbone, params), Samples(), params, tmp_path, progress=False, split="")
    assert [bool(row["flow.mse"]) for row in rows_of(tmp_path)] == [False, True]


def test_averages_and_momentum_follow_their_schedules(backbone: Backbone, tmp_path: Path) -> None:
    params = tiny(train__steps=4, train__weight_ema=0.3, train__target_ema=[0.9, 1.0])
    model = build(backbone, params)
    momenta = []
    values = []
    update = model.update_target
    average = model.average_weights

    def watched(momentum: float) -> None:
        values.append(model.adapter.stream.detach().clone())
        average(momentum)

    model.update_target = lambda momentum: (momenta.append(momentum), update(momentum))
    model.average_weights = watched
    train(model, Samples(), params, tmp_path, progress=False, split="")
    assert momenta == pytest.approx([0.9, 0.925, 0.95, 0.975])
    expected = values[0]
    for step, value in enumerate(values):
        expected = torch.lerp(expected, value, 1 - min(0.3, (1 + step) / (10 + step)))
    got = checkpoint.load(tmp_path / "model").tensors["average.adapter.stream"]
    torch.testing.assert_close(got, expected)
    assert not torch.equal(got, values[-1])


def test_log_has_every_part_and_run_json_says_why(whole: tuple) -> None:
    run = whole[0]
    rows = rows_of(run)
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    for name in ("loss", "ijepa.l1", "ijepa.contrastive", "readout.mse", "grad_norm"):
        assert all(math.isfinite(float(row[name])) for row in rows), name
    for name in ("flow.mse", "caption.mse"):  # the first three steps are of I-JEPA alone
        assert rows[0][name] == "" and all(math.isfinite(float(row[name])) for row in rows[1:]), (
            name
        )
    lr = tiny().train.lr
    warm = 0.1 * 6
    expected = [lr / 2 * (1 + math.cos(math.pi * (s - warm) / (7 - warm))) for s in (2, 4, 6)]
    assert [float(row["lr"]) for row in rows] == pytest.approx(expected, rel=1e-5)
    assert {f"flow.s{i}" for i in range(10)} <= rows[0].keys()
    speed = [line.split(",") for line in (run / "speed.csv").read_text().splitlines()]
    assert [line[0] for line in speed] == ["2", "4", "6"] and all(
        float(line[2]) > 0 for line in speed
    )
    told = json.loads((run / "run.json").read_text())
    assert (
        told["stop_reason"] == "finished"
        and told["step"] == told["steps"] == 6
        and told["seconds"] > 0
    )
    assert (
        told["samples"] == SAMPLES and told["device"] == "cpu" and told["trained_parameters"] > 1000
    )


def test_flow_loss_is_binned_by_noise_level(tmp_path: Path) -> None:
    from satjepa.training.log import Report

    report = Report(tmp_path, tiny().train, False, {})
    with report.open(0):
        report.add(1, 0.1, {"loss": 1.0}, [0.05, 0.97], [2.0, 8.0])
        report.add(2, 0.1, {"loss": 3.0}, [0.09, 1.0], [4.0, 6.0])
    (row,) = rows_of(tmp_path)
    assert (row["loss"], row["flow.s0"], row["flow.s5"], row["flow.s9"]) == ("2", "3", "", "7")


def test_a_reader_without_a_terminal_gets_few_lines(
    backbone: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    train(
        build(backbone, tiny(train__steps=2)), Samples(), tiny(train__steps=2), tmp_path, split=""
    )
    out = capsys.readouterr()
    (line,) = out.out.splitlines()
    assert (
        line.startswith("step      2/2  loss ")
        and "images/s" in line
        and "0:00 to go" in line
        and out.err == ""
    )


def test_a_time_limit_saves_and_says_so(backbone: Backbone, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=r"stopped \(time limit\) after step 1 of 6, saved"):
        train(
            build(backbone, tiny()),
            Samples(),
            tiny(),
            tmp_path,
            progress=False,
            split="",
            max_seconds=0,
        )
    assert json.loads((tmp_path / "run.json").read_text())["stop_reason"] == "stopped: time limit"
    assert checkpoint.load(tmp_path / "resume").state["sampler"] == {
        "epoch": 0,
        "position": 2,
        "samples": 7,
    }
    assert signal.getsignal(signal.SIGINT) is handler  # as it was before


def test_what_is_missing_foreign_or_finished_is_no_start(
    backbone: Backbone, whole: tuple, tmp_path: Path
) -> None:
    def run(resume: object, params: Params, data: Samples | None = None, **more: object) -> None:
        train(
            build(backbone, params),
            data or Samples(),
            params,
            tmp_path,
            resume,
            False,
            **{"split": ""} | more,
        )

    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nowhere"):
        run(tmp_path / "nowhere", tiny())
    with pytest.raises(CheckpointError, match="end of a run: nothing is left"):
        run(whole[0] / "model", tiny(), split="s")
    with pytest.raises(Interrupted):
        run("auto", tiny(), max_seconds=0)
    other = tiny(train__lr=1e-2, sample__steps=9, eval__batch=1, ablate__steps=7)
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
    assert (
        message.startswith("step 4: ")
        and "flow.mse" in message
        and str(tmp_path / "resume") in message
    )
    for index in data.fetched[-2:]:
        assert f"p/R{index}/2020/0/0" in message
    assert all(p.isfinite().all() for p in model.parameters())
    assert "not finite: " in json.loads((tmp_path / "run.json").read_text())["stop_reason"]
    assert checkpoint.load(tmp_path / "resume").state["step"] == 2


def test_every_epoch_shows_each_sample_once_whatever_the_number_of_processes() -> None:
    how = tiny(train__batch=4).train
    alone = Plan(10, (2, 3, 3), how, seed=5)
    stream = [i for step in range(5) for i in alone.indices(step)]
    assert (
        sorted(stream[:10]) == sorted(stream[10:]) == list(range(10)) and stream[:10] != stream[10:]
    )
    assert Plan(10, (2, 3, 3), how, seed=6).indices(0) != alone.indices(0)
    assert position(3, 4, 10) == {"epoch": 1, "position": 2, "samples": 10}
    pair = [Plan(10, (2, 3, 3), how, 5, rank, 2) for rank in range(2)]
    noise, sigma, drops = alone.draw(3)
    assert noise.shape == (4, 2, 3, 3) and sigma.shape == (4,) and drops.text.shape == (4,)
    for rank, plan in enumerate(pair):
        assert plan.indices(2) == alone.indices(2)[rank::2]
        share = plan.draw(3)
        assert torch.equal(share[0], noise[rank::2]) and torch.equal(share[1], sigma[rank::2])
        assert torch.equal(share[2].tokens, drops.tokens[rank::2])
    assert not torch.equal(alone.draw(4)[0], noise)
    often = Plan(10, (1, 1, 1), tiny(train__batch=4000, train__caption_dropout=0.3).train, 0).draw(
        0
    )
    assert often[2].text.float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert often[1].logit().mean().item() == pytest.approx(how.timestep_mean, abs=0.06)


def test_bf16_is_close_to_float32(backbone: Backbone, tmp_path: Path) -> None:
    from accelerate.state import AcceleratorState

    for precision in ("bf16", "no"):
        AcceleratorState._reset_state(True)  # one precision a process, says accelerate
        params = tiny(train__precision=precision, train__steps=2)
        model = build(backbone, params)
        train(model, Samples(), params, tmp_path / precision, progress=False, split="")
        assert model.forward.__func__ is SatJepa.forward  # accelerate's autocast is taken off again
    (row,), (exact,) = rows_of(tmp_path / "bf16"), rows_of(tmp_path / "no")
    assert row["loss"] != exact["loss"] and float(row["loss"]) == pytest.approx(
        float(exact["loss"]), rel=0.02
    )
    assert all(p.dtype == torch.float32 for p in model.parameters())

"""The joint loop on the real model at tiny size: what trains and what stays frozen, honest logs."""

import json
import math
from pathlib import Path

import pytest
import torch
from tiny_run import SAMPLES, Samples, build, rows_of, tiny

from satjepa.models.backbone import Backbone
from satjepa.models.satjepa import SatJepa
from satjepa.training import checkpoint, provenance
from satjepa.training.loop import Plan, train
from satjepa.training.run import Interrupted
from satjepa.training.state import position


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

    for precision in ("bf16", "float32"):
        AcceleratorState._reset_state(True)  # one precision a process, says accelerate
        params = tiny(train__precision=precision, train__steps=2)
        model = build(backbone, params)
        train(model, Samples(), params, tmp_path / precision, progress=False, split="")
        assert model.forward.__func__ is SatJepa.forward  # accelerate's autocast is taken off again
    (row,), (exact,) = rows_of(tmp_path / "bf16"), rows_of(tmp_path / "float32")
    assert row["loss"] != exact["loss"] and float(row["loss"]) == pytest.approx(
        float(exact["loss"]), rel=0.02
    )
    assert all(p.dtype == torch.float32 for p in model.parameters())

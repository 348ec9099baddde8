"""The reader's lesson: who learns in it, what from, and that a stopped one leaves no trace."""

import csv
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_run import SAMPLES, Samples, build, sample, tiny

from satjepa.config import Params
from satjepa.config.errors import ConfigError
from satjepa.data.pairs import collate
from satjepa.models.backbone import Backbone
from satjepa.models.caption_tensors import fitted
from satjepa.models.objectives import Told
from satjepa.models.satjepa import SatJepa
from satjepa.training import checkpoint, lesson
from satjepa.training.environment import make_accelerator
from satjepa.training.kept import keep
from satjepa.training.lesson import teach
from satjepa.training.loop import train
from satjepa.training.run import Interrupted, NonFiniteError

LESSON = {"windows": 6, "steps": 4, "batch": 3}
ITEMS = [sample(i) for i in range(SAMPLES)]


def with_lesson(**changes: object) -> Params:
    return tiny(train__lesson=LESSON | changes)


def learn(
    model: SatJepa, params: Params, seed: int = 0, until: int = 9999
) -> list[dict[str, float]] | None:
    accelerator = make_accelerator("float32", [])
    return teach(model, ITEMS, params.train, seed, accelerator, lambda step: step >= until)


def weights(model: SatJepa) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_the_reader_learns_and_nothing_else(backbone: Backbone) -> None:
    params = with_lesson()
    model = build(backbone, params)
    model.average_weights(0.9)
    before = weights(model)
    lines = learn(model, params)
    moved = {name for name, p in weights(model).items() if not torch.equal(p, before[name])}
    assert {name.split(".")[0] for name in moved} == {"reader"}
    assert [line["step"] for line in lines] == [2, 4]
    assert lines[1]["layout.mse"] < lines[0]["layout.mse"]
    averages = model.state()
    for name in moved:
        assert torch.equal(averages[f"average.{name}"], weights(model)[name]), name
    assert not any(p.grad is not None for p in model.parameters())


def test_two_lessons_are_equal_to_the_bit_and_another_seed_is_another(backbone: Backbone) -> None:
    params = with_lesson()
    models = [build(backbone, params) for _ in range(3)]
    lines = [learn(model, params, seed) for model, seed in zip(models, (0, 0, 1), strict=True)]
    assert lines[0] == lines[1] != lines[2]
    one, other, _ = (weights(model) for model in models)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("until", [0, 3])
def test_a_lesson_that_is_stopped_has_changed_nothing(backbone: Backbone, until: int) -> None:
    params = with_lesson()
    model = build(backbone, params)
    before = weights(model)
    assert learn(model, params, until=until) is None
    after = weights(model)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_windows_are_spread_evenly(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def noting(dataset: Any, chosen: list[int], *rest: Any) -> Any:
        asked.append(chosen)
        return keep(dataset, chosen, *rest)

    monkeypatch.setattr(lesson, "keep", noting)
    for windows in (4, 99):
        params = with_lesson(windows=windows)
        learn(build(backbone, params), params)
    assert asked == [[0, 1, 3, 5], list(range(SAMPLES))]


def test_a_lesson_may_be_stopped_before_its_first_step(backbone: Backbone) -> None:
    """While the tokens of its windows are made."""
    params = with_lesson(windows=6)
    model = build(backbone, params)
    made = []
    told = model.told
    model.told = lambda batch: made.append(1) or told(batch)
    assert learn(model, params, until=0) is None and not made


def test_what_is_kept_is_what_the_model_makes_of_the_windows(backbone: Backbone) -> None:
    model = build(backbone, with_lesson())
    chosen = [0, 1, 3, 5]
    kept = keep(ITEMS, chosen, model.told, model.device)
    with torch.no_grad():
        fresh = model.told(collate([ITEMS[i] for i in chosen]))
    assert kept.tokens.dtype == torch.float16 and kept.caption["mask"].dtype == torch.bool
    assert torch.equal(kept.caption["mask"], fresh.caption["mask"])
    close = {"atol": 2e-3, "rtol": 1e-3}
    for name in ("tokens", "vectors", "weight"):
        torch.testing.assert_close(getattr(kept, name).float(), getattr(fresh, name), **close)
    words = kept.caption["hidden"].float()
    torch.testing.assert_close(words, fresh.caption["hidden"], **close)
    after = model.semantic(collate([ITEMS[3]])["text_tp1"])["hidden"][0]
    torch.testing.assert_close(words[2], after, **close)


def test_it_learns_to_hear_what_the_caption_alone_says(backbone: Backbone) -> None:
    """Layouts that only the caption of t+1 tells apart: told it, the reader finds them, told
    another's, it goes wrong, and with silence it says their mean.
    """
    params = with_lesson(steps=300, batch=16)
    torch.manual_seed(0)
    model = build(backbone, params)
    kinds = torch.randint(2, (64,))
    hidden = torch.randn(2, 3, 128)[kinds]  # of two captions
    layouts = torch.nn.functional.layer_norm(torch.randn(2, 1, 1, 64), (64,))[kinds]
    mask = torch.ones(64, 3, dtype=torch.bool)
    caption = fitted({"hidden": hidden, "mask": mask, "pooled": torch.zeros(64, 128)}, 5)
    vectors = layouts.expand(-1, 16, 1, -1)
    data = Told(torch.randn(64, 16, 16), caption, vectors, torch.ones(64, 16, 1))
    model.told = lambda batch: data  # in place of what it would make of the windows
    learn(model, params)
    nobody = torch.zeros(64, dtype=torch.bool)
    with torch.no_grad():
        true = model.lesson_loss(data, nobody)
        none = model.lesson_loss(data, ~nobody)
        turned = {name: value.flip(0) for name, value in caption.items()}
        other = model.lesson_loss(data._replace(caption=turned), nobody)
    assert true < 0.5 * none and other > none


def test_a_run_gives_it_between_i_jepa_and_the_joint_steps(
    backbone: Backbone, tmp_path: Path
) -> None:
    params = with_lesson()
    whole = tmp_path / "whole"
    train(build(backbone, params), Samples(), params, whole, progress=False, split="s")
    rows = list(csv.DictReader((whole / "lesson.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["2", "4"] and float(rows[0]["layout.mse"]) > 0
    # stopped in the lesson, it goes on as if that had never begun
    parts = tmp_path / "parts"
    read_before = 2 * 3 + LESSON["windows"]  # by three steps of two samples, and by the lesson
    data = Samples(at={read_before - 1: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    with pytest.raises(Interrupted, match="after step 3 of 6"):
        train(build(backbone, params), data, params, parts, progress=False, split="s")
    assert checkpoint.load(parts / "resume").state["step"] == 3
    assert not (parts / "lesson.csv").exists()
    torch.rand(3)
    train(build(backbone, params), Samples(), params, parts, progress=False, split="s")
    for name in ("model/model.safetensors", "log.csv", "lesson.csv"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize(
    "changes",
    [
        {"train__lesson": LESSON | {"steps": 0}},
        {"model__use_jepa": False},
        {"model__use_captions": False},
        {"model__reader": None},
        {"train__jepa_share": 0.0},
    ],
)
def test_none_where_none_is_asked_or_nothing_can_be_read(
    backbone: Backbone, tmp_path: Path, changes: dict
) -> None:
    params = tiny(**{"train__lesson": LESSON, "train__steps": 2} | changes)
    train(build(backbone, params), Samples(), params, tmp_path, progress=False, split="s")
    assert not (tmp_path / "lesson.csv").exists()


def test_its_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"train\.lesson\.batch"):
        with_lesson(batch=0)


def test_what_is_not_finite_never_reaches_the_reader(backbone: Backbone) -> None:
    params = with_lesson(steps=2)
    model = build(backbone, params)
    good = model.lesson_loss
    model.lesson_loss = lambda *inputs: good(*inputs) * torch.nan
    with pytest.raises(NonFiniteError, match=r"lesson, steps up to 2: layout\.mse not finite"):
        learn(model, params)
    assert all(p.isfinite().all() for p in model.reader.parameters())


def test_the_processes_must_share_its_batch_equally(backbone: Backbone) -> None:
    model = build(backbone, with_lesson())
    two = SimpleNamespace(num_processes=2, process_index=0, device=torch.device("cpu"))
    with pytest.raises(ValueError, match=r"train\.lesson\.batch is 3: .* multiple of the 2"):
        teach(model, ITEMS, with_lesson().train, 0, two, lambda step: False)


def test_an_older_lesson_is_not_shown_as_that_of_a_new_run(
    backbone: Backbone, tmp_path: Path
) -> None:
    (tmp_path / "lesson.csv").write_text("step,layout.mse\n1,0.5\n")
    params = tiny(train__steps=2)
    train(build(backbone, params), Samples(), params, tmp_path, progress=False, split="s")
    assert not (tmp_path / "lesson.csv").exists()

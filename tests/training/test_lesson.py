"""The lesson of words: who learns in it, what from, and that a stopped one leaves no trace."""

import csv
from pathlib import Path

import pytest
import torch
from tiny_run import SAMPLES, Samples, build, sample, tiny

from satjepa.config import Params
from satjepa.config.errors import ConfigError
from satjepa.models.backbone import Backbone
from satjepa.models.objectives import Lesson
from satjepa.models.satjepa import SatJepa
from satjepa.training import checkpoint
from satjepa.training.environment import make_accelerator
from satjepa.training.loop import train
from satjepa.training.run import Interrupted
from satjepa.training.words import keep, teach

WORDS = {"windows": 6, "steps": 4, "batch": 3, "lr": 0.01, "weight_decay": 0.05}
ITEMS = [sample(i) for i in range(SAMPLES)]


def with_words(**changes: object) -> Params:
    return tiny(train__words=WORDS | changes)


def learn(model: SatJepa, params: Params, until: int = 99) -> list[dict[str, float]] | None:
    accelerator = make_accelerator("float32", [])
    return teach(model, ITEMS, params.train, 0, accelerator, lambda step: step >= until)


def weights(model: SatJepa) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_forecaster_and_reader_learn_and_nothing_else(backbone: Backbone) -> None:
    params = with_words()
    model = build(backbone, params)
    model.average_weights(0.9)
    before = weights(model)
    lines = learn(model, params)
    moved = {name for name, p in weights(model).items() if not torch.equal(p, before[name])}
    assert {name.split(".")[0] for name in moved} == {"forecaster", "reader"}
    assert [line["step"] for line in lines] == [2, 4]
    assert set(lines[0]) > {"step", "loss", "layout.mse", "caption.mse"}
    averages = model.state()
    for name in moved:
        assert torch.equal(averages[f"average.{name}"], weights(model)[name]), name


def test_two_lessons_are_equal_to_the_bit_and_another_seed_is_another(backbone: Backbone) -> None:
    params = with_words()
    models = [build(backbone, params) for _ in range(2)]
    assert learn(models[0], params) == learn(models[1], params)
    one, other = (weights(model) for model in models)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("until", [0, 3])
def test_a_lesson_that_is_stopped_has_changed_nothing(backbone: Backbone, until: int) -> None:
    params = with_words()
    model = build(backbone, params)
    before = weights(model)
    assert learn(model, params, until) is None
    after = weights(model)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_is_kept_is_what_the_model_makes_of_the_windows(backbone: Backbone) -> None:
    from satjepa.data.pairs import collate

    model = build(backbone, with_words())
    kept = keep(model, ITEMS, 4, 0)
    chosen = [0, 1, 3, 5]  # of seven, spread evenly
    with torch.no_grad():
        fresh = model.lesson(collate([ITEMS[i] for i in chosen]))
    assert kept.tokens.dtype == torch.float16 and kept.now["mask"].dtype == torch.bool
    for name in ("tokens", "vectors", "weight"):
        torch.testing.assert_close(
            getattr(kept, name).float(), getattr(fresh, name), atol=2e-3, rtol=1e-3
        )
    for name in ("now", "ahead"):
        words, expected = (getattr(x, name)["hidden"].float() for x in (kept, fresh))
        torch.testing.assert_close(words, expected, atol=2e-3, rtol=1e-3)
    assert len(keep(model, ITEMS, 99, 0).tokens) == SAMPLES


def test_a_reader_learns_to_hear_what_the_caption_alone_says(backbone: Backbone) -> None:
    """Layouts that only the caption of t+1 tells apart: told it, the reader finds them, told
    another's, it goes wrong, and with silence it says their mean.
    """
    params = with_words(steps=300, batch=16, lr=0.01)
    torch.manual_seed(0)
    model = build(backbone, params)
    kinds = torch.randint(2, (64,))
    words = torch.randn(2, 3, 128)[kinds]  # of two captions
    layouts = torch.nn.functional.layer_norm(torch.randn(2, 1, 1, 64), (64,))[kinds]
    tokens = torch.randn(64, 16, 16)
    mask = torch.ones(64, 3, dtype=torch.bool)
    ahead = {"hidden": words, "mask": mask, "pooled": torch.zeros(64, 128)}
    now = ahead | {"hidden": torch.randn(1, 3, 128).expand(64, -1, -1)}
    data = Lesson(tokens, layouts.expand(-1, 16, 1, -1), torch.ones(64, 16, 1), now, ahead)
    data = data._replace(now=fit(now), ahead=fit(ahead))
    model.lesson = lambda batch: data  # in place of what it would make of the windows
    learn(model, params, until=1000)
    errors = {}
    nobody = torch.zeros(64, dtype=torch.bool)
    for name, caption, mute in (
        ("true", data.ahead, nobody),
        ("other", {k: v.flip(0) for k, v in data.ahead.items()}, nobody),
        ("none", data.ahead, ~nobody),
    ):
        layout = model.read(tokens, model.projection(tokens), caption, mute)
        errors[name] = model.layout_loss(layout, data.vectors, data.weight)["layout"][1][0].item()
    assert errors["true"] < 0.1 * errors["none"] and errors["other"] > errors["none"]


def fit(caption: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    from satjepa.models.caption_tensors import fitted

    return fitted(caption, 5)


def test_a_run_gives_the_lesson_between_i_jepa_and_the_joint_steps(
    backbone: Backbone, tmp_path: Path
) -> None:
    params = with_words()
    whole = tmp_path / "whole"
    train(build(backbone, params), Samples(), params, whole, progress=False, split="s")
    rows = list(csv.DictReader((whole / "words.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["2", "4"] and float(rows[0]["layout.mse"]) > 0
    # stopped in the lesson, it goes on as if it had never been
    parts = tmp_path / "parts"
    fetched_before_joint = 2 * 3 + 6
    data = Samples(at={fetched_before_joint - 1: terminate})
    with pytest.raises(Interrupted, match="after step 3 of 6"):
        train(build(backbone, params), data, params, parts, progress=False, split="s")
    assert checkpoint.load(parts / "resume").state["step"] == 3
    assert not (parts / "words.csv").exists()
    torch.rand(3)
    train(build(backbone, params), Samples(), params, parts, progress=False, split="s")
    for name in ("model/model.safetensors", "log.csv", "words.csv"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name


def terminate() -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    "changes", [{"train__words": None}, {"model__use_jepa": False}, {"train__jepa_share": 0.0}]
)
def test_no_lesson_where_none_is_asked_or_nothing_can_be_read(
    backbone: Backbone, tmp_path: Path, changes: dict
) -> None:
    params = tiny(**{"train__words": WORDS} | changes)
    train(build(backbone, params), Samples(), params, tmp_path, progress=False, split="s")
    assert not (tmp_path / "words.csv").exists()


def test_settings_of_a_lesson_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"train\.words\.batch"):
        with_words(batch=0)

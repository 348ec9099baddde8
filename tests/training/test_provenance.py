"""What made a checkpoint: settings, split, frozen weights and code; what differs is named."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from checkpoint_files import CONFIG, header, write
from reach import REPO

from satjepa.config import from_dict, load_params
from satjepa.training import checkpoint, provenance
from satjepa.training.checkpoint import CheckpointError


def test_a_run_knows_nothing_of_the_baselines() -> None:
    """Editing them must not change its checkpoint, nor keep it from being read."""
    params = load_params(Path(__file__).resolve().parents[2] / "params.yaml")
    today = params.as_dict()
    header = provenance.make_header(today, "s", "b")
    assert "baselines" not in header["config"] and today["baselines"]["arms"]
    today["baselines"]["arms"] = {}
    assert from_dict(provenance.settings_of(header, today)).train == params.train


def test_another_run_is_named_setting_by_setting(tmp_path: Path) -> None:
    found = checkpoint.load(write(tmp_path / "m", 1.0))
    of_a_run = {name: part for name, part in CONFIG.items() if name not in provenance.NOT_OF_A_RUN}
    assert found.header["config"] == json.loads(json.dumps(of_a_run))
    assert len(of_a_run) < len(CONFIG)
    provenance.require_same(found, header())
    harmless = header(sample__steps=5, train__log_every=1, eval__batch=1, data__root="x")
    provenance.require_same(found, harmless)  # none of it changes a trained weight
    assert harmless["config_digest"] == found.header["config_digest"]
    assert header(train__lr=2e-3)["config_digest"] != found.header["config_digest"]
    other = header(split="t" * 64, train__lr=2e-3, model__use_jepa=False)
    with pytest.raises(CheckpointError) as error:
        provenance.require_same(found, other)
    assert str(error.value).splitlines()[1:] == [
        "  model.use_jepa: (absent) in the checkpoint, False here",
        "  train.lr: 0.001 in the checkpoint, 0.002 here",
        "  split hash: ssssssssssss in the checkpoint, tttttttttttt here",
        "Restore these settings to go on with it; remove it, or do not resume, to begin anew.",
    ]
    lines = provenance.differences(header(), header(backbone="x"))
    assert lines == ["backbone hash: bbbbbbbbbbbb in the checkpoint, x here"]


def test_hash_changes_with_any_bit_and_only_then() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).bfloat16()
    before = provenance.hash_module(module)
    assert provenance.hash_module(module) == before and len(before) == 64
    module[0].weight.requires_grad_(False)
    frozen = provenance.hash_module(module, frozen_only=True)
    with torch.no_grad():
        module[0].bias.add_(1)  # trained: the hash of the frozen part stays
    assert provenance.hash_module(module) != before
    assert provenance.hash_module(module, frozen_only=True) == frozen
    with torch.no_grad():
        module[0].weight.view(-1)[5:6].view(torch.int16).bitwise_xor_(1)
    assert provenance.hash_module(module, frozen_only=True) != frozen


def test_the_digest_of_the_code_follows_what_trains_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Path(shutil.copytree(Path(provenance.__file__).parents[1], tmp_path / "satjepa"))
    monkeypatch.setattr(provenance, "__file__", str(package / "training/provenance.py"))
    before = provenance.code_digest()
    (package / "metrics/pixels.py").write_text("# of no matter to training")
    assert provenance.code_digest() == before and len(before) == 64
    for name in (
        "models/adapter.py",
        "models/losses.py",
        "models/published/model.py",
        "training/loop.py",
    ):
        (package / name).write_text((package / name).read_text() + "\n")
        assert provenance.code_digest() != before
        before = provenance.code_digest()


def test_settings_from_before_a_key_was_there_are_completed() -> None:
    """With what its absence meant.

    A checkpoint that has the key differs from one without only where it does something else.
    """
    today = load_params(REPO / "params.yaml", **{"train.jepa_share": 0.0}).as_dict()
    then = copy.deepcopy(today)
    del then["train"]["jepa_share"]
    old, new = (provenance.make_header(config, "s", "b") for config in (then, today))
    assert "jepa_share" not in old["config"]["train"]
    assert from_dict(provenance.settings_of(old, today)).train.jepa_share == 0
    assert provenance.differences(old, new) == []
    today["train"]["jepa_share"] = 0.5
    (line,) = provenance.differences(old, provenance.make_header(today, "s", "b"))
    assert line == "train.jepa_share: 0.0 in the checkpoint, 0.5 here"


def test_a_precision_in_an_older_word_is_read() -> None:
    """`precision: "no"`, which YAML 1.1 takes for false, is float32."""
    settings = load_params(REPO / "params.yaml").as_dict()
    older = copy.deepcopy(settings)
    older["train"]["precision"] = "no"
    old, new = (provenance.make_header(config, "s", "b") for config in (older, settings))
    assert from_dict(provenance.settings_of(old, settings)).train.precision == "float32"
    assert old["config"]["train"]["precision"] == "no"  # the header itself stays as it is
    assert provenance.differences(old, new) == []
    other = settings | {"train": settings["train"] | {"precision": "bf16"}}
    assert provenance.differences(old, provenance.make_header(other, "s", "b"))


def test_a_header_holds_what_decides_the_weights_and_the_sampler_is_todays() -> None:
    today = load_params(REPO / "params.yaml", **{"sample.guidance": 2.5}).as_dict()
    header = provenance.make_header(today, "s", "b")
    assert not header["config"].keys() & set(provenance.NOT_OF_A_RUN)
    assert from_dict(provenance.settings_of(header, today)).sample.guidance == 2.5
    # an imported checkpoint brings the settings of its sampler along, and these stay
    imported = provenance.make_header(today, "s", "b", today["sample"] | {"steps": 20})
    assert from_dict(provenance.settings_of(imported, today)).sample.steps == 20
    assert provenance.differences(header, imported) == []


def test_a_header_from_before_arms_and_seeds_is_read() -> None:
    today = load_params(REPO / "params.yaml").as_dict()
    header = provenance.make_header(today, "s", "b")
    header["config"] |= {
        "ablate": {"steps": 3, "seeds": [0], "arms": {}},
        "published": {"steps": 3, "arms": {}},
        "eval": today["eval"],
    }
    assert from_dict(provenance.settings_of(header, today)).as_dict() == today
    assert provenance.differences(header, provenance.make_header(today, "s", "b")) == []


def test_what_decides_no_weight_of_a_model_without_reader_or_lesson_is_not_compared() -> None:
    reader = {"dim": 8, "layers": 1, "heads": 1}
    without = {"model.reader": None, "train.lesson.steps": 0}
    one = header_of(**without)
    other = header_of(**without, **{"train.lesson.batch": 7, "loss.layout": 1.0})
    assert not provenance.differences(one, other)
    idle = {"model.reader": reader, "train.lesson.steps": 0}
    assert not provenance.differences(
        header_of(**idle), header_of(**idle, **{"train.lesson.windows": 7})
    )
    assert provenance.differences(header_of(**idle), header_of(**idle, **{"loss.layout": 1.0}))
    taught = {"model.reader": reader, "train.lesson.steps": 3}
    assert provenance.differences(
        header_of(**taught), header_of(**taught, **{"train.lesson.batch": 7})
    )


def header_of(**changes: object) -> dict:
    params = load_params(REPO / "params.yaml", **changes)
    return provenance.make_header(params.as_dict(), "s", "b")

"""A shipped model: averaged weights alone, which forecast as the run does."""

from pathlib import Path

import pytest
import torch
from model_fixtures import batch, build, build_published, parts, trained  # noqa: F401 (fixtures)

from satjepa.training import checkpoint, provenance
from satjepa.training.checkpoint import CheckpointError
from satjepa.training.export import export


def finished(model: torch.nn.Module, run: Path) -> dict:
    """Leave the checkpoint of a finished run, whose averages are not its last weights."""
    model.eval().average_weights(0.9)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    header = {
        "config": {"backbone": {"path": "tiny"}, "train": {}, "data": {}},
        "backbone": provenance.hash_module(model.backbone, frozen_only=True),
        "split": "s",
    }
    checkpoint.save(run / "model", model.state(), header, {"step": 7}, {})
    return header


@pytest.fixture
def run(trained, tmp_path: Path):  # noqa: F811
    torch.manual_seed(0)
    model = trained()
    header = finished(model, tmp_path / "run")
    return tmp_path / "run", model, header


def test_it_forecasts_as_the_run_does(run, build, batch, tmp_path: Path) -> None:  # noqa: F811
    folder, model, _header = run
    shipped = provenance.restore(export(folder, tmp_path / "out"), build(seed=1))
    expected = model.forecast(batch, 2, 5)
    torch.testing.assert_close(shipped.forecast(batch, 2, 5), expected, rtol=0, atol=0)
    model._average = {}
    assert (model.forecast(batch, 2, 5) - expected).abs().max() > 1e-3  # they do differ


def test_it_holds_what_is_trained_and_nothing_else(run, tmp_path: Path) -> None:
    folder, model, header = run
    found = export(folder, tmp_path / "out")
    assert sorted(found.tensors) == sorted(model.trainable_names())
    assert sorted(file.name for file in found.folder.iterdir()) == [
        checkpoint.MODEL,
        checkpoint.STATE,
    ]
    assert found.header == header | {"format": checkpoint.FORMAT, "weights": "averaged"}
    assert found.state["step"] == 7
    assert provenance.differences(found.header, header) == []


def test_equal_runs_give_equal_bytes(run, tmp_path: Path) -> None:
    folder, _, _ = run
    first, second = (export(folder, tmp_path / name).folder for name in ("a", "b"))
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes(), file.name


def test_the_published_variant_too(build_published, batch, tmp_path: Path) -> None:  # noqa: F811
    model = build_published(seed=1)
    finished(model, tmp_path / "run")
    shipped = export(tmp_path / "run", tmp_path / "out")
    again = provenance.restore(shipped, build_published(seed=1))
    assert not hasattr(again, "target_encoder")
    torch.testing.assert_close(again.forecast(batch), model.forecast(batch), rtol=0, atol=0)


def test_what_holds_no_averages_is_refused(run, tmp_path: Path) -> None:
    export(run[0], tmp_path / "again" / "model")
    with pytest.raises(CheckpointError, match=r"holds no averaged weights.*a run that"):
        export(tmp_path / "again", tmp_path / "out")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        export(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_model_is_refused(run, build, tmp_path: Path) -> None:  # noqa: F811
    shipped = export(run[0], tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"does not fit the model.*missing or unknown"):
        provenance.restore(shipped, build(seed=1, use_captions=False))


def test_a_damaged_file_is_named(run, tmp_path: Path) -> None:
    folder = export(run[0], tmp_path / "out").folder
    blob = bytearray((folder / checkpoint.MODEL).read_bytes())
    blob[-1] ^= 1
    (folder / checkpoint.MODEL).write_bytes(blob)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        checkpoint.load(folder)


def test_nothing_is_left_to_train(run, tmp_path: Path) -> None:
    found = checkpoint.load(export(run[0], tmp_path / "out").folder, with_optimizer=True)
    assert found.optimizer == {}

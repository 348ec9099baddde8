"""`load_model` of the model card: files and folders, with and without their split."""

# ruff: noqa: F811 (a test asks for an imported fixture by its name)

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from card_fixtures import WORDS, file, model, ours, rgb  # noqa: F401
from published_files import COARSE, content, saved
from reach import REPO

import satjepa
from satjepa import assemble, load_model, predict_next_frame
from satjepa.config import ConfigError, load_params
from satjepa.data.splits import LeakError, Split
from satjepa.models.backbone import BackboneError
from satjepa.published.convert import convert
from satjepa.published.dims import PublishedError
from satjepa.training import checkpoint, provenance


def written(model, folder: Path, split: str) -> Path:
    """The checkpoint folder of a model, of a run on the split with this hash."""
    backbone = provenance.hash_module(model.backbone, frozen_only=True)
    header = provenance.make_header(model.params.as_dict(), split, backbone)
    return checkpoint.save(folder, model.state(), header, {"step": 1}, {})


def test_file_and_folder_give_one_model(file: Path, model: object, rgb, tmp_path: Path) -> None:
    convert(file, tmp_path / "folder")
    same = load_model(tmp_path / "folder", torch.device("cpu"), backbone="assets/tiny_sd3")
    frame = predict_next_frame(rgb, model, WORDS, 2)
    assert torch.equal(predict_next_frame(rgb, same, WORDS, 2), frame)
    with pytest.raises(LeakError):
        same.trained_on.assert_unseen([])
    coarse = load_model(saved(content(COARSE, optimizer=False), tmp_path / "coarse.pth.tar"))
    assert predict_next_frame(rgb, coarse, num_diffusion_steps=2).shape == (3, 64, 64)


def test_a_model_of_ours_is_loaded_with_or_without_its_split(
    ours, rgb, tmp_path: Path, monkeypatch
) -> None:
    split = Split("region", 0, train=("A",), val=("B",), test=("C",))
    folder = written(ours, tmp_path / "model", split.sha256)
    monkeypatch.setattr(assemble, "open_split", lambda: split)
    model = load_model(folder)
    assert model.trained_on is split and not model.reads_padding
    guidance = load_params(REPO / "params.yaml").sample.guidance  # a run's checkpoint holds none
    frame = predict_next_frame(rgb, ours.with_sampling(guidance=guidance), WORDS, 1)
    assert torch.equal(predict_next_frame(rgb, model, WORDS, 1), frame)
    assert assemble.load_model(folder).trained_on is split
    monkeypatch.setattr(assemble, "ARTIFACTS", "nowhere")

    def assert_unknown(error: type[Exception], message: str) -> None:
        with pytest.raises(LeakError, match="not known here"):
            load_model(folder).trained_on.assert_unseen([])
        with pytest.raises(error, match=message):  # what is to be scored must know its split
            assemble.load_model(folder)

    other = Split("region", 1, ("A",), ("B",), ("C",))
    monkeypatch.setattr(assemble, "open_split", lambda: other)
    assert_unknown(checkpoint.CheckpointError, "trained on another split")
    monkeypatch.setattr(assemble, "open_split", lambda: Split.load(tmp_path / "gone.json"))
    assert_unknown(FileNotFoundError, r"gone\.json")


def test_a_checkpoint_is_restored_as_it_is_told(
    ours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For forecasts it needs no split; it is on the device asked for.

    What was read of the disk is not changed.
    """
    on_disk = checkpoint.load(written(ours, tmp_path / "model", checkpoint.UNKNOWN))
    header = copy.deepcopy(on_disk.header)
    model = assemble.from_checkpoint(on_disk, "cpu", sample={"steps": 7, "guidance": None})
    assert model.params.sample.steps == 7
    assert model.params.sample.guidance == load_params(REPO / "params.yaml").sample.guidance
    assert not model.training
    with pytest.raises(LeakError, match="not known here"):
        model.trained_on.assert_unseen([])
    with pytest.raises(ConfigError, match=r"sample\.stepz"):
        assemble.from_checkpoint(on_disk, "cpu", sample={"stepz": 7})
    tiny = str(REPO / "assets/tiny_sd3")
    assert assemble.from_checkpoint(on_disk, "cpu", backbone=tiny).params.backbone.path == tiny
    damaged = dataclasses.replace(on_disk, header=on_disk.header | {"backbone": "b" * 64})
    message = f"backbone bbbbbbbbbbbb; what lies in {tiny} is"
    with pytest.raises(checkpoint.CheckpointError, match=message):
        assemble.from_checkpoint(damaged, "cpu", backbone=tiny)
    assert on_disk.header == header
    monkeypatch.setattr(assemble, "the_device", lambda: torch.device("meta"))
    monkeypatch.setattr(assemble, "build_model", lambda params, device: copy.deepcopy(ours))
    assert load_model(on_disk.folder).device.type == "cpu"
    assert load_model(on_disk.folder, "meta").device.type == "meta"
    assert assemble.load_model(on_disk.folder).device.type == "meta"
    asked = []
    monkeypatch.setattr(assemble, "load_text_encoders", lambda params, device: asked.append(device))
    assert satjepa.load(on_disk.folder).joint.device.type == "meta"
    satjepa.load(on_disk.folder, device="cpu")  # also where there is a GPU
    assert [device.type for device in asked] == ["meta", "cpu"]


# diffusers passes that argument
@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument:UserWarning")
@pytest.mark.usefixtures("no_hub")
def test_what_cannot_be_loaded_says_what_to_do(file: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.pth\.tar"):
        load_model(tmp_path / "gone.pth.tar")
    with pytest.raises(PublishedError, match="truncated"):
        (tmp_path / "cut.pth.tar").write_bytes(file.read_bytes()[:999])
        load_model(tmp_path / "cut.pth.tar")
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint at"):
        load_model(tmp_path)
    with pytest.raises(BackboneError, match="accept its licence there, log in"):
        load_model(file, backbone="stabilityai/stable-diffusion-3.5-medium")
